//! A grant: the exchange of a permit for a credential. The file to read first.
//!
//! Invariant: a [`Permit`] is taken by value and spent; there is no other way to the engine.
//! Whatever was asked for, the lifetime is within the role's, the backend's and the task's.

use std::{net::IpAddr, sync::Arc, time::Duration};

use dayfly_lease::{Engine, IdempotencyKey, MintError, Minted, Order, TaskId, audit::Entry};
use serde_json::json;

use crate::{Role, policy::Permit};

/// What a client asked for that no role gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TtlError {
    /// More than the role's maximum.
    #[error("more than the role's maximum of {max_seconds} s")]
    AboveMaximum {
        /// The role's maximum.
        max_seconds: u64,
    },
    /// Less than the backend can give.
    #[error("less than the backend's minimum of {min_seconds} s")]
    BelowMinimum {
        /// The backend's minimum.
        min_seconds: u64,
    },
    /// Zero or less.
    #[error("must be at least 1 s")]
    NotPositive,
}

/// The lifetime that `asked` means for `role`: its default when nothing was asked.
pub fn lifetime(role: &Role, asked: Option<i64>) -> Result<Duration, TtlError> {
    let Some(asked) = asked else { return Ok(role.ttl) };
    let seconds = u64::try_from(asked).ok().filter(|seconds| *seconds > 0);
    let ttl = Duration::from_secs(seconds.ok_or(TtlError::NotPositive)?);
    if ttl > role.ttl_max {
        return Err(TtlError::AboveMaximum { max_seconds: role.ttl_max.as_secs() });
    }
    if ttl < role.ttl_min {
        return Err(TtlError::BelowMinimum { min_seconds: role.ttl_min.as_secs() });
    }
    Ok(ttl)
}

/// Mints what `permit` allows, under a lease of `task`. `source_address` is where it was decided
/// that the request comes from.
pub async fn grant(
    engine: &Arc<Engine>,
    (permit, source_address): (Permit, Option<IpAddr>),
    role: &Role,
    task: TaskId,
    ttl: Duration,
    key: Option<IdempotencyKey>,
) -> Result<Minted, MintError> {
    let order = Order {
        task,
        role: role.facts.name.clone(),
        backend: role.facts.backend.clone(),
        template: role.template.clone(),
        ttl,
        ttl_max: role.ttl_max,
        renewable: role.renewable,
        quotas: role.quotas.clone(),
        key,
        decision: decision(&permit, source_address, role, ttl),
    };
    drop(permit);
    engine.mint(order).await
}

/// The record of the decision, which the engine writes in the transaction of the intent (I4). When
/// the rules change, what it says is asked for again.
fn decision(permit: &Permit, source_address: Option<IpAddr>, role: &Role, ttl: Duration) -> Entry {
    let decision = permit.decision();
    let rules: Vec<&str> = decision.rules.iter().map(|rule| rule.id.as_str()).collect();
    Entry::new("lease.allowed", permit.principal_id())
        .with("role", role.facts.name.as_str())
        .with("backend", role.facts.backend.as_str())
        .with("ttl_seconds", ttl.as_secs())
        .with("source_address", source_address.map(|address| address.to_string()))
        .with("rules", json!(rules))
        .with("policy", decision.policy_hash.as_str())
}

#[cfg(test)]
mod tests {
    use dayfly_backend_sdk::{Plan, Template};

    use super::*;
    use crate::policy::RoleFacts;

    fn role() -> Role {
        Role {
            facts: RoleFacts {
                name: "reader".into(),
                backend: "pg".into(),
                owner: "team".into(),
                labels: std::collections::BTreeMap::new(),
            },
            kind: "postgres",
            ttl: Duration::from_mins(5),
            ttl_max: Duration::from_hours(1),
            ttl_min: Duration::from_secs(2),
            renewable: true,
            quotas: Vec::new(),
            template: Template::new(Plan::default(), ()),
        }
    }

    #[test]
    fn the_lifetime_is_the_roles_or_is_refused() {
        assert_eq!(lifetime(&role(), None), Ok(Duration::from_mins(5)));
        assert_eq!(lifetime(&role(), Some(3_600)), Ok(Duration::from_hours(1)));
        let max_seconds = 3_600;
        assert_eq!(lifetime(&role(), Some(3_601)), Err(TtlError::AboveMaximum { max_seconds }));
        assert_eq!(lifetime(&role(), Some(i64::MAX)), Err(TtlError::AboveMaximum { max_seconds }));
        assert_eq!(lifetime(&role(), Some(1)), Err(TtlError::BelowMinimum { min_seconds: 2 }));
        for asked in [0, -1, i64::MIN] {
            assert_eq!(lifetime(&role(), Some(asked)), Err(TtlError::NotPositive));
        }
    }
}
