//! Many seeds on all cores.
//!
//! Invariant: which seeds are run does not depend on how the threads are scheduled.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    coverage::Coverage,
    plan::StoreKind,
    planted::Planted,
    run::{Outcome, run},
    world::hold,
};

/// One seed in so many is run twice, and must be the same both times.
const TWICE_EVERY: u64 = 100;

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Runs.
    pub runs: u64,
    /// Events.
    pub events: u64,
    /// Virtual time.
    pub lasted: Duration,
    /// What was seen.
    pub coverage: Coverage,
    /// What did not hold: seed, store, words.
    pub violations: Vec<(u64, StoreKind, String)>,
}

/// Runs `count` seeds from `from` on each of `stores`.
pub fn seeds(from: u64, count: u64, stores: &[StoreKind]) -> Summary {
    let next = AtomicU64::new(from);
    let summary = Mutex::new(Summary::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count {
                return;
            }
            for store in stores {
                let outcome = one(seed, *store);
                add(&mut hold(&summary), seed, *store, outcome);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(work);
        }
    });
    let mut summary = summary.into_inner().unwrap_or_default();
    summary.violations.sort_by_key(|(seed, store, _)| (*seed, store.as_str()));
    summary
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs a seed; some twice.
fn one(seed: u64, store: StoreKind) -> Outcome {
    let mut first = run(seed, store, None, false);
    if seed.is_multiple_of(TWICE_EVERY) {
        let second = run(seed, store, None, false);
        if (first.hash, first.events) != (second.hash, second.events) {
            first.violation.get_or_insert("two runs of the seed differ".into());
        }
    }
    first
}

fn add(summary: &mut Summary, seed: u64, store: StoreKind, outcome: Outcome) {
    summary.runs += 1;
    summary.events += outcome.events;
    summary.lasted += outcome.lasted;
    summary.coverage.add(&outcome.coverage);
    if let Some(what) = outcome.violation {
        summary.violations.push((seed, store, what));
    }
}

/// A planted mistake and the seed that found it, with what it saw.
pub type Found = (Planted, Option<(u64, StoreKind, String)>);

/// Plants every mistake in turn; each has `within` seeds to be found.
pub fn planted(within: u64) -> Vec<Found> {
    let all = Planted::all();
    let next = AtomicU64::new(0);
    let found = Mutex::new(Vec::new());
    let work = || {
        loop {
            let place = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
            let Some(mistake) = all.get(place).copied() else { return };
            let seen = first_seed(mistake, within);
            hold(&found).push((place, (mistake, seen)));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap_or_default();
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, found)| found).collect()
}

fn first_seed(mistake: Planted, within: u64) -> Option<(u64, StoreKind, String)> {
    (0..within).find_map(|seed| {
        let store = if seed.is_multiple_of(2) { StoreKind::Memory } else { StoreKind::Sqlite };
        let what = run(seed, store, Some(mistake), false).violation?;
        // A seed that fails without the mistake has not found it.
        let clean = run(seed, store, None, false).violation.is_none();
        clean.then_some((seed, store, what))
    })
}
