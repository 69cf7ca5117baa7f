//! Values of flags that clap does not know.
//!
//! Invariant: a value that parses can be used as it is; nothing is checked again later.

use std::{str::FromStr, time::Duration};

use dayfly_api::{Outcome, is_variable_name};

/// One `--role`: which role, and what its variables' names begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoleRequest {
    pub(crate) prefix: Option<String>,
    pub(crate) role: String,
}

impl FromStr for RoleRequest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (prefix, role) = match text.split_once('=') {
            Some((prefix, role)) => (Some(prefix), role),
            None => (None, text),
        };
        if prefix.is_some_and(|prefix| !is_variable_name(prefix)) {
            return Err("NAME must be letters, digits and `_`, and not begin with a digit".into());
        }
        if role.is_empty() || role.contains(|c: char| c == '=' || c.is_whitespace()) {
            return Err("expected ROLE or NAME=ROLE".into());
        }
        Ok(Self { prefix: prefix.map(ToOwned::to_owned), role: role.to_owned() })
    }
}

/// A role's name alone.
pub(super) fn role_name(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.is_empty() || !text.chars().all(legal) {
        return Err("expected a role's name".into());
    }
    Ok(text.to_owned())
}

/// One `--field-map`: what a protocol calls it, and what the credential does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MappedField {
    pub(crate) name: String,
    pub(crate) field: String,
}

impl FromStr for MappedField {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, field)) if !name.is_empty() && !field.is_empty() => {
                Ok(Self { name: name.to_owned(), field: field.to_owned() })
            }
            _ => Err("expected NAME=FIELD".into()),
        }
    }
}

/// One `--credential` of the agent: what systemd calls it, and what it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServedCredential {
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) part: Part,
}

/// What of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// One field as it is.
    Field(String),
    /// An option file of MySQL.
    Mysql,
    /// A password file of PostgreSQL.
    Pgpass,
}

impl FromStr for ServedCredential {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected NAME=ROLE/FIELD, NAME=ROLE:pgpass or NAME=ROLE:mysql";
        let (name, rest) = text.split_once('=').ok_or(EXPECTED)?;
        if name.is_empty() || name.contains('/') {
            return Err(EXPECTED.into());
        }
        let (role, part) = match (rest.split_once('/'), rest.split_once(':')) {
            (Some((role, field)), _) if !field.is_empty() => (role, Part::Field(field.to_owned())),
            (None, Some((role, "mysql"))) => (role, Part::Mysql),
            (None, Some((role, "pgpass"))) => (role, Part::Pgpass),
            _ => return Err(EXPECTED.into()),
        };
        let role = role_name(role).map_err(|_| EXPECTED)?;
        Ok(Self { name: name.to_owned(), role, part })
    }
}

/// `90s`, `15m`, `1h30m`. A number without a unit is refused: readers disagree on what it is.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a time like 90s, 15m or 1h30m";
    let mut seconds = 0_u64;
    let mut rest = text;
    if rest.is_empty() {
        return Err(EXPECTED.into());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(EXPECTED)?;
        let (number, tail) = rest.split_at(digits);
        let mut tail = tail.chars();
        let unit = match tail.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            _ => return Err(EXPECTED.into()),
        };
        let number: u64 = number.parse().map_err(|_| EXPECTED)?;
        let part = number.checked_mul(unit).ok_or("that is too long")?;
        seconds = seconds.checked_add(part).ok_or("that is too long")?;
        rest = tail.as_str();
    }
    if seconds > SECONDS_MAX {
        Err("that is too long".into())
    } else {
        Ok(Duration::from_secs(seconds))
    }
}

/// A year; no credential should be asked for that long, and no timer overflows on it.
const SECONDS_MAX: u64 = 366 * 24 * 3600;

/// A lifetime: a duration that is not zero.
pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if ttl.is_zero() { Err("a lifetime can't be zero".into()) } else { Ok(ttl) }
}

/// How long the broker lets us be silent; none: until the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat(pub(crate) Option<Duration>);

pub(super) fn heartbeat(text: &str) -> Result<Heartbeat, String> {
    if text == "none" {
        return Ok(Heartbeat(None));
    }
    let every = duration(text)?;
    if every.is_zero() {
        return Err("a heartbeat can't be zero; `none` switches it off".into());
    }
    Ok(Heartbeat(Some(every)))
}

pub(super) fn outcome(text: &str) -> Result<Outcome, String> {
    match text {
        "cancelled" => Ok(Outcome::Cancelled),
        "completed" => Ok(Outcome::Completed),
        "failed" => Ok(Outcome::Failed),
        _ => Err("expected completed, failed or cancelled".into()),
    }
}
