//! `GET /api/v1/leases/{id}`.
//!
//! Invariant: the credential is not in it.

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
    Named, named,
};
use crate::{broker::Broker, policy::Ask};

/// Shows a lease.
#[utoipa::path(
    get, path = "/api/v1/leases/{id}", tag = "workload", params(("id" = String, Path)),
    security(("task" = []), ("federated" = [])),
    responses(
        (status = 200, body = api::Lease),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 404, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<api::Lease>, Fault> {
    let lease = Named::new(named(&broker, &id).await?);
    let ask = Ask::ReadLease { lease: lease.facts() };
    caller.may(&broker, &ask).await.map_err(Refused::hidden)?;
    Ok(Json(render::lease(&lease.row, None)))
}
