//! Bodies, paths and queries, strictly.
//!
//! Invariant: an unknown field is refused, and what is refused is never echoed but for the
//! name of an unknown field.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::BytesRejection},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use super::{caller::Known, gate::Place, problem::Fault};
use crate::broker::Broker;

/// A JSON body, read as a whole.
pub(crate) struct Body<T> {
    /// What it means.
    pub(crate) value: T,
    /// SHA-256 of its bytes, for idempotency.
    pub(crate) hash: [u8; 32],
}

impl<T: DeserializeOwned + Send> FromRequest<Arc<Broker>> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, broker: &Arc<Broker>) -> Result<Self, Fault> {
        let known = request.extensions().get::<Known>().cloned();
        let Raw(bytes) = Raw::from_request(request, broker).await?;
        let read = object(&bytes);
        let value = match read {
            Ok(value) => value,
            Err(fault) => return Err(noted(broker, known, fault).await?),
        };
        let mut hash = [0; 32];
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        hash.copy_from_slice(digest.as_ref());
        Ok(Self { value, hash })
    }
}

/// Only an object: serde would take a list for a struct's fields in their order, and what a
/// client means by such a list would change with each field that is added.
fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let value = serde_json::from_slice(bytes).map_err(|error| unclear(&error))?;
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Fault::invalid("invalid_body", "the body must be a JSON object"));
    }
    Ok(value)
}

/// A body as it came, within the bound.
pub(crate) struct Raw(pub(crate) Bytes);

impl FromRequest<Arc<Broker>> for Raw {
    type Rejection = Fault;

    async fn from_request(request: Request, broker: &Arc<Broker>) -> Result<Self, Fault> {
        let known = request.extensions().get::<Known>().cloned();
        let place = request.extensions().get::<Place>().cloned();
        let bytes = Bytes::from_request(request, broker);
        let bytes = match place {
            Some(place) => place.pass(bytes).await?,
            None => bytes.await,
        };
        match bytes {
            Ok(bytes) => Ok(Self(bytes)),
            Err(rejection) => Err(noted(broker, known, unread(&rejection)).await?),
        }
    }
}

/// Writes down whose body was refused. Handlers take the caller first, so that nobody who is
/// not known gets here.
async fn noted(broker: &Broker, known: Option<Known>, fault: Fault) -> Result<Fault, Fault> {
    if let Some(known) = known {
        known.note_refusal(broker, fault.code(), None).await?;
    }
    Ok(fault)
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
    let known = ["unknown field", "missing field", "duplicate field"];
    let known = known.iter().any(|known| text.starts_with(known));
    let what = if known {
        text.split(" at line").next().unwrap_or_default().chars().take(200).collect()
    } else if error.is_data() {
        String::from("a field has the wrong type")
    } else {
        String::from("not JSON")
    };
    Fault::invalid("invalid_body", format!("the body is not acceptable: {what} ({at})"))
}

/// The id in a path. What is not even text names nothing.
pub(crate) struct Id(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|_| Fault::not_found())
    }
}

/// A query string.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let detail = "the query has an unknown parameter or one that cannot be read";
        // No database keeps a NUL in a text.
        if parts.uri.query().is_some_and(|query| query.contains("%00")) {
            return Err(Fault::invalid("invalid_query", detail));
        }
        Query::from_request_parts(parts, state)
            .await
            .map(|Query(value)| Self(value))
            .map_err(|_| Fault::invalid("invalid_query", detail))
    }
}
