//! Credentials as the files that programs read.
//!
//! Invariant: a program reads back exactly the value that was written, or nothing is written.

mod aws;
mod dotenv;
mod json;
mod my_cnf;
mod pg_service;
mod pgpass;
mod properties;
pub(super) mod template;

use zeroize::Zeroizing;

use crate::{args::FileFormat, exec::deliver::values::Current};

/// A role with its credential.
pub(super) struct Section<'a> {
    pub(super) role: &'a str,
    pub(super) credential: &'a Current,
}

/// Why a credential can't be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("role `{role}` has no field `{field}`, which it needs; it has {known}")]
    Missing { role: String, field: String, known: String },
    #[error("the broker gave no credential for role `{role}`")]
    NoCredential { role: String },
    #[error("role `{role}` names no variables for its credential")]
    NoVariables { role: String },
    #[error("`{field}` of role `{role}` {reason}")]
    Value { role: String, field: String, reason: &'static str },
}

impl<'a> Section<'a> {
    /// The field `name`.
    pub(super) fn need(&self, name: &str) -> Result<&'a str, Unfit> {
        self.credential.field(name).ok_or_else(|| Unfit::Missing {
            role: self.role.to_owned(),
            field: name.to_owned(),
            known: self.credential.names(),
        })
    }

    fn unfit(&self, field: &str, reason: &'static str) -> Unfit {
        Unfit::Value { role: self.role.to_owned(), field: field.to_owned(), reason }
    }

    /// Finds what no format can carry: programs written in C read up to the first NUL.
    pub(super) fn check(&self) -> Result<(), Unfit> {
        match self.credential.fields().find(|(_, value)| value.contains('\0')) {
            Some((field, _)) => Err(self.unfit(field, "has a NUL")),
            None => Ok(()),
        }
    }
}

/// The file's text.
pub(super) fn render(
    format: FileFormat,
    sections: &[Section<'_>],
) -> Result<Zeroizing<String>, Unfit> {
    for section in sections {
        section.check()?;
    }
    let mut text = Zeroizing::new(String::new());
    for section in sections {
        match format {
            FileFormat::Aws => aws::write(section, sections.len() == 1, &mut text)?,
            FileFormat::Dotenv => dotenv::write(section, &mut text)?,
            FileFormat::Json => json::write(section, &mut text),
            FileFormat::MyCnf => my_cnf::write(section, &mut text)?,
            FileFormat::PgService => pg_service::write(section, &mut text)?,
            FileFormat::Pgpass => pgpass::write(section, &mut text)?,
            FileFormat::Properties => properties::write(section, &mut text),
        }
    }
    Ok(text)
}

/// By which variables programs find a file of this format, and with which values; `None` is the
/// file's path.
pub(super) fn variables<'a>(
    format: FileFormat,
    roles: &'a [String],
    name: &str,
) -> Vec<(&'static str, Place<'a>)> {
    match (format, roles) {
        (FileFormat::Aws, _) => vec![("AWS_SHARED_CREDENTIALS_FILE", Place::File)],
        // The one name that MySQL's and MariaDB's programs look for in a directory.
        (FileFormat::MyCnf, _) if name == "my.cnf" => vec![("MYSQL_HOME", Place::Directory)],
        (FileFormat::PgService, [role]) => {
            vec![("PGSERVICEFILE", Place::File), ("PGSERVICE", Place::Text(role))]
        }
        (FileFormat::PgService, _) => vec![("PGSERVICEFILE", Place::File)],
        (FileFormat::Pgpass, _) => vec![("PGPASSFILE", Place::File)],
        (FileFormat::Dotenv | FileFormat::Json | FileFormat::MyCnf | FileFormat::Properties, _) => {
            Vec::new()
        }
    }
}

/// What a variable says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    Directory,
    File,
    Text(&'a str),
}

/// Which fields a file of this format carries; `None` is all of them. What a program reads no
/// user's name from can't give it another one.
pub(super) fn carries(format: FileFormat) -> Option<&'static [&'static str]> {
    match format {
        FileFormat::Pgpass => Some(&["password"]),
        FileFormat::Aws
        | FileFormat::Dotenv
        | FileFormat::Json
        | FileFormat::MyCnf
        | FileFormat::PgService
        | FileFormat::Properties => None,
    }
}

/// Credentials for the tests of each format.
#[cfg(test)]
mod testing {
    use std::collections::BTreeMap;

    use dayfly_api::Credential;

    use super::*;

    pub(super) fn credential(fields: &[(&str, &str)]) -> Current {
        credential_with(fields, &[])
    }

    pub(super) fn credential_with(fields: &[(&str, &str)], variables: &[(&str, &str)]) -> Current {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        Credential { fields: map(fields), environment: map(variables) }.into()
    }

    /// A database account with this password.
    pub(super) fn database(password: &str) -> Current {
        credential(&[
            ("database", "shop"),
            ("host", "db.example"),
            ("password", password),
            ("port", "5432"),
            ("username", "df_x"),
        ])
    }

    /// The text of one role's file, or what is wrong with it.
    pub(super) fn rendered(format: FileFormat, credential: &Current) -> Result<String, String> {
        let text = render(format, &[Section { role: "r", credential }]);
        text.map(|text| text.to_string()).map_err(|unfit| unfit.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{credential, database, rendered},
        *,
    };

    #[test]
    fn no_format_carries_a_nul() {
        for format in [
            FileFormat::Aws,
            FileFormat::Dotenv,
            FileFormat::Json,
            FileFormat::MyCnf,
            FileFormat::PgService,
            FileFormat::Pgpass,
            FileFormat::Properties,
        ] {
            let error = rendered(format, &database("hun\0ter2")).unwrap_err();
            assert_eq!(error, "`password` of role `r` has a NUL", "{format:?}");
        }
    }

    #[test]
    fn a_field_that_is_missing_is_named_with_those_there_are() {
        let error = rendered(FileFormat::Pgpass, &credential(&[("key", "hunter2")])).unwrap_err();
        assert_eq!(error, "role `r` has no field `host`, which it needs; it has key");
    }
}
