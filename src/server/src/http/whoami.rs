//! `GET /api/v1/whoami`.
//!
//! Invariant: it tells a caller about himself and about nobody else.

use std::sync::Arc;

use axum::{Json, extract::State};
use dayfly_api as api;

use super::{
    caller::{Caller, Refused},
    problem::Fault,
    render,
};
use crate::{broker::Broker, policy::Ask};

/// Says who the bearer is.
#[utoipa::path(
    get, path = "/api/v1/whoami", tag = "workload", security(("task" = []), ("federated" = [])),
    responses(
        (status = 200, body = api::WhoAmI),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
) -> Result<Json<api::WhoAmI>, Fault> {
    caller.may(&broker, &Ask::Whoami).await.map_err(Refused::forbidden)?;
    let (principal, task) = (&caller.principal, caller.task.as_ref());
    Ok(Json(api::WhoAmI {
        principal: principal.id(),
        kind: principal.kind.as_str().to_owned(),
        issuer: principal.issuer.clone(),
        subject: principal.subject.clone(),
        task: task.map(|task| task.id.to_string()),
        on_behalf_of: task.and_then(|task| task.on_behalf_of.as_ref()).map(render::person),
    }))
}
