//! When what was broken.
//!
//! Invariant: a death is late only if nothing was broken between its being due and its bound;
//! otherwise the bound begins anew when the last of that was mended and has settled.

use std::sync::{Mutex, PoisonError};

use dayfly_lease::{Clock, SystemClock};

/// While all is well a credential is dead this long after it had to be.
pub(crate) const BOUND: i64 = 5 * SECOND;
/// What a dead or silent replica had claimed is free again after this long (the claims' hold,
/// and a batch's own time-out within it).
const CLAIMS_LAST: i64 = 31 * SECOND;
pub(crate) const SECOND: i64 = 1_000_000;

/// Microseconds since 1970, by the clock that brokers and servers here have as well.
pub(crate) fn now() -> i64 {
    SystemClock.now().micros()
}

/// Seconds, for people.
#[expect(clippy::cast_precision_loss, reason = "a run is short")]
pub(crate) fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

/// A stretch of time in which something was broken.
#[derive(Clone, Debug)]
struct Trouble {
    what: String,
    from: i64,
    until: Option<i64>,
}

impl Trouble {
    /// When it has settled, if it is over. Waits between attempts grow as long as an outage.
    fn settled(&self) -> Option<i64> {
        self.until.map(|until| until + CLAIMS_LAST.max((until - self.from) * 6 / 5))
    }
}

/// All troubles of a run.
#[derive(Debug)]
pub(crate) struct Health {
    started: i64,
    troubles: Mutex<Vec<Trouble>>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self { started: now(), troubles: Mutex::default() }
    }

    /// Something breaks now.
    pub(crate) fn begin(&self, what: impl Into<String>) -> usize {
        let (what, from) = (what.into(), now());
        eprintln!("{:8.1}s  {what}", self.since_start(from));
        let mut troubles = self.lock();
        troubles.push(Trouble { what, from, until: None });
        troubles.len() - 1
    }

    /// It is mended.
    pub(crate) fn end(&self, trouble: usize) {
        let at = now();
        let mut troubles = self.lock();
        troubles[trouble].until = Some(at);
        let what = troubles[trouble].what.clone();
        drop(troubles);
        eprintln!("{:8.1}s  mended: {what}", self.since_start(at));
    }

    pub(crate) fn since_start(&self, at: i64) -> f64 {
        seconds(at - self.started)
    }

    /// The latest moment at which what was due at `due` may live; none while that is open.
    pub(crate) fn bound(&self, due: i64) -> Option<i64> {
        let mut bound = due + BOUND;
        // In the order of their beginning, so that each can only push the bound further.
        for trouble in self.lock().iter() {
            let settled = trouble.settled();
            if trouble.from <= bound && settled.is_none_or(|settled| settled >= due) {
                bound = bound.max(settled? + BOUND);
            }
        }
        Some(bound)
    }

    /// Whether nothing was broken or settling between the two.
    pub(crate) fn was_well(&self, from: i64, to: i64) -> bool {
        self.lock().iter().all(|trouble| {
            trouble.from > to || trouble.settled().is_some_and(|settled| settled < from)
        })
    }

    /// How long something lasted after all that was broken meanwhile was mended.
    pub(crate) fn after_mended(&self, from: i64, to: i64) -> i64 {
        let mut since = from;
        for trouble in self.lock().iter() {
            // In the order of their beginning; what was broken when it was over does not count.
            if trouble.from <= to {
                since = since.max(trouble.until.map_or(to, |until| until.min(to)));
            }
        }
        to - since
    }

    /// What was broken around that time, for a story.
    pub(crate) fn around(&self, from: i64, to: i64) -> Vec<(i64, String)> {
        let mut lines = Vec::new();
        for trouble in self.lock().iter() {
            if trouble.from <= to && trouble.until.is_none_or(|until| until >= from) {
                lines.push((trouble.from, format!("broken: {}", trouble.what)));
                lines.extend(trouble.until.map(|at| (at, format!("mended: {}", trouble.what))));
            }
        }
        lines
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Trouble>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
