//! Proofs that a caller has a key: `DPoP` (RFC 9449), one signed statement for one request.
//!
//! Invariant: a [`Proof`] exists only if everything that section 4.3 asks for holds, but that it
//! was not shown before. That only the store knows, and is asked with [`Proof::replay_key`].

mod place;

use std::{collections::BTreeMap, time::Duration};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use dayfly_backend_sdk::Timestamp;
use ring::digest;

pub use place::OwnAddress;

use super::{
    Algorithm, Rejection, claims,
    json::{self, Json, Limits},
    jwks::{Key, KeyFault},
    preparse::{Parts, decoded},
    thumbprint::thumbprint,
};

/// The longest proof that is looked at, in bytes. One with an RSA key of 8192 bits fits.
const PROOF_LEN_MAX: usize = 8 * 1024;
const LIMITS: Limits = Limits { depth: 4, members: 48, elements: 16, text_len: 4 * 1024 };
const TYPE: &str = "dpop+jwt";
const NOT_THE_KEYS: &str = "the algorithm is not the one of the key";

/// How old a proof may be: as long as a request may be on its way, and a client's clock behind.
/// It is remembered for longer, so this is not how long it can be shown again.
const AGE_MAX: Duration = Duration::from_mins(1);
/// How far a client's clock may be ahead. Short, so that somebody who has a key for a moment
/// cannot sign proofs for later.
const AHEAD_MAX: Duration = Duration::from_secs(5);

/// The request that a proof must be for.
#[derive(Debug, Clone, Copy)]
pub struct Requested<'r> {
    /// Its method.
    pub method: &'r str,
    /// Its path, as it came.
    pub path: &'r str,
    /// The token that it shows; none where the caller is who its certificate says.
    pub token: Option<&'r str>,
}

/// That whoever made a request has a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The key's thumbprint (RFC 7638, SHA-256).
    pub key: [u8; 32],
    id: String,
    issued_at: Timestamp,
}

impl Proof {
    /// What is remembered of it: the key and the proof's own id, so that nobody uses up another's.
    /// No name of an issuer or a webhook has a colon, so it is no other key that is remembered.
    pub fn replay_key(&self) -> String {
        let id = [self.key.as_slice(), self.id.as_bytes()].concat();
        format!("dpop:{}", HEXLOWER.encode(digest::digest(&digest::SHA256, &id).as_ref()))
    }

    /// When it is too old.
    pub fn ends_at(&self) -> Timestamp {
        self.issued_at.plus(AGE_MAX)
    }
}

#[cfg(test)]
impl Proof {
    /// One of `key`, for tests of what follows from it.
    pub(crate) fn of(key: [u8; 32]) -> Self {
        Self { key, id: String::new(), issued_at: Timestamp::EPOCH }
    }
}

impl OwnAddress {
    /// Holds `proof` against the request that it came with.
    ///
    /// # Errors
    /// [`Rejection::Proof`], with what is wrong.
    pub fn verify(
        &self,
        proof: &str,
        requested: &Requested<'_>,
        now: Timestamp,
    ) -> Result<Proof, Rejection> {
        let unreadable = |_| Rejection::proof("it is not three parts of base64url");
        let parts = Parts::cut(proof, PROOF_LEN_MAX).map_err(unreadable)?;
        let (algorithm, jwk) = header(&parts.header)?;
        let key = Key::of_proof(&jwk).map_err(|fault| Rejection::proof(unfit(fault)))?;
        let verified = key.verify(algorithm, parts.message, parts.signature);
        verified.map_err(|rejection| {
            let other = rejection == Rejection::AlgorithmMismatch;
            Rejection::proof(if other { NOT_THE_KEYS } else { "the signature does not hold" })
        })?;
        let key = thumbprint(&jwk).ok_or(Rejection::proof("its key has no one spelling"))?;
        let payload = decoded(parts.payload).map_err(unreadable)?;
        let members = json::object(&payload, LIMITS)
            .map_err(|_| Rejection::proof("the claims are not one JSON object"))?;
        let (id, issued_at) = self.check(&members, requested, now)?;
        Ok(Proof { key, id, issued_at })
    }

    fn check(
        &self,
        members: &BTreeMap<String, Json>,
        requested: &Requested<'_>,
        now: Timestamp,
    ) -> Result<(String, Timestamp), Rejection> {
        let text = |name: &str| members.get(name).and_then(Json::text);
        let id = claims::token_id(members.get("jti")).ok().flatten();
        let id = id.ok_or(Rejection::proof("`jti` is not a short string"))?;
        if text("htm") != Some(requested.method) {
            return Err(Rejection::proof("it is for another method"));
        }
        let is_ours = text("htu").is_some_and(|url| self.is_meant(url, requested.path));
        if !is_ours {
            return Err(Rejection::proof("it is for another URL"));
        }
        let issued_at = claims::time(members.get("iat"), "")
            .map_err(|_| Rejection::proof("`iat` is not a time in whole seconds"))?;
        if issued_at > now.plus(AHEAD_MAX) {
            return Err(Rejection::proof("it was made in the future"));
        }
        if now > issued_at.plus(AGE_MAX) {
            return Err(Rejection::proof("it is too old"));
        }
        match (requested.token, members.get("ath")) {
            (Some(_), None) => Err(Rejection::proof("it names no token")),
            (Some(token), Some(Json::Text(hash))) if *hash == token_hash(token) => {
                Ok((id, issued_at))
            }
            (None, None) => Ok((id, issued_at)),
            (Some(_) | None, Some(_)) => Err(Rejection::proof("it is for another token")),
        }
    }
}

/// What a proof calls the token that it goes with.
fn token_hash(token: &str) -> String {
    BASE64URL_NOPAD.encode(digest::digest(&digest::SHA256, token.as_bytes()).as_ref())
}

/// The three members that a proof's header has, and no others: any other could only change which
/// key or which bytes are meant.
fn header(bytes: &[u8]) -> Result<(Algorithm, Json), Rejection> {
    let mut members = json::object(bytes, LIMITS)
        .map_err(|_| Rejection::proof("the header is not one JSON object"))?;
    if members.remove("typ").as_ref().and_then(Json::text) != Some(TYPE) {
        return Err(Rejection::proof("`typ` is not dpop+jwt"));
    }
    let algorithm = members.remove("alg");
    let algorithm = algorithm.as_ref().and_then(Json::text).and_then(Algorithm::parse);
    let algorithm = algorithm.ok_or(Rejection::proof("the algorithm is not accepted"))?;
    let jwk = members.remove("jwk").ok_or(Rejection::proof("it brings no key"))?;
    if !members.is_empty() {
        return Err(Rejection::proof("the header has an unknown member"));
    }
    Ok((algorithm, jwk))
}

fn unfit(fault: KeyFault) -> &'static str {
    match fault {
        KeyFault::Private => "it shows a private key",
        KeyFault::Weak => "its key is weak",
        KeyFault::Algorithm
        | KeyFault::Curve
        | KeyFault::DuplicateKid
        | KeyFault::Malformed
        | KeyFault::Type
        | KeyFault::Use => "its key is not one that is verified with",
    }
}

#[cfg(test)]
mod tests;
