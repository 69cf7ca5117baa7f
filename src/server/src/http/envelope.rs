//! What surrounds every request: its id, its bounds, its line in the log, its headers.
//!
//! Invariant: a request id that a client sends is checked before it is used anywhere, so that
//! nobody writes into our log.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Instrument;

use super::{caller::shows_task_token, gate::Gate, problem::Fault};
use crate::broker::Broker;

/// What the middleware needs.
#[derive(Clone)]
pub(super) struct Envelope {
    pub(super) broker: Arc<Broker>,
    /// What the bodies of callers pass.
    pub(super) callers: Arc<Gate>,
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
    mut request: Request,
    next: Next,
) -> Response {
    let broker = envelope.broker;
    let beat = Beat::of(&broker, &request);
    let response = if let Some(place) = envelope.callers.place() {
        request.extensions_mut().insert(place.clone());
        let response = in_time(&broker, request, next).await;
        place.leave();
        response
    } else {
        Fault::busy().into_response()
    };
    if let Some(beat) = beat {
        beat.answered(&response);
    }
    response
}

/// Bounds how long a request may take that takes its place by itself, once its body is there
/// ([`Heard`](super::gate::Heard)).
pub(super) async fn timed(
    State(envelope): State<Envelope>,
    request: Request,
    next: Next,
) -> Response {
    in_time(&envelope.broker, request, next).await
}

async fn in_time(broker: &Broker, request: Request, next: Next) -> Response {
    tokio::select! {
        response = next.run(request) => response,
        () = broker.clock.sleep(broker.limits.request_timeout) => Fault::too_slow().into_response(),
    }
}

/// The code of the problem that a response is, for whatever surrounds its handler.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code(pub(super) &'static str);

/// Ours, and no stranger's doing: an issuer that cannot be asked (`identity_unavailable`) is not
/// among them, since anybody can name one.
const TURNED_AWAY: [&str; 3] = ["busy", "store_unavailable", "timeout"];
/// A lookup in a store that is well takes nowhere near this. Whoever hangs up later was kept
/// waiting.
const KEPT_WAITING: Duration = Duration::from_millis(500);

/// A heartbeat that is being answered. Whose heartbeat is turned away is not silent, nor is whoever
/// hangs up because we are slow.
struct Beat {
    broker: Arc<Broker>,
    began: Duration,
    /// By a task's token, which nobody but the store is asked about.
    of_task: bool,
    answered: bool,
}

impl Beat {
    fn of(broker: &Arc<Broker>, request: &Request) -> Option<Self> {
        let path = request.extensions().get::<MatchedPath>()?;
        path.as_str().ends_with("/heartbeat").then(|| Self {
            broker: Arc::clone(broker),
            began: broker.clock.running(),
            of_task: shows_task_token(request.headers()),
            answered: false,
        })
    }

    fn answered(mut self, response: &Response) {
        self.answered = true;
        let code = response.extensions().get::<Code>();
        if code.is_some_and(|Code(code)| TURNED_AWAY.contains(code)) {
            self.broker.engine.missed_a_beat();
        }
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        let waited = self.broker.clock.running().saturating_sub(self.began);
        if !self.answered && self.of_task && waited >= KEPT_WAITING {
            self.broker.engine.missed_a_beat();
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
