//! JWK sets: which keys of an issuer are good enough to verify with.
//!
//! Invariant: a key that is unusable is left out and harms no other. The algorithm is a
//! property of the key; a token can only agree with it.

use std::{collections::BTreeMap, sync::Arc};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::DecodingKey;

use super::{
    Algorithm, Rejection,
    json::{self, Json, JsonFault, Limits},
    strength,
};

/// The largest key set that is read, in bytes.
pub(crate) const JWKS_LEN_MAX: usize = 512 * 1024;
const KEYS_MAX: usize = 100;
const KID_LEN_MAX: usize = 256;
const LIMITS: Limits = Limits { depth: 16, members: 4_000, elements: 4_000, text_len: 65_536 };

/// Members that only a private or symmetric key has.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Why a set is refused as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// More than 512 KiB.
    #[error("the key set is larger than {JWKS_LEN_MAX} bytes")]
    TooLarge,
    /// More than a hundred keys.
    #[error("the key set has more than {KEYS_MAX} keys")]
    TooManyKeys,
    /// Not a JWK set.
    #[error("the key set is malformed: {why}")]
    Malformed {
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Why one key is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Its `alg` is unknown, or not one of its type and curve.
    #[error("its algorithm is unknown or not one of its type")]
    Algorithm,
    /// Its curve is unknown.
    #[error("its curve is unknown")]
    Curve,
    /// Several keys have its `kid`.
    #[error("several keys have its `kid`")]
    DuplicateKid,
    /// A member is missing or not what it should be.
    #[error("a member is missing or malformed")]
    Malformed,
    /// It is a private key: somebody published a secret.
    #[error("it is a private key")]
    Private,
    /// It is symmetric, or of an unknown type.
    #[error("its type is not one that we verify with")]
    Type,
    /// `use` or `key_ops` say that it is not for verifying signatures.
    #[error("it is not for verifying signatures")]
    Use,
    /// The key is weak: length, exponent, a small factor, a known bad generator, small order.
    #[error("it is weak")]
    Weak,
}

/// The keys of one issuer.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    named: BTreeMap<String, Arc<Key>>,
    unnamed: Vec<Arc<Key>>,
    faults: Vec<KeyFault>,
}

/// What the keys of a set must say that they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Tokens of a SPIFFE trust domain: `use` is `jwt-svid`, to the letter.
    JwtSvid,
    /// Tokens of an issuer: `use` is `sig`, or not there.
    Signature,
}

/// One public key.
#[derive(Debug)]
pub(crate) struct Key {
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

impl KeySet {
    /// Reads a JWK set.
    pub fn parse(bytes: &[u8]) -> Result<Self, JwksError> {
        Ok(Self::of(&document(bytes)?.0, Purpose::Signature))
    }

    /// Those of `keys` that are usable and for `purpose`.
    pub(crate) fn of(keys: &[Json], purpose: Purpose) -> Self {
        let mut set = Self::default();
        let mut named: BTreeMap<String, Vec<Key>> = BTreeMap::new();
        for key in keys {
            match key_of(key, purpose) {
                Ok((Some(kid), key)) => named.entry(kid).or_default().push(key),
                Ok((None, key)) => set.unnamed.push(Arc::new(key)),
                Err(fault) => set.faults.push(fault),
            }
        }
        for (kid, mut keys) in named {
            match (keys.pop(), keys.len()) {
                (Some(key), 0) => drop(set.named.insert(kid, Arc::new(key))),
                // Which of them is meant depends on the reader, so none is.
                (_, others) => {
                    set.faults.extend(std::iter::repeat_n(KeyFault::DuplicateKid, others + 1));
                }
            }
        }
        set
    }

    /// How many keys are usable.
    pub fn len(&self) -> usize {
        self.named.len() + self.unnamed.len()
    }

    /// Whether no key is usable.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why keys were left out.
    pub fn faults(&self) -> &[KeyFault] {
        &self.faults
    }

    /// The key that a header means.
    pub(crate) fn select(&self, kid: Option<&str>) -> Result<Arc<Key>, Rejection> {
        if let Some(kid) = kid {
            return self.named.get(kid).cloned().ok_or(Rejection::UnknownKey);
        }
        let mut keys = self.named.values().chain(&self.unnamed);
        match (keys.next(), keys.next()) {
            (None, _) => Err(Rejection::UnknownKey),
            (Some(key), None) => Ok(Arc::clone(key)),
            (Some(_), Some(_)) => Err(Rejection::AmbiguousKey),
        }
    }
}

impl Key {
    /// The one key that a proof of possession brings along.
    pub(crate) fn of_proof(jwk: &Json) -> Result<Self, KeyFault> {
        key_of(jwk, Purpose::Signature).map(|(_, key)| key)
    }

    /// Verifies through the JWT library.
    pub(crate) fn verify(
        &self,
        algorithm: Algorithm,
        message: &str,
        signature: &str,
    ) -> Result<(), Rejection> {
        if !self.algorithms.contains(&algorithm) {
            return Err(Rejection::AlgorithmMismatch);
        }
        self.verify_bytes(algorithm, message.as_bytes(), signature)
    }

    pub(super) fn verify_bytes(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &str,
    ) -> Result<(), Rejection> {
        let verified =
            jsonwebtoken::crypto::verify(signature, message, &self.decoding, algorithm.jwa());
        match verified {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Rejection::BadSignature),
        }
    }
}

/// The keys of a JWK set, unread, and its other members.
pub(crate) fn document(bytes: &[u8]) -> Result<(Vec<Json>, Members), JwksError> {
    if bytes.len() > JWKS_LEN_MAX {
        return Err(JwksError::TooLarge);
    }
    let mut members = json::object(bytes, LIMITS).map_err(malformed)?;
    let Some(Json::List(keys)) = members.remove("keys") else {
        return Err(JwksError::Malformed { why: "`keys` is not a list" });
    };
    if keys.len() > KEYS_MAX {
        return Err(JwksError::TooManyKeys);
    }
    Ok((keys, members))
}

fn malformed(fault: JsonFault) -> JwksError {
    JwksError::Malformed {
        why: match fault {
            JsonFault::Depth => "nested too deeply",
            JsonFault::Duplicate => "a member appears twice",
            JsonFault::Members => "too many members",
            JsonFault::Syntax => "not a JSON object",
            JsonFault::TextLen => "a string is too long",
        },
    }
}

pub(crate) type Members = BTreeMap<String, Json>;

fn key_of(json: &Json, purpose: Purpose) -> Result<(Option<String>, Key), KeyFault> {
    let Json::Object(members) = json else { return Err(KeyFault::Malformed) };
    let kty = text(members, "kty")?;
    if kty == "oct" {
        return Err(KeyFault::Type);
    }
    if PRIVATE.iter().any(|name| members.contains_key(*name)) {
        return Err(KeyFault::Private);
    }
    for_verifying(members, purpose)?;
    let (possible, decoding) = match kty {
        "RSA" => rsa(members)?,
        "EC" => ec(members)?,
        "OKP" => okp(members)?,
        _ => return Err(KeyFault::Type),
    };
    let algorithms = match members.get("alg") {
        None => possible,
        Some(name) => {
            let named = name.text().and_then(Algorithm::parse).ok_or(KeyFault::Algorithm)?;
            if !possible.contains(&named) {
                return Err(KeyFault::Algorithm);
            }
            vec![named]
        }
    };
    let kid = match members.get("kid") {
        None => None,
        Some(Json::Text(kid)) if kid.len() <= KID_LEN_MAX => Some(kid.clone()),
        Some(_) => return Err(KeyFault::Malformed),
    };
    Ok((kid, Key { algorithms, decoding }))
}

fn for_verifying(members: &Members, purpose: Purpose) -> Result<(), KeyFault> {
    let declared = match members.get("use") {
        None => None,
        Some(Json::Text(declared)) => Some(declared.as_str()),
        Some(_) => return Err(KeyFault::Use),
    };
    let fits = match purpose {
        Purpose::JwtSvid => declared == Some("jwt-svid"),
        Purpose::Signature => declared.is_none_or(|declared| declared == "sig"),
    };
    if !fits {
        return Err(KeyFault::Use);
    }
    match members.get("key_ops") {
        None => Ok(()),
        Some(Json::List(operations))
            if operations.iter().any(|operation| operation.text() == Some("verify")) =>
        {
            Ok(())
        }
        Some(_) => Err(KeyFault::Use),
    }
}

fn rsa(members: &Members) -> Result<(Vec<Algorithm>, DecodingKey), KeyFault> {
    let n = integer(members, "n")?;
    let e = integer(members, "e")?;
    if !strength::rsa_is_strong(&n, &e) {
        return Err(KeyFault::Weak);
    }
    let algorithms = Algorithm::ALL.into_iter().filter(|a| a.is_rsa()).collect();
    Ok((algorithms, DecodingKey::from_rsa_raw_components(&n, &e)))
}

fn ec(members: &Members) -> Result<(Vec<Algorithm>, DecodingKey), KeyFault> {
    let (algorithm, len) = match text(members, "crv")? {
        "P-256" => (Algorithm::Es256, 32),
        "P-384" => (Algorithm::Es384, 48),
        _ => return Err(KeyFault::Curve),
    };
    let (x, y) = (bytes(members, "x")?, bytes(members, "y")?);
    if x.len() != len || y.len() != len {
        return Err(KeyFault::Malformed);
    }
    // An uncompressed point. Whether it lies on the curve is checked at each verification.
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    Ok((vec![algorithm], DecodingKey::from_ec_der(&point)))
}

fn okp(members: &Members) -> Result<(Vec<Algorithm>, DecodingKey), KeyFault> {
    if text(members, "crv")? != "Ed25519" {
        return Err(KeyFault::Curve);
    }
    let x: [u8; 32] = bytes(members, "x")?.try_into().map_err(|_| KeyFault::Malformed)?;
    if !strength::ed25519_is_strong(&x) {
        return Err(KeyFault::Weak);
    }
    Ok((vec![Algorithm::EdDsa], DecodingKey::from_ed_der(&x)))
}

fn text<'m>(members: &'m Members, name: &str) -> Result<&'m str, KeyFault> {
    members.get(name).and_then(Json::text).ok_or(KeyFault::Malformed)
}

fn bytes(members: &Members, name: &str) -> Result<Vec<u8>, KeyFault> {
    BASE64URL_NOPAD.decode(text(members, name)?.as_bytes()).map_err(|_| KeyFault::Malformed)
}

/// An unsigned integer without the leading zeros that some issuers leave before it.
fn integer(members: &Members, name: &str) -> Result<Vec<u8>, KeyFault> {
    let bytes = bytes(members, name)?;
    Ok(bytes.into_iter().skip_while(|byte| *byte == 0).collect())
}

#[cfg(test)]
mod tests;
