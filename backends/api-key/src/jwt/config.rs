//! `[backend.jwt]`: who signs, for how long, and who verifies.
//!
//! Invariant: what passes [`JwtConfig::check`] bounds every token's life by an hour.

use std::net::IpAddr;

use dayfly_backend_sdk::Secret;
use serde::Deserialize;
use url::{Host, Url};

use crate::ApiKeyError;

/// Fifteen minutes: nothing ends a token earlier for somebody who never asks us.
const TTL_MAX_DEFAULT_S: u32 = 900;
/// As long as a canary's key lives.
const TTL_MAX_LEAST_S: u32 = 60;
const TTL_MAX_MOST_S: u32 = 3_600;
/// What verifiers commonly allow their clocks.
const LEEWAY_DEFAULT_S: u32 = 60;
const LEEWAY_MAX_S: u32 = 300;
const PUBLISHED_MAX: usize = 8;

/// How keys are signed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// `iss`. What sets up the backend puts the server's public address here when it is absent.
    #[serde(default)]
    pub issuer: Option<String>,
    /// A private key in PEM (PKCS#8) of P-256 or Ed25519. A secret, so it is set from its own
    /// key in the configuration, never from here.
    #[serde(skip)]
    pub signing_key: Option<Secret>,
    /// Public keys in PEM that are published besides: the next one and the one before.
    #[serde(default)]
    pub published_keys: Vec<String>,
    /// The longest life of a token, in seconds.
    #[serde(default = "default_ttl_max")]
    pub ttl_max_s: u32,
    /// How long after its `exp` a verifier may still accept a token, in seconds.
    #[serde(default = "default_leeway")]
    pub leeway_s: u32,
    /// Everybody who verifies asks us each time, so that revoking ends a token.
    #[serde(default)]
    pub introspected: bool,
}

const fn default_ttl_max() -> u32 {
    TTL_MAX_DEFAULT_S
}

const fn default_leeway() -> u32 {
    LEEWAY_DEFAULT_S
}

impl JwtConfig {
    /// Checks what the types leave open, but for the keys.
    pub(crate) fn check(&self) -> Result<(), ApiKeyError> {
        let bounds = [
            ("jwt.ttl_max_s", self.ttl_max_s, TTL_MAX_LEAST_S, TTL_MAX_MOST_S),
            ("jwt.leeway_s", self.leeway_s, 0, LEEWAY_MAX_S),
        ];
        for (name, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                return Err(ApiKeyError::Range { name, value, min, max });
            }
        }
        if self.published_keys.len() > PUBLISHED_MAX {
            return Err(ApiKeyError::PublishedKeys(PUBLISHED_MAX));
        }
        match &self.issuer {
            Some(issuer) if !is_issuer(issuer) => Err(ApiKeyError::Issuer(issuer.clone())),
            Some(_) | None => Ok(()),
        }
    }
}

/// RFC 8414, section 2: `https`, without query and fragment.
fn is_issuer(text: &str) -> bool {
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
