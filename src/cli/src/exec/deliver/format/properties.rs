//! Java's `.properties`.
//!
//! Invariant: the file is ASCII, so that it is the same in ISO 8859-1, which `Properties.load`
//! reads from a stream, and in UTF-8.

use std::fmt::Write as _;

use super::Section;

pub(super) fn write(section: &Section<'_>, text: &mut String) {
    for (name, value) in section.credential.fields() {
        let _ = writeln!(text, "{}={}", escaped(name, true), escaped(value, false));
    }
}

/// `Properties.store` escapes the same; of spaces only those that would be skipped: all of a
/// name's, and those that a value begins with.
pub(super) fn escaped(text: &str, is_name: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut leads = true;
    for c in text.chars() {
        match c {
            ' ' if leads || is_name => escaped.push_str("\\ "),
            '\\' | ':' | '=' | '#' | '!' => escaped.extend(['\\', c]),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '\u{c}' => escaped.push_str("\\f"),
            ' '..='~' => escaped.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(escaped, "\\u{unit:04X}");
                }
            }
        }
        leads = leads && c == ' ';
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{database, rendered},
        *,
    };
    use crate::args::FileFormat;

    #[test]
    fn everything_is_escaped_that_java_would_read_otherwise() {
        for (value, written) in [
            ("  two  words ", "\\ \\ two  words "),
            ("a=b:c#d!e\\f", "a\\=b\\:c\\#d\\!e\\\\f"),
            ("a\nb\rc\td\u{c}e", "a\\nb\\rc\\td\\fe"),
            ("ä\u{1f511}\u{1}\u{7f}", "\\u00E4\\uD83D\\uDD11\\u0001\\u007F"),
            ("", ""),
        ] {
            assert_eq!(escaped(value, false), written);
        }
        assert_eq!(escaped("a b", true), "a\\ b");
    }

    #[test]
    fn each_field_is_a_line() {
        let text = rendered(FileFormat::Properties, &database("p:w")).unwrap();
        let expected = "database=shop\nhost=db.example\npassword=p\\:w\nport=5432\nusername=df_x\n";
        assert_eq!(text, expected);
    }
}
