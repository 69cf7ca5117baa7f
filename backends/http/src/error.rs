//! What an API and the way to it answer, in the engine's words.
//!
//! Invariant: no body gets into an error but an API's own `message` or `error`, cut and without
//! our password, and not of a request that has or makes a credential's secret.

use dayfly_backend_sdk::{Error, ErrorKind, Retry, Secret, Timestamp};
use reqwest::StatusCode;

/// The longest text of an API that is kept, in characters.
const MESSAGE_MAX: usize = 200;

/// Why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The API answered with an error. `later`: it said when to come again.
    #[error("the API answered {status}{reason}")]
    Answered { status: StatusCode, reason: String, later: bool },
    /// Nothing was sent.
    #[error("no connection: {0}")]
    Connect(String),
    /// It would end before its lease.
    #[error(
        "the API ends it at {told}, before its lease at {until}: lower the role's `ttl_max`, or \
         say `slack_s` if clocks differ as much"
    )]
    Early { told: Timestamp, until: Timestamp },
    /// It would outlive its lease.
    #[error(
        "the API gives it until {told}, which is later than its lease ({until}): say `life_min_s` \
         or `slack_s` of `expiry` as the API has them"
    )]
    Late { told: Timestamp, until: Timestamp },
    /// It was made, cannot be handed over, and was not ended.
    #[error("it was made, and could not be ended: {0}")]
    Left(String),
    /// What would end it was lost with the mint's answer, or never was.
    #[error("{0}")]
    Lost(&'static str),
    /// A request that cannot be made of this. Nothing was sent.
    #[error("{0}")]
    Refused(String),
    /// It answered with something that the configuration does not know.
    #[error("the API's answer {0}")]
    Strange(&'static str),
    /// The name is there.
    #[error("the name is taken")]
    Taken,
    /// Sent, and nobody knows what became of it.
    #[error("no answer: {0}")]
    Unknown(String),
}

impl Failure {
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        if error.is_connect() { Self::Connect(chain(error)) } else { Self::Unknown(chain(error)) }
    }

    /// In the engine's words; `doing` says what failed.
    pub(crate) fn into_error(self, doing: &'static str) -> Error {
        let (kind, retry) = match &self {
            Self::Answered { status, later, .. } => class(*status, *later),
            Self::Connect(_) => (ErrorKind::Unavailable, Retry::Temporary),
            Self::Early { .. } | Self::Late { .. } | Self::Refused(_) => {
                (ErrorKind::Invalid, Retry::Permanent)
            }
            Self::Lost(_) => (ErrorKind::Dependent, Retry::Permanent),
            Self::Left(_) | Self::Strange(_) | Self::Unknown(_) => {
                (ErrorKind::UnknownOutcome, Retry::Temporary)
            }
            Self::Taken => (ErrorKind::Conflict, Retry::Permanent),
        };
        Error::new(kind, doing).with_retry(retry).with_source(self)
    }
}

fn class(status: StatusCode, later: bool) -> (ErrorKind, Retry) {
    match status {
        StatusCode::TOO_MANY_REQUESTS => (ErrorKind::Unavailable, Retry::Temporary),
        // GitHub's limits are a 403.
        StatusCode::FORBIDDEN | StatusCode::SERVICE_UNAVAILABLE if later => {
            (ErrorKind::Unavailable, Retry::Temporary)
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (ErrorKind::Denied, Retry::Permanent),
        StatusCode::NOT_FOUND => (ErrorKind::NotFound, Retry::Permanent),
        StatusCode::CONFLICT => (ErrorKind::Dependent, Retry::Temporary),
        StatusCode::REQUEST_TIMEOUT => (ErrorKind::UnknownOutcome, Retry::Temporary),
        // A success that is not in `ok` was a success of something.
        status if status.is_server_error() || status.is_success() => {
            (ErrorKind::UnknownOutcome, Retry::Temporary)
        }
        _ => (ErrorKind::Invalid, Retry::Permanent),
    }
}

/// A text of the API, fit for an error.
pub(crate) fn tidy(message: &str, secret: Option<&Secret>) -> String {
    // First what could split a secret in two, then the secret.
    let plain: String = message.chars().filter(|c| !c.is_control()).collect();
    let masked = match secret.map(Secret::expose) {
        Some(secret) if !secret.is_empty() => plain.replace(secret, "…"),
        Some(_) | None => plain,
    };
    masked.chars().take(MESSAGE_MAX).collect()
}

/// What reqwest says of the way, without the address.
fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "not in time".to_owned() } else { String::new() };
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_and_masked() {
        let secret = Secret::new("hunter2");
        assert_eq!(tidy("no\nlogin with hun\nter2\u{1b}[31m", Some(&secret)), "nologin with …[31m");
        assert_eq!(tidy(&"é".repeat(400), None).chars().count(), 200);
    }

    #[test]
    fn what_may_pass_by_itself_is_temporary() {
        for (status, later, kind) in [
            (429, false, ErrorKind::Unavailable),
            (403, true, ErrorKind::Unavailable),
            (403, false, ErrorKind::Denied),
            (503, true, ErrorKind::Unavailable),
            (503, false, ErrorKind::UnknownOutcome),
            (202, false, ErrorKind::UnknownOutcome),
            (422, false, ErrorKind::Invalid),
            (302, false, ErrorKind::Invalid),
        ] {
            assert_eq!(class(StatusCode::from_u16(status).unwrap(), later).0, kind, "{status}");
        }
    }
}
