//! Texts with placeholders.
//!
//! Invariant: every placeholder of a text is known when the configuration is read; how its value
//! is written down is up to the place where it stands.

use std::fmt;

use serde_json::Value;

use crate::{error::Failure, values::Values};

const NAME_LEN_MAX: usize = 64;

/// What is put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hole {
    ExpiresAt,
    ExpiresDate,
    ExpiresUnix,
    Handle,
    Id,
    Lease,
    Marker,
    Password,
    Principal,
    Role(String),
    Secret,
    TtlSeconds,
}

impl Hole {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "expires_at" => Self::ExpiresAt,
            "expires_date" => Self::ExpiresDate,
            "expires_unix" => Self::ExpiresUnix,
            "handle" => Self::Handle,
            "id" => Self::Id,
            "lease" => Self::Lease,
            "marker" => Self::Marker,
            "password" => Self::Password,
            "principal" => Self::Principal,
            "secret" => Self::Secret,
            "ttl_seconds" => Self::TtlSeconds,
            _ => Self::Role(name.strip_prefix("role.").filter(|name| is_name(name))?.to_owned()),
        })
    }

    /// Whether it tells the API when to end the credential.
    pub(crate) fn is_expiry(&self) -> bool {
        matches!(self, Self::ExpiresAt | Self::ExpiresDate | Self::ExpiresUnix | Self::TtlSeconds)
    }
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExpiresAt => f.write_str("{expires_at}"),
            Self::ExpiresDate => f.write_str("{expires_date}"),
            Self::ExpiresUnix => f.write_str("{expires_unix}"),
            Self::Handle => f.write_str("{handle}"),
            Self::Id => f.write_str("{id}"),
            Self::Lease => f.write_str("{lease}"),
            Self::Marker => f.write_str("{marker}"),
            Self::Password => f.write_str("{password}"),
            Self::Principal => f.write_str("{principal}"),
            Self::Role(name) => write!(f, "{{role.{name}}}"),
            Self::Secret => f.write_str("{secret}"),
            Self::TtlSeconds => f.write_str("{ttl_seconds}"),
        }
    }
}

/// The name of a role's value.
pub(crate) fn is_name(name: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    !name.is_empty() && name.len() <= NAME_LEN_MAX && name.bytes().all(legal)
}

/// What a text of the configuration has that it must not. None of them repeats the text, which
/// could have a secret that somebody put there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A brace alone.
    #[error("a `{{` or `}}` stands alone; `{{{{` and `}}}}` are the characters themselves")]
    Brace,
    /// Not the name of a header, or one that is ours to write.
    #[error("`{0}` is no name of a header, or not one that can be set")]
    Header(String),
    /// A key that another request has.
    #[error("it has no `{0}`")]
    Key(&'static str),
    /// Not a method.
    #[error("`{0}` is no method: GET, POST, PUT, PATCH and DELETE are")]
    Method(String),
    /// A placeholder where it cannot be filled or must not stand.
    #[error("{hole} cannot stand in its {place}")]
    Misplaced {
        /// Which one.
        hole: String,
        /// Where.
        place: &'static str,
    },
    /// Not a path.
    #[error("its path must begin with `/` and have no `?`, `#`, `\\`, space, `.` or `..` segment")]
    Path,
    /// Not a JSON Pointer.
    #[error("`{0}` is no JSON Pointer: it begins with `/`")]
    Pointer(String),
    /// No status, or one that means two things.
    #[error("the status {0} is none, or stands in two lists")]
    Status(u16),
    /// Nothing that we know.
    #[error("`{{{0}}}` is no placeholder")]
    Unknown(String),
}

#[derive(Clone, Debug)]
enum Piece {
    Hole(Hole),
    Plain(String),
}

/// A text with placeholders.
#[derive(Clone, Debug)]
pub(crate) struct Text(Vec<Piece>);

impl Text {
    pub(crate) fn parse(text: &str) -> Result<Self, TextError> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else {
                let hole = from.strip_prefix('{').and_then(|from| from.split_once('}'));
                let (name, after) = hole.ok_or(TextError::Brace)?;
                let hole = Hole::parse(name).ok_or_else(|| TextError::Unknown(name.to_owned()))?;
                pieces.push(Piece::Plain(std::mem::take(&mut plain)));
                pieces.push(Piece::Hole(hole));
                rest = after;
            }
        }
        plain.push_str(rest);
        pieces.push(Piece::Plain(plain));
        pieces.retain(|piece| !matches!(piece, Piece::Plain(text) if text.is_empty()));
        Ok(Self(pieces))
    }

    pub(crate) fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Hole(hole) => Some(hole),
            Piece::Plain(_) => None,
        })
    }

    /// What is no placeholder.
    pub(crate) fn plain(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Hole(_) => None,
            Piece::Plain(text) => Some(text.as_str()),
        })
    }

    /// Filled, each value written as `write` does.
    pub(crate) fn fill(
        &self,
        values: &Values<'_>,
        write: impl Fn(&str) -> String,
    ) -> Result<String, Failure> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Plain(plain) => text.push_str(plain),
                Piece::Hole(hole) => text.push_str(&write(&flat(hole, &values.of(hole)?)?)),
            }
        }
        Ok(text)
    }

    /// Filled for JSON: a placeholder alone keeps its value's type, otherwise it is text.
    pub(crate) fn json(&self, values: &Values<'_>) -> Result<Value, Failure> {
        match self.0.as_slice() {
            [Piece::Hole(hole)] => values.of(hole),
            _ => self.fill(values, str::to_owned).map(Value::String),
        }
    }
}

fn flat(hole: &Hole, value: &Value) -> Result<String, Failure> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(Failure::Refused(format!("{hole} is a list or a table, and stands within a text")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_placeholder_is_itself_and_nothing_else_is_one() {
        for name in ["expires_at", "handle", "id", "password", "role.a_B9", "ttl_seconds"] {
            let text = format!("a {{{name}}}");
            let holes: Vec<_> =
                Text::parse(&text).unwrap().holes().map(ToString::to_string).collect();
            assert_eq!(holes, [format!("{{{name}}}")]);
        }
        for bad in ["{x}", "{role.}", "{role.a-b}", "{}", "{ id }", "{role.a.b}"] {
            assert!(matches!(Text::parse(bad), Err(TextError::Unknown(_))), "{bad}");
        }
        for bad in ["{", "a}", "{id", "{{id}"] {
            assert_eq!(Text::parse(bad).unwrap_err(), TextError::Brace, "{bad}");
        }
        let values = Values::default();
        let text = Text::parse("{{\"a\": {{}}}}").unwrap();
        assert_eq!(text.fill(&values, str::to_owned).unwrap(), "{\"a\": {}}");
    }

    #[test]
    fn a_value_alone_keeps_its_type_and_within_a_text_is_text() {
        let role = json!({ "list": ["a\"", 1], "n": 40, "t": "x" });
        let values = Values { role: role.as_object(), ..Values::default() };
        let filled = |text: &str| Text::parse(text).unwrap().json(&values);
        assert_eq!(filled("{role.list}").unwrap(), json!(["a\"", 1]));
        assert_eq!(filled("{role.n}").unwrap(), json!(40));
        assert_eq!(filled("{role.n}{role.t}").unwrap(), json!("40x"));
        for bad in ["a {role.list}", "{role.none}", "{handle}"] {
            assert!(matches!(filled(bad), Err(Failure::Refused(_))), "{bad}");
        }
    }
}
