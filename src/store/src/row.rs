//! Rows as both databases have them, and what they mean.
//!
//! Invariant: a row that means nothing is an error that names it; it never becomes a lease
//! with a default in the place of what could not be read.

use std::time::Duration;

use dayfly_backend_sdk::{Belt, Handle, Plan, Timestamp};
use dayfly_lease::{
    Abandonment, Binding, Cause, Claim, Decision, Disabled, Heartbeat, Hold, JobKey, JobKeys,
    Lease, LeaseId, Person, ReplicaId, Sealed, Standing, State, StoreError, Suspension, Task,
    TaskEnd, TaskId, TaskState, audit::Record,
};
use serde_json::Value;
use sqlx::types::time::OffsetDateTime;
use uuid::Uuid;

/// A nullable time, for the conversions of checked queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) Option<Timestamp>);

impl From<Option<OffsetDateTime>> for Moment {
    fn from(at: Option<OffsetDateTime>) -> Self {
        Self(at.map(Timestamp::from))
    }
}

/// The columns of `leases`.
#[derive(Debug)]
pub(crate) struct LeaseRow {
    pub(crate) id: Uuid,
    pub(crate) task: Uuid,
    pub(crate) principal: String,
    pub(crate) issuer: String,
    pub(crate) role: String,
    pub(crate) backend: String,
    pub(crate) handle: String,
    pub(crate) decision_chain: Uuid,
    pub(crate) decision_seq: i64,
    pub(crate) epoch: i64,
    pub(crate) state: String,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) max_expires_at: Timestamp,
    pub(crate) native_expires_at: Moment,
    pub(crate) mint_deadline: Timestamp,
    pub(crate) settle_at: Moment,
    pub(crate) activated_at: Moment,
    pub(crate) delivered_at: Moment,
    pub(crate) cause: Option<String>,
    pub(crate) revoking_at: Moment,
    pub(crate) revoked_at: Moment,
    pub(crate) next_attempt_at: Moment,
    pub(crate) attempts: i32,
    pub(crate) error_class: Option<String>,
    pub(crate) claim_owner: Option<Uuid>,
    pub(crate) claim_since: Moment,
    pub(crate) claim_until: Moment,
    pub(crate) renewable: bool,
    pub(crate) belts: Vec<String>,
    pub(crate) abandon_by: Option<String>,
    pub(crate) abandon_reason: Option<String>,
    pub(crate) abandon_at: Moment,
    pub(crate) plan: Value,
    pub(crate) due_at: Moment,
    pub(crate) quarantined: Option<String>,
    pub(crate) kept: Option<Vec<u8>>,
    pub(crate) on_behalf_of: Option<String>,
    pub(crate) on_behalf_name: Option<String>,
}

fn corrupt(what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { what: what.to_string() }
}

impl TryFrom<LeaseRow> for Lease {
    type Error = StoreError;

    fn try_from(row: LeaseRow) -> Result<Self, StoreError> {
        let id = LeaseId::from_uuid(row.id);
        let unreadable = || corrupt(format!("lease {id}"));
        let state = state(&row).ok_or_else(unreadable)?;
        let claim = match (row.claim_owner, row.claim_since.0, row.claim_until.0) {
            (Some(owner), Some(since), Some(until)) => {
                Some(Claim { owner: ReplicaId::from_uuid(owner), since, until })
            }
            (None, None, None) => None,
            _ => return Err(unreadable()),
        };
        let abandonment = match (row.abandon_by, row.abandon_reason, row.abandon_at.0) {
            (Some(by), Some(reason), Some(at)) => Some(Abandonment { by, reason, at }),
            (None, None, None) => None,
            _ => return Err(unreadable()),
        };
        Ok(Self {
            id,
            task: TaskId::from_uuid(row.task),
            principal: row.principal,
            issuer: row.issuer,
            on_behalf_of: person(row.on_behalf_of, row.on_behalf_name, unreadable)?,
            role: row.role,
            backend: row.backend,
            handle: Handle::parse(row.handle).map_err(|_| unreadable())?,
            decision: Decision {
                chain: ReplicaId::from_uuid(row.decision_chain),
                seq: u64::try_from(row.decision_seq).map_err(|_| unreadable())?,
            },
            epoch: row.epoch,
            state,
            issued_at: row.issued_at,
            expires_at: row.expires_at,
            max_expires_at: row.max_expires_at,
            native_expires_at: row.native_expires_at.0,
            mint_deadline: row.mint_deadline,
            settle_at: row.settle_at.0,
            activated_at: row.activated_at.0,
            delivered_at: row.delivered_at.0,
            renewable: row.renewable,
            belts: belts(&row.belts).ok_or_else(unreadable)?,
            next_attempt_at: row.next_attempt_at.0,
            attempts: u32::try_from(row.attempts).map_err(|_| unreadable())?,
            error_class: row.error_class,
            claim,
            abandonment,
            plan: Plan(row.plan),
            kept: row.kept.map(Sealed::from_bytes),
        })
    }
}

/// The person of a row, if it has one. A name alone is nobody's.
fn person(
    principal: Option<String>,
    name: Option<String>,
    unreadable: impl Fn() -> StoreError,
) -> Result<Option<Person>, StoreError> {
    match (principal, name) {
        (Some(principal), name) => Ok(Some(Person { principal, name })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(unreadable()),
    }
}

fn state(row: &LeaseRow) -> Option<State> {
    let cause = match &row.cause {
        Some(cause) => Some(Cause::parse(cause)?),
        None => None,
    };
    match (row.state.as_str(), cause) {
        ("pending", None) => Some(State::Pending),
        ("active", None) => Some(State::Active {
            activated_at: row.activated_at.0?,
            delivered_at: row.delivered_at.0,
        }),
        ("revoking", Some(cause)) => Some(State::Revoking { cause, since: row.revoking_at.0? }),
        ("revoked", Some(cause)) => Some(State::Revoked { cause, at: row.revoked_at.0? }),
        ("abandoned", Some(cause)) => Some(State::Abandoned { cause, at: row.revoked_at.0? }),
        _ => None,
    }
}

fn belts(names: &[String]) -> Option<Vec<Belt>> {
    let known = [Belt::NativeExpiry, Belt::SessionKill, Belt::Revoke];
    names.iter().map(|name| known.into_iter().find(|belt| belt.as_str() == name)).collect()
}

/// What the state's own columns hold.
#[derive(Debug)]
pub(crate) struct StateColumns {
    pub(crate) state: &'static str,
    pub(crate) cause: Option<&'static str>,
    pub(crate) revoking_at: Option<Timestamp>,
    pub(crate) revoked_at: Option<Timestamp>,
}

/// The columns of a lease's state; `revoked_at` is when it ended, also by being abandoned.
/// `revoking_at` of a revoked lease stays what it was, so it
/// is given by the caller's `COALESCE`; here it falls back to the death itself.
pub(crate) fn state_columns(lease: &Lease) -> StateColumns {
    let state = lease.state.as_str();
    let cause = lease.state.cause().map(Cause::as_str);
    let (revoking_at, revoked_at) = match lease.state {
        State::Pending | State::Active { .. } => (None, None),
        State::Revoking { since, .. } => (Some(since), None),
        State::Revoked { at, .. } | State::Abandoned { at, .. } => (Some(at), Some(at)),
    };
    StateColumns { state, cause, revoking_at, revoked_at }
}

/// What the installation's row says.
pub(crate) fn standing(
    suspended_at: Moment,
    reason: Option<String>,
    [from, to, until]: [Moment; 3],
) -> Standing {
    let suspended = suspended_at.0.zip(reason);
    let hold = from.0.zip(to.0).zip(until.0);
    Standing {
        suspended: suspended.map(|(since, reason)| Suspension { since, reason }),
        hold: hold.map(|((from, to), until)| Hold { from, to, until }),
    }
}

/// Whether a row in `state` is in the reaper's hands. A state that this program does not know
/// may be alive.
pub(crate) fn may_live(state: &str) -> bool {
    !matches!(state, "revoked" | "abandoned")
}

pub(crate) fn belt_names(belts: &[Belt]) -> Vec<String> {
    belts.iter().map(|belt| belt.as_str().to_owned()).collect()
}

/// The columns of `tasks`.
#[derive(Debug)]
pub(crate) struct TaskRow {
    pub(crate) id: Uuid,
    pub(crate) principal: String,
    pub(crate) issuer: String,
    pub(crate) identity: Value,
    pub(crate) purpose: String,
    pub(crate) token_hash: Vec<u8>,
    pub(crate) opened_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) ended: Option<String>,
    pub(crate) closed_at: Moment,
    pub(crate) heartbeat: Option<i64>,
    pub(crate) lost_at: Moment,
    pub(crate) run: Option<String>,
    pub(crate) job: Option<String>,
    pub(crate) bound_by: Option<String>,
    pub(crate) bound_to: Option<Vec<u8>>,
    pub(crate) on_behalf_of: Option<String>,
    pub(crate) on_behalf_name: Option<String>,
}

impl TryFrom<TaskRow> for Task {
    type Error = StoreError;

    fn try_from(row: TaskRow) -> Result<Self, StoreError> {
        let id = TaskId::from_uuid(row.id);
        let unreadable = || corrupt(format!("task {id}"));
        let state = match (row.ended.as_deref().map(TaskEnd::parse), row.closed_at.0) {
            (None, None) => TaskState::Open,
            (Some(Some(end)), Some(at)) => TaskState::Closed { end, at },
            _ => return Err(unreadable()),
        };
        let heartbeat = match (row.heartbeat.map(u64::try_from), row.lost_at.0) {
            (None, None) => None,
            (Some(Ok(micros)), Some(lost_at)) => {
                Some(Heartbeat { every: Duration::from_micros(micros), lost_at })
            }
            _ => return Err(unreadable()),
        };
        // Half of a binding is none that could be checked, and no binding would be anybody's.
        let binding = match (row.bound_by, row.bound_to) {
            (None, None) => None,
            (Some(by), Some(to)) => {
                let binding = hash(&to).and_then(|to| Binding::parse(&by, to));
                Some(binding.ok_or_else(unreadable)?)
            }
            _ => return Err(unreadable()),
        };
        let key = |text: Option<String>| {
            text.map(|text| JobKey::parse(text).ok_or_else(unreadable)).transpose()
        };
        Ok(Self {
            id,
            principal: row.principal,
            issuer: row.issuer,
            identity: row.identity,
            purpose: row.purpose,
            token_hash: hash(&row.token_hash).ok_or_else(unreadable)?,
            state,
            opened_at: row.opened_at,
            expires_at: row.expires_at,
            heartbeat,
            keys: JobKeys { run: key(row.run)?, job: key(row.job)? },
            binding,
            on_behalf_of: person(row.on_behalf_of, row.on_behalf_name, unreadable)?,
        })
    }
}

/// The tasks among `rows` that can be read; the others are reported and stop nobody (I12).
pub(crate) fn readable_tasks(rows: Vec<TaskRow>) -> Vec<Task> {
    let readable = |row: TaskRow| match Task::try_from(row) {
        Ok(task) => Some(task),
        Err(error) => {
            tracing::error!(%error, "task.unreadable");
            None
        }
    };
    rows.into_iter().filter_map(readable).collect()
}

/// The columns of `disabled`.
#[derive(Debug)]
pub(crate) struct DisabledRow {
    pub(crate) principal: String,
    pub(crate) cut_off: Moment,
    pub(crate) disabled_at: Timestamp,
    pub(crate) disabled_by: String,
    pub(crate) reason: Option<String>,
    pub(crate) ending: bool,
    pub(crate) expires_at: Moment,
}

impl From<DisabledRow> for Disabled {
    fn from(row: DisabledRow) -> Self {
        Self {
            principal: row.principal,
            cut_off: row.cut_off.0,
            at: row.disabled_at,
            by: row.disabled_by,
            reason: row.reason,
            ending: row.ending,
            expires_at: row.expires_at.0,
        }
    }
}

/// The columns of `audit_records`.
#[derive(Debug)]
pub(crate) struct RecordRow {
    pub(crate) chain: Uuid,
    pub(crate) seq: i64,
    pub(crate) at: Timestamp,
    pub(crate) event: String,
    pub(crate) actor: String,
    pub(crate) task: Option<Uuid>,
    pub(crate) lease: Option<Uuid>,
    pub(crate) detail: String,
    pub(crate) prev: Vec<u8>,
    pub(crate) hash: Vec<u8>,
    pub(crate) signature: Option<Vec<u8>>,
}

impl TryFrom<RecordRow> for Record {
    type Error = StoreError;

    fn try_from(row: RecordRow) -> Result<Self, StoreError> {
        let chain = ReplicaId::from_uuid(row.chain);
        let unreadable = || corrupt(format!("audit record {chain}/{}", row.seq));
        Ok(Self {
            chain,
            seq: u64::try_from(row.seq).map_err(|_| unreadable())?,
            at: row.at,
            prev: hash(&row.prev).ok_or_else(unreadable)?,
            hash: hash(&row.hash).ok_or_else(unreadable)?,
            event: row.event,
            actor: row.actor,
            task: row.task.map(TaskId::from_uuid),
            lease: row.lease.map(LeaseId::from_uuid),
            detail: row.detail,
            signature: row.signature,
        })
    }
}

pub(crate) fn hash(bytes: &[u8]) -> Option<[u8; 32]> {
    bytes.try_into().ok()
}

/// How a job ended, as a column has it.
pub(crate) fn job_end(key: &JobKey, ended: &str) -> Result<TaskEnd, StoreError> {
    TaskEnd::parse(ended).ok_or_else(|| corrupt(format!("ended job {}", key.as_str())))
}

/// A length of time as a column has it.
pub(crate) fn in_micros(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn task_end(task: &Task) -> (Option<&'static str>, Option<Timestamp>) {
    match task.state {
        TaskState::Open => (None, None),
        TaskState::Closed { end, at } => (Some(end.as_str()), Some(at)),
    }
}
