//! Chaos on the real thing: real brokers, real servers, real clients and real faults, for as
//! long as you like. Run it with `integration/chaos`.
//!
//! Invariant: what must be zero is judged from outside: by who gets in, and by what is left at
//! the backend, never by what Dayfly says of itself. All that is started listens on loopback
//! and ends with the run, also when that is interrupted.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal that says by panicking what does not work"
)]

mod end;
mod faults;
mod health;
mod judge;
mod ledger;
mod load;
mod login;
mod plan;
mod plant;
mod points;
mod report;
mod rng;
mod world;

use std::{process::ExitCode, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: chaos --minutes N --seed S [--store postgres|sqlite] [--plant]
--plant  brings a dead credential back and makes one that no lease knows: the run must fail";

/// What to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) minutes: f64,
    pub(crate) seed: u64,
    pub(crate) embedded: bool,
    /// Whether the judge is to be put to the test.
    pub(crate) plant: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let Some(wanted) = parse(std::env::args().skip(1)) else { anyhow::bail!("{USAGE}") };
    dayfly_server::identity::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let passed = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        // Dropping the work ends what it has started.
        tokio::select! {
            passed = end::run(wanted) => passed,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            _ = terminated.recv() => Err(anyhow::anyhow!("terminated")),
        }
    })?;
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Wanted> {
    let mut wanted = Wanted { minutes: 5.0, seed: 1, embedded: false, plant: false };
    while let Some(argument) = arguments.next() {
        if argument == "--plant" {
            wanted.plant = true;
            continue;
        }
        let value = arguments.next()?;
        match argument.as_str() {
            "--minutes" => {
                let minutes = value.parse().ok().filter(|n| (0.1..=6_000.0).contains(n));
                wanted.minutes = minutes?;
            }
            "--seed" => wanted.seed = value.parse().ok()?,
            "--store" => {
                let store = ["postgres", "sqlite"].iter().position(|store| *store == value);
                wanted.embedded = store? == 1;
            }
            _ => return None,
        }
    }
    Some(wanted)
}
