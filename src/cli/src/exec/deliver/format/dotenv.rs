//! A dotenv file: the variables that the environment would have had.
//!
//! Invariant: shells, and the readers of Python, Node, Ruby and Go, read the same value. They
//! agree on single quotes with nothing special between them.

use std::fmt::Write as _;

use dayfly_api::is_variable_name;

use super::{Section, Unfit};

/// The role's variables.
pub(super) fn write(section: &Section<'_>, text: &mut String) -> Result<(), Unfit> {
    if section.credential.environment().is_empty() {
        return Err(Unfit::NoVariables { role: section.role.to_owned() });
    }
    for (name, field) in section.credential.environment() {
        let value = section.need(field)?;
        let differs = value.contains(|c: char| c == '\'' || c == '\\' || c.is_control());
        // Some expand it between single quotes too.
        if differs || value.contains("${") {
            return Err(section.unfit(
                field,
                "has a quote, a backslash, `${` or a line break, which readers of dotenv files \
                 differ on; use json",
            ));
        }
        if !is_variable_name(name) {
            return Err(section.unfit(field, "is meant for a variable whose name is none"));
        }
        let _ = writeln!(text, "{name}='{value}'");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{credential_with, database, rendered};
    use crate::args::FileFormat;

    fn dotenv(password: &str) -> Result<String, String> {
        let fields = [("host", "db"), ("password", password)];
        let variables = [("PGHOST", "host"), ("PGPASSWORD", "password")];
        rendered(FileFormat::Dotenv, &credential_with(&fields, &variables))
    }

    #[test]
    fn a_shell_reads_back_what_was_written() {
        for password in ["plain", "two words # \"x\" $HOME `id` $(id) ä=:;&", ""] {
            let text = dotenv(password).unwrap();
            assert!(text.starts_with("PGHOST='db'\nPGPASSWORD='"), "{text}");
            let program = format!("{text}printf %s \"$PGPASSWORD\"");
            let output = std::process::Command::new("sh").args(["-c", &program]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), password);
        }
    }

    #[test]
    fn what_readers_differ_on_is_refused() {
        for bad in ["it's", "a\\b", "a\nb", "a\tb", "${HOME}"] {
            let error = dotenv(bad).unwrap_err();
            assert!(error.starts_with("`password` of role `r` has a quote"), "{error}");
        }
        assert!(rendered(FileFormat::Dotenv, &database("x")).unwrap_err().contains("no variables"));
    }
}
