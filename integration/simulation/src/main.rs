//! `simulate`: runs seeds, prints what they saw, and fails if an invariant does not hold.

use std::process::ExitCode;

use dayfly_simulation::{
    campaign::{self, Summary},
    plan::StoreKind,
    run::run,
    say,
};
use serde_json::json;

/// From so many runs on, a counter that stayed zero is a failure.
const LONG: u64 = 3_000;

/// Each planted mistake must be found within so many seeds.
const PLANTED_WITHIN: u64 = 1_000;

const USAGE: &str = "usage: simulate [--seeds N] [--from S] [--store memory|sqlite|both] \
    [--seed S] [--planted]";

#[derive(Debug, Default)]
struct Arguments {
    seeds: u64,
    from: u64,
    one: Option<u64>,
    stores: Vec<StoreKind>,
    planted: bool,
}

fn main() -> ExitCode {
    let Some(arguments) = parse(std::env::args().skip(1)) else {
        say(USAGE);
        return ExitCode::from(2);
    };
    if let Some(seed) = arguments.one {
        return replay(seed, &arguments.stores);
    }
    let summary = campaign::seeds(arguments.from, arguments.seeds, &arguments.stores);
    let found = if arguments.planted { campaign::planted(PLANTED_WITHIN) } else { Vec::new() };
    report(&summary, &found)
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments::default();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seeds" => arguments.seeds = words.next()?.parse().ok()?,
            "--from" => arguments.from = words.next()?.parse().ok()?,
            "--seed" => arguments.one = Some(words.next()?.parse().ok()?),
            "--planted" => arguments.planted = true,
            "--store" => {
                arguments.stores = match words.next()?.as_str() {
                    "memory" => vec![StoreKind::Memory],
                    "sqlite" => vec![StoreKind::Sqlite],
                    "both" => Vec::new(),
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
    if arguments.stores.is_empty() {
        arguments.stores = vec![StoreKind::Memory, StoreKind::Sqlite];
    }
    Some(arguments)
}

fn replay(seed: u64, stores: &[StoreKind]) -> ExitCode {
    let mut holds = true;
    for store in stores {
        say(&format!("== seed {seed}, {}", store.as_str()));
        let outcome = run(seed, *store, None, true);
        let what = outcome.violation.unwrap_or_else(|| "every invariant held".into());
        say(&format!("== {what}; hash {:016x}, {} events", outcome.hash, outcome.events));
        holds &= what == "every invariant held";
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(summary: &Summary, found: &[campaign::Found]) -> ExitCode {
    let mut unseen = 0;
    if summary.runs > 0 {
        say("| seen | times |\n| --- | ---: |");
    }
    for (name, count) in summary.coverage.table() {
        if summary.runs > 0 {
            say(&format!("| {name} | {count} |"));
        }
        unseen += u64::from(count == 0 && summary.runs >= LONG);
    }
    for (mistake, seen) in found {
        let words = match seen {
            Some((seed, store, what)) => format!("seed {seed}, {}: {what}", store.as_str()),
            None => "NOT FOUND".into(),
        };
        say(&format!("planted: {}: {words}", mistake.as_str()));
    }
    for (seed, store, what) in &summary.violations {
        say(&format!(
            "violation: {what}\n  integration/simulate --seed {seed} --store {}",
            store.as_str()
        ));
    }
    let planted_found = found.iter().filter(|(_, seen)| seen.is_some()).count();
    let line = json!({
        "seeds": summary.runs,
        "events": summary.events,
        "virtual_hours": summary.lasted.as_secs() / 3_600,
        "violations": summary.violations.len(),
        "unseen": unseen,
        "planted_found": planted_found,
        "planted_total": found.len(),
    });
    say(&line.to_string());
    let holds = summary.violations.is_empty() && unseen == 0 && planted_found == found.len();
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
