//! How values get into SQL.
//!
//! Invariant: a [`Sql`] is made of fixed text, quoted identifiers, quoted literals and numbers;
//! no other text can be appended. Quoting holds under the SQL mode that each message sets: a
//! backslash escapes, and `"` quotes a string.

use dayfly_backend_sdk::Handle;

/// MySQL, "Identifier Length Limits": 64 characters for databases and tables.
const IDENT_LEN_MAX: usize = 64;

/// Text that cannot stand in SQL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// A name of no characters.
    #[error("a name is empty")]
    Empty,
    /// A name that the server does not have.
    #[error("`{0}` is longer than 64 characters")]
    Long(String),
    /// A zero byte, which no name has.
    #[error("a zero byte in `{0}`")]
    Nul(String),
}

/// A name, quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        if name.chars().count() > IDENT_LEN_MAX {
            return Err(QuoteError::Long(shown()));
        }
        Ok(Self(format!("`{}`", name.replace('`', "``"))))
    }

    /// A database in a `GRANT` on all of it, where `_` and `%` would be wildcards: without this
    /// a grant on `a_b` reaches `axb` too (MySQL, GRANT Statement).
    pub(crate) fn granted_database(name: &str) -> Result<Self, QuoteError> {
        Self::new(name)?;
        let escaped = name.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%");
        Ok(Self(format!("`{}`", escaped.replace('`', "``"))))
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
        Ok(Self(quoted(text)))
    }

    /// Text of ours that needs no care: letters, digits, `:` and `_`.
    pub(crate) fn plain(text: &str) -> Self {
        Self(quoted(text))
    }

    /// The name of a credential's account as a string.
    pub(crate) fn handle(handle: &Handle) -> Self {
        Self(format!("'{handle}'"))
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// One or more statements under construction.
#[derive(Clone, Default)]
pub(crate) struct Sql(String);

impl Sql {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
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
    pub(crate) fn number(mut self, number: u64) -> Self {
        self.0.push_str(&number.to_string());
        self
    }

    /// Appends `'name'@'host'`.
    pub(crate) fn account(self, name: &Literal, host: &Literal) -> Self {
        self.literal(name).text("@").literal(host)
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

    /// Runs one statement only where `condition` holds at the server. It goes as a literal, so
    /// that nothing in it can end it.
    pub(crate) fn only_if(self, condition: &Self, statement: &Self) -> Self {
        let mut sql = self.text("SET @dayfly_statement = IF(").then(condition).text(", ");
        sql.0.push_str(&quoted(&statement.0));
        sql.text(
            ", 'DO 0');\nPREPARE dayfly_prepared FROM @dayfly_statement;\n\
             EXECUTE dayfly_prepared;\nDEALLOCATE PREPARE dayfly_prepared;\n\
             SET @dayfly_statement = NULL;\n",
        )
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
        "-- x",
        ";--",
        "/*!99999",
        "😀",
        "\u{202e}abc",
        "e\u{301}",
        "a\nb\r",
        "%s_n",
        "{{name}}",
        "x`; DROP USER y; --",
    ];

    #[test]
    fn an_ident_is_one_token_whatever_is_in_it() {
        for name in CORPUS {
            let Ident(quoted) = Ident::new(name).unwrap();
            let inner = quoted.strip_prefix('`').unwrap().strip_suffix('`').unwrap();
            assert_eq!(inner.replace("``", ""), name.replace('`', ""), "{name:?}");
            assert_eq!(inner.matches('`').count(), 2 * name.matches('`').count());
        }
    }

    #[test]
    fn a_literal_is_one_token_whatever_is_in_it() {
        for text in CORPUS {
            let Literal(quoted) = Literal::new(text).unwrap();
            let inner = quoted.strip_prefix('\'').unwrap().strip_suffix('\'').unwrap();
            assert_eq!(inner.matches('\'').count(), 2 * text.matches('\'').count());
            assert_eq!(inner.matches('\\').count(), 2 * text.matches('\\').count());
        }
    }

    #[test]
    fn a_granted_database_is_no_pattern() {
        assert_eq!(Ident::granted_database("a_b%c").unwrap().0, "`a\\_b\\%c`");
        assert_eq!(Ident::granted_database("a`b").unwrap().0, "`a``b`");
    }

    #[test]
    fn what_the_server_does_not_have_is_refused() {
        assert!(Ident::new(&"é".repeat(64)).is_ok());
        assert!(matches!(Ident::new(&"a".repeat(65)), Err(QuoteError::Long(_))));
        assert_eq!(Ident::new(""), Err(QuoteError::Empty));
        assert!(matches!(Ident::new("a\0b"), Err(QuoteError::Nul(_))));
        assert!(matches!(Literal::new("a\0b"), Err(QuoteError::Nul(_))));
        assert_eq!(Literal::new("").unwrap(), Literal("''".into()));
    }

    #[test]
    fn a_condition_cannot_be_left_from_within() {
        let name = Literal::new("a\\'; DROP USER y; --").unwrap();
        let statement = Sql::new().text("DROP USER ").literal(&name);
        let sql = Sql::new().only_if(&Sql::new().text("@late"), &statement).0;
        assert!(sql.contains("'DROP USER ''a\\\\\\\\''''; DROP USER y; --'''"), "{sql}");
    }
}
