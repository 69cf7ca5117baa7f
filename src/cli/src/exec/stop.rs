//! What to do with a signal.
//!
//! Invariant: what the terminal already gave to the command is not given to it again, and a
//! command that was told to stop is killed when its time is up.

use std::time::Duration;

use dayfly_api::Outcome;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::exec::{Ended, child::Exit, signals::Arrived};

/// A repetition within this time is the same request, delivered by another way: systemd and
/// `timeout` signal whole groups.
const COPY: Duration = Duration::from_secs(1);
/// The command was stopped since its time was up, as `timeout` says it.
const EXPIRED: u8 = 124;
/// Three ^C within this time mean what they say.
const IMPATIENCE: Duration = Duration::from_secs(2);
const INTERRUPTS: usize = 3;

/// What follows from a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Forward(Signal),
    Kill,
    Nothing,
}

/// How far the command has been told to stop.
#[derive(Debug)]
pub(super) struct Stop {
    grace: Duration,
    /// When the command was first told to stop, by anybody.
    first: Option<Instant>,
    /// The first request of another process, and the last one with its number.
    requested: Option<Instant>,
    last: Option<(Signal, Instant)>,
    /// The latest ^C, oldest first.
    interrupts: Vec<Instant>,
    killed: bool,
    hurried: bool,
    /// It was not a signal but the end of a credential.
    expired: bool,
}

impl Stop {
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            grace,
            first: None,
            requested: None,
            last: None,
            interrupts: Vec::with_capacity(INTERRUPTS),
            killed: false,
            hurried: false,
            expired: false,
        }
    }

    pub(super) fn on(&mut self, arrived: Arrived, now: Instant) -> Action {
        let Arrived { signal, from_process, from_parents_death } = arrived;
        if from_parents_death {
            return self.abandoned(now);
        }
        let asks_to_stop = [Signal::HUP, Signal::INT, Signal::TERM].contains(&signal);
        match (from_process, asks_to_stop) {
            (true, true) => self.asked(signal, now),
            (true, false) => Action::Forward(signal),
            (false, _) if signal == Signal::INT => self.interrupted(now),
            // The terminal is gone. The command was told by the kernel as we were.
            (false, _) if signal == Signal::HUP => {
                self.first.get_or_insert(now);
                Action::Nothing
            }
            (false, _) => Action::Nothing,
        }
    }

    fn asked(&mut self, signal: Signal, now: Instant) -> Action {
        self.first.get_or_insert(now);
        let requested = *self.requested.get_or_insert(now);
        // A copy does not make the next one a copy: who asks twice a second asks again.
        if self.last.is_some_and(|(number, at)| number == signal && now - at < COPY) {
            return Action::Nothing;
        }
        self.last = Some((signal, now));
        if signal != Signal::HUP && now - requested >= COPY {
            self.killed = true;
            self.hurried = true;
            return Action::Kill;
        }
        Action::Forward(signal)
    }

    /// The process that started us is gone, which asks once. It makes nobody's request a second
    /// one.
    fn abandoned(&mut self, now: Instant) -> Action {
        if self.was_told() {
            return Action::Nothing;
        }
        self.first = Some(now);
        // Who ends a whole group ends the parent a moment before us.
        self.last = Some((Signal::TERM, now));
        Action::Forward(Signal::TERM)
    }

    /// One ^C or two are the command's business, which got them as we did.
    fn interrupted(&mut self, now: Instant) -> Action {
        self.interrupts.retain(|at| now - *at < IMPATIENCE);
        self.interrupts.push(now);
        if self.interrupts.len() < INTERRUPTS {
            return Action::Nothing;
        }
        self.killed = true;
        self.hurried = true;
        Action::Kill
    }

    /// A credential has ended, and the command is to stop with it.
    pub(super) fn expire(&mut self, now: Instant) -> Action {
        if self.first.is_some() {
            return Action::Nothing;
        }
        self.first = Some(now);
        self.expired = true;
        Action::Forward(Signal::TERM)
    }

    /// When the command must be killed, if that has not been done.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.killed { None } else { self.first.map(|first| first + self.grace) }
    }

    /// The deadline has passed.
    pub(super) fn overdue(&mut self) -> Action {
        self.killed = true;
        Action::Kill
    }

    /// Whether somebody other than a person at the terminal asked to stop.
    pub(super) fn was_told(&self) -> bool {
        self.first.is_some()
    }

    /// What a command that ended by `exit` has come to.
    pub(super) fn ended(&self, exit: Exit) -> Ended {
        let outcome = match exit {
            _ if self.expired => Outcome::Failed,
            _ if self.was_told() => Outcome::Cancelled,
            Exit::Code(0) => Outcome::Completed,
            _ if self.was_interrupted() => Outcome::Cancelled,
            Exit::Code(_) | Exit::Signal(_) => Outcome::Failed,
        };
        let exit = if self.expired { Exit::Code(EXPIRED) } else { exit };
        Ended { exit, outcome, hurried: self.hurried }
    }

    /// Whether there was a ^C after `time`.
    pub(super) fn was_interrupted_since(&self, time: Instant) -> bool {
        self.interrupts.iter().any(|at| *at >= time)
    }

    /// Whether there was a ^C at all.
    fn was_interrupted(&self) -> bool {
        !self.interrupts.is_empty()
    }

    /// Whether it was killed.
    pub(super) fn has_killed(&self) -> bool {
        self.killed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(20);

    fn sent(signal: Signal) -> Arrived {
        Arrived { signal, from_process: true, from_parents_death: false }
    }

    fn typed(signal: Signal) -> Arrived {
        Arrived { signal, from_process: false, from_parents_death: false }
    }

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[tokio::test]
    async fn github_cancels_with_int_and_then_term() {
        let (mut stop, start) = (Stop::new(GRACE), Instant::now());
        assert_eq!(stop.on(sent(Signal::INT), start), Action::Forward(Signal::INT));
        assert_eq!(stop.deadline(), Some(start + GRACE));
        assert_eq!(stop.on(sent(Signal::TERM), after(start, 7500)), Action::Kill);
        assert!(stop.was_told() && stop.hurried);
        assert_eq!(stop.deadline(), None);
    }

    #[tokio::test]
    async fn whoever_asks_again_and_again_is_heard_after_a_second() {
        let (mut stop, start) = (Stop::new(GRACE), Instant::now());
        assert_eq!(stop.on(sent(Signal::TERM), start), Action::Forward(Signal::TERM));
        assert_eq!(stop.on(sent(Signal::TERM), after(start, 600)), Action::Nothing);
        assert_eq!(stop.on(sent(Signal::TERM), after(start, 1200)), Action::Kill);
    }

    /// GitHub's runner signals a shell that does not pass INT on and dies of TERM.
    #[tokio::test]
    async fn the_parents_death_asks_once_and_is_nobodys_second_request() {
        let death = Arrived { signal: Signal::TERM, from_process: true, from_parents_death: true };
        let (mut stop, start) = (Stop::new(GRACE), Instant::now());
        assert_eq!(stop.on(death, start), Action::Forward(Signal::TERM));
        assert_eq!(stop.deadline(), Some(start + GRACE));
        assert_eq!(stop.on(death, after(start, 3000)), Action::Nothing);
        let term = stop.on(sent(Signal::TERM), after(start, 3000));
        assert_eq!(term, Action::Forward(Signal::TERM));
        assert_eq!(stop.on(sent(Signal::TERM), after(start, 5000)), Action::Kill);

        let mut stop = Stop::new(GRACE);
        assert_eq!(stop.on(sent(Signal::TERM), start), Action::Forward(Signal::TERM));
        assert_eq!(stop.on(death, after(start, 2000)), Action::Nothing);
        assert!(!stop.hurried);

        let mut stop = Stop::new(GRACE);
        assert_eq!(stop.on(death, start), Action::Forward(Signal::TERM));
        assert_eq!(stop.on(sent(Signal::TERM), after(start, 10)), Action::Nothing);
    }

    #[tokio::test]
    async fn a_copy_is_not_a_second_request() {
        let (mut stop, start) = (Stop::new(GRACE), Instant::now());
        assert_eq!(stop.on(sent(Signal::TERM), start), Action::Forward(Signal::TERM));
        assert_eq!(stop.on(sent(Signal::TERM), after(start, 900)), Action::Nothing);
        assert!(!stop.hurried);
        assert_eq!(stop.on(sent(Signal::TERM), after(start, 2000)), Action::Kill);
    }

    #[tokio::test]
    async fn what_the_terminal_sent_is_not_sent_again() {
        let (mut stop, start) = (Stop::new(GRACE), Instant::now());
        for signal in [Signal::INT, Signal::QUIT, Signal::HUP] {
            assert_eq!(stop.on(typed(signal), start), Action::Nothing, "{signal:?}");
        }
        assert!(stop.was_interrupted());
    }

    #[tokio::test]
    async fn the_third_interrupt_in_a_row_kills() {
        let (mut stop, start) = (Stop::new(GRACE), Instant::now());
        for millis in [0, 3000, 3500] {
            assert_eq!(stop.on(typed(Signal::INT), after(start, millis)), Action::Nothing);
        }
        assert_eq!(stop.deadline(), None);
        assert_eq!(stop.on(typed(Signal::INT), after(start, 4000)), Action::Kill);
    }

    #[tokio::test]
    async fn other_signals_are_only_passed_on() {
        let (mut stop, start) = (Stop::new(GRACE), Instant::now());
        for signal in [Signal::USR1, Signal::USR2, Signal::QUIT, Signal::WINCH, Signal::CONT] {
            assert_eq!(stop.on(sent(signal), start), Action::Forward(signal));
        }
        assert!(!stop.was_told());
        assert_eq!(stop.deadline(), None);
    }

    #[tokio::test]
    async fn the_deadline_kills_once() {
        let (mut stop, start) = (Stop::new(GRACE), Instant::now());
        assert_eq!(stop.on(sent(Signal::HUP), start), Action::Forward(Signal::HUP));
        assert_eq!(stop.overdue(), Action::Kill);
        assert_eq!(stop.deadline(), None);
        assert!(!stop.hurried);
    }

    #[tokio::test]
    async fn the_end_of_a_credential_stops_once() {
        let (mut stop, start) = (Stop::new(GRACE), Instant::now());
        assert_eq!(stop.expire(start), Action::Forward(Signal::TERM));
        assert_eq!(stop.expire(after(start, 500)), Action::Nothing);
        assert!(stop.expired);
        assert_eq!(stop.deadline(), Some(start + GRACE));

        let mut stop = Stop::new(GRACE);
        stop.on(sent(Signal::TERM), start);
        assert_eq!(stop.expire(start), Action::Nothing, "it was told already");
        assert!(!stop.expired);
    }

    #[tokio::test]
    async fn an_interrupt_of_long_ago_is_not_one_of_now() {
        let (mut stop, start) = (Stop::new(GRACE), Instant::now());
        stop.on(typed(Signal::INT), start);
        assert!(stop.was_interrupted_since(start));
        assert!(!stop.was_interrupted_since(after(start, 1)));
    }
}
