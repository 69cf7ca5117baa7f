//! What a backend can do. Code asks for a capability, never which backend it is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One of the things that end a credential even when the others fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Belt {
    /// The backend itself stops accepting the credential at its expiry.
    NativeExpiry,
    /// Revocation ends the sessions that are open.
    SessionKill,
    /// The reaper revokes at the backend and verifies.
    Revoke,
}

impl Belt {
    /// The belt as it stands in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NativeExpiry => "native_expiry",
            Self::SessionKill => "session_kill",
            Self::Revoke => "revoke",
        }
    }
}

/// Whether the backend itself ends a credential when its time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It does not; only revocation ends it.
    None,
    /// No new login after the lease's expiry plus this much (clock skew, rounding up).
    Native {
        /// How far past the lease's own expiry the backend may still accept it.
        slack: Duration,
        /// The shortest life that it can give. A lease may be shorter; what cannot be revoked
        /// then outlives it.
        life_min: Duration,
    },
}

/// What a backend declares of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent fact of the backend")]
pub struct Capabilities {
    /// The backend's kind, for example `postgres`.
    pub kind: &'static str,
    /// Whether the backend enforces an expiry of its own.
    pub expiry: Expiry,
    /// A credential can be ended before its expiry.
    pub revoke: bool,
    /// Revocation ends open sessions.
    pub session_kill: bool,
    /// The backend can be asked whether a credential is still alive.
    pub verify: bool,
    /// The backend can list what exists under a prefix.
    pub list: bool,
    /// A live credential's expiry can be moved.
    pub renew: bool,
    /// A create that arrives after the mint deadline is refused by the backend itself.
    pub deadline_guard: bool,
    /// The shortest lifetime that the backend can give.
    pub ttl_min: Duration,
    /// The longest lifetime that a role of it may have; none where the backend sets no bound.
    pub ttl_max: Option<Duration>,
    /// The longest handle that the backend keeps whole, in bytes.
    pub handle_len_max: usize,
}

impl Capabilities {
    /// The belts that protect a lease at this backend.
    pub fn belts(&self) -> Vec<Belt> {
        let mut belts = Vec::new();
        if matches!(self.expiry, Expiry::Native { .. }) {
            belts.push(Belt::NativeExpiry);
        }
        if self.session_kill {
            belts.push(Belt::SessionKill);
        }
        if self.revoke {
            belts.push(Belt::Revoke);
        }
        belts
    }
}
