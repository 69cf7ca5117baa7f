//! Who we decided the caller is.
//!
//! Invariant: a principal comes from a token whose signature and rules held, and holds
//! nothing that could be presented again as that token.

use std::collections::BTreeMap;

use dayfly_backend_sdk::Timestamp;
use serde::{Deserialize, Serialize};

use super::ClaimValue;

/// What kind of caller it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A person.
    Human,
    /// A program.
    #[default]
    Workload,
}

impl Kind {
    /// Its name in policies, API and audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Workload => "workload",
        }
    }
}

/// A verified caller. Stored with its task, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Human or workload.
    pub kind: Kind,
    /// The issuer's name in the configuration.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// Every claim of the token, nested ones by dotted path (`kubernetes.io.pod.uid`).
    pub claims: BTreeMap<String, ClaimValue>,
    /// Hex SHA-256 of the token without its signature: an ECDSA signature can be changed into
    /// another valid one, and a replay key must not change with it.
    pub token_hash: String,
    /// `jti`.
    pub token_id: Option<String>,
    /// `exp`.
    pub token_expires_at: Timestamp,
    /// Whether the token may open one task only.
    pub single_use: bool,
}

impl Principal {
    /// `issuer|subject`. An issuer's name has no `|`, so two principals never share an id.
    pub fn id(&self) -> String {
        format!("{}|{}", self.issuer, self.subject)
    }

    /// What is remembered of a token that may be used once: `issuer|jti`, or the token's hash,
    /// which has no `|`.
    pub fn replay_key(&self) -> String {
        match &self.token_id {
            Some(id) => format!("{}|{id}", self.issuer),
            None => self.token_hash.clone(),
        }
    }
}
