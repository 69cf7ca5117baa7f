//! Seeds that once found something, and what it was.
//!
//! Invariant: a seed is only a place to look. When the plan of a seed changes, so does what
//! it meets; what it found is held by a test of its own beside the code that was at fault.

use crate::plan::StoreKind;

/// A seed that found something.
#[derive(Clone, Copy, Debug)]
pub struct Regression {
    /// The seed.
    pub seed: u64,
    /// The store.
    pub store: StoreKind,
    /// What it found.
    pub found: &'static str,
}

/// All of them.
pub const ALL: &[Regression] = &[
    Regression {
        seed: 167,
        store: StoreKind::Sqlite,
        found: "a row with a column of the wrong length stopped the reaper of its backend",
    },
    Regression {
        seed: 61,
        store: StoreKind::Sqlite,
        found: "a row that was unreadable when its task was closed lived on when it was mended",
    },
    Regression {
        seed: 3547,
        store: StoreKind::Memory,
        found: "a store that was one sweep old looked level, and what had been renewed was killed",
    },
    Regression {
        seed: 4878,
        store: StoreKind::Memory,
        found: "a provider that was slow to believe a revocation was taken to be down",
    },
];
