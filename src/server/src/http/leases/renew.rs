//! `POST /api/v1/leases/{id}/renew`.
//!
//! Invariant: what is granted is within the role's maximum and the task's deadline, and the
//! answer says so when that is less than was asked for.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use dayfly_api as api;

use super::{
    super::{
        caller::{Caller, Refused},
        json::{Body, Id},
        problem::Fault,
    },
    Named, named,
};
use crate::{broker::Broker, policy::Ask};

/// The longest that anybody can ask for: a year. More is a mistake, not a wish.
const TTL_SECONDS_MAX: i64 = 366 * 24 * 3_600;

/// Lets a lease live longer.
#[utoipa::path(
    post, path = "/api/v1/leases/{id}/renew", tag = "workload", request_body = api::RenewLease,
    security(("task" = [])), params(("id" = String, Path)),
    responses(
        (status = 200, body = api::Renewed),
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
    Body { value: wanted, .. }: Body<api::RenewLease>,
) -> Result<Json<api::Renewed>, Fault> {
    let lease = Named::new(named(&broker, &id).await?);
    let ask = Ask::RenewLease { lease: lease.facts(), ttl_seconds: wanted.ttl_seconds };
    caller.may(&broker, &ask).await.map_err(Refused::hidden)?;
    let minimum = broker.roles.find(&lease.row.role).map_or(1, |role| role.ttl_min.as_secs());
    let seconds = u64::try_from(wanted.ttl_seconds).unwrap_or(0);
    if seconds < minimum.max(1) || wanted.ttl_seconds > TTL_SECONDS_MAX {
        caller.note_refusal(&broker, "invalid_ttl", Some(&lease.row.role)).await?;
        let detail = format!("must be {} to {TTL_SECONDS_MAX} s", minimum.max(1));
        return Err(Fault::field("invalid_ttl", "/ttl_seconds", detail));
    }
    let ttl = Duration::from_secs(seconds);
    let renewal = broker.engine.renew(lease.row.id, ttl, &caller.principal.id()).await?;
    Ok(Json(api::Renewed {
        id: lease.lease.clone(),
        ttl_seconds: renewal.granted.as_secs().cast_signed(),
        expires_at: renewal.lease.expires_at.rfc3339(),
        max_expires_at: renewal.lease.max_expires_at.rfc3339(),
        truncated: renewal.truncated,
    }))
}
