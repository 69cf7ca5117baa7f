//! Leases: the broker's record of one credential.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{LeaseCounts, OnBehalfOf};

/// Body of `POST /api/v1/leases`; the bearer is the task token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateLease {
    /// The role's name.
    pub role: String,
    /// How long from now; the role's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<i64>,
}

/// A lease. `credential` is there only in the answer that created it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lease {
    /// `lse_…`.
    pub id: String,
    /// The task's id.
    pub task: String,
    /// Who it is for: issuer and subject.
    pub principal: String,
    /// Who asked for it; absent where the principal acts for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<OnBehalfOf>,
    /// The role's name.
    pub role: String,
    /// The backend's name in the configuration.
    pub backend: String,
    /// The name that the credential has at its backend. Not a secret.
    pub handle: String,
    /// `pending`, `active`, `revoking`, `revoked` (verified dead) or `abandoned` (given up by
    /// two people).
    pub state: String,
    /// Why it ends or ended: `expired`, `task_completed`, `requested`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The credential, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// When the intent was recorded, before the credential existed.
    pub issued_at: String,
    /// When it ends.
    pub expires_at: String,
    /// The latest that renewal can move it to.
    pub max_expires_at: String,
    /// When it was verified dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// What ends it even if the rest fails: `native_expiry`, `session_kill`, `revoke`.
    pub belts: Vec<String>,
    /// The longest that it could outlive `expires_at` if the broker died now; absent when the
    /// backend has no expiry of its own, and nothing but the broker would end it.
    #[serde(default)]
    pub exposure_seconds: Option<u64>,
    /// Until when it works whatever is done about it: nothing ends it at its backend before.
    /// Absent where it can be revoked, and when it is dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residual_until: Option<String>,
    /// Failed attempts to revoke it.
    pub attempts: u32,
    /// The last failure's class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Who wants to give up on it; absent while nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandonment: Option<Abandonment>,
}

/// One person's wish to give up on a lease that cannot be revoked. A second person must agree
/// within 24 hours.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Abandonment {
    /// Who asked for it first.
    pub by: String,
    /// Why, in their words.
    pub reason: String,
    /// When.
    pub at: String,
    /// When a second person agreed and the lease was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed_at: Option<String>,
}

/// Body of `POST /api/v1/leases/{id}/abandon`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AbandonLease {
    /// Why, for the audit log. 1 to 256 characters.
    pub reason: String,
}

/// The secret handed out.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Credential {
    /// Named values. For PostgreSQL `username`, `password`, `host`, `port`, `database` and
    /// `url`; for API keys `key`.
    #[serde(flatten)]
    pub fields: BTreeMap<String, String>,
    /// Which environment variable usually carries which field.
    #[serde(default, rename = "_env")]
    pub environment: BTreeMap<String, String>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The field names help in a log, the values never do.
        f.debug_set().entries(self.fields.keys()).finish()
    }
}

/// A page of leases.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeasePage {
    /// Newest first.
    pub data: Vec<Lease>,
    /// Give it back as `cursor` for the next page; absent on the last.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// Body of `POST /api/v1/leases/{id}/renew`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewLease {
    /// How long from now.
    pub ttl_seconds: i64,
}

/// What a renewal granted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Renewed {
    /// The lease's id.
    pub id: String,
    /// What was granted, from now.
    pub ttl_seconds: i64,
    /// The new expiry.
    pub expires_at: String,
    /// The latest that renewal can move it to.
    pub max_expires_at: String,
    /// Whether less was granted than was asked for.
    pub truncated: bool,
}

/// Body of `POST /api/v1/leases/{id}/revoke`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevokeLease {
    /// Why, for the audit log. At most 256 characters.
    pub reason: String,
}

/// Answer of a revocation: 200 when verified dead, 202 while revoking.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revoked {
    /// The lease's id.
    pub id: String,
    /// `revoking`, `revoked` or `abandoned`.
    pub state: String,
    /// Why it ends: the first cause stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When it was verified dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
}

impl LeaseCounts {
    /// How many may still be alive.
    pub fn owed(&self) -> u64 {
        self.pending + self.active + self.revoking
    }
}
