//! `POST /api/v1/ssf/{name}`: a transmitter of shared signals pushes a security event (RFC 8935).
//!
//! Invariant: 202 means that what the event takes away is gone and stays so, or that there was
//! nothing to take; which of the two, nobody is told. What is refused is refused in the words of
//! RFC 8935, and changes nothing but a record now and then.

use std::sync::Arc;

use axum::{
    Json,
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{self, MethodRouter},
};
use dayfly_api as api;
use dayfly_lease::{Disabling, StoreError, Write, audit::Entry};
use serde_json::json;

use super::{
    caller::{only_bearer, source_address},
    envelope::request_id,
    gate::Heard,
    json::Id,
    problem::Fault,
};
use crate::{
    broker::Broker,
    identity::{Rejection, SecurityEvents, TOKEN_LEN_MAX},
    ssf::Stream,
};

const MEDIA_TYPE: &str = "application/secevent+jwt";
/// The longest name of an event, or id of a token, that a record holds.
const NAME_CHARS_MAX: usize = 200;

/// The route, with a bound of its own on the body.
pub(super) fn post() -> MethodRouter<Arc<Broker>> {
    routing::post(handler).layer(DefaultBodyLimit::max(TOKEN_LEN_MAX))
}

/// Takes a security event token of a configured transmitter. `session-revoked` and
/// `credential-change` end the subject's open tasks, and what was issued to it until then opens no
/// more; everything else is taken and does nothing.
#[utoipa::path(
    post, path = "/api/v1/ssf/{name}", tag = "operations",
    params(("name" = String, Path, description = "the stream's name in the configuration")),
    request_body(content = String, content_type = "application/secevent+jwt"),
    responses(
        (status = 202, description = "taken"),
        (status = 400, body = api::SecurityEventError),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 413, body = api::Problem, content_type = "application/problem+json"),
        (status = 503, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    Id(name): Id,
    request: Request,
) -> Result<Response, Fault> {
    let stream = broker.streams.named(&name).ok_or_else(Fault::unauthenticated)?;
    let source = source_address(request.extensions(), &broker);
    let source = source.map(|address| address.to_string());
    if !stream.lets_in(only_bearer(request.headers())) {
        note_refusal(&broker, stream, "bearer_wrong", source).await?;
        return Err(Fault::unauthenticated());
    }
    if !is_security_event(request.headers()) {
        note_refusal(&broker, stream, "content_type", source).await?;
        return Ok(refusal("invalid_request", "the body must be application/secevent+jwt"));
    }
    let Heard { body, place: _place } = Heard::from_request(request, &broker).await?;
    // What is not even text is not three parts either.
    let token = std::str::from_utf8(&body).unwrap_or_default();
    let slot = broker.streams.slot().ok_or_else(Fault::busy)?;
    let read = stream.read(token).await;
    drop(slot);
    let said = match read {
        Ok(said) => said,
        Err(rejection) if rejection.is_unavailable() => {
            let detail = "the transmitter's keys cannot be had";
            return Err(Fault::unavailable("identity_unavailable", detail));
        }
        Err(rejection) => {
            note_refusal(&broker, stream, rejection.code(), source).await?;
            let (err, description) = said_to_the_transmitter(rejection);
            return Ok(refusal(err, description));
        }
    };
    let disablings = stream.disablings(&said);
    if disablings.is_empty() {
        note_ignored(&broker, stream, &said).await?;
    } else {
        let work = disable_all(Arc::clone(&broker), name, disablings);
        // To its end, also when the transmitter does not wait for it.
        broker.engine.detach(work).await.map_err(|_| Fault::internal())??;
    }
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Disables them one by one. If one cannot be disabled now, the transmitter is told to come again,
/// and nothing is remembered of what it told.
async fn disable_all(
    broker: Arc<Broker>,
    name: String,
    disablings: Vec<Disabling>,
) -> Result<(), StoreError> {
    let mut result = "repeated";
    for disabling in disablings {
        let done = broker.engine.disable(disabling).await.inspect_err(|error| {
            broker.metrics.security_event(&name, "failed");
            tracing::error!(stream = name, %error, "ssf.failed");
        })?;
        if let Some(tasks) = done {
            result = "taken";
            tracing::info!(stream = name, tasks = tasks.len(), "ssf.taken");
        }
    }
    broker.metrics.security_event(&name, result);
    Ok(())
}

fn is_security_event(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).map(str::trim);
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case(MEDIA_TYPE))
}

/// The error of RFC 8935, and what is said of it. Why a signature does not hold, the audit log
/// says.
fn said_to_the_transmitter(rejection: Rejection) -> (&'static str, &'static str) {
    match rejection {
        Rejection::AlgorithmMismatch
        | Rejection::AlgorithmRefused
        | Rejection::AmbiguousKey
        | Rejection::BadSignature
        | Rejection::UnknownKey => ("invalid_key", "the token cannot be verified"),
        Rejection::ManyAudiences | Rejection::WrongAudience => {
            ("invalid_audience", "the token is for another receiver")
        }
        Rejection::UnknownIssuer => ("invalid_issuer", "the token is of another transmitter"),
        Rejection::Expired
        | Rejection::IssuedInFuture
        | Rejection::NotYetValid
        | Rejection::TimesOutOfOrder
        | Rejection::TooLongLived => ("invalid_request", "the token is too old or too new"),
        Rejection::AccountRefused
        | Rejection::AnswerRefused { .. }
        | Rejection::CallerRefused
        | Rejection::Certificate { .. }
        | Rejection::ClaimMalformed { .. }
        | Rejection::ClaimMissing { .. }
        | Rejection::ClusterUnavailable
        | Rejection::HostRefused
        | Rejection::KeysUnavailable
        | Rejection::Malformed { .. }
        | Rejection::Proof { .. }
        | Rejection::ReviewRefused
        | Rejection::StsUnavailable
        | Rejection::SubjectRefused
        | Rejection::TooLarge
        | Rejection::Trapped { .. }
        | Rejection::UnknownTrustDomain
        | Rejection::WrongType => ("invalid_request", "the body is not a security event token"),
    }
}

fn refusal(err: &str, description: &str) -> Response {
    let body = api::SecurityEventError { err: err.to_owned(), description: description.to_owned() };
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

async fn note_refusal(
    broker: &Broker,
    stream: &Stream,
    code: &str,
    source_address: Option<String>,
) -> Result<(), Fault> {
    broker.metrics.security_event(&stream.name, "refused");
    tracing::warn!(stream = stream.name, code, "ssf.refused");
    let Some(times) = stream.refused(broker.clock.running()) else { return Ok(()) };
    let entry = Entry::new("ssf.refused", "unknown")
        .with("stream", stream.name.as_str())
        .with("code", code)
        .with("times", times)
        .with("source_address", source_address)
        .with("request", request_id());
    broker.engine.store().write(Write::Note(entry)).await?;
    Ok(())
}

/// What a transmitter says and we do nothing about is in the record by its name.
async fn note_ignored(
    broker: &Broker,
    stream: &Stream,
    said: &SecurityEvents,
) -> Result<(), Fault> {
    broker.metrics.security_event(&stream.name, "ignored");
    let short = |name: &str| name.chars().take(NAME_CHARS_MAX).collect::<String>();
    let events: Vec<String> = said.events.iter().map(|event| short(&event.name)).collect();
    let entry = Entry::new("ssf.ignored", format!("ssf|{}", stream.name))
        .with("events", json!(events))
        .with("subjects", said.subjects.len())
        .with("id", short(&said.id))
        .with("request", request_id());
    broker.engine.store().write(Write::Note(entry)).await?;
    Ok(())
}
