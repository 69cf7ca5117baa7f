//! Leases as their rows stand, with what else the store knows of them, for whoever checks
//! them.
//!
//! Invariant: a row that cannot be read is shown as one and hides no other.

use std::collections::HashMap;

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{Lease, LeaseId, State, TaskId, audit::Record};
use uuid::Uuid;

use crate::row::{LeaseRow, RecordRow};

/// Which rows to look at.
#[derive(Clone, Debug)]
pub enum Look {
    /// Up to so many, by id, after this one.
    After(Option<LeaseId>, u32),
    /// Up to so many that may live of a task, by id, after this one.
    Living(TaskId, Option<LeaseId>, u32),
    /// These, as far as they are there.
    These(Vec<LeaseId>),
}

/// A lease's row and its evidence.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Its id.
    pub id: LeaseId,
    /// What the row means, or why it means nothing.
    pub lease: Result<Lease, String>,
    /// The column that drives its death.
    pub due_at: Option<Timestamp>,
    /// Why it was put aside, if it was.
    pub quarantined: Option<String>,
    /// Its task.
    pub task: TaskSeen,
    /// The audit record at the place that the row names for its decision.
    pub decision: Option<Record>,
    /// The receipts of its death.
    pub receipts: Vec<Record>,
}

/// A lease's task, as far as its leases are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskSeen {
    /// It has ended.
    Closed,
    /// There is none.
    Missing,
    /// It goes on.
    Open,
}

impl Inspected {
    pub(crate) fn of(row: LeaseRow) -> Self {
        let (id, due_at) = (LeaseId::from_uuid(row.id), row.due_at.0);
        let quarantined = row.quarantined.clone();
        let lease = Lease::try_from(row).map_err(|error| error.to_string());
        Self { due_at, quarantined, ..Self::bare(id, lease) }
    }

    /// A row of which a column is not even what its type can mean.
    pub(crate) fn unreadable(id: Uuid, why: String) -> Self {
        Self::bare(LeaseId::from_uuid(id), Err(why))
    }

    fn bare(id: LeaseId, lease: Result<Lease, String>) -> Self {
        let (task, receipts) = (TaskSeen::Missing, Vec::new());
        Self { id, lease, due_at: None, quarantined: None, task, decision: None, receipts }
    }
}

/// What to read for a page of rows.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    pub(crate) tasks: Vec<Uuid>,
    pub(crate) chains: Vec<Uuid>,
    pub(crate) seqs: Vec<i64>,
    pub(crate) dead: Vec<Uuid>,
}

impl Keys {
    pub(crate) fn of(rows: &[Inspected]) -> Self {
        let mut keys = Self::default();
        for lease in rows.iter().filter_map(|row| row.lease.as_ref().ok()) {
            keys.tasks.push(lease.task.uuid());
            keys.chains.push(lease.decision.chain.uuid());
            keys.seqs.push(lease.decision.seq.cast_signed());
            if matches!(lease.state, State::Revoked { .. }) {
                keys.dead.push(lease.id.uuid());
            }
        }
        keys
    }
}

/// What was read for a page of rows. A task comes with whether it has ended.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) tasks: Vec<(Uuid, bool)>,
    pub(crate) decisions: Vec<RecordRow>,
    pub(crate) receipts: Vec<RecordRow>,
}

/// Puts the evidence to its rows. A record that cannot be read is none.
pub(crate) fn join(mut rows: Vec<Inspected>, evidence: Evidence) -> Vec<Inspected> {
    let tasks: HashMap<Uuid, bool> = evidence.tasks.into_iter().collect();
    let readable = |rows: Vec<RecordRow>| {
        rows.into_iter().filter_map(|row| Record::try_from(row).ok()).collect::<Vec<_>>()
    };
    let decisions: HashMap<_, _> = readable(evidence.decisions)
        .into_iter()
        .map(|record| ((record.chain, record.seq), record))
        .collect();
    let mut receipts: HashMap<LeaseId, Vec<Record>> = HashMap::new();
    for receipt in readable(evidence.receipts) {
        if let Some(id) = receipt.lease {
            receipts.entry(id).or_default().push(receipt);
        }
    }
    for row in &mut rows {
        let Ok(lease) = &row.lease else { continue };
        row.task = match tasks.get(&lease.task.uuid()) {
            Some(true) => TaskSeen::Closed,
            Some(false) => TaskSeen::Open,
            None => TaskSeen::Missing,
        };
        row.decision = decisions.get(&(lease.decision.chain, lease.decision.seq)).cloned();
        row.receipts = receipts.remove(&row.id).unwrap_or_default();
    }
    rows
}
