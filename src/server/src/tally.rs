//! What strangers can cause is counted, and written down now and then.
//!
//! Invariant: of one thing there is at most one record in [`NOTE_EVERY`], however often it
//! happens, and each time is in one record at most. Nobody else makes up what is counted: the
//! things are constants of ours, so that there are only so many.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How far two records of one thing are apart.
const NOTE_EVERY: Duration = Duration::from_mins(1);

/// How often things happened since the last record of each.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<&'static str, Since>>);

#[derive(Debug, Default)]
struct Since {
    times: u64,
    noted_at: Option<Duration>,
}

impl Tally {
    /// Counts one more, at `running` of the replica's clock. With how often it happened since
    /// the last record, this time with it, if it is time for one.
    pub(crate) fn count(&self, what: &'static str, running: Duration) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = all.entry(what).or_default();
        since.times = since.times.saturating_add(1);
        let recent = |at: Duration| running.saturating_sub(at) < NOTE_EVERY;
        if since.noted_at.is_some_and(recent) {
            return None;
        }
        since.noted_at = Some(running);
        Some(std::mem::take(&mut since.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_noted_once_a_minute_with_all_that_was_counted() {
        let tally = Tally::default();
        let at = Duration::from_secs;
        assert_eq!(tally.count("certificate", at(7)), Some(1));
        for second in 8..67 {
            assert_eq!(tally.count("certificate", at(second)), None, "{second}");
        }
        assert_eq!(tally.count("certificate", at(67)), Some(60));
        assert_eq!(tally.count("certificate", at(126)), None);
        assert_eq!(tally.count("certificate", at(127)), Some(2));
    }

    /// Whoever makes much noise of one kind must not hide another.
    #[test]
    fn things_are_counted_apart() {
        let tally = Tally::default();
        for _ in 0..1_000 {
            tally.count("certificate", Duration::ZERO);
        }
        assert_eq!(tally.count("bad_signature", Duration::ZERO), Some(1));
        assert_eq!(tally.count("bad_signature", Duration::ZERO), None);
    }
}
