//! The transactions of a credential's birth and life: intent, activation, delivery, renewal.
//!
//! Invariant: an intent and an activation both see their task open; completing a task locks
//! the task's row first, so one of the two waits for the other.

use std::time::Duration;

use dayfly_backend_sdk::{Expiry, Timestamp};

use super::{Tx, known, save};
use crate::{
    Cause, Intent, Lease, LeaseId, Refusal, Sealed, State, StoreError, Task, Written,
    audit::Entry,
    planted::{self, Bug},
    quota::{self, Counted, Exceeded},
};

pub(super) async fn intend<T: Tx + ?Sized>(
    tx: &mut T,
    intent: &Intent,
) -> Result<Written, StoreError> {
    let now = tx.now();
    if tx.standing().await?.suspended.is_some() {
        return Err(Refusal::Suspended.into());
    }
    let task = tx.task(intent.task, false).await?.ok_or(Refusal::TaskUnknown)?;
    if !task.is_open(now) && !planted::is(Bug::IntendClosedTask) {
        return Err(Refusal::TaskClosed.into());
    }
    if task.expires_at.since(now) < intent.ttl_min {
        return Err(Refusal::TaskEnding.into());
    }
    let seen = look_up_key(tx, intent, now).await?;
    has_room(tx, intent, &task, seen.superseded.is_some()).await?;
    let superseded = take_key(tx, intent, seen).await?;
    let detail = intent.decision.clone().task(task.id).lease(intent.id);
    let detail = detail.on_behalf_of(task.on_behalf_of.as_ref());
    let decision = tx.append(detail.with("handle", intent.handle.as_str()));
    let max_expires_at = now.plus(intent.ttl_max).min(task.expires_at);
    let expires_at = now.plus(intent.ttl).min(max_expires_at);
    let mint_deadline = now.plus(intent.mint_within).min(expires_at);
    let lease = Lease {
        id: intent.id,
        task: task.id,
        principal: task.principal.clone(),
        issuer: task.issuer.clone(),
        on_behalf_of: task.on_behalf_of.clone(),
        role: intent.role.clone(),
        backend: intent.backend.clone(),
        handle: intent.handle.clone(),
        decision,
        epoch: 0,
        state: State::Pending,
        issued_at: now,
        expires_at,
        max_expires_at,
        native_expires_at: match intent.expiry {
            Expiry::None => None,
            // A backend that gives no life as short ends it later than the lease, and counts
            // from when the create arrives.
            Expiry::Native { slack, life_min } => {
                Some(expires_at.max(mint_deadline.plus(life_min)).plus(slack))
            }
        },
        mint_deadline,
        settle_at: Some(mint_deadline.plus(intent.settle_within)),
        activated_at: None,
        delivered_at: None,
        renewable: intent.renewable,
        belts: intent.belts.clone(),
        next_attempt_at: None,
        attempts: 0,
        error_class: None,
        claim: None,
        abandonment: None,
        plan: intent.plan.clone(),
        kept: None,
    };
    tx.insert_lease(&lease).await?;
    let Some(old) = superseded else { return Ok(Written::Lease(Box::new(lease))) };
    tx.append(condemned(&old, &task.principal, None));
    save(tx, &old).await?;
    Ok(Written::Superseding { lease: Box::new(lease), old: Box::new(old) })
}

/// What the client's key stood for.
#[derive(Default)]
struct Seen {
    lease: Option<LeaseId>,
    /// That lease, condemned, if it was alive.
    superseded: Option<Lease>,
}

/// What the client's key stands for before this intent. A secret is never shown twice, so a
/// repeat ends the first lease and mints anew.
async fn look_up_key<T: Tx + ?Sized>(
    tx: &mut T,
    intent: &Intent,
    now: Timestamp,
) -> Result<Seen, StoreError> {
    let Some(key) = &intent.key else { return Ok(Seen::default()) };
    let found = tx.key(intent.task, &key.key).await?;
    let mut old = None;
    if let Some((request, lease)) = found {
        if request != key.request {
            return Err(Refusal::KeyReused.into());
        }
        old = tx.lease(lease).await?;
    }
    let superseded = match old.as_ref().map(|old| old.state) {
        Some(State::Pending) => return Err(Refusal::InProgress.into()),
        Some(State::Active { .. }) if planted::is(Bug::KeyNotSuperseded) => None,
        Some(State::Active { .. }) => {
            old.map(|old| old.condemn(now, Cause::Superseded)).transpose()?
        }
        Some(State::Revoking { .. } | State::Revoked { .. } | State::Abandoned { .. }) | None => {
            None
        }
    };
    Ok(Seen { lease: found.map(|(_, lease)| lease), superseded })
}

/// Refuses what a quota has no room for. What this intent ends itself takes none.
async fn has_room<T: Tx + ?Sized>(
    tx: &mut T,
    intent: &Intent,
    task: &Task,
    supersedes: bool,
) -> Result<(), StoreError> {
    let now = tx.now();
    for quota in &intent.quotas {
        let rate = quota.measure.is_rate();
        let most = quota.most.saturating_add(u32::from(supersedes && !rate));
        let counted = Counted {
            measure: quota.measure,
            backend: &intent.backend,
            role: &intent.role,
            principal: &task.principal,
            since: now.minus(quota::MINUTE),
        };
        let tally = tx.count(&counted, most).await?;
        if tally.count >= most && !planted::is(Bug::QuotaIgnored) {
            let oldest = tally.oldest.filter(|_| rate);
            let after = oldest.map(|oldest| oldest.plus(quota::MINUTE).since(now));
            return Err(Refusal::Quota(Exceeded { quota: *quota, after }).into());
        }
    }
    Ok(())
}

/// Makes the client's key stand for this intent; gives the lease that it ends.
async fn take_key<T: Tx + ?Sized>(
    tx: &mut T,
    intent: &Intent,
    seen: Seen,
) -> Result<Option<Lease>, StoreError> {
    let Some(key) = &intent.key else { return Ok(None) };
    // Two replicas may both have found nothing: the row decides who was first, and nothing
    // else has been written yet.
    if !tx.set_key(intent.task, key, seen.lease, intent.id).await? {
        return Err(Refusal::InProgress.into());
    }
    Ok(seen.superseded)
}

pub(super) async fn activate<T: Tx + ?Sized>(
    tx: &mut T,
    id: LeaseId,
    epoch: i64,
    kept: Option<&Sealed>,
) -> Result<Written, StoreError> {
    let now = tx.now();
    // The task is locked before the lease, in the same order as completing it does.
    let Some(seen) = tx.lease_task(id).await? else { return Err(Refusal::LeaseUnknown.into()) };
    let open = tx.task(seen, false).await?.is_some_and(|task: Task| task.is_open(now));
    let lease = known(tx, id).await?;
    if lease.epoch != epoch {
        return Err(Refusal::LeaseChanged.into());
    }
    if !open && !planted::is(Bug::ActivateClosedTask) {
        return Err(Refusal::TaskClosed.into());
    }
    let active = lease.activate(now, kept.cloned())?;
    if planted::is(Bug::ActivateUnsaved) {
        return Ok(Written::Lease(Box::new(active)));
    }
    save(tx, &active).await?;
    tx.append(Entry::new("lease.active", "engine").task(lease.task).lease(id));
    Ok(Written::Lease(Box::new(active)))
}

pub(super) async fn deliver<T: Tx + ?Sized>(
    tx: &mut T,
    id: LeaseId,
) -> Result<Written, StoreError> {
    let lease = known(tx, id).await?;
    let delivered = lease.deliver(tx.now())?;
    save(tx, &delivered).await?;
    let entry = Entry::new("lease.delivered", "engine").task(lease.task).lease(id);
    tx.append(entry.on_behalf_of(lease.on_behalf_of.as_ref()));
    Ok(Written::Lease(Box::new(delivered)))
}

pub(super) async fn renew<T: Tx + ?Sized>(
    tx: &mut T,
    id: LeaseId,
    ttl: Duration,
    actor: &str,
) -> Result<Written, StoreError> {
    if tx.standing().await?.suspended.is_some() {
        return Err(Refusal::Suspended.into());
    }
    let lease = known(tx, id).await?;
    if !lease.renewable {
        return Err(Refusal::NotRenewable.into());
    }
    let renewed = match lease.state {
        State::Active { .. } => lease.renew(tx.now(), ttl)?,
        State::Pending
        | State::Revoking { .. }
        | State::Revoked { .. }
        | State::Abandoned { .. } => return Err(Refusal::NotRenewable.into()),
    };
    save(tx, &renewed).await?;
    let entry = Entry::new("lease.renewed", actor).task(lease.task).lease(id);
    let entry = entry.on_behalf_of(lease.on_behalf_of.as_ref());
    tx.append(entry.with("expires_at", renewed.expires_at.rfc3339()));
    Ok(Written::Renewed { lease: Box::new(renewed), before: lease.expires_at })
}

pub(super) async fn shorten<T: Tx + ?Sized>(
    tx: &mut T,
    id: LeaseId,
    epoch: i64,
    expires_at: Timestamp,
) -> Result<Written, StoreError> {
    let lease = known(tx, id).await?;
    if lease.epoch != epoch {
        return Err(Refusal::LeaseChanged.into());
    }
    let shortened = lease.shorten(expires_at)?;
    save(tx, &shortened).await?;
    let entry = Entry::new("lease.shortened", "engine").task(lease.task).lease(id);
    tx.append(entry.with("expires_at", expires_at.rfc3339()));
    Ok(Written::Lease(Box::new(shortened)))
}

/// The record of a lease that was told to die.
pub(super) fn condemned(lease: &Lease, actor: &str, reason: Option<&str>) -> Entry {
    let cause = lease.state.cause().map_or("", |cause| cause.as_str());
    let entry = Entry::new("lease.revoking", actor)
        .task(lease.task)
        .lease(lease.id)
        .on_behalf_of(lease.on_behalf_of.as_ref())
        .with("cause", cause)
        .with("handle", lease.handle.as_str());
    match reason {
        Some(reason) => entry.with("reason", reason),
        None => entry,
    }
}
