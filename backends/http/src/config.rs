//! Which API it is, its requests, and what it declares of itself.
//!
//! Invariant: no secret stands in any of it; `{password}` says where ours goes.

use std::{collections::BTreeMap, path::PathBuf};

use dayfly_backend_sdk::{Error, ErrorKind, HandleError, Secret};
use serde::Deserialize;
use serde_json::Value;

use crate::{role::RoleError, text::TextError};

/// An API and its requests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// What every path is under. In the clear on loopback only.
    pub url: String,
    /// What we sign in with. Set from its own key in the configuration, never from here.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// What all names begin with. Set from its own key as well.
    #[serde(skip)]
    pub prefix: String,
    /// Authorities to trust instead of the system's, in PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The longest that one request may take, in milliseconds.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u32,
    /// Headers of every request. The only place of `{password}`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Sign in as a GitHub App, whose private key is the password.
    #[serde(default)]
    pub github_app: Option<AppConfig>,
    /// Makes a credential.
    pub create: RequestConfig,
    /// Where things stand in the answer to `create`.
    pub answer: AnswerConfig,
    /// Ends a credential. Absent where the API cannot.
    #[serde(default)]
    pub revoke: Option<RequestConfig>,
    /// Asks whether a credential is still there.
    #[serde(default)]
    pub verify: Option<RequestConfig>,
    /// Lists the credentials that there are.
    #[serde(default)]
    pub list: Option<RequestConfig>,
    /// Where things stand in the answer to `list`.
    #[serde(default)]
    pub items: Option<ItemsConfig>,
    /// A request with the credential itself, for the canary.
    #[serde(default, rename = "use")]
    pub try_use: Option<RequestConfig>,
    /// Where the installation's marker is kept. Absent where there is no place for one.
    #[serde(default)]
    pub marker: Option<MarkerConfig>,
    /// The API ends credentials by itself.
    #[serde(default)]
    pub expiry: Option<ExpiryConfig>,
    /// Nobody else has this prefix at this API, although no marker says so.
    #[serde(default)]
    pub exclusive: bool,
    /// The API itself refuses a name that is there. With `false` we look first.
    #[serde(default = "yes")]
    pub unique_names: bool,
    /// Revoking ends sessions that are open.
    #[serde(default)]
    pub sessions_end: bool,
    /// The shortest lifetime, in seconds.
    #[serde(default = "default_ttl_min")]
    pub ttl_min_s: u32,
    /// The longest name that the API keeps whole, in bytes.
    #[serde(default = "default_name_len")]
    pub name_len_max: usize,
}

/// One request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestConfig {
    /// `POST` for `create`, `DELETE` for `revoke`, `PUT` for `marker.write`, else `GET`.
    #[serde(default)]
    pub method: Option<String>,
    /// Under the API's `url`.
    pub path: String,
    /// Parameters in the URL.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// Headers of this request; each takes the place of one of every request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body, as JSON.
    #[serde(default)]
    pub body: Option<Value>,
    /// Statuses that say that it was done; any from 200 to 299 when absent.
    #[serde(default)]
    pub ok: Vec<u16>,
    /// Of `revoke`, `verify` and `marker.read`: it is not there. Of `use`: it is refused.
    #[serde(default)]
    pub gone: Option<Vec<u16>>,
    /// A `gone` without a JSON body counts as well.
    #[serde(default)]
    pub gone_bodiless: bool,
    /// Of `create`: the name is taken.
    #[serde(default)]
    pub conflict: Option<Vec<u16>>,
}

/// Where things stand in the answer to `create`: JSON Pointers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerConfig {
    /// The secret.
    pub secret: String,
    /// What the API calls the credential.
    #[serde(default)]
    pub id: Option<String>,
    /// When the API ends it: a time or a date of RFC 3339, or seconds since 1970.
    #[serde(default)]
    pub expires_at: Option<String>,
}

/// Where things stand in the answer to `list`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemsConfig {
    /// The list; absent where it is the answer itself.
    #[serde(default)]
    pub at: Option<String>,
    /// An item's name.
    pub name: String,
    /// An item's id.
    #[serde(default)]
    pub id: Option<String>,
    /// When an item ends, as in an answer to `create`.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// A parameter that counts pages from 1 until one is empty. Without it `Link` headers are
    /// followed.
    #[serde(default)]
    pub page_parameter: Option<String>,
}

/// Where the installation's marker is kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkerConfig {
    /// Reads it.
    pub read: RequestConfig,
    /// Where its text stands in the answer.
    pub text: String,
    /// Writes it, over what was there.
    pub write: RequestConfig,
}

/// The API ends credentials by itself.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpiryConfig {
    /// How much later than the lease's end: rounding, and what clocks differ.
    pub slack_s: u32,
    /// The shortest life that the API gives.
    #[serde(default)]
    pub life_min_s: u32,
    /// It gives every credential that life, and no other.
    #[serde(default)]
    pub fixed: bool,
}

/// A GitHub App.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppConfig {
    /// Its client id, or its number.
    pub app_id: String,
}

const fn default_timeout() -> u32 {
    5_000
}

const fn default_ttl_min() -> u32 {
    1
}

const fn default_name_len() -> usize {
    63
}

const fn yes() -> bool {
    true
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
    /// Two settings that do not go together.
    #[error("{0}")]
    Contradiction(&'static str),
    /// Not a private key that a GitHub App has.
    #[error("the password is no RSA private key in PEM of 2048 bits or more")]
    Key,
    /// With the lease's 26 characters the name would be too long.
    #[error("the prefix `{prefix}` with a lease's 26 characters is longer than {most}")]
    LongPrefix {
        /// What was given.
        prefix: String,
        /// `name_len_max`.
        most: usize,
    },
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
    /// A request that cannot be made.
    #[error("`{request}` cannot be used")]
    Request {
        /// Which one.
        request: &'static str,
        /// Why.
        #[source]
        fault: TextError,
    },
    /// A role that cannot be minted.
    #[error("the template cannot be used")]
    Role(#[from] RoleError),
    /// Not an address of an API.
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
