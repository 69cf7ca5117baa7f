//! SPIFFE: workloads by JWT-SVID and X.509-SVID.
//!
//! Invariant: an SVID is verified with the bundle of the trust domain that its own ID names,
//! and with no other. There is no list of all authorities anywhere.

mod bundle;
mod config;
mod id;
mod jwt;
mod source;
mod tls;
mod x509;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use data_encoding::HEXLOWER;
use dayfly_lease::Clock;
use futures_util::future::join_all;
use ring::digest;
use rustls::pki_types::CertificateDer;

pub use config::{BundleFrom, TrustDomainConfig};
pub use id::{SPIFFE_ID_LEN_MAX, SpiffeId, SpiffeIdError};
pub use tls::certificate_refusal;

pub(super) use tls::SvidVerifier;

use super::{
    ClaimValue, Kind, Principal, Rejection, SetupError, json::Json, keys::KeyCache,
    preparse::Compact,
};
use bundle::Bundle;
use jwt::UnverifiedSvidClaims;
use x509::UnverifiedSvid;

/// What begins the names of claims that we add to those of an SVID. A token that has them
/// itself could otherwise say that it is of another trust domain.
const OURS: [&str; 3] = ["path", "svid", "trust_domain"];

#[derive(Debug)]
struct TrustDomain {
    rules: TrustDomainConfig,
    bundle: Arc<KeyCache<Bundle>>,
}

/// The trust domains whose workloads we know, each with its bundle.
#[derive(Debug)]
pub(crate) struct TrustDomains {
    by_name: BTreeMap<String, TrustDomain>,
    clock: Arc<dyn Clock>,
}

impl TrustDomains {
    /// Sets the trust domains up, whose names must be none of `taken`; asks for no bundle yet.
    pub(super) fn new(
        domains: Vec<TrustDomainConfig>,
        mut taken: BTreeSet<String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SetupError> {
        let mut by_name = BTreeMap::new();
        for rules in domains {
            let faults = rules.faults();
            if !faults.is_empty() {
                return Err(SetupError::Faults { name: rules.name, faults });
            }
            // An issuer of the same name could sign a subject that is a SPIFFE ID of ours.
            if !taken.insert(rules.name.clone()) {
                return Err(SetupError::Duplicate(rules.name));
            }
            let source = source::source(&rules)?;
            let bundle = KeyCache::new(rules.name.clone(), source, Arc::clone(&clock));
            let domain = TrustDomain { bundle: Arc::new(bundle), rules };
            by_name.insert(domain.rules.name.clone(), domain);
        }
        Ok(Self { by_name, clock })
    }

    /// Whether a token with these claims, whose `iss` is no issuer of ours, is to be read as a
    /// JWT-SVID. Those need no `iss`.
    pub(super) fn are_meant(&self, members: &BTreeMap<String, Json>) -> bool {
        let is_id = |text: &str| text.trim_start().to_ascii_lowercase().starts_with("spiffe:");
        let subject = members.get("sub").and_then(Json::text);
        !self.by_name.is_empty() && (!members.contains_key("iss") || subject.is_some_and(is_id))
    }

    /// Decides who sends a JWT-SVID.
    pub(super) async fn by_token(
        &self,
        compact: &Compact<'_>,
        members: BTreeMap<String, Json>,
    ) -> Result<Principal, Rejection> {
        let kid = jwt::key_id(&compact.header)?;
        let claims = UnverifiedSvidClaims::parse(members)?;
        let domain = self.domain(&claims.id)?;
        let key = domain.bundle.find_with(|bundle| bundle.jwt.select(Some(kid))).await?;
        key.verify(compact.header.algorithm, compact.message, compact.signature)?;
        claims.check(&domain.rules, self.clock.now())?;
        let hash = digest::digest(&digest::SHA256, compact.message.as_bytes());
        Ok(Principal {
            kind: Kind::Workload,
            issuer: domain.rules.name.clone(),
            claims: with_ours(claims.all, &claims.id, "jwt")?,
            subject: claims.id.to_string(),
            token_hash: HEXLOWER.encode(hash.as_ref()),
            token_id: claims.token_id,
            token_expires_at: claims.expires_at,
            single_use: domain.rules.single_use,
            first_key_binds: false,
        })
    }

    /// Decides who shows a chain of certificates, its own first. Whether it has the key to
    /// the first one, the handshake has shown.
    pub(super) async fn by_certificate(
        &self,
        chain: &[CertificateDer<'_>],
    ) -> Result<Principal, Rejection> {
        let svid = UnverifiedSvid::read(chain)?;
        let domain = self.domain(&svid.id)?;
        let now = self.clock.now();
        domain.bundle.find_with(|bundle| bundle.vouches(chain, now)).await?;
        svid.check(&domain.rules)?;
        let issued_at = ClaimValue::Text(svid.issued_at.seconds().to_string());
        let claims = BTreeMap::from([("iat".to_owned(), issued_at)]);
        Ok(Principal {
            kind: Kind::Workload,
            issuer: domain.rules.name.clone(),
            claims: with_ours(claims, &svid.id, "x509")?,
            subject: svid.id.to_string(),
            token_hash: svid.hash,
            token_id: None,
            token_expires_at: svid.expires_at,
            // A certificate is not a token: whoever shows it proves each time to have its key.
            single_use: false,
            first_key_binds: false,
        })
    }

    /// The same, as far as it can be told without waiting; for the handshake. An authority
    /// that we do not know is asked after, so that the next connection may be made.
    fn vouch_now(&self, chain: &[CertificateDer<'_>]) -> Result<(), Rejection> {
        let svid = UnverifiedSvid::read(chain)?;
        let domain = self.domain(&svid.id)?;
        let now = self.clock.now();
        let vouched = domain.bundle.with_usable(|bundle| bundle.vouches(chain, now));
        if matches!(vouched, Err(Rejection::KeysUnavailable | Rejection::UnknownKey)) {
            domain.bundle.renew_soon();
        }
        vouched.and_then(|()| svid.check(&domain.rules))
    }

    fn domain(&self, id: &SpiffeId) -> Result<&TrustDomain, Rejection> {
        self.by_name.get(id.trust_domain()).ok_or(Rejection::UnknownTrustDomain)
    }

    /// Renews bundles that are due.
    pub(super) async fn refresh(&self) {
        join_all(self.by_name.values().map(|domain| domain.bundle.refresh())).await;
    }

    /// Asks for every bundle now.
    pub(super) async fn reread(&self) {
        join_all(self.by_name.values().map(|domain| domain.bundle.reread())).await;
    }

    /// The longest that an SVID of either kind is accepted after it was issued, by trust domain.
    pub(super) fn ages(&self) -> impl Iterator<Item = (&str, Duration)> {
        let age = |rules: &TrustDomainConfig| {
            let token = rules.token_age_max.saturating_add(rules.leeway);
            token.max(rules.certificate_life_max())
        };
        self.by_name.iter().map(move |(name, domain)| (name.as_str(), age(&domain.rules)))
    }

    /// How often each bundle was asked for, by trust domain.
    pub(super) fn fetches(&self) -> impl Iterator<Item = (String, u64)> {
        self.by_name.iter().map(|(name, domain)| (name.clone(), domain.bundle.fetches()))
    }
}

/// The claims with what the ID says: `trust_domain`; `path` as a list of its segments, and
/// each of them by its place (`path.0`), since a list does not say where an entry stood; and
/// in `svid` which kind of document it was.
fn with_ours(
    mut claims: BTreeMap<String, ClaimValue>,
    id: &SpiffeId,
    svid: &str,
) -> Result<BTreeMap<String, ClaimValue>, Rejection> {
    let first = |name: &String| name.split('.').next().is_some_and(|first| OURS.contains(&first));
    if claims.keys().any(first) {
        return Err(Rejection::malformed("a claim has a name that only an SVID's ID gives"));
    }
    let text = |text: &str| ClaimValue::Text(text.to_owned());
    claims.insert("svid".to_owned(), text(svid));
    claims.insert("trust_domain".to_owned(), text(id.trust_domain()));
    for (place, segment) in id.segments().iter().enumerate() {
        claims.insert(format!("path.{place}"), text(segment));
    }
    claims.insert("path".to_owned(), ClaimValue::List(id.segments().to_vec()));
    Ok(claims)
}

#[cfg(test)]
mod tests;
