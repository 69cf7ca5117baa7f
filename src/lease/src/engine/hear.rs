//! For how long this replica has heard every task that spoke.
//!
//! Silence has two causes: the task is gone, or nobody listened. A broker that was down, a store
//! that took no writes, a process that was stopped, a clock that jumped: after each of them every
//! heartbeat of the installation looks overdue at once, and ending all those tasks would end all
//! their credentials. The brake of `standing.rs` would be too coarse for that: it looks at leases,
//! not below a handful of them, and at jumps of half a minute.
//!
//! Invariant: a task is lost only by a replica that, for the whole of the task's interval until
//! that moment, ran, wrote to the store at every look, and saw the store's clock go as fast as its
//! own running time; and during which no replica wrote that it turned a heartbeat away
//! ([`Write::TurnedAway`](crate::Write::TurnedAway)). So whoever speaks has a full interval after
//! any of the above. All but the last each replica knows of itself and in memory alone: a start is
//! a gap like any other, one that restarts again and again ends nobody, and what it may not end has
//! its deadline. A replica that cannot write cannot tell the others what it turned away: there a
//! client must try another one.
//!
//! A gap or a jump shorter than [`LOOKS_MISSED`] looks is not noticed, and is taken from the
//! interval; that is why an interval has a least length in the configuration. Nor do the others
//! learn what was turned away less than [`TELL_EVERY`] after they were last told.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dayfly_backend_sdk::Timestamp;

use crate::{
    Heard,
    planted::{self, Bug},
};

/// So many looks may be missed in a row.
const LOOKS_MISSED: u32 = 3;
/// A replica that turns heartbeats away tells the others no more often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What a replica knows of its own hearing.
#[derive(Debug)]
pub(super) struct Hearing {
    gap_max: Duration,
    ear: Mutex<Ear>,
    /// When it last told the others, by the running time of the process.
    told: Mutex<Option<Duration>>,
}

#[derive(Debug)]
enum Ear {
    /// The process stops, and takes no more connections.
    Closed,
    /// Nothing was written since the start or since the last gap.
    Opened,
    /// Without a gap.
    Open(Span),
}

/// Running times of the process, and the store's clock.
#[derive(Clone, Copy, Debug)]
struct Span {
    began: Duration,
    looked: Duration,
    seen: Timestamp,
}

impl Hearing {
    /// Of a replica that looks every `look_every`.
    pub(super) fn new(look_every: Duration) -> Self {
        Self {
            gap_max: look_every.saturating_mul(LOOKS_MISSED),
            ear: Mutex::new(Ear::Opened),
            told: Mutex::default(),
        }
    }

    /// What can be said when the process has been running for `running`.
    pub(super) fn so_far(&self, running: Duration) -> Option<Heard> {
        if planted::is(Bug::SilenceUnheard) {
            let until = Timestamp::from_seconds(4_000_000_000);
            return Some(Heard { length: Duration::from_hours(24), until });
        }
        let Ear::Open(span) = *self.ear() else { return None };
        let passed = running.saturating_sub(span.looked);
        (passed <= self.gap_max).then(|| Heard {
            length: running.saturating_sub(span.began),
            until: span.seen.plus(passed).plus(self.gap_max),
        })
    }

    /// The store took a write at `now`, by its clock.
    pub(super) fn looked(&self, now: Timestamp, running: Duration) {
        let unbroken = self.so_far(running).filter(|heard| now <= heard.until);
        let mut ear = self.ear();
        let began = match (&*ear, unbroken) {
            (Ear::Closed, _) => return,
            (Ear::Open(span), Some(_)) => span.began,
            (Ear::Open(_), None) | (Ear::Opened, _) => running,
        };
        *ear = Ear::Open(Span { began, looked: running, seen: now });
    }

    /// The store did not take a write, or a heartbeat was turned away.
    pub(super) fn broke_off(&self) {
        let mut ear = self.ear();
        if !matches!(*ear, Ear::Closed) {
            *ear = Ear::Opened;
        }
    }

    /// Whether the others are to be told at `running` that a heartbeat was turned away; whoever
    /// hears yes tells them.
    pub(super) fn must_tell(&self, running: Duration) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told.is_none_or(|told| running.saturating_sub(told) >= TELL_EVERY);
        if due {
            *told = Some(running);
        }
        due
    }

    /// Nobody can be heard any more.
    pub(super) fn stop(&self) {
        *self.ear() = Ear::Closed;
    }

    fn ear(&self) -> MutexGuard<'_, Ear> {
        self.ear.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(1_000_000).plus(SECOND * u32::try_from(seconds).unwrap())
    }

    /// A replica that has looked every second until the process had run for `seconds`.
    fn listening(seconds: u64) -> Hearing {
        let hearing = Hearing::new(SECOND);
        for second in 0..=seconds {
            hearing.looked(at(second), Duration::from_secs(second));
        }
        hearing
    }

    fn length(hearing: &Hearing, running: u64) -> Option<u64> {
        hearing.so_far(Duration::from_secs(running)).map(|heard| heard.length.as_secs())
    }

    #[test]
    fn who_has_just_started_has_heard_nothing() {
        let hearing = Hearing::new(SECOND);
        assert_eq!(hearing.so_far(Duration::from_hours(1)), None);
        hearing.looked(at(0), Duration::from_hours(1));
        assert_eq!(length(&hearing, 3_600), Some(0), "however long the process has been there");
        assert_eq!(length(&hearing, 3_602), Some(2));
    }

    #[test]
    fn what_was_heard_grows_with_every_look() {
        let hearing = listening(60);
        assert_eq!(length(&hearing, 60), Some(60));
        let heard = hearing.so_far(SECOND * 61).unwrap();
        assert_eq!(heard, Heard { length: SECOND * 61, until: at(64) });
    }

    #[test]
    fn a_process_that_stood_still_begins_anew() {
        let hearing = listening(60);
        assert_eq!(length(&hearing, 63), Some(63));
        assert_eq!(length(&hearing, 64), None);
        hearing.looked(at(64), SECOND * 64);
        assert_eq!(length(&hearing, 66), Some(2));
    }

    #[test]
    fn a_clock_that_jumped_begins_anew_and_one_that_went_back_does_not() {
        let hearing = listening(60);
        hearing.looked(at(361), SECOND * 61);
        assert_eq!(length(&hearing, 62), Some(1), "five minutes forward");
        hearing.looked(at(10), SECOND * 62);
        assert_eq!(length(&hearing, 63), Some(2), "back: nothing is due for that");
        hearing.looked(at(361), SECOND * 63);
        assert_eq!(length(&hearing, 64), Some(1), "and forward again");
    }

    #[test]
    fn a_store_that_did_not_answer_begins_anew() {
        let hearing = listening(60);
        hearing.broke_off();
        assert_eq!(length(&hearing, 60), None);
        hearing.looked(at(61), SECOND * 61);
        assert_eq!(length(&hearing, 62), Some(1));
    }

    #[test]
    fn the_others_are_told_once_in_a_while_and_not_of_each() {
        let hearing = Hearing::new(SECOND);
        let told = (0..50_u32).filter(|tenths| hearing.must_tell(SECOND * *tenths / 10));
        assert_eq!(told.collect::<Vec<_>>(), [0, 10, 20, 30, 40]);
    }

    #[test]
    fn who_stops_listening_hears_nothing_again() {
        let hearing = listening(60);
        hearing.stop();
        hearing.looked(at(61), SECOND * 61);
        hearing.broke_off();
        hearing.looked(at(62), SECOND * 62);
        assert_eq!(length(&hearing, 62), None);
    }
}
