//! What breaks, and when.
//!
//! Invariant: it breaks only what the plan says, and nothing after the world was healed.

use std::{sync::Arc, time::Duration};

use dayfly_lease::spawn;

use crate::{
    coverage::Moment,
    model::Phase,
    operator,
    plan::StoreKind,
    replica::Fleet,
    watch::row_of,
    world::{Target, World},
};

/// Starts every fault that the plan has.
pub fn unleash(world: &Arc<World>, fleet: &Arc<Fleet>) {
    let faults = &world.plan.faults;
    let each: [(Option<Duration>, Strike); 10] = [
        (faults.crash, crash),
        (faults.pause, pause),
        (faults.partition, partition),
        (faults.store_outage, store_outage),
        (faults.store_crash, store_crash),
        (faults.store_restore, operator::restore),
        (faults.backend_outage, backend_outage),
        (faults.backend_restart, backend_restart),
        (faults.clock_step, clock_step),
        (faults.bad_row, bad_row),
    ];
    for (apart, strike) in each {
        if let Some(apart) = apart {
            drop(spawn(again(Arc::clone(world), Arc::clone(fleet), apart, strike)));
        }
    }
    drop(spawn(weather(Arc::clone(world))));
}

type Strike = fn(&Arc<World>, &Arc<Fleet>);

async fn again(world: Arc<World>, fleet: Arc<Fleet>, apart: Duration, strike: Strike) {
    loop {
        tokio::time::sleep(world.dice.between(apart / 4, apart * 2)).await;
        if world.is_healed() {
            return;
        }
        if world.is_stormy() {
            strike(&world, &fleet);
        }
    }
}

/// Storms come and go, so that bounds are looked at in between.
async fn weather(world: Arc<World>) {
    while !world.is_healed() {
        tokio::time::sleep(world.dice.seconds(20, 150)).await;
        world.set_storm(false);
        tokio::time::sleep(world.dice.seconds(30, 250)).await;
        world.set_storm(true);
    }
}

fn crash(world: &Arc<World>, fleet: &Arc<Fleet>) {
    let index = world.dice.index(world.plan.replicas);
    if world.dice.chance(2_000) {
        fleet.shut_down(index);
    } else {
        fleet.kill(index);
    }
    let rests = world.dice.millis(10, 30_000);
    world.noise_everywhere(rests);
    let (world, fleet) = (Arc::clone(world), Arc::clone(fleet));
    drop(spawn(async move {
        tokio::time::sleep(rests).await;
        if !world.is_healed() && !fleet.runs(index) {
            fleet.start(index);
            world.noise_everywhere(Duration::ZERO);
        }
    }));
}

fn pause(world: &Arc<World>, fleet: &Arc<Fleet>) {
    let lasts = world.dice.seconds(1, 120);
    world.noise_everywhere(lasts);
    fleet.stop(world.dice.index(world.plan.replicas), lasts);
}

fn any_target(world: &World) -> Target {
    match world.dice.index(world.sites.len() + 1) {
        0 => Target::Store,
        place => Target::Backend(place - 1),
    }
}

fn any_backend(world: &World) -> Target {
    Target::Backend(world.dice.index(world.sites.len()))
}

fn partition(world: &Arc<World>, _fleet: &Arc<Fleet>) {
    let replica = world.dice.index(world.plan.replicas);
    world.cut(replica, any_target(world), world.dice.seconds(1, 120));
    world.event("partition", [replica as u64, 0], String::new);
}

fn store_outage(world: &Arc<World>, _fleet: &Arc<Fleet>) {
    world.take_away(Target::Store, world.dice.seconds(1, 120));
    world.saw(Moment::StoreOutage);
    world.event("store away", [0, 0], String::new);
}

fn store_crash(world: &Arc<World>, _fleet: &Arc<Fleet>) {
    world.restart(Target::Store);
    world.take_away(Target::Store, world.dice.millis(100, 10_000));
    world.event("store crash", [0, 0], String::new);
    if !world.truth().lose_commits() {
        return;
    }
    world.saw(Moment::CommitsLost);
    let rows = world.truth().leases().iter().map(row_of).collect();
    let lost = world.model().rolled_back(rows);
    match lost {
        Ok(0) => {}
        Ok(_) => world.saw(Moment::ActivationLost),
        Err(what) => world.violated(what),
    }
}

fn backend_outage(world: &Arc<World>, _fleet: &Arc<Fleet>) {
    // Some last for hours: until the end of the run.
    let long = world.dice.chance(1_000);
    let lasts = if long { world.plan.lasts } else { world.dice.seconds(5, 180) };
    world.take_away(any_backend(world), lasts);
    world.saw(Moment::BackendOutage);
    world.event("backend away", [0, 0], || format!("{lasts:?}"));
}

fn backend_restart(world: &Arc<World>, _fleet: &Arc<Fleet>) {
    let target = any_backend(world);
    if let Target::Backend(index) = target
        && let Some(site) = world.sites.get(index)
    {
        site.restart();
        world.restart(target);
        world.take_away(target, world.dice.millis(100, 10_000));
        world.saw(Moment::BackendRestarted);
        world.event("backend restart", [index as u64, 0], String::new);
    }
}

/// The store's clock is set: a little, within what the engine tolerates between the store's
/// clock and a backend's. The embedded store never goes back, so there it may be hours.
fn clock_step(world: &Arc<World>, _fleet: &Arc<Fleet>) {
    const LITTLE: u64 = 2_000_000;
    const HOURS: i64 = 7_200_000_000;
    let little = i64::try_from(world.dice.below(2 * LITTLE)).unwrap_or_default() - 2_000_000;
    let back = world.plan.store == StoreKind::Sqlite && world.dice.chance(3_000);
    world.set_store_offset(if back { little - HOURS } else { little });
    world.saw(Moment::StoreClockStepped);
    world.event("clock", [world.store_offset().cast_unsigned(), 0], String::new);
}

/// A row cannot be read for a while, until somebody mends it.
fn bad_row(world: &Arc<World>, _fleet: &Arc<Fleet>) {
    let living: Vec<_> = {
        let model = world.model();
        let living = model.leases.values().filter(|one| one.row.phase < Phase::Revoked && !one.bad);
        living.map(|tracked| tracked.row.id).collect()
    };
    let Some(id) = living.get(world.dice.index(living.len())).copied() else { return };
    let Some(repair) = world.truth().corrupt(id, world.dice.number()) else { return };
    if let Some(tracked) = world.model().leases.get_mut(&id) {
        tracked.bad = true;
    }
    world.saw(Moment::RowCorrupted);
    world.event("bad row", [0, 0], || format!("{id} {repair:?}"));
    let world = Arc::clone(world);
    drop(spawn(async move {
        let until = world.elapsed() + world.dice.seconds(10, 200);
        while world.elapsed() < until && !world.is_healed() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        world.truth().repair(&repair);
        let elapsed = world.elapsed();
        if let Some(tracked) = world.model().leases.get_mut(&id) {
            tracked.own_trouble = tracked.own_trouble.max(elapsed);
            tracked.bad = false;
        }
        world.saw(Moment::RowRepaired);
    }));
}
