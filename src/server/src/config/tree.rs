//! A configuration as a tree in which every key and value knows its place.
//!
//! Invariant: the tree holds what the file says and nothing else; `Debug` shows the keys,
//! never the values, since a secret may stand where it should not.

use std::{collections::BTreeMap, fmt, ops::Range, path::Path, sync::Arc};

use toml::de::{DeTable, DeValue};

use super::fault::{At, Report, Wrong};

/// A value and where it stands. For a section, where its header stands.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) at: At,
    pub(super) value: Value,
}

/// What a value is.
#[derive(Clone)]
pub(super) enum Value {
    Array(Vec<Item>),
    Flag(bool),
    Float(f64),
    Integer(i128),
    Table(Table),
    Text(String),
    Time(String),
}

impl Value {
    /// The kind of value, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Array(_) => "a list",
            Self::Flag(_) => "true or false",
            Self::Float(_) => "a number with a fraction",
            Self::Integer(_) => "a whole number",
            Self::Table(_) => "a table",
            Self::Text(_) => "text",
            Self::Time(_) => "a date or time",
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Array(items) => f.debug_list().entries(items).finish(),
            Self::Table(table) => fmt::Debug::fmt(table, f),
            Self::Flag(_) | Self::Float(_) | Self::Integer(_) | Self::Text(_) | Self::Time(_) => {
                f.write_str("…")
            }
        }
    }
}

/// Keys and values, by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Table(pub(super) BTreeMap<String, Entry>);

impl Table {
    /// The value of `key`.
    pub(super) fn item(&self, key: &str) -> Option<&Item> {
        self.0.get(key).map(|entry| &entry.item)
    }

    /// The text under `key`, if it is one.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match &self.item(key)?.value {
            Value::Text(text) => Some(text),
            Value::Array(_)
            | Value::Flag(_)
            | Value::Float(_)
            | Value::Integer(_)
            | Value::Table(_)
            | Value::Time(_) => None,
        }
    }

    /// Makes the paths under keys that end in `_file` absolute, but for what is sent elsewhere
    /// as it stands (`body`, `query`).
    pub(super) fn resolve_files(&mut self, base: &Path) {
        for (key, entry) in &mut self.0 {
            match &mut entry.item.value {
                Value::Table(_) if ["body", "query"].contains(&key.as_str()) => {}
                Value::Table(table) => table.resolve_files(base),
                Value::Text(path) if key.ends_with("_file") && !path.trim().is_empty() => {
                    *path = base.join(&*path).to_string_lossy().into_owned();
                }
                Value::Array(_)
                | Value::Flag(_)
                | Value::Float(_)
                | Value::Integer(_)
                | Value::Text(_)
                | Value::Time(_) => {}
            }
        }
    }

    /// Where the value at a dotted path stands, or the last that is written on the way to it.
    pub(super) fn place<'a>(&'a self, path: &str, whole: &'a At) -> &'a At {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        match self.item(first) {
            None => whole,
            Some(Item { at, value: Value::Table(table) }) if !rest.is_empty() => {
                table.place(rest, at)
            }
            Some(item) => &item.at,
        }
    }
}

/// One key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Where the key stands.
    pub(super) key: At,
    pub(super) item: Item,
}

/// Parses one file. Broken syntax is noted, and what can be recovered is returned, so that
/// the rest of the file is checked too.
pub(super) fn parse(text: &str, file: &str, report: &Report) -> Table {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source::new(text, file);
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut lost = false;
    for error in errors.into_iter().take(ERRORS_MAX) {
        let span = error.span().unwrap_or(0..0);
        if error.message() == DUPLICATE {
            note_duplicate(&source, span, report);
        } else {
            lost |= matches!(source.header_of(span.start), Header::Own);
            let message = format!("this is not TOML: {}", error.message());
            report.note_damage(source.at(span.start).fault("", message));
        }
    }
    if lost {
        report.give_up(file);
    }
    source.table(root.get_ref())
}

/// A file of noise has one on each line.
const ERRORS_MAX: usize = 200;

/// What the parser says of a key that is there twice.
const DUPLICATE: &str = "duplicate key";

fn note_duplicate(source: &Source<'_>, span: Range<usize>, report: &Report) {
    let at = source.at(span.start);
    let key = source.text.get(span.clone()).unwrap_or_default().trim();
    let header = source.header_of(span.start);
    let (key, message) = match header {
        Header::Own => (key.to_owned(), "this section is there already"),
        Header::Above("") => (key.to_owned(), DUPLICATE),
        Header::Above(section) => (format!("{section}.{key}"), DUPLICATE),
    };
    report.note(at.fault(key, Wrong::from(message)));
}

/// The header that a place belongs to.
enum Header<'a> {
    /// It stands in a header itself.
    Own,
    /// The last header above it; empty at the top of the file.
    Above(&'a str),
}

/// A file's text with the beginnings of its lines.
struct Source<'a> {
    text: &'a str,
    file: Arc<str>,
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    fn new(text: &'a str, file: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(index, _)| index + 1)).collect();
        Self { text, file: file.into(), lines }
    }

    fn at(&self, offset: usize) -> At {
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or_default();
        At { file: Arc::clone(&self.file), line, column: before.chars().count() + 1 }
    }

    fn header_of(&self, offset: usize) -> Header<'a> {
        let line_start = |line: usize| self.lines.get(line - 1).copied().unwrap_or(0);
        let own = self.at(offset).line;
        for line in (1..=own).rev() {
            let text = self.text.get(line_start(line)..).unwrap_or_default();
            let text = text.lines().next().unwrap_or_default().trim_start();
            if text.starts_with('[') {
                let name = text.trim_start_matches('[').split(']').next().unwrap_or_default();
                return if line == own { Header::Own } else { Header::Above(name.trim()) };
            }
        }
        Header::Above("")
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        let entries = table.iter().map(|(key, value)| {
            let item = Item { at: self.at(value.span().start), value: self.value(value.get_ref()) };
            (key.get_ref().to_string(), Entry { key: self.at(key.span().start), item })
        });
        Table(entries.collect())
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            // Beyond `i128` is beyond every range that a key has.
            DeValue::Integer(integer) => Value::Integer(
                i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX),
            ),
            DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Datetime(time) => Value::Time(time.to_string()),
            DeValue::Array(items) => {
                let items = items.iter().map(|item| Item {
                    at: self.at(item.span().start),
                    value: self.value(item.get_ref()),
                });
                Value::Array(items.collect())
            }
            DeValue::Table(table) => Value::Table(self.table(table)),
        }
    }
}
