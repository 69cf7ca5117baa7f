//! How an account proves who it is.
//!
//! Invariant: whichever it is, the server is told something that is computed here from the
//! password, and never the password.

use std::fmt;

use serde::Deserialize;

use crate::config::Server;

/// The plugin by which the server checks a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authentication {
    /// MySQL's own. The first login of an account sends the password itself, so that it needs
    /// TLS or the server's RSA key.
    CachingSha2Password,
    /// MariaDB's `auth_ed25519`, which has to be installed. The server keeps a public key.
    Ed25519,
    /// MariaDB's own: SHA-1, of a password with 256 random bits.
    MysqlNativePassword,
}

impl Authentication {
    /// What accounts of `server` have where nothing else is said: it needs no installation.
    pub(crate) fn usual(server: Server) -> Self {
        match server {
            Server::Mariadb => Self::MysqlNativePassword,
            Server::Mysql => Self::CachingSha2Password,
        }
    }

    /// Which server has it. MySQL 9 has no `mysql_native_password` any more, and 8.4 has it
    /// switched off.
    pub(crate) fn server(self) -> Server {
        match self {
            Self::CachingSha2Password => Server::Mysql,
            Self::Ed25519 | Self::MysqlNativePassword => Server::Mariadb,
        }
    }
}

impl fmt::Display for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CachingSha2Password => "caching_sha2_password",
            Self::Ed25519 => "ed25519",
            Self::MysqlNativePassword => "mysql_native_password",
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_is_called_what_its_server_calls_it() {
        for one in [
            Authentication::CachingSha2Password,
            Authentication::Ed25519,
            Authentication::MysqlNativePassword,
        ] {
            let read: Authentication = serde_json::from_value(json!(one.to_string())).unwrap();
            assert_eq!(read, one);
        }
    }

    #[test]
    fn what_is_usual_at_a_server_is_one_of_its_own() {
        for server in [Server::Mysql, Server::Mariadb] {
            assert_eq!(Authentication::usual(server).server(), server);
        }
    }
}
