//! Rung when something has happened that others may wait for.
//!
//! Invariant: whoever waits is woken in the order in which the waiting began, so that a
//! simulated run takes the same turn each time (tokio's `watch` wakes in a random order).

use std::{
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// Counts what has happened.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: AtomicU64,
    waiting: Notify,
}

impl Bell {
    /// It has happened.
    pub(super) fn ring(&self) {
        self.rung.fetch_add(1, Ordering::AcqRel);
        self.waiting.notify_waiters();
    }

    /// How often so far.
    pub(super) fn count(&self) -> u64 {
        self.rung.load(Ordering::Acquire)
    }

    /// Waits until it has been rung since `seen`, which becomes what it is then.
    pub(super) async fn since(&self, seen: &mut u64) {
        loop {
            let mut rung = pin!(self.waiting.notified());
            // Before the look, or what is rung between the two would be missed.
            rung.as_mut().enable();
            let count = self.count();
            if count != *seen {
                *seen = count;
                return;
            }
            rung.await;
        }
    }
}
