//! libpq's password file.
//!
//! Invariant: a line is for one user at one server, whatever the database: no other server is sent
//! the password.
//!
//! libpq takes the user's name from elsewhere, so where a replaced credential has another user this
//! file does not reach a running program, unless another one has the name; the service file does.

use std::fmt::Write as _;

use super::{Section, Unfit};

pub(super) fn write(section: &Section<'_>, text: &mut String) -> Result<(), Unfit> {
    let [host, port, user, password] = ["host", "port", "username", "password"]
        .map(|field| section.need(field).and_then(|value| escaped(section, field, value)));
    let _ = writeln!(text, "{}:{}:*:{}:{}", host?, port?, user?, password?);
    Ok(())
}

/// A backslash before what would end the field, begin a comment or mean anything.
fn escaped(section: &Section<'_>, field: &str, value: &str) -> Result<String, Unfit> {
    if value.contains(['\n', '\r']) {
        return Err(section.unfit(field, "has a line break"));
    }
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, ':' | '\\' | '#' | '*') {
            text.push('\\');
        }
        text.push(c);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{database, rendered};
    use crate::args::FileFormat;

    #[test]
    fn colons_and_backslashes_are_escaped() {
        let text = rendered(FileFormat::Pgpass, &database("a:b\\c#d*e ä'\"")).unwrap();
        assert_eq!(text, "db.example:5432:*:df_x:a\\:b\\\\c\\#d\\*e ä'\"\n");
    }

    #[test]
    fn a_line_break_is_refused() {
        for bad in ["a\n*:*:*:*:b", "a\r"] {
            let error = rendered(FileFormat::Pgpass, &database(bad)).unwrap_err();
            assert_eq!(error, "`password` of role `r` has a line break");
        }
    }
}
