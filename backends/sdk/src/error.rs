//! How a backend says what went wrong.
//!
//! Invariant: the engine decides on [`ErrorKind`] and [`Retry`] alone and never on a
//! backend's own codes or texts.

use std::{error::Error as StdError, fmt};

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The name is taken. Never a reason to reuse it.
    Conflict,
    /// The backend refused us: wrong root credential or missing privilege.
    Denied,
    /// The credential owns objects or is referred to, so it cannot be dropped.
    Dependent,
    /// The role's template or the request makes no sense to the backend.
    Invalid,
    /// What was asked for is not there.
    NotFound,
    /// The backend could not be reached; nothing was sent.
    Unavailable,
    /// A request was sent and its outcome is not known: it may yet take effect.
    UnknownOutcome,
}

impl ErrorKind {
    /// The kind as it stands in lease rows, audit records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::Dependent => "dependent",
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Unavailable => "unavailable",
            Self::UnknownOutcome => "unknown_outcome",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether trying again may help without anyone acting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Somebody must act first. The engine still retries, slowly: debt is never written off.
    Permanent,
    /// It may pass by itself.
    Temporary,
}

/// A backend's failure. `Display` says what failed, without the source's text and without
/// anything secret.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    retry: Retry,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with the retry class that the kind usually has.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let retry = match kind {
            ErrorKind::Unavailable | ErrorKind::UnknownOutcome => Retry::Temporary,
            ErrorKind::Conflict
            | ErrorKind::Denied
            | ErrorKind::Dependent
            | ErrorKind::Invalid
            | ErrorKind::NotFound => Retry::Permanent,
        };
        Self { kind, retry, message: message.into(), source: None }
    }

    /// Sets the retry class.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether trying again may help.
    pub fn retry(&self) -> Retry {
        self.retry
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
