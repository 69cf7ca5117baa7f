//! `/healthz`, `/readyz`, `/metrics`.
//!
//! Invariant: readiness goes with minting. A replica that cannot record, or whose store is not
//! believed, mints nothing and says so, so that others get its requests.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use dayfly_lease::{Refusal, Write};

use super::problem::Fault;
use crate::{broker::Broker, telemetry::Situation};

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, body = String)))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Behind a store that is silent a probe waits for what is in the writer before it, and nobody
/// who balances load waits for that.
const READY_WITHIN: Duration = Duration::from_secs(8);

/// The store answers as well, and minting is not suspended.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, body = String),
        (status = 503, body = dayfly_api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn readyz(State(broker): State<Arc<Broker>>) -> Result<&'static str, Fault> {
    let asked = async {
        // Through the writer, since that is what a mint needs.
        broker.engine.store().write(Write::Probe).await?;
        if broker.engine.store().standing().await?.suspended.is_some() {
            return Err(Refusal::Suspended.into());
        }
        Ok("ready\n")
    };
    tokio::select! {
        answer = asked => answer,
        () = broker.clock.sleep(READY_WITHIN) => {
            Err(Fault::unavailable("store_unavailable", "the store did not answer in time"))
        }
    }
}

/// Prometheus exposition, with the living leases as the store counts them now.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses(
        (status = 200, body = String),
        (status = 503, body = dayfly_api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn metrics(State(broker): State<Arc<Broker>>) -> Result<Response, Fault> {
    let situation = Situation {
        living: broker.store.living().await?,
        quarantined: broker.store.quarantined().await?,
        standing: broker.engine.store().standing().await?,
        now: broker.engine.store().now().await?,
    };
    let text = broker.metrics.exposition(&situation, &broker.engine);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
