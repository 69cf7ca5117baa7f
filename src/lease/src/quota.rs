//! Quotas: how many leases may live, and how many may be minted in a minute.
//!
//! Invariant: counting and adding are one transaction that no other one counts beside, so that
//! replicas together exceed no quota.

use std::{fmt, time::Duration};

use dayfly_backend_sdk::Timestamp;

/// How far back a rate looks.
pub const MINUTE: Duration = Duration::from_mins(1);

/// What is counted: leases that live (are not verified dead yet), or leases that were minted in
/// the last minute, dead or alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// All of the backend that live.
    BackendLiving,
    /// All of the backend that were minted.
    BackendMinted,
    /// All that the principal has and that live.
    PrincipalLiving,
    /// All of the role that live.
    RoleLiving,
    /// All of the role that were minted.
    RoleMinted,
    /// Those of the role that the principal has and that live.
    ShareLiving,
    /// Those of the role that were minted for the principal.
    ShareMinted,
}

impl Measure {
    /// Whether it counts what was minted.
    pub fn is_rate(self) -> bool {
        match self {
            Self::BackendMinted | Self::RoleMinted | Self::ShareMinted => true,
            Self::BackendLiving | Self::PrincipalLiving | Self::RoleLiving | Self::ShareLiving => {
                false
            }
        }
    }
}

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// What.
    pub measure: Measure,
    /// So many and no more.
    pub most: u32,
}

/// A quota that has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Exceeded {
    /// Which one.
    pub quota: Quota,
    /// When there may be room again; none where that depends on somebody's giving back.
    pub after: Option<Duration>,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quota { measure, most } = self.quota;
        let (whose, of) = match measure {
            Measure::BackendLiving | Measure::BackendMinted => ("this role's backend", ""),
            Measure::PrincipalLiving => ("this principal", ""),
            Measure::RoleLiving | Measure::RoleMinted => ("this role", ""),
            Measure::ShareLiving | Measure::ShareMinted => ("this principal", " of this role"),
        };
        if measure.is_rate() {
            write!(f, "{whose} has its quota of {most} leases{of} a minute")
        } else {
            write!(f, "{whose} has its quota of {most} leases{of}")
        }
    }
}

/// What a store counts for a quota.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// What.
    pub measure: Measure,
    /// The backend.
    pub backend: &'a str,
    /// The role, which is of that backend.
    pub role: &'a str,
    /// The principal.
    pub principal: &'a str,
    /// Where it counts what was minted, only after this.
    pub since: Timestamp,
}

/// What a store found: as many as were asked for, or fewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u32,
    /// When the oldest of them was issued.
    pub oldest: Option<Timestamp>,
}
