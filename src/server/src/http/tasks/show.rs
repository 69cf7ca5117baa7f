//! `GET /api/v1/tasks/{id}`.
//!
//! Invariant: another's task is indistinguishable from none.

use std::sync::Arc;

use axum::{Json, extract::State};
use dayfly_api as api;

use super::{
    super::{
        caller::{Caller, Refused},
        json::Id,
        problem::Fault,
        render,
    },
    named,
};
use crate::{broker::Broker, policy::Ask};

/// Shows a task.
#[utoipa::path(
    get, path = "/api/v1/tasks/{id}", tag = "workload", params(("id" = String, Path)),
    security(("task" = []), ("federated" = [])),
    responses(
        (status = 200, body = api::Task),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 404, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<api::Task>, Fault> {
    let task = named(&broker, &id).await?;
    let name = task.id.to_string();
    let ask = Ask::ReadTask { task: &name, owner: &task.principal };
    caller.may(&broker, &ask).await.map_err(Refused::hidden)?;
    let counts = broker.engine.store().counts(task.id).await?;
    Ok(Json(render::task(&task, counts)))
}
