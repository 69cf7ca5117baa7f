//! `dayfly://ROLE/FIELD` in the middle of other text.
//!
//! Invariant: what looks like a reference is one, or is an error; it never reaches the command as
//! it stands.

use crate::args::{FieldName, is_word_char};

const SCHEME: &str = "dayfly://";

/// Text with fields in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Field(FieldName),
    Literal(String),
}

/// There is a `dayfly://` without role and field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Whether `text` has a reference, or something that looks like one.
pub(super) fn has_reference(text: &str) -> bool {
    text.contains(SCHEME)
}

impl Text {
    /// Nothing but one field.
    pub(super) fn field(field: FieldName) -> Self {
        Self(vec![Piece::Field(field)])
    }

    /// A role's and a field's name end where a character follows that they can't have.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let mut parts = text.split(SCHEME);
        let mut pieces = vec![Piece::Literal(parts.next().unwrap_or_default().to_owned())];
        for part in parts {
            let (role, rest) = part.split_once('/').ok_or(Malformed)?;
            let end = rest.find(|c: char| !is_word_char(c)).unwrap_or(rest.len());
            let (field, literal) = rest.split_at(end);
            if role.is_empty() || field.is_empty() || !role.chars().all(is_word_char) {
                return Err(Malformed);
            }
            let (role, field) = (role.to_owned(), field.to_owned());
            pieces.push(Piece::Field(FieldName { role, field }));
            pieces.push(Piece::Literal(literal.to_owned()));
        }
        pieces.retain(|piece| !matches!(piece, Piece::Literal(text) if text.is_empty()));
        Ok(Self(pieces))
    }

    /// The fields in it.
    pub(super) fn fields(&self) -> impl Iterator<Item = &FieldName> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Field(field) => Some(field),
            Piece::Literal(_) => None,
        })
    }

    /// The text with what `value` says in the place of each field.
    pub(super) fn resolve<'a, E>(
        &self,
        value: impl Fn(&FieldName) -> Result<&'a str, E>,
    ) -> Result<String, E> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Field(field) => text.push_str(value(field)?),
                Piece::Literal(literal) => text.push_str(literal),
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> Option<String> {
        let text = Text::parse(text).ok()?;
        let value = |name: &FieldName| match (name.role.as_str(), name.field.as_str()) {
            ("pg-read", "user_name") => Ok("u"),
            ("pg-read", "password") => Ok("p"),
            _ => Err(()),
        };
        text.resolve(value).ok()
    }

    #[test]
    fn fields_are_replaced_where_they_stand() {
        for (text, expected) in [
            ("dayfly://pg-read/password", "p"),
            (
                "postgres://dayfly://pg-read/user_name:dayfly://pg-read/password@db/x",
                "postgres://u:p@db/x",
            ),
            ("{\"p\":\"dayfly://pg-read/password\"}", "{\"p\":\"p\"}"),
            ("dayfly://pg-read/passworddayfly://pg-read/password", "pp"),
            ("dayfly://pg-read/password.dayfly://pg-read/password/", "p.p/"),
            ("nothing", "nothing"),
            ("", ""),
        ] {
            assert_eq!(resolved(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(resolved("dayfly://pg-read/password-x"), None, "another field");
    }

    #[test]
    fn half_a_reference_is_an_error() {
        for bad in ["dayfly://", "dayfly://r", "dayfly://r/", "dayfly:///f", "x dayfly://a b/c"] {
            assert_eq!(Text::parse(bad), Err(Malformed), "{bad}");
        }
    }

    #[test]
    fn the_fields_of_a_text_are_known() {
        let text = Text::parse("dayfly://a/x-dayfly://b/y").unwrap();
        let roles: Vec<_> = text.fields().map(|name| name.role.as_str()).collect();
        assert_eq!(roles, ["a", "b"]);
    }
}
