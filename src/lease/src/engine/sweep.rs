//! The orphan sweep, the third belt: what is at a backend under our prefix and that no lease
//! covers dies.
//!
//! Invariant: each backend is listed first and the rows are read after, so nothing that a row
//! covers is killed by mistake; and it kills nothing when it cannot be sure that the names are
//! its own (another installation's marker), that the store is the right one (a turn that went
//! backwards), or that so many can be unknown (more than a fifth).

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use dayfly_backend_sdk::{Doomed, ErrorKind, Handle, Liveness, Marker, Plan, Revocation};

use super::{Engine, Line, Pass, mint::timeout};
use crate::{
    LeaseId, StoreError, Write, Written,
    audit::Entry,
    planted::{self, Bug},
};

/// Names that are asked for at once.
const PAGE: u32 = 1_000;
/// The most unknown names that are ended in one sweep; the next one goes on.
const KILLS_MAX: usize = 500;
/// So few unknown names are no share of anything.
const UNKNOWN_MIN: u64 = 5;

/// Whose prefix a backend says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Not asked yet, or it did not answer.
    Unknown,
    /// Ours.
    Ours,
    /// Another installation's.
    Another(Marker),
}

/// What a sweep saw and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Names under our prefix.
    pub listed: u64,
    /// Of them, those that no row covers.
    pub unknown: u64,
    /// Of them, those whose row says that they are dead: the backend was restored, or a
    /// create arrived late where nothing guards against that.
    pub resurrected: u64,
    /// Ended and verified gone.
    pub killed: u64,
}

/// What one replica's sweeps of a backend came across since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Credentials that no living row covered, each as often as it was found.
    pub found: u64,
    /// Of them, those that were ended and verified gone.
    pub ended: u64,
}

/// [`Orphans`] while they are counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    found: AtomicU64,
    ended: AtomicU64,
}

impl Tally {
    pub(super) fn read(&self) -> Orphans {
        let found = self.found.load(Ordering::Relaxed);
        Orphans { found, ended: self.ended.load(Ordering::Relaxed) }
    }
}

/// Why a sweep did nothing, or not all.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The backend failed.
    #[error("the backend could not be swept")]
    Backend(#[source] dayfly_backend_sdk::Error),
    /// The prefix belongs to another installation.
    #[error("the prefix belongs to installation {}", .0.installation)]
    Another(Marker),
    /// More than a fifth of the names are unknown.
    #[error("{unknown} of {listed} names are unknown, more than a fifth: is this the right store?")]
    Held {
        /// Unknown names.
        unknown: u64,
        /// All names.
        listed: u64,
    },
    /// The store failed.
    #[error("the store could not be asked")]
    Store(#[from] StoreError),
    /// The store has lost commits or was restored, and nobody has looked yet.
    #[error("the installation is suspended until its store is recovered")]
    Suspended,
    /// It took too long.
    #[error("the backend did not answer in time")]
    Timeout,
}

impl SweepError {
    /// Whether the backend gave no answer that would show that it is there.
    pub(super) fn is_silence(&self) -> bool {
        match self {
            Self::Timeout => true,
            Self::Backend(error) => {
                matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::UnknownOutcome)
            }
            Self::Another(_) | Self::Held { .. } | Self::Store(_) | Self::Suspended => false,
        }
    }
}

/// The names of a page that no living row covers.
struct Uncovered {
    unknown: Vec<Handle>,
    resurrected: Vec<(LeaseId, Handle)>,
}

impl Engine {
    pub(super) async fn sweep_for_ever(self: std::sync::Arc<Self>, backend: String) {
        let mut shutdown = self.shutdown.subscribe();
        while !*shutdown.borrow() {
            if let Err(error) = self.sweep(&backend).await {
                tracing::error!(backend, error = %error, cause = ?error, "sweep.failed");
            }
            // A little apart, so that replicas find each other's turn taken.
            let wait = self.settings.sweep_every * self.percent() / 100;
            tokio::select! {
                biased;
                _ = shutdown.changed() => {}
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    /// Sweeps `backend` if it is its turn.
    pub async fn sweep(&self, backend: &str) -> Result<Sweep, SweepError> {
        let Some(line) = self.lines.get(backend) else { return Ok(Sweep::default()) };
        let pass = line.breaker.ask(self.clock.running());
        if matches!(pass, Pass::Wait(_)) {
            return Ok(Sweep::default());
        }
        let turn = self.take_turn(line).await;
        if pass == Pass::Probe {
            // Where nobody mints and nothing is due, the sweep is the only one that asks.
            match &turn {
                Err(error) if error.is_silence() => {
                    line.breaker.failed(self.clock.running(), self.percent());
                }
                Err(SweepError::Store(_)) | Ok(None) => line.breaker.not_used(),
                Err(_) | Ok(Some(_)) => line.breaker.answered(),
            }
        }
        let Some(turn) = turn? else { return Ok(Sweep::default()) };
        if self.store.standing().await?.suspended.is_some() {
            return Err(SweepError::Suspended);
        }
        if !line.backend.capabilities().list {
            return Ok(Sweep::default());
        }
        let sweep = self.sweep_listed(backend, line).await?;
        let installation = self.store.installation().await?;
        self.bounded(line.backend.mark(&Marker { installation, turn })).await?;
        Ok(sweep)
    }

    /// The next turn, if it is time for one, once it is certain whose prefix it is.
    async fn take_turn(&self, line: &Line) -> Result<Option<u64>, SweepError> {
        // Before the first turn is taken: a store that is one turn behind its marker is told by
        // it, and after the turn the two would be the same.
        self.own(line).await?;
        // Half of it, since replicas' waits differ and none shall miss its turn by a little.
        let every = self.settings.sweep_every / 2;
        let take = Write::TakeTurn { backend: line.name.clone(), every };
        let Written::Turn(Some(turn)) = self.store.write(take).await? else { return Ok(None) };
        self.own_at(line, turn, true).await?;
        Ok(Some(turn))
    }

    async fn sweep_listed(&self, backend: &str, line: &Line) -> Result<Sweep, SweepError> {
        let mut sweep = Sweep::default();
        let mut suspects = Vec::new();
        let mut after: Option<Handle> = None;
        loop {
            let page = self.bounded(line.backend.list(after.as_ref(), PAGE)).await?;
            let handles: Vec<Handle> =
                page.credentials.into_iter().map(|listed| listed.handle).collect();
            sweep.listed += handles.len() as u64;
            let uncovered = self.uncovered(backend, line, &handles).await?;
            sweep.unknown += uncovered.unknown.len() as u64;
            sweep.resurrected += uncovered.resurrected.len() as u64;
            let room = KILLS_MAX.saturating_sub(suspects.len());
            suspects.extend(uncovered.unknown.into_iter().map(|handle| (None, handle)).take(room));
            let room = KILLS_MAX.saturating_sub(suspects.len());
            let dead = uncovered.resurrected.into_iter();
            suspects.extend(dead.map(|(lease, handle)| (Some(lease), handle)).take(room));
            after = handles.into_iter().next_back();
            if !page.more || after.is_none() {
                break;
            }
        }
        if sweep.unknown > UNKNOWN_MIN.max(sweep.listed / 5) {
            let held = SweepError::Held { unknown: sweep.unknown, listed: sweep.listed };
            tracing::error!(backend, error = %held, "sweep.held");
            // What the rows themselves call dead is certain all the same.
            suspects.retain(|(lease, _)| lease.is_some());
            self.end(backend, line, suspects).await?;
            return Err(held);
        }
        sweep.killed = self.end(backend, line, suspects).await?;
        Ok(sweep)
    }

    /// Which of `handles` no living row covers. The rows are read after the names were.
    async fn uncovered(
        &self,
        backend: &str,
        line: &Line,
        handles: &[Handle],
    ) -> Result<Uncovered, SweepError> {
        let id = |handle: &Handle| {
            line.backend.prefix().lease_of(handle.as_str()).map(LeaseId::from_uuid)
        };
        let ids: Vec<LeaseId> = handles.iter().filter_map(id).collect();
        let sightings = self.store.sightings(&ids).await?;
        let sightings: BTreeMap<LeaseId, _> =
            sightings.into_iter().map(|sighting| (sighting.lease, sighting)).collect();
        let mut uncovered = Uncovered { unknown: Vec::new(), resurrected: Vec::new() };
        for handle in handles {
            // What is no handle of ours is never ours to end.
            let Some(lease) = id(handle) else { continue };
            match sightings.get(&lease) {
                Some(seen) if seen.backend == backend && seen.may_live => {}
                Some(seen) if seen.backend == backend => {
                    uncovered.resurrected.push((lease, handle.clone()));
                }
                Some(_) | None => uncovered.unknown.push(handle.clone()),
            }
        }
        Ok(uncovered)
    }

    /// Looks at the suspects once more after the grace, and ends those that are still there
    /// and still uncovered: a canary may have been at work, or a burial on its way.
    async fn end(
        &self,
        backend: &str,
        line: &Line,
        suspects: Vec<(Option<LeaseId>, Handle)>,
    ) -> Result<u64, SweepError> {
        if suspects.is_empty() {
            return Ok(0);
        }
        self.clock.sleep(self.settings.sweep_grace).await;
        let handles: Vec<Handle> = suspects.iter().map(|(_, handle)| handle.clone()).collect();
        let still = self.uncovered(backend, line, &handles).await?;
        let mut killed = 0;
        let orphans = still.unknown.into_iter().map(|handle| (None, handle));
        let dead = still.resurrected.into_iter().map(|(lease, handle)| (Some(lease), handle));
        let certain = |lease: &Option<LeaseId>, handle: &Handle| {
            suspects.iter().any(|(was, name)| name == handle && was.is_some() == lease.is_some())
        };
        for (lease, handle) in orphans.chain(dead) {
            if certain(&lease, &handle) && self.end_one(backend, line, lease, handle).await? {
                killed += 1;
            }
        }
        Ok(killed)
    }

    /// Ends one name: the record first, then the deed, then the receipt.
    async fn end_one(
        &self,
        backend: &str,
        line: &Line,
        lease: Option<LeaseId>,
        handle: Handle,
    ) -> Result<bool, SweepError> {
        // A row's own plan says what its end needs; without a row there is only the name.
        let row = match lease {
            Some(id) => self.store.lease(id).await?,
            None => None,
        };
        let plan = row.as_ref().map_or_else(Plan::default, |row| row.plan.clone());
        let doomed = [Doomed::new(handle, plan)];
        let [Doomed { handle, .. }] = &doomed;
        if self.bounded(line.backend.verify(&doomed)).await?.first() == Some(&Liveness::Gone) {
            return Ok(false);
        }
        let entry = |event| {
            let id = line.backend.prefix().lease_of(handle.as_str()).map(LeaseId::from_uuid);
            let entry = Entry::new(event, "sweep").with("backend", backend);
            let entry = entry.with("handle", handle.as_str()).with("known", lease.is_some());
            match id {
                Some(id) => entry.lease(id),
                None => entry,
            }
        };
        self.store.write(Write::Note(entry("orphan.found"))).await?;
        line.tally.found.fetch_add(1, Ordering::Relaxed);
        tracing::error!(backend, %handle, known = lease.is_some(), "orphan.found");
        let within = self.settings.revoke_within;
        let revoked = timeout(self.clock.as_ref(), within, line.backend.revoke(&doomed)).await;
        if let Some(Revocation::Failed(error)) = revoked.as_deref().and_then(<[_]>::first) {
            tracing::error!(backend, %handle, %error, "orphan.revoke_failed");
        }
        let gone = self.bounded(line.backend.verify(&doomed)).await?;
        if gone.first() != Some(&Liveness::Gone) {
            return Ok(false);
        }
        self.store.write(Write::Note(entry("orphan.revoked"))).await?;
        line.tally.ended.fetch_add(1, Ordering::Relaxed);
        self.deaths.ring();
        Ok(true)
    }

    /// Makes sure that the prefix at this backend is ours, once; a mint waits for it.
    pub(super) async fn own(&self, line: &Line) -> Result<(), SweepError> {
        match &*line.owner.borrow() {
            Owner::Ours => return Ok(()),
            Owner::Another(marker) => return Err(SweepError::Another(marker.clone())),
            Owner::Unknown => {}
        }
        let turn = self.store.turn(&line.name).await?;
        self.own_at(line, turn, false).await
    }

    /// Reads the marker and makes it if there is none. A store whose turn is behind the
    /// marker's has lost commits, or was restored from an old copy.
    /// `taken` says that `turn` has just been taken here, so that nobody can have marked it.
    async fn own_at(&self, line: &Line, turn: u64, taken: bool) -> Result<(), SweepError> {
        let installation = self.store.installation().await?;
        // A turn is marked at the end of its sweep and by nothing else.
        let ours = Marker { installation, turn: 0 };
        let found = match self.bounded(line.backend.marker()).await? {
            Some(found) => found,
            None => match self.bounded(line.backend.mark(&ours)).await {
                Ok(()) => ours,
                // Somebody was faster, perhaps another part of this very installation.
                Err(error) => self.bounded(line.backend.marker()).await?.ok_or(error)?,
            },
        };
        if found.installation != installation {
            line.owner.send_replace(Owner::Another(found.clone()));
            return Err(SweepError::Another(found));
        }
        // Asked again, now that the marker was read: other replicas may have taken turns since
        // ours. A turn is durable before its marker, so only a loss leaves the store behind.
        // Two replicas may both have begun the very first one.
        let marked_before = taken && turn > 1 && found.turn == turn;
        let turn = if found.turn > turn { self.store.turn(&line.name).await? } else { turn };
        let behind = marked_before || found.turn > turn;
        if behind && !planted::is(Bug::LossUnnoticed) {
            let reason = format!(
                "{}: the backend remembers sweep {}, the store is at {turn}",
                line.name, found.turn
            );
            tracing::error!(backend = line.name, reason, "store.behind");
            self.store.write(Write::Suspend { reason }).await?;
        }
        line.owner.send_replace(Owner::Ours);
        Ok(())
    }

    async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, dayfly_backend_sdk::Error>>,
    ) -> Result<T, SweepError> {
        let within: Duration = self.settings.mint_within;
        match timeout(self.clock.as_ref(), within, call).await {
            Some(answer) => answer.map_err(SweepError::Backend),
            None => Err(SweepError::Timeout),
        }
    }
}
