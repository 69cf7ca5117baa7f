//! A hundred thousand leases that are due at once at one backend, or after an outage of an
//! hour, while others are minted there and yet others end at a healthy backend.
//!
//! Invariant: the roles are real, and the broker that ends them began without having seen any.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::ensure;
use dayfly_backend_sdk::Timestamp;
use dayfly_integration::{Broker, Crowd};

use super::{
    DEATH_MS_MAX, MINT_MS_MAX,
    ground::{Ground, PG, Rows, WELL, now, wait_until},
    traffic::{Mints, Pace, mint},
};
use crate::{
    measure::{median, percentile},
    report::Report,
    served::{load, resident_mib},
};

/// When the crowd is due.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// At one instant, at which the broker runs and waits.
    AtOnce,
    /// Throughout the hour before the instant at which the broker starts.
    OverAnHour,
}

/// At the healthy backend, two in a second.
const OTHERS: u32 = 120;
const OTHERS_APART: Duration = Duration::from_millis(500);
const OUTAGE: Duration = Duration::from_hours(1);
/// For making each of the crowd, and for what comes before the instant.
const LEAD_EACH: Duration = Duration::from_micros(800);
const LEAD: Duration = Duration::from_secs(20);
const QUIET_MIN: Duration = Duration::from_secs(10);
const DRAINED_S_MAX: f64 = 60.0;
/// The most that the memory may grow by, as a share of what it was.
const MEMORY_RATIO_MAX: f64 = 1.5;
const PACE: Pace = Pace { role: "reader", ttl_seconds: 3_600, per_second: 10 };
const FOR_EVER: Duration = Duration::from_hours(1);

struct Memory {
    start: f64,
    peak: f64,
}

pub(super) async fn measure(report: &mut Report, due: Due, count: u32) -> anyhow::Result<()> {
    let mut ground = Ground::new("").await?;
    let lead = LEAD + LEAD_EACH * count;
    let begin = now().plus(lead);
    let at = |n: u32| match due {
        Due::AtOnce => begin,
        Due::OverAnHour => begin.minus(OUTAGE / count * n),
    };
    let crowd = Crowd::new("pg", PG, (0..count).map(at));
    let others = (0..OTHERS).map(|n| begin.plus(OTHERS_APART * (n + 1)));
    let others = Crowd::new("well", WELL, others);
    ground.fill(&[(&others, Some(&ground.well)), (&crowd, Some(&ground.pg))]).await;
    ensure!(now().plus(QUIET_MIN) < begin, "the crowd was not made within {lead:?}");
    if due == Due::OverAnHour {
        wait_until(begin).await;
    }
    let load = load()?;
    ground.broker.resume().await;
    wait_until(begin).await;
    let (mints, memory) = watch_drain(&ground.broker, &mut ground.rows).await?;
    let drained = ground.rows.last_death().await?.since(begin);
    ensure!(roles_left(&ground, begin) == 0, "roles are left whose leases are dead");
    ensure!(ground.rows.late("pg", Crowd::ROLE).await?.len() == count as usize, "not every death");
    ground.rows.until_none("well", Crowd::ROLE).await?;
    let late = ground.rows.late("well", Crowd::ROLE).await?;
    ensure!(late.len() == OTHERS as usize, "not every lease of the healthy backend died");
    let (key, text) = names(due, count);
    let key = |what: &str| format!("deaths.{key}.{what}");
    let text = |what: &str| format!("{text}: {what}");
    let seconds = drained.as_secs_f64();
    report.aim(&key("drained_s"), &text("all dead after"), (seconds, "s"), DRAINED_S_MAX);
    tell(report, &key, &text, (&mints, &late), &memory);
    report.note(&key("load"), &text("load before"), load, "");
    Ok(())
}

/// Mints until the crowd is dead.
async fn watch_drain(broker: &Broker, rows: &mut Rows) -> anyhow::Result<(Mints, Memory)> {
    let done = AtomicBool::new(false);
    let draining = async {
        let drained = rows.until_none("pg", Crowd::ROLE).await;
        done.store(true, Ordering::Relaxed);
        drained
    };
    let minting = mint(broker, PACE, FOR_EVER, &done);
    let (mints, memory, drained) = tokio::join!(minting, sample(broker.pid(), &done), draining);
    drained?;
    Ok((mints?, memory?))
}

async fn sample(pid: u32, done: &AtomicBool) -> anyhow::Result<Memory> {
    let start = resident_mib(pid)?;
    let mut peak = start;
    while !done.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(250)).await;
        peak = peak.max(resident_mib(pid)?);
    }
    Ok(Memory { start, peak })
}

/// The crowd's roles that are still there; those that are minted now last for longer.
fn roles_left(ground: &Ground, begin: Timestamp) -> u32 {
    let sql = format!(
        "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, '{PG}')
         AND rolvaliduntil < '{}'",
        begin.plus(Duration::from_mins(1)).rfc3339()
    );
    ground.pg.sql("postgres", &sql).parse().unwrap()
}

fn names(due: Due, count: u32) -> (&'static str, String) {
    match due {
        Due::AtOnce => ("at_once", format!("{count} due at once")),
        Due::OverAnHour => ("outage", format!("{count} after an outage of an hour")),
    }
}

fn tell(
    report: &mut Report,
    key: &impl Fn(&str) -> String,
    text: &impl Fn(&str) -> String,
    (mints, late): (&Mints, &[f64]),
    memory: &Memory,
) {
    let p50 = median(&mints.took);
    report.note(&key("mint_p50_ms"), &text("a mint there meanwhile, p50"), p50, "ms");
    let p99 = (percentile(&mints.took, 99), "ms");
    report.aim(&key("mint_p99_ms"), &text("a mint there meanwhile, p99"), p99, MINT_MS_MAX);
    let refused = (mints.refused as f64, "");
    report.aim(&key("mints_refused"), &text("mints refused"), refused, 0.0);
    let what = text("deaths at the healthy backend late by, p50");
    report.note(&key("healthy_p50_ms"), &what, median(late), "ms");
    let what = text("deaths at the healthy backend late by, p99");
    report.aim(&key("healthy_p99_ms"), &what, (percentile(late, 99), "ms"), DEATH_MS_MAX);
    let what = text("deaths at the healthy backend late by, worst");
    report.note(&key("healthy_worst_ms"), &what, percentile(late, 100), "ms");
    report.note(&key("memory_mib"), &text("resident memory before"), memory.start, "MiB");
    report.note(&key("memory_peak_mib"), &text("resident memory, most"), memory.peak, "MiB");
    let growth = (memory.peak / memory.start, "×");
    report.aim(&key("memory_ratio"), &text("most to before"), growth, MEMORY_RATIO_MAX);
}
