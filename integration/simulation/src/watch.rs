//! The oracles' eyes: every change in the store and every effect at a backend passes here.
//!
//! Invariant: nothing here changes the world; it only tells the model, and cries out.

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{Closed, Lease, State, StoreError, TaskEnd, TaskState, Write, Written};

use crate::{
    coverage::Moment,
    hearing::Look,
    model::{Copied, Model, Phase, Row, Tracked},
    plan::Style,
    world::World,
};

/// The name of the backend at `index`.
pub fn backend_name(index: usize) -> String {
    format!("b{index}")
}

fn backend_index(name: &str) -> usize {
    name.trim_start_matches('b').parse().unwrap_or(usize::MAX)
}

/// A row in the model's own terms.
pub fn row_of(lease: &Lease) -> Row {
    let (phase, condemned_at) = match lease.state {
        State::Pending => (Phase::Pending, None),
        State::Active { .. } => (Phase::Active, None),
        State::Revoking { since, .. } => (Phase::Revoking, Some(since.micros())),
        State::Revoked { at, .. } => (Phase::Revoked, Some(at.micros())),
        State::Abandoned { at, .. } => (Phase::Abandoned, Some(at.micros())),
    };
    Row {
        id: lease.id,
        task: lease.task,
        backend: backend_index(&lease.backend),
        handle: lease.handle.as_str().to_owned(),
        epoch: lease.epoch,
        phase,
        cause: lease.state.cause().map(dayfly_lease::Cause::as_str),
        issued_at: lease.issued_at.micros(),
        expires_at: lease.expires_at.micros(),
        max_expires_at: lease.max_expires_at.micros(),
        mint_deadline: lease.mint_deadline.micros(),
        settle_at: lease.settle_at.map(Timestamp::micros),
        condemned_at,
        delivered: lease.delivered_at.is_some(),
        attempts: lease.attempts,
        claimed_by: lease.claim.map(|claim| claim.owner),
        decision: (lease.decision.chain, lease.decision.seq),
    }
}

/// The store has made a change, or refused to.
pub fn written(world: &World, write: &Write, written: &Result<Written, StoreError>) {
    let now = world.store_now().micros();
    before_rows(world, write, written);
    let epochs = std::mem::take(&mut world.model().epochs);
    let changes = world.truth().changes(&epochs);
    let mut model = world.model();
    model.epochs = epochs;
    for (chain, seq, event, lease, text) in changes.records {
        if text.contains(crate::seams::SECRET) {
            world.violated(format!("I3: record {chain}/{seq} holds a secret"));
        }
        if let Some(lease) = lease {
            model.told.insert((lease, event.clone()));
        }
        model.records.insert((chain, seq), (event, lease));
    }
    for lease in changes.leases {
        let row = row_of(&lease);
        let usable = world.sites.get(row.backend).is_some_and(|s| s.is_usable(world, &row.handle));
        seen(world, &model, &row);
        world.event("row", [row.epoch.cast_unsigned(), row.phase as u64], || {
            format!("{} {:?} {:?} epoch {}", row.id, row.phase, row.cause, row.epoch)
        });
        fenced(world, write, &row);
        if let Err(what) = model.row(row, now, usable) {
            world.violated(what);
        }
    }
    if let (Write::Intend(intent), Ok(_)) = (write, written)
        && let Err(what) = model.alone(intent.id)
    {
        world.violated(what);
    }
    drop(model);
    after_rows(world, write, written);
}

/// Only whoever claimed it last says what became of it (I9).
fn fenced(world: &World, write: &Write, row: &Row) {
    let claimed = (row.id, row.epoch - 1);
    let says = |id, epoch| (id, epoch) == claimed;
    let foreign = if let Write::Bury { leases, .. } = write {
        !leases.iter().any(|(id, epoch)| says(*id, *epoch))
    } else if let Write::Postpone { leases } = write {
        !leases.iter().any(|one| says(one.lease, one.epoch))
    } else {
        false
    };
    if foreign {
        world.violated(format!("I9: a claim that was not the last decided over {}", row.id));
    }
}

/// What the rows are judged by must be known before they are.
fn before_rows(world: &World, write: &Write, written: &Result<Written, StoreError>) {
    let mut model = world.model();
    if let (Write::Intend(intent), Ok(_)) = (write, written)
        && let Some(key) = &intent.key
    {
        model.keys.insert(intent.id, (intent.task, key.key.clone()));
    }
    if let Ok(Written::Task(task)) = written {
        model.tasks.insert(task.id, task.expires_at.micros());
        let jobs = task.keys.all().map(|key| key.as_str().to_owned()).collect();
        if matches!(write, Write::OpenTask { .. })
            && let Err(what) = model.opened(task.id, jobs)
        {
            world.violated(what);
        }
    }
    if let (Write::CloseJob { ended, .. }, Ok(_)) = (write, written) {
        model.told_over.insert(ended.key.as_str().to_owned());
    }
}

fn after_rows(world: &World, write: &Write, written: &Result<Written, StoreError>) {
    match written {
        Ok(
            Written::Closed(closed)
            | Written::Ended { closed, .. }
            | Written::JobClosed { closed, .. },
        ) => {
            let mut model = world.model();
            for one in closed {
                model.closed.insert(one.task.id);
                none_lives(world, &model, one.task.id);
            }
        }
        Ok(Written::Task(task)) if matches!(write, Write::Beat { .. }) => {
            world.saw(Moment::TaskHeard);
            world.model().hearing.heard(task.id, world.store_now().micros());
        }
        Ok(Written::Done) if matches!(write, Write::TurnedAway) => {
            world.saw(Moment::TurnedAwayTold);
            world.model().hearing.told(world.store_now().micros());
        }
        Ok(Written::Renewed { lease, before }) => {
            if lease.expires_at > *before
                && let Some(tracked) = world.model().leases.get_mut(&lease.id)
            {
                tracked.extended += 1;
            }
        }
        Err(StoreError::Refused(dayfly_lease::Refusal::JobEnded)) => {
            world.saw(Moment::JobEndedBefore);
        }
        Ok(Written::Superseding { .. }) => world.saw(Moment::Superseded),
        Err(StoreError::Refused(dayfly_lease::Refusal::InProgress)) => {
            world.saw(Moment::KeyInProgress);
        }
        Err(StoreError::Refused(dayfly_lease::Refusal::Quota(_))) => {
            world.saw(Moment::QuotaFull);
        }
        _ => {}
    }
    if let (Write::Intend(intent), Ok(_)) = (write, written) {
        quota_holds(world, intent);
    }
    if let Ok(Written::JobClosed { closed, .. }) = written
        && !closed.is_empty()
    {
        world.saw(Moment::JobEndedTask);
    }
    if let (Write::Suspend { reason }, Ok(_)) = (write, written) {
        world.saw(Moment::Suspended);
        if !world.has_lost() {
            world.violated(format!("minting pauses, and the store has lost nothing: {reason}"));
        }
    }
    if matches!((write, written), (Write::Adopt { .. }, Ok(_))) {
        world.saw(Moment::Adopted);
    }
    if let (Write::Note(entry), Ok(_)) = (write, written) {
        match entry.event {
            "orphan.found" => world.saw(Moment::OrphanFound),
            "orphan.revoked" => world.saw(Moment::OrphanSwept),
            _ => {}
        }
    }
    if matches!((write, written), (Write::Shorten { .. }, Ok(_))) {
        world.saw(Moment::RenewalTakenBack);
    }
}

/// Whom `look` has ended at `now` of the store. Who was silent must have been heard by it.
pub fn ended(world: &World, closed: &[Closed], now: Timestamp, look: Look) {
    let now = now.micros();
    let mut model = world.model();
    model.hearing.at(now);
    for Closed { task, .. } in closed {
        if !matches!(task.state, TaskState::Closed { end: TaskEnd::Lost, .. }) {
            continue;
        }
        world.saw(Moment::TaskLost);
        if let Err(what) = model.hearing.lost(task, look, now) {
            world.violated(what);
        }
    }
}

/// With this intent the backend has no more leases than its quota. One that it ends itself is
/// not counted; what an old copy of the store brought back is nobody's mint.
fn quota_holds(world: &World, intent: &dayfly_lease::Intent) {
    let Some(quota) = world.plan.quota.filter(|_| !world.has_lost()) else { return };
    let model = world.model();
    let Some(backend) = model.leases.get(&intent.id).map(|tracked| tracked.row.backend) else {
        return;
    };
    let of_backend = model.leases.values().filter(|tracked| tracked.row.backend == backend);
    let living = of_backend.filter(|tracked| {
        tracked.row.phase < Phase::Revoked && tracked.row.cause != Some("superseded")
    });
    let living = living.count();
    if living > quota as usize {
        world.violated(format!("{living} leases live at once, and the quota is {quota}"));
    }
}

/// A task is closed: with it, all its leases are told to die.
fn none_lives(world: &World, model: &Model, task: dayfly_lease::TaskId) {
    for tracked in model.leases.values().filter(|tracked| tracked.row.task == task) {
        if tracked.row.phase == Phase::Revoking && tracked.created == 0 {
            world.saw(Moment::CompletionWithPending);
        }
        if tracked.row.phase < Phase::Revoking && !tracked.bad {
            world.violated(format!("I5: {} lives and its task is closed", tracked.row.id));
        }
    }
}

fn seen(world: &World, model: &Model, row: &Row) {
    let before = model.leases.get(&row.id);
    match (before.map(|tracked| tracked.row.phase), row.phase) {
        (_, Phase::Revoked) => {
            if row.cause == Some("undelivered") {
                world.saw(Moment::Undelivered);
            }
            let dead = (0..world.sites.len()).any(|index| {
                index != row.backend && world.is_away(crate::world::Target::Backend(index))
            });
            if dead {
                world.saw(Moment::OnTimeBesideDead);
            }
        }
        (Some(Phase::Active), Phase::Revoking) => {
            let site = world.sites.get(row.backend);
            if site.is_some_and(|site| site.has_session(&row.handle)) {
                world.saw(Moment::SessionOutlived);
            }
        }
        (Some(Phase::Revoking), Phase::Revoking) => {
            let attempts = before.map_or(0, |tracked| tracked.row.attempts);
            if row.claimed_by.is_none() && attempts == row.attempts && row.settle_at.is_some() {
                world.saw(Moment::SecondRevocation);
            }
        }
        _ => {}
    }
}

/// A backend is asked to create `handle`.
pub fn sent(world: &World, backend: usize, handle: &str) {
    let mut model = world.model();
    let Some(tracked) = model.named_mut(backend, handle) else {
        drop(model);
        world.violated(format!("I1: {handle} was asked for before its row was durable"));
        return;
    };
    tracked.sent += 1;
    if tracked.sent > 1 {
        world.violated(format!("{handle} was asked for twice"));
    }
}

/// A backend has created `handle`.
pub fn created(world: &World, backend: usize, handle: &str) {
    const SETTLE_UNGUARDED: i64 = 30_000_000;
    let now = world.store_now().micros();
    let elapsed = world.elapsed();
    let mut model = world.model();
    let created = model.created(backend, handle);
    let unguarded = world.plan.backends.get(backend) == Some(&Style::Provider);
    if let Some(tracked) = model.named_mut(backend, handle) {
        if tracked.row.phase >= Phase::Revoking {
            world.saw(Moment::CreateAfterCondemned);
        }
        if tracked.copied == Copied::Gone {
            tracked.beyond = Some(("lost with its row", elapsed));
        } else if tracked.created > 1 {
            tracked.beyond = Some(("created twice", elapsed));
        } else if unguarded && now > tracked.row.mint_deadline + SETTLE_UNGUARDED {
            tracked.beyond = Some(("created too late, and nothing guards", elapsed));
        }
        if tracked.beyond.is_some() {
            world.saw(Moment::CreateBeyondBound);
            let row = &tracked.row;
            world.event("beyond", [0, 0], || format!("{} {:?}", row.id, row.phase));
        }
    }
    drop(model);
    if let Err(what) = created {
        world.violated(what);
    }
}

/// A backend is ending `handle`.
pub fn revoked(world: &World, backend: usize, handle: &str) {
    let model = world.model();
    // What nobody has yet may be ended before its row says so: a mint that could not be
    // recorded, while the store does not answer.
    let held =
        |tracked: &Tracked| tracked.row.phase < Phase::Revoking && tracked.promised.is_some();
    let early = model.named(backend, handle).is_some_and(held);
    drop(model);
    if early {
        world.violated(format!("I4: {handle} is being revoked and its row says nothing of it"));
    }
}
