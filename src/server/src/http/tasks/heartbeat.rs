//! `POST /api/v1/tasks/{id}/heartbeat`: the work goes on.
//!
//! Invariant: it prolongs nothing but the silence that is allowed, and leaves no record; the
//! deadline stays.

use std::sync::Arc;

use axum::{Json, extract::State};
use dayfly_api as api;
use dayfly_lease::{Refusal, Task, TaskId, TaskState, Write, Written};

use super::{
    super::{
        caller::{Caller, Refused},
        json::Id,
        problem::Fault,
    },
    named,
};
use crate::{broker::Broker, policy::Ask};

/// Says that the task is still worked on. It needs a task that was opened with
/// `heartbeat_seconds`; of one that has ended it says how.
#[utoipa::path(
    post, path = "/api/v1/tasks/{id}/heartbeat", tag = "workload",
    params(("id" = String, Path)), security(("task" = [])),
    responses(
        (status = 200, body = api::Heartbeat),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 404, body = api::Problem, content_type = "application/problem+json"),
        (status = 409, body = api::Problem, content_type = "application/problem+json"),
        (status = 503, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<api::Heartbeat>, Fault> {
    // The caller's own task was read when its token was looked up.
    let own = caller.task.as_ref().filter(|task| task.id.to_string() == id);
    let task = match own {
        Some(task) => task.clone(),
        None => named(&broker, &id).await?,
    };
    let name = task.id.to_string();
    let ask = Ask::HeartbeatTask { task: &name, owner: &task.principal };
    caller.may(&broker, &ask).await.map_err(Refused::hidden)?;
    let task = beat(&broker, task.id).await?;
    let heartbeat = task.heartbeat.ok_or_else(Fault::internal)?;
    Ok(Json(api::Heartbeat {
        id: name,
        state: "open".to_owned(),
        lost_at: heartbeat.lost_at.rfc3339(),
        expires_at: task.expires_at.rfc3339(),
    }))
}

async fn beat(broker: &Broker, task: TaskId) -> Result<Task, Fault> {
    let store = broker.engine.store();
    match store.write(Write::Beat { task }).await {
        Ok(Written::Task(task)) => Ok(*task),
        Ok(_) => Err(Fault::internal()),
        Err(error) if error.refusal() == Some(Refusal::TaskClosed) => {
            let task = store.task(task).await?.ok_or_else(Fault::not_found)?;
            Err(match task.state {
                TaskState::Closed { end, .. } => Fault::task_ended(end.as_str()),
                // Its deadline has passed, and nobody has come to end it yet.
                TaskState::Open => Fault::task_ended("expired"),
            })
        }
        Err(error) => Err(error.into()),
    }
}
