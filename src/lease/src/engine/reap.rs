//! The reaper: makes every due death true.
//!
//! A lease is reapable if and only if its `due_at` has passed by the store's clock: its mint
//! deadline while pending, its expiry while active, its next attempt (or its claim's end)
//! while revoking. Invariant: there is no terminal failure; what could not be verified dead is
//! tried again, for ever, with capped backoff, and one lease's failure delays no other.

use std::{sync::Arc, time::Duration};

use dayfly_backend_sdk::{Doomed, Error, ErrorKind, Liveness, Retry, Revocation};
use tokio::sync::watch;

use super::{Engine, Line, Pass, SweepError, bell::Bell, breaker::Probe, mint::timeout};
use crate::{
    Closed, Lease, LeaseId, Owed, StoreError, Write, Written, failpoint,
    planted::{self, Bug},
    spawn,
};

/// Tasks that are ended in one transaction at most.
const TASKS_LIMIT: u32 = 50;

/// What revoking and verifying one lease came to.
enum Death {
    Verified,
    /// The backend ended it, and says that it is still there: it answers, and may be slow to
    /// believe itself.
    StillThere,
    /// Nothing ends it before its native expiry.
    Lingers,
    /// What its end needs was kept and cannot be opened: by this replica, at the moment.
    Unopened,
    Failed(Failed),
}

/// Why one could not be ended.
#[derive(Clone)]
struct Failed {
    kind: ErrorKind,
    retry: Retry,
    /// The backend's words, for whoever looks after it; the row keeps the kind alone.
    said: String,
}

impl From<&Error> for Failed {
    fn from(error: &Error) -> Self {
        let chain =
            std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
        let said = chain.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        Self { kind: error.kind(), retry: error.retry(), said }
    }
}

impl Death {
    /// Whether the backend gave no answer that would show that it is there.
    fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Failed(Failed { kind: ErrorKind::Unavailable | ErrorKind::UnknownOutcome, .. })
        )
    }
}

impl Engine {
    /// Starts the reapers of every backend and the watch over the tasks' ends.
    pub fn start(self: &Arc<Self>) -> Vec<tokio::task::JoinHandle<()>> {
        let mut loops = Vec::new();
        for name in self.lines.keys() {
            for _ in 0..self.settings.reapers_per_backend {
                let (engine, name) = (Arc::clone(self), name.clone());
                let start = move || Arc::clone(&engine).reap_for_ever(name.clone());
                loops.push(spawn(Arc::clone(self).supervise(start)));
            }
            let (engine, name) = (Arc::clone(self), name.clone());
            let start = move || Arc::clone(&engine).sweep_for_ever(name.clone());
            loops.push(spawn(Arc::clone(self).supervise(start)));
        }
        let engine = Arc::clone(self);
        let start = move || Arc::clone(&engine).end_tasks_for_ever();
        loops.push(spawn(Arc::clone(self).supervise(start)));
        loops
    }

    /// A loop that panics (a defect in a backend) is started again: without its reaper a
    /// backend's leases would outlive their time unseen.
    async fn supervise<F>(self: Arc<Self>, start: impl Fn() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while let Err(error) = spawn(start()).await {
            tracing::error!(%error, "reaper.died");
            self.clock.sleep(self.settings.poll_max).await;
        }
    }

    async fn reap_for_ever(self: Arc<Self>, backend: String) {
        let Some(line) = self.lines.get(&backend) else { return };
        let mut shutdown = self.shutdown.subscribe();
        while !*shutdown.borrow() {
            let woken = line.wake.count();
            match self.reap(&backend).await {
                Ok(0) => {
                    let next = self.store.next_due(&backend).await;
                    if planted::is(Bug::ReaperDies) && next.is_err() {
                        return;
                    }
                    let next = match line.breaker.peek(self.clock.running()) {
                        Some(wait) => Ok(Some(wait)),
                        None => next,
                    };
                    self.pause(next, (&line.wake, woken), &mut shutdown).await;
                }
                Ok(_) => {}
                Err(error) => self.pause(Err(error), (&line.wake, woken), &mut shutdown).await,
            }
        }
    }

    /// Works on one batch of `backend`; answers with its size.
    pub async fn reap(&self, backend: &str) -> Result<usize, StoreError> {
        let Some(line) = self.lines.get(backend) else { return Ok(0) };
        let pass = line.breaker.ask(self.clock.running());
        let limit = match pass {
            Pass::Closed { limit } => limit.min(self.settings.claim_limit),
            Pass::Probe => 1,
            Pass::Wait(_) => return Ok(0),
        };
        let probe = if pass == Pass::Probe { Probe::at(line) } else { Probe::none() };
        if !self.is_known(line).await? {
            probe.used();
            return Ok(0);
        }
        let claimed = self.claim(backend, limit).await?;
        if claimed.is_empty() {
            return Ok(0);
        }
        probe.used();
        if failpoint::reached("revoke.after_claim").await.is_err() {
            return Ok(claimed.len());
        }
        let deaths = self.kill(line, &claimed).await;
        if failpoint::reached("revoke.after_backend").await.is_err() {
            return Ok(claimed.len());
        }
        let silent = deaths.iter().all(Death::is_silence);
        if silent {
            line.breaker.failed(self.clock.running(), self.percent());
        } else {
            line.breaker.answered();
        }
        let counted = !(silent && line.breaker.is_open());
        self.record(backend, &claimed, deaths, counted).await?;
        Ok(claimed.len())
    }

    /// Whether the marker was read since this process started. Before that the store may be an
    /// old copy, in which what was renewed since looks due. Another installation's marker
    /// stops no revocation: what our rows name is ours.
    async fn is_known(&self, line: &Line) -> Result<bool, StoreError> {
        match self.own(line).await {
            Ok(()) | Err(SweepError::Another(_)) => Ok(true),
            Err(SweepError::Store(error)) => Err(error),
            Err(error) => {
                tracing::warn!(backend = line.name, %error, "reaper.owner.unknown");
                line.breaker.failed(self.clock.running(), self.percent());
                Ok(false)
            }
        }
    }

    async fn claim(&self, backend: &str, limit: u32) -> Result<Vec<Lease>, StoreError> {
        let claim = Write::Claim {
            backend: backend.to_owned(),
            owner: self.replica,
            limit,
            hold: self.settings.claim_hold,
            believed: self.believed(),
        };
        let Written::Claimed { leases, now } = self.store.write(claim).await? else {
            return Ok(Vec::new());
        };
        self.saw(now);
        Ok(leases)
    }

    /// Kills what was claimed. What has failed before goes in smaller and smaller batches, down
    /// to one by one, side by side: one lease that cannot be revoked delays no other for long.
    async fn kill(&self, line: &Line, claimed: &[Lease]) -> Vec<Death> {
        let size = |lease: &Lease| match lease.attempts {
            0 => usize::MAX,
            1 => 25,
            2 => 5,
            _ => 1,
        };
        let mut batches: Vec<Vec<(usize, &Lease)>> = Vec::new();
        let mut order: Vec<(usize, &Lease)> = claimed.iter().enumerate().collect();
        order.sort_by_key(|(_, lease)| lease.attempts.min(3));
        for (index, lease) in order {
            match batches.last_mut() {
                Some(batch)
                    if batch.len() < size(lease)
                        && batch.first().is_some_and(|(_, first)| size(first) == size(lease)) =>
                {
                    batch.push((index, lease));
                }
                Some(_) | None => batches.push(vec![(index, lease)]),
            }
        }
        let kills = batches.into_iter().map(async |batch| {
            let leases: Vec<&Lease> = batch.iter().map(|(_, lease)| *lease).collect();
            let deaths = self.kill_batch(line, &leases).await;
            batch.into_iter().map(|(index, _)| index).zip(deaths).collect::<Vec<_>>()
        });
        let mut deaths: Vec<(usize, Death)> =
            futures_util::future::join_all(kills).await.into_iter().flatten().collect();
        deaths.sort_by_key(|(index, _)| *index);
        deaths.into_iter().map(|(_, death)| death).collect()
    }

    /// Revokes at the backend, then asks it whether they are really gone. One death for each
    /// of `claimed`, in its order.
    async fn kill_batch(&self, line: &Line, claimed: &[&Lease]) -> Vec<Death> {
        let doomed: Vec<Doomed> = claimed.iter().map(|lease| self.doomed(lease)).collect();
        let unknown = || {
            let error = Error::new(ErrorKind::UnknownOutcome, "the backend did not answer");
            Death::Failed(Failed::from(&error))
        };
        let within = self.settings.revoke_within;
        let revoked = timeout(self.clock.as_ref(), within, async {
            let revoked = line.backend.revoke(&doomed).await;
            let verified =
                if line.backend.capabilities().verify && !planted::is(Bug::BuryUnverified) {
                    line.backend.verify(&doomed).await
                } else {
                    Ok(vec![Liveness::Gone; doomed.len()])
                };
            (revoked, verified)
        });
        let Some((revoked, verified)) = revoked.await else {
            return claimed.iter().map(|_| unknown()).collect();
        };
        let verified: Vec<Result<Liveness, Failed>> = match verified {
            Ok(verified) => verified.into_iter().map(Ok).collect(),
            Err(error) => claimed.iter().map(|_| Err(Failed::from(&error))).collect(),
        };
        let unopened = |index: usize, lease: &Lease| {
            lease.kept.is_some() && doomed.get(index).is_some_and(|one| one.kept.is_none())
        };
        // A backend that answers for fewer than it was asked is not believed for the rest.
        let mut answers = revoked.into_iter().zip(verified);
        claimed
            .iter()
            .enumerate()
            .map(|(index, lease)| match answers.next() {
                Some((Revocation::Lingers, _)) if unopened(index, lease) => Death::Unopened,
                Some((Revocation::Gone, Ok(Liveness::Gone))) => Death::Verified,
                Some((Revocation::Failed(error), _))
                    if planted::is(Bug::AmbiguousIsGone) && error.kind() == ErrorKind::NotFound =>
                {
                    Death::Verified
                }
                Some((Revocation::Failed(error), _)) => Death::Failed(Failed::from(&error)),
                Some((Revocation::Lingers, _)) => Death::Lingers,
                Some((Revocation::Gone, Err(failed))) => Death::Failed(failed),
                Some((Revocation::Gone, Ok(Liveness::Live))) => Death::StillThere,
                None => unknown(),
            })
            .collect()
    }

    async fn record(
        &self,
        backend: &str,
        claimed: &[Lease],
        deaths: Vec<Death>,
        counted: bool,
    ) -> Result<(), StoreError> {
        let mut dead: Vec<(LeaseId, i64)> = Vec::new();
        let mut expired = Vec::new();
        let mut owed = Vec::new();
        for (lease, death) in claimed.iter().zip(deaths) {
            let (class, retry, said) = match death {
                Death::Verified => {
                    dead.push((lease.id, lease.epoch));
                    continue;
                }
                Death::Lingers | Death::Unopened => {
                    match lease.lingers_for() {
                        Some(Duration::ZERO) => {
                            dead.push((lease.id, lease.epoch));
                            expired.push(lease.id);
                        }
                        Some(_) if matches!(death, Death::Unopened) => {
                            owed.push(self.owed(lease, "unopened", Retry::Temporary, counted));
                        }
                        Some(left) => owed.push(Self::lingering(lease, left)),
                        // It has no end of its own to wait for.
                        None => owed.push(self.owed(lease, "invalid", Retry::Permanent, counted)),
                    }
                    continue;
                }
                Death::StillThere => ("still_there", Retry::Temporary, None),
                Death::Failed(failed) => (failed.kind.as_str(), failed.retry, Some(failed.said)),
            };
            tracing::warn!(lease.id = %lease.id, backend, error.class = class,
                error = said.as_deref(), attempts = lease.attempts + 1, "lease.revoke.failed");
            owed.push(self.owed(lease, class, retry, counted));
        }
        if failpoint::reached("revoke.before_bury").await.is_err() {
            return Ok(());
        }
        // The dead first: whoever waits for them need not wait for the others' sake.
        if !dead.is_empty() {
            self.store.write(Write::Bury { leases: dead, expired }).await?;
            self.deaths.ring();
        }
        if !owed.is_empty() {
            self.store.write(Write::Postpone { leases: owed }).await?;
            // Who waits may learn that there is nothing to wait for.
            self.deaths.ring();
        }
        Ok(())
    }

    fn owed(&self, lease: &Lease, class: &str, retry: Retry, counted: bool) -> Owed {
        Owed {
            lease: lease.id,
            epoch: lease.epoch,
            after: self.backoff(lease.attempts, retry),
            failure: Some(class.to_owned()),
            counted,
        }
    }

    /// There is nothing to try before the backend itself ends it.
    fn lingering(lease: &Lease, left: Duration) -> Owed {
        tracing::warn!(lease.id = %lease.id, backend = lease.backend, left_s = left.as_secs(),
            "lease.lingers");
        Owed {
            lease: lease.id,
            epoch: lease.epoch,
            after: left,
            failure: Some(Lease::LINGERS.to_owned()),
            counted: false,
        }
    }

    /// Doubles at each failure up to the cap, and ±20 % so that leases which failed together
    /// do not come back together. What only a person can mend is not hammered.
    fn backoff(&self, attempts: u32, retry: Retry) -> Duration {
        let first = match retry {
            Retry::Temporary => self.settings.backoff_first,
            Retry::Permanent => self.settings.backoff_first.saturating_mul(8),
        };
        let doubled = first.saturating_mul(1_u32.checked_shl(attempts.min(20)).unwrap_or(u32::MAX));
        let uncapped = planted::is(Bug::BackoffUncapped);
        let capped = if uncapped { doubled } else { doubled.min(self.settings.backoff_max) };
        capped * self.percent() / 100
    }

    async fn end_tasks_for_ever(self: Arc<Self>) {
        let mut shutdown = self.shutdown.subscribe();
        let never = Bell::default();
        let mut was_left = false;
        while !*shutdown.borrow() {
            match self.end_due_tasks().await {
                Ok(0) => {
                    let next = self.store.next_task_due().await;
                    // What is due and was left before is held, or nobody could have heard it:
                    // that takes its time.
                    let is_left = matches!(next, Ok(Some(Duration::ZERO)));
                    let next = if is_left && was_left { Ok(None) } else { next };
                    was_left = is_left;
                    self.pause(next, (&never, 0), &mut shutdown).await;
                }
                Ok(_) => was_left = false,
                Err(error) => self.pause(Err(error), (&never, 0), &mut shutdown).await,
            }
        }
    }

    /// Ends tasks whose deadline has passed or that are lost; answers with how many.
    pub async fn end_due_tasks(&self) -> Result<usize, StoreError> {
        let (believed, heard) = (self.believed(), self.hearing.so_far(self.clock.running()));
        let write = Write::ExpireTasks { limit: TASKS_LIMIT, believed, heard };
        let written = self.store.write(write).await.inspect_err(|_| self.hearing.broke_off())?;
        let Written::Ended { closed, now } = written else { return Ok(0) };
        self.hearing.looked(now, self.clock.running());
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
        (wake, mut woken): (&Bell, u64),
        shutdown: &mut watch::Receiver<bool>,
    ) {
        // Something is due and nothing could be done: another replica has it in hand, or it
        // cannot be read. Asking again at once would help nobody.
        const OVERDUE: Duration = Duration::from_millis(50);
        let poll_max = self.settings.poll_max;
        let sleep = match next {
            Ok(_) if planted::is(Bug::WakeOnly) => Duration::from_hours(24),
            Ok(Some(Duration::ZERO)) => OVERDUE,
            Ok(due) => due.unwrap_or(poll_max).min(poll_max),
            Err(error) => {
                tracing::error!(%error, "reaper.store.failed");
                poll_max
            }
        };
        tokio::select! {
            biased;
            _ = shutdown.changed() => {}
            () = wake.since(&mut woken) => {}
            () = self.clock.sleep(sleep) => {}
        }
    }
}
