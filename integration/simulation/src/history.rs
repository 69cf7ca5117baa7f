//! What happened, in order: a running hash always, and the text when somebody reads it.
//!
//! Invariant: two runs of one seed have the same hash, or the simulation is not
//! deterministic.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The history of one run.
#[derive(Debug)]
pub struct History {
    told: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    hash: u64,
    events: u64,
}

impl History {
    /// An empty history; `told` prints each event.
    pub fn new(told: bool) -> Self {
        Self { told, inner: Mutex::new(Inner { hash: 0xcbf2_9ce4_8422_2325, events: 0 }) }
    }

    /// Adds an event. `numbers` go into the hash, `text` is only for reading.
    pub fn event(
        &self,
        at: Duration,
        name: &'static str,
        numbers: [u64; 2],
        text: impl FnOnce() -> String,
    ) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hash = inner.hash;
        let micros = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        let words = [micros, numbers[0], numbers[1]];
        let bytes = name.bytes().chain(words.into_iter().flat_map(u64::to_le_bytes));
        for byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        inner.hash = hash;
        inner.events += 1;
        if self.told {
            crate::say(&format!("{:>12.6} {name} {}", at.as_secs_f64(), text()));
        }
    }

    /// The hash and the number of events.
    pub fn sum(&self) -> (u64, u64) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.hash, inner.events)
    }
}
