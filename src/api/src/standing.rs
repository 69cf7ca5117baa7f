//! What the installation may do at the moment.

use serde::{Deserialize, Serialize};

/// Answer of `GET /api/v1/standing`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Standing {
    /// There while minting is suspended: the store lost commits or was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspension>,
    /// There while the mass-revocation brake holds: the store's clock jumped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// The configured backends, as the replica that answers sees them.
    pub backends: Vec<BackendStanding>,
}

/// Why minting is suspended, until `dayfly-server recover`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Suspension {
    /// Since when.
    pub since: String,
    /// What was noticed.
    pub reason: String,
}

/// What the brake holds: leases that expire after `from` and until `to`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hold {
    /// The store's clock before the jump.
    pub from: String,
    /// The store's clock after it.
    pub to: String,
    /// The brake lets go by itself then.
    pub until: String,
}

/// One backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackendStanding {
    /// Its name in the configuration.
    pub name: String,
    /// Whose its prefix is: `ours`, `another` (another installation's; nothing is minted) or
    /// `unknown` (it was not asked yet, or did not answer).
    pub owner: String,
    /// The other installation's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_installation: Option<String>,
    /// It is taken to be down, and only probed.
    pub down: bool,
}

/// Answer of `POST /api/v1/backends/{name}/rotate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rotated {
    /// The backend's name.
    pub backend: String,
    /// When the new password was taken.
    pub rotated_at: String,
}
