//! The transactions of a task: opened, heard, closed, expired or lost, or its job over.
//!
//! Invariant: closing locks the task's row before it reads the leases, so that no intent can
//! slip in between (I5). Opening and a job's end exclude each other ([`Write::job_keys`]), so that
//! no task is opened in a job that is over.
//!
//! [`Write::job_keys`]: crate::Write::job_keys

use std::time::Duration;

use dayfly_backend_sdk::Timestamp;

use super::{OpenTasks, Tx, guard, identity, known, mint::condemned, save};
use crate::{
    Cause, Closed, FirstKey, Heard, Heartbeat, JobEnd, Lease, NewTask, Refusal, Replay, State,
    StoreError, Task, TaskEnd, TaskId, TaskState, TokenUse, Withdrawal, Written,
    audit::Entry,
    planted::{self, Bug},
};

pub(super) async fn open<T: Tx + ?Sized>(
    tx: &mut T,
    new: &NewTask,
    used: &[TokenUse],
    decision: &Entry,
) -> Result<Written, StoreError> {
    let now = tx.now();
    for key in new.keys.all() {
        if tx.ended_job(key).await?.is_some() && !planted::is(Bug::JobEndForgotten) {
            return Err(Refusal::JobEnded.into());
        }
    }
    identity::may_open(tx, new).await?;
    use_up(tx, used).await?;
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
        keys: new.keys.clone(),
        binding: new.binding,
        on_behalf_of: new.on_behalf_of.clone(),
    };
    tx.append(decision.clone().task(task.id).on_behalf_of(task.on_behalf_of.as_ref()));
    tx.insert_task(&task).await?;
    Ok(Written::Task(Box::new(task)))
}

/// Uses all of the tokens, or none. A key is bound last, since what a token is bound to cannot be
/// taken back: another replica may have seen it. So it is looked at first, and what was remembered
/// is forgotten if another key came in between. A refusal says which of the tokens it was.
async fn use_up<T: Tx + ?Sized>(tx: &mut T, used: &[TokenUse]) -> Result<(), StoreError> {
    let (mut once, mut bound) = (Vec::new(), Vec::new());
    for (nth, one) in used.iter().enumerate() {
        match one {
            TokenUse::ByFirstKey(first) => bound.push((nth, first)),
            TokenUse::Once(replay) => once.push((nth, replay.clone())),
        }
    }
    for (nth, first) in bound.iter().copied() {
        let looked = FirstKey { key: None, ..first.clone() };
        let before = tx.first_key(&looked).await?;
        if before.is_some() && before != first.key {
            return Err(Refusal::AnotherKey { nth }.into());
        }
    }
    let (places, once): (Vec<usize>, Vec<Replay>) = once.into_iter().unzip();
    if let Some(replayed) = tx.remember(&once).await? {
        let nth = places.get(replayed).copied().unwrap_or_default();
        return Err(Refusal::Replayed { nth }.into());
    }
    for (nth, first) in bound {
        if tx.first_key(first).await? != first.key {
            tx.forget(&once).await?;
            return Err(Refusal::AnotherKey { nth }.into());
        }
    }
    Ok(())
}

pub(super) async fn close<T: Tx + ?Sized>(
    tx: &mut T,
    id: TaskId,
    end: TaskEnd,
    actor: &str,
) -> Result<Written, StoreError> {
    let task = tx.task(id, true).await?.ok_or(Refusal::TaskUnknown)?;
    let closed = end_task(tx, task, end, end.cause(), actor).await?;
    Ok(Written::Closed(vec![closed]))
}

/// The end is remembered with the first portion, so that no task is opened behind what was looked
/// at. Whoever asks again from the beginning ends what a crash in between left open. The first end
/// that was told stands.
pub(super) async fn close_job<T: Tx + ?Sized>(
    tx: &mut T,
    ended: &JobEnd,
    after: Option<TaskId>,
) -> Result<Written, StoreError> {
    let known = tx.ended_job(&ended.key).await?.is_some();
    let forgotten = if known { 0 } else { tx.remember_job(ended).await? };
    let OpenTasks { tasks, after } = tx.tasks_of_job(&ended.key, after, ended.limit).await?;
    let mut closed = Vec::with_capacity(tasks.len());
    for task in tasks {
        closed.push(end_task(tx, task, ended.end, ended.end.cause(), &ended.actor).await?);
    }
    Ok(Written::JobClosed { closed, after, known, forgotten })
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
    let heard = match heard {
        Some(heard) => heard_by_all(tx, heard.length).await?,
        None => Duration::ZERO,
    };
    let mut closed = Vec::new();
    for task in tx.due_tasks(limit, spared, heard).await? {
        if let Some(end) = task.due_end(now, spared, heard) {
            closed.push(end_task(tx, task, end, end.cause(), "reaper").await?);
        }
    }
    Ok(Written::Ended { closed, now })
}

/// Of what one replica has heard for `length`, what no other has turned away since.
async fn heard_by_all<T: Tx + ?Sized>(
    tx: &mut T,
    length: Duration,
) -> Result<Duration, StoreError> {
    let now = tx.now();
    match tx.turned_away().await? {
        None => Ok(length),
        Some(at) if at <= now => Ok(length.min(now.since(at))),
        Some(_) => {
            // Later than it can be: the store's clock was set back since. As it stands nobody
            // would be lost until the clock has come there again.
            tx.set_turned_away().await?;
            Ok(Duration::ZERO)
        }
    }
}

/// What has ended meanwhile is left as it is, and then there is no denial to tell of.
pub(super) async fn withdraw<T: Tx + ?Sized>(
    tx: &mut T,
    withdrawal: &Withdrawal,
) -> Result<Written, StoreError> {
    let Withdrawal { task, lease, actor, denial } = withdrawal;
    let denial = denial.clone().task(*task);
    let cause = Cause::PolicyChanged;
    let Some(id) = *lease else {
        let task = tx.task(*task, true).await?.ok_or(Refusal::TaskUnknown)?;
        if task.state != TaskState::Open {
            return Ok(Written::Closed(Vec::new()));
        }
        tx.append(denial);
        let closed = end_task(tx, task, TaskEnd::Revoked, cause, actor).await?;
        return Ok(Written::Closed(vec![closed]));
    };
    let lease = known(tx, id).await?;
    match lease.state {
        State::Pending | State::Active { .. } => {}
        State::Revoking { .. } | State::Revoked { .. } | State::Abandoned { .. } => {
            return Ok(Written::Done);
        }
    }
    let revoking = lease.condemn(tx.now(), cause)?;
    save(tx, &revoking).await?;
    tx.append(denial.lease(id));
    tx.append(condemned(&revoking, actor, None));
    Ok(Written::Lease(Box::new(revoking)))
}

/// Closes `task` if it is open, and condemns whatever of it may live. Ending twice is no
/// error, and the first end stands; what could not be read the first time is condemned then.
pub(super) async fn end_task<T: Tx + ?Sized>(
    tx: &mut T,
    task: Task,
    end: TaskEnd,
    cause: Cause,
    actor: &str,
) -> Result<Closed, StoreError> {
    let now = tx.now();
    let (task, cause) = match task.close(end, now) {
        Some(closed) => {
            tx.update_task(&closed).await?;
            let entry = Entry::new("task.closed", actor).task(closed.id);
            tx.append(entry.with("end", end.as_str()).with("cause", cause.as_str()));
            (closed, cause)
        }
        None => match task.state {
            TaskState::Closed { end, .. } => (task, end.cause()),
            TaskState::Open => return Ok(Closed { task, backends: Vec::new() }),
        },
    };
    let living = tx.leases_of(task.id).await?;
    let condemned_leases: Vec<Lease> = living
        .iter()
        .filter(|lease| !spared(lease))
        .filter_map(|lease| lease.condemn(now, cause).ok())
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
