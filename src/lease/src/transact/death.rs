//! The transactions of a credential's end: condemned, claimed, buried or postponed.
//!
//! Invariant: a lease is buried only by whoever claimed it last, and not before a create that
//! is still on its way has become impossible.

use std::time::Duration;

use super::{Tx, known, mint::condemned, save};
use crate::{
    Abandonment, Cause, Claim, Lease, LeaseId, Owed, Refusal, ReplicaId, Spared, State, StoreError,
    Written,
    audit::Entry,
    planted::{self, Bug},
};

/// How long a planted mistake forgets a lease.
const DAY: Duration = Duration::from_hours(24);

pub(super) async fn condemn<T: Tx + ?Sized>(
    tx: &mut T,
    id: LeaseId,
    cause: Cause,
    actor: &str,
    reason: Option<&str>,
) -> Result<Written, StoreError> {
    let lease = known(tx, id).await?;
    match lease.state {
        State::Pending | State::Active { .. } => {}
        // The first cause stands, and asking twice is no error (I6).
        State::Revoking { .. } | State::Revoked { .. } | State::Abandoned { .. } => {
            return Ok(Written::Lease(Box::new(lease)));
        }
    }
    let revoking = lease.condemn(tx.now(), cause)?;
    save(tx, &revoking).await?;
    if !planted::is(Bug::CondemnSilently) {
        tx.append(condemned(&revoking, actor, reason));
    }
    Ok(Written::Lease(Box::new(revoking)))
}

pub(super) async fn settle<T: Tx + ?Sized>(
    tx: &mut T,
    id: LeaseId,
    nothing: bool,
) -> Result<Written, StoreError> {
    let lease = known(tx, id).await?;
    match lease.settle(tx.now(), nothing) {
        Ok(settled) => {
            save(tx, &settled).await?;
            Ok(Written::Lease(Box::new(settled)))
        }
        Err(_) => Ok(Written::Lease(Box::new(lease))),
    }
}

pub(super) async fn claim<T: Tx + ?Sized>(
    tx: &mut T,
    backend: &str,
    owner: ReplicaId,
    limit: u32,
    hold: Duration,
    spared: Spared,
) -> Result<Written, StoreError> {
    let now = tx.now();
    let hold = if planted::is(Bug::ClaimForEver) { DAY } else { hold };
    let claim = Claim { owner, since: now, until: now.plus(hold) };
    let mut claimed = Vec::new();
    for lease in tx.due_leases(backend, limit, spared).await? {
        let revoking = match lease.due_cause(now) {
            Some(cause) => {
                let revoking = lease.condemn(now, cause)?;
                tx.append(condemned(&revoking, "reaper", None));
                // One write for two transitions: the row goes from alive to claimed at once.
                Lease { epoch: lease.epoch, ..revoking }
            }
            None => lease,
        };
        if let Ok(lease) = revoking.claimed(now, claim) {
            claimed.push(lease);
        }
    }
    let lost = tx.update_leases(&claimed).await?;
    claimed.retain(|lease| !lost.contains(&lease.id));
    Ok(Written::Claimed { leases: claimed, now })
}

/// The most claims that are handed back at once: more than one replica ever has.
const HAND_BACK_MAX: u32 = 10_000;

pub(super) async fn hand_back<T: Tx + ?Sized>(
    tx: &mut T,
    owner: ReplicaId,
) -> Result<Written, StoreError> {
    let now = tx.now();
    let claimed = tx.claimed_by(owner, HAND_BACK_MAX).await?;
    let mut free: Vec<Lease> =
        claimed.iter().filter_map(|lease| lease.hand_back(now).ok()).collect();
    let lost = tx.update_leases(&free).await?;
    free.retain(|lease| !lost.contains(&lease.id));
    Ok(Written::Leases(free))
}

/// The first person's wish is noted, the second one's agreement ends the lease. The audit log
/// has both, their reasons and what is left behind.
pub(super) async fn abandon<T: Tx + ?Sized>(
    tx: &mut T,
    id: LeaseId,
    actor: &str,
    reason: &str,
) -> Result<Written, StoreError> {
    let now = tx.now();
    let lease = known(tx, id).await?;
    let not_owed = |_| StoreError::Refused(Refusal::NotOwed);
    // Before the wish is looked at: it stays in the row of a lease that has ended.
    if !matches!(lease.state, State::Revoking { .. }) {
        return Err(Refusal::NotOwed.into());
    }
    let wish = lease.abandonment.as_ref().filter(|wish| wish.stands(now));
    let entry = |event| {
        let entry = Entry::new(event, actor).task(lease.task).lease(id);
        entry.with("handle", lease.handle.as_str()).with("reason", reason)
    };
    let (changed, entry) = match wish {
        None => {
            let (by, reason) = (actor.to_owned(), reason.to_owned());
            let proposed = lease.propose_abandoning(Abandonment { by, reason, at: now });
            (proposed.map_err(not_owed)?, entry("lease.abandon_proposed"))
        }
        Some(wish) if wish.by == actor => return Err(Refusal::SamePerson.into()),
        Some(wish) => {
            let abandoned = lease.abandon(now).map_err(not_owed)?;
            let entry = entry("lease.abandoned")
                .with("backend", lease.backend.as_str())
                .with("proposed_by", wish.by.as_str())
                .with("proposed_because", wish.reason.as_str())
                .with("attempts", lease.attempts)
                .with("class", lease.error_class.clone());
            (abandoned, entry)
        }
    };
    save(tx, &changed).await?;
    tx.append(entry);
    Ok(Written::Lease(Box::new(changed)))
}

pub(super) async fn bury<T: Tx + ?Sized>(
    tx: &mut T,
    dead: &[(LeaseId, i64)],
    expired: &[LeaseId],
) -> Result<Written, StoreError> {
    let now = tx.now();
    let ids: Vec<LeaseId> = dead.iter().map(|(id, _)| *id).collect();
    let mut buried = Vec::new();
    let mut kept = Vec::new();
    for lease in tx.leases(&ids).await? {
        if !dead.contains(&(lease.id, lease.epoch)) && !planted::is(Bug::BuryForeign) {
            continue;
        }
        if let Ok(revoked) = lease.bury(now) {
            buried.push(revoked);
        } else {
            let again = lease.settle_at.map_or(now, |at| at.max(now));
            kept.extend(lease.postpone(again, None).ok());
        }
    }
    let lost = tx.update_leases(&buried).await?;
    buried.retain(|lease| !lost.contains(&lease.id));
    tx.update_leases(&kept).await?;
    for lease in &buried {
        let receipt = receipt(lease);
        // Nobody saw it dead: its backend had said until when it would accept it.
        let waited = expired.contains(&lease.id);
        tx.append(if waited { receipt.with("proof", "native_expiry") } else { receipt });
    }
    buried.append(&mut kept);
    Ok(Written::Leases(buried))
}

/// The proof of a death: signed, and naming all that identifies the credential.
fn receipt(lease: &Lease) -> Entry {
    let cause = lease.state.cause().map_or("", |cause| cause.as_str());
    let delivered = lease.delivered_at.map(dayfly_backend_sdk::Timestamp::rfc3339);
    Entry::new("lease.revoked", "reaper")
        .task(lease.task)
        .lease(lease.id)
        .with("cause", cause)
        .with("handle", lease.handle.as_str())
        .with("backend", lease.backend.as_str())
        .with("role", lease.role.as_str())
        .with("principal", lease.principal.as_str())
        .on_behalf_of(lease.on_behalf_of.as_ref())
        .with("issued_at", lease.issued_at.rfc3339())
        .with("expires_at", lease.expires_at.rfc3339())
        .with("delivered_at", delivered)
        .with("attempts", lease.attempts)
        .with("decision", format!("{}/{}", lease.decision.chain, lease.decision.seq))
}

pub(super) async fn postpone<T: Tx + ?Sized>(
    tx: &mut T,
    owed: &[Owed],
) -> Result<Written, StoreError> {
    let now = tx.now();
    let ids: Vec<LeaseId> = owed.iter().map(|owed| owed.lease).collect();
    let mut postponed = Vec::new();
    for lease in tx.leases(&ids).await? {
        let Some(owed) = owed.iter().find(|o| o.lease == lease.id && o.epoch == lease.epoch) else {
            continue;
        };
        let lingers = owed.failure.as_deref() == Some(Lease::LINGERS);
        let failure = owed.failure.as_deref().filter(|_| owed.counted || lingers);
        let terminal = planted::is(Bug::AttemptsTerminal) && lease.attempts >= 6;
        let left = terminal || planted::is(Bug::PostponeForEver);
        let after = if left { DAY } else { owed.after };
        let Ok(later) = lease.postpone(now.plus(after), failure) else {
            continue;
        };
        let event = if lingers { "lease.lingers" } else { "lease.revoke_failed" };
        let entry = Entry::new(event, "reaper").task(later.task).lease(later.id);
        let entry = entry.with("class", owed.failure.clone()).with("attempts", later.attempts);
        if failure.is_some() {
            tx.append(entry);
        }
        postponed.push(later);
    }
    let lost = tx.update_leases(&postponed).await?;
    postponed.retain(|lease| !lost.contains(&lease.id));
    Ok(Written::Leases(postponed))
}
