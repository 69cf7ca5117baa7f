//! How many mints a second, beside the bare `CREATE ROLE` over as many connections. For
//! information: most of it is the server's own hashing (4,096 iterations) or its disk.
//!
//! Invariant: each side has the machine to itself while it is measured.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use dayfly_integration::{Broker, Postgres};
use tokio::task::JoinSet;

use crate::{
    measure::{median, watch},
    mint::{self, Bare, VARIANTS, verifier},
    report::Report,
    served::open_task,
};

const CLIENTS: [usize; 3] = [1, 8, 32];
const ROUNDS: usize = 3;
const SLICE: Duration = Duration::from_secs(2);

pub(crate) async fn measure(
    report: &mut Report,
    postgres: &Postgres,
    broker: &Broker,
) -> anyhow::Result<()> {
    for (iterations, role) in VARIANTS {
        for clients in CLIENTS {
            let (mut mints, mut bares) = (Vec::new(), Vec::new());
            for round in 0..ROUNDS {
                mints.push(minted(broker, role, clients).await?);
                // What follows the last answers is not the other side's to wait for.
                tokio::time::sleep(Duration::from_millis(200)).await;
                let prefix = format!("many_{iterations}_{clients}_{round}_");
                bares.push(created(postgres, &prefix, iterations, clients).await?);
            }
            let (mint, bare) = (median(&mints), median(&bares));
            let key = |what: &str| format!("throughput.scram_{iterations}.c{clients}.{what}");
            let text =
                |what: &str| format!("{what}, {clients} at once, {iterations} SCRAM iteration(s)");
            report.note(&key("mints"), &text("mints"), mint, "/s");
            report.note(&key("create_roles"), &text("bare CREATE ROLE"), bare, "/s");
        }
    }
    Ok(())
}

/// Mints a second by so many clients, each with a task of its own.
async fn minted(broker: &Broker, role: &'static str, clients: usize) -> anyhow::Result<f64> {
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let (_, task) = open_task(broker).await;
        // Its connection is made before the watch starts.
        ensure!(task.get("/readyz").await.is_some_and(|answer| answer.status == 200), "not ready");
        tasks.push(task);
    }
    let mut working = JoinSet::new();
    let started = watch();
    for task in tasks {
        working.spawn(async move {
            let mut done = 0_u32;
            while started.elapsed() < SLICE {
                let status = mint::mint(&task, role).await;
                ensure!(status == 201, "a mint of `{role}` was answered with {status}");
                done += 1;
            }
            Ok(done)
        });
    }
    total(working, started).await
}

/// Roles a second over so many connections.
async fn created(
    postgres: &Postgres,
    prefix: &str,
    iterations: u32,
    clients: usize,
) -> anyhow::Result<f64> {
    let mut connections = Vec::new();
    for client in 0..clients {
        connections.push(Bare::connect(postgres, format!("{prefix}{client}_")).await?);
    }
    let verifier: Arc<str> = verifier(iterations).into();
    let mut working = JoinSet::new();
    let started = watch();
    for mut bare in connections {
        let verifier = Arc::clone(&verifier);
        working.spawn(async move {
            let mut done = 0_u32;
            while started.elapsed() < SLICE {
                bare.create_role(&verifier).await?;
                done += 1;
            }
            Ok(done)
        });
    }
    total(working, started).await
}

async fn total(
    mut working: JoinSet<anyhow::Result<u32>>,
    started: std::time::Instant,
) -> anyhow::Result<f64> {
    let mut sum = 0;
    while let Some(done) = working.join_next().await {
        sum += done??;
    }
    Ok(f64::from(sum) / started.elapsed().as_secs_f64())
}
