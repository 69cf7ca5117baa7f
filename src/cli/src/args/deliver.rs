//! How credentials reach the command, and what happens when they change.
//!
//! Invariant: a value that parses names what it means without doubt; nothing is read or made
//! here.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{ArgAction, Args, ValueEnum};
use dayfly_api::is_variable_name;
use rustix::process::Signal;

use crate::args::values::duration;

const FILE_HELP: &str = "\
Put a credential into a file in memory, for this user alone, and remove it at the end

NAME is the file's name. Its path goes into the variable by which programs find such a file \
(PGPASSFILE, PGSERVICEFILE, AWS_SHARED_CREDENTIALS_FILE) and into DAYFLY_FILE_NAME; or into \
VARIABLE, after NAME@.

FORMAT is aws, dotenv, json, my.cnf, pg_service, pgpass or properties; if it is left out, NAME says \
it. What the file holds is then not in the environment as well, unless --env asks for it.

  --file pgpass=pg-read                 for libpq: PGPASSFILE
  --file pg_service.conf=pg-read        for libpq, with the user's name: it may be replaced
  --file my.cnf=shop                    mysql --defaults-extra-file=\"$DAYFLY_FILE_MY_CNF\"
  --file credentials=deploy:aws         for AWS' SDKs and command line
  --file db.json=pg-read                every field
  --file key@API_KEY_FILE=api/key       one field as it is
  --file app.conf=@app.conf.in          a template with {{ pg-read.password }}

In a template a field may be followed by | and json, properties, shell or url, for how it is \
written; {{ \"{{\" }} is two braces.";

const ENV_HELP: &str = "\
Set NAME to one field of a role's credential

A variable that the command inherits, and a line of --env-file, may name fields by \
dayfly://ROLE/FIELD, alone or within more text. Roles that are named so are asked for as well.";

const ON_ROTATE_HELP: &str = "\
What to do when a credential was replaced, because its role allows no longer life

  none         nothing: the command reads its files again when it needs them
  signal:HUP   send the command a signal
  restart      stop the command and start it again, once a minute at most
  exec:CMD     run CMD in a shell, with the new credentials in its environment

With `none` and `signal`, credentials are replaced where files or FIFOs carry all that changes. The \
old credential ends after --overlap.";

/// Under which these options stand in the help.
const HEADING: &str = "Delivery";

/// Where credentials go besides the usual variables.
#[derive(Debug, Args)]
pub(crate) struct DeliverArgs {
    #[arg(
        help_heading = HEADING,
        long = "env",
        value_name = "NAME=ROLE/FIELD",
        action = ArgAction::Append,
        help = "Set NAME to one field of a role's credential",
        long_help = ENV_HELP
    )]
    pub(crate) variables: Vec<VariableSpec>,

    #[arg(
        help_heading = HEADING,
        long = "resolve-env",
        value_name = "NAMES",
        value_delimiter = ',',
        action = ArgAction::Append,
        help = "Replace dayfly://ROLE/FIELD in these variables, which the command inherits; in no \
                others, whose text may be a stranger's"
    )]
    pub(crate) resolve_env: Vec<String>,

    #[arg(
        help_heading = HEADING,
        long = "env-file",
        value_name = "FILE",
        action = ArgAction::Append,
        help = "Set the variables of this file: NAME=value lines, which may name fields by \
                dayfly://ROLE/FIELD"
    )]
    pub(crate) env_files: Vec<PathBuf>,

    #[arg(
        help_heading = HEADING,
        long = "file",
        value_name = "NAME=ROLE[:FORMAT]",
        action = ArgAction::Append,
        help = "Put a credential into a file in memory: NAME=ROLE[:FORMAT], NAME=ROLE/FIELD or \
                NAME=@TEMPLATE",
        long_help = FILE_HELP
    )]
    pub(crate) files: Vec<FileSpec>,

    /// Make the files in this directory, which must be empty and this user's alone, or not there
    /// yet; it is removed with them
    #[arg(help_heading = HEADING, long, value_name = "DIR")]
    pub(crate) file_dir: Option<PathBuf>,

    /// The same as --file, through a FIFO: whoever opens it reads what is valid then, one reader
    /// at a time
    #[arg(help_heading = HEADING, long = "fifo", value_name = "NAME=ROLE/FIELD", action = ArgAction::Append)]
    pub(crate) fifos: Vec<FileSpec>,

    /// How often each FIFO can be read at most
    #[arg(help_heading = HEADING, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) fifo_reads: Option<u32>,

    #[arg(
        help_heading = HEADING,
        long,
        default_value = "none",
        value_name = "WHAT",
        help = "What to do when a credential was replaced: none, signal:NAME, restart or exec:CMD",
        long_help = ON_ROTATE_HELP
    )]
    pub(crate) on_rotate: OnRotate,

    /// How long a replaced credential goes on working
    #[arg(help_heading = HEADING, long, default_value = "60s", value_name = "TIME", value_parser = duration)]
    pub(crate) overlap: Duration,

    /// What to do about a credential that ends before the command and can't be replaced
    #[arg(help_heading = HEADING, long, value_enum, default_value_t = OnExpiry::Warn, value_name = "WHAT")]
    pub(crate) on_expiry: OnExpiry,
}

/// `NAME=ROLE/FIELD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VariableSpec {
    pub(crate) name: String,
    pub(crate) field: FieldName,
}

/// A field of a role's credential.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FieldName {
    pub(crate) role: String,
    pub(crate) field: String,
}

/// One `--file` or `--fifo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileSpec {
    pub(crate) name: String,
    /// Which variable gets its path, instead of the usual ones.
    pub(crate) variable: Option<String>,
    pub(crate) source: FileSource,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileSource {
    Field(FieldName),
    Roles { roles: Vec<String>, format: FileFormat },
    Template(PathBuf),
}

/// A format that programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileFormat {
    Aws,
    Dotenv,
    Json,
    MyCnf,
    PgService,
    Pgpass,
    Properties,
}

/// What follows a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OnRotate {
    Exec(String),
    None,
    Restart,
    Signal(Signal),
}

/// What follows the end of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnExpiry {
    /// Stop the command when it ends, and exit with 124.
    Term,
    /// Say so, and let the command go on.
    Warn,
}

impl FromStr for VariableSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, field) = text.split_once('=').ok_or("expected NAME=ROLE/FIELD")?;
        if !is_variable_name(name) {
            return Err("NAME must be letters, digits and `_`, and not begin with a digit".into());
        }
        Ok(Self { name: name.to_owned(), field: field.parse()? })
    }
}

impl FromStr for FieldName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('/');
        let parts = parts.filter(|(role, field)| is_word(role) && is_word(field));
        let (role, field) = parts.ok_or("expected ROLE/FIELD, of letters, digits, `-` and `_`")?;
        Ok(Self { role: role.to_owned(), field: field.to_owned() })
    }
}

/// Whether a role or a field can be named so in the middle of other text.
pub(crate) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_word_char)
}

pub(crate) fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

impl FromStr for FileSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected NAME=ROLE[:FORMAT], NAME=ROLE/FIELD or NAME=@TEMPLATE";
        let (target, source) = text.split_once('=').ok_or(expected)?;
        let (name, variable) = match target.split_once('@') {
            Some((name, variable)) => (name, Some(variable)),
            None => (target, None),
        };
        if !is_file_name(name) {
            return Err("a file's NAME has letters, digits, `.`, `-` and `_`, and begins with a \
                        letter or a digit"
                .into());
        }
        if variable.is_some_and(|variable| !is_variable_name(variable)) {
            return Err("VARIABLE must be letters, digits and `_`".into());
        }
        let source = if let Some(path) = source.strip_prefix('@').filter(|path| !path.is_empty()) {
            FileSource::Template(path.into())
        } else if source.contains('/') {
            FileSource::Field(source.parse()?)
        } else {
            of_roles(name, source)?
        };
        Ok(Self { name: name.to_owned(), variable: variable.map(ToOwned::to_owned), source })
    }
}

fn of_roles(name: &str, source: &str) -> Result<FileSource, String> {
    let (roles, format) = match source.split_once(':') {
        Some((roles, format)) => (roles, format.parse::<FileFormat>()?),
        None => (source, FileFormat::of_name(name)?),
    };
    let roles: Vec<String> = roles.split(',').map(ToOwned::to_owned).collect();
    if !roles.iter().all(|role| is_word(role)) {
        return Err("expected ROLE, of letters, digits, `-` and `_`".into());
    }
    if roles.len() > 1 && !format.takes_several() {
        return Err("only aws, pg_service and pgpass hold more than one role".into());
    }
    Ok(FileSource::Roles { roles, format })
}

fn is_file_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| is_word_char(c) || c == '.')
}

impl FileFormat {
    /// What a file of this name usually is.
    fn of_name(name: &str) -> Result<Self, String> {
        let extension = name.rsplit_once('.').map_or(name, |(_, extension)| extension);
        match (name, extension) {
            ("credentials", _) | (_, "aws") => Ok(Self::Aws),
            ("pg_service.conf" | "pg_service", _) => Ok(Self::PgService),
            (_, "cnf") => Ok(Self::MyCnf),
            (_, "dotenv" | "env") => Ok(Self::Dotenv),
            (_, "json") => Ok(Self::Json),
            (_, "pgpass") => Ok(Self::Pgpass),
            (_, "properties") => Ok(Self::Properties),
            _ => Err(format!("`{name}` names no format; give one as in {name}=ROLE:json")),
        }
    }

    /// Its name on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Dotenv => "dotenv",
            Self::Json => "json",
            Self::MyCnf => "my.cnf",
            Self::PgService => "pg_service",
            Self::Pgpass => "pgpass",
            Self::Properties => "properties",
        }
    }

    /// Whether one file serves several roles.
    fn takes_several(self) -> bool {
        matches!(self, Self::Aws | Self::PgService | Self::Pgpass)
    }
}

impl FromStr for FileFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "aws" => Ok(Self::Aws),
            "dotenv" => Ok(Self::Dotenv),
            "json" => Ok(Self::Json),
            "my.cnf" => Ok(Self::MyCnf),
            "pg_service" => Ok(Self::PgService),
            "pgpass" => Ok(Self::Pgpass),
            "properties" => Ok(Self::Properties),
            _ => {
                Err("FORMAT is aws, dotenv, json, my.cnf, pg_service, pgpass or properties".into())
            }
        }
    }
}

impl FromStr for OnRotate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "restart" => Ok(Self::Restart),
            Some(("signal", name)) => signal(name).map(Self::Signal),
            Some(("exec", command)) if !command.trim().is_empty() => {
                Ok(Self::Exec(command.to_owned()))
            }
            _ => Err("expected none, signal:HUP, restart or exec:CMD".into()),
        }
    }
}

fn signal(name: &str) -> Result<Signal, String> {
    match name.strip_prefix("SIG").unwrap_or(name) {
        "HUP" => Ok(Signal::HUP),
        "INT" => Ok(Signal::INT),
        "QUIT" => Ok(Signal::QUIT),
        "TERM" => Ok(Signal::TERM),
        "USR1" => Ok(Signal::USR1),
        "USR2" => Ok(Signal::USR2),
        "WINCH" => Ok(Signal::WINCH),
        _ => Err("the signal is HUP, INT, QUIT, TERM, USR1, USR2 or WINCH".into()),
    }
}

#[cfg(test)]
mod tests;
