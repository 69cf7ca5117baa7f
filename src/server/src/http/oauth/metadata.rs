//! `GET /.well-known/oauth-authorization-server`: where OAuth clients find what (RFC 8414).
//!
//! Invariant: the same for everybody, and made of the configured URL: whoever chose the `Host` of a
//! request would otherwise choose where tokens are sent.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use dayfly_api::OauthMetadata;

use super::{super::problem::Fault, GRANT_TYPE};
use crate::{broker::Broker, identity::Algorithm};

/// So long a client may go on with what it read.
const CACHED: &str = "public, max-age=300";

/// The endpoints for OAuth clients, and what they take.
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "services",
    responses(
        (status = 200, body = OauthMetadata),
        (status = 404, body = dayfly_api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(State(broker): State<Arc<Broker>>) -> Result<Response, Fault> {
    let issuer = broker.public_url.as_deref().ok_or_else(Fault::no_public_url)?;
    Ok(([(header::CACHE_CONTROL, CACHED)], Json(metadata(issuer))).into_response())
}

fn metadata(issuer: &str) -> OauthMetadata {
    let at = |path: &str| format!("{issuer}{path}");
    let only = |name: &str| vec![name.to_owned()];
    OauthMetadata {
        issuer: issuer.to_owned(),
        token_endpoint: at("/oauth2/token"),
        revocation_endpoint: at("/oauth2/revoke"),
        introspection_endpoint: at("/oauth2/introspect"),
        // Clients refuse metadata without it, although RFC 8414 would leave an empty list out.
        response_types_supported: Vec::new(),
        grant_types_supported: only(GRANT_TYPE),
        token_endpoint_auth_methods_supported: only("none"),
        revocation_endpoint_auth_methods_supported: only("none"),
        dpop_signing_alg_values_supported: Algorithm::ALL
            .map(|algorithm| algorithm.as_str().to_owned())
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_below_the_public_url() {
        let issuer = "https://dayfly.example.com/base";
        let metadata = metadata(issuer);
        assert_eq!(metadata.issuer, issuer);
        for endpoint in [
            &metadata.token_endpoint,
            &metadata.revocation_endpoint,
            &metadata.introspection_endpoint,
        ] {
            assert!(endpoint.starts_with("https://dayfly.example.com/base/oauth2/"), "{endpoint}");
        }
        assert!(metadata.dpop_signing_alg_values_supported.contains(&"ES256".to_owned()));
    }
}
