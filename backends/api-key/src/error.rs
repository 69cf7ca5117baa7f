//! What goes wrong at this backend, and how it stands in the engine's words.
//!
//! Invariant: no variant can hold a key.

use dayfly_backend_sdk::{Error, ErrorKind, Retry};

/// A refusal of this backend.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// The insert reached the store after the mint deadline, and nothing was kept.
    #[error("the mint deadline had passed when the key was to be stored")]
    Late,
    /// No key under this handle.
    #[error("there is no key `{0}`")]
    Missing(String),
    /// A scope that introspection could not answer.
    #[error("`{0}` is not a scope: 1 to 128 printable ASCII characters without space, `\"`, `\\`")]
    Scope(String),
    /// More scopes than one key may have.
    #[error("{count} scopes, and {count_max} are the most")]
    Scopes {
        /// How many there are.
        count: usize,
        /// How many there may be.
        count_max: usize,
    },
    /// The handle is taken.
    #[error("the key `{0}` exists")]
    Taken(String),
    /// The role's template is not one of ours.
    #[error("the template of the role cannot be read")]
    Template(#[source] serde_json::Error),
}

impl From<ApiKeyError> for Error {
    fn from(error: ApiKeyError) -> Self {
        let message = error.to_string();
        match error {
            ApiKeyError::Late => {
                Self::new(ErrorKind::Unavailable, message).with_retry(Retry::Temporary)
            }
            ApiKeyError::Missing(_) => Self::new(ErrorKind::NotFound, message),
            ApiKeyError::Scope(_) | ApiKeyError::Scopes { .. } => {
                Self::new(ErrorKind::Invalid, message)
            }
            ApiKeyError::Taken(_) => Self::new(ErrorKind::Conflict, message),
            ApiKeyError::Template(source) => {
                Self::new(ErrorKind::Invalid, message).with_source(source)
            }
        }
    }
}
