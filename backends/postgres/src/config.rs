//! How the server is reached, and what a role of it is made of.
//!
//! Invariant: a configuration or template that was accepted can be turned into SQL; what
//! the server itself would refuse is found by the canary.

use std::{collections::BTreeMap, num::NonZeroU32, path::PathBuf};

use dayfly_backend_sdk::{Error, ErrorKind, HandleError, HandlePrefix, Plan, Secret, Template};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    quote::{Ident, Literal, QuoteError},
    statement::{Moment, Statement, StatementError},
};

/// More than this does nothing for a random password but burn both sides' CPU.
const SCRAM_ITERATIONS_MAX: u32 = 100_000;
const STATEMENTS_MAX: usize = 64;

/// A PostgreSQL server and the account that mints at it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresConfig {
    /// A host name, an address, or the directory of a Unix socket.
    pub host: String,
    /// The port; with a socket directory a part of the socket's name.
    pub port: u16,
    /// The database that we connect to, and the one that credentials name unless their role
    /// says another.
    pub database: String,
    /// Our account.
    pub username: String,
    /// Its password; `None` where the server asks for none (peer, certificates).
    #[serde(skip)]
    pub password: Option<Secret>,
    /// By default `verify-full`, on a Unix socket `disable`.
    pub tls: Option<Tls>,
    /// Authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What all our roles' names begin with.
    pub prefix: String,
    /// The host that credentials name, where it is another than ours.
    pub public_host: Option<String>,
    /// The port that credentials name.
    pub public_port: Option<u16>,
    /// The most connections that we hold.
    pub connections_max: u32,
    /// The longest that one statement may run at the server.
    pub statement_timeout_ms: u32,
    /// The longest that we wait for a connection.
    pub acquire_timeout_ms: u32,
    /// The longest that we wait for ended sessions to be gone.
    pub session_end_timeout_ms: u32,
    /// How far the server's clock may be from the store's. Mints are refused this much before
    /// their deadline, and `VALID UNTIL` is set this much after the lease's end.
    pub clock_skew_ms_max: u32,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 5432,
            database: "postgres".to_owned(),
            username: "dayfly".to_owned(),
            password: None,
            tls: None,
            ca_file: None,
            prefix: "dayfly_".to_owned(),
            public_host: None,
            public_port: None,
            connections_max: 8,
            statement_timeout_ms: 5_000,
            acquire_timeout_ms: 5_000,
            session_end_timeout_ms: 5_000,
            clock_skew_ms_max: 1_000,
        }
    }
}

impl PostgresConfig {
    /// Whether `host` is the directory of a Unix socket.
    pub fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// The TLS mode in force.
    pub fn tls(&self) -> Tls {
        self.tls.unwrap_or(if self.is_socket() { Tls::Disable } else { Tls::VerifyFull })
    }

    /// Checks what the types leave open, and gives the prefix.
    pub fn check(&self) -> Result<HandlePrefix, ConfigError> {
        let bounds = [
            ("connections_max", self.connections_max, 1, 1_000),
            ("statement_timeout_ms", self.statement_timeout_ms, 10, 600_000),
            ("acquire_timeout_ms", self.acquire_timeout_ms, 10, 600_000),
            ("session_end_timeout_ms", self.session_end_timeout_ms, 10, 600_000),
            ("clock_skew_ms_max", self.clock_skew_ms_max, 0, 60_000),
        ];
        for (name, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::Range { name, value, min, max });
            }
        }
        for name in [&self.host, &self.database, &self.username] {
            if name.is_empty() || name.contains('\0') {
                return Err(ConfigError::Name(name.replace('\0', "\u{fffd}")));
            }
        }
        if self.is_socket() && self.tls() != Tls::Disable {
            return Err(ConfigError::SocketTls);
        }
        HandlePrefix::parse(self.prefix.clone()).map_err(ConfigError::Prefix)
    }
}

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// In the clear.
    Disable,
    /// Encrypted, to whoever answers.
    Require,
    /// Encrypted, to the host that the certificate names.
    VerifyFull,
}

/// The template of a role: what one of its credentials is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresTemplate {
    /// Roles whose rights it has.
    pub member_of: Vec<String>,
    /// How many sessions at once; unlimited when absent.
    pub connection_limit: Option<u16>,
    /// Iterations of the password's verifier.
    pub scram_iterations: u32,
    /// Settings of its sessions (`ALTER ROLE … SET`). A session may change them.
    pub set: BTreeMap<String, Setting>,
    /// Run after the role was created, in the same transaction.
    pub statements: Vec<String>,
    /// Run before the role is dropped.
    pub revoke_statements: Vec<String>,
    /// The database that the credential names; ours when absent.
    pub database: Option<String>,
    /// What becomes of what it owns at its end.
    pub owned: Owned,
}

impl Default for PostgresTemplate {
    fn default() -> Self {
        Self {
            member_of: Vec::new(),
            connection_limit: None,
            scram_iterations: 4096,
            set: BTreeMap::new(),
            statements: Vec::new(),
            revoke_statements: Vec::new(),
            database: None,
            owned: Owned::Fail,
        }
    }
}

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// `on` or `off`.
    Bool(bool),
    /// A number, in the setting's own unit.
    Number(i64),
    /// A text, as one value.
    Text(String),
    /// Several values, for settings that are lists (`search_path`).
    List(Vec<String>),
}

/// What becomes of objects that a credential's role owns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Owned {
    /// They are dropped with it.
    Drop,
    /// The revocation fails until someone has decided.
    #[default]
    Fail,
    /// They go to the one role that it is a member of.
    Group,
    /// They go to this role.
    Reassign(String),
}

impl TryFrom<String> for Owned {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Self, ConfigError> {
        match text.split_once(':') {
            None if text == "drop" => Ok(Self::Drop),
            None if text == "fail" => Ok(Self::Fail),
            None if text == "group" => Ok(Self::Group),
            Some(("reassign", role)) if !role.is_empty() => Ok(Self::Reassign(role.to_owned())),
            _ => Err(ConfigError::Owned(text)),
        }
    }
}

impl From<Owned> for String {
    fn from(owned: Owned) -> Self {
        match owned {
            Owned::Drop => "drop".to_owned(),
            Owned::Fail => "fail".to_owned(),
            Owned::Group => "group".to_owned(),
            Owned::Reassign(role) => format!("reassign:{role}"),
        }
    }
}

/// A configuration or template that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A host, database or account that is none.
    #[error("`{0}` is empty or has a zero byte")]
    Name(String),
    /// `owned = "group"`, and there is not one group.
    #[error("`owned` is `group`, which needs one role in `member_of`, and there are {0}")]
    Group(usize),
    /// Something else than the four.
    #[error("`{0}` is none of `fail`, `drop`, `group`, `reassign:ROLE`")]
    Owned(String),
    /// The plan of a lease cannot be read.
    #[error("the revocation plan cannot be read")]
    Plan(#[source] serde_json::Error),
    /// Not a prefix.
    #[error("the prefix cannot be used")]
    Prefix(#[source] HandleError),
    /// A name or value that cannot stand in SQL.
    #[error("a name or value cannot be quoted")]
    Quote(#[from] QuoteError),
    /// A number outside its bounds.
    #[error("`{name}` is {value}, and {min} to {max} are allowed")]
    Range {
        /// Which setting.
        name: &'static str,
        /// What was given.
        value: u32,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// Not the name of a setting, or one that would change who the session is.
    #[error("`{0}` cannot be set for a role")]
    Setting(String),
    /// TLS over a Unix socket.
    #[error("a Unix socket has no TLS")]
    SocketTls,
    /// A statement that cannot be used.
    #[error("a statement cannot be used")]
    Statement(#[from] StatementError),
    /// More statements than one message should carry.
    #[error("{0} statements, and 64 are the most")]
    Statements(usize),
    /// The template is not one of ours.
    #[error("the template of the role cannot be read")]
    Template(#[source] serde_json::Error),
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorKind::Invalid, "the configuration cannot be used").with_source(error)
    }
}

/// A template, checked and quoted.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) member_of: Vec<Ident>,
    pub(crate) connection_limit: i64,
    pub(crate) scram_iterations: NonZeroU32,
    pub(crate) set: Vec<(Vec<Ident>, Vec<Literal>)>,
    pub(crate) statements: Vec<Statement>,
    pub(crate) database: String,
}

/// What a lease keeps for its role's end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EndPlan {
    /// Where its credential logged in: once the only place where something was handed over, and
    /// still in the plans of leases.
    #[serde(skip_serializing)]
    database: Option<String>,
    pub(crate) owned: Owned,
    pub(crate) revoke_statements: Vec<String>,
}

impl EndPlan {
    /// Reads a lease's plan; an empty one (an orphan's) is the default.
    pub(crate) fn read(plan: &Plan) -> Result<Self, ConfigError> {
        if plan.0.is_null() {
            return Ok(Self::default());
        }
        serde_json::from_value(plan.0.clone()).map_err(ConfigError::Plan)
    }

    /// The statements to run before the drop.
    pub(crate) fn statements(&self) -> Result<Vec<Statement>, StatementError> {
        let parse = |text: &String| Statement::parse(text, Moment::Revoke);
        self.revoke_statements.iter().map(parse).collect()
    }
}

impl PostgresTemplate {
    /// Reads the template of a role.
    pub fn parse(raw: &Value) -> Result<Self, ConfigError> {
        serde_json::from_value(raw.clone()).map_err(ConfigError::Template)
    }

    /// Checks it and makes it ready to mint from. `database` is the backend's own.
    pub(crate) fn sealed(self, database: &str) -> Result<Template, ConfigError> {
        for statements in [&self.statements, &self.revoke_statements] {
            if statements.len() > STATEMENTS_MAX {
                return Err(ConfigError::Statements(statements.len()));
            }
        }
        if let Owned::Reassign(role) = &self.owned {
            Ident::new(role)?;
        }
        let database = self.database.clone().unwrap_or_else(|| database.to_owned());
        Ident::new(&database)?;
        let plan = EndPlan {
            database: None,
            owned: self.heir()?,
            revoke_statements: self.revoke_statements.clone(),
        };
        plan.statements()?;
        let parse = |text: &String| Statement::parse(text, Moment::Mint);
        let recipe = Recipe {
            member_of: self
                .member_of
                .iter()
                .map(|role| Ident::new(role))
                .collect::<Result<_, _>>()?,
            connection_limit: self.connection_limit.map_or(-1, i64::from),
            scram_iterations: self.iterations()?,
            set: self.set.iter().map(setting).collect::<Result<_, _>>()?,
            statements: self.statements.iter().map(parse).collect::<Result<_, _>>()?,
            database,
        };
        let plan = serde_json::to_value(plan).map_err(ConfigError::Plan)?;
        Ok(Template::new(Plan(plan), recipe))
    }

    /// Whose its things become, with the group's name in place of `group`.
    fn heir(&self) -> Result<Owned, ConfigError> {
        match (&self.owned, self.member_of.as_slice()) {
            (Owned::Group, [group]) => Ok(Owned::Reassign(group.clone())),
            (Owned::Group, groups) => Err(ConfigError::Group(groups.len())),
            (Owned::Drop | Owned::Fail | Owned::Reassign(_), _) => Ok(self.owned.clone()),
        }
    }

    fn iterations(&self) -> Result<NonZeroU32, ConfigError> {
        let value = self.scram_iterations;
        NonZeroU32::new(value).filter(|_| value <= SCRAM_ITERATIONS_MAX).ok_or(ConfigError::Range {
            name: "scram_iterations",
            value,
            min: 1,
            max: SCRAM_ITERATIONS_MAX,
        })
    }
}

/// `name` or `extension.name`, and its values.
fn setting((name, value): (&String, &Setting)) -> Result<(Vec<Ident>, Vec<Literal>), ConfigError> {
    let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    let parts: Vec<&str> = name.split('.').collect();
    let legal = parts.iter().all(|part| !part.is_empty() && part.bytes().all(legal));
    if !legal || parts.len() > 2 || name == "session_authorization" {
        return Err(ConfigError::Setting(name.clone()));
    }
    let values = match value {
        Setting::Bool(on) => vec![if *on { "on" } else { "off" }.to_owned()],
        Setting::Number(number) => vec![number.to_string()],
        Setting::Text(text) => vec![text.clone()],
        Setting::List(list) if list.is_empty() => return Err(ConfigError::Setting(name.clone())),
        Setting::List(list) => list.clone(),
    };
    let idents = parts.into_iter().map(Ident::new).collect::<Result<_, _>>()?;
    let literals = values.iter().map(|value| Literal::new(value)).collect::<Result<_, _>>()?;
    Ok((idents, literals))
}

#[cfg(test)]
mod tests;
