//! The settings of the backend.
//!
//! Invariant: what passes [`RedisConfig::check`] can be used as it is.

use std::path::PathBuf;

use dayfly_backend_sdk::{Error, ErrorKind, HandleError, HandlePrefix, Secret};
use serde::Deserialize;

use crate::rules::RuleError;

const NODES_MAX: usize = 64;
const TIMEOUT_MS_MAX: u32 = 60_000;
const CLOCK_SKEW_MS_MAX: u32 = 60_000;
const DEFAULT_PORT: u16 = 6379;

/// The settings of one set of nodes that have the same users.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// `host:port` of every node: the primary first, then each replica or each other primary of
    /// a cluster. A node that is not named keeps no user of ours, and ends none.
    pub nodes: Vec<String>,
    /// Dayfly's own user.
    #[serde(default = "default_user")]
    pub username: String,
    /// Its password. Set from its own key in the configuration, never from here.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// What all handles begin with. Set from its own key as well.
    #[serde(skip)]
    pub prefix: String,
    /// How the nodes are spoken to.
    #[serde(default)]
    pub tls: Tls,
    /// The certificate authorities that are trusted, in PEM; the system's when absent.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How the nodes keep their users across a restart.
    #[serde(default)]
    pub persist: Persist,
    /// Where workloads find the first node, if not where we do.
    #[serde(default)]
    pub public_host: Option<String>,
    /// The same for its port.
    #[serde(default)]
    pub public_port: Option<u16>,
    /// How far the nodes' clocks may be off the store's, in milliseconds.
    #[serde(default = "default_skew")]
    pub clock_skew_ms_max: u32,
    /// How long a connection may take, in milliseconds.
    #[serde(default = "default_connect")]
    pub connect_timeout_ms: u32,
    /// How long one answer may take, in milliseconds.
    #[serde(default = "default_answer")]
    pub answer_timeout_ms: u32,
}

/// How a node is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// In the clear: for a loopback or a network of its own.
    Disable,
    /// Encrypted, to the host that the certificate names.
    #[default]
    VerifyFull,
}

/// How a node keeps its users across a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Persist {
    /// In its ACL file (`aclfile` in its configuration): `ACL SAVE`.
    #[default]
    AclFile,
    /// In its configuration file: `CONFIG REWRITE`.
    Config,
    /// Not at all: after a restart no user of ours is there, and none comes back.
    None,
}

fn default_user() -> String {
    "default".to_owned()
}

const fn default_skew() -> u32 {
    2_000
}

const fn default_connect() -> u32 {
    3_000
}

const fn default_answer() -> u32 {
    5_000
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Place {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let bad = || ConfigError::Node(text.to_owned());
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(bad)?;
                (host, port.strip_prefix(':').or(port.is_empty().then_some("")).ok_or_else(bad)?)
            }
            None => text.split_once(':').unwrap_or((text, "")),
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        if host.is_empty() || !host.chars().all(legal) {
            return Err(bad());
        }
        let port = if port.is_empty() { DEFAULT_PORT } else { port.parse().map_err(|_| bad())? };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl RedisConfig {
    /// Checks everything that can be wrong without asking a node.
    pub(crate) fn check(&self) -> Result<(HandlePrefix, Vec<Place>), ConfigError> {
        let prefix = HandlePrefix::parse(&self.prefix).map_err(ConfigError::Prefix)?;
        if self.nodes.is_empty() || self.nodes.len() > NODES_MAX {
            return Err(ConfigError::Nodes(self.nodes.len()));
        }
        let places =
            self.nodes.iter().map(|node| Place::parse(node)).collect::<Result<Vec<_>, _>>()?;
        for (at, place) in places.iter().enumerate() {
            if places.iter().take(at).any(|before| before == place) {
                return Err(ConfigError::Twice(format!("{}:{}", place.host, place.port)));
            }
        }
        if self.username.is_empty() || self.username.contains(char::is_whitespace) {
            return Err(ConfigError::User(self.username.clone()));
        }
        let range = |name, value, min, max| match value {
            value if value < min || value > max => {
                Err(ConfigError::Range { name, value, min, max })
            }
            _ => Ok(()),
        };
        range("connect_timeout_ms", self.connect_timeout_ms, 100, TIMEOUT_MS_MAX)?;
        range("answer_timeout_ms", self.answer_timeout_ms, 100, TIMEOUT_MS_MAX)?;
        range("clock_skew_ms_max", self.clock_skew_ms_max, 0, CLOCK_SKEW_MS_MAX)?;
        if self.tls == Tls::Disable && self.ca_file.is_some() {
            return Err(ConfigError::CaWithoutTls);
        }
        Ok((prefix, places))
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Somebody is to be trusted and nobody is asked.
    #[error("`ca_file` is set and `tls` is `disable`")]
    CaWithoutTls,
    /// The CA file cannot be read.
    #[error("`{path}` cannot be read")]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// What the client library refuses.
    #[error("the connection to `{0}` cannot be set up")]
    Client(String),
    /// Neither a host nor a host and a port.
    #[error("`{0}` is not `host` or `host:port`")]
    Node(String),
    /// None or too many.
    #[error("{0} nodes, and 1 to 64 are allowed")]
    Nodes(usize),
    /// Not a prefix.
    #[error("the prefix cannot be used")]
    Prefix(#[source] HandleError),
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
    /// A rule of the template.
    #[error("the template cannot be used")]
    Rule(#[from] RuleError),
    /// The template is not one of ours.
    #[error("the template of the role cannot be read")]
    Template(#[source] serde_json::Error),
    /// A node that is named twice.
    #[error("the node `{0}` is named twice")]
    Twice(String),
    /// Not a user's name.
    #[error("`{0}` is no user's name")]
    User(String),
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

    fn config(raw: serde_json::Value) -> RedisConfig {
        let mut config: RedisConfig = serde_json::from_value(raw).unwrap();
        "df_".clone_into(&mut config.prefix);
        config
    }

    #[test]
    fn nodes_are_hosts_with_or_without_a_port() {
        let nodes = ["cache", "10.0.0.1:7000", "[::1]", "[fe80::1]:7001"];
        let (_, places) = config(json!({ "nodes": nodes })).check().unwrap();
        let read: Vec<_> = places.iter().map(|place| (place.host.as_str(), place.port)).collect();
        let expected = [("cache", 6379), ("10.0.0.1", 7000), ("::1", 6379), ("fe80::1", 7001)];
        assert_eq!(read, expected);
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let refused = |raw| config(raw).check().unwrap_err().to_string();
        assert_eq!(refused(json!({ "nodes": [] })), "0 nodes, and 1 to 64 are allowed");
        for bad in ["", "a b", "a:b", "a:70000", "[::1", "[::1]7", "a/b"] {
            let text = refused(json!({ "nodes": [bad] }));
            assert_eq!(text, format!("`{bad}` is not `host` or `host:port`"));
        }
        let twice = refused(json!({ "nodes": ["a", "a:6379"] }));
        assert_eq!(twice, "the node `a:6379` is named twice");
        let user = refused(json!({ "nodes": ["a"], "username": "a b" }));
        assert_eq!(user, "`a b` is no user's name");
        let ca = refused(json!({ "nodes": ["a"], "tls": "disable", "ca_file": "/ca.pem" }));
        assert_eq!(ca, "`ca_file` is set and `tls` is `disable`");
        let range = refused(json!({ "nodes": ["a"], "answer_timeout_ms": 5 }));
        assert_eq!(range, "`answer_timeout_ms` is 5, and 100 to 60000 are allowed");
        let unknown: Result<RedisConfig, _> = serde_json::from_value(json!({ "node": ["a"] }));
        assert!(unknown.is_err());
    }

    #[test]
    fn the_defaults_are_encrypted_and_kept() {
        let config = config(json!({ "nodes": ["a"] }));
        assert_eq!((config.tls, config.persist), (Tls::VerifyFull, Persist::AclFile));
    }
}
