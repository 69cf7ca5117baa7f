//! A run from its beginning to its end: load and faults, then calm, then the reckoning.
//!
//! Invariant: nothing is reckoned before everything is mended and Dayfly says that it owes
//! nothing, or has had its time for that.

mod records;

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};

use crate::{
    Wanted,
    health::{Health, now},
    judge::Judge,
    ledger::Ledger,
    load::{Shared, Worker},
    login::Door,
    plan,
    plant::Gardener,
    points::Rota,
    report::{self, Outcome},
    world::World,
};
pub(crate) use records::{LeaseRow, Records};

const CLIENTS: u64 = 24;
/// After the last fault Dayfly has this long to pay what it owes.
const PAID_WITHIN: Duration = Duration::from_mins(2);

/// Runs; whether everything that must be zero was zero.
pub(crate) async fn run(wanted: Wanted) -> anyhow::Result<bool> {
    let (world, issuer) = World::start(wanted.embedded).await;
    let world = Arc::new(world);
    let ledger = Arc::new(Ledger::default());
    let door = Door(Arc::new(world.replicas.iter().map(|r| r.client.clone()).collect()));
    let health = Arc::clone(&world.health);
    let judge =
        Judge { ledger: Arc::clone(&ledger), health: Arc::clone(&health), door: door.clone() };
    let gardener = Gardener::new(Arc::clone(&world), wanted.plant);
    let shared = Arc::new(Shared::new(Arc::clone(&ledger), door, issuer, gardener));

    let (stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let worker = Worker::new(Arc::clone(&shared), wanted.seed, number);
        clients.spawn(worker.work(stopped.clone()));
    }
    let mut sitting = JoinSet::new();
    sitting.spawn(judge.clone().sit());
    let mut breaking = JoinSet::new();
    breaking.spawn(plan::carry_on(Arc::clone(&world), wanted));
    let mut progress = tokio::time::interval(Duration::from_secs(30));
    let rota = loop {
        tokio::select! {
            rota = breaking.join_next() => break rota.unwrap()?,
            ended = clients.join_next() => {
                // A client ends when it is told to; before that it has met with a surprise.
                ended.unwrap()?;
                anyhow::bail!("a client ended");
            }
            ended = sitting.join_next() => anyhow::bail!("the judge left: {ended:?}"),
            _ = progress.tick() => report::progress(&health, &ledger),
        }
    };
    stop.send_replace(true);
    while let Some(ended) = clients.join_next().await {
        ended?;
    }
    let records = Records::new(Arc::clone(&world));
    let owed = pay_off(&health, &records).await;
    sitting.shutdown().await;
    if wanted.plant {
        shared.gardener.leave_an_orphan();
    }
    reckon(&world, &records, &judge, owed).await;
    let leases = records.leases();
    let audit_verified = verify_audit(&world, &ledger).await;
    let outcome = Outcome {
        wanted,
        world: &world,
        ledger: &ledger,
        rota: &rota,
        leases: &leases,
        audit_verified,
    };
    Ok(outcome.close(&records))
}

/// Waits until the store holds no lease that may live; gives how many are left.
async fn pay_off(health: &Health, records: &Records) -> u64 {
    eprintln!("{:8.1}s  the clients are done; waiting for what is owed", health.since_start(now()));
    let until = now() + i64::try_from(PAID_WITHIN.as_micros()).unwrap_or(i64::MAX);
    loop {
        let owed = records.owed();
        if owed == 0 || now() > until {
            eprintln!("{:8.1}s  owed: {owed}", health.since_start(now()));
            return owed;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What is left, and who still gets in.
async fn reckon(world: &World, records: &Records, judge: &Judge, owed: u64) {
    let ledger = &judge.ledger;
    if owed > 0 {
        for row in records.leases().into_iter().filter(LeaseRow::may_live) {
            let what = format!("it is still {} after {PAID_WITHIN:?} of calm", row.state);
            ledger.book().violate_unknown("owed", row.handle, what);
        }
    }
    let tried = judge.all().await;
    eprintln!("{:8.1}s  tried {tried} credentials again", judge.health.since_start(now()));
    for (handle, what) in records.left_at_backends() {
        ledger.book().violate_unknown("orphan", handle, what);
    }
    for replica in &world.replicas {
        if !replica.lock().await.is_running() {
            let what = format!("{} has ended by itself", replica.name);
            ledger.book().violate_unknown("ended", String::new(), what);
        }
    }
}

async fn verify_audit(world: &World, ledger: &Ledger) -> bool {
    let verified = world.replicas[0].lock().await.command(&["audit", "verify"]);
    if !verified.status.success() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let what = format!("{}{}", text(&verified.stdout), text(&verified.stderr));
        ledger.book().violate_unknown("audit", String::new(), what);
    }
    verified.status.success()
}

/// What the report says of failpoints.
pub(crate) fn failpoints(rota: &Rota) -> serde_json::Value {
    serde_json::json!({ "visited": rota.visited(), "total": Rota::total() })
}
