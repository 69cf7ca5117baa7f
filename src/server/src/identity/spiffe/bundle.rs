//! A trust bundle: what a trust domain signs with.
//!
//! Invariant: a bundle is of one trust domain and is never merged with another. A key serves
//! the one use that it declares; what is unusable is left out and harms nothing else.

use std::time::Duration;

use data_encoding::BASE64;
use dayfly_backend_sdk::Timestamp;
use rustls::pki_types::CertificateDer;

use super::{
    super::{
        Rejection,
        json::Json,
        jwks::{self, JwksError, KeyFault, KeySet, Purpose},
        keys::{Ages, Kept},
    },
    x509::Authority,
};

/// How often a bundle is asked for that does not say (SPIFFE Trust Domain and Bundle,
/// section 4.1.2).
const REFRESH: Duration = Duration::from_mins(5);
/// How much older than asked for a bundle may be before a caller waits for a newer one.
const LATE: Duration = Duration::from_mins(1);
/// Beyond that we fail closed, however long the outage.
const STALE: Duration = Duration::from_hours(1);

/// Bounds of how often a bundle is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refresh {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

impl Refresh {
    fn bounded(self, hint: Option<Duration>) -> Duration {
        hint.unwrap_or(REFRESH).max(self.min).min(self.max)
    }
}

/// The bundle of one trust domain.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// What signs JWT-SVIDs.
    pub(crate) jwt: KeySet,
    pub(super) authorities: Vec<Authority>,
    pub(super) left_out: Vec<Rejection>,
    sequence: Option<i64>,
    refresh: Duration,
}

impl Bundle {
    /// Reads a SPIFFE bundle: a JWK set whose keys say what they are for.
    pub(crate) fn parse(bytes: &[u8], refresh: Refresh) -> Result<Self, JwksError> {
        let (keys, members) = jwks::document(bytes)?;
        let sequence = whole(members.get("spiffe_sequence"), "`spiffe_sequence` is not a count")?;
        let hint = whole(members.get("spiffe_refresh_hint"), "`spiffe_refresh_hint` is no time")?;
        let hint = hint.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        let mut authorities = Vec::new();
        let mut left_out = Vec::new();
        let is = |key: &&Json, purpose| use_of(key) == Some(purpose);
        for key in keys.iter().filter(|key| is(key, "x509-svid")) {
            match certificate(key).and_then(|der| Authority::new(&der)) {
                Ok(authority) => authorities.push(authority),
                Err(why) => left_out.push(why),
            }
        }
        let jwt: Vec<Json> = keys.iter().filter(|key| is(key, "jwt-svid")).cloned().collect();
        let jwt = KeySet::of(&jwt, Purpose::JwtSvid);
        Ok(Self { jwt, authorities, left_out, sequence, refresh: refresh.bounded(hint) })
    }

    /// Whether one of the domain's authorities, directly or through others, signed the first
    /// certificate of `chain`.
    pub(crate) fn vouches(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let mut why = Rejection::UnknownKey;
        for authority in &self.authorities {
            match authority.vouches(chain, now) {
                Ok(()) => return Ok(()),
                // That another authority did not sign it says less than what is wrong with it.
                Err(Rejection::UnknownKey) => {}
                Err(rejection) => why = rejection,
            }
        }
        Err(why)
    }
}

impl Kept for Bundle {
    fn ages(&self) -> Ages {
        let fresh_max = self.refresh + LATE;
        Ages { renew_after: self.refresh, fresh_max, stale_max: fresh_max + STALE }
    }

    fn report(&self, issuer: &str) {
        if self.jwt.faults().contains(&KeyFault::Private) {
            tracing::error!(issuer.name = issuer, "the bundle holds a private key");
        }
        if self.jwt.is_empty() && self.authorities.is_empty() {
            // Its way of saying that nothing of this domain is valid any more.
            tracing::error!(issuer.name = issuer, "the bundle has no usable key");
        }
        if !self.left_out.is_empty() {
            // What they signed is refused as if nobody knew them, so this is the place to say why.
            tracing::warn!(
                issuer.name = issuer,
                authorities_left_out = ?self.left_out,
                "the bundle has authorities that cannot be used"
            );
        }
        tracing::debug!(
            issuer.name = issuer,
            sequence = self.sequence,
            jwt_keys = self.jwt.len(),
            authorities = self.authorities.len(),
            keys_left_out = ?self.jwt.faults(),
            "the bundle was read"
        );
    }
}

fn use_of(key: &Json) -> Option<&str> {
    let Json::Object(members) = key else { return None };
    members.get("use").and_then(Json::text)
}

fn whole(value: Option<&Json>, why: &'static str) -> Result<Option<i64>, JwksError> {
    match value {
        None => Ok(None),
        Some(Json::Integer(number)) if *number >= 0 => Ok(Some(*number)),
        Some(_) => Err(JwksError::Malformed { why }),
    }
}

/// The one certificate of a key. Its public key is the certificate's, so the JWK's own
/// parameters say nothing that we need.
fn certificate(key: &Json) -> Result<CertificateDer<'static>, Rejection> {
    let malformed = Rejection::certificate("`x5c` is not one certificate");
    let Json::Object(members) = key else { return Err(malformed) };
    let Some(Json::List(chain)) = members.get("x5c") else { return Err(malformed) };
    let [Json::Text(base64)] = chain.as_slice() else { return Err(malformed) };
    let der = BASE64.decode(base64.as_bytes()).map_err(|_| malformed)?;
    Ok(CertificateDer::from(der))
}
