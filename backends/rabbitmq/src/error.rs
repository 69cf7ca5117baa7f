//! What the management API and the way to it answer, in the engine's words.
//!
//! Invariant: no body gets into an error but the API's `reason`, and not of a request that had
//! a password's hash in it.

use dayfly_backend_sdk::{Error, ErrorKind, Retry};
use reqwest::StatusCode;

/// Why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The API answered with an error.
    #[error("the management API answered {status}{reason}")]
    Answered { status: StatusCode, reason: String },
    /// Nothing was sent.
    #[error("no connection: {0}")]
    Connect(String),
    /// It answered with something that it never says.
    #[error("the management API's answer cannot be read")]
    Strange,
    /// It was done, and what should be gone is still there.
    #[error("{0}")]
    Survived(&'static str),
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
            Self::Answered { status, .. } => class(*status),
            Self::Connect(_) => (ErrorKind::Unavailable, Retry::Temporary),
            Self::Strange | Self::Unknown(_) => (ErrorKind::UnknownOutcome, Retry::Temporary),
            Self::Survived(_) => (ErrorKind::Dependent, Retry::Temporary),
            Self::Taken => (ErrorKind::Conflict, Retry::Permanent),
        };
        Error::new(kind, doing).with_retry(retry).with_source(self)
    }
}

fn class(status: StatusCode) -> (ErrorKind, Retry) {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (ErrorKind::Denied, Retry::Permanent),
        StatusCode::NOT_FOUND => (ErrorKind::NotFound, Retry::Permanent),
        status if status.is_server_error() => (ErrorKind::UnknownOutcome, Retry::Temporary),
        _ => (ErrorKind::Invalid, Retry::Permanent),
    }
}

/// What reqwest says of the way, without the address: a path there is a name, and no more.
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

    /// A node that cannot write says so with its own fault, whatever it has done in memory.
    #[test]
    fn a_fault_of_the_server_leaves_the_outcome_unknown() {
        for status in [500, 502, 503, 504, 507] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = Failure::Answered { status, reason: String::new() }.into_error("x");
            assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{status}");
            assert_eq!(error.retry(), Retry::Temporary, "{status}");
        }
        let refused = StatusCode::FORBIDDEN;
        let error = Failure::Answered { status: refused, reason: String::new() }.into_error("x");
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Denied, Retry::Permanent));
    }
}
