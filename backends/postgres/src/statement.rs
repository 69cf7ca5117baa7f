//! Statements that an administrator adds to a role's template.
//!
//! Invariant: a value gets in only at a placeholder, and only quoted. `{{name}}` is a quoted
//! identifier, `{{name_literal}}` and `{{expiration}}` are quoted literals.

use dayfly_backend_sdk::Handle;

use crate::quote::{Ident, Literal, Sql};

/// A statement that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Nothing in it.
    #[error("a statement is empty")]
    Empty,
    /// A zero byte, which ends the text for the server.
    #[error("a zero byte in a statement")]
    Nul,
    /// `{{` without `}}`.
    #[error("a `{{{{` without its `}}}}` in `{0}`")]
    Open(String),
    /// Inside quotes, the quotes that the placeholder brings would end them.
    #[error("`{{{{{0}}}}}` stands next to a quote; it brings its own")]
    Quoted(String),
    /// It would end the transaction in which all of the mint or none of it happens.
    #[error("`{0}` would leave the transaction")]
    Transaction(String),
    /// Not one of those that can be filled in here.
    #[error("`{{{{{0}}}}}` cannot be filled in here")]
    Unknown(String),
}

/// What fills the placeholders.
#[derive(Debug)]
pub(crate) struct Values {
    name: Ident,
    name_literal: Literal,
    expiration: Option<Literal>,
}

impl Values {
    pub(crate) fn new(handle: &Handle, expiration: Option<Literal>) -> Self {
        Self { name: Ident::handle(handle), name_literal: Literal::handle(handle), expiration }
    }
}

/// Whether a statement runs at the mint, where there is an expiry, or at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Mint,
    Revoke,
}

/// An administrator's statement in its pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Name,
    NameLiteral,
    Expiration,
}

impl Statement {
    /// Reads one entry of `statements` or `revoke_statements`.
    pub(crate) fn parse(text: &str, moment: Moment) -> Result<Self, StatementError> {
        checked(text)?;
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, behind) =
                after.split_once("}}").ok_or_else(|| StatementError::Open(text.to_owned()))?;
            let name = name.trim();
            if before.ends_with(['\'', '"']) || behind.starts_with(['\'', '"']) {
                return Err(StatementError::Quoted(name.to_owned()));
            }
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(match (name, moment) {
                ("name", _) => Piece::Name,
                ("name_literal", _) => Piece::NameLiteral,
                ("expiration", Moment::Mint) => Piece::Expiration,
                _ => return Err(StatementError::Unknown(name.to_owned())),
            });
            rest = behind;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    /// Appends the statement with its values and a semicolon.
    pub(crate) fn render(&self, mut sql: Sql, values: &Values) -> Sql {
        for piece in &self.0 {
            sql = match (piece, &values.expiration) {
                (Piece::Text(text), _) => sql.administrators(text),
                (Piece::Name, _) => sql.ident(&values.name),
                (Piece::NameLiteral, _) => sql.literal(&values.name_literal),
                (Piece::Expiration, Some(expiration)) => sql.literal(expiration),
                (Piece::Expiration, None) => sql.text("NULL"),
            };
        }
        // On a line of its own, so that a comment at the end cannot swallow it.
        sql.text("\n;\n")
    }
}

fn checked(text: &str) -> Result<(), StatementError> {
    if text.contains('\0') {
        return Err(StatementError::Nul);
    }
    let words = first_words(text);
    if words.is_empty() {
        return Err(StatementError::Empty);
    }
    let leaves =
        ["abort", "begin", "commit", "end", "prepare", "release", "rollback", "savepoint", "start"];
    match words.iter().find(|word| leaves.contains(&word.to_ascii_lowercase().as_str())) {
        Some(word) => Err(StatementError::Transaction((*word).to_owned())),
        None => Ok(()),
    }
}

/// The first word of each statement in `text`. What is quoted or in a comment is no word, and a `;`
/// in it ends nothing.
fn first_words(text: &str) -> Vec<&str> {
    let (mut words, mut rest, mut begins) = (Vec::new(), text, true);
    while let Some(first) = rest.chars().next() {
        if !(first.is_alphabetic() || first == '_') {
            begins |= first == ';';
            rest = past(rest);
            continue;
        }
        let is_other = |c: char| !(c.is_alphanumeric() || c == '_' || c == '$');
        let (word, after) = rest.split_at(rest.find(is_other).unwrap_or(rest.len()));
        if begins {
            words.push(word);
            begins = false;
        }
        rest = match after.strip_prefix('\'') {
            Some(escaped) if word.eq_ignore_ascii_case("e") => past_escaped(escaped),
            Some(_) | None => after,
        };
    }
    words
}

/// `rest` without its first character, or without all that this one opens. Without an end it is
/// the server's to refuse.
fn past(rest: &str) -> &str {
    let mut inner = rest.chars();
    let first = inner.next();
    let after = inner.as_str();
    match first {
        Some('\'') => behind(after, "'"),
        Some('"') => behind(after, "\""),
        Some('$') => past_dollar(after),
        Some('-') if after.starts_with('-') => behind(after, "\n"),
        Some('/') => after.strip_prefix('*').map_or(after, past_comment),
        Some(_) | None => after,
    }
}

/// What stands behind the first `mark`.
fn behind<'a>(text: &'a str, mark: &str) -> &'a str {
    text.split_once(mark).map_or("", |(_, rest)| rest)
}

/// Behind an `E'…'`, in which a backslash takes the next character with it.
fn past_escaped(text: &str) -> &str {
    let mut inner = text.chars();
    while let Some(c) = inner.next() {
        if c == '\\' {
            inner.next();
        } else if c == '\'' {
            match inner.as_str().strip_prefix('\'') {
                Some(doubled) => inner = doubled.chars(),
                None => break,
            }
        }
    }
    inner.as_str()
}

/// Behind a `$tag$…$tag$`, of which the first `$` is gone.
fn past_dollar(text: &str) -> &str {
    let Some((tag, body)) = text.split_once('$') else { return text };
    let is_tag = tag.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !is_tag || tag.starts_with(|c: char| c.is_ascii_digit()) {
        return text;
    }
    behind(body, &format!("${tag}$"))
}

/// Behind a comment that may have others in it, of which the first `/*` is gone.
fn past_comment(text: &str) -> &str {
    let (mut rest, mut depth) = (text, 1_u32);
    while depth > 0 {
        match (rest.find("/*"), rest.find("*/")) {
            (_, None) => return "",
            (Some(open), Some(close)) if open < close => {
                depth += 1;
                rest = behind(rest, "/*");
            }
            (_, Some(_)) => {
                depth -= 1;
                rest = behind(rest, "*/");
            }
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> String {
        let handle = Handle::parse("dayfly_a").unwrap();
        let values = Values::new(&handle, Some(Literal::new("2026-11-22").unwrap()));
        Statement::parse(text, Moment::Mint).unwrap().render(Sql::new(), &values).into_text()
    }

    #[test]
    fn placeholders_become_quoted_values() {
        assert_eq!(
            rendered("GRANT SELECT ON t TO {{name}}"),
            "GRANT SELECT ON t TO \"dayfly_a\"\n;\n"
        );
        assert_eq!(
            rendered("INSERT INTO m VALUES ({{ name_literal }}, {{expiration}})"),
            "INSERT INTO m VALUES ('dayfly_a', '2026-11-22')\n;\n"
        );
    }

    #[test]
    fn a_comment_at_the_end_does_not_swallow_what_follows() {
        assert_eq!(rendered("SELECT 1 -- note"), "SELECT 1 -- note\n;\n");
    }

    #[test]
    fn no_statement_leaves_the_transaction_wherever_it_stands() {
        for text in [
            "GRANT x TO {{name}}; COMMIT",
            "SELECT 1;ROLLBACK;",
            "SELECT ';'; end",
            "-- a note\ncommit",
            "/* a /* note */ ; */ Begin",
            "SELECT E'\\';'; SELECT 1; COMMIT",
            "SELECT E'it''s \\' one'; ABORT",
            "SELECT $$;$$, $a$ $$; $a$; SAVEPOINT x",
            "SELECT $1; START TRANSACTION",
            "SELECT \"a;b\" ; release x",
        ] {
            let parsed = Statement::parse(text, Moment::Mint);
            assert!(matches!(parsed, Err(StatementError::Transaction(_))), "{text}: {parsed:?}");
        }
        for text in [
            "DO $$ BEGIN PERFORM 1; END $$",
            "DO $do$ BEGIN PERFORM '$$'; COMMIT; END $do$; SELECT 1",
            "SELECT '; COMMIT'; SELECT \"; COMMIT\"",
            "SELECT 1 -- ; COMMIT",
            "SELECT 1 /* ; COMMIT */; (SELECT 2)",
            "SELECT E'a\\'; COMMIT'",
            "SELECT 'a''; COMMIT'",
            "SELECT a$b; SELECT c$d",
            "SELECT CASE WHEN true THEN 1 END",
        ] {
            assert!(Statement::parse(text, Moment::Mint).is_ok(), "{text}");
        }
        assert_eq!(Statement::parse("-- COMMIT", Moment::Mint), Err(StatementError::Empty));
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused() {
        let parse = |text| Statement::parse(text, Moment::Mint).unwrap_err();
        assert_eq!(parse("SELECT {{password}}"), StatementError::Unknown("password".into()));
        assert_eq!(parse("SELECT '{{name}}'"), StatementError::Quoted("name".into()));
        assert_eq!(parse("SELECT \"{{name}}\""), StatementError::Quoted("name".into()));
        assert!(matches!(parse("SELECT {{name"), StatementError::Open(_)));
        assert_eq!(parse("SELECT '\0'"), StatementError::Nul);
        assert_eq!(parse(" ; "), StatementError::Empty);
        assert!(matches!(parse(" ;commit"), StatementError::Transaction(_)));
        let revoke = Statement::parse("SELECT {{expiration}}", Moment::Revoke);
        assert_eq!(revoke, Err(StatementError::Unknown("expiration".into())));
    }
}
