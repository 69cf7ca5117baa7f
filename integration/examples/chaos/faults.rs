//! The faults, each with its end.
//!
//! Invariant: what was broken is mended when the future ends, and the health knows of every
//! moment in between.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use dayfly_integration::Broker;
use tokio::task::block_in_place;

use crate::{
    points::{Action, Arm, Rota, is_at_the_end},
    rng::Rng,
    world::{Replica, World, ended, up},
};

/// Something to break.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    BackendCrash,
    DiskFull,
    Kill(usize),
    Stop(usize),
    StoreCrash,
    Terminate(usize),
    Wire(usize, Hop, How),
}

/// The server at the other end of a wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hop {
    Backend,
    Store,
}

/// What a wire does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    DropAnswers,
    HalfClose,
    Reset,
    Stall,
}

/// A broker is ready again within this once everything that it needs is there.
const UP_WITHIN: Duration = Duration::from_secs(90);
/// A broker that was told to stop has this long for what is under way.
const STOP_WITHIN: Duration = Duration::from_mins(1);

/// Breaks it and mends it.
pub(crate) async fn carry_out(world: &World, fault: &Fault, rng: &mut Rng) {
    match *fault {
        Fault::BackendCrash => {
            world.count("backend_crash");
            let trouble = world.health.begin("the backend's PostgreSQL crashes");
            block_in_place(|| world.backend.crash());
            tokio::time::sleep(rng.millis(500, 12_000)).await;
            block_in_place(|| world.backend.resume());
            world.health.end(trouble);
        }
        Fault::StoreCrash => {
            let Some(store) = &world.store else { return };
            world.count("store_crash");
            let trouble = world.health.begin("the store's PostgreSQL crashes");
            block_in_place(|| store.crash());
            tokio::time::sleep(rng.millis(500, 12_000)).await;
            block_in_place(|| store.resume());
            world.health.end(trouble);
        }
        Fault::DiskFull => disk_full(world, rng).await,
        Fault::Kill(replica) => kill(world, &world.replicas[replica], rng).await,
        Fault::Stop(replica) => stop(world, &world.replicas[replica], rng).await,
        Fault::Terminate(replica) => terminate(world, &world.replicas[replica]).await,
        Fault::Wire(replica, hop, how) => {
            wire(world, &world.replicas[replica], hop, how, rng).await;
        }
    }
}

async fn disk_full(world: &World, rng: &mut Rng) {
    let Some(disk) = &world.disk else { return };
    if !disk.is_small() {
        return world.count("disk_full_not_run");
    }
    world.count("disk_full");
    let trouble = world.health.begin("the store's disk is full");
    block_in_place(|| disk.fill());
    tokio::time::sleep(rng.millis(3_000, 12_000)).await;
    block_in_place(|| disk.free());
    world.health.end(trouble);
}

async fn kill(world: &World, replica: &Replica, rng: &mut Rng) {
    let mut broker = replica.lock().await;
    world.count("kill");
    let trouble = world.health.begin(format!("kill -9 of {}", replica.name));
    broker.kill();
    world.killed();
    tokio::time::sleep(rng.millis(0, 3_000)).await;
    must_be_up(replica, &mut broker).await;
    world.health.end(trouble);
}

async fn terminate(world: &World, replica: &Replica) {
    let mut broker = replica.lock().await;
    world.count("terminate");
    let trouble = world.health.begin(format!("SIGTERM to {}", replica.name));
    broker.signal("TERM");
    let status = ended(&mut broker, STOP_WITHIN).await;
    if !status.is_some_and(|status| status.success()) {
        world.count("terminate_failed");
        eprintln!("{} did not stop in good order: {status:?}", replica.name);
    }
    broker.kill();
    must_be_up(replica, &mut broker).await;
    world.health.end(trouble);
}

/// For longer than its claims last.
async fn stop(world: &World, replica: &Replica, rng: &mut Rng) {
    let broker = replica.lock().await;
    world.count("stop");
    let trouble = world.health.begin(format!("SIGSTOP of {}", replica.name));
    broker.signal("STOP");
    tokio::time::sleep(rng.millis(35_000, 45_000)).await;
    broker.signal("CONT");
    world.health.end(trouble);
}

async fn wire(world: &World, replica: &Replica, hop: Hop, how: How, rng: &mut Rng) {
    let (wire, to) = match hop {
        Hop::Backend => (Some(&replica.to_backend), "backend"),
        Hop::Store => (replica.to_store.as_ref(), "store"),
    };
    let Some(wire) = wire else { return };
    let name = match how {
        How::DropAnswers => "drop_answers",
        How::HalfClose => "half_close",
        How::Reset => "reset",
        How::Stall => "stall",
    };
    world.count(&format!("wire_{to}_{name}"));
    let trouble = world.health.begin(format!("{name} between {} and the {to}", replica.name));
    match how {
        How::DropAnswers => wire.drop_answers(),
        How::HalfClose => wire.half_close(),
        How::Reset => wire.reset(),
        How::Stall => wire.stall(),
    }
    tokio::time::sleep(rng.millis(500, 12_000)).await;
    wire.release();
    world.health.end(trouble);
}

/// Restarts a broker with the next failpoints armed, and again without them. `left` is how long
/// all of them have.
pub(crate) async fn failpoints(
    world: &World,
    replica: usize,
    rota: &mut Rota,
    rng: &mut Rng,
    left: Duration,
) {
    let replica = &world.replicas[replica];
    let mut broker = replica.lock().await;
    let arms = rota.next(left);
    let text = arms.iter().map(|arm| arm.text.as_str()).collect::<Vec<_>>().join(";");
    world.count("failpoint");
    let trouble = world.health.begin(format!("{} with {text}", replica.name));
    let log_before = broker.log_length();
    broker.kill();
    world.killed();
    broker.arm(&text);
    broker.spawn();
    let status = all_reached(&mut broker, &arms, log_before, rng.millis(6_000, 10_000)).await;
    let log = broker.log_after(log_before);
    for arm in &arms {
        if !reached(&log, arm) {
            world.count("failpoint_not_reached");
            continue;
        }
        rota.reached(arm);
        if arm.action == Action::Abort {
            let signal = status.and_then(|status| status.signal());
            assert_eq!(signal, Some(6), "{text}: it aborted");
        }
    }
    broker.kill();
    world.killed();
    broker.disarm();
    must_be_up(replica, &mut broker).await;
    world.health.end(trouble);
}

/// Waits until all were reached, and a while longer; or until the broker died of it.
async fn all_reached(
    broker: &mut Broker,
    arms: &[Arm],
    log_before: u64,
    window: Duration,
) -> Option<ExitStatus> {
    for part in 0..20 {
        if part == 10 && arms.iter().any(is_at_the_end) {
            broker.signal("TERM");
        }
        let status = ended(broker, window / 20).await;
        if status.is_some() {
            return status;
        }
        let log = broker.log_after(log_before);
        if arms.iter().all(|arm| reached(&log, arm)) {
            return ended(broker, Duration::from_secs(2)).await;
        }
    }
    None
}

fn reached(log: &str, arm: &Arm) -> bool {
    log.lines().any(|line| line.contains("failpoint.reached") && line.contains(arm.point))
}

async fn must_be_up(replica: &Replica, broker: &mut Broker) {
    assert!(
        up(broker, UP_WITHIN).await,
        "{} does not come back:\n{}",
        replica.name,
        tail(&broker.log())
    );
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
