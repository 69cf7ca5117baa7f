//! What Dayfly costs, as ratios within one run: run it with `integration/bench`.
//!
//! Invariant: a target that is missed is printed and fails nothing; what fails the run is
//! something that does not work. All that it starts listens on loopback and ends with it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal that says by panicking what does not work"
)]

mod backend;
mod deaths;
mod exec;
mod flood;
mod identity;
mod injector;
mod measure;
mod mint;
mod population;
mod report;
mod served;
mod start;
mod throughput;

use std::path::PathBuf;

use dayfly_integration::Postgres;
use report::Report;

const USAGE: &str = "usage: figures [--only PART[,PART…]] [--large] [--crowd N] [--injector FILE]
parts: identity flood mint backend start exec injector throughput deaths
--large also starts with ten times the active leases
--crowd has N leases due at once instead of 100,000
--injector takes this dayfly for the part injector, as integration/release makes one";

/// What to measure.
struct Wanted {
    parts: Vec<String>,
    large: bool,
    crowd: u32,
    injector: Option<PathBuf>,
}

impl Wanted {
    fn part(&self, name: &str) -> bool {
        let wanted = self.parts.is_empty() || self.parts.iter().any(|part| part == name);
        if wanted {
            eprintln!("== {name}");
        }
        wanted
    }
}

fn main() -> anyhow::Result<()> {
    let Some(wanted) = parse(std::env::args().skip(1)) else { anyhow::bail!("{USAGE}") };
    dayfly_server::identity::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let mut terminated =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        // Dropping the work ends what it has started.
        tokio::select! {
            report = run(&wanted) => report,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            _ = terminated.recv() => Err(anyhow::anyhow!("terminated")),
        }
    })?;
    report.print();
    Ok(())
}

fn parse(arguments: impl Iterator<Item = String>) -> Option<Wanted> {
    const PARTS: [&str; 9] = [
        "identity",
        "flood",
        "mint",
        "backend",
        "start",
        "exec",
        "injector",
        "throughput",
        "deaths",
    ];
    let mut wanted = Wanted { parts: Vec::new(), large: false, crowd: 100_000, injector: None };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--crowd" => wanted.crowd = arguments.next()?.parse().ok()?,
            "--injector" => wanted.injector = Some(arguments.next()?.into()),
            "--large" => wanted.large = true,
            "--only" => wanted.parts.extend(arguments.next()?.split(',').map(str::to_owned)),
            _ => return None,
        }
    }
    wanted.parts.iter().all(|part| PARTS.contains(&part.as_str())).then_some(wanted)
}

async fn run(wanted: &Wanted) -> anyhow::Result<Report> {
    let mut report = Report::new(served::circumstances()?);
    if wanted.part("identity") {
        identity::measure(&mut report).await?;
    }
    if wanted.part("flood") {
        flood::measure(&mut report).await?;
    }
    if wanted.part("exec") {
        exec::measure(&mut report).await?;
    }
    if wanted.part("injector") {
        injector::measure(&mut report, wanted.injector.as_deref()).await?;
    }
    let (mint, throughput) = (wanted.part("mint"), wanted.part("throughput"));
    if mint || throughput {
        let postgres = Postgres::start();
        let broker = mint::broker(&postgres).await;
        if mint {
            mint::measure(&mut report, &postgres, &broker).await?;
        }
        if throughput {
            throughput::measure(&mut report, &postgres, &broker).await?;
        }
    }
    if wanted.part("backend") {
        backend::measure(&mut report).await?;
    }
    if wanted.part("start") {
        start::measure(&mut report, wanted.large).await?;
    }
    if wanted.part("deaths") {
        deaths::measure(&mut report, wanted.crowd).await?;
    }
    Ok(report)
}
