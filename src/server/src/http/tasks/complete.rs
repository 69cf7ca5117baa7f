//! `POST /api/v1/tasks/{id}/complete`: the work is over, and so are its credentials.
//!
//! Invariant: 200 means that every credential of the task is verified dead; until then it is
//! 202 with what is still owed (I5), and also when two people gave up on one of them.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use dayfly_api as api;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{TaskEnd, TaskState};

use super::{
    super::{
        caller::{Caller, Refused},
        json::{Body, Id, Parameters},
        leases::Wait,
        problem::Fault,
        render,
    },
    named,
};
use crate::{broker::Broker, policy::Ask};

/// Completes a task. Completing twice is success, and the first end stands.
#[utoipa::path(
    post, path = "/api/v1/tasks/{id}/complete", tag = "workload",
    request_body = api::CompleteTask, security(("task" = [])),
    params(("id" = String, Path), ("wait" = Option<String>, Query, description = "for example `5s`, at most 20 s")),
    responses(
        (status = 200, body = api::Completed),
        (status = 202, body = api::Completed),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 404, body = api::Problem, content_type = "application/problem+json"),
        (status = 503, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Id(id): Id,
    Parameters(wait): Parameters<Wait>,
    Body { value: wanted, .. }: Body<api::CompleteTask>,
) -> Result<(StatusCode, Json<api::Completed>), Fault> {
    let wait = wait.duration(&broker)?;
    let task = named(&broker, &id).await?;
    let name = task.id.to_string();
    let ask = Ask::CompleteTask { task: &name, owner: &task.principal };
    caller.may(&broker, &ask).await.map_err(Refused::hidden)?;
    let end = match wanted.outcome {
        api::Outcome::Cancelled => TaskEnd::Cancelled,
        api::Outcome::Completed => TaskEnd::Completed,
        api::Outcome::Failed => TaskEnd::Failed,
    };
    let actor = caller.principal.id();
    let done = broker.engine.complete(task.id, end, &actor, wait).await?;
    let dead = done.counts.owed() == 0 && done.counts.abandoned == 0;
    let state = match done.task.state {
        TaskState::Closed { end, .. } if dead => end.as_str(),
        TaskState::Closed { .. } if done.counts.owed() == 0 => "abandoned",
        TaskState::Closed { .. } | TaskState::Open => "revoking",
    };
    let body = api::Completed {
        id: name,
        state: state.to_owned(),
        leases: render::counts(done.counts),
        residual_until: done.counts.residual_until.map(Timestamp::rfc3339),
    };
    Ok((if dead { StatusCode::OK } else { StatusCode::ACCEPTED }, Json(body)))
}
