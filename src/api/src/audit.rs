//! Audit records as administrators read them.

use serde::{Deserialize, Serialize};

/// One record of the audit log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditRecord {
    /// The chain: one per incarnation of a replica.
    pub chain: String,
    /// Its place in the chain, from 1.
    pub seq: u64,
    /// The store's time.
    pub at: String,
    /// What happened, for example `lease.revoked`.
    pub event: String,
    /// Who caused it.
    pub actor: String,
    /// The task it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The lease it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// What else there is to say; never a secret.
    pub detail: serde_json::Value,
    /// SHA-256 of this record and of the one before it, in hex.
    pub hash: String,
    /// For receipts and checkpoints: the Ed25519 signature of the hash, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// A page of audit records.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditPage {
    /// Oldest first.
    pub data: Vec<AuditRecord>,
    /// Give it back as `cursor` for the next page; absent on the last.
    #[serde(default)]
    pub next_cursor: Option<String>,
}
