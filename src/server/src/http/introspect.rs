//! API keys checked: `POST /oauth2/introspect` (RFC 7662) and `GET /verify`, which nginx
//! `auth_request`, Traefik's `ForwardAuth` and Envoy's `ext_authz` speak.
//!
//! Invariant: a known key and an unknown one go the same way through the code; what differs
//! is the answer. A store that does not answer is a refusal, never a yes.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use dayfly_api::Introspection;
use dayfly_backend_api_key::{JwtClaims, KeyRecord};

use super::{caller::Caller, json::Raw, problem::Fault};
use crate::broker::Broker;

/// RFC 7662 introspection. The caller must be somebody whom we know (section 2.1).
#[utoipa::path(
    post, path = "/oauth2/introspect", tag = "services",
    security(("task" = []), ("federated" = [])),
    request_body(content = String, content_type = "application/x-www-form-urlencoded", description = "token=…"),
    responses(
        (status = 200, body = Introspection),
        (status = 401, body = dayfly_api::Problem, content_type = "application/problem+json"),
        (status = 503, body = dayfly_api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn introspect(
    State(broker): State<Arc<Broker>>,
    _caller: Caller,
    Raw(body): Raw,
) -> Result<Json<Introspection>, Fault> {
    let mut tokens = url::form_urlencoded::parse(&body).filter(|(name, _)| name == "token");
    let (Some((_, token)), None) = (tokens.next(), tokens.next()) else {
        return Err(Fault::invalid("invalid_request", "the form must have one `token`"));
    };
    let found = find(&broker, &token).await?;
    Ok(Json(found.map_or_else(Introspection::default, |record| active(record, &token))))
}

/// What a key that was found is good for.
fn active(record: KeyRecord, key: &str) -> Introspection {
    let known = Introspection {
        active: true,
        sub: Some(record.principal),
        jti: Some(record.lease),
        scope: Some(record.scopes.join(" ")),
        ..Introspection::default()
    };
    // Its hash was found, so that what a token says of itself is what was signed here.
    match JwtClaims::of(key) {
        Some(claims) => Introspection {
            iss: Some(claims.iss),
            aud: Some(claims.aud),
            client_id: Some(claims.client_id),
            iat: Some(claims.iat),
            exp: Some(claims.exp),
            token_type: Some("Bearer".to_owned()),
            ..known
        },
        None => Introspection {
            exp: Some(record.expires_at.seconds()),
            token_type: Some("api_key".to_owned()),
            ..known
        },
    }
}

/// 200 if the bearer is an API key that works now, 401 otherwise.
#[utoipa::path(
    get, path = "/verify", tag = "services", security(("api_key" = [])),
    responses((status = 200), (status = 401), (status = 503)),
)]
pub(crate) async fn verify(
    State(broker): State<Arc<Broker>>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let key = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = key.and_then(|value| value.split_once(' '));
    let key = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let key = key.map_or("", |(_, key)| key);
    let Some(record) = find(&broker, key).await? else {
        return Err(Fault::unauthenticated());
    };
    let audience = JwtClaims::of(key).map(|claims| claims.aud.join(" "));
    let mut response = StatusCode::OK.into_response();
    let facts = [
        ("x-dayfly-principal", record.principal),
        ("x-dayfly-lease", record.lease),
        ("x-dayfly-scope", record.scopes.join(" ")),
    ];
    // Whether a signed key is meant for the service behind it, the proxy must see to itself.
    let audience = audience.map(|audience| ("x-dayfly-audience", audience));
    for (name, value) in facts.into_iter().chain(audience) {
        // A value that is no header value is left out rather than mangled.
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

/// The record of an API key that works now.
pub(super) async fn find(broker: &Broker, key: &str) -> Result<Option<KeyRecord>, Fault> {
    let mut found = None;
    for backend in &broker.api_keys {
        match backend.verify_key(key).await {
            Ok(record) => found = found.or(record),
            Err(error) => {
                tracing::error!(%error, "api_key.store.failed");
                return Err(Fault::unavailable(
                    "store_unavailable",
                    "the broker's store is unavailable",
                ));
            }
        }
    }
    Ok(found)
}
