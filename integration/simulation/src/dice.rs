//! One seeded generator for everything that is left to chance.
//!
//! Invariant: nothing in a run draws from anywhere else, so that a seed is the whole story.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chacha20::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use dayfly_lease::Entropy;

/// The generator of one run.
#[derive(Debug)]
pub struct Dice(Mutex<ChaCha8Rng>);

impl Dice {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(ChaCha8Rng::seed_from_u64(seed)))
    }

    /// Any number.
    pub fn number(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }

    /// From 0 up to `end`, without it; 0 if that is 0.
    pub fn below(&self, end: u64) -> u64 {
        self.number().checked_rem(end).unwrap_or(0)
    }

    /// An index into something of this length.
    pub fn index(&self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// True so many times in ten thousand.
    pub fn chance(&self, in_ten_thousand: u64) -> bool {
        in_ten_thousand > 0 && self.below(10_000) < in_ten_thousand
    }

    /// Between two durations.
    pub fn between(&self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(0);
        least + Duration::from_micros(self.below(span + 1))
    }

    /// Between two numbers of milliseconds.
    pub fn millis(&self, least: u64, most: u64) -> Duration {
        self.between(Duration::from_millis(least), Duration::from_millis(most))
    }

    /// Between two numbers of seconds.
    pub fn seconds(&self, least: u64, most: u64) -> Duration {
        self.between(Duration::from_secs(least), Duration::from_secs(most))
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&self, choices: &[T], otherwise: T) -> T {
        choices.get(self.index(choices.len())).copied().unwrap_or(otherwise)
    }
}

impl Entropy for Dice {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}
