//! A JSON reader for what strangers send: tokens and key sets.
//!
//! Invariant: a text has one meaning or none. Duplicate members are refused at every depth
//! (two readers may pick different ones), as are trailing data, invalid UTF-8 and lone
//! surrogates, and every dimension is bounded.

use std::{cell::Cell, collections::BTreeMap, fmt};

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// A JSON value that is exactly what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Integer(i64),
    /// A float, or an integer beyond 64 bits. The value is not kept: nothing that we decide
    /// on may be a number that readers round differently.
    Inexact,
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

/// What a text may be at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Objects and lists within each other.
    pub(crate) depth: usize,
    /// Members of all objects together.
    pub(crate) members: usize,
    /// Elements of all lists together.
    pub(crate) elements: usize,
    /// Bytes of one string, after escapes are resolved.
    pub(crate) text_len: usize,
}

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonFault {
    #[error("nested too deeply")]
    Depth,
    #[error("a member appears twice")]
    Duplicate,
    #[error("too many members or elements")]
    Members,
    #[error("not valid JSON")]
    Syntax,
    #[error("a string is too long")]
    TextLen,
}

/// Reads the whole of `bytes` as one object.
pub(crate) fn object(bytes: &[u8], limits: Limits) -> Result<BTreeMap<String, Json>, JsonFault> {
    match value(bytes, limits)? {
        Json::Object(members) => Ok(members),
        Json::Null
        | Json::Bool(_)
        | Json::Integer(_)
        | Json::Inexact
        | Json::Text(_)
        | Json::List(_) => Err(JsonFault::Syntax),
    }
}

fn value(bytes: &[u8], limits: Limits) -> Result<Json, JsonFault> {
    let reader = Reader {
        limits,
        members_left: Cell::new(limits.members),
        elements_left: Cell::new(limits.elements),
        fault: Cell::new(JsonFault::Syntax),
    };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = Node { reader: &reader, depth_left: limits.depth }.deserialize(&mut deserializer);
    let value = read.map_err(|_| reader.fault.get())?;
    deserializer.end().map_err(|_| JsonFault::Syntax)?;
    Ok(value)
}

struct Reader {
    limits: Limits,
    members_left: Cell<usize>,
    elements_left: Cell<usize>,
    /// serde's errors are texts; the reason travels here.
    fault: Cell<JsonFault>,
}

impl Reader {
    fn refuse<E: serde::de::Error>(&self, fault: JsonFault) -> E {
        self.fault.set(fault);
        E::custom("refused")
    }

    fn take<E: serde::de::Error>(&self, left: &Cell<usize>) -> Result<(), E> {
        let rest = left.get().checked_sub(1).ok_or_else(|| self.refuse(JsonFault::Members))?;
        left.set(rest);
        Ok(())
    }
}

struct Node<'a> {
    reader: &'a Reader,
    depth_left: usize,
}

impl Node<'_> {
    fn deeper<E: serde::de::Error>(&self) -> Result<usize, E> {
        self.depth_left.checked_sub(1).ok_or_else(|| self.reader.refuse(JsonFault::Depth))
    }

    fn bounded<E: serde::de::Error>(&self, text: String) -> Result<String, E> {
        if text.len() > self.reader.limits.text_len {
            return Err(self.reader.refuse(JsonFault::TextLen));
        }
        Ok(text)
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Json;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or(Json::Inexact, Json::Integer))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Inexact)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Json, E> {
        self.bounded(text.to_owned()).map(Json::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let depth_left = self.deeper()?;
        let mut elements = Vec::new();
        while let Some(element) =
            list.next_element_seed(Node { reader: self.reader, depth_left })?
        {
            self.reader.take(&self.reader.elements_left)?;
            elements.push(element);
        }
        Ok(Json::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Json, A::Error> {
        let depth_left = self.deeper()?;
        let mut members = BTreeMap::new();
        while let Some(name) = object.next_key::<String>()? {
            self.reader.take(&self.reader.members_left)?;
            let name = self.bounded(name)?;
            let value = object.next_value_seed(Node { reader: self.reader, depth_left })?;
            if members.insert(name, value).is_some() {
                return Err(self.reader.refuse(JsonFault::Duplicate));
            }
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { depth: 3, members: 4, elements: 4, text_len: 8 };

    fn read(text: &str) -> Result<Json, JsonFault> {
        value(text.as_bytes(), LIMITS)
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let Json::Object(members) = read(r#"{"a":[null,true,-1],"b":{"c":"x"},"d":1.5}"#).unwrap()
        else {
            panic!("an object")
        };
        assert_eq!(members["a"], Json::List(vec![Json::Null, Json::Bool(true), Json::Integer(-1)]));
        assert_eq!(members["d"], Json::Inexact);
        assert_eq!(read("9223372036854775807"), Ok(Json::Integer(i64::MAX)));
        for inexact in ["9223372036854775808", "1e0", "-0", "1.0", "99999999999999999999999"] {
            assert_eq!(read(inexact), Ok(Json::Inexact), "{inexact}");
        }
    }

    #[test]
    fn duplicate_members_are_refused_at_every_depth() {
        assert_eq!(read(r#"{"a":1,"a":1}"#), Err(JsonFault::Duplicate));
        assert_eq!(read(r#"[{"b":{"a":1,"a":2}}]"#), Err(JsonFault::Duplicate));
        // The same name, written with an escape.
        assert_eq!(read(r#"{"sub":1,"s\u0075b":2}"#), Err(JsonFault::Duplicate));
        assert!(read(r#"{"a":{"a":1}}"#).is_ok());
    }

    #[test]
    fn bounds_hold_and_what_just_fits_passes() {
        assert!(read("[[[1]]]").is_ok());
        assert_eq!(read("[[[[1]]]]"), Err(JsonFault::Depth));
        assert!(read("[1,2,3,4]").is_ok());
        assert_eq!(read("[1,2,3,4,5]"), Err(JsonFault::Members));
        assert!(read(r#"{"a":1,"b":1,"c":1,"d":1}"#).is_ok());
        assert_eq!(read(r#"{"a":1,"b":1,"c":1,"d":{"e":1}}"#), Err(JsonFault::Members));
        assert!(read(r#""12345678""#).is_ok());
        assert_eq!(read(r#""123456789""#), Err(JsonFault::TextLen));
        assert_eq!(read(r#"{"123456789":1}"#), Err(JsonFault::TextLen));
    }

    #[test]
    fn what_is_not_json_to_the_letter_is_refused() {
        let cases: [&[u8]; 14] = [
            b"",
            b"{} {}",
            b"{}x",
            b"\xef\xbb\xbf{}",
            b"\"\xff\"",
            b"\"\xc0\xaf\"",
            b"\"\xed\xa0\x80\"",
            br#""\ud800""#,
            br#""\udc00\ud800""#,
            b"{\"a\":1,}",
            b"[1e400]",
            b"NaN",
            b"{'a':1}",
            b"01",
        ];
        for case in cases {
            assert_eq!(value(case, LIMITS), Err(JsonFault::Syntax), "{case:?}");
        }
        assert_eq!(read(r#""\ud83d\ude00""#), Ok(Json::Text("😀".into())));
    }
}
