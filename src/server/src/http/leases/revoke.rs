//! `POST /api/v1/leases/{id}/revoke`.
//!
//! Invariant: 200 means verified dead, 202 means that it must die and does not yet. Asking
//! twice is no error.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use dayfly_api as api;
use dayfly_lease::{Cause, State as LeaseState};

use super::{
    super::{
        caller::{Caller, Refused},
        json::{Body, Id, Parameters},
        problem::Fault,
    },
    Named, Wait, checked_reason, named,
};
use crate::{broker::Broker, policy::Ask};

/// Ends a lease before its time.
#[utoipa::path(
    post, path = "/api/v1/leases/{id}/revoke", tag = "workload", request_body = api::RevokeLease,
    security(("task" = []), ("federated" = [])),
    params(("id" = String, Path), ("wait" = Option<String>, Query, description = "for example `5s`, at most 20 s")),
    responses(
        (status = 200, body = api::Revoked),
        (status = 202, body = api::Revoked),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 404, body = api::Problem, content_type = "application/problem+json"),
        (status = 422, body = api::Problem, content_type = "application/problem+json"),
        (status = 503, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Id(id): Id,
    Parameters(wait): Parameters<Wait>,
    Body { value: wanted, .. }: Body<api::RevokeLease>,
) -> Result<(StatusCode, Json<api::Revoked>), Fault> {
    let wait = wait.duration(&broker)?;
    let lease = Named::new(named(&broker, &id).await?);
    let ask = Ask::RevokeLease { lease: lease.facts() };
    caller.may(&broker, &ask).await.map_err(Refused::hidden)?;
    let actor = caller.principal.id();
    let cause = Cause::Requested;
    let reason = Some(checked_reason(wanted.reason)?);
    let row = broker.engine.revoke(lease.row.id, cause, &actor, reason, wait).await?;
    let revoked_at = match row.state {
        LeaseState::Revoked { at, .. } => Some(at.rfc3339()),
        LeaseState::Pending
        | LeaseState::Active { .. }
        | LeaseState::Revoking { .. }
        | LeaseState::Abandoned { .. } => None,
    };
    let status = if revoked_at.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let body = api::Revoked {
        id: lease.lease.clone(),
        state: row.state.as_str().to_owned(),
        cause: row.state.cause().map(|cause| cause.as_str().to_owned()),
        revoked_at,
    };
    Ok((status, Json(body)))
}
