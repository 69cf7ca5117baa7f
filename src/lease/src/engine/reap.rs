//! The reaper: makes every due death true.
//!
//! A lease is reapable if and only if its `due_at` has passed by the store's clock: its mint
//! deadline while pending, its expiry while active, its next attempt (or its claim's end)
//! while revoking. Invariant: there is no terminal failure; what could not be verified dead is
//! tried again, for ever, with capped backoff, and one lease's failure delays no other.

use std::{sync::Arc, time::Duration};

use dayfly_backend_sdk::{Doomed, ErrorKind, Liveness, Retry, Revocation};
use tokio::sync::watch;

use super::{Engine, Line, mint::timeout};
use crate::{Closed, Lease, LeaseId, Owed, StoreError, Write, Written, failpoint, spawn};

/// Tasks that are ended in one transaction at most.
const TASKS_LIMIT: u32 = 50;

/// What revoking and verifying one lease came to.
enum Death {
    Verified,
    Failed(ErrorKind, Retry),
}

impl Engine {
    /// Starts the reapers of every backend and the watch over the tasks' deadlines.
    pub fn start(self: &Arc<Self>) -> Vec<tokio::task::JoinHandle<()>> {
        let mut loops = Vec::new();
        for name in self.lines.keys() {
            for _ in 0..self.settings.reapers_per_backend {
                loops.push(spawn(Arc::clone(self).reap_for_ever(name.clone())));
            }
        }
        loops.push(spawn(Arc::clone(self).end_tasks_for_ever()));
        loops
    }

    async fn reap_for_ever(self: Arc<Self>, backend: String) {
        let Some(line) = self.lines.get(&backend) else { return };
        let mut wake = line.wake.subscribe();
        let mut shutdown = self.shutdown.subscribe();
        while !*shutdown.borrow() {
            wake.borrow_and_update();
            let worked = match self.reap(&backend).await {
                Ok(0) => false,
                Ok(_) => true,
                Err(error) => {
                    tracing::error!(backend, %error, "reaper.store.failed");
                    false
                }
            };
            if worked {
                continue;
            }
            let next = self.store.next_due(&backend).await;
            self.pause(next, &mut wake, &mut shutdown).await;
        }
    }

    /// Works on one batch of `backend`; answers with its size.
    pub async fn reap(&self, backend: &str) -> Result<usize, StoreError> {
        let Some(line) = self.lines.get(backend) else { return Ok(0) };
        let claim = Write::Claim {
            backend: backend.to_owned(),
            owner: self.replica,
            limit: self.settings.claim_limit,
            hold: self.settings.claim_hold,
        };
        let Written::Leases(claimed) = self.store.write(claim).await? else { return Ok(0) };
        if claimed.is_empty() {
            return Ok(0);
        }
        if failpoint::reached("revoke.after_claim").await.is_err() {
            return Ok(claimed.len());
        }
        let deaths = self.kill(line, &claimed).await;
        if failpoint::reached("revoke.after_backend").await.is_err() {
            return Ok(claimed.len());
        }
        self.record(backend, &claimed, deaths).await?;
        Ok(claimed.len())
    }

    /// Revokes at the backend, then asks it whether they are really gone.
    async fn kill(&self, line: &Line, claimed: &[Lease]) -> Vec<Death> {
        let doomed: Vec<Doomed> = claimed.iter().map(Lease::doomed).collect();
        let unknown = || Death::Failed(ErrorKind::UnknownOutcome, Retry::Temporary);
        let within = self.settings.revoke_within;
        let revoked = timeout(self.clock.as_ref(), within, async {
            let revoked = line.backend.revoke(&doomed).await;
            let verified = if line.backend.capabilities().verify {
                line.backend.verify(&doomed).await
            } else {
                Ok(vec![Liveness::Gone; doomed.len()])
            };
            (revoked, verified)
        });
        let Some((revoked, verified)) = revoked.await else {
            return claimed.iter().map(|_| unknown()).collect();
        };
        let verified = match verified {
            Ok(verified) => verified.into_iter().map(Ok).collect(),
            Err(error) => claimed.iter().map(|_| Err((error.kind(), error.retry()))).collect(),
        };
        // A backend that answers for fewer than it was asked is not believed for the rest.
        let mut verified: std::vec::IntoIter<_> = Vec::into_iter(verified);
        let mut revoked = revoked.into_iter();
        claimed
            .iter()
            .map(|_| match (revoked.next(), verified.next()) {
                (Some(Revocation::Gone), Some(Ok(Liveness::Gone))) => Death::Verified,
                (Some(Revocation::Failed(error)), _) => Death::Failed(error.kind(), error.retry()),
                (Some(Revocation::Gone), Some(Err((kind, retry)))) => Death::Failed(kind, retry),
                (Some(Revocation::Gone) | None, _) => unknown(),
            })
            .collect()
    }

    async fn record(
        &self,
        backend: &str,
        claimed: &[Lease],
        deaths: Vec<Death>,
    ) -> Result<(), StoreError> {
        let mut dead: Vec<(LeaseId, i64)> = Vec::new();
        let mut owed = Vec::new();
        for (lease, death) in claimed.iter().zip(deaths) {
            match death {
                Death::Verified => dead.push((lease.id, lease.epoch)),
                Death::Failed(kind, retry) => {
                    tracing::warn!(lease.id = %lease.id, backend, error.class = kind.as_str(),
                        attempts = lease.attempts + 1, "lease.revoke.failed");
                    owed.push(Owed {
                        lease: lease.id,
                        epoch: lease.epoch,
                        after: self.backoff(lease.attempts, retry),
                        failure: Some(kind.as_str().to_owned()),
                    });
                }
            }
        }
        if !owed.is_empty() {
            self.store.write(Write::Postpone { leases: owed }).await?;
        }
        if failpoint::reached("revoke.before_bury").await.is_err() || dead.is_empty() {
            return Ok(());
        }
        self.store.write(Write::Bury { leases: dead }).await?;
        self.deaths.send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    /// Doubles at each failure up to the cap, and ±20 % so that leases which failed together
    /// do not come back together. What only a person can mend is not hammered.
    fn backoff(&self, attempts: u32, retry: Retry) -> Duration {
        let first = match retry {
            Retry::Temporary => self.settings.backoff_first,
            Retry::Permanent => self.settings.backoff_first.saturating_mul(8),
        };
        let doubled = first.saturating_mul(1_u32.checked_shl(attempts.min(20)).unwrap_or(u32::MAX));
        let capped = doubled.min(self.settings.backoff_max);
        let mut random = [0_u8; 1];
        self.entropy.fill(&mut random);
        let percent = 80 + u32::from(random[0]) * 40 / 255;
        capped * percent / 100
    }

    async fn end_tasks_for_ever(self: Arc<Self>) {
        let mut shutdown = self.shutdown.subscribe();
        let (_never, mut wake) = watch::channel(0_u64);
        while !*shutdown.borrow() {
            match self.end_due_tasks().await {
                Ok(0) => {}
                Ok(_) => continue,
                Err(error) => tracing::error!(%error, "task.deadline.store.failed"),
            }
            let next = self.store.next_task_due().await;
            self.pause(next, &mut wake, &mut shutdown).await;
        }
    }

    /// Ends tasks whose deadline has passed; answers with how many.
    pub async fn end_due_tasks(&self) -> Result<usize, StoreError> {
        let written = self.store.write(Write::ExpireTasks { limit: TASKS_LIMIT }).await?;
        let Written::Closed(closed) = written else { return Ok(0) };
        for backend in closed.iter().flat_map(|Closed { backends, .. }| backends) {
            self.wake(backend);
        }
        Ok(closed.len())
    }

    /// Sleeps until the next deadline, a wake-up or the end, and never longer than
    /// `poll_max`, since another replica may have died with work of its own.
    async fn pause(
        &self,
        next: Result<Option<Duration>, StoreError>,
        wake: &mut watch::Receiver<u64>,
        shutdown: &mut watch::Receiver<bool>,
    ) {
        let poll_max = self.settings.poll_max;
        let sleep = match next {
            Ok(due) => due.unwrap_or(poll_max).min(poll_max),
            Err(error) => {
                tracing::error!(%error, "reaper.store.failed");
                poll_max
            }
        };
        tokio::select! {
            biased;
            _ = shutdown.changed() => {}
            Ok(()) = wake.changed() => {}
            () = self.clock.sleep(sleep) => {}
        }
    }
}
