//! What must hold at every moment, and what must hold at the end.
//!
//! Invariant: a bound counts only in calm: since the last fault that concerns the lease, plus
//! one step of back-off. Everything else counts always.

use std::{sync::Arc, time::Duration};

use dayfly_lease::{TaskId, audit::ChainVerifier};

use crate::{
    backend::VISIBLE_MAX,
    coverage::Moment,
    model::{Phase, Tracked},
    plan::Style,
    world::World,
};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(2);

/// Looks again and again until the run is over.
pub async fn watch(world: Arc<World>) {
    loop {
        tokio::time::sleep(EVERY).await;
        look(&world);
    }
}

/// Looks once.
pub fn look(world: &World) {
    // A pause that was asked for before a recovery may come after it, and lasts until somebody
    // looks again.
    if world.is_lost() || world.truth().is_suspended() {
        return;
    }
    let now = world.store_now().micros();
    orphans(world);
    over(world);
    let model = world.model();
    for tracked in model.leases.values() {
        if tracked.row.phase == Phase::Active {
            must_work(world, tracked, now);
            must_end(world, tracked);
        }
        if tracked.row.phase < Phase::Revoked {
            on_time(world, tracked, now);
        }
    }
}

/// Somebody was told that the end of `job` was taken: from here on nothing of it is open.
pub fn job_is_over(world: &World, job: &str) {
    world.model().over.insert(job.to_owned());
    over(world);
}

/// What is of a job that is over is closed, and all its leases are told to die (I5). That they
/// do, the bounds of every other lease see to.
fn over(world: &World) {
    let model = world.model();
    for job in &model.over {
        if let Some(task) = model.open_in(job).next() {
            world.violated(format!("I5: {task} is open, and its job {job} is over"));
        }
        let of_job = |task: &TaskId| model.jobs.get(task).is_some_and(|jobs| jobs.contains(job));
        let lives = |tracked: &&Tracked| {
            // A row that could not be read then is told to die when it is mended, or by time.
            let readable = !tracked.bad && tracked.own_trouble.is_zero();
            tracked.row.phase < Phase::Revoking && readable && of_job(&tracked.row.task)
        };
        if let Some(tracked) = model.leases.values().find(lives) {
            world.violated(format!("I5: {} lives, and its job {job} is over", tracked.row.id));
        }
    }
}

/// Whatever can be used has a row that is not dead (I1, I2, I5).
fn orphans(world: &World) {
    for (index, site) in world.sites.iter().enumerate() {
        for name in site.usable(world) {
            let model = world.model();
            let Some(tracked) = model.named(index, &name) else {
                world.violated(format!("I1: {name} can be used and no row knows it"));
                continue;
            };
            if tracked.row.phase == Phase::Revoked {
                must_be_swept(world, tracked);
            }
            let native = site.native(&name).map(dayfly_backend_sdk::Timestamp::micros);
            let most = tracked.row.max_expires_at + SLACK_MAX;
            if native.is_some_and(|native| native > most) {
                world.violated(format!("I2: {} outgrows its maximum", tracked.row.id));
            }
        }
    }
}

/// A dead lease's credential can be used only where nothing guards, and until the sweep.
fn must_be_swept(world: &World, tracked: &Tracked) {
    let id = tracked.row.id;
    let Some((why, since)) = tracked.beyond else {
        return world.violated(format!("I2: {id} is dead and can be used"));
    };
    let settings = &world.plan.settings;
    let turns = settings.sweep_every * 3 + settings.sweep_grace + settings.revoke_within;
    let bound = turns + VISIBLE_MAX * 2 + Duration::from_mins(1) + slow(world);
    let waited = world.elapsed().saturating_sub(since).min(world.calm(tracked.row.backend));
    if waited > bound {
        world.violated(format!("sweep: {id} was {why}, and is not swept after {bound:?}"));
    }
}

const SLACK_MAX: i64 = 5_000_000;

/// What was promised to its holder works.
fn must_work(world: &World, tracked: &Tracked, now: i64) {
    /// Clocks may be so far apart.
    const APART: i64 = 5_000_000;
    let row = &tracked.row;
    let Some(promised) = tracked.promised else { return };
    let faults = &world.plan.faults;
    // A renewal that is late or repeated may move the backend's own expiry back.
    if tracked.renewals > 0 && (faults.late > 0 || faults.twice > 0) {
        return;
    }
    let until = promised.min(row.expires_at);
    let works = world.sites.get(row.backend).is_some_and(|site| site.accepts(world, &row.handle));
    if now + APART < until && !works {
        world.violated(format!("{} was promised for longer and does not work", row.id));
    }
}

/// What could not be handed over is condemned at once, by whoever could not.
fn must_end(world: &World, tracked: &Tracked) {
    const AT_ONCE: Duration = Duration::from_secs(2);
    let Some(refused_at) = tracked.refused_at else { return };
    let since = world.elapsed().saturating_sub(refused_at);
    if since > AT_ONCE + slow(world) && world.calm(tracked.row.backend) > since && !tracked.bad {
        world.violated(format!("{} was not handed over and is active", tracked.row.id));
    }
}

fn on_time(world: &World, tracked: &Tracked, now: i64) {
    let row = &tracked.row;
    if tracked.bad || tracked.beyond.is_some() {
        return;
    }
    let own = world.elapsed().saturating_sub(tracked.own_trouble);
    let calm = world.calm(row.backend).min(own);
    let bound = bound(world, tracked);
    let late = |due: i64| Duration::from_micros(u64::try_from(now - due).unwrap_or(0)).min(calm);
    if late(row.due()).is_zero() {
        return;
    }
    world.saw(Moment::DebtChecked);
    let usable = world.sites.get(row.backend).is_some_and(|s| s.is_usable(world, &row.handle));
    if usable && late(row.due()) > bound {
        let late = late(row.due()).as_secs();
        world.violated(format!(
            "I2: {} can be used {late} s after its end, bound {bound:?}",
            row.id
        ));
    }
    let settled = row.due().max(row.settle_at.unwrap_or(i64::MIN));
    if late(settled) > bound {
        let late = late(settled).as_secs();
        world.violated(format!("I7: {} is owed since {late} s, bound {bound:?}: {row:?}", row.id));
    }
}

/// How long a death may take when nothing goes wrong any more: another replica's claim runs
/// out, the reaper looks, it works, and whatever had failed before waits one step longer.
fn bound(world: &World, tracked: &Tracked) -> Duration {
    const MARGIN: Duration = Duration::from_secs(20);
    /// A circuit breaker's longest wait, and a probe that fails because of what came before.
    const BREAKER: Duration = Duration::from_secs(40);
    let settings = &world.plan.settings;
    let provider = world.plan.backends.get(tracked.row.backend) == Some(&Style::Provider);
    let attempts = tracked.row.attempts.saturating_add(1).min(16);
    // A permanent error waits eight times as long; two failures may follow one another.
    let step = settings.backoff_first.saturating_mul(8).saturating_mul(1 << attempts);
    let step = step.min(settings.backoff_max).saturating_mul(6) / 5;
    let backoff = if tracked.row.attempts > 0 || provider { step } else { Duration::ZERO };
    let visible = if provider { VISIBLE_MAX * 3 } else { Duration::ZERO };
    let reaped = settings.poll_max + settings.claim_hold + settings.revoke_within;
    reaped + BREAKER + backoff + visible + MARGIN + slow(world)
}

/// What the way there and back takes for all that a death needs.
fn slow(world: &World) -> Duration {
    let millis = 6 * world.plan.store_takes + 4 * world.plan.backend_takes;
    Duration::from_millis(millis)
}

/// Whether nothing is owed and nothing is on its way.
pub fn is_quiet(world: &World) -> bool {
    let usable = world.sites.iter().any(|site| !site.usable(world).is_empty());
    let now = world.store_now().micros();
    let model = world.model();
    let owed = model.leases.values().any(|tracked| tracked.row.phase < Phase::Revoked);
    let open = model.tasks.iter().any(|(id, ends)| *ends > now && !model.closed.contains(id));
    let due = model.tasks.keys().any(|id| !model.closed.contains(id));
    !world.is_lost() && !usable && !owed && !open && !due && world.in_flight() == 0
}

/// The end: all debts are paid, no job that is over has anything open, and the audit log holds.
pub fn at_the_end(world: &World) {
    if !world.is_lost() {
        over(world);
    }
    if !is_quiet(world) && world.failure().is_none() {
        let model = world.model();
        let owed: Vec<_> = model
            .leases
            .values()
            .filter(|tracked| tracked.row.phase < Phase::Revoked)
            .map(|tracked| format!("{:?}", tracked.row))
            .collect();
        let tasks = model.tasks.keys().filter(|id| !model.closed.contains(id)).count();
        let in_flight = world.in_flight();
        drop(model);
        world.violated(format!(
            "I7: not quiet at the end: {} leases owed, {tasks} tasks open, {in_flight} messages: {owed:?}",
            owed.len()
        ));
    }
    let truth = world.truth();
    for (chain, records) in truth.chains() {
        let mut verifier = ChainVerifier::new(chain, truth.public_key(), Vec::new());
        for record in &records {
            if let Err(fault) = verifier.record(record) {
                world.violated(format!("audit: {fault}"));
                break;
            }
        }
    }
}
