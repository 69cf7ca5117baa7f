//! Identity: a token becomes a principal, or is refused.
//!
//! Invariant: a [`Principal`] exists only if its issuer is configured, its signature holds
//! under a key that the issuer publishes now, and every rule holds. Whether its token was
//! used before is the caller's question, asked with [`Principal::replay_key`].

mod address;
mod algorithm;
mod claims;
mod config;
mod json;
mod jwks;
mod keys;
mod local;
mod preparse;
mod preset;
mod presets;
mod principal;
mod provider;
mod rejection;
mod strength;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use data_encoding::HEXLOWER;
use dayfly_lease::Clock;
use ring::digest;

pub use algorithm::Algorithm;
pub use claims::ClaimValue;
pub use config::IssuerConfig;
pub use jwks::{JwksError, KeyFault, KeySet};
pub use keys::{DiscoveryFault, FileKeys, FixedKeys, HttpKeys, KeySource, KeysError};
pub use local::LocalIssuer;
pub use preparse::TOKEN_LEN_MAX;
pub use preset::{Claim, Form, Freshness, Job, Preset, Rule, Shape, Trap, table as preset_table};
pub use presets::Platform;
pub use principal::{Kind, Principal};
pub use provider::install as install_crypto;
pub use rejection::Rejection;

use claims::UnverifiedClaims;
use keys::KeyCache;
use preparse::{Compact, Header};

/// Why the issuers cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The CA file cannot be read.
    #[error("the CA file `{}` cannot be read", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The HTTP client cannot be made.
    #[error("the HTTP client for issuer `{name}` cannot be made")]
    Client {
        /// The issuer.
        name: String,
        /// Why.
        source: reqwest::Error,
    },
    /// Two issuers have one name or one `iss`.
    #[error("two issuers have the name or the URL `{0}`")]
    Duplicate(String),
    /// The configuration has faults.
    #[error("issuer `{name}`: {}", faults.join("; "))]
    Faults {
        /// The issuer.
        name: String,
        /// All that is wrong.
        faults: Vec<String>,
    },
    /// The CA file holds no certificate.
    #[error("the CA file `{}` holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A URL cannot be read.
    #[error("a URL of issuer `{name}` cannot be read")]
    Url {
        /// The issuer.
        name: String,
        /// Why.
        source: url::ParseError,
    },
}

#[derive(Debug)]
struct Issuer {
    rules: IssuerConfig,
    keys: Arc<KeyCache>,
}

/// The issuers that we trust, with their keys.
#[derive(Debug)]
pub struct Authenticator {
    /// By `iss`, byte for byte.
    issuers: BTreeMap<String, Issuer>,
    clock: Arc<dyn Clock>,
}

impl Authenticator {
    /// Sets the issuers up; asks none of them yet.
    pub fn new(issuers: Vec<IssuerConfig>, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        let with_sources = issuers.into_iter().map(|issuer| {
            without_faults(&issuer)?;
            let source: Arc<dyn KeySource> = match &issuer.jwks_file {
                Some(path) => Arc::new(FileKeys::new(path)),
                None => Arc::new(HttpKeys::new(&issuer)?),
            };
            Ok((issuer, source))
        });
        Self::with_sources(with_sources.collect::<Result<_, SetupError>>()?, clock)
    }

    /// The same with keys from elsewhere, as the issuer of `dev` and `demo` has them.
    pub fn with_sources(
        issuers: Vec<(IssuerConfig, Arc<dyn KeySource>)>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SetupError> {
        provider::install();
        let mut names = BTreeSet::new();
        let mut by_iss = BTreeMap::new();
        for (rules, source) in issuers {
            without_faults(&rules)?;
            if !names.insert(rules.name.clone()) {
                return Err(SetupError::Duplicate(rules.name));
            }
            let keys = KeyCache::new(rules.name.clone(), source, Arc::clone(&clock));
            let iss = rules.issuer.clone();
            if by_iss.insert(iss.clone(), Issuer { rules, keys: Arc::new(keys) }).is_some() {
                return Err(SetupError::Duplicate(iss));
            }
        }
        Ok(Self { issuers: by_iss, clock })
    }

    /// Decides who sends `token`.
    pub async fn authenticate(&self, token: &str) -> Result<Principal, Rejection> {
        let compact = Compact::parse(token)?;
        let claims = compact.claims()?;
        // Of the claims, only `iss` is used before the signature held, and only to look up.
        let issuer = self.issuers.get(&claims.issuer).ok_or(Rejection::UnknownIssuer)?;
        issuer.accepts(&compact.header)?;
        let key = issuer.keys.find(compact.header.kid.as_deref()).await?;
        key.verify(compact.header.algorithm, compact.message, compact.signature)?;
        claims.check(&issuer.rules, self.clock.now())?;
        Ok(issuer.principal(claims, compact.message))
    }

    /// Renews keys that will soon be too old. For a background loop, every half minute.
    pub async fn refresh(&self) {
        let all = self.issuers.values().map(|issuer| issuer.keys.refresh());
        futures_util::future::join_all(all).await;
    }

    /// How often each issuer was asked for its keys, by name.
    pub fn key_fetches(&self) -> BTreeMap<String, u64> {
        let count = |issuer: &Issuer| (issuer.rules.name.clone(), issuer.keys.fetches());
        self.issuers.values().map(count).collect()
    }
}

fn without_faults(issuer: &IssuerConfig) -> Result<(), SetupError> {
    let faults = issuer.faults();
    if faults.is_empty() {
        return Ok(());
    }
    Err(SetupError::Faults { name: issuer.name.clone(), faults })
}

impl Issuer {
    fn accepts(&self, header: &Header) -> Result<(), Rejection> {
        if header.thumbprint && !self.rules.ignore_x5t {
            return Err(Rejection::malformed("the header names a certificate"));
        }
        if header.typ.as_ref().is_some_and(|typ| !self.rules.types.contains(typ)) {
            return Err(Rejection::WrongType);
        }
        if !self.rules.algorithms.contains(&header.algorithm) {
            return Err(Rejection::AlgorithmRefused);
        }
        Ok(())
    }

    fn principal(&self, claims: UnverifiedClaims, message: &str) -> Principal {
        let hash = digest::digest(&digest::SHA256, message.as_bytes());
        Principal {
            kind: self.rules.kind,
            issuer: self.rules.name.clone(),
            subject: claims.subject,
            claims: claims.all,
            token_hash: HEXLOWER.encode(hash.as_ref()),
            token_id: claims.token_id,
            token_expires_at: claims.expires_at,
            single_use: self.rules.single_use,
        }
    }
}

#[cfg(test)]
mod tests;
