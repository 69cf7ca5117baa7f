//! The end of credentials that have been replaced.
//!
//! Invariant: one is revoked only after the command had time to take the next; if it never took
//! that, the old one goes on to its own end.

use std::time::Duration;

use dayfly_api::Lease;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    exec::{Session, run::Run},
    failure::Failure,
};

/// How long to wait for the word that it is dead.
const VERIFY_WITHIN: Duration = Duration::from_secs(5);

/// A lease that another one has taken the place of.
#[derive(Debug)]
pub(super) struct Retiring {
    pub(super) lease: Lease,
    /// The other one's id.
    pub(super) next: String,
    pub(super) ends: Instant,
    /// Says that the command has the other one; `None`: it has it already.
    pub(super) told: Option<oneshot::Receiver<()>>,
}

/// Revokes what comes, each in its time.
pub(super) async fn all(run: &Run<'_>, mut retired: mpsc::Receiver<Retiring>) {
    let mut waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(retiring) = retired.recv() => waiting.push(one(run, retiring)),
            Some(()) = waiting.next() => {}
            else => return,
        }
    }
}

async fn one(run: &Run<'_>, retiring: Retiring) {
    let Retiring { lease, next, ends, told } = retiring;
    let is_taken = match told {
        Some(told) => matches!(timeout_at(ends, told).await, Ok(Ok(()))),
        None => true,
    };
    let overlap = Instant::now() + run.args.deliver.overlap;
    sleep_until(if is_taken { overlap.min(ends) } else { ends }).await;
    if Instant::now() < ends {
        revoke(run.session, &lease, &next).await;
    }
    run.leases.borrow_mut().retain(|held| held.id != lease.id);
}

async fn revoke(session: &Session<'_>, lease: &Lease, next: &str) {
    let (id, role) = (&lease.id, &lease.role);
    let reason = format!("replaced by {next}");
    match session.client.revoke_lease(&session.token, id, &reason, VERIFY_WITHIN).await {
        Ok(revoked) if revoked.state == "revoked" => {
            session.terminal.note(&format!("lease {id} (role `{role}`) is verified dead"));
        }
        Ok(_) => session.terminal.note(&format!("lease {id} (role `{role}`) is being revoked")),
        Err(error) => session.terminal.warn(&format!(
            "cannot revoke lease {id} (role `{role}`), which has been replaced: {}; it ends at {}",
            Failure::from(error).to_line(),
            lease.expires_at
        )),
    }
}
