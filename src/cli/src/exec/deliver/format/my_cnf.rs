//! An option file of MySQL's and MariaDB's programs.
//!
//! Invariant: every value stands in double quotes with the escapes that `my_default.c` undoes, so
//! that spaces, `#` and quotes are part of it.

use std::fmt::Write as _;

use super::{Section, Unfit};

const OPTIONS: &[(&str, &str)] =
    &[("host", "host"), ("port", "port"), ("user", "username"), ("password", "password")];

pub(super) fn write(section: &Section<'_>, text: &mut String) -> Result<(), Unfit> {
    text.push_str("[client]\n");
    for (option, field) in OPTIONS {
        let _ = writeln!(text, "{option}={}", quoted(section, field, section.need(field)?)?);
    }
    // Programs that know no such option would refuse it in the common group.
    if let Some(database) = section.credential.field("database").filter(|name| !name.is_empty()) {
        let _ = writeln!(text, "[mysql]\ndatabase={}", quoted(section, "database", database)?);
    }
    Ok(())
}

fn quoted(section: &Section<'_>, field: &str, value: &str) -> Result<String, Unfit> {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            c if c.is_control() => return Err(section.unfit(field, "has a control character")),
            c => text.push(c),
        }
    }
    text.push('"');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{credential, database, rendered};
    use crate::args::FileFormat;

    #[test]
    fn values_are_quoted_and_escaped() {
        let text = rendered(FileFormat::MyCnf, &database("a\"b\\c#d;e\n\t' ä ")).unwrap();
        let expected = "[client]\nhost=\"db.example\"\nport=\"5432\"\nuser=\"df_x\"\n\
                        password=\"a\\\"b\\\\c#d;e\\n\\t' ä \"\n[mysql]\ndatabase=\"shop\"\n";
        assert_eq!(text, expected);
        let error = rendered(FileFormat::MyCnf, &database("a\u{1b}[2J")).unwrap_err();
        assert_eq!(error, "`password` of role `r` has a control character");
    }

    #[test]
    fn an_account_without_a_database_names_none() {
        let fields = [("host", "h"), ("password", "p"), ("port", "3306"), ("username", "u")];
        let text = rendered(FileFormat::MyCnf, &credential(&fields)).unwrap();
        assert!(!text.contains("[mysql]"), "{text}");
    }
}
