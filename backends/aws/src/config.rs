//! Which account it is, and how it is reached.
//!
//! Invariant: what passes [`AwsConfig::check`] can be used as it is.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, time::Duration};

use dayfly_backend_sdk::{
    Capabilities, Error, ErrorKind, Expiry, HandleError, HandlePrefix, Secret,
};
use serde::Deserialize;
use url::{Host, Url};

use crate::{arn, template::TemplateError};

/// As many managed policies as a role can have attached without a raised quota.
const POLICIES_MAX: usize = 10;
/// The shortest session that AWS gives.
pub(crate) const SESSION_MIN: Duration = Duration::from_mins(15);
/// A session ends by AWS's clock, and a lease by the store's.
const SLACK: Duration = Duration::from_secs(20);

/// An account, and who mints in it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsConfig {
    /// What it mints: sessions or users.
    #[serde(default)]
    pub mode: Mode,
    /// Whose STS is asked, and what credentials name: `eu-central-1`.
    pub region: String,
    /// Our own key. Without one, what the machine has: environment, web identity, container or
    /// instance role.
    #[serde(default)]
    pub access_key_id: Option<String>,
    /// Its secret. Set from its own key in the configuration, never from here.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// What all names begin with. Set from its own key as well.
    #[serde(skip)]
    pub prefix: String,
    /// The account that we must be in; nothing is minted in another.
    #[serde(default)]
    pub account_id: Option<String>,
    /// Where both APIs are, instead of AWS's own addresses. In the clear on loopback only.
    #[serde(default)]
    pub endpoint_url: Option<String>,
    /// Authorities to trust instead of the system's, in PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The longest that one request may take, in milliseconds.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u32,
    /// How long a change at IAM may take to be everywhere, in milliseconds: so long a
    /// revocation waits before it says that something is gone.
    #[serde(default = "default_propagation")]
    pub propagation_ms: u32,
    /// The deny belt: ARNs of managed policies that are ours alone.
    #[serde(default)]
    pub deny_policies: Vec<String>,
    /// The path of our users; `/dayfly/` and the prefix when absent.
    #[serde(default)]
    pub user_path: Option<String>,
}

/// What a backend mints. What can be revoked, listed and renewed follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Sessions, which end by themselves.
    #[default]
    Session,
    /// IAM users with an access key, which do not.
    User,
}

const fn default_timeout() -> u32 {
    5_000
}

const fn default_propagation() -> u32 {
    3_000
}

impl AwsConfig {
    /// Checks what the types leave open, and gives the prefix.
    pub(crate) fn check(&self) -> Result<HandlePrefix, ConfigError> {
        let bounds = [
            ("timeout_ms", self.timeout_ms, 10, 600_000),
            // Well within the time that the engine gives a revocation.
            ("propagation_ms", self.propagation_ms, 0, 10_000),
        ];
        for (name, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::Range { name, value, min, max });
            }
        }
        let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if self.region.is_empty() || self.region.len() > 32 || !self.region.bytes().all(legal) {
            return Err(ConfigError::Region(self.region.clone()));
        }
        if self.access_key_id.is_some() != self.password.is_some() {
            return Err(ConfigError::HalfKey);
        }
        if let Some(account) = &self.account_id
            && !arn::is_account(account)
        {
            return Err(ConfigError::Account(account.clone()));
        }
        if let Some(url) = &self.endpoint_url
            && !is_safe(url)
        {
            return Err(ConfigError::Url(url.clone()));
        }
        if !arn::is_path(&self.user_path()) {
            return Err(ConfigError::Path(self.user_path()));
        }
        self.check_belt()?;
        HandlePrefix::parse(self.prefix.clone()).map_err(ConfigError::Prefix)
    }

    fn check_belt(&self) -> Result<(), ConfigError> {
        if self.mode == Mode::User && !self.deny_policies.is_empty() {
            return Err(ConfigError::Beltless);
        }
        let distinct: BTreeSet<&String> = self.deny_policies.iter().collect();
        if self.deny_policies.len() > POLICIES_MAX || distinct.len() < self.deny_policies.len() {
            return Err(ConfigError::Belt);
        }
        let mut account = None;
        for text in &self.deny_policies {
            // AWS's own policies have no account, and nobody can write them.
            let policy = arn::parse(text, "policy").filter(|policy| policy.account != "aws");
            let policy = policy.ok_or_else(|| ConfigError::Policy(text.clone()))?;
            if *account.get_or_insert(policy.account) != policy.account {
                return Err(ConfigError::Belt);
            }
        }
        Ok(())
    }

    pub(crate) fn user_path(&self) -> String {
        let default = || format!("/dayfly/{}/", self.prefix.trim_end_matches('_'));
        self.user_path.clone().unwrap_or_else(default)
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        let sessions = self.mode == Mode::Session;
        let revoke = !sessions || !self.deny_policies.is_empty();
        Capabilities {
            kind: "aws",
            expiry: if sessions {
                Expiry::Native { slack: SLACK, life_min: SESSION_MIN }
            } else {
                Expiry::None
            },
            revoke,
            // IAM decides anew at each request: there is no session that could outlive it.
            session_kill: revoke,
            verify: revoke,
            list: !sessions,
            renew: !sessions,
            // AWS refuses a request that is older than its signature may be, five minutes; not
            // one that is past a deadline of ours.
            deadline_guard: false,
            ttl_min: Duration::from_secs(1),
            ttl_max: None,
            handle_len_max: 63,
        }
    }
}

fn is_safe(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    let plain = url.username().is_empty() && url.password().is_none();
    let bare = url.query().is_none() && url.fragment().is_none();
    let safe = match url.scheme() {
        "https" => true,
        "http" => url.host().is_some_and(|host| is_loopback(&host)),
        _ => false,
    };
    plain && bare && safe
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
    /// Not the id of an account.
    #[error("`account_id` is twelve digits, not `{0}`")]
    Account(String),
    /// Too many, one twice, or of several accounts.
    #[error("`deny_policies` are at most 10 different policies of one account")]
    Belt,
    /// A belt that nothing would use.
    #[error("`deny_policies` are for sessions: users are deleted")]
    Beltless,
    /// The authorities cannot be read.
    #[error("`ca_file` {path} cannot be read")]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An id without its secret, or the other way round.
    #[error("`access_key_id` and its secret, the password, go together")]
    HalfKey,
    /// Not a path of IAM.
    #[error("`user_path` begins and ends with `/` and has no blanks: `{0}`")]
    Path(String),
    /// Not a policy that could be ours.
    #[error("`{0}` is no ARN of a customer-managed policy")]
    Policy(String),
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
    /// Not a region.
    #[error("`{0}` is no region")]
    Region(String),
    /// A template that cannot be granted.
    #[error("the template cannot be used")]
    Template(#[from] TemplateError),
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(more: &Value) -> Result<AwsConfig, String> {
        let mut raw = json!({ "region": "eu-central-1" });
        raw.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut config: AwsConfig =
            serde_json::from_value(raw).map_err(|error| error.to_string())?;
        "df_".clone_into(&mut config.prefix);
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn each_rule_has_its_fault() {
        let policy = |name: &str| format!("arn:aws:iam::123456789012:policy/{name}");
        for (more, text) in [
            (json!({ "region": "EU" }), "is no region"),
            (json!({ "access_key_id": "AKIA" }), "go together"),
            (json!({ "account_id": "1" }), "twelve digits"),
            (json!({ "endpoint_url": "http://a.example" }), "is no `https://` address"),
            (json!({ "endpoint_url": "https://u:p@a" }), "is no `https://` address"),
            (json!({ "user_path": "dayfly" }), "begins and ends"),
            (json!({ "timeout_ms": 1 }), "`timeout_ms` is 1"),
            (json!({ "propagation_ms": 20_000 }), "`propagation_ms` is 20000"),
            (json!({ "deny_policies": ["arn:aws:iam::aws:policy/x"] }), "customer-managed"),
            (json!({ "deny_policies": [policy("a"), policy("a")] }), "at most 10"),
            (json!({ "mode": "user", "deny_policies": [policy("a")] }), "are for sessions"),
            (json!({ "password": "x" }), "unknown field `password`"),
        ] {
            let error = checked(&more).unwrap_err();
            assert!(error.contains(text), "{more}: {error}");
        }
        let good = json!({ "deny_policies": [policy("a"), policy("dir/b")],
            "endpoint_url": "http://127.0.0.1:5000" });
        let good = checked(&good).unwrap();
        assert!(good.capabilities().revoke && good.user_path() == "/dayfly/df/");
    }

    #[test]
    fn what_it_can_follows_from_the_configuration() {
        let can = |more: Value| checked(&more).unwrap().capabilities();
        assert!(!can(json!({})).revoke && can(json!({ "mode": "user" })).revoke);
    }
}
