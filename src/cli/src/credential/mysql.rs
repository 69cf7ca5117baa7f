//! An option file for MySQL's and MariaDB's programs.
//!
//! Invariant: what a value holds is never read as an option, as a comment or as the end of it.

use std::fmt::Write as _;

use crate::{
    args::MappedField,
    credential::handed::{Fault, Fields, Handed},
};

const NAMES: &[&str] = &["database", "host", "password", "port", "username"];

/// The groups. The database has one of its own: `mysqldump` reads `client` and knows no such option.
pub(crate) fn render(handed: &Handed, named: &[MappedField]) -> Result<String, Fault> {
    let fields = Fields::of(handed, named, NAMES)?;
    let host = fields.wanted("host", &["host"])?;
    let mut client = vec![(if host.starts_with('/') { "socket" } else { "host" }, host)];
    client.extend(fields.found("port", &["port"])?.map(|port| ("port", port)));
    client.push(("user", fields.wanted("username", &["username"])?));
    client.push(("password", fields.wanted("password", &["password"])?));
    let mut text = "[client]\n".to_owned();
    for (name, value) in client {
        put(&mut text, name, value)?;
    }
    if let Some(database) = fields.found("database", &["database"])? {
        text.push_str("[mysql]\n");
        put(&mut text, "database", database)?;
    }
    Ok(text)
}

fn put(text: &mut String, name: &str, value: &str) -> Result<(), Fault> {
    let mut quoted = String::with_capacity(value.len() + 2);
    for c in value.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\\' | '"' | '\'' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                return Err(Fault::new(format!(
                    "the credential's `{name}` has a control character"
                )));
            }
            c => quoted.push(c),
        }
    }
    // Writing to a string does not fail.
    let _ = writeln!(text, "{name}=\"{quoted}\"");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::handed::handed;

    fn file(host: &str, password: &str) -> Result<String, Fault> {
        let fields = [("host", host), ("port", "3306"), ("username", "dm_x"), ("database", "app")];
        render(&handed(&[&fields[..], &[("password", password)]].concat()), &[])
    }

    #[test]
    fn the_database_is_not_where_other_programs_look() {
        assert_eq!(
            file("db.example", "PW").unwrap(),
            "[client]\nhost=\"db.example\"\nport=\"3306\"\nuser=\"dm_x\"\npassword=\"PW\"\n\
             [mysql]\ndatabase=\"app\"\n"
        );
        assert!(file("/run/mysqld/s", "PW").unwrap().contains("\nsocket=\"/run/mysqld/s\"\n"));
    }

    #[test]
    fn no_value_is_read_as_anything_else() {
        let text = file("db.example", "a#b\"c'd\\e\nhost=evil\t;").unwrap();
        let line = text.lines().find(|line| line.starts_with("password=")).unwrap();
        assert_eq!(line, "password=\"a#b\\\"c\\'d\\\\e\\nhost=evil\\t;\"");
        assert!(file("db.example", "\0").is_err());
        assert!(file("db.example", "\u{1b}").is_err());
    }
}
