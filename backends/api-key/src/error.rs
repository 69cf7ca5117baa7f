//! What goes wrong at this backend, and how it stands in the engine's words.
//!
//! Invariant: no variant can hold a key, neither one that was minted nor one that signs.

use dayfly_backend_sdk::{Error, ErrorKind, Retry};

/// A refusal of this backend.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// An audience that a token should not name.
    #[error("`{0}` is no audience: 1 to 256 printable ASCII characters without space, `\"`, `\\`")]
    Audience(String),
    /// Too few or too many audiences, or one twice.
    #[error("a token has 1 to 16 different audiences")]
    Audiences,
    /// A claim without a name that everybody can read.
    #[error("`{0}` is no name of a claim: 1 to 64 of a-z, A-Z, 0-9 and `_-.:/`")]
    ClaimName(String),
    /// A claim that a role may not set.
    #[error(
        "`{0}` cannot be a claim of a role: it is ours, or it has a meaning of its own for those \
         who verify"
    )]
    ClaimReserved(String),
    /// A claim that is neither text nor a number nor true or false.
    #[error("the claim `{0}` must be text, a number, or true or false")]
    ClaimValue(String),
    /// Not what an issuer is called.
    #[error(
        "`jwt.issuer`: `{0}` is no `https://` address without user, query and fragment (on \
         loopback `http://`)"
    )]
    Issuer(String),
    /// Nobody has said what the issuer is called.
    #[error("`jwt.issuer` is missing, and there is no `server.public_url` to take its place")]
    IssuerMissing,
    /// The insert reached the store after the mint deadline, and nothing was kept.
    #[error("the mint deadline had passed when the key was to be stored")]
    Late,
    /// A token would live longer than any may.
    #[error("a token of {asked_s} s was asked for, and {most_s} are allowed: see `jwt.ttl_max_s`")]
    Long {
        /// What was asked for, in seconds.
        asked_s: u64,
        /// The longest life, in seconds.
        most_s: u64,
    },
    /// No key under this handle.
    #[error("there is no key `{0}`")]
    Missing(String),
    /// One of the keys that are only published.
    #[error(
        "`jwt.published_keys[{0}]` is not one public key in PEM (`PUBLIC KEY`) of P-256 or Ed25519"
    )]
    PublishedKey(usize),
    /// More keys than verifiers should have to look through.
    #[error("`jwt.published_keys` are at most {0}")]
    PublishedKeys(usize),
    /// A number outside its bounds.
    #[error("`{name}` is {value}, and {min} to {max} are allowed")]
    Range {
        /// Which setting.
        name: &'static str,
        /// What was given.
        value: u32,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
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
    /// The end of a signed key is part of what was signed.
    #[error("the expiry of a signed key cannot be moved")]
    Signed,
    /// The key that signs is not one.
    #[error(
        "`jwt.signing_key` is not one private key in PEM (`PRIVATE KEY`, PKCS#8) of P-256 or \
         Ed25519"
    )]
    SigningKey,
    /// Nobody has said with what to sign.
    #[error("`jwt.signing_key` is missing")]
    SigningKeyMissing,
    /// The handle is taken.
    #[error("the key `{0}` exists")]
    Taken(String),
    /// The role's template is not one of ours.
    #[error("the template of the role cannot be read")]
    Template(#[source] serde_json::Error),
    /// No header of a request would hold such a token.
    #[error("scopes, audiences and claims are {bytes} bytes together, and {bytes_max} fit a token")]
    TooLarge {
        /// How many they are.
        bytes: usize,
        /// How many they may be.
        bytes_max: usize,
    },
    /// The system had no random numbers to sign with.
    #[error("the token could not be signed")]
    Unsigned,
}

impl From<ApiKeyError> for Error {
    fn from(error: ApiKeyError) -> Self {
        let message = error.to_string();
        match error {
            ApiKeyError::Late | ApiKeyError::Unsigned => {
                Self::new(ErrorKind::Unavailable, message).with_retry(Retry::Temporary)
            }
            ApiKeyError::Missing(_) => Self::new(ErrorKind::NotFound, message),
            ApiKeyError::Audience(_)
            | ApiKeyError::Audiences
            | ApiKeyError::ClaimName(_)
            | ApiKeyError::ClaimReserved(_)
            | ApiKeyError::ClaimValue(_)
            | ApiKeyError::Issuer(_)
            | ApiKeyError::IssuerMissing
            | ApiKeyError::Long { .. }
            | ApiKeyError::PublishedKey(_)
            | ApiKeyError::PublishedKeys(_)
            | ApiKeyError::Range { .. }
            | ApiKeyError::Scope(_)
            | ApiKeyError::Scopes { .. }
            | ApiKeyError::Signed
            | ApiKeyError::SigningKey
            | ApiKeyError::SigningKeyMissing
            | ApiKeyError::TooLarge { .. } => Self::new(ErrorKind::Invalid, message),
            ApiKeyError::Taken(_) => Self::new(ErrorKind::Conflict, message),
            ApiKeyError::Template(source) => {
                Self::new(ErrorKind::Invalid, message).with_source(source)
            }
        }
    }
}
