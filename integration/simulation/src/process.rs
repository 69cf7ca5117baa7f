//! One incarnation of a replica: alive, stopped for a while, or dead.
//!
//! Invariant: whatever a dead process waits for never comes, and what it asked for before may
//! still happen. It is left waiting, not dropped: a process that was killed runs no drop.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{Clock, ReplicaId};
use tokio::time::Instant;

use crate::{
    coverage::{Fate, Kind},
    world::{World, hold},
};

/// A running replica.
pub struct Process {
    /// Which replica.
    pub index: usize,
    /// Which start of it.
    pub id: ReplicaId,
    /// The world it runs in.
    pub world: Arc<World>,
    state: Mutex<State>,
    skew: i64,
    started: Instant,
}

#[derive(Debug, Default)]
struct State {
    dead: bool,
    stopped_until: Option<Instant>,
    waits_for: Vec<Kind>,
}

impl Process {
    /// Starts, with a clock of its own.
    pub fn start(world: &Arc<World>, index: usize) -> Arc<Self> {
        const SKEW_MINUTES: u64 = 10;
        let half = i64::try_from(SKEW_MINUTES * 60_000_000).unwrap_or_default();
        let skew =
            i64::try_from(world.dice.below(2 * SKEW_MINUTES * 60_000_000)).unwrap_or_default();
        Arc::new(Self {
            index,
            id: ReplicaId::new(world.now(), &world.dice),
            world: Arc::clone(world),
            state: Mutex::default(),
            skew: skew - half,
            started: Instant::now(),
        })
    }

    /// Whether it was killed.
    pub fn is_dead(&self) -> bool {
        hold(&self.state).dead
    }

    /// Kills it.
    pub fn kill(&self) {
        let mut state = hold(&self.state);
        state.dead = true;
        for kind in &state.waits_for {
            self.world.coverage.message(Fate::CallerCrashed, *kind);
        }
    }

    /// Stops it for so long.
    pub fn stop(&self, lasts: Duration) {
        let mut state = hold(&self.state);
        state.stopped_until = Some(Instant::now() + lasts);
        for kind in &state.waits_for {
            self.world.coverage.message(Fate::CallerPaused, *kind);
        }
    }

    /// Lets it run again at once.
    pub fn resume(&self) {
        hold(&self.state).stopped_until = None;
    }

    /// Passes when the process runs; never, once it is dead.
    pub async fn gate(&self) {
        loop {
            let (dead, until) = {
                let state = hold(&self.state);
                (state.dead, state.stopped_until)
            };
            if dead {
                std::future::pending::<()>().await;
            }
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                Some(_) | None => return,
            }
        }
    }

    /// It begins to wait for an answer of this kind.
    pub fn awaits(&self, kind: Kind) {
        hold(&self.state).waits_for.push(kind);
    }

    /// It has its answer, or waits no longer.
    pub fn awaited(&self, kind: Kind) {
        let mut state = hold(&self.state);
        if let Some(place) = state.waits_for.iter().position(|one| *one == kind) {
            state.waits_for.swap_remove(place);
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {}", self.index)
    }
}

#[async_trait]
impl Clock for Process {
    fn now(&self) -> Timestamp {
        self.world.shifted(self.skew)
    }

    fn running(&self) -> Duration {
        self.started.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
        self.gate().await;
    }
}
