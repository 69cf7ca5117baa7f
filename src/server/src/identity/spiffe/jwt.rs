//! JWT-SVIDs: what such a token must say.
//!
//! Invariant: the header chooses a key by `kid` alone, and the key is looked for in the bundle
//! of the trust domain that `sub` names. `iss` decides nothing.

use std::collections::BTreeMap;

use dayfly_backend_sdk::Timestamp;

use super::{
    super::{
        Algorithm, ClaimValue, Rejection,
        claims::{audiences, flatten, text, time, token_id},
        json::Json,
        preparse::Header,
    },
    config::TrustDomainConfig,
    id::SpiffeId,
};

/// What the specification lets `typ` be, when it is there.
const TYPES: [&str; 2] = ["JWT", "JOSE"];

/// Claims of a JWT-SVID that nobody has verified: good for finding the bundle.
#[derive(Debug)]
pub(crate) struct UnverifiedSvidClaims {
    pub(crate) id: SpiffeId,
    audiences: Vec<String>,
    pub(crate) expires_at: Timestamp,
    issued_at: Option<Timestamp>,
    not_before: Option<Timestamp>,
    pub(crate) token_id: Option<String>,
    pub(crate) all: BTreeMap<String, ClaimValue>,
}

/// The key that a header names, if it is the header of a JWT-SVID.
pub(crate) fn key_id(header: &Header) -> Result<&str, Rejection> {
    if header.thumbprint {
        return Err(Rejection::malformed("the header names a certificate"));
    }
    if header.typ.as_deref().is_some_and(|typ| !TYPES.contains(&typ)) {
        return Err(Rejection::WrongType);
    }
    if header.algorithm == Algorithm::EdDsa {
        return Err(Rejection::AlgorithmRefused);
    }
    header.kid.as_deref().ok_or(Rejection::malformed("`kid` is missing"))
}

impl UnverifiedSvidClaims {
    pub(crate) fn parse(members: BTreeMap<String, Json>) -> Result<Self, Rejection> {
        let not_an_id = Rejection::malformed("`sub` is not a SPIFFE ID");
        let subject = text(&members, "sub", "`sub` is not a string")?;
        let id = SpiffeId::parse(&subject).map_err(|_| not_an_id)?;
        if id.segments().is_empty() {
            return Err(Rejection::malformed("`sub` names a trust domain and no workload"));
        }
        let optional = |name: &str, why: &'static str| match members.get(name) {
            None => Ok(None),
            some => time(some, why).map(Some),
        };
        let (issued_at, not_before) =
            (optional("iat", "`iat` is not a time")?, optional("nbf", "`nbf` is not a time")?);
        let (audiences, expires_at) =
            (audiences(members.get("aud"))?, time(members.get("exp"), "`exp` is not a time")?);
        let token_id = token_id(members.get("jti"))?;
        let mut all = BTreeMap::new();
        for (name, value) in members {
            flatten(&mut all, name, value)?;
        }
        Ok(Self { id, audiences, expires_at, issued_at, not_before, token_id, all })
    }

    /// Holds the claims against the trust domain's rules. Call it after the signature held.
    pub(crate) fn check(&self, rules: &TrustDomainConfig, now: Timestamp) -> Result<(), Rejection> {
        if !self.audiences.iter().any(|audience| rules.audiences.contains(audience)) {
            return Err(Rejection::WrongAudience);
        }
        if self.audiences.len() > 1 && !rules.multiple_audiences {
            return Err(Rejection::ManyAudiences);
        }
        if now >= self.expires_at.plus(rules.leeway) {
            return Err(Rejection::Expired);
        }
        if self.not_before.is_some_and(|from| from > now.plus(rules.leeway)) {
            return Err(Rejection::NotYetValid);
        }
        // The leeway is for a clock of ours that is behind the domain's.
        let far = rules.token_age_max.saturating_add(rules.leeway);
        if let Some(issued_at) = self.issued_at {
            if issued_at > now.plus(rules.leeway) {
                return Err(Rejection::IssuedInFuture);
            }
            if self.expires_at < issued_at {
                return Err(Rejection::TimesOutOfOrder);
            }
            if now.since(issued_at) > far {
                return Err(Rejection::TooLongLived);
            }
        }
        if self.expires_at > now.plus(far) {
            return Err(Rejection::TooLongLived);
        }
        Ok(())
    }
}
