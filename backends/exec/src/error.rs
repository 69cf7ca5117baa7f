//! What a call came to, in the engine's words.
//!
//! Invariant: nothing that the program said is in an error but the message that the protocol
//! has for it, cut, without control characters and without what we gave the program to sign in
//! with.

use std::path::PathBuf;

use dayfly_backend_sdk::{Error, ErrorKind, Retry, Secret};

/// The longest message of a program that is kept, in characters.
const MESSAGE_MAX: usize = 300;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It is another program than the one that was pinned. It was not run.
    #[error("`{}` is not the program that `sha256` pins: it has {found}", .path.display())]
    Changed { path: PathBuf, found: String },
    /// It could not be read or started.
    #[error("the program could not be started: {0}")]
    NotStarted(#[source] std::io::Error),
    /// It said itself what failed.
    #[error("the program says: {message}")]
    Said { kind: ErrorKind, retry: Retry, message: String },
    /// It ran, and nobody knows what it did.
    #[error("{0}")]
    Unclear(String),
}

impl Failure {
    /// In the engine's words; `doing` says what failed.
    pub(crate) fn into_error(self, doing: &'static str) -> Error {
        let (kind, retry) = match &self {
            Self::Changed { .. } => (ErrorKind::Denied, Retry::Permanent),
            Self::NotStarted(_) => (ErrorKind::Unavailable, Retry::Temporary),
            Self::Said { kind, retry, .. } => (*kind, *retry),
            Self::Unclear(_) => (ErrorKind::UnknownOutcome, Retry::Temporary),
        };
        Error::new(kind, doing).with_retry(retry).with_source(self)
    }
}

/// A message of the program, fit for an error.
pub(crate) fn tidy(message: &str, secret: Option<&Secret>) -> String {
    // First what could split a secret in two, then the secret.
    let plain: String = message.chars().filter(|c| !c.is_control()).collect();
    let masked = match secret.map(Secret::expose) {
        Some(secret) if !secret.is_empty() => plain.replace(secret, "…"),
        Some(_) | None => plain,
    };
    masked.chars().take(MESSAGE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_and_masked() {
        let secret = Secret::new("hunter2");
        assert_eq!(tidy("no\nlogin with hun\nter2\u{1b}[31m", Some(&secret)), "nologin with …[31m");
        assert_eq!(tidy(&"é".repeat(400), None).chars().count(), 300);
        assert_eq!(tidy("a", Some(&Secret::new(""))), "a");
    }
}
