//! How an issuer is configured: `[[issuer]]`.
//!
//! Invariant: an issuer without faults has exactly one source of keys, over verified TLS or
//! from a file, and no rule that is switched off.

use std::{net::IpAddr, path::PathBuf};

use serde::Deserialize;
use url::{Host, Url};

use super::{Algorithm, Kind, Platform, address};

const NAME_LEN_MAX: usize = 64;
const TEXT_LEN_MAX: usize = 1_024;
const LEEWAY_SECONDS_MAX: u64 = 60;
const TOKEN_AGE_SECONDS_MAX: u64 = 366 * 24 * 60 * 60;

/// One issuer that we trust.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "these are the switches of a configuration")]
pub struct IssuerConfig {
    /// Its name in policies and in the audit log: `[a-z0-9-]+`.
    pub name: String,
    /// Whose tokens these are, if the platform is one that is known: its preset fills in what
    /// is not written here.
    #[serde(default)]
    pub preset: Option<Platform>,
    /// Traps of the preset whose tokens are not refused, so that the rules must mind them.
    #[serde(default)]
    pub allow_traps: Vec<String>,
    /// `iss`, byte for byte.
    pub issuer: String,
    /// The audience that its tokens must be for.
    pub audience: String,
    /// Who its subjects are.
    #[serde(default)]
    pub kind: Kind,
    /// Where the keys are, instead of asking the issuer's discovery.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// A file with the keys, instead of the network.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// PEM certificates that are trusted for this issuer besides the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Whether the issuer gives a fresh token per request, so that each opens one task only.
    #[serde(default = "yes")]
    pub single_use: bool,
    /// Whether a token that may open several tasks is bound to the first key that is proven with
    /// it. Only where nobody but one process is given the token: what several share, with a key
    /// each, would serve the first of them alone.
    #[serde(default)]
    pub first_key_binds: bool,
    /// How long a token may live and how old it may be.
    #[serde(default = "token_age_max_seconds")]
    pub token_age_max_seconds: u64,
    /// How far the issuer's clock may be off.
    #[serde(default = "leeway_seconds")]
    pub leeway_seconds: u64,
    /// `typ` values that are accepted; a token without `typ` is.
    #[serde(default = "types")]
    pub types: Vec<String>,
    /// Algorithms that are accepted.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// Allows `http`, for loopback hosts only.
    #[serde(default)]
    pub insecure_http: bool,
    /// Accepts tokens for several audiences if ours is among them.
    #[serde(default)]
    pub multiple_audiences: bool,
    /// Accepts tokens whose header names a certificate (`x5t`), and ignores it. GitHub Actions
    /// and Entra ID send one; the key is chosen by `kid` all the same.
    #[serde(default)]
    pub ignore_x5t: bool,
}

fn yes() -> bool {
    true
}

fn token_age_max_seconds() -> u64 {
    86_400
}

fn leeway_seconds() -> u64 {
    30
}

fn types() -> Vec<String> {
    vec![String::from("JWT")]
}

fn algorithms() -> Vec<Algorithm> {
    Algorithm::ALL.to_vec()
}

impl IssuerConfig {
    /// An issuer with every default.
    pub fn new(
        name: impl Into<String>,
        issuer: impl Into<String>,
        audience: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            preset: None,
            allow_traps: Vec::new(),
            issuer: issuer.into(),
            audience: audience.into(),
            kind: Kind::default(),
            jwks_url: None,
            jwks_file: None,
            ca_file: None,
            single_use: yes(),
            first_key_binds: false,
            token_age_max_seconds: token_age_max_seconds(),
            leeway_seconds: leeway_seconds(),
            types: types(),
            algorithms: algorithms(),
            insecure_http: false,
            multiple_audiences: false,
            ignore_x5t: false,
        }
    }

    /// Everything that is wrong with it, in words for the configuration check.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let name = &self.name;
        if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(legal) {
            faults.push(format!("name `{name}` is not 1 to {NAME_LEN_MAX} of a-z, 0-9 and -"));
        }
        faults.extend(self.url_fault("issuer", &self.issuer));
        if let Some(url) = &self.jwks_url {
            faults.extend(self.url_fault("jwks_url", url));
        }
        if self.jwks_url.is_some() && self.jwks_file.is_some() {
            faults.push(String::from("jwks_url and jwks_file are both given"));
        }
        if self.ca_file.is_some() && self.jwks_file.is_some() {
            faults.push(String::from("ca_file has no use with jwks_file"));
        }
        if self.audience.is_empty() || self.audience.len() > TEXT_LEN_MAX {
            faults.push(format!("audience is not 1 to {TEXT_LEN_MAX} bytes long"));
        }
        if self.leeway_seconds > LEEWAY_SECONDS_MAX {
            faults.push(format!("leeway_seconds is over {LEEWAY_SECONDS_MAX}"));
        }
        if !(1..=TOKEN_AGE_SECONDS_MAX).contains(&self.token_age_max_seconds) {
            faults.push(format!("token_age_max_seconds is not 1 to {TOKEN_AGE_SECONDS_MAX}"));
        }
        if self.first_key_binds && self.single_use {
            faults.push(String::from("first_key_binds has no use where single_use is true"));
        }
        if self.algorithms.is_empty() {
            faults.push(String::from("algorithms is empty"));
        }
        match self.preset {
            Some(platform) => faults.extend(platform.preset().contradictions(self)),
            None if self.allow_traps.is_empty() => {}
            None => faults.push(String::from("allow_traps has no use without a preset")),
        }
        faults
    }

    fn url_fault(&self, field: &str, text: &str) -> Option<String> {
        let why = match Url::parse(text) {
            Err(error) => error.to_string(),
            Ok(url) => url_complaint(&url, text, self.insecure_http)?.to_owned(),
        };
        Some(format!("{field} `{text}`: {why}"))
    }
}

pub(crate) fn url_complaint(url: &Url, text: &str, insecure_http: bool) -> Option<&'static str> {
    if text.len() > TEXT_LEN_MAX || !text.bytes().all(|c| c.is_ascii_graphic()) {
        return Some("it is too long or has characters that a URL has not");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("it holds a user or a password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Some("it has a query or a fragment");
    }
    let forbidden = host_address(url).is_some_and(|ip| address::is_forbidden(ip, true));
    match url.scheme() {
        _ if forbidden => Some("its address is link-local, a metadata service or not a host"),
        "http" if !insecure_http => Some("it is not https (`insecure_http` allows it)"),
        "http" if !is_loopback(url) => Some("http is for loopback hosts only"),
        "http" | "https" => None,
        _ => Some("it is not https"),
    }
}

fn host_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Domain(_) => None,
        Host::Ipv4(ip) => Some(ip.into()),
        Host::Ipv6(ip) => Some(ip.into()),
    }
}

/// Whether the URL names this machine outright. A name that merely resolves to it does not.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
