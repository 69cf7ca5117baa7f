//! What surrounds every request: its id, its bounds, its line in the log, its headers.
//!
//! Invariant: a request id that a client sends is checked before it is used anywhere, so that
//! nobody writes into our log.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::problem::Fault;
use crate::broker::Broker;

/// What the middleware needs.
#[derive(Clone)]
pub(super) struct Envelope {
    pub(super) broker: Arc<Broker>,
    pub(super) slots: Arc<Semaphore>,
}

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    static CURRENT: String;
}

/// The id of the request that is being answered.
pub(super) fn request_id() -> String {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}

/// Gives the request its id, its span, its metrics and its headers.
pub(super) async fn enveloped(
    State(envelope): State<Envelope>,
    request: Request,
    next: Next,
) -> Response {
    let broker = envelope.broker;
    let id = own_or_given(&request, &broker);
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "(none)".to_owned());
    let began = broker.clock.now();
    let span = tracing::info_span!("http.request", request.id = id, http.route = route,
        http.method = %request.method());
    let mut response = CURRENT.scope(id.clone(), next.run(request)).instrument(span.clone()).await;
    let took = broker.clock.now().since(began);
    let status = response.status().as_u16();
    broker.metrics.request(&route, status, took);
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    span.in_scope(|| {
        tracing::info!(http.status = status, duration_ms, "http.answered");
    });
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID.clone(), id);
    }
    // No answer of a broker of secrets is worth caching, but for what says so itself.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Bounds how many requests run at a time, and how long one may take. What a request began
/// goes on without it.
pub(super) async fn bounded(
    State(envelope): State<Envelope>,
    request: Request,
    next: Next,
) -> Response {
    let broker = envelope.broker;
    // Whose heartbeat is turned away is not silent.
    let path = request.extensions().get::<MatchedPath>();
    let is_heartbeat = path.is_some_and(|path| path.as_str().ends_with("/heartbeat"));
    let turned_away = |code, detail| {
        if is_heartbeat {
            broker.engine.missed_a_beat();
        }
        Fault::unavailable(code, detail).into_response()
    };
    let Ok(_slot) = envelope.slots.try_acquire() else {
        return turned_away("busy", "the broker has enough to do");
    };
    tokio::select! {
        response = next.run(request) => response,
        () = broker.clock.sleep(broker.limits.request_timeout) => {
            turned_away("timeout", "the request took too long")
        }
    }
}

fn own_or_given(request: &Request, broker: &Broker) -> String {
    const LEN_MAX: usize = 64;
    let given = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let harmless = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    match given {
        Some(id) if !id.is_empty() && id.len() <= LEN_MAX && id.bytes().all(harmless) => {
            id.to_owned()
        }
        Some(_) | None => {
            let mut random = [0_u8; 10];
            broker.entropy.fill(&mut random);
            format!("req_{}", data_encoding::HEXLOWER.encode(&random))
        }
    }
}
