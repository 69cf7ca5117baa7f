//! What administrators and owners look through: filters, pages, cursors.
//!
//! Invariant: a page is bounded and keyed by id, so that rows which come in meanwhile neither
//! repeat nor hide others.

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{LeaseId, ReplicaId, TaskId};

/// A page.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether there are more after the last.
    pub more: bool,
}

impl<T> Page<T> {
    /// A page of at most `limit` from one row more than that.
    pub(crate) fn of(mut rows: Vec<T>, limit: u32) -> Self {
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        Self { rows, more }
    }
}

/// Which leases.
#[derive(Clone, Debug, Default)]
pub struct LeaseFilter {
    /// In this state.
    pub state: Option<String>,
    /// Of this role.
    pub role: Option<String>,
    /// At this backend.
    pub backend: Option<String>,
    /// Of this task.
    pub task: Option<TaskId>,
    /// For this principal.
    pub principal: Option<String>,
    /// Of this issuer.
    pub issuer: Option<String>,
    /// Ending before.
    pub expires_before: Option<Timestamp>,
    /// Older than this one: the cursor.
    pub before: Option<LeaseId>,
    /// At most so many.
    pub limit: u32,
}

/// Which tasks.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// `open`, or how it ended.
    pub state: Option<String>,
    /// Opened by this principal.
    pub principal: Option<String>,
    /// Of this issuer.
    pub issuer: Option<String>,
    /// This one.
    pub id: Option<TaskId>,
    /// Older than this one: the cursor.
    pub before: Option<TaskId>,
    /// At most so many.
    pub limit: u32,
}

/// Which audit records.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Of this event.
    pub event: Option<String>,
    /// Of this task.
    pub task: Option<TaskId>,
    /// Of this lease.
    pub lease: Option<LeaseId>,
    /// Later than this one: the cursor.
    pub after: Option<(Timestamp, ReplicaId, u64)>,
    /// At most so many.
    pub limit: u32,
}

/// An API key's row: its hash and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its handle.
    pub handle: String,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// Who it was minted for.
    pub principal: String,
    /// The lease that it belongs to.
    pub lease: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it stops working.
    pub expires_at: Timestamp,
}

/// What became of adding an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKeyAdded {
    /// The store's clock is past the deadline; nothing was kept.
    Late,
    /// It is kept.
    Stored,
    /// Its handle or its hash is taken; what was there is untouched.
    Taken,
}

impl ApiKeyAdded {
    pub(crate) fn of(written: bool, late: bool) -> Self {
        match (written, late) {
            (true, _) => Self::Stored,
            (false, true) => Self::Late,
            (false, false) => Self::Taken,
        }
    }
}

/// The leases of one backend that may live, in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Living {
    /// The backend's name.
    pub backend: String,
    /// `pending`, `active` or `revoking`.
    pub state: String,
    /// How many.
    pub count: u64,
    /// Since when the oldest of them is owed: told to die, or due; in the future when none is.
    pub oldest: Option<Timestamp>,
}
