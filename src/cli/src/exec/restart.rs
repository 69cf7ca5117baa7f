//! When to stop the command and start it again with other credentials.
//!
//! Invariant: credentials that change together cause one restart, and restarts are a minute apart,
//! whatever the broker does.

use std::time::Duration;

use tokio::{sync::oneshot, time::Instant};

/// What changes within this time changes together.
const SETTLE: Duration = Duration::from_secs(2);
/// How far restarts are apart.
const APART: Duration = Duration::from_mins(1);

/// What to do about it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Kill,
    Nothing,
    Stop,
}

/// How far a restart has come.
#[derive(Debug)]
pub(super) struct Restart {
    grace: Duration,
    /// The last start that was a restart.
    last: Option<Instant>,
    state: State,
    /// Who waits for it.
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Due(Instant),
    Idle,
    Killed { since: Instant },
    Stopping { since: Instant },
}

impl Restart {
    /// `grace` is how long the command may take to stop.
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, last: None, state: State::Idle, waiting: Vec::new() }
    }

    /// A credential has changed; `done` is told when the command has it.
    pub(super) fn ask(&mut self, done: oneshot::Sender<()>, now: Instant) {
        self.waiting.push(done);
        if !matches!(self.state, State::Idle) {
            return;
        }
        let earliest = self.last.map(|last| last + APART);
        let due = now + SETTLE;
        self.state = State::Due(earliest.map_or(due, |earliest| earliest.max(due)));
    }

    /// When to call [`Self::step`].
    pub(super) fn timer(&self) -> Option<Instant> {
        match self.state {
            State::Due(at) => Some(at),
            State::Stopping { since } => Some(since + self.grace),
            State::Idle | State::Killed { .. } => None,
        }
    }

    pub(super) fn step(&mut self, now: Instant) -> Step {
        match self.state {
            State::Due(_) => {
                self.state = State::Stopping { since: now };
                Step::Stop
            }
            State::Stopping { since } => {
                self.state = State::Killed { since };
                Step::Kill
            }
            State::Idle | State::Killed { .. } => Step::Nothing,
        }
    }

    /// Nothing can be started again: whoever waits has waited long enough.
    pub(super) fn give_up(&mut self) {
        self.state = State::Idle;
        self.waiting.clear();
    }

    /// Since when the command has been told to make room for the next.
    pub(super) fn stopping_since(&self) -> Option<Instant> {
        match self.state {
            State::Killed { since } | State::Stopping { since } => Some(since),
            State::Due(_) | State::Idle => None,
        }
    }

    /// Whether the command is not the first.
    pub(super) fn has_restarted(&self) -> bool {
        self.last.is_some()
    }

    /// The next one runs.
    pub(super) fn started(&mut self, now: Instant) {
        self.state = State::Idle;
        self.last = Some(now);
        for done in self.waiting.drain(..) {
            // Nobody waits any more when its lease has ended.
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(20);

    fn ask(restart: &mut Restart, now: Instant) -> oneshot::Receiver<()> {
        let (done, waits) = oneshot::channel();
        restart.ask(done, now);
        waits
    }

    #[tokio::test]
    async fn what_changes_together_is_one_restart() {
        let (mut restart, start) = (Restart::new(GRACE), Instant::now());
        assert_eq!(restart.timer(), None);
        let mut first = ask(&mut restart, start);
        let mut second = ask(&mut restart, start + Duration::from_secs(1));
        assert_eq!(restart.timer(), Some(start + SETTLE));
        let stopped = start + SETTLE;
        assert_eq!(restart.step(stopped), Step::Stop);
        assert_eq!(restart.stopping_since(), Some(stopped));
        assert!(first.try_recv().is_err());
        restart.started(stopped);
        assert!(first.try_recv().is_ok() && second.try_recv().is_ok());
        assert_eq!((restart.timer(), restart.stopping_since()), (None, None));
    }

    #[tokio::test]
    async fn restarts_are_a_minute_apart() {
        let (mut restart, start) = (Restart::new(GRACE), Instant::now());
        drop(ask(&mut restart, start));
        assert_eq!(restart.step(start), Step::Stop);
        restart.started(start);
        drop(ask(&mut restart, start + Duration::from_secs(5)));
        assert_eq!(restart.timer(), Some(start + APART));
        let later = start + APART + GRACE;
        assert_eq!(restart.step(later), Step::Stop);
        restart.started(later);
        drop(ask(&mut restart, later + APART));
        assert_eq!(restart.timer(), Some(later + APART + SETTLE));
    }

    #[tokio::test]
    async fn a_command_that_does_not_stop_is_killed() {
        let (mut restart, start) = (Restart::new(GRACE), Instant::now());
        let mut waits = ask(&mut restart, start);
        assert_eq!(restart.step(start), Step::Stop);
        assert_eq!(restart.timer(), Some(start + GRACE));
        assert_eq!(restart.step(start + GRACE), Step::Kill);
        assert_eq!(restart.timer(), None);
        assert_eq!(restart.stopping_since(), Some(start));
        restart.give_up();
        assert_eq!(restart.stopping_since(), None);
        assert_eq!(waits.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
