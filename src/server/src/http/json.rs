//! Bodies and queries, strictly.
//!
//! Invariant: an unknown field is refused, and what is refused is never echoed.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request, rejection::BytesRejection},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use super::problem::Fault;

/// A JSON body, read as a whole.
pub(crate) struct Body<T> {
    /// What it means.
    pub(crate) value: T,
    /// SHA-256 of its bytes, for idempotency.
    pub(crate) hash: [u8; 32],
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let bytes =
            Bytes::from_request(request, state).await.map_err(|rejection| unread(&rejection))?;
        let value = serde_json::from_slice(&bytes).map_err(|error| unclear(&error))?;
        let mut hash = [0; 32];
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        hash.copy_from_slice(digest.as_ref());
        Ok(Self { value, hash })
    }
}

fn unread(rejection: &BytesRejection) -> Fault {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Fault::too_large()
    } else {
        Fault::invalid("invalid_body", "the body could not be read")
    }
}

/// Where it is wrong and how, without the text that is wrong: serde's own message would quote
/// an unexpected value.
fn unclear(error: &serde_json::Error) -> Fault {
    let at = format!("line {}, column {}", error.line(), error.column());
    let text = error.to_string();
    let known = text.starts_with("unknown field") || text.starts_with("missing field");
    let what = if known {
        text.split(" at line").next().unwrap_or_default().chars().take(200).collect()
    } else if error.is_data() {
        String::from("a field has the wrong type")
    } else {
        String::from("not JSON")
    };
    Fault::invalid("invalid_body", format!("the body is not acceptable: {what} ({at})"))
}

/// A query string.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let detail = "the query has an unknown parameter or one that cannot be read";
        Query::from_request_parts(parts, state)
            .await
            .map(|Query(value)| Self(value))
            .map_err(|_| Fault::invalid("invalid_query", detail))
    }
}
