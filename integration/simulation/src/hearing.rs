//! What was heard: of whom no replica may say that he was silent.
//!
//! Invariant: it knows when each replica could not hear, and whose heartbeats the store took, and
//! judges by that alone. A replica that says that a task is lost must have heard for the whole of
//! the task's interval: an outage of the broker or of the store, or a heartbeat that it turned away
//! itself, ends nobody who beats. What another replica turned away counts from when the store was
//! told.

use std::{collections::BTreeMap, time::Duration};

use dayfly_lease::{ReplicaId, Task, TaskId};

/// A millisecond.
const MOMENT: i64 = 1_000;

/// Which replica looks for the silent, as it was when it sent its look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Which start of which replica.
    pub replica: ReplicaId,
    /// When, in the run's time.
    pub sent: Duration,
    /// For how long that process had been there.
    pub running: Duration,
}

/// What is known of it.
#[derive(Debug, Default)]
pub struct Hearing {
    /// When, in the run's time, a replica last turned a heartbeat away or could not look.
    deaf: BTreeMap<ReplicaId, Duration>,
    /// When, by the store's clock, the store was last told of a heartbeat that was turned away.
    told: Option<i64>,
    /// When, by the store's clock, it last took a heartbeat of a task.
    heard: BTreeMap<TaskId, i64>,
}

impl Hearing {
    /// `replica` turned a heartbeat away, or could not look.
    pub fn missed(&mut self, replica: ReplicaId, elapsed: Duration) {
        self.deaf.insert(replica, elapsed);
    }

    /// The store took a heartbeat at `now` by its clock.
    pub fn heard(&mut self, task: TaskId, now: i64) {
        self.heard.insert(task, now);
    }

    /// It was told at `now` that one was turned away.
    pub fn told(&mut self, now: i64) {
        self.told = Some(now);
    }

    /// The store's clock was `now`. What comes after that was told before the clock was set back,
    /// and the store counts it from another moment.
    pub fn at(&mut self, now: i64) {
        self.told = self.told.filter(|at| *at <= now);
    }

    /// The store may have lost what it was told.
    pub fn forget(&mut self) {
        self.told = None;
        self.heard.clear();
    }

    /// `task` was said to be lost at `now` by the store's clock. Answers with what does not hold.
    pub fn lost(&self, task: &Task, look: Look, now: i64) -> Result<(), String> {
        let id = task.id;
        let Some(heartbeat) = task.heartbeat else {
            return Err(format!("{id} is lost, and nobody need have heard it"));
        };
        let every = heartbeat.every;
        let deaf = self.deaf.get(&look.replica).filter(|at| **at < look.sent);
        let hears = deaf.map_or(look.running, |at| look.sent.saturating_sub(*at));
        if hears.min(look.running) < every {
            return Err(format!("{id} is lost after {every:?}, by who has heard for {hears:?}"));
        }
        // The store's clock is looked at a moment after the store has.
        let micros = i64::try_from(every.as_micros()).unwrap_or(i64::MAX) - MOMENT;
        let within = |at: Option<i64>| at.is_some_and(|at| at <= now && now - at < micros);
        if within(self.heard.get(&id).copied()) {
            return Err(format!("{id} is lost after {every:?}, and was heard since"));
        }
        if within(self.told) {
            return Err(format!("{id} is lost after {every:?}, and its beat may be turned away"));
        }
        Ok(())
    }
}
