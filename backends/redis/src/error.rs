//! What a node and the way to it answer, in the engine's words.
//!
//! Invariant: no text of the server gets into an error where it may quote what we sent: the
//! answer to `ACL SETUSER` quotes its rules, and one of them is the password's hash.

use dayfly_backend_sdk::{Error, ErrorKind, Retry};
use redis::RedisError;

/// Why a message to a node failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nothing was sent.
    #[error("no connection to {node}")]
    Connect {
        node: String,
        refused: bool,
        #[source]
        cause: Cause,
    },
    /// The mint's deadline has passed at the node.
    #[error("the mint's deadline has passed at {node}")]
    Late { node: String },
    /// The node answered with an error.
    #[error("{node} refused")]
    Server {
        node: String,
        code: String,
        #[source]
        cause: Cause,
    },
    /// It was done, and what should be gone is still there.
    #[error("it is still there at {node}")]
    Survived { node: String },
    /// The name is there.
    #[error("the name is taken at {node}")]
    Taken { node: String },
    /// It was done, and the node cannot write it down: a full disk.
    #[error("{node} cannot write its users to its disk")]
    Unsaved {
        node: String,
        #[source]
        cause: Cause,
    },
    /// Sent, and nobody knows what became of it.
    #[error("no answer from {node}")]
    Unknown {
        node: String,
        #[source]
        cause: Cause,
    },
}

/// What lies behind, in words that may be logged.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Cause(String);

impl Failure {
    /// A failure before anything was sent.
    pub(crate) fn connect(node: &str, error: &RedisError) -> Self {
        let refused = matches!(error.kind(), redis::ErrorKind::AuthenticationFailed)
            || matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"));
        Self::Connect { node: node.to_owned(), refused, cause: cause(error) }
    }

    /// A failure after the message was sent.
    pub(crate) fn sent(node: &str, error: &RedisError) -> Self {
        let node = node.to_owned();
        let answered = matches!(
            error.kind(),
            redis::ErrorKind::Server(_)
                | redis::ErrorKind::Extension
                | redis::ErrorKind::AuthenticationFailed
        );
        if !answered {
            return Self::Unknown { node, cause: cause(error) };
        }
        // Of a message with several commands, the first that failed: what comes after it says
        // only that something did.
        let errors = error.clone().into_server_errors();
        if let Some((_, first)) = errors.as_deref().and_then(<[_]>::first) {
            let cause = quoted(first.details().unwrap_or(first.code()));
            return Self::Server { node, code: first.code().to_owned(), cause };
        }
        let code = error.code().unwrap_or("ERR").to_owned();
        Self::Server { node, code, cause: cause(error) }
    }

    /// A failure to write down what was done. A node that is not set up to is another matter.
    pub(crate) fn unsaved(self) -> Self {
        match self {
            // The words of `ACL SAVE`, and those of `CONFIG REWRITE`.
            Self::Server { node, cause, .. }
                if cause.0.contains("trying to save") || cause.0.contains("Rewriting config") =>
            {
                Self::Unsaved { node, cause }
            }
            Self::Connect { .. }
            | Self::Late { .. }
            | Self::Server { .. }
            | Self::Survived { .. }
            | Self::Taken { .. }
            | Self::Unknown { .. }
            | Self::Unsaved { .. } => self,
        }
    }

    /// Whether the login itself was refused.
    pub(crate) fn is_login_refused(&self) -> bool {
        matches!(self, Self::Connect { refused: true, .. })
    }

    /// In the engine's words; `doing` says what failed.
    pub(crate) fn into_error(self, doing: &'static str) -> Error {
        let (kind, retry) = self.class();
        Error::new(kind, doing).with_retry(retry).with_source(self)
    }

    fn class(&self) -> (ErrorKind, Retry) {
        match self {
            Self::Connect { refused: true, .. } => (ErrorKind::Denied, Retry::Permanent),
            Self::Connect { .. } => (ErrorKind::Unavailable, Retry::Temporary),
            Self::Late { .. } => (ErrorKind::Invalid, Retry::Permanent),
            Self::Survived { .. } => (ErrorKind::Dependent, Retry::Temporary),
            Self::Taken { .. } => (ErrorKind::Conflict, Retry::Permanent),
            Self::Unknown { .. } | Self::Unsaved { .. } => {
                (ErrorKind::UnknownOutcome, Retry::Temporary)
            }
            Self::Server { code, .. } => match code.as_str() {
                "NOPERM" | "NOAUTH" | "WRONGPASS" => (ErrorKind::Denied, Retry::Permanent),
                "BUSY" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "TRYAGAIN" => {
                    (ErrorKind::Unavailable, Retry::Temporary)
                }
                _ => (ErrorKind::Invalid, Retry::Permanent),
            },
        }
    }
}

fn cause(error: &RedisError) -> Cause {
    // Of the way, and not of what went over it: what TLS or the system says.
    if error.is_io_error() {
        return Cause(error.to_string());
    }
    quoted(error.detail().unwrap_or(error.category()))
}

fn quoted(text: &str) -> Cause {
    // "Error in ACL SETUSER modifier '#…'": the rule is in the template, the hash is not.
    let quotes = text.contains("modifier '#") || text.contains("modifier '>");
    Cause(if quotes { "the server refused the password's hash" } else { text }.to_owned())
}
