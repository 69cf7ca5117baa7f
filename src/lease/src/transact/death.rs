//! The transactions of a credential's end: condemned, claimed, buried or postponed.
//!
//! Invariant: a lease is buried only by whoever claimed it last, and not before a create that
//! is still on its way has become impossible.

use std::time::Duration;

use super::{Tx, known, mint::condemned, save};
use crate::{
    Cause, Claim, Lease, LeaseId, Owed, ReplicaId, State, StoreError, Written, audit::Entry,
};

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
        State::Revoking { .. } | State::Revoked { .. } => {
            return Ok(Written::Lease(Box::new(lease)));
        }
    }
    let revoking = lease.condemn(tx.now(), cause)?;
    save(tx, &revoking).await?;
    tx.append(condemned(&revoking, actor, reason));
    Ok(Written::Lease(Box::new(revoking)))
}

pub(super) async fn settle<T: Tx + ?Sized>(tx: &mut T, id: LeaseId) -> Result<Written, StoreError> {
    let lease = known(tx, id).await?;
    match lease.settle(tx.now()) {
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
) -> Result<Written, StoreError> {
    let now = tx.now();
    let claim = Claim { owner, since: now, until: now.plus(hold) };
    let mut claimed = Vec::new();
    for lease in tx.due_leases(backend, limit).await? {
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
    Ok(Written::Leases(claimed))
}

pub(super) async fn bury<T: Tx + ?Sized>(
    tx: &mut T,
    dead: &[(LeaseId, i64)],
) -> Result<Written, StoreError> {
    let now = tx.now();
    let ids: Vec<LeaseId> = dead.iter().map(|(id, _)| *id).collect();
    let mut buried = Vec::new();
    let mut kept = Vec::new();
    for lease in tx.leases(&ids).await? {
        if !dead.contains(&(lease.id, lease.epoch)) {
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
        tx.append(receipt(lease));
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
        let Ok(later) = lease.postpone(now.plus(owed.after), owed.failure.as_deref()) else {
            continue;
        };
        let entry = Entry::new("lease.revoke_failed", "reaper").task(later.task).lease(later.id);
        let entry = entry.with("class", owed.failure.clone()).with("attempts", later.attempts);
        if owed.failure.is_some() {
            tx.append(entry);
        }
        postponed.push(later);
    }
    let lost = tx.update_leases(&postponed).await?;
    postponed.retain(|lease| !lost.contains(&lease.id));
    Ok(Written::Leases(postponed))
}
