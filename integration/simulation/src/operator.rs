//! The operator: keeps copies of the store, puts one back in its place, and recovers.
//!
//! Invariant: between the two nothing is promised; from the recovery on everything is again.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use dayfly_backend_sdk::{Expiry, Timestamp};
use dayfly_lease::{Engine, LeaseId, Survey, SurveyError, TaskId, TaskState, Write, spawn};

use crate::{
    coverage::Moment,
    model::Tracked,
    process::Process,
    replica::{self, Fleet},
    watch::{backend_name, row_of},
    world::{Target, World},
};

/// Takes a copy of the store, or puts the one that was taken in its place: the servers are
/// stopped for it, or a standby is promoted that lags behind.
pub fn restore(world: &Arc<World>, fleet: &Arc<Fleet>) {
    if world.is_lost() || world.is_healed() {
        return;
    }
    if !world.truth().has_copy() || world.dice.chance(3_000) {
        world.truth().keep_copy();
        world.event("copy", [0, 0], String::new);
        return;
    }
    let stopped = world.dice.chance(7_000);
    if stopped {
        (0..world.plan.replicas).for_each(|index| fleet.kill(index));
    }
    world.restart(Target::Store);
    if !world.truth().restore_copy() {
        return;
    }
    let first = !world.has_lost();
    world.set_lost(true);
    world.saw(Moment::Restored);
    world.event("restore", [u64::from(stopped), 0], String::new);
    let rows = world.truth().leases().iter().map(row_of).collect();
    let ids: Vec<TaskId> = world.model().tasks.keys().copied().collect();
    let task = |id| Some((id, world.truth().task(id)?.state != TaskState::Open));
    let tasks: Vec<_> = ids.into_iter().filter_map(task).collect();
    let elapsed = world.elapsed();
    let keeps = |tracked: &Tracked| stopped.then(|| keeps(world, tracked)).flatten();
    world.model().restored(rows, &tasks, elapsed, keeps);
    let (world, fleet) = (Arc::clone(world), Arc::clone(fleet));
    drop(spawn(async move {
        tokio::time::sleep(world.dice.millis(0, 5_000)).await;
        for index in (0..world.plan.replicas).filter(|_| stopped) {
            if !fleet.runs(index) {
                fleet.start(index);
            }
        }
        // One operator is enough; he looks again and again.
        if first {
            operate(world).await;
        }
    }));
}

/// A holder was promised so much, its backend knows of it, and every replica that starts can
/// see that the store is behind before it believes a row.
fn keeps(world: &World, tracked: &Tracked) -> Option<i64> {
    let (backend, faults) = (tracked.row.backend, &world.plan.faults);
    let site = world.sites.get(backend)?;
    let behind = site.marker()?.turn > world.truth().turn(&backend_name(backend));
    // A renewal that is late or repeated may move the backend's own expiry back.
    let moved = tracked.renewals > 0 && (faults.late > 0 || faults.twice > 0);
    let Expiry::Native { slack, .. } = site.capabilities.expiry else { return None };
    let until = site.native(&tracked.row.handle)?.minus(slack).micros();
    tracked.promised.map(|promised| promised.min(until)).filter(|_| behind && !moved)
}

/// Recovers whenever that is necessary, until the run is over.
async fn operate(world: Arc<World>) {
    loop {
        // Some take their time.
        let most = world.dice.pick(&[40, 40, 400], 40);
        tokio::time::sleep(world.dice.seconds(1, most)).await;
        if world.truth().is_suspended() {
            world.set_lost(true);
        }
        if world.is_lost() {
            recover_once(&world).await;
        }
    }
}

/// Runs the command once. It may be killed at any point.
async fn recover_once(world: &Arc<World>) {
    let process = Process::start(world, world.plan.replicas);
    let Some(engine) = replica::engine(world, &process) else { return };
    let killed = world.dice.chance(2_000);
    let lasts = if killed { world.dice.millis(0, 10_000) } else { Duration::from_mins(30) };
    // What happens to the store from here on is not what was compared.
    let begun = world.incarnation(Target::Store);
    let ended = tokio::time::timeout(lasts, recover(world, &engine)).await;
    process.kill();
    match ended {
        Ok(Ok(true)) if world.incarnation(Target::Store) == begun => {
            world.set_lost(false);
            let elapsed = world.elapsed();
            world.model().recovered(elapsed);
            world.noise_everywhere(Duration::ZERO);
            world.saw(Moment::Recovered);
            world.event("recovered", [0, 0], String::new);
        }
        Ok(Ok(resumed)) => world.event("not recovered", [u64::from(resumed), 0], String::new),
        Ok(Err(error)) => world.event("not recovered", [0, 1], || error.to_string()),
        Err(_) => world.event("recovery killed", [0, 0], String::new),
    }
}

/// What `dayfly-server recover --yes` does: pause, compare, mend, compare again, resume.
async fn recover(world: &World, engine: &Engine) -> Result<bool, SurveyError> {
    const ROUNDS_MAX: u32 = 3;
    let reason = "recover was started".to_owned();
    engine.store().write(Write::Suspend { reason }).await?;
    let mut before = surveys(engine).await?;
    let mut same: BTreeSet<_> = longer(&before).collect();
    for _ in 0..ROUNDS_MAX {
        for (name, survey) in &before {
            match engine.reconcile(name, survey, "operator").await {
                Err(SurveyError::Store(error)) if error.refusal().is_some() => {}
                Err(SurveyError::Alive(_)) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        let after = surveys(engine).await?;
        same.retain(|one| longer(&after).any(|other| other == *one));
        before = after;
        if before.iter().all(|(_, survey)| agrees(survey)) {
            let turns = before.into_iter().map(|(name, survey)| (name, survey.turn));
            engine.resume("operator", turns.collect()).await?;
            return Ok(true);
        }
    }
    if let Some((id, until)) = same.first() {
        world.violated(format!("a recovery does not lengthen {id} until {until:?}"));
    }
    Ok(false)
}

fn longer(surveys: &[(String, Survey)]) -> impl Iterator<Item = (LeaseId, Timestamp)> {
    surveys.iter().flat_map(|(_, survey)| survey.longer.iter().copied())
}

async fn surveys(engine: &Engine) -> Result<Vec<(String, Survey)>, SurveyError> {
    let mut surveys = Vec::new();
    for name in engine.backends() {
        surveys.push((name.to_owned(), steady(engine, name).await?));
    }
    Ok(surveys)
}

/// Without what only looked wrong because something was under way.
async fn steady(engine: &Engine, name: &str) -> Result<Survey, SurveyError> {
    const LOOK_AGAIN: Duration = Duration::from_secs(2);
    let first = engine.survey(name).await?;
    if first.missing.is_empty() && first.dead.is_empty() {
        return Ok(first);
    }
    engine.clock().sleep(LOOK_AGAIN).await;
    let mut second = engine.survey(name).await?;
    second.missing.retain(|id| first.missing.contains(id));
    second.dead.retain(|handle| first.dead.contains(handle));
    Ok(second)
}

fn agrees(survey: &Survey) -> bool {
    survey.longer.is_empty() && survey.unknown.is_empty() && survey.dead.is_empty()
}
