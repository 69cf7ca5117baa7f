//! Roles: what can be asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A named template on a backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Role {
    /// Its name.
    pub name: String,
    /// The backend's name in the configuration.
    pub backend: String,
    /// The backend's kind, for example `postgres`.
    pub kind: String,
    /// Who answers for it.
    pub owner: String,
    /// Labels that policy can speak of.
    pub labels: BTreeMap<String, String>,
    /// The lifetime when none is asked for.
    pub ttl_seconds: u64,
    /// The longest lifetime, renewals included.
    pub ttl_max_seconds: u64,
}

/// All roles that the caller may see.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoleList {
    /// By name.
    pub data: Vec<Role>,
}
