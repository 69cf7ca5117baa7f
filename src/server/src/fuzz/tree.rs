//! JSON as it is written: members in their order, also those that are there twice.

use std::{collections::BTreeSet, fmt};

use data_encoding::BASE64URL_NOPAD;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::{Dice, change_bytes};

/// Names that mean something to one of our readers, or to other people's.
const NAMES: &[&str] = &[
    "",
    ".",
    "a.b",
    "__proto__",
    "alg",
    "kid",
    "typ",
    "jwk",
    "jku",
    "x5u",
    "x5c",
    "x5t",
    "crit",
    "b64",
    "zip",
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "nbf",
    "jti",
    "kty",
    "crv",
    "x",
    "y",
    "n",
    "e",
    "d",
    "p",
    "k",
    "oth",
    "use",
    "key_ops",
    "keys",
    "url",
    "method",
    "headers",
    "body",
    "host",
    "x-amz-date",
    "X-Amz-Target",
    "x-dayfly-server-id",
    "x-dayfly-nonce",
    "action",
    "workflow_job",
    "workflow_run",
    "repository",
    "id",
    "run_id",
    "run_attempt",
    "check_run_url",
    "conclusion",
    "object_kind",
    "builds",
    "status",
    "event",
    "job",
    "build",
    "pipeline",
    "repository_id",
];

/// Values, as they are written.
const VALUES: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-1",
    "1",
    "1.0",
    "1e0",
    "1790000000",
    "253402300800",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "\"\"",
    "\" \"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\u{fc}\"",
    "\"none\"",
    "\"HS256\"",
    "\"RS256\"",
    "\"ES256\"",
    "\"EdDSA\"",
    "\"Ed25519\"",
    "\"sig\"",
    "\"verify\"",
    "\"AAAA\"",
    "\"AQAB\"",
    "\"completed\"",
    "\"success\"",
    "\"canceled\"",
    "\"https://dayfly.example\"",
    "[]",
    "[null]",
    "[\"verify\"]",
    "{}",
    "{\"a\":{\"b\":1}}",
    "{\"a\":1,\"a\":2}",
    "[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]",
];

/// A value.
#[derive(Clone)]
pub(crate) enum Node {
    List(Vec<Node>),
    /// The names are as they are written, with their quotes.
    Object(Vec<(String, Node)>),
    /// Anything else, as it is written.
    Plain(String),
}

impl Node {
    /// Reads what any lenient reader does.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Whether no object has two members of one name: readers differ in which of them they take.
    /// Asked of what was read.
    pub(crate) fn is_unambiguous(&self) -> bool {
        match self {
            Self::List(list) => list.iter().all(Self::is_unambiguous),
            Self::Object(members) => {
                let names: BTreeSet<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
                names.len() == members.len()
                    && members.iter().all(|(_, value)| value.is_unambiguous())
            }
            Self::Plain(_) => true,
        }
    }

    /// `text` with a few things changed that leave it JSON, as a rule. Nothing where it is none.
    pub(crate) fn changed(text: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
        let mut root = Self::read(text)?;
        for _ in 0..=dice.below(3) {
            let n = dice.below(root.count());
            root.nth(n)?.change(dice);
        }
        let mut text = String::new();
        root.write(&mut text);
        Some(text.into_bytes())
    }

    /// Every text, number and word, as it is written; no names. Asked of what was read.
    pub(crate) fn plain(&self) -> Vec<&str> {
        match self {
            Self::List(list) => list.iter().flat_map(Self::plain).collect(),
            Self::Object(members) => members.iter().flat_map(|(_, value)| value.plain()).collect(),
            Self::Plain(plain) => vec![plain.as_str()],
        }
    }

    fn count(&self) -> usize {
        let below: usize = match self {
            Self::List(list) => list.iter().map(Self::count).sum(),
            Self::Object(members) => members.iter().map(|(_, value)| value.count()).sum(),
            Self::Plain(_) => 0,
        };
        1 + below
    }

    /// The `n`th value of all, this one being the first.
    fn nth(&mut self, n: usize) -> Option<&mut Self> {
        let Some(mut left) = n.checked_sub(1) else { return Some(self) };
        let children: Vec<&mut Self> = match self {
            Self::List(list) => list.iter_mut().collect(),
            Self::Object(members) => members.iter_mut().map(|(_, value)| value).collect(),
            Self::Plain(_) => Vec::new(),
        };
        for child in children {
            let count = child.count();
            if left < count {
                return child.nth(left);
            }
            left -= count;
        }
        None
    }

    fn change(&mut self, dice: &mut Dice) {
        if dice.one_in(8) {
            *self = drawn(dice);
            return;
        }
        if dice.one_in(16) {
            let inner = std::mem::replace(self, Self::Plain(String::new()));
            *self = Self::List(vec![inner]);
            return;
        }
        match self {
            Self::List(list) => change_list(list, dice),
            Self::Object(members) => change_members(members, dice),
            Self::Plain(text) => change_text(text, dice),
        }
    }

    fn write(&self, text: &mut String) {
        match self {
            Self::List(list) => {
                for (index, value) in list.iter().enumerate() {
                    text.push(if index == 0 { '[' } else { ',' });
                    value.write(text);
                }
                text.push_str(if list.is_empty() { "[]" } else { "]" });
            }
            Self::Object(members) => {
                for (index, (name, value)) in members.iter().enumerate() {
                    text.push(if index == 0 { '{' } else { ',' });
                    text.push_str(name);
                    text.push(':');
                    value.write(text);
                }
                text.push_str(if members.is_empty() { "{}" } else { "}" });
            }
            Self::Plain(plain) => text.push_str(plain),
        }
    }
}

fn drawn(dice: &mut Dice) -> Node {
    Node::Plain((*dice.pick(VALUES)).to_owned())
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn change_list(list: &mut Vec<Node>, dice: &mut Dice) {
    let at = dice.below(list.len());
    match dice.below(4) {
        0 => list.push(drawn(dice)),
        1 if !list.is_empty() => drop(list.remove(at)),
        2 if !list.is_empty() => {
            // To beyond the limits on elements and keys, now and then.
            let times = 1_usize << dice.below(8);
            let again = list[at].clone();
            list.extend(std::iter::repeat_n(again, times));
        }
        _ => list.reverse(),
    }
}

fn change_members(members: &mut Vec<(String, Node)>, dice: &mut Dice) {
    let name: &&str = dice.pick(NAMES);
    let name = quoted(name);
    if members.is_empty() || dice.one_in(4) {
        members.push((name, drawn(dice)));
        return;
    }
    let at = dice.below(members.len());
    match dice.below(5) {
        0 => drop(members.remove(at)),
        1 => members[at].0 = name,
        2 => {
            // Twice, written alike or not, before or after.
            let (name, value) = members[at].clone();
            let name = if dice.one_in(2) { escaped(&name) } else { name };
            let value = if dice.one_in(2) { drawn(dice) } else { value };
            members.insert(dice.below(members.len() + 1), (name, value));
        }
        3 => {
            // Names that are one to who doesn't look at the case.
            let name = members[at].0.to_ascii_uppercase();
            members.push((name, drawn(dice)));
        }
        _ => {
            let other = dice.below(members.len());
            members.swap(at, other);
        }
    }
}

/// The same text with its first character as an escape.
fn escaped(quoted: &str) -> String {
    let inner = quoted.trim_matches('"');
    let mut characters = inner.chars();
    match characters.next() {
        Some(first) if first.is_ascii_alphanumeric() => {
            format!("\"\\u{:04x}{}\"", u32::from(first), characters.as_str())
        }
        Some(_) | None => quoted.to_owned(),
    }
}

fn change_text(text: &mut String, dice: &mut Dice) {
    let Ok(inner) = serde_json::from_str::<String>(text) else {
        (*dice.pick(VALUES)).clone_into(text);
        return;
    };
    let changed = |mut bytes: Vec<u8>, dice: &mut Dice| {
        change_bytes(&mut bytes, b"", dice);
        bytes
    };
    *text = match (dice.below(5), BASE64URL_NOPAD.decode(inner.as_bytes())) {
        (0, _) => String::from_utf8_lossy(&changed(text.clone().into_bytes(), dice)).into_owned(),
        (1, _) => escaped(text),
        // A number within: a coordinate, a modulus.
        (2 | 3, Ok(bytes)) => quoted(&BASE64URL_NOPAD.encode(&changed(bytes, dice))),
        (_, _) => quoted(&String::from_utf8_lossy(&changed(inner.into_bytes(), dice))),
    };
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Plain("null".to_owned()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Plain(Value::from(value).to_string()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Plain(quoted(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            elements.push(element);
        }
        Ok(Node::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = object.next_entry::<String, Node>()? {
            members.push((quoted(&name), value));
        }
        Ok(Node::Object(members))
    }
}
