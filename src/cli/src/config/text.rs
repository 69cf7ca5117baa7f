//! TOML whose keys and values know their lines.
//!
//! Invariant: every fault of a file is noted, not the first alone, and reading goes on after it.

use std::{cell::RefCell, ops::Range, path::Path, sync::Arc};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    fault::{At, Fault, Placed},
    file::Origin,
};

pub(super) type Key<'a> = Spanned<DeString<'a>>;
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// One file while it is read.
pub(super) struct Reader<'a> {
    pub(super) origin: Origin,
    /// What relative paths in it are relative to.
    pub(super) base: &'a Path,
    file: Arc<str>,
    text: &'a str,
    faults: RefCell<Vec<Fault>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(origin: Origin, path: &'a Path, text: &'a str) -> Self {
        Self {
            origin,
            base: path.parent().unwrap_or(Path::new("")),
            file: path.display().to_string().into(),
            // Some editors begin a file with a mark of its encoding.
            text: text.strip_prefix('\u{feff}').unwrap_or(text),
            faults: RefCell::default(),
        }
    }

    /// The whole file as a table; `None`, with a fault, if it is no TOML.
    pub(super) fn parse(&self) -> Option<DeTable<'a>> {
        match DeTable::parse(self.text) {
            Ok(table) => Some(table.into_inner()),
            Err(error) => {
                let at = self.at(error.span().unwrap_or(0..0));
                self.note(Fault::new(at, "", format!("this is not TOML: {}", error.message())));
                None
            }
        }
    }

    pub(super) fn at(&self, span: Range<usize>) -> At {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        At { file: Arc::clone(&self.file), line }
    }

    pub(super) fn note(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// Notes a fault of the value at `path`.
    pub(super) fn wrong(&self, path: &str, value: &Value<'_>, message: impl Into<String>) {
        self.note(Fault::new(self.at(value.span()), path, message));
    }

    /// Notes that `key` of the section at `path` is none of `known`.
    pub(super) fn unknown(&self, path: &str, key: &Key<'_>, known: &[&str]) {
        let word: &str = key.get_ref();
        self.note(Fault::unknown(self.at(key.span()), below(path, word), word, known));
    }

    /// What was found wrong, by line.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        let mut faults = self.faults.into_inner();
        faults.sort();
        faults
    }

    pub(super) fn placed<T>(&self, value: &Value<'_>, read: T) -> Placed<T> {
        Placed { at: self.at(value.span()), value: read }
    }

    /// A text that is not empty.
    pub(super) fn text<'v>(&self, path: &str, value: &'v Value<'_>) -> Option<&'v str> {
        match value.get_ref().as_str() {
            Some(text) if text.trim().is_empty() => {
                self.wrong(path, value, "must not be empty");
                None
            }
            Some(text) => Some(text),
            None => {
                self.wrong(path, value, "expected text");
                None
            }
        }
    }

    /// A list of texts.
    pub(super) fn texts<'v>(&self, path: &str, value: &'v Value<'_>) -> Vec<(At, &'v str)> {
        let Some(items) = value.get_ref().as_array() else {
            self.wrong(path, value, "expected a list of texts: [\"…\"]");
            return Vec::new();
        };
        let texts = items.iter().filter_map(|item| {
            let text = self.text(path, item)?;
            Some((self.at(item.span()), text))
        });
        texts.collect()
    }

    pub(super) fn table<'v, 'd>(
        &self,
        path: &str,
        value: &'v Value<'d>,
    ) -> Option<&'v DeTable<'d>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong(path, value, format!("expected a section: [{path}]"));
        }
        table
    }
}

/// The path of `key` in the section at `path`.
pub(super) fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
