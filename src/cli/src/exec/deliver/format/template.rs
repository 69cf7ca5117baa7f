//! A user's own file with `{{ role.field }}` in it.
//!
//! Invariant: what is between braces is understood, or is an error with its line and column; the
//! rest of the file is kept byte by byte.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::properties;
use crate::args::{FieldName, is_word};

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
/// What stands between braces for two braces.
const BRACES: &str = "\"{{\"";

/// A file with fields in it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::exec::deliver) struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Field { name: FieldName, filter: Filter, at: Position },
    Literal(String),
}

/// How a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    Json,
    Plain,
    Properties,
    Shell,
    Url,
}

/// Where something is, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::exec::deliver) struct Position {
    pub(in crate::exec::deliver) line: usize,
    pub(in crate::exec::deliver) column: usize,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::exec::deliver) struct Fault {
    pub(in crate::exec::deliver) at: Position,
    pub(in crate::exec::deliver) reason: String,
}

impl Template {
    pub(in crate::exec::deliver) fn parse(text: &str) -> Result<Self, Fault> {
        let mut pieces = Vec::new();
        let mut at = Position { line: 1, column: 1 };
        let mut rest = text;
        while let Some((literal, tail)) = rest.split_once(OPEN) {
            let begin = at.after(literal);
            let fault = |reason: &str| Fault { at: begin, reason: reason.to_owned() };
            let (inner, tail) = tail.split_once(CLOSE).ok_or_else(|| fault("`{{` has no `}}`"))?;
            pieces.push(Piece::Literal(literal.to_owned()));
            pieces.push(piece(inner.trim(), begin).map_err(|reason| fault(&reason))?);
            at = begin.after(OPEN).after(inner).after(CLOSE);
            rest = tail;
        }
        pieces.push(Piece::Literal(rest.to_owned()));
        Ok(Self(pieces))
    }

    /// The fields in it.
    pub(in crate::exec::deliver) fn fields(&self) -> impl Iterator<Item = &FieldName> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Field { name, .. } => Some(name),
            Piece::Literal(_) => None,
        })
    }

    /// The file with what `value` says in the place of each field, or why it says nothing.
    pub(in crate::exec::deliver) fn render<'a>(
        &self,
        value: impl Fn(&FieldName) -> Result<&'a str, String>,
    ) -> Result<Zeroizing<String>, Fault> {
        let mut text = Zeroizing::new(String::new());
        for piece in &self.0 {
            match piece {
                Piece::Field { name, filter, at } => {
                    let value = value(name).map_err(|reason| Fault { at: *at, reason })?;
                    filter.write(value, &mut text);
                }
                Piece::Literal(literal) => text.push_str(literal),
            }
        }
        Ok(text)
    }
}

fn piece(inner: &str, at: Position) -> Result<Piece, String> {
    if inner == BRACES {
        return Ok(Piece::Literal(OPEN.to_owned()));
    }
    let (name, filter) = match inner.split_once('|') {
        Some((name, filter)) => (name.trim_end(), Filter::named(filter.trim_start())?),
        None => (inner, Filter::Plain),
    };
    let words = name.split_once('.');
    let words = words.filter(|(role, field)| is_word(role) && is_word(field));
    let (role, field) = words.ok_or("expected {{ ROLE.FIELD }} or {{ ROLE.FIELD | FILTER }}")?;
    let name = FieldName { role: role.to_owned(), field: field.to_owned() };
    Ok(Piece::Field { name, filter, at })
}

impl Filter {
    fn named(name: &str) -> Result<Self, String> {
        match name {
            "json" => Ok(Self::Json),
            "properties" => Ok(Self::Properties),
            "shell" => Ok(Self::Shell),
            "url" => Ok(Self::Url),
            _ => Err("the filters are json, properties, shell and url".to_owned()),
        }
    }

    fn write(self, value: &str, text: &mut String) {
        match self {
            Self::Json => text.push_str(&serde_json::Value::from(value).to_string()),
            Self::Plain => text.push_str(value),
            Self::Properties => text.push_str(&properties::escaped(value, false)),
            Self::Shell => {
                let _ = write!(text, "'{}'", value.replace('\'', "'\\''"));
            }
            Self::Url => percent_encoded(value, text),
        }
    }
}

/// Everything but what RFC 3986 never reserves, so that it fits each part of a URL.
fn percent_encoded(value: &str, text: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

impl Position {
    fn after(self, text: &str) -> Self {
        match text.rsplit_once('\n') {
            Some((before, last)) => Self {
                line: self.line + before.matches('\n').count() + 1,
                column: last.chars().count() + 1,
            },
            None => Self { column: self.column + text.chars().count(), ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "it's \"a\" b/c:d@e%f\\\n$x ä";

    fn rendered(text: &str) -> Result<String, String> {
        let shown =
            |fault: Fault| format!("{}:{}: {}", fault.at.line, fault.at.column, fault.reason);
        let value = |name: &FieldName| match (name.role.as_str(), name.field.as_str()) {
            ("pg-read", "password") => Ok(HOSTILE),
            ("pg-read", "username") => Ok("df_x"),
            _ => Err(format!("no {}", name.field)),
        };
        let text = Template::parse(text).and_then(|template| template.render(value));
        text.map(|text| text.to_string()).map_err(shown)
    }

    #[test]
    fn fields_are_written_where_they_stand() {
        assert_eq!(
            rendered("user = {{ pg-read.username }}\r\n{{pg-read.username}}.{ }} {\n").unwrap(),
            "user = df_x\r\ndf_x.{ }} {\n"
        );
        assert_eq!(rendered("{{ \"{{\" }} x }}").unwrap(), "{{ x }}");
        assert_eq!(rendered("").unwrap(), "");
        assert_eq!(rendered("{{ pg-read.password }}").unwrap(), HOSTILE);
    }

    #[test]
    fn a_filter_writes_what_its_reader_undoes() {
        let json = rendered("{{ pg-read.password | json }}").unwrap();
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), HOSTILE);
        let shell = rendered("printf %s {{ pg-read.password|shell }}").unwrap();
        let output = std::process::Command::new("sh").args(["-c", &shell]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), HOSTILE);
        let url = rendered("http://u:{{ pg-read.password | url }}@h/").unwrap();
        assert!(url.contains("it%27s%20%22a%22%20b%2Fc%3Ad%40e%25f%5C%0A%24x%20%C3%A4@h"), "{url}");
        assert_eq!(url::Url::parse(&url).unwrap().host_str(), Some("h"));
        let properties = rendered("p={{ pg-read.password | properties }}").unwrap();
        assert_eq!(properties, "p=it's \"a\" b/c\\:d@e%f\\\\\\n$x \\u00E4");
    }

    #[test]
    fn mistakes_have_their_line_and_column() {
        for (text, expected) in [
            ("a\nä {{ x", "2:3: `{{` has no `}}`"),
            ("{{ x }}", "1:1: expected {{ ROLE.FIELD }} or {{ ROLE.FIELD | FILTER }}"),
            ("\n\n  {{ a.b | upper }}", "3:3: the filters are json, properties, shell and url"),
            ("{{ pg-read.username }}\n{{ pg-read.key }}", "2:1: no key"),
            (
                "{{ pg-read.username }} {{\npg-read.username }} {{ a.b.c }}",
                "2:21: expected {{ ROLE.FIELD }} or {{ ROLE.FIELD | FILTER }}",
            ),
        ] {
            assert_eq!(rendered(text).unwrap_err(), expected, "{text:?}");
        }
    }

    #[test]
    fn its_fields_are_known() {
        let template = Template::parse("{{ a.x }}{{ \"{{\" }}{{ b.y | url }}").unwrap();
        let names: Vec<_> = template.fields().map(|name| name.role.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
