//! What came of it: stories of what must not be, and one line of JSON.
//!
//! Invariant: a violation is never without its story, and then everything that was written is
//! kept.

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use serde_json::{Value, json};

use crate::{
    Wanted,
    end::{LeaseRow, Records, failpoints},
    health::{BOUND, Health, SECOND, now, seconds},
    ledger::{Ledger, Violation},
    points::Rota,
    world::World,
};

/// More stories than these nobody reads.
const STORIES_MAX: usize = 8;
const LATEST: usize = 3;

/// Everything that a report is made of.
pub(crate) struct Outcome<'a> {
    pub(crate) wanted: Wanted,
    pub(crate) world: &'a World,
    pub(crate) ledger: &'a Ledger,
    pub(crate) rota: &'a Rota,
    pub(crate) leases: &'a [LeaseRow],
    pub(crate) audit_verified: bool,
}

/// A line now and then, so that somebody who watches sees it go on.
pub(crate) fn progress(health: &Health, ledger: &Ledger) {
    let book = ledger.book();
    let (issued, open) = (book.counted("issued"), book.open.len());
    let bad = book.violations.len();
    eprintln!(
        "{:8.1}s  issued {issued}, alive {open}, violations {bad}",
        health.since_start(now())
    );
}

impl Outcome<'_> {
    /// Prints it all; whether everything that must be zero is zero.
    pub(crate) fn close(&self, records: &Records) -> bool {
        let violations = self.ledger.book().violations.clone();
        for violation in violations.iter().take(STORIES_MAX) {
            self.tell(violation, records);
        }
        if violations.len() > STORIES_MAX {
            println!("… and {} more", violations.len() - STORIES_MAX);
        }
        if !violations.is_empty() {
            println!("everything that was written is kept in {}", self.keep().display());
        }
        self.tell_of_the_latest(records);
        eprintln!("failpoints that were not reached: {}", self.rota.missed().join(" "));
        println!("{}", self.json());
        violations.is_empty()
    }

    /// The deaths that took longest, which nothing forbids and somebody may want to know of.
    fn tell_of_the_latest(&self, records: &Records) {
        let mut dead: Vec<&LeaseRow> =
            self.leases.iter().filter(|row| row.late().is_some()).collect();
        dead.sort_by_key(|row| row.late());
        for row in dead.iter().rev().take(LATEST) {
            let late = seconds(row.late().unwrap_or_default());
            eprintln!("\n== dead {late:.1} s after it was due: {}", row.handle);
            for line in records.story(&row.handle) {
                eprintln!("   {line}");
            }
            let due = row.due();
            for (at, line) in self.world.health.around(due, row.revoked_at.unwrap_or(due)) {
                let text = dayfly_backend_sdk::Timestamp::from_micros(at).rfc3339();
                eprintln!("   {text}  {line}");
            }
        }
    }

    fn tell(&self, violation: &Violation, records: &Records) {
        let handle = violation.handle.clone().unwrap_or_default();
        println!("\n== {}: {handle} {}", violation.kind, violation.what);
        let mut lines = match violation.credential {
            Some(number) => {
                let book = self.ledger.book();
                let credential = &book.credentials[number];
                println!("   lease {} of task {}", credential.lease, credential.task);
                credential.story.iter().map(|(at, what)| (*at, format!("client: {what}"))).collect()
            }
            None => Vec::new(),
        };
        let first =
            lines.first().map_or(violation.at - 120 * SECOND, |(at, _): &(i64, String)| *at);
        lines.extend(self.world.health.around(first, violation.at));
        lines.push((violation.at, format!("VIOLATION: {}", violation.what)));
        lines.sort_by_key(|(at, _)| *at);
        for (at, line) in lines {
            let text = dayfly_backend_sdk::Timestamp::from_micros(at).rfc3339();
            println!("   {text}  {:8.2}s  {line}", self.world.health.since_start(at));
        }
        for line in records.story(&handle) {
            println!("   {line}");
        }
    }

    /// Copies the brokers' directories and the servers' logs to where they outlive us.
    fn keep(&self) -> PathBuf {
        let kept = std::env::temp_dir().join(format!(
            "dayfly-chaos-{}-{}",
            self.wanted.seed,
            std::process::id()
        ));
        std::fs::create_dir_all(&kept).unwrap();
        let mut sources = Vec::new();
        for replica in &self.world.replicas {
            sources.push((Some(replica.directory.clone()), replica.name.replace(' ', "-")));
        }
        sources
            .push((Some(self.world.backend.socket().join("data/log")), "backend.log".to_owned()));
        let store = self.world.store.as_ref().map(|store| store.socket().join("data/log"));
        sources.push((store, "store.log".to_owned()));
        let disk = self.world.disk.as_ref().map(|disk| disk.path().to_path_buf());
        sources.push((disk, "disk".to_owned()));
        for (source, name) in sources {
            if let Some(source) = source {
                drop(Command::new("cp").arg("-a").arg(source).arg(kept.join(name)).status());
            }
        }
        kept
    }

    fn json(&self) -> Value {
        let book = self.ledger.book();
        let all: Vec<i64> = self.late().map(|(_, late)| late).collect();
        let health = &self.world.health;
        let mended = self.late().map(|(due, late)| health.after_mended(due, due + late));
        let mended: Vec<i64> = mended.filter(|late| *late > 0).collect();
        let well = self.late().filter(|(due, late)| health.was_well(*due, due + BOUND.max(*late)));
        let well: Vec<i64> = well.map(|(_, late)| late).collect();
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for violation in &book.violations {
            *kinds.entry(violation.kind).or_default() += 1;
        }
        json!({
            "minutes": self.wanted.minutes,
            "seed": self.wanted.seed,
            "store": if self.wanted.embedded { "sqlite" } else { "postgres" },
            "issued": book.counted("issued"),
            "used": book.counted("used"),
            "refused": book.refusals.values().sum::<u64>(),
            "refusals": book.refusals,
            "dead_on_arrival": book.counted("dead_on_arrival"),
            "renewed": book.counted("renewed"),
            "revoked": book.counted("revoked"),
            "completed": book.counted("completed"),
            "kills": self.world.kills(),
            "faults": self.world.faults(),
            "failpoints": failpoints(self.rota),
            "usable_after_death": book.violations_of("usable_after_death"),
            "orphans": book.violations_of("orphan"),
            "double_delivery": book.violations_of("double_delivery"),
            "audit_verified": self.audit_verified,
            "violations": kinds,
            "revoked_minus_due_ms": spread(all),
            "revoked_minus_due_ms_while_well": spread(well),
            "revoked_minus_mended_ms": spread(mended),
        })
    }

    /// When each credential that was active had to die, and how much later it was dead.
    fn late(&self) -> impl Iterator<Item = (i64, i64)> {
        self.leases.iter().filter_map(|lease| Some((lease.due(), lease.late()?)))
    }
}

fn spread(mut micros: Vec<i64>) -> Value {
    micros.sort_unstable();
    let at = |percent: usize| {
        micros.get((micros.len() * percent / 100).min(micros.len().saturating_sub(1)))
    };
    let ms = |micros: Option<&i64>| micros.map(|micros| micros / 1_000);
    json!({ "count": micros.len(), "p50": ms(at(50)), "p99": ms(at(99)), "worst": ms(micros.last()) })
}
