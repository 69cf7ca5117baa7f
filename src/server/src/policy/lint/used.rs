//! Which rules the audit log names.
//!
//! Invariant: only what is recorded is concluded from. Of a permission, opening a task and
//! minting are recorded with the rules that gave it, other actions are not; of a refusal, all
//! are.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use dayfly_backend_sdk::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{super::ask::Action, Finding, Ground, code::Code};

const SECONDS_PER_DAY: u64 = 86_400;

/// Why an export of the audit log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UsedError {
    /// It has no record.
    #[error("`{}` has no record of the audit log", .0.display())]
    Empty(PathBuf),
    /// It cannot be opened.
    #[error("`{}` cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("`{}` is no export of the audit log", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// From when to when there are records, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    first: Timestamp,
    last: Timestamp,
    records: u64,
}

/// The rules that records name.
#[derive(Clone, Debug)]
pub struct Uses {
    pub(super) span: Span,
    rules: BTreeSet<String>,
}

/// One value of an export: a page as `GET /api/v1/audit` answers, or a record by itself.
#[derive(Deserialize)]
#[serde(untagged)]
enum Chunk {
    Page { data: Vec<Record> },
    Record(Record),
}

#[derive(Deserialize)]
struct Record {
    at: Timestamp,
    #[serde(rename = "event")]
    _event: String,
    #[serde(default)]
    detail: Value,
}

impl Uses {
    /// Reads exports: pages of `GET /api/v1/audit`, or records one after the other.
    ///
    /// # Errors
    /// When one of them cannot be read, is something else or has no record.
    pub fn read(paths: &[PathBuf]) -> Result<Option<Self>, UsedError> {
        let mut uses: Option<Self> = None;
        for path in paths {
            let file = File::open(path)
                .map_err(|source| UsedError::File { path: path.clone(), source })?;
            let read = Self::of(BufReader::new(file), path)?;
            match &mut uses {
                Some(uses) => uses.add(read),
                None => uses = Some(read),
            }
        }
        Ok(uses)
    }

    fn of(reader: impl io::Read, path: &Path) -> Result<Self, UsedError> {
        let mut uses: Option<Self> = None;
        // One value at a time: a log is larger than what should be kept of it.
        for chunk in serde_json::Deserializer::from_reader(reader).into_iter::<Chunk>() {
            let chunk =
                chunk.map_err(|source| UsedError::Form { path: path.to_owned(), source })?;
            let records = match chunk {
                Chunk::Page { data } => data,
                Chunk::Record(record) => vec![record],
            };
            for record in records {
                let one = Self::of_record(&record);
                match &mut uses {
                    Some(uses) => uses.add(one),
                    None => uses = Some(one),
                }
            }
        }
        uses.ok_or_else(|| UsedError::Empty(path.to_owned()))
    }

    fn of_record(record: &Record) -> Self {
        let rules = record.detail.get("rules").and_then(Value::as_array);
        let rules = rules.map(Vec::as_slice).unwrap_or_default();
        Self {
            span: Span { first: record.at, last: record.at, records: 1 },
            rules: rules.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }

    fn add(&mut self, other: Self) {
        self.span.first = self.span.first.min(other.span.first);
        self.span.last = self.span.last.max(other.span.last);
        self.span.records = self.span.records.saturating_add(other.span.records);
        self.rules.extend(other.rules);
    }
}

impl Span {
    pub(super) fn json(&self) -> Value {
        json!({ "first": self.first, "last": self.last, "records": self.records })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, records } = self;
        let days = last.since(*first).as_secs() / SECONDS_PER_DAY;
        write!(f, "{records} record(s) of {days} day(s), {first} to {last}")
    }
}

/// Rules that no record names.
pub(super) fn check(ground: &Ground<'_>, found: &mut Vec<Finding>) {
    let Some(uses) = ground.uses else { return };
    for rule in ground.rules {
        let recorded = [Action::Mint, Action::OpenTask];
        let recorded = recorded.iter().any(|action| rule.actions.contains(action));
        if uses.rules.contains(&rule.id) || (rule.permits && !recorded) {
            continue;
        }
        let effect = if rule.permits { "permitted" } else { "refused" };
        found.push(rule.finding(
            Code::UnusedRule,
            "the whole rule",
            format!("it has {effect} nothing in {}", uses.span),
            "take it out, or look at a longer time if what it is for is rare".to_owned(),
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(text: &str) -> Result<Option<Uses>, UsedError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.json");
        fs::write(&path, text).unwrap();
        Uses::read(&[path])
    }

    const LINES: &str = concat!(
        r#"{"at":"2026-01-03T00:00:00.000000Z","event":"lease.allowed","detail":{"rules":["b"]}}"#,
        "\n",
        r#"{"at":"2026-01-01T12:00:00.000000Z","event":"task.opened","detail":{"rules":["a"]}}"#,
        "\n",
        r#"{"at":"2026-01-05T12:00:00.000000Z","event":"lease.active","detail":null}"#,
        "\n",
    );

    #[test]
    fn lines_and_pages_are_read_alike() {
        let page =
            format!(r#"{{"data":[{}],"next_cursor":null}}"#, LINES.trim().replace('\n', ","));
        for text in [LINES.to_owned(), page.clone(), format!("{page}\n{LINES}")] {
            let uses = read(&text).unwrap().unwrap();
            assert_eq!(uses.rules, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
            let span = uses.span.to_string();
            let (count, time) = span.split_once(" record(s) of ").unwrap();
            assert!(["3", "6"].contains(&count), "{span}");
            assert_eq!(
                time,
                "4 day(s), 2026-01-01T12:00:00.000000Z to 2026-01-05T12:00:00.000000Z"
            );
        }
    }

    #[test]
    fn what_is_no_export_is_not_taken_for_silence() {
        assert!(Uses::read(&[]).unwrap().is_none());
        assert!(matches!(read(""), Err(UsedError::Empty(_))));
        assert!(matches!(read(r#"{"data":[]}"#), Err(UsedError::Empty(_))));
        for other in
            ["[]", "{}", "no", r#"{"at":"today","event":"x"}"#, LINES.trim_end_matches("}\n")]
        {
            assert!(matches!(read(other), Err(UsedError::Form { .. })), "{other}");
        }
        assert!(matches!(
            Uses::read(&[PathBuf::from("/nowhere/audit.json")]),
            Err(UsedError::File { .. })
        ));
    }
}
