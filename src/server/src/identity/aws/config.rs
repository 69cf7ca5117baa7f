//! How a source of AWS identities is configured: `[[aws_identity]]`.
//!
//! Invariant: one without faults says whose accounts it trusts and where it asks, and asks
//! nowhere but at STS; another address is for tests and never leaves this machine.

use serde::Deserialize;
use url::Url;

use super::{super::config::is_loopback, endpoint::Endpoint, request::is_plain};

const NAME_LEN_MAX: usize = 64;
const ACCOUNTS_MAX: usize = 1_000;
const REGIONS_MAX: usize = 100;
/// The longest server id, in bytes.
pub(super) const SERVER_ID_LEN_MAX: usize = 256;

/// Accounts of AWS whose roles and users we take for workloads.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsIdentityConfig {
    /// Its name in policies and in the audit log, as an issuer's: `[a-z0-9-]+`.
    pub name: String,
    /// What callers sign as `x-dayfly-server-id`, byte for byte: whom their request is for. Of
    /// each section its own; without it, the broker's public URL.
    #[serde(default)]
    pub server_id: Option<String>,
    /// The accounts that are trusted, by their twelve digits.
    pub accounts: Vec<String>,
    /// Whose STS may be asked: regions, `REGION-fips`, and `aws-global` for the address of none.
    pub regions: Vec<String>,
    /// Who in the accounts is accepted.
    #[serde(default = "kinds")]
    pub kinds: Vec<AwsCallerKind>,
    /// Where requests go instead of to STS. For tests: on this machine alone.
    #[serde(default)]
    pub endpoint_url: Option<String>,
}

/// Who in an account calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AwsCallerKind {
    /// A session of a role: an instance, a task, a function.
    AssumedRole,
    /// A session whose name is chosen by whoever may call `GetFederationToken`.
    FederatedUser,
    /// The account's owner.
    Root,
    /// A user of IAM.
    User,
}

impl AwsCallerKind {
    /// Its name in the configuration and in the claim `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AssumedRole => "assumed-role",
            Self::FederatedUser => "federated-user",
            Self::Root => "root",
            Self::User => "user",
        }
    }
}

fn kinds() -> Vec<AwsCallerKind> {
    vec![AwsCallerKind::AssumedRole, AwsCallerKind::User]
}

impl AwsIdentityConfig {
    /// A source with every default.
    pub fn new(
        name: impl Into<String>,
        server_id: impl Into<String>,
        accounts: &[&str],
        regions: &[&str],
    ) -> Self {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Self {
            name: name.into(),
            server_id: Some(server_id.into()),
            accounts: owned(accounts),
            regions: owned(regions),
            kinds: kinds(),
            endpoint_url: None,
        }
    }

    /// Everything that is wrong with it, in words for the configuration check. Each begins with
    /// the key that it is about.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let name = &self.name;
        if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(legal) {
            faults.push(format!("name `{name}` is not 1 to {NAME_LEN_MAX} of a-z, 0-9 and -"));
        }
        faults.extend(self.server_id_fault());
        if self.accounts.is_empty() || self.accounts.len() > ACCOUNTS_MAX {
            faults.push(format!("accounts is not a list of 1 to {ACCOUNTS_MAX} account ids"));
        }
        for account in self.accounts.iter().filter(|account| !is_account(account)) {
            faults.push(format!("accounts has `{account}`, which is not twelve digits"));
        }
        if self.regions.is_empty() || self.regions.len() > REGIONS_MAX {
            faults.push(format!("regions is not a list of 1 to {REGIONS_MAX} regions"));
        }
        for region in self.regions.iter().filter(|region| Endpoint::parse(region).is_none()) {
            faults.push(format!("regions has `{region}`, where STS is not known to be"));
        }
        if self.kinds.is_empty() {
            faults.push(String::from("kinds is empty"));
        }
        if self.endpoint_url.as_deref().is_some_and(|url| !is_for_tests(url)) {
            faults.push(String::from(
                "endpoint_url is for tests: http or https on a loopback address, without a path",
            ));
        }
        faults
    }

    fn server_id_fault(&self) -> Option<String> {
        let Some(id) = &self.server_id else {
            return Some(String::from("server_id is needed where `server.public_url` is not set"));
        };
        let good = id.len() <= SERVER_ID_LEN_MAX && is_plain(id) && !id.contains(' ');
        (!good).then(|| {
            format!("server_id is not 1 to {SERVER_ID_LEN_MAX} printable characters without blanks")
        })
    }
}

pub(super) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|c| c.is_ascii_digit())
}

fn is_for_tests(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    matches!(url.scheme(), "http" | "https")
        && is_loopback(&url)
        && url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
}
