//! Reading one section key by key.
//!
//! Invariant: every key of a section is either asked for or reported, and a value that is
//! refused does not stop the reading of the next one.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use dayfly_backend_sdk::Secret;

use super::{
    duration::{parse_duration, written},
    fault::{At, Fault, Report, Wrong},
    secret::{self, SecretSource},
    tree::{Item, Table, Value},
};

/// A value, or why not.
pub(super) type Reading<T> = Result<T, Wrong>;

/// What every section is read with.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// What relative paths are relative to.
    pub(super) base: &'a Path,
    /// The environment.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// Where faults go.
    pub(super) report: &'a Report,
}

/// A section while it is read.
pub(super) struct Section<'a> {
    pub(super) context: Context<'a>,
    pub(super) at: &'a At,
    /// The dotted path, for faults.
    pub(super) path: String,
    pub(super) table: &'a Table,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Section<'a> {
    /// Reads a section with `read` and reports the keys that `read` did not ask for.
    pub(super) fn read<T>(
        context: Context<'a>,
        (path, at, table): (String, &'a At, &'a Table),
        read: impl FnOnce(&Self) -> T,
    ) -> T {
        let section = Self { context, at, path, table, asked: RefCell::default() };
        let result = read(&section);
        section.report_unknown();
        result
    }

    /// Notes a fault at `key`, or at the section where the key is not written.
    pub(super) fn fault(&self, key: &str, wrong: impl Into<Wrong>) {
        let at = self.table.place(key, self.at);
        self.context.report.note(at.fault(self.path_of(key), wrong));
    }

    /// As [`Section::fault`], for what refers to something that is not there.
    pub(super) fn fault_absent(&self, key: &str, wrong: impl Into<Wrong>) {
        let at = self.table.place(key, self.at);
        self.context.report.note_absent(at.fault(self.path_of(key), wrong));
    }

    /// The value of `key` as `kind` reads it; a fault if it is there and wrong.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        kind: impl FnOnce(&Item) -> Reading<T>,
    ) -> Option<T> {
        let item = self.item(key)?;
        match kind(item) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.context.report.note(item.at.fault(self.path_of(key), wrong));
                None
            }
        }
    }

    /// As [`Section::optional`], but a fault too if it is not there.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        kind: impl FnOnce(&Item) -> Reading<T>,
    ) -> Option<T> {
        if self.item(key).is_none() {
            self.missing(key);
        }
        self.optional(key, kind)
    }

    /// A path, made absolute from the configuration's directory.
    pub(super) fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.optional(key, text).map(|path| self.context.base.join(path))
    }

    /// A secret, read from where the reference points.
    pub(super) fn secret(&self, key: &'static str) -> Option<Secret> {
        let item = self.item(key)?;
        secret::resolve(item, &self.path_of(key), self.context)
    }

    /// A secret that is read again when it is used: where it is, and what it is now.
    pub(super) fn secret_source(&self, key: &'static str) -> Option<(SecretSource, Secret)> {
        let item = self.item(key)?;
        secret::find(item, &self.path_of(key), self.context)
    }

    /// A table inside this section.
    pub(super) fn table<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Section<'a>) -> T,
    ) -> Option<T> {
        let item = self.item(key)?;
        let Value::Table(table) = &item.value else {
            self.fault(key, expected("one table", item));
            return None;
        };
        Some(Section::read(self.context, (self.path_of(key), &item.at, table), read))
    }

    /// The sections of a list, `[[key]]`. In faults they go by their names.
    pub(super) fn each<T>(
        &self,
        key: &'static str,
        read: impl Fn(&Section<'a>) -> Option<T>,
    ) -> Vec<T> {
        let Some(item) = self.item(key) else { return Vec::new() };
        let Value::Array(items) = &item.value else {
            self.fault(key, format!("each one is a section of its own, `[[{key}]]`"));
            return Vec::new();
        };
        let mut all = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let Value::Table(table) = &item.value else {
                let wrong = expected(&format!("a section, `[[{key}]]`"), item);
                self.context.report.note(item.at.fault(format!("{key}[{index}]"), wrong));
                continue;
            };
            let path = match table.text("name") {
                Some(name) => format!("{key}.{name}"),
                None => format!("{key}[{index}]"),
            };
            all.extend(Section::read(self.context, (path, &item.at, table), &read));
        }
        all
    }

    /// This section for whoever finds more faults in it later.
    pub(super) fn origin(&self) -> Origin {
        Origin { at: self.at.clone(), path: self.path.clone(), table: self.table.clone() }
    }

    /// The value as it stands.
    pub(super) fn item(&self, key: &'static str) -> Option<&'a Item> {
        self.asked.borrow_mut().insert(key);
        self.table.item(key)
    }

    /// The keys that were not asked for, which are no faults then.
    pub(super) fn rest(&self) -> Table {
        let mut rest = self.table.clone();
        rest.0.retain(|key, _| !self.asked.borrow().contains(key.as_str()));
        self.asked.borrow_mut().insert(REST);
        rest
    }

    /// Notes that `key` is not there.
    pub(super) fn missing(&self, key: &'static str) {
        let fault = self.at.fault(self.path_of(key), format!("the key `{key}` is missing"));
        self.context.report.note_absent(fault);
    }

    /// Notes that the whole section `key` is not there.
    pub(super) fn missing_section(&self, key: &'static str) {
        let fault = self.at.fault(self.path_of(key), format!("the section `[{key}]` is missing"));
        self.context.report.note_absent(fault);
    }

    /// The dotted path of `key`.
    pub(super) fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", _) => key.to_owned(),
            (_, "") => self.path.clone(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    fn report_unknown(&self) {
        let asked = self.asked.borrow();
        if asked.contains(REST) {
            return;
        }
        let free: Vec<_> =
            asked.iter().copied().filter(|key| self.table.item(key).is_none()).collect();
        let known: Vec<_> = asked.iter().copied().collect();
        for (key, entry) in &self.table.0 {
            if asked.contains(key.as_str()) {
                continue;
            }
            // A key that is not written yet is meant rather than one that is.
            let mut wrong = Wrong::unknown("key", key, &free);
            if wrong.suggestion.is_none() {
                wrong = Wrong::unknown("key", key, &known);
            }
            self.context.report.note(entry.key.fault(self.path_of(key), wrong));
        }
    }
}

/// A section that was read, kept so that later faults still have a place.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) at: At,
    pub(super) path: String,
    pub(super) table: Table,
}

impl Origin {
    /// A fault at `key`, or at the section where the key is not written.
    pub(super) fn fault(&self, key: &str, message: impl Into<String>) -> Fault {
        let path = if key.is_empty() { self.path.clone() } else { format!("{}.{key}", self.path) };
        self.table.place(key, &self.at).fault(path, message.into())
    }
}

/// Marks that the rest of a section belongs to somebody else. No section asks for a key
/// without a name.
const REST: &str = "";

/// The fault of a wrong kind of value. The value itself is not repeated.
pub(super) fn expected(what: &str, item: &Item) -> Wrong {
    format!("expected {what}, found {}", item.value.kind()).into()
}

/// Text that is not empty.
pub(super) fn text(item: &Item) -> Reading<String> {
    let Value::Text(text) = &item.value else { return Err(expected("text", item)) };
    if text.trim().is_empty() {
        return Err("must not be empty".into());
    }
    Ok(text.clone())
}

/// Texts, none of which is empty.
pub(super) fn list(item: &Item) -> Reading<Vec<String>> {
    let Value::Array(items) = &item.value else { return Err(expected("a list of texts", item)) };
    items.iter().map(text).collect()
}

/// `true` or `false`.
pub(super) fn flag(item: &Item) -> Reading<bool> {
    let Value::Flag(flag) = &item.value else { return Err(expected("true or false", item)) };
    Ok(*flag)
}

/// A whole number within `range`.
pub(super) fn integer(range: RangeInclusive<u32>) -> impl FnOnce(&Item) -> Reading<u32> {
    move |item| {
        let Value::Integer(number) = &item.value else {
            return Err(expected("a whole number", item));
        };
        let number = u32::try_from(*number).ok().filter(|number| range.contains(number));
        number
            .ok_or_else(|| format!("must be between {} and {}", range.start(), range.end()).into())
    }
}

/// A duration within `range`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl FnOnce(&Item) -> Reading<Duration> {
    move |item| {
        let text = match &item.value {
            Value::Text(text) => text,
            Value::Integer(seconds) => {
                let wrong = expected("a duration with its unit, for example \"15m\"", item);
                return Err(wrong.meant(format!("\"{seconds}s\"")));
            }
            Value::Array(_)
            | Value::Flag(_)
            | Value::Float(_)
            | Value::Table(_)
            | Value::Time(_) => return Err(expected("a duration, for example \"15m\"", item)),
        };
        let duration = parse_duration(text).map_err(|error| error.to_string())?;
        if !range.contains(&duration) {
            let (min, max) = (written(*range.start()), written(*range.end()));
            return Err(format!("must be between {min} and {max}").into());
        }
        Ok(duration)
    }
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)]) -> impl FnOnce(&Item) -> Reading<T> {
    move |item| {
        let word = text(item)?;
        let known: Vec<_> = words.iter().map(|(known, _)| *known).collect();
        let found = words.iter().find(|(known, _)| *known == word);
        found.map(|(_, value)| *value).ok_or_else(|| Wrong::not_one_of(&word, &known))
    }
}

/// An address with its port.
pub(super) fn address(item: &Item) -> Reading<SocketAddr> {
    text(item)?.parse().map_err(|_| {
        Wrong::from("expected an IP address with a port, for example \"127.0.0.1:8420\"")
    })
}

/// A name that can stand in paths, labels and messages without quoting.
pub(super) fn name(item: &Item) -> Reading<String> {
    let name = text(item)?;
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.len() > 63
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
        || !name.chars().all(legal)
    {
        let rule = "a name has 1 to 63 of a-z, 0-9 and -, and begins with a letter";
        let plain: String = name.to_ascii_lowercase().replace(['_', ' ', '.'], "-");
        let plausible = plain != name
            && plain.len() <= 63
            && plain.starts_with(|c: char| c.is_ascii_lowercase())
            && plain.chars().all(legal);
        let wrong = Wrong::from(rule);
        return Err(if plausible { wrong.meant(plain) } else { wrong });
    }
    Ok(name)
}
