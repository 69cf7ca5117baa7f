//! What OAuth clients are answered: tokens, errors, and where to get and to give them.

use serde::{Deserialize, Serialize};

/// Answer of `POST /oauth2/token` (RFC 8693, section 2.2.1). The token is shown once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OauthToken {
    /// `dft_…`, the task's token.
    pub access_token: String,
    /// `urn:ietf:params:oauth:token-type:access_token`.
    pub issued_token_type: String,
    /// How it is shown: `Bearer`, or `DPoP` if it is bound to a key, with a proof each time.
    pub token_type: String,
    /// Seconds until the task's deadline.
    pub expires_in: u64,
    /// The task's id.
    pub task: String,
    /// Whose the task is: issuer and subject of who asked, a person where there is an actor.
    pub sub: String,
    /// Who acts for them; absent where `sub` acts for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Actor>,
}

/// Who acts for another (RFC 8693, section 4.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Actor {
    /// Issuer and subject.
    pub sub: String,
}

/// Why no token was given or taken back (RFC 6749, section 5.2).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OauthError {
    /// `invalid_request`, `invalid_target`, `invalid_scope`, `unsupported_grant_type`,
    /// `invalid_client`, `invalid_dpop_proof`, `temporarily_unavailable` or `server_error`.
    pub error: String,
    /// In words.
    pub error_description: String,
}

/// Answer of `GET /.well-known/oauth-authorization-server` (RFC 8414).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OauthMetadata {
    /// The broker's public URL.
    pub issuer: String,
    /// Where identity tokens are exchanged for a task's.
    pub token_endpoint: String,
    /// Where a task's token or an API key is given back.
    pub revocation_endpoint: String,
    /// Where API keys are looked up.
    pub introspection_endpoint: String,
    /// None: nobody is sent here by a browser.
    pub response_types_supported: Vec<String>,
    /// Token exchange alone.
    pub grant_types_supported: Vec<String>,
    /// `none`: the tokens in the request say who asks.
    pub token_endpoint_auth_methods_supported: Vec<String>,
    /// `none`: who has a token may give it back.
    pub revocation_endpoint_auth_methods_supported: Vec<String>,
    /// What proofs of possession may be signed with.
    pub dpop_signing_alg_values_supported: Vec<String>,
}
