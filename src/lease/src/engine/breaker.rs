//! The circuit breaker of one backend.
//!
//! Invariant: while it is open one request at a time goes to the backend and no attempt is
//! counted against a lease; after it closed, reaping ramps up from one. What is open for hours
//! costs nobody else anything (I10).

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Line;

/// Failures of the backend as a whole, one after the other, that open it.
const FAILURES_MAX: u32 = 3;
/// The first wait before a probe; doubled after each that fails.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// The longest wait: so late at most is it noticed that the backend is back.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// A probe that nobody answered for is forgotten after this, and another may go.
const PROBE_MAX: Duration = Duration::from_mins(1);

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Go on; reaping with at most so many leases at a time.
    Closed {
        /// The ramp's step.
        limit: u32,
    },
    /// Go as the one probe, and tell how it went.
    Probe,
    /// Nothing now; ask again after this.
    Wait(Duration),
}

/// Opens on repeated failure, closes on one success.
#[derive(Debug)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Failures in a row while closed.
    failures: u32,
    /// None while closed.
    open: Option<Open>,
    /// How many leases at a time reapers may take.
    ramp: u32,
}

#[derive(Debug)]
struct Open {
    /// When the next probe may go.
    probe_at: Duration,
    /// How long after it the next one.
    wait: Duration,
    /// When the probe that is under way went.
    probing_since: Option<Duration>,
}

impl Breaker {
    /// Closed.
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { failures: 0, open: None, ramp: u32::MAX }))
    }

    /// Whether it is open.
    pub(super) fn is_open(&self) -> bool {
        self.state().open.is_some()
    }

    /// What a caller may do at `now`. Who gets [`Pass::Probe`] must tell how it went.
    pub(super) fn ask(&self, now: Duration) -> Pass {
        let mut state = self.state();
        let ramp = state.ramp;
        let Some(open) = &mut state.open else { return Pass::Closed { limit: ramp } };
        let lost = open.probing_since.is_some_and(|since| now >= since + PROBE_MAX);
        if open.probing_since.is_some() && !lost {
            return Pass::Wait(WAIT_FIRST);
        }
        if now < open.probe_at {
            return Pass::Wait(open.probe_at.saturating_sub(now));
        }
        open.probing_since = Some(now);
        Pass::Probe
    }

    /// How long until a probe may go; none while it is closed or a probe may go now.
    pub(super) fn peek(&self, now: Duration) -> Option<Duration> {
        let state = self.state();
        let open = state.open.as_ref()?;
        let lost = open.probing_since.is_some_and(|since| now >= since + PROBE_MAX);
        match open.probing_since {
            Some(_) if !lost => Some(WAIT_FIRST),
            Some(_) | None => {
                let wait = open.probe_at.saturating_sub(now);
                (!wait.is_zero()).then_some(wait)
            }
        }
    }

    /// The backend answered, whatever it said: it is there.
    pub(super) fn answered(&self) {
        let mut state = self.state();
        state.failures = 0;
        if state.open.take().is_some() {
            state.ramp = 1;
        } else {
            state.ramp = state.ramp.saturating_mul(2);
        }
    }

    /// The backend did not answer. `percent` (80 to 120) keeps replicas from probing together.
    pub(super) fn failed(&self, now: Duration, percent: u32) {
        let mut state = self.state();
        let jittered = |wait: Duration| wait * percent / 100;
        if let Some(open) = &mut state.open {
            // Answers of what was sent before it opened say nothing new.
            if open.probing_since.take().is_some() {
                open.wait = (open.wait * 2).min(WAIT_MAX);
                open.probe_at = now + jittered(open.wait);
            }
            return;
        }
        state.failures += 1;
        if state.failures >= FAILURES_MAX {
            let probe_at = now + jittered(WAIT_FIRST);
            state.open = Some(Open { probe_at, wait: WAIT_FIRST, probing_since: None });
        }
    }

    /// The probe had nothing to do: somebody else may go at once.
    pub(super) fn not_used(&self) {
        if let Some(open) = &mut self.state().open {
            open.probing_since = None;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to probe goes back if there was nothing to probe with.
pub(super) struct Probe<'a>(Option<&'a Line>);

impl<'a> Probe<'a> {
    /// No probe: the breaker is closed.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// The one probe of `line`.
    pub(super) fn at(line: &'a Line) -> Self {
        Self(Some(line))
    }

    /// The backend is about to be asked, and its answer will be told.
    pub(super) fn used(mut self) {
        self.0 = None;
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if let Some(line) = self.0 {
            line.breaker.not_used();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn open_at(now: Duration) -> Breaker {
        let breaker = Breaker::new();
        for _ in 0..FAILURES_MAX {
            assert!(matches!(breaker.ask(now), Pass::Closed { .. }));
            breaker.failed(now, 100);
        }
        breaker
    }

    #[test]
    fn it_opens_after_three_failures_in_a_row_and_not_before() {
        let breaker = Breaker::new();
        breaker.failed(SECOND, 100);
        breaker.failed(SECOND, 100);
        breaker.answered();
        breaker.failed(SECOND, 100);
        breaker.failed(SECOND, 100);
        assert!(!breaker.is_open());
        breaker.failed(SECOND, 100);
        assert_eq!(breaker.ask(SECOND), Pass::Wait(WAIT_FIRST));
    }

    #[test]
    fn one_probe_goes_at_a_time_and_each_failure_doubles_the_wait() {
        let breaker = open_at(Duration::ZERO);
        assert_eq!(breaker.ask(SECOND), Pass::Probe);
        assert!(matches!(breaker.ask(SECOND), Pass::Wait(_)));
        breaker.failed(SECOND, 100);
        assert_eq!(breaker.ask(SECOND), Pass::Wait(2 * SECOND));
        assert_eq!(breaker.ask(3 * SECOND), Pass::Probe);
        breaker.not_used();
        assert_eq!(breaker.ask(3 * SECOND), Pass::Probe);
        assert_eq!(breaker.ask(3 * SECOND + PROBE_MAX), Pass::Probe, "a lost probe blocks nobody");
    }

    #[test]
    fn after_a_success_reaping_ramps_up_from_one() {
        let breaker = open_at(Duration::ZERO);
        assert_eq!(breaker.ask(SECOND), Pass::Probe);
        breaker.answered();
        for limit in [1, 2, 4, 8] {
            assert_eq!(breaker.ask(SECOND), Pass::Closed { limit });
            breaker.answered();
        }
    }

    #[test]
    fn the_wait_has_a_cap() {
        let breaker = open_at(Duration::ZERO);
        let mut now = Duration::ZERO;
        for _ in 0..10 {
            now += WAIT_MAX;
            assert_eq!(breaker.ask(now), Pass::Probe);
            breaker.failed(now, 100);
        }
        assert_eq!(breaker.ask(now), Pass::Wait(WAIT_MAX));
    }
}
