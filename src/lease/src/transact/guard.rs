//! The transactions that pause and resume: suspension, the mass-revocation brake, sweeps'
//! turns, recovery.
//!
//! Invariant: whatever pauses says so in the audit log in the same transaction, and so does
//! whatever resumes.

use std::time::Duration;

use dayfly_backend_sdk::Timestamp;

use super::{Tx, known, save};
use crate::{
    CLOCK_TOLERANCE, HOLD_LEASES_MIN, Hold, LeaseId, Refusal, Spared, Standing, StoreError,
    Suspension, Written, audit::Entry,
};

/// What reapers leave for later. The brake goes on here: when the store's clock is further
/// than the replica believed it can be, and that makes a large share of the leases due.
pub(super) async fn spared<T: Tx + ?Sized>(
    tx: &mut T,
    believed: Option<Timestamp>,
) -> Result<Spared, StoreError> {
    let now = tx.now();
    let mut standing = tx.standing().await?;
    let jumped = believed.filter(|believed| now > believed.plus(CLOCK_TOLERANCE));
    let held = standing.hold.filter(|hold| hold.is_on(now));
    if let Some(from) = jumped
        && held.is_none_or(|hold| now > hold.to.plus(hold.jump()))
    {
        let share = tx.expiring(from, now).await?;
        // A fifth, as with the sweep: more than that is not what a schedule looks like.
        if share.part > HOLD_LEASES_MIN && share.part * 5 > share.whole {
            let hold = Hold::over(from, now);
            let entry = Entry::new("brake.held", "engine")
                .with("leases", share.part.to_string())
                .with("of", share.whole.to_string())
                .with("from", hold.from.rfc3339())
                .with("to", hold.to.rfc3339())
                .with("until", hold.until.rfc3339());
            tx.append(entry);
            standing.hold = Some(hold);
            tx.set_standing(&standing).await?;
        }
    }
    Ok(standing.spared(now))
}

pub(super) async fn release<T: Tx + ?Sized>(
    tx: &mut T,
    actor: &str,
) -> Result<Written, StoreError> {
    let mut standing = tx.standing().await?;
    if standing.hold.take().is_some() {
        tx.append(Entry::new("brake.released", actor));
        tx.set_standing(&standing).await?;
    }
    Ok(Written::Done)
}

/// It is time if the last turn began `every` ago, or after now: a clock that went back must
/// not stop the sweeps.
pub(super) async fn take_turn<T: Tx + ?Sized>(
    tx: &mut T,
    backend: &str,
    every: Duration,
) -> Result<Written, StoreError> {
    let now = tx.now();
    let (turn, began_at) = tx.turn(backend).await?;
    if began_at.is_some_and(|at| at <= now && now.since(at) < every) {
        return Ok(Written::Turn(None));
    }
    tx.set_turn(backend, turn + 1).await?;
    Ok(Written::Turn(Some(turn + 1)))
}

pub(super) async fn suspend<T: Tx + ?Sized>(
    tx: &mut T,
    reason: &str,
) -> Result<Written, StoreError> {
    suspended_by(tx, Entry::new("store.suspended", "engine"), reason).await?;
    Ok(Written::Done)
}

/// Suspends the installation if it is not yet; what was noticed is in `entry`.
pub async fn suspended_by<T: Tx + ?Sized>(
    tx: &mut T,
    entry: Entry,
    reason: &str,
) -> Result<(), StoreError> {
    let standing = tx.standing().await?;
    if standing.suspended.is_some() {
        return Ok(());
    }
    tx.append(entry.with("reason", reason));
    let suspended = Some(Suspension { since: tx.now(), reason: reason.to_owned() });
    tx.set_standing(&Standing { suspended, ..standing }).await
}

pub(super) async fn resume<T: Tx + ?Sized>(
    tx: &mut T,
    actor: &str,
    turns: &[(String, u64)],
) -> Result<Written, StoreError> {
    for (backend, reached) in turns {
        let (turn, _) = tx.turn(backend).await?;
        if turn < *reached {
            tx.set_turn(backend, *reached).await?;
        }
    }
    let standing = tx.standing().await?;
    if let Some(suspended) = &standing.suspended {
        let entry = Entry::new("store.recovered", actor);
        let entry = entry.with("suspended_at", suspended.since.rfc3339());
        tx.append(entry.with("reason", suspended.reason.as_str()));
    }
    // Also when it was not suspended: what the store was recognised by is noted anew.
    tx.set_standing(&Standing { suspended: None, ..standing }).await?;
    Ok(Written::Done)
}

pub(super) async fn adopt<T: Tx + ?Sized>(
    tx: &mut T,
    id: LeaseId,
    expires_at: Timestamp,
    actor: &str,
) -> Result<Written, StoreError> {
    let lease = known(tx, id).await?;
    let adopted = lease.adopt(tx.now(), expires_at).map_err(|_| Refusal::LeaseChanged)?;
    save(tx, &adopted).await?;
    let entry = Entry::new("lease.adopted", actor).task(lease.task).lease(id);
    tx.append(entry.with("expires_at", adopted.expires_at.rfc3339()));
    Ok(Written::Lease(Box::new(adopted)))
}
