//! The unit of work that credentials are for.
//!
//! Invariant: a task ends once, and nothing is minted for one that has ended.

use std::time::Duration;

use dayfly_backend_sdk::Timestamp;
use serde_json::Value;

use crate::{Cause, JobKeys, Spared, TaskId};

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// Its owner gave it up.
    Cancelled,
    /// Its owner says that it did its work.
    Completed,
    /// Its deadline passed.
    Expired,
    /// Its owner says that it did not do its work.
    Failed,
    /// It missed its heartbeats.
    Lost,
    /// It was ended for its owner: by an administrator, because policy no longer permits it, or
    /// because its identity was disabled.
    Revoked,
}

impl TaskEnd {
    /// The end as it stands in rows and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::Revoked => "revoked",
        }
    }

    /// The end that `as_str` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Cancelled, Self::Completed, Self::Expired, Self::Failed, Self::Lost, Self::Revoked]
            .into_iter()
            .find(|end| end.as_str() == text)
    }

    /// Why the task's leases die with it.
    pub fn cause(self) -> Cause {
        match self {
            Self::Cancelled => Cause::TaskCancelled,
            Self::Completed => Cause::TaskCompleted,
            Self::Expired => Cause::Expired,
            Self::Failed => Cause::TaskFailed,
            Self::Lost => Cause::TaskLost,
            Self::Revoked => Cause::Requested,
        }
    }
}

/// Open, or how and when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It may mint.
    Open,
    /// It may not.
    Closed {
        /// How it ended.
        end: TaskEnd,
        /// When.
        at: Timestamp,
    },
}

/// How a task shows that somebody still works on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The longest silence, by the store's clock. Longer than zero.
    pub every: Duration,
    /// From when on it counts as silent. Whether it is lost then is another question: somebody
    /// must have been there to hear it ([`Heard`](crate::Heard)).
    pub lost_at: Timestamp,
}

impl Heartbeat {
    /// The heartbeat of a task that was heard at `now`.
    pub fn new(every: Duration, now: Timestamp) -> Self {
        // A quarter on top, so that what is heard soon after need not be written.
        Self { every, lost_at: now.plus(every.saturating_add(every / 4)) }
    }

    /// The same, heard again at `now`. `None` where nothing need be written: as it stands,
    /// silence begins no sooner than `every` from now.
    #[must_use]
    pub fn heard(self, now: Timestamp) -> Option<Self> {
        let again = Self::new(self.every, now);
        // Later than it can be: the store's clock was set back since.
        let possible = self.lost_at <= again.lost_at;
        (!possible || self.lost_at < now.plus(self.every)).then_some(again)
    }
}

/// What a task's token is worth nothing without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The client certificate with this SHA-256 of its DER (RFC 8705 §3.1).
    Certificate([u8; 32]),
    /// The key whose JWK has this SHA-256 thumbprint (RFC 7638).
    Key([u8; 32]),
}

impl Binding {
    /// The one that `as_str` and `hash` came from.
    pub fn parse(kind: &str, hash: [u8; 32]) -> Option<Self> {
        [Self::Certificate(hash), Self::Key(hash)].into_iter().find(|it| it.as_str() == kind)
    }

    /// To what, as it stands in rows, in the API and in policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certificate(_) => "certificate",
            Self::Key(_) => "key",
        }
    }

    /// Which one.
    pub fn hash(self) -> [u8; 32] {
        match self {
            Self::Certificate(hash) | Self::Key(hash) => hash,
        }
    }
}

/// The person on whose behalf a task is worked on: not who works on it, which is its principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Issuer and subject.
    pub principal: String,
    /// What the issuer calls them, for those who read it; nothing is decided by it.
    pub name: Option<String>,
}

/// A task's row.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Issuer and subject of who opened it.
    pub principal: String,
    /// The issuer's name in the configuration.
    pub issuer: String,
    /// The verified principal, whole, for decisions that the task asks for later.
    pub identity: Value,
    /// Why it was opened.
    pub purpose: String,
    /// SHA-256 of its token.
    pub token_hash: [u8; 32],
    /// Open or closed.
    pub state: TaskState,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Its deadline.
    pub expires_at: Timestamp,
    /// Its heartbeat, if it has one.
    pub heartbeat: Option<Heartbeat>,
    /// The job that it runs in, if its identity tells.
    pub keys: JobKeys,
    /// What its token is bound to; none where whoever has it may use it.
    pub binding: Option<Binding>,
    /// Who asked for it, where its principal does not act for itself.
    pub on_behalf_of: Option<Person>,
}

impl Task {
    /// When somebody must look whether it has ended: the lesser of its deadline and of when it
    /// counts as silent.
    pub fn due_at(&self) -> Timestamp {
        let silent_at = self.heartbeat.map(|heartbeat| heartbeat.lost_at);
        silent_at.map_or(self.expires_at, |at| at.min(self.expires_at))
    }

    /// How it ends at `now`, if time ends it: `spared` is what the brake holds, and no silence
    /// longer than `heard` is believed. The deadline comes first, since nobody need have
    /// listened for that.
    pub fn due_end(&self, now: Timestamp, spared: Spared, heard: Duration) -> Option<TaskEnd> {
        if self.state != TaskState::Open {
            return None;
        }
        let held = spared.hold.is_some_and(|hold| hold.holds(self.expires_at, now));
        if self.expires_at <= now && !held {
            return Some(TaskEnd::Expired);
        }
        let heartbeat = self.heartbeat?;
        (heartbeat.lost_at <= now && heartbeat.every <= heard).then_some(TaskEnd::Lost)
    }

    /// Whether it may mint at `now`. One that has fallen silent may, until it was ended for it:
    /// whoever asks is there.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.state == TaskState::Open && now < self.expires_at
    }

    /// The task, ended. `None` if it had ended already: an end is never overwritten.
    #[must_use]
    pub fn close(&self, end: TaskEnd, at: Timestamp) -> Option<Self> {
        match self.state {
            TaskState::Open => Some(Self { state: TaskState::Closed { end, at }, ..self.clone() }),
            TaskState::Closed { .. } => None,
        }
    }
}

/// A task that is to be opened; the store's clock gives it its times.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Its id.
    pub id: TaskId,
    /// Issuer and subject.
    pub principal: String,
    /// The issuer's name in the configuration.
    pub issuer: String,
    /// The verified principal, whole.
    pub identity: Value,
    /// Why it is opened.
    pub purpose: String,
    /// When the token that opens it was issued, if that is known.
    pub issued_at: Option<Timestamp>,
    /// SHA-256 of its token.
    pub token_hash: [u8; 32],
    /// How long until its deadline.
    pub ttl: Duration,
    /// The longest that it may be silent; none where nobody need hear it.
    pub heartbeat: Option<Duration>,
    /// The job that it runs in, if its identity tells.
    pub keys: JobKeys,
    /// What its token is bound to.
    pub binding: Option<Binding>,
    /// Who asked for it, where its principal does not act for itself.
    pub on_behalf_of: Option<Person>,
    /// When the token that names that person was issued, if that is known.
    pub person_issued_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(20);

    #[test]
    fn silence_never_begins_sooner_than_was_asked_for() {
        let opened = Timestamp::from_seconds(1_000);
        let mut heartbeat = Heartbeat::new(EVERY, opened);
        let mut written = 0;
        for seconds in 0..300 {
            let now = opened.plus(Duration::from_secs(seconds));
            if let Some(again) = heartbeat.heard(now) {
                heartbeat = again;
                written += 1;
            }
            assert!(heartbeat.lost_at >= now.plus(EVERY), "at {seconds} s");
            assert!(heartbeat.lost_at <= now.plus(EVERY + EVERY / 4), "at {seconds} s");
        }
        assert_eq!(written, 299 / 6, "one beat in six is written: the others change nothing");
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_leave_a_task_unwatched() {
        let heartbeat = Heartbeat::new(EVERY, Timestamp::from_seconds(9_000));
        let now = Timestamp::from_seconds(1_000);
        assert_eq!(heartbeat.heard(now), Some(Heartbeat::new(EVERY, now)));
    }
}
