//! `POST /api/v1/leases/{id}/abandon`.
//!
//! Invariant: nobody gives up on a credential alone. The first person's wish changes nothing
//! but the record of it, and the second one is never the first.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use dayfly_api as api;
use dayfly_lease::{State as LeaseState, Write, Written};

use super::{
    super::{
        caller::{Caller, Refused},
        json::{Body, Id},
        problem::Fault,
        render,
    },
    Named, checked_reason, named,
};
use crate::{broker::Broker, policy::Ask};

/// Asks to give up on a lease whose revocation keeps failing, or agrees to it. Nothing then
/// proves that its credential is dead; the sweep goes on trying to end it.
#[utoipa::path(
    post, path = "/api/v1/leases/{id}/abandon", tag = "administrator",
    request_body = api::AbandonLease,
    security(("federated" = [])), params(("id" = String, Path)),
    responses(
        (status = 200, body = api::Lease, description = "the second person: it is given up"),
        (status = 202, body = api::Lease, description = "the first person: it is still being revoked"),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 404, body = api::Problem, content_type = "application/problem+json"),
        (status = 409, body = api::Problem, content_type = "application/problem+json"),
        (status = 422, body = api::Problem, content_type = "application/problem+json"),
        (status = 503, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Id(id): Id,
    Body { value: wanted, .. }: Body<api::AbandonLease>,
) -> Result<(StatusCode, Json<api::Lease>), Fault> {
    let lease = Named::new(named(&broker, &id).await?);
    let ask = Ask::AbandonLease { lease: lease.facts() };
    caller.may(&broker, &ask).await.map_err(Refused::hidden)?;
    let reason = checked_reason(wanted.reason)?;
    if reason.trim().is_empty() {
        return Err(Fault::field("invalid_reason", "/reason", "must say why"));
    }
    let write = Write::Abandon { lease: lease.row.id, actor: caller.principal.id(), reason };
    let row = match broker.engine.store().write(write).await {
        Ok(Written::Lease(row)) => row,
        Ok(_) => return Err(Fault::internal()),
        Err(error) => {
            let refused = error.refusal().is_some();
            let fault = Fault::from(error);
            // Whoever tried to be both people is in the record.
            if refused {
                caller.note_refusal(&broker, fault.code(), Some(&lease.row.role)).await?;
            }
            return Err(fault);
        }
    };
    let status = match row.state {
        LeaseState::Abandoned { .. } => StatusCode::OK,
        LeaseState::Pending
        | LeaseState::Active { .. }
        | LeaseState::Revoking { .. }
        | LeaseState::Revoked { .. } => StatusCode::ACCEPTED,
    };
    Ok((status, Json(render::lease(&row, None))))
}
