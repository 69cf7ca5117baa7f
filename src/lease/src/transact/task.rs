//! The transactions of a task: opened, heard, closed, expired or lost.
//!
//! Invariant: closing locks the task's row before it reads the leases, so that no intent can
//! slip in between (I5).

use std::time::Duration;

use dayfly_backend_sdk::Timestamp;

use super::{Tx, guard, mint::condemned};
use crate::{
    Closed, Heard, Heartbeat, Lease, NewTask, Refusal, Replay, State, StoreError, Task, TaskEnd,
    TaskId, TaskState, Written,
    audit::Entry,
    planted::{self, Bug},
};

pub(super) async fn open<T: Tx + ?Sized>(
    tx: &mut T,
    new: &NewTask,
    replay: Option<&Replay>,
    decision: &Entry,
) -> Result<Written, StoreError> {
    let now = tx.now();
    if let Some(replay) = replay
        && !tx.remember(replay).await?
    {
        return Err(Refusal::Replayed.into());
    }
    let task = Task {
        id: new.id,
        principal: new.principal.clone(),
        issuer: new.issuer.clone(),
        identity: new.identity.clone(),
        purpose: new.purpose.clone(),
        token_hash: new.token_hash,
        state: TaskState::Open,
        opened_at: now,
        expires_at: now.plus(new.ttl),
        heartbeat: new.heartbeat.map(|every| Heartbeat::new(every, now)),
    };
    tx.append(decision.clone().task(task.id));
    tx.insert_task(&task).await?;
    Ok(Written::Task(Box::new(task)))
}

pub(super) async fn close<T: Tx + ?Sized>(
    tx: &mut T,
    id: TaskId,
    end: TaskEnd,
    actor: &str,
) -> Result<Written, StoreError> {
    let task = tx.task(id, true).await?.ok_or(Refusal::TaskUnknown)?;
    let closed = end_task(tx, task, end, actor).await?;
    Ok(Written::Closed(vec![closed]))
}

/// No record: beats come all the time, and say nothing but that nothing has happened. One that
/// comes late is as good as one in time, as long as nobody has ended the task.
pub(super) async fn beat<T: Tx + ?Sized>(tx: &mut T, id: TaskId) -> Result<Written, StoreError> {
    let now = tx.now();
    let task = tx.task(id, true).await?.ok_or(Refusal::TaskUnknown)?;
    if !task.is_open(now) {
        return Err(Refusal::TaskClosed.into());
    }
    let heartbeat = task.heartbeat.ok_or(Refusal::NoHeartbeat)?;
    let Some(again) = heartbeat.heard(now) else { return Ok(Written::Task(Box::new(task))) };
    let task = Task { heartbeat: Some(again), ..task };
    tx.update_task(&task).await?;
    Ok(Written::Task(Box::new(task)))
}

pub(super) async fn expire<T: Tx + ?Sized>(
    tx: &mut T,
    limit: u32,
    believed: Option<Timestamp>,
    heard: Option<Heard>,
) -> Result<Written, StoreError> {
    let now = tx.now();
    let spared = guard::spared(tx, believed).await?;
    // A store that was put back may have lost the beats of the time since; while it is
    // suspended, what was heard is not what it knows.
    let heard = heard.filter(|heard| now <= heard.until && !spared.unless_told);
    let heard = heard.map_or(Duration::ZERO, |heard| heard.length);
    let mut closed = Vec::new();
    for task in tx.due_tasks(limit, spared, heard).await? {
        if let Some(end) = task.due_end(now, spared, heard) {
            closed.push(end_task(tx, task, end, "reaper").await?);
        }
    }
    Ok(Written::Ended { closed, now })
}

/// Closes `task` if it is open, and condemns whatever of it may live. Ending twice is no
/// error, and the first end stands; what could not be read the first time is condemned then.
async fn end_task<T: Tx + ?Sized>(
    tx: &mut T,
    task: Task,
    end: TaskEnd,
    actor: &str,
) -> Result<Closed, StoreError> {
    let now = tx.now();
    let (task, end) = match task.close(end, now) {
        Some(closed) => {
            tx.update_task(&closed).await?;
            let entry = Entry::new("task.closed", actor).task(closed.id);
            tx.append(entry.with("end", end.as_str()));
            (closed, end)
        }
        None => match task.state {
            TaskState::Closed { end, .. } => (task, end),
            TaskState::Open => return Ok(Closed { task, backends: Vec::new() }),
        },
    };
    let living = tx.leases_of(task.id).await?;
    let condemned_leases: Vec<Lease> = living
        .iter()
        .filter(|lease| !spared(lease))
        .filter_map(|lease| lease.condemn(now, end.cause()).ok())
        .collect();
    tx.update_leases(&condemned_leases).await?;
    for lease in &condemned_leases {
        tx.append(condemned(lease, actor, None));
    }
    let mut backends: Vec<String> = living.into_iter().map(|lease| lease.backend).collect();
    backends.sort();
    backends.dedup();
    Ok(Closed { task, backends })
}

/// Nothing is, but by a planted mistake.
fn spared(lease: &Lease) -> bool {
    match lease.state {
        State::Pending => planted::is(Bug::ActivateClosedTask),
        State::Active { .. } => planted::is(Bug::CloseLeavesActive),
        State::Revoking { .. } | State::Revoked { .. } | State::Abandoned { .. } => false,
    }
}
