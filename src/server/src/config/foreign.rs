//! Deserializing a section into a type that is not ours, with every fault at its place.
//!
//! Serde stops at the first fault. So the section is read again and again: what was faulty
//! or missing is noted once and from then on stands in with an invented value, until
//! nothing new comes up. Invariant: a value is returned only if nothing was invented.

mod access;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt,
};

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Error as _, IntoDeserializer, Unexpected, Visitor,
    value::StrDeserializer,
};

use super::{
    fault::{At, Fault, Wrong},
    tree::{Item, Table, Value},
};
use access::{Choice, Elements, Entries};

/// Each pass finds at least one more fault, or tries the next stand-in.
const PASSES_MAX: usize = 256;

/// Texts that stand in: the first that a type takes, so that its neighbours are read too.
const STAND_INS: [&str; 4] = ["", "a", "1s", "127.0.0.1:1"];

/// What is wrong with a section.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// What is not there.
    pub(super) absent: Vec<Fault>,
    /// What is there and wrong.
    pub(super) wrong: Vec<Fault>,
}

/// Reads `table`, which stands at `at` under `path`.
pub(super) fn deserialize<T: DeserializeOwned>(
    at: &At,
    path: &str,
    table: &Table,
) -> Result<T, Refused> {
    let run = Run::default();
    let root = Value::Table(table.clone());
    let root = Node { at, value: Some(&root), path: path.to_owned(), run: &run };
    let mut value = None;
    for _ in 0..PASSES_MAX {
        value = T::deserialize(root.clone()).map_err(|stop| root.settle(stop)).ok();
        if value.is_some() || run.exhausted(path) {
            break;
        }
    }
    let (absent, wrong) = (run.absent.take(), run.wrong.take());
    match value {
        Some(value) if absent.is_empty() && wrong.is_empty() => Ok(value),
        Some(_) | None => Err(Refused {
            absent: absent.into_values().collect(),
            wrong: wrong.into_values().collect(),
        }),
    }
}

/// What is remembered from one pass to the next, by path.
#[derive(Default)]
struct Run {
    absent: RefCell<BTreeMap<String, Fault>>,
    wrong: RefCell<BTreeMap<String, Fault>>,
    /// What is invented, with the number of stand-ins that were refused.
    invented: RefCell<BTreeMap<String, usize>>,
    stuck: Cell<bool>,
}

impl Run {
    fn note(&self, path: &str, at: &At, wrong: Wrong) {
        let mut faults = self.wrong.borrow_mut();
        faults.entry(path.to_owned()).or_insert_with(|| at.fault(path, wrong));
    }

    fn invent(&self, path: &str) {
        let mut invented = self.invented.borrow_mut();
        let refused = invented.entry(path.to_owned()).and_modify(|n| *n += 1).or_insert(0);
        if *refused >= STAND_INS.len() {
            self.stuck.set(true);
        }
    }

    fn invented(&self, path: &str) -> Option<usize> {
        self.invented.borrow().get(path).copied()
    }

    /// Whether another pass would bring nothing.
    fn exhausted(&self, root: &str) -> bool {
        self.stuck.get() || self.invented(root).is_some()
    }
}

/// Why serde stopped.
#[derive(Debug)]
enum Stop {
    Missing(&'static str),
    Noted,
    Unknown { field: String, known: &'static [&'static str] },
    Wrong(Wrong),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the section cannot be read")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Wrong(message.to_string().into())
    }

    // The value is not repeated: a secret may stand where it should not.
    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "true or false",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number",
            Unexpected::Float(_) => "a number with a fraction",
            Unexpected::Char(_) | Unexpected::Str(_) | Unexpected::Bytes(_) => "text",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            Unexpected::Other(other) => other,
            Unexpected::Unit
            | Unexpected::Option
            | Unexpected::NewtypeStruct
            | Unexpected::Enum
            | Unexpected::UnitVariant
            | Unexpected::NewtypeVariant
            | Unexpected::TupleVariant
            | Unexpected::StructVariant => "something else",
        };
        Self::Wrong(format!("expected {}, found {found}", plain(expected)).into())
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::Wrong(format!("expected {}", plain(expected)).into())
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        Self::Wrong(Wrong::not_one_of(variant, known))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::Unknown { field: field.to_owned(), known }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}

/// Rust's words for types, in those of a person who writes TOML.
fn plain(expected: &dyn de::Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "a string" | "string" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" | "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        word if word.starts_with("struct ") => "a table".to_owned(),
        word if word.starts_with("a nonzero ") => "a whole number, 1 or more".to_owned(),
        _ => expected,
    }
}

/// What serde asks for.
#[derive(Clone, Copy)]
enum Hint {
    Any,
    Enum(&'static [&'static str]),
    Flag,
    Float,
    Map,
    Newtype,
    Number,
    Optional,
    Seq,
    Struct(&'static [&'static str]),
    Text,
    Unit,
}

/// A value on its way to serde; without one, it is invented.
#[derive(Clone)]
struct Node<'a> {
    at: &'a At,
    value: Option<&'a Value>,
    path: String,
    run: &'a Run,
}

impl<'a> Node<'a> {
    fn give<'de, V: Visitor<'de>>(self, hint: Hint, visitor: V) -> Result<V::Value, Stop> {
        let invented = self.run.invented(&self.path);
        let result = match self.value {
            Some(value) if invented.is_none() => self.clone().written(value, hint, visitor),
            Some(_) | None => self.clone().invented(invented.unwrap_or(0), hint, visitor),
        };
        result.map_err(|stop| {
            self.settle(stop);
            Stop::Noted
        })
    }

    /// Lets a value inside another be read. Some types take what they are given and refuse it
    /// afterwards (`try_from`, tags); then the refusal has its place here.
    fn grow<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stop> {
        seed.deserialize(self.clone()).map_err(|stop| {
            self.settle(stop);
            Stop::Noted
        })
    }

    /// Notes why serde stopped at this value, and sees to it that the next pass gets further.
    fn settle(&self, stop: Stop) {
        let real = self.value.is_some() && self.run.invented(&self.path).is_none();
        match stop {
            Stop::Noted => {}
            Stop::Missing(field) if real => {
                let path = self.child(field);
                let fault = self.at.fault(&*path, format!("the key `{field}` is missing"));
                self.run.invent(&path);
                self.run.absent.borrow_mut().insert(path, fault);
            }
            Stop::Unknown { field, known } if real => {
                let path = self.child(&field);
                self.run.note(&path, self.key_at(&field), Wrong::unknown("key", &field, known));
                // Nothing can stand in for what must not be there.
                self.run.invent(&self.path);
            }
            Stop::Wrong(wrong) if real => {
                self.run.note(&self.path, self.at, wrong);
                self.run.invent(&self.path);
            }
            Stop::Missing(_) | Stop::Unknown { .. } | Stop::Wrong(_) => self.run.invent(&self.path),
        }
    }

    fn written<'de, V: Visitor<'de>>(
        self,
        value: &'a Value,
        hint: Hint,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        match (hint, value) {
            (Hint::Optional, _) => visitor.visit_some(self),
            (Hint::Newtype, _) => visitor.visit_newtype_struct(self),
            (Hint::Enum(known), Value::Text(word)) if !known.contains(&word.as_str()) => {
                Err(Stop::unknown_variant(word, known))
            }
            (Hint::Enum(_), Value::Text(word)) => visitor.visit_enum(word_of(word)),
            (Hint::Enum(_), Value::Table(table)) => visitor.visit_enum(Choice::new(self, table)),
            (_, Value::Text(text)) if text.trim().is_empty() => {
                Err(Stop::Wrong("must not be empty".into()))
            }
            (_, Value::Text(text)) => visitor.visit_str(text),
            (_, Value::Flag(flag)) => visitor.visit_bool(*flag),
            (_, Value::Float(float)) => visitor.visit_f64(*float),
            (_, Value::Integer(integer)) => {
                match (i64::try_from(*integer), u64::try_from(*integer)) {
                    (Ok(integer), _) => visitor.visit_i64(integer),
                    (_, Ok(integer)) => visitor.visit_u64(integer),
                    _ => Err(Stop::Wrong("the number is too large".into())),
                }
            }
            (Hint::Any, Value::Time(time)) => visitor.visit_str(time),
            (_, Value::Time(_)) => {
                Err(Stop::invalid_type(Unexpected::Other(value.kind()), &visitor))
            }
            (_, Value::Array(items)) => visitor.visit_seq(Elements::new(self, items)),
            (Hint::Struct(fields), Value::Table(table)) => {
                let entries = self.entries(table, fields);
                visitor.visit_map(Entries::new(self, entries))
            }
            (_, Value::Table(table)) => {
                let entries = self.pairs(table);
                visitor.visit_map(Entries::new(self, entries))
            }
        }
    }

    /// The fields that serde knows; others are noted here, all at once.
    fn entries(&self, table: &'a Table, fields: &'static [&'static str]) -> Vec<Pair<'a>> {
        let free: Vec<_> =
            fields.iter().copied().filter(|field| table.item(field).is_none()).collect();
        for (key, entry) in &table.0 {
            if !fields.contains(&key.as_str()) {
                let mut wrong = Wrong::unknown("key", key, &free);
                if wrong.suggestion.is_none() {
                    wrong = Wrong::unknown("key", key, fields);
                }
                self.run.note(&self.child(key), &entry.key, wrong);
            }
        }
        let invented =
            free.into_iter().filter(|field| self.run.invented(&self.child(field)).is_some());
        let known = self.pairs(table).into_iter().filter(|(key, _)| fields.contains(key));
        known.chain(invented.map(|field| (field, None))).collect()
    }

    fn invented<'de, V: Visitor<'de>>(
        self,
        refused: usize,
        hint: Hint,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let text = STAND_INS.get(refused).copied().unwrap_or_default();
        match hint {
            Hint::Any | Hint::Text => visitor.visit_str(text),
            Hint::Enum(known) => match known.get(refused) {
                Some(word) => visitor.visit_enum(word_of(word)),
                None => Err(Stop::Noted),
            },
            Hint::Flag => visitor.visit_bool(false),
            Hint::Float => visitor.visit_f64(1.0),
            Hint::Map => visitor.visit_map(Entries::new(self, Vec::new())),
            Hint::Newtype => visitor.visit_newtype_struct(self),
            Hint::Number => visitor.visit_u64(1),
            Hint::Optional => visitor.visit_none(),
            Hint::Seq => visitor.visit_seq(Elements::new(self, &[])),
            Hint::Struct(fields) => {
                let entries: Vec<_> = fields.iter().map(|field| (*field, None)).collect();
                let node = Node { value: None, ..self };
                visitor.visit_map(Entries::new(node, entries))
            }
            Hint::Unit => visitor.visit_unit(),
        }
    }

    /// The keys of a table, those that failed last: what nothing can stand in for stops a pass.
    fn pairs(&self, table: &'a Table) -> Vec<Pair<'a>> {
        let pairs = table.0.iter().map(|(key, entry)| (key.as_str(), Some(&entry.item)));
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_by_key(|(key, _)| self.run.invented(&self.child(key)).is_some());
        pairs
    }

    fn child(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    fn key_at(&self, key: &str) -> &'a At {
        match self.value {
            Some(Value::Table(table)) => table.0.get(key).map_or(self.at, |entry| &entry.key),
            _ => self.at,
        }
    }
}

fn word_of(word: &str) -> StrDeserializer<'_, Stop> {
    word.into_deserializer()
}

/// A key and its value.
type Pair<'a> = (&'a str, Option<&'a Item>);

#[cfg(test)]
mod tests;
