//! libpq's file of connection services.
//!
//! Invariant: a value ends with its line and has no escapes: libpq cuts trailing space, so a value
//! that it would change is refused.

use std::fmt::Write as _;

use super::{Section, Unfit};

const KEYWORDS: &[(&str, &str)] = &[
    ("host", "host"),
    ("port", "port"),
    ("dbname", "database"),
    ("user", "username"),
    ("password", "password"),
];
/// libpq reads lines of less than 1024 bytes (before version 13: 256).
const LINE_BYTES_MAX: usize = 1000;

pub(super) fn write(section: &Section<'_>, text: &mut String) -> Result<(), Unfit> {
    let _ = writeln!(text, "[{}]", section.role);
    for (keyword, field) in KEYWORDS {
        let value = section.need(field)?;
        if value.contains(['\n', '\r']) {
            return Err(section.unfit(field, "has a line break"));
        }
        if value.ends_with(|c: char| c.is_ascii_whitespace() || c == '\u{b}') {
            return Err(section.unfit(field, "ends with a space, which libpq would cut"));
        }
        if value.len() > LINE_BYTES_MAX {
            return Err(section.unfit(field, "is too long for libpq"));
        }
        let _ = writeln!(text, "{keyword}={value}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{database, rendered};
    use crate::args::FileFormat;

    #[test]
    fn a_role_is_a_service() {
        let text = rendered(FileFormat::PgService, &database(" it's=#\\:\"ä")).unwrap();
        let expected = "[r]\nhost=db.example\nport=5432\ndbname=shop\nuser=df_x\n\
                        password= it's=#\\:\"ä\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_libpq_would_change_is_refused() {
        let long = "x".repeat(1001);
        for (bad, reason) in [
            ("a\nhost=evil", "line break"),
            ("a\r", "line break"),
            ("a ", "would cut"),
            ("a\u{b}", "would cut"),
            (long.as_str(), "too long"),
        ] {
            let error = rendered(FileFormat::PgService, &database(bad)).unwrap_err();
            assert!(error.contains(reason) && error.len() < 200, "{error}");
        }
    }
}
