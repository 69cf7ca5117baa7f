//! How people sign in.

use serde::{Deserialize, Serialize};

/// Answer of `GET /api/v1/login`: the provider at which a person gets a token for this broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Login {
    /// The provider's issuer (OpenID Connect Discovery 1.0 §3), byte for byte.
    pub issuer: String,
    /// A client that is registered there without a secret.
    pub client_id: String,
    /// What to ask for.
    pub scopes: Vec<String>,
    /// Which of the provider's tokens to show: `id_token` or `access_token`.
    pub token: String,
}
