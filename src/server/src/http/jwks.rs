//! `GET /.well-known/jwks.json`: the public keys of what was signed here (RFC 7517).
//!
//! Invariant: nothing but public keys, and the same for everybody, so that it may be cached.

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::broker::Broker;

/// Five minutes: so long before it signs must a key be published.
const CACHED: &str = "public, max-age=300";

/// By which keys signed API keys are verified.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "services",
    responses((status = 200, description = "A JWK set (RFC 7517).")),
)]
pub(crate) async fn handler(State(broker): State<Arc<Broker>>) -> Response {
    let mut keys: Vec<Value> = Vec::new();
    for key in broker.api_keys.iter().flat_map(|backend| backend.jwks()) {
        // Two backends may share one.
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let headers =
        [(header::CONTENT_TYPE, "application/jwk-set+json"), (header::CACHE_CONTROL, CACHED)];
    (headers, json!({ "keys": keys }).to_string()).into_response()
}
