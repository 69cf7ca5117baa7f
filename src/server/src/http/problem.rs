//! Errors as RFC 9457 problems.
//!
//! Invariant: only what is listed here reaches a client. Everything else is an opaque 500
//! with a request id; what may not be seen is 404, not 403.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use dayfly_api::{FieldFault, Problem};
use dayfly_backend_sdk::Retry;
use dayfly_lease::{MintError, Refusal, RenewError, StoreError, SweepError};

use super::envelope;
use crate::policy::Denial;

/// Why a request was not done.
#[derive(Debug)]
pub(crate) struct Fault {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after_seconds: Option<u32>,
    denied_by: Option<String>,
    errors: Vec<FieldFault>,
    /// How to authenticate instead, where that is what was amiss.
    challenge: &'static str,
}

/// What a token that is not bound is shown as.
const BEARER: &str = "Bearer";
/// RFC 9449, section 7.1. The algorithms are those of `identity::Algorithm`.
const PROOF: &str = "DPoP error=\"invalid_dpop_proof\", \
    algs=\"ES256 ES384 EdDSA PS256 PS384 PS512 RS256 RS384 RS512\"";
/// The same where the token is good, and not what it was shown with.
const BOUND: &str = "DPoP error=\"invalid_token\", \
    algs=\"ES256 ES384 EdDSA PS256 PS384 PS512 RS256 RS384 RS512\"";

/// How long a client should wait before it tries again what is down.
const RETRY_AFTER_SECONDS: u32 = 5;

impl Fault {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            retry_after_seconds: None,
            denied_by: None,
            errors: Vec::new(),
            challenge: BEARER,
        }
    }

    /// The problem's stable name.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The same for whatever was wrong with the token: a stranger learns nothing from it.
    pub(crate) fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "the bearer token was not accepted")
    }

    /// The proof of possession does not hold, whatever the token is.
    pub(crate) fn invalid_proof() -> Self {
        let detail = "the proof of possession (DPoP) was not accepted";
        let fault = Self::new(StatusCode::UNAUTHORIZED, "invalid_dpop_proof", detail);
        Self { challenge: PROOF, ..fault }
    }

    /// The token is good, and bound to what the request does not prove to have.
    pub(crate) fn token_bound() -> Self {
        let detail = "the token is bound to a key or a certificate, and the request does not \
                      prove that it has that";
        let fault = Self::new(StatusCode::UNAUTHORIZED, "token_bound", detail);
        Self { challenge: BOUND, ..fault }
    }

    /// The token is given to a job once, and was first used with another key.
    pub(crate) fn another_key() -> Self {
        let detail = "the token was first used with another key, which the request does not prove \
                      to have; commands of one job share a key by `--proof-key-file`";
        let fault = Self::new(StatusCode::UNAUTHORIZED, "token_bound", detail);
        Self { challenge: BOUND, ..fault }
    }

    /// The same for whatever was wrong with the token of the person on whose behalf it is asked.
    pub(crate) fn person_not_accepted() -> Self {
        let detail = "the person's token was not accepted";
        Self::field("person_not_accepted", "/on_behalf_of", detail)
    }

    /// Nobody has told us what we are called.
    pub(crate) fn no_public_url() -> Self {
        let detail = "this broker does not know by which address it is reached; \
                      set `public_url` in its `[server]`";
        Self::new(StatusCode::NOT_FOUND, "public_url_unset", detail)
    }

    /// There is no such thing, or the caller may not see it.
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such thing here")
    }

    /// Nobody has told us where people sign in.
    pub(crate) fn no_login() -> Self {
        let detail = "this broker has no `[login]`; whoever runs it says where tokens come from";
        Self::new(StatusCode::NOT_FOUND, "not_configured", detail)
    }

    /// The body or a parameter makes no sense.
    pub(crate) fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// The body makes sense and one field of it is not acceptable.
    pub(crate) fn field(code: &'static str, pointer: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let fault = FieldFault { pointer: pointer.to_owned(), detail: detail.clone() };
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail);
        problem.errors.push(fault);
        problem
    }

    /// A rule forbids it, or none permits it.
    pub(crate) fn denied(code: &'static str, denial: &Denial) -> Self {
        let mut problem = Self::new(StatusCode::FORBIDDEN, code, denial.explanation());
        problem.denied_by = Some(denial.denied_by().to_owned());
        problem
    }

    /// The status, for those who say it in other words.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// What is said of it.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The rule that denied it.
    pub(super) fn denied_by(&self) -> Option<&str> {
        self.denied_by.as_deref()
    }

    /// When to try again, if that may help.
    pub(super) fn retry_after_seconds(&self) -> Option<u32> {
        self.retry_after_seconds
    }

    /// Says which field of the request it is about.
    pub(crate) fn at(mut self, pointer: &str) -> Self {
        let detail = self.detail.clone();
        self.errors.push(FieldFault { pointer: pointer.to_owned(), detail });
        self
    }

    /// Too large to be read.
    pub(crate) fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the body is too large")
    }

    /// Something that we need is down.
    pub(crate) fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        problem.retry_after_seconds = Some(RETRY_AFTER_SECONDS);
        problem
    }

    /// No room for one more.
    pub(super) fn busy() -> Self {
        Self::unavailable("busy", "the broker has enough to do")
    }

    /// It was not done, or had not come, in time.
    pub(super) fn too_slow() -> Self {
        Self::unavailable("timeout", "the request took too long")
    }

    /// Something that we need refuses.
    pub(crate) fn refused(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, code, detail)
    }

    /// A defect of ours.
    pub(crate) fn internal() -> Self {
        let detail = "something went wrong; the request id is in the broker's log";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// The task is over: how.
    pub(crate) fn task_ended(state: &str) -> Self {
        Self::conflict("task_closed", format!("the task has ended: {state}"))
    }

    fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::AnotherKey { .. } => Self::another_key(),
            Refusal::InProgress => Self::conflict("idempotency_in_progress", text),
            Refusal::JobEnded => Self::conflict("job_ended", text),
            Refusal::KeyReused => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", text)
            }
            Refusal::LeaseChanged => Self::conflict("lease_changed", text),
            Refusal::LeaseExpired => Self::conflict("lease_expired", text),
            Refusal::LeaseUnknown | Refusal::TaskUnknown => Self::not_found(),
            Refusal::Quota(exceeded) => {
                let mut fault = Self::new(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", text);
                let after = exceeded.after.map(|after| after.as_secs().saturating_add(1));
                let after = after.and_then(|after| u32::try_from(after).ok());
                fault.retry_after_seconds = Some(after.unwrap_or(RETRY_AFTER_SECONDS));
                fault
            }
            Refusal::NoHeartbeat => Self::conflict("no_heartbeat", text),
            Refusal::NotOwed => Self::conflict("lease_not_owed", text),
            Refusal::SamePerson => Self::conflict("same_person", text),
            Refusal::Suspended => Self::unavailable("minting_suspended", text),
            Refusal::NotRenewable => Self::conflict("not_renewable", text),
            Refusal::RootChanged | Refusal::RootStaged => {
                Self::conflict("rotation_under_way", text)
            }
            Refusal::IdentityDisabled | Refusal::Replayed { .. } => Self::unauthenticated(),
            Refusal::PersonDisabled => Self::person_not_accepted(),
            Refusal::TaskClosed => Self::conflict("task_closed", text),
            Refusal::TaskEnding => Self::conflict("task_ending", text),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        if let Some(refusal) = error.refusal() {
            return refusal.into();
        }
        tracing::error!(error = %chain(&error), "request.store.failed");
        if matches!(error, StoreError::Corrupt { .. }) {
            return Self::internal();
        }
        Self::unavailable("store_unavailable", "the broker's store is unavailable")
    }
}

impl From<MintError> for Fault {
    fn from(error: MintError) -> Self {
        if let Some(refusal) = error.refusal() {
            return refusal.into();
        }
        tracing::warn!(error = %chain(&error), "request.mint.failed");
        match error {
            MintError::Backend(error) if error.retry() == Retry::Permanent => {
                let detail = "the backend refuses to mint this role; its owner must look at it";
                Self::new(StatusCode::BAD_GATEWAY, "backend_refused", detail)
            }
            MintError::Backend(_) | MintError::Timeout => Self::unavailable(
                "backend_unavailable",
                "the backend could not mint; whatever it made will be revoked",
            ),
            MintError::Down { after } => {
                let mut fault = Self::unavailable(
                    "backend_unavailable",
                    "the backend does not answer; nothing was asked of it",
                );
                fault.retry_after_seconds =
                    u32::try_from(after.as_secs()).ok().map(|seconds| seconds.max(1));
                fault
            }
            MintError::Owner(SweepError::Another(_)) => Self::new(
                StatusCode::BAD_GATEWAY,
                "backend_of_another",
                "the prefix at the backend belongs to another installation; \
                 its owner must look at it",
            ),
            MintError::Store(error) | MintError::Owner(SweepError::Store(error)) => error.into(),
            MintError::Owner(_) => Self::unavailable(
                "backend_unavailable",
                "the backend could not be asked whose prefix it has",
            ),
            MintError::Busy => Self::unavailable("backend_busy", "the backend has enough to do"),
            MintError::Handle(_)
            | MintError::Interrupted
            | MintError::Seal(_)
            | MintError::UnknownBackend => Self::internal(),
        }
    }
}

impl From<RenewError> for Fault {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::Store(error) => error.into(),
            RenewError::Backend(_) | RenewError::Timeout => {
                tracing::warn!(error = %chain(&error), "request.renew.failed");
                Self::unavailable(
                    "backend_unavailable",
                    "the backend could not renew the credential",
                )
            }
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let problem = Problem {
            kind: format!("https://dayfly.dev/problems/{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail,
            request_id: envelope::request_id(),
            retryable: self.retry_after_seconds.is_some(),
            denied_by: self.denied_by,
            errors: self.errors,
        };
        let mut response = (self.status, Json(problem)).into_response();
        response.extensions_mut().insert(envelope::Code(self.code));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(self.challenge));
        }
        response
    }
}

pub(super) async fn no_such_path() -> Fault {
    Fault::not_found()
}

pub(super) async fn no_such_method() -> Fault {
    let detail = "this path has no such method";
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// An error with all its sources, for the log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
