//! What `fsck` tells: a line for each violation, or one JSON object.
//!
//! Invariant: memory does not grow with what is wrong; beyond a bound it is counted.

use std::io::{Result, Write as Output};

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{LeaseId, State};
use dayfly_store::{Inspected, Living};
use serde::Serialize;
use serde_json::json;

use super::OWED_AFTER;

/// The most that is kept of each list.
const KEPT_MAX: usize = 10_000;

/// Something that must not be.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    /// Which invariant it breaks, by its name in docs/guarantees.md; `audit` for the log.
    invariant: &'static str,
    /// Which way.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lease: Option<LeaseId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    what: String,
    todo: &'static str,
}

impl Finding {
    pub(super) fn of(
        invariant: &'static str,
        kind: &'static str,
        what: String,
        todo: &'static str,
    ) -> Self {
        Self { invariant, kind, lease: None, backend: None, what, todo }
    }

    pub(super) fn lease(mut self, id: LeaseId) -> Self {
        self.lease = Some(id);
        self
    }

    pub(super) fn backend(mut self, name: &str) -> Self {
        self.backend = Some(name.to_owned());
        self
    }

    /// The same thing, seen at another time.
    pub(super) fn is_the_same_as(&self, other: &Self) -> bool {
        (self.kind, self.lease, &self.backend) == (other.kind, other.lease, &other.backend)
    }

    fn line(&self) -> String {
        let about = [self.lease.map(|id| id.to_string()), self.backend.clone()];
        let about: Vec<String> = about.into_iter().flatten().collect();
        let about = if about.is_empty() { "the audit log".to_owned() } else { about.join(" at ") };
        format!("{} {}: {about}: {} ({})", self.invariant, self.kind, self.what, self.todo)
    }
}

/// A list that is cut and still counted.
#[derive(Debug, Serialize)]
struct Kept<T> {
    count: u64,
    first: Vec<T>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { count: 0, first: Vec::new() }
    }
}

impl<T> Kept<T> {
    fn push(&mut self, one: T) {
        self.count += 1;
        if self.first.len() < KEPT_MAX {
            self.first.push(one);
        }
    }
}

/// A death that is due and not verified.
#[derive(Debug, Serialize)]
struct Owed {
    lease: LeaseId,
    backend: String,
    since: Timestamp,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Report {
    json: bool,
    pub(super) leases: u64,
    pub(super) records: u64,
    violations: Kept<Finding>,
    owed: Kept<Owed>,
    quarantined: Kept<(LeaseId, String)>,
    given_up: Kept<LeaseId>,
    not_configured: Vec<String>,
    not_asked: Vec<(String, String)>,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self { json, ..Self::default() }
    }

    pub(super) fn violations(&mut self, found: Vec<Finding>, out: &mut dyn Output) -> Result<()> {
        for finding in found {
            if !self.json {
                writeln!(out, "{}", finding.line())?;
            }
            self.violations.push(finding);
        }
        Ok(())
    }

    /// What is no violation by itself and must be seen all the same.
    pub(super) fn note(&mut self, row: &Inspected, now: Timestamp) {
        if let Some(why) = &row.quarantined {
            self.quarantined.push((row.id, why.clone()));
        }
        let Ok(lease) = &row.lease else { return };
        let since = match lease.state {
            State::Revoking { since, .. } => Some(since),
            State::Pending | State::Active { .. } => row.due_at,
            State::Revoked { .. } | State::Abandoned { .. } => None,
        };
        if let Some(since) = since.filter(|since| since.plus(OWED_AFTER) < now) {
            self.owed.push(Owed {
                lease: lease.id,
                backend: lease.backend.clone(),
                since,
                attempts: lease.attempts,
                last_error: lease.error_class.clone(),
            });
        }
    }

    pub(super) fn given_up(&mut self, leases: Vec<LeaseId>) {
        for lease in leases {
            self.given_up.push(lease);
        }
    }

    pub(super) fn not_configured(&mut self, group: &Living) {
        self.not_configured
            .push(format!("{}: {} lease(s) that are {}", group.backend, group.count, group.state));
    }

    pub(super) fn not_asked(&mut self, backend: &str, error: String) {
        self.not_asked.push((backend.to_owned(), error));
    }

    /// A check that could not be made is no success.
    pub(super) fn is_clean(&self) -> bool {
        self.violations.count == 0 && self.not_asked.is_empty()
    }

    pub(super) fn end(&self, out: &mut dyn Output) -> Result<()> {
        if self.json {
            return writeln!(out, "{}", self.to_json());
        }
        for owed in &self.owed.first {
            let error = owed.last_error.as_deref().unwrap_or("not tried yet");
            writeln!(
                out,
                "owed: {} at {}: since {}, {} failed attempt(s), {error}",
                owed.lease, owed.backend, owed.since, owed.attempts
            )?;
        }
        for (lease, why) in &self.quarantined.first {
            writeln!(out, "quarantined: {lease}: {why}")?;
        }
        for lease in &self.given_up.first {
            writeln!(out, "given up: {lease}: its credential is still there")?;
        }
        for group in &self.not_configured {
            writeln!(out, "not configured: {group}, and nobody can end them")?;
        }
        for (name, error) in &self.not_asked {
            writeln!(out, "not asked: {name}: {error}")?;
        }
        writeln!(
            out,
            "{} leases, {} violations, {} owed, {} quarantined",
            self.leases, self.violations.count, self.owed.count, self.quarantined.count
        )
    }

    fn to_json(&self) -> serde_json::Value {
        let quarantined = self.quarantined.first.iter();
        let not_asked = self.not_asked.iter();
        json!({
            "clean": self.is_clean(),
            "leases": self.leases,
            "audit_records": self.records,
            "violations": { "count": self.violations.count, "first": self.violations.first },
            "owed": { "count": self.owed.count, "first": self.owed.first },
            "quarantined": {
                "count": self.quarantined.count,
                "first": quarantined
                    .map(|(lease, why)| json!({ "lease": lease, "why": why }))
                    .collect::<Vec<_>>(),
            },
            "given_up_and_there": { "count": self.given_up.count, "first": self.given_up.first },
            "not_configured": self.not_configured,
            "not_asked": not_asked
                .map(|(backend, error)| json!({ "backend": backend, "error": error }))
                .collect::<Vec<_>>(),
        })
    }
}
