//! The unit of work that credentials are for.
//!
//! Invariant: a task ends once, and nothing is minted for one that has ended.

use std::time::Duration;

use dayfly_backend_sdk::Timestamp;
use serde_json::Value;

use crate::{Cause, TaskId};

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
    /// An administrator ended it.
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
}

impl Task {
    /// Whether it may mint at `now`.
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
    /// SHA-256 of its token.
    pub token_hash: [u8; 32],
    /// How long until its deadline.
    pub ttl: Duration,
}
