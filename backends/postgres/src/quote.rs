//! How values get into SQL.
//!
//! Invariant: a [`Sql`] is made of fixed text, quoted identifiers, quoted literals, numbers
//! and an administrator's checked statements; no other text can be appended.

use dayfly_backend_sdk::Handle;

/// PostgreSQL cuts longer names without an error (`NAMEDATALEN` - 1).
const IDENT_LEN_MAX: usize = 63;

/// Text that cannot stand in SQL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// A name of no bytes.
    #[error("a name is empty")]
    Empty,
    /// A name that PostgreSQL would cut, and so mistake for another.
    #[error("`{0}` is longer than 63 bytes")]
    Long(String),
    /// A zero byte, which ends the text for the server.
    #[error("a zero byte in `{0}`")]
    Nul(String),
}

/// A name, quoted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ident(String);

impl Ident {
    /// Quotes `name`, whatever is in it.
    pub(crate) fn new(name: &str) -> Result<Self, QuoteError> {
        let shown = || name.replace('\0', "\u{fffd}");
        if name.is_empty() {
            return Err(QuoteError::Empty);
        }
        if name.contains('\0') {
            return Err(QuoteError::Nul(shown()));
        }
        if name.len() > IDENT_LEN_MAX {
            return Err(QuoteError::Long(shown()));
        }
        Ok(Self(format!("\"{}\"", name.replace('"', "\"\""))))
    }

    /// The name of a credential's role. A handle has no character that needs care.
    pub(crate) fn handle(handle: &Handle) -> Self {
        Self(format!("\"{handle}\""))
    }
}

/// A string, quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Literal(String);

impl Literal {
    /// Quotes `text`, whatever is in it.
    pub(crate) fn new(text: &str) -> Result<Self, QuoteError> {
        if text.contains('\0') {
            return Err(QuoteError::Nul(text.replace('\0', "\u{fffd}")));
        }
        let doubled = text.replace('\'', "''");
        // With a backslash the E form alone means the same whether or not
        // standard_conforming_strings is on.
        if text.contains('\\') {
            return Ok(Self(format!(" E'{}'", doubled.replace('\\', "\\\\"))));
        }
        Ok(Self(format!("'{doubled}'")))
    }

    /// The name of a credential's role as a string.
    pub(crate) fn handle(handle: &Handle) -> Self {
        Self(format!("'{handle}'"))
    }
}

/// One or more statements under construction.
#[derive(Clone, Default)]
pub(crate) struct Sql(String);

impl Sql {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Whether nothing was appended.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends text of ours.
    pub(crate) fn text(mut self, text: &'static str) -> Self {
        self.0.push_str(text);
        self
    }

    /// Appends a name.
    pub(crate) fn ident(mut self, name: &Ident) -> Self {
        self.0.push_str(&name.0);
        self
    }

    /// Appends a string.
    pub(crate) fn literal(mut self, literal: &Literal) -> Self {
        self.0.push_str(&literal.0);
        self
    }

    /// Appends a number.
    pub(crate) fn number(mut self, number: i64) -> Self {
        self.0.push_str(&number.to_string());
        self
    }

    /// Appends other statements.
    pub(crate) fn then(mut self, other: &Self) -> Self {
        self.0.push_str(&other.0);
        self
    }

    /// Appends the items, a comma between them.
    pub(crate) fn list<T>(
        mut self,
        items: impl IntoIterator<Item = T>,
        mut append: impl FnMut(Self, T) -> Self,
    ) -> Self {
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                self = self.text(", ");
            }
            self = append(self, item);
        }
        self
    }

    /// Appends a piece of a statement that the administrator wrote.
    pub(crate) fn administrators(mut self, piece: &str) -> Self {
        self.0.push_str(piece);
        self
    }

    /// These statements as the body of a `DO`. The body goes as a literal, so that nothing in
    /// it can end it.
    pub(crate) fn as_block(&self) -> Result<Self, QuoteError> {
        Ok(Self::new().text("DO ").literal(&Literal::new(&self.0)?).text(";\n"))
    }

    /// The whole text, for the driver and for nobody else.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What has broken quoting elsewhere. The conformance test sends the same through a server.
    const CORPUS: [&str; 16] = [
        "\"",
        "'",
        "`",
        "\\",
        "\\'",
        "$$",
        "$x$",
        ";--",
        "/*",
        "😀",
        "\u{202e}abc",
        "e\u{301}",
        "a\nb\r",
        "%s%n",
        "{{name}}",
        "x\"; DROP ROLE y; --",
    ];

    #[test]
    fn an_ident_is_one_token_whatever_is_in_it() {
        for name in CORPUS {
            let Ident(quoted) = Ident::new(name).unwrap();
            let inner = quoted.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
            assert_eq!(inner.replace("\"\"", ""), name.replace('"', ""), "{name:?}");
            assert_eq!(inner.matches('"').count(), 2 * name.matches('"').count());
        }
    }

    #[test]
    fn a_literal_is_one_token_whatever_is_in_it() {
        for text in CORPUS {
            let Literal(quoted) = Literal::new(text).unwrap();
            assert_eq!(quoted.starts_with(" E'"), text.contains('\\'), "{text:?}");
            let body = quoted.trim_start_matches(" E");
            let inner = body.strip_prefix('\'').unwrap().strip_suffix('\'').unwrap();
            assert_eq!(inner.matches('\'').count(), 2 * text.matches('\'').count());
            assert_eq!(inner.matches('\\').count(), 2 * text.matches('\\').count());
        }
    }

    #[test]
    fn what_the_server_would_cut_is_refused() {
        assert!(Ident::new(&"a".repeat(63)).is_ok());
        assert!(matches!(Ident::new(&"a".repeat(64)), Err(QuoteError::Long(_))));
        // 32 characters of two bytes: the limit counts bytes.
        assert!(matches!(Ident::new(&"é".repeat(32)), Err(QuoteError::Long(_))));
        assert_eq!(Ident::new(""), Err(QuoteError::Empty));
        assert!(matches!(Ident::new("a\0b"), Err(QuoteError::Nul(_))));
        assert!(matches!(Literal::new("a\0b"), Err(QuoteError::Nul(_))));
        assert_eq!(Literal::new("").unwrap(), Literal("''".into()));
    }

    #[test]
    fn a_block_cannot_be_ended_from_within() {
        let body = Sql::new().text("BEGIN PERFORM ").literal(&Literal::new("$$'; x").unwrap());
        assert_eq!(body.as_block().unwrap().0, "DO 'BEGIN PERFORM ''$$''''; x''';\n");
    }
}
