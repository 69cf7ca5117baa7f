//! Leases that are minted and end all the time: how late they die, also beside a backend that
//! accepts connections and never answers.
//!
//! Invariant: with and without the backend that hangs, everything else is the same.

use std::{sync::atomic::AtomicBool, time::Duration};

use anyhow::ensure;
use dayfly_integration::Crowd;
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    DEATH_MS_MAX, MINT_MS_MAX,
    ground::{Ground, now},
    traffic::{Mints, Pace, mint},
};
use crate::{
    measure::{median, percentile},
    report::Report,
    served::load,
};

const ROLE: &str = "well-reader";
const USUAL: Pace = Pace { role: ROLE, ttl_seconds: 5, per_second: 50 };
const USUAL_LENGTH: Duration = Duration::from_mins(1);
const BESIDE: Pace = Pace { role: ROLE, ttl_seconds: 5, per_second: 20 };
const BESIDE_LENGTH: Duration = Duration::from_secs(30);
/// At the backend that hangs.
const STUCK: u32 = 200;
/// The most that the others may be slower, as a share.
const BESIDE_RATIO_MAX: f64 = 1.5;

/// What was measured of mints and of their deaths.
struct Life {
    mints: Mints,
    late: Vec<f64>,
}

pub(super) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let mut ground = Ground::new("").await?;
    let load = load()?;
    ground.broker.resume().await;
    let life = live(&mut ground, USUAL, USUAL_LENGTH).await?;
    let key = |what: &str| format!("deaths.steady.{what}");
    let text = |what: &str| format!("50 mints a second that live for 5 s: {what}");
    tell(report, &key, &text, &life);
    report.note(&key("load"), &text("load before"), load, "");
    Ok(())
}

pub(super) async fn beside_one_that_hangs(report: &mut Report) -> anyhow::Result<()> {
    let load = load()?;
    let mut ground = Ground::new("").await?;
    ground.broker.resume().await;
    let alone = live(&mut ground, BESIDE, BESIDE_LENGTH).await?;
    drop(ground);

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mute = Crowd::backend("mute", "dm_", listener.local_addr()?.port());
    let mut accepting = JoinSet::new();
    accepting.spawn(accept(listener));
    let mut ground = Ground::new(&mute).await?;
    let due = now();
    let stuck = Crowd::new("mute", "dm_", (0..STUCK).map(|_| due));
    ground.fill(&[(&stuck, None)]).await;
    ground.broker.resume().await;
    let beside = live(&mut ground, BESIDE, BESIDE_LENGTH).await?;
    ensure!(
        ground.rows.left("mute", Crowd::ROLE).await? == i64::from(STUCK),
        "what hangs was taken for dead"
    );
    accepting.shutdown().await;

    let key = |what: &str| format!("deaths.alone.{what}");
    let text = |what: &str| format!("20 mints a second, no backend hangs: {what}");
    tell(report, &key, &text, &alone);
    let key = |what: &str| format!("deaths.beside.{what}");
    let text = |what: &str| format!("20 mints a second, another backend hangs: {what}");
    tell(report, &key, &text, &beside);
    let p99 = |of: fn(&Life) -> &Vec<f64>| percentile(of(&beside), 99) / percentile(of(&alone), 99);
    let ratio = (p99(|life| &life.late), "×");
    report.aim(&key("late_ratio"), &text("p99 of deaths to that"), ratio, BESIDE_RATIO_MAX);
    let ratio = (p99(|life| &life.mints.took), "×");
    report.aim(&key("mint_ratio"), &text("p99 of mints to that"), ratio, BESIDE_RATIO_MAX);
    report.note(&key("load"), &text("load before"), load, "");
    Ok(())
}

/// Mints for `length`, and waits for the deaths.
async fn live(ground: &mut Ground, pace: Pace, length: Duration) -> anyhow::Result<Life> {
    let mints = mint(&ground.broker, pace, length, &AtomicBool::new(false)).await?;
    ground.rows.until_none("well", ROLE).await?;
    let late = ground.rows.late("well", ROLE).await?;
    ensure!(late.len() == mints.took.len() - mints.refused, "not every lease expired");
    Ok(Life { mints, late })
}

/// Accepts, reads nothing, answers nothing.
async fn accept(listener: TcpListener) {
    let mut held = Vec::new();
    while let Ok((connection, _)) = listener.accept().await {
        held.push(connection);
    }
}

fn tell(
    report: &mut Report,
    key: &impl Fn(&str) -> String,
    text: &impl Fn(&str) -> String,
    life: &Life,
) {
    let (late, took) = (&life.late, &life.mints.took);
    report.note(&key("late_p50_ms"), &text("deaths late by, p50"), median(late), "ms");
    let p99 = (percentile(late, 99), "ms");
    report.aim(&key("late_p99_ms"), &text("deaths late by, p99"), p99, DEATH_MS_MAX);
    report.note(&key("late_worst_ms"), &text("deaths late by, worst"), percentile(late, 100), "ms");
    report.note(&key("mint_p50_ms"), &text("a mint, p50"), median(took), "ms");
    let p99 = (percentile(took, 99), "ms");
    report.aim(&key("mint_p99_ms"), &text("a mint, p99"), p99, MINT_MS_MAX);
    let refused = (life.mints.refused as f64, "");
    report.aim(&key("mints_refused"), &text("mints refused"), refused, 0.0);
}
