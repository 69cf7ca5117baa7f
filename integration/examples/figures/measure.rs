//! Stopwatches, medians and percentiles.
//!
//! Invariant: what is compared is measured in the same rounds, one after the other, so that
//! a busy moment of the machine falls on both.

use std::time::{Duration, Instant};

/// A running stopwatch.
#[expect(clippy::disallowed_methods, reason = "a benchmark's own watch, not the broker's time")]
pub(crate) fn watch() -> Instant {
    Instant::now()
}

/// The middle of what was measured.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { panic!("nothing was measured") };
    f64::midpoint(*sorted.get(last / 2).unwrap(), *sorted.get(last.div_ceil(2)).unwrap())
}

/// What so many of a hundred samples do not exceed.
pub(crate) fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { panic!("nothing was measured") };
    *sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1).min(last)).unwrap()
}

/// Milliseconds, for people.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
