//! Mints at a steady pace, each when its time has come, whatever became of those before.
//!
//! Invariant: a slow answer holds up no other mint, so that waiting in a line is measured too.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use dayfly_integration::{Broker, Client};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    measure::{ms, watch},
    served::open_task,
};

/// What is minted, and how often.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) role: &'static str,
    pub(super) ttl_seconds: u32,
    pub(super) per_second: u32,
}

/// What became of the mints.
pub(super) struct Mints {
    /// Milliseconds until each answer.
    pub(super) took: Vec<f64>,
    pub(super) refused: usize,
}

const TASKS: usize = 8;

/// Mints for `length`, or until `done`.
pub(super) async fn mint(
    broker: &Broker,
    pace: Pace,
    length: Duration,
    done: &AtomicBool,
) -> anyhow::Result<Mints> {
    let mut tasks = Vec::new();
    for _ in 0..TASKS {
        tasks.push(open_task(broker).await.1);
    }
    let started = watch();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / pace.per_second);
    let mut minting = JoinSet::new();
    for task in tasks.iter().cycle() {
        tick.tick().await;
        if started.elapsed() >= length || done.load(Ordering::Relaxed) {
            break;
        }
        minting.spawn(one(task.clone(), pace));
    }
    let mut mints = Mints { took: Vec::new(), refused: 0 };
    let mut last = 0;
    while let Some(minted) = minting.join_next().await {
        let (took, status) = minted?;
        mints.took.push(took);
        if status != 201 {
            mints.refused += 1;
            last = status;
        }
    }
    if mints.refused > 0 {
        eprintln!("   {} mints were refused, the last one with {last}", mints.refused);
    }
    Ok(mints)
}

async fn one(task: Client, pace: Pace) -> (f64, u16) {
    let body = json!({ "role": pace.role, "ttl_seconds": pace.ttl_seconds });
    let started = watch();
    let status = task.post("/api/v1/leases", body).await.status;
    (ms(started.elapsed()), status)
}
