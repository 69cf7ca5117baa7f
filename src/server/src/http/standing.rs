//! `GET /api/v1/standing` and `POST /api/v1/standing/release`.
//!
//! Invariant: letting go of the brake ends leases that it kept alive, so it is one person's
//! own word, in the record under their name.

use std::sync::Arc;

use axum::{Json, extract::State};
use dayfly_api as api;
use dayfly_lease::{Owner, Write};

use super::{
    caller::{Caller, Refused},
    problem::Fault,
};
use crate::{broker::Broker, policy::Ask};

/// Shows what the installation may do at the moment.
#[utoipa::path(
    get, path = "/api/v1/standing", tag = "administrator", security(("federated" = [])),
    responses(
        (status = 200, body = api::Standing),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 403, body = api::Problem, content_type = "application/problem+json"),
        (status = 503, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
) -> Result<Json<api::Standing>, Fault> {
    caller.may(&broker, &Ask::ReadStanding).await.map_err(Refused::forbidden)?;
    caller.note_reading(&broker, "read_standing").await?;
    standing(&broker).await.map(Json)
}

/// Lets go of the mass-revocation brake: what it held is ended. Letting go of nothing is no
/// error.
#[utoipa::path(
    post, path = "/api/v1/standing/release", tag = "administrator",
    security(("federated" = [])),
    responses(
        (status = 200, body = api::Standing),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 403, body = api::Problem, content_type = "application/problem+json"),
        (status = 503, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn release(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
) -> Result<Json<api::Standing>, Fault> {
    caller.may(&broker, &Ask::ReleaseHold).await.map_err(Refused::forbidden)?;
    let write = Write::ReleaseHold { actor: caller.principal.id() };
    broker.engine.store().write(write).await?;
    standing(&broker).await.map(Json)
}

async fn standing(broker: &Broker) -> Result<api::Standing, Fault> {
    let standing = broker.engine.store().standing().await?;
    let now = broker.engine.store().now().await?;
    // A hold that has run out stands in the row until the next one; it holds nothing.
    let hold = standing.hold.filter(|hold| hold.is_on(now));
    Ok(api::Standing {
        suspended: standing.suspended.map(|suspended| api::Suspension {
            since: suspended.since.rfc3339(),
            reason: suspended.reason,
        }),
        hold: hold.map(|hold| api::Hold {
            from: hold.from.rfc3339(),
            to: hold.to.rfc3339(),
            until: hold.until.rfc3339(),
        }),
        backends: broker.engine.backends().filter_map(|name| backend(broker, name)).collect(),
    })
}

fn backend(broker: &Broker, name: &str) -> Option<api::BackendStanding> {
    let line = broker.engine.line(name)?;
    let (owner, owner_installation) = match line.owner() {
        Owner::Another(marker) => ("another", Some(marker.installation.to_string())),
        Owner::Ours => ("ours", None),
        Owner::Unknown => ("unknown", None),
    };
    Some(api::BackendStanding {
        name: name.to_owned(),
        owner: owner.to_owned(),
        owner_installation,
        down: line.is_down(),
    })
}
