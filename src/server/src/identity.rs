//! Identity: a token becomes a principal, or is refused.
//!
//! Invariant: a [`Principal`] exists only if its issuer or trust domain is configured, its
//! signature holds under a key that is published there now (or AWS, or the cluster, itself has
//! just said so), and every rule holds. Whether its token was used before is the caller's
//! question, asked with [`Principal::replay_key`].

mod address;
mod algorithm;
mod aws;
mod claims;
mod cluster;
mod config;
mod dpop;
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
mod set;
mod spiffe;
mod strength;
mod thumbprint;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use data_encoding::HEXLOWER;
use dayfly_lease::Clock;
use ring::digest;
use rustls::{pki_types::CertificateDer, server::danger::ClientCertVerifier};

pub use algorithm::Algorithm;
pub use aws::{AWS_REQUEST_LEN_MAX, AwsCallerKind, AwsIdentityConfig, AwsRequest};
pub use claims::ClaimValue;
pub use cluster::{ClusterConfig, ClusterTokens, PodWatch};
pub use config::IssuerConfig;
pub use dpop::{OwnAddress, Proof, Requested};
pub use jwks::{JwksError, KeyFault, KeySet};
pub use keys::{DiscoveryFault, FileKeys, FixedKeys, HttpKeys, KeySource, KeysError};
pub use local::LocalIssuer;
pub use preparse::TOKEN_LEN_MAX;
pub(crate) use preset::named;
pub use preset::{
    Claim, Form, Freshness, Job, Naming, Preset, Rule, Shape, Trap, table as preset_table,
};
pub use presets::Platform;
pub use principal::{Kind, Principal};
pub use provider::install as install_crypto;
pub use rejection::Rejection;
pub use spiffe::{
    BundleFrom, SPIFFE_ID_LEN_MAX, SpiffeId, SpiffeIdError, TrustDomainConfig, certificate_refusal,
};

pub(crate) use cluster::{ApiError, ClusterApi, read, read_any};
pub(crate) use config::{is_loopback, url_complaint};
pub(crate) use keys::client;
pub(crate) use set::{EventKind, SecurityEvents, Subject, Transmitter};

use aws::AwsIdentities;
use claims::UnverifiedClaims;
use cluster::Reviewers;
use json::Json;
use keys::KeyCache;
use preparse::{Compact, Header};
use spiffe::{SvidVerifier, TrustDomains};

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
    /// Two issuers have one name, one `iss` or one server id.
    #[error("two issuers have the name, the URL or the server id `{0}`")]
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

/// Signed requests of AWS, and tokens that may do without `iat`, say nothing of their age that a
/// cut-off is held against.
const TOKEN_AGE_MIN: Duration = Duration::from_hours(24);

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
    trust: Arc<TrustDomains>,
    aws: AwsIdentities,
    clusters: Reviewers,
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
        let trust = TrustDomains::new(Vec::new(), names, Arc::clone(&clock))?;
        let (aws, clusters) = (AwsIdentities::default(), Reviewers::default());
        Ok(Self { issuers: by_iss, trust: Arc::new(trust), aws, clusters, clock })
    }

    /// The same with these SPIFFE trust domains besides the issuers.
    ///
    /// # Errors
    /// What is wrong with them; and that one has the name of an issuer.
    pub fn trusting(self, domains: Vec<TrustDomainConfig>) -> Result<Self, SetupError> {
        let names = self.issuers.values().map(|issuer| issuer.rules.name.clone()).collect();
        let trust = TrustDomains::new(domains, names, Arc::clone(&self.clock))?;
        Ok(Self { trust: Arc::new(trust), ..self })
    }

    /// The same with identities of AWS besides.
    pub fn with_aws(self, identities: Vec<AwsIdentityConfig>) -> Result<Self, SetupError> {
        let issuers = self.issuers.values().map(|issuer| issuer.rules.name.clone());
        let names = issuers.chain(self.trust.fetches().map(|(name, _)| name)).collect();
        Ok(Self { aws: AwsIdentities::new(identities, names)?, ..self })
    }

    /// The same with clusters besides, of which those count that are asked about their tokens.
    ///
    /// # Errors
    /// What is wrong with them; and that one has the name or the `iss` of an issuer, or two of
    /// them could both be meant by a token.
    pub fn with_clusters(self, clusters: Vec<ClusterConfig>) -> Result<Self, SetupError> {
        let issuers = self.issuers.values().map(|issuer| issuer.rules.name.clone());
        let domains = self.trust.fetches().map(|(name, _)| name);
        let names = issuers.chain(domains).chain(self.aws.names().map(str::to_owned)).collect();
        let is_issuer = |iss: &str| self.issuers.contains_key(iss);
        let clusters = Reviewers::new(clusters, names, is_issuer)?;
        Ok(Self { clusters, ..self })
    }

    /// Decides who sends `token`.
    pub async fn authenticate(&self, token: &str) -> Result<Principal, Rejection> {
        self.by_token(token).await?.nameable()
    }

    async fn by_token(&self, token: &str) -> Result<Principal, Rejection> {
        if token.starts_with(aws::PREFIX) {
            return self.aws.authenticate(token, self.clock.now()).await;
        }
        let compact = Compact::parse(token)?;
        let members = compact.members()?;
        // A security event token, such as a logout token, may be of the same issuer, under the same
        // keys and for the same audience, and without a `typ` of its own. It says what became of
        // its subject, and not that whoever has it is that subject (RFC 8417, section 4.5).
        if members.contains_key("events") {
            return Err(Rejection::malformed("`events` make it a security event token"));
        }
        let iss = members.get("iss").and_then(Json::text);
        if iss.is_some_and(|iss| self.clusters.are_meant(iss)) {
            let now = self.clock.now();
            return self.clusters.authenticate((token, &compact), members, now).await;
        }
        let is_known = iss.is_some_and(|iss| self.issuers.contains_key(iss));
        if !is_known && self.trust.are_meant(&members) {
            return self.trust.by_token(&compact, members).await;
        }
        let claims = UnverifiedClaims::parse(members)?;
        // Of the claims, only `iss` is used before the signature held, and only to look up.
        let issuer = self.issuers.get(&claims.issuer).ok_or(Rejection::UnknownIssuer)?;
        issuer.accepts(&compact.header)?;
        let key = issuer.keys.find(compact.header.kid.as_deref()).await?;
        key.verify(compact.header.algorithm, compact.message, compact.signature)?;
        claims.check(&issuer.rules, self.clock.now())?;
        Ok(issuer.principal(claims, compact.message))
    }

    /// Decides who shows these certificates, its own first, in a connection in which the
    /// handshake has proved that it has the key to it.
    ///
    /// # Errors
    /// Why it is nobody.
    pub async fn authenticate_certificate(
        &self,
        chain: &[CertificateDer<'_>],
    ) -> Result<Principal, Rejection> {
        self.trust.by_certificate(chain).await?.nameable()
    }

    /// What a listener verifies client certificates with, if it asks for any.
    pub fn certificate_verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::new(SvidVerifier::new(Arc::clone(&self.trust)))
    }

    /// Renews keys that will soon be too old. For a background loop, every half minute.
    pub async fn refresh(&self) {
        let all = self.issuers.values().map(|issuer| issuer.keys.refresh());
        let issuers = futures_util::future::join_all(all);
        futures_util::future::join(issuers, self.trust.refresh()).await;
    }

    /// Renews the trust bundles alone.
    pub async fn refresh_bundles(&self) {
        self.trust.refresh().await;
    }

    /// Reads every trust bundle again, at once.
    pub async fn reread_bundles(&self) {
        self.trust.reread().await;
    }

    /// Whether there is an issuer, a trust domain, a section of AWS, or a cluster that is asked
    /// about its tokens, of this name.
    pub fn knows(&self, name: &str) -> bool {
        self.issuers.values().any(|issuer| issuer.rules.name == name)
            || self.trust.ages().any(|(known, _)| known == name)
            || self.aws.names().any(|known| known == name)
            || self.clusters.ages().any(|(known, _)| known == name)
    }

    /// The longest that any token or certificate is accepted after it was issued.
    pub fn token_age_max(&self) -> Duration {
        let issuers = self.issuers.values().map(|Issuer { rules, .. }| {
            Duration::from_secs(rules.token_age_max_seconds.saturating_add(rules.leeway_seconds))
        });
        let others = self.trust.ages().chain(self.clusters.ages()).map(|(_, age)| age);
        let longest = issuers.chain(others).max();
        longest.unwrap_or_default().max(TOKEN_AGE_MIN)
    }

    /// How often each issuer was asked for its keys, by name.
    pub fn key_fetches(&self) -> BTreeMap<String, u64> {
        let count = |issuer: &Issuer| (issuer.rules.name.clone(), issuer.keys.fetches());
        self.issuers.values().map(count).chain(self.trust.fetches()).collect()
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
            first_key_binds: self.rules.first_key_binds,
        }
    }
}

#[cfg(test)]
mod tests;
