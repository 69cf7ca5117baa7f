//! A password file of PostgreSQL's libpq: `host:port:database:user:password`.
//!
//! Invariant: a colon or a backslash in a value is never read as the end of it.

use crate::{
    args::MappedField,
    credential::handed::{Fault, Fields, Handed, one_line},
};

const NAMES: &[&str] = &["database", "host", "password", "port", "username"];
/// What libpq calls the socket directory that it was built with.
const LOCAL: &str = "localhost";

/// One line; two where the host is a socket's directory, which may be libpq's own.
pub(crate) fn render(handed: &Handed, named: &[MappedField]) -> Result<String, Fault> {
    let fields = Fields::of(handed, named, NAMES)?;
    let host = fields.wanted("host", &["host"])?;
    let rest = [
        escaped("port", fields.found("port", &["port"])?.unwrap_or("*"))?,
        // Without one the credential is not for a single database.
        escaped("database", fields.found("database", &["database"])?.unwrap_or("*"))?,
        escaped("username", fields.wanted("username", &["username"])?)?,
        escaped("password", fields.wanted("password", &["password"])?)?,
    ]
    .join(":");
    let line = format!("{}:{rest}\n", escaped("host", host)?);
    Ok(if host.starts_with('/') { format!("{line}{LOCAL}:{rest}\n") } else { line })
}

fn escaped(name: &str, value: &str) -> Result<String, Fault> {
    Ok(one_line(name, value)?.replace('\\', "\\\\").replace(':', "\\:"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::handed::handed;

    fn line(host: &str, password: &str) -> Result<String, Fault> {
        let fields = [("host", host), ("port", "5432"), ("database", "shop"), ("username", "df_x")];
        render(&handed(&[&fields[..], &[("password", password)]].concat()), &[])
    }

    #[test]
    fn a_line_has_five_parts() {
        assert_eq!(line("db.example", "PW").unwrap(), "db.example:5432:shop:df_x:PW\n");
        assert_eq!(line("::1", "a:b\\c").unwrap(), "\\:\\:1:5432:shop:df_x:a\\:b\\\\c\n");
        let least = handed(&[("host", "h"), ("username", "u"), ("password", "p")]);
        assert_eq!(render(&least, &[]).unwrap(), "h:*:*:u:p\n");
    }

    #[test]
    fn a_sockets_directory_may_be_libpqs_own() {
        assert_eq!(
            line("/run/pg", "PW").unwrap(),
            "/run/pg:5432:shop:df_x:PW\nlocalhost:5432:shop:df_x:PW\n"
        );
    }

    #[test]
    fn a_value_cannot_add_a_line() {
        assert!(line("db.example", "a\nevil:5432:*:u:p").is_err());
        assert!(line("db\n", "PW").is_err());
    }
}
