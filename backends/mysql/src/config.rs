//! How the server is reached.
//!
//! Invariant: what passes [`MysqlConfig::check`] can be used as it is.

use std::{fmt, path::PathBuf};

use dayfly_backend_sdk::{Error, ErrorKind, HandleError, HandlePrefix, Secret};
use serde::Deserialize;

use crate::{quote::QuoteError, template::TemplateError};

/// MySQL's account names have 32 characters, and 26 of them are the lease's.
pub(crate) const HANDLE_LEN_MAX: usize = 32;
pub(crate) const PREFIX_LEN_MAX: usize = 6;
const HOST_LEN_MAX: usize = 255;

/// A server and the account that mints at it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MysqlConfig {
    /// Which of the two it is; they differ in what they can be told.
    pub server: Server,
    /// A host name, an address, or the path of a Unix socket.
    pub host: String,
    /// The port; nothing with a socket.
    pub port: u16,
    /// Our account.
    pub username: String,
    /// Its password. Set from its own key in the configuration, never from here.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// By default `verify-full`, on a Unix socket `disable`.
    pub tls: Option<Tls>,
    /// Authorities to trust instead of the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// What all our accounts' names begin with. Set from its own key as well.
    #[serde(skip)]
    pub prefix: String,
    /// From where the accounts may log in, as the server has it (`%`, `10.0.%`).
    pub account_host: String,
    /// The host that credentials name, where it is another than ours.
    pub public_host: Option<String>,
    /// The port that credentials name.
    pub public_port: Option<u16>,
    /// The most connections that we hold for minting; revocations have some of their own.
    pub connections_max: u32,
    /// The longest that a statement waits for another's lock, in seconds.
    pub lock_wait_timeout_s: u32,
    /// The longest that we wait for a connection, in milliseconds.
    pub acquire_timeout_ms: u32,
    /// The longest that we wait for an answer, in milliseconds.
    pub answer_timeout_ms: u32,
    /// The longest that we wait for ended sessions to be gone, in milliseconds.
    pub session_end_timeout_ms: u32,
    /// How far the server's clock may be from the store's, in milliseconds. Mints are refused
    /// this much before their deadline.
    pub clock_skew_ms_max: u32,
}

impl Default for MysqlConfig {
    fn default() -> Self {
        Self {
            server: Server::Mysql,
            host: "localhost".to_owned(),
            port: 3306,
            username: "dayfly".to_owned(),
            password: None,
            tls: None,
            ca_file: None,
            prefix: String::new(),
            account_host: "%".to_owned(),
            public_host: None,
            public_port: None,
            connections_max: 8,
            lock_wait_timeout_s: 1,
            acquire_timeout_ms: 5_000,
            answer_timeout_ms: 10_000,
            session_end_timeout_ms: 5_000,
            clock_skew_ms_max: 1_000,
        }
    }
}

/// Which server it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Server {
    /// MySQL 8.0 and later: `caching_sha2_password`.
    #[default]
    Mysql,
    /// MariaDB 10.5 and later: `mysql_native_password`, or `ed25519` where a role says so.
    Mariadb,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
        })
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

impl MysqlConfig {
    /// Whether `host` is the path of a Unix socket.
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
            // MySQL takes no less than 1.
            ("lock_wait_timeout_s", self.lock_wait_timeout_s, 1, 3),
            ("acquire_timeout_ms", self.acquire_timeout_ms, 10, 600_000),
            ("answer_timeout_ms", self.answer_timeout_ms, 10, 600_000),
            // The engine gives a revocation 20 s in all.
            ("session_end_timeout_ms", self.session_end_timeout_ms, 10, 10_000),
            ("clock_skew_ms_max", self.clock_skew_ms_max, 0, 60_000),
        ];
        for (name, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::Range { name, value, min, max });
            }
        }
        if self.answer_timeout_ms <= self.lock_wait_timeout_s * 1_000 {
            return Err(ConfigError::Impatient);
        }
        for name in [&self.host, &self.username, &self.account_host] {
            if name.is_empty() || name.contains('\0') || name.len() > HOST_LEN_MAX {
                return Err(ConfigError::Name(name.replace('\0', "\u{fffd}")));
            }
        }
        if self.is_socket() && self.tls() != Tls::Disable {
            return Err(ConfigError::SocketTls);
        }
        if self.server == Server::Mysql && self.tls() == Tls::Disable {
            return Err(ConfigError::Plain);
        }
        if self.prefix.len() > PREFIX_LEN_MAX {
            return Err(ConfigError::LongPrefix(self.prefix.clone()));
        }
        HandlePrefix::parse(self.prefix.clone()).map_err(ConfigError::Prefix)
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// An answer may take less time than the server may wait for a lock.
    #[error("`answer_timeout_ms` must be longer than `lock_wait_timeout_s`")]
    Impatient,
    /// With the lease's 26 characters the name would be too long for MySQL.
    #[error("the prefix `{0}` is longer than 6 characters, and an account's name has 32 in all")]
    LongPrefix(String),
    /// A host or account that is none.
    #[error("`{0}` is empty, has a zero byte or is longer than 255 bytes")]
    Name(String),
    /// MySQL's login sends the password itself when the server has not seen it before; without
    /// TLS it would have to be encrypted with RSA.
    #[error("MySQL is spoken to over TLS only (`tls = \"verify-full\"` and no Unix socket)")]
    Plain,
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
    /// TLS over a Unix socket.
    #[error("a Unix socket has no TLS")]
    SocketTls,
    /// Not a template.
    #[error("the template cannot be used")]
    Template(#[from] TemplateError),
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorKind::Invalid, "the configuration cannot be used").with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(raw: serde_json::Value) -> Result<MysqlConfig, String> {
        let mut config: MysqlConfig =
            serde_json::from_value(raw).map_err(|error| error.to_string())?;
        "df_".clone_into(&mut config.prefix);
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let config = config(json!({})).unwrap();
        assert_eq!((config.tls(), config.server), (Tls::VerifyFull, Server::Mysql));
        let socket = json!({ "host": "/run/mysqld/mysqld.sock", "server": "mariadb" });
        assert_eq!(self::config(socket).unwrap().tls(), Tls::Disable);
    }

    #[test]
    fn each_rule_has_its_fault() {
        for (raw, text) in [
            (json!({ "server": "percona" }), "unknown variant `percona`"),
            (json!({ "hosts": "a" }), "unknown field `hosts`"),
            (json!({ "host": "" }), "is empty"),
            (json!({ "host": "a\0" }), "zero byte"),
            (json!({ "account_host": "a".repeat(256) }), "255"),
            (json!({ "connections_max": 0 }), "`connections_max` is 0, and 1 to 1000"),
            (json!({ "lock_wait_timeout_s": 4 }), "`lock_wait_timeout_s` is 4"),
            (json!({ "answer_timeout_ms": 1_000 }), "must be longer than `lock_wait"),
            (json!({ "host": "/run/s", "tls": "verify-full" }), "a Unix socket has no TLS"),
            (json!({ "host": "/run/s" }), "over TLS only"),
            (json!({ "tls": "disable" }), "over TLS only"),
            (json!({ "password": "x" }), "unknown field `password`"),
        ] {
            let error = config(raw).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
        let long = MysqlConfig { prefix: "dayfly_".to_owned(), ..MysqlConfig::default() };
        assert!(matches!(long.check(), Err(ConfigError::LongPrefix(_))));
    }
}
