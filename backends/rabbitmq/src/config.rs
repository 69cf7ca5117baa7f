//! How the management API is reached.
//!
//! Invariant: what passes [`RabbitmqConfig::check`] can be used as it is.

use std::{net::IpAddr, path::PathBuf};

use dayfly_backend_sdk::{Error, ErrorKind, HandleError, HandlePrefix, Secret};
use serde::Deserialize;
use url::{Host, Url};

use crate::rights::RightsError;

/// A broker, or a cluster of them, and the user that mints at it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitmqConfig {
    /// Where the management API is: `https://rabbit.example:15671`. In the clear on loopback
    /// only.
    pub url: String,
    /// Our user, an `administrator`.
    #[serde(default = "default_user")]
    pub username: String,
    /// Its password. Set from its own key in the configuration, never from here.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// What all our users' names begin with. Set from its own key as well.
    #[serde(skip)]
    pub prefix: String,
    /// Authorities to trust instead of the system's, in PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The host that credentials name; that of `url` when absent.
    #[serde(default)]
    pub public_host: Option<String>,
    /// The port that credentials name; the one that AMQP has, with or without TLS.
    #[serde(default)]
    pub public_port: Option<u16>,
    /// Whether workloads speak to it over TLS (`amqps`).
    #[serde(default = "yes")]
    pub public_tls: bool,
    /// The longest that one request may take, in milliseconds.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u32,
    /// The longest that we wait for closed connections to be gone, in milliseconds.
    #[serde(default = "default_end")]
    pub session_end_timeout_ms: u32,
}

fn default_user() -> String {
    "dayfly".to_owned()
}

const fn yes() -> bool {
    true
}

const fn default_timeout() -> u32 {
    5_000
}

const fn default_end() -> u32 {
    5_000
}

impl RabbitmqConfig {
    /// Checks what the types leave open, and gives the prefix and the API's address.
    pub(crate) fn check(&self) -> Result<(HandlePrefix, Url), ConfigError> {
        let bounds = [
            ("timeout_ms", self.timeout_ms, 10, 600_000),
            ("session_end_timeout_ms", self.session_end_timeout_ms, 10, 600_000),
        ];
        for (name, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::Range { name, value, min, max });
            }
        }
        if self.username.is_empty() || self.username.contains([':', '\0']) {
            return Err(ConfigError::Name(self.username.replace('\0', "\u{fffd}")));
        }
        let mut url = Url::parse(&self.url).map_err(|_| ConfigError::Url(self.url.clone()))?;
        let plain = url.username().is_empty() && url.password().is_none();
        let bare = url.query().is_none() && url.fragment().is_none();
        let safe = match url.scheme() {
            "https" => true,
            "http" => url.host().is_some_and(|host| is_loopback(&host)),
            _ => false,
        };
        if !(plain && bare && safe) {
            return Err(ConfigError::Url(self.url.clone()));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let prefix = HandlePrefix::parse(self.prefix.clone()).map_err(ConfigError::Prefix)?;
        Ok((prefix, url))
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => IpAddr::from(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::from(*address).is_loopback(),
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The authorities cannot be read.
    #[error("`ca_file` {path} cannot be read")]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The HTTP client could not be set up.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
    /// No user's name for a login by HTTP.
    #[error("the user name `{0}` is empty, or has a colon or a zero byte")]
    Name(String),
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
    /// A template that cannot be granted.
    #[error("the template cannot be used")]
    Rights(#[from] RightsError),
    /// Not an address of a management API.
    #[error(
        "`{0}` is no `https://` address without user, query and fragment (on loopback `http://`)"
    )]
    Url(String),
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

    fn checked(url: &str) -> Result<Url, String> {
        let mut config: RabbitmqConfig = serde_json::from_value(json!({ "url": url })).unwrap();
        "df_".clone_into(&mut config.prefix);
        config.check().map(|(_, url)| url).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_is_https_or_on_loopback() {
        for good in
            ["https://a.example", "http://127.0.0.1:15672", "http://[::1]", "http://localhost/x"]
        {
            assert!(checked(good).unwrap().path().ends_with('/'), "{good}");
        }
        for bad in
            ["http://a.example", "https://u:p@a", "https://a?b", "https://a#b", "ftp://a", "a", ""]
        {
            assert!(checked(bad).unwrap_err().contains("is no `https://` address"), "{bad}");
        }
    }
}
