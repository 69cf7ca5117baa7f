//! Proof that we have a key: `DPoP` (RFC 9449).
//!
//! Invariant: a key is made for one run and lives in memory alone, unless the user names a file for
//! it; nothing here shows it or hands it on. Each proof is for one request.

pub(crate) mod file;

use std::{
    fmt,
    sync::atomic::{AtomicI64, Ordering},
};

use data_encoding::BASE64URL_NOPAD;
use reqwest::{Method, header::HeaderValue};
use ring::{
    digest,
    pkcs8::Document,
    rand::{SecureRandom as _, SystemRandom},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use url::Url;

const ID_BYTES: usize = 16;
/// Clocks that differ by less are no reason for a broker to refuse a proof.
const DIFFERENCE_MIN_S: u64 = 2;

/// An ECDSA key on P-256.
pub(crate) struct Key {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    jwk: Value,
    /// How far the broker's clock is ahead of ours, in seconds.
    ahead_s: AtomicI64,
}

/// The system gives no random numbers, or they make no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot make or use a key to prove the task's token with; `exec --no-proof` goes without")]
pub(crate) struct NoKey;

impl Key {
    pub(crate) fn generate() -> Result<Self, NoKey> {
        Self::read(Self::fresh()?.as_ref())
    }

    /// A new key, as PKCS#8.
    fn fresh() -> Result<Document, NoKey> {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| NoKey)
    }

    fn read(pkcs8: &[u8]) -> Result<Self, NoKey> {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &random).map_err(|_| NoKey)?;
        let jwk = public(pair.public_key().as_ref()).ok_or(NoKey)?;
        Ok(Self { pair, random, jwk, ahead_s: AtomicI64::new(0) })
    }

    /// The header of one request with a token that hashes to `token_hash`.
    pub(crate) fn proof(
        &self,
        method: &Method,
        url: &Url,
        token_hash: &str,
    ) -> Result<HeaderValue, NoKey> {
        let mut id = [0; ID_BYTES];
        self.random.fill(&mut id).map_err(|_| NoKey)?;
        let mut place = url.clone();
        place.set_query(None);
        place.set_fragment(None);
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk });
        let claims = json!({
            "jti": BASE64URL_NOPAD.encode(&id),
            "htm": method.as_str(),
            "htu": place.as_str(),
            "iat": now().saturating_add(self.ahead_s.load(Ordering::Relaxed)),
            "ath": token_hash,
        });
        let part = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature = self.pair.sign(&self.random, message.as_bytes()).map_err(|_| NoKey)?;
        let signature = BASE64URL_NOPAD.encode(signature.as_ref());
        let mut value =
            HeaderValue::try_from(format!("{message}.{signature}")).map_err(|_| NoKey)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Goes by the broker's clock from now on, which says `date`. False where it did so already:
    /// then it was not the time that was amiss.
    pub(crate) fn follow(&self, date: OffsetDateTime) -> bool {
        let ahead = date.unix_timestamp().saturating_sub(now());
        let before = self.ahead_s.swap(ahead, Ordering::Relaxed);
        ahead.abs_diff(before) >= DIFFERENCE_MIN_S
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What a proof calls the token that it goes with.
pub(crate) fn token_hash(token: &str) -> String {
    BASE64URL_NOPAD.encode(digest::digest(&digest::SHA256, token.as_bytes()).as_ref())
}

/// The public key as a JWK, of an uncompressed point.
fn public(point: &[u8]) -> Option<Value> {
    let (x, y) = point.strip_prefix(&[4])?.split_at_checked(32)?;
    let [x, y] = [x, y].map(|part| BASE64URL_NOPAD.encode(part));
    Some(json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y }))
}

#[expect(clippy::disallowed_methods, reason = "a proof says when it was made")]
fn now() -> i64 {
    OffsetDateTime::from(std::time::SystemTime::now()).unix_timestamp()
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use time::Duration;

    use super::*;

    fn json(part: &str) -> Value {
        serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
    }

    /// The header and the claims, after the signature held under the key that it shows.
    fn opened(proof: &HeaderValue) -> (Value, Value) {
        let text = proof.to_str().unwrap();
        let (message, signature) = text.rsplit_once('.').unwrap();
        let (header, claims) = message.split_once('.').unwrap();
        let (header, claims) = (json(header), json(claims));
        let bytes = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
        let coordinate = |name: &str| bytes(header["jwk"][name].as_str().unwrap());
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        key.verify(message.as_bytes(), &bytes(signature)).unwrap();
        (header, claims)
    }

    #[test]
    fn a_proof_is_for_its_request_and_shows_nothing_but_the_public_key() {
        let key = Key::generate().unwrap();
        let url = Url::parse("https://b.example/base/api/v1/tasks?wait=5s#x").unwrap();
        let (header, claims) = opened(&key.proof(&Method::POST, &url, "hash").unwrap());
        assert_eq!((&header["typ"], &header["alg"]), (&json!("dpop+jwt"), &json!("ES256")));
        let mut members: Vec<_> = header["jwk"].as_object().unwrap().keys().cloned().collect();
        members.sort();
        assert_eq!(members, ["crv", "kty", "x", "y"]);
        assert_eq!(claims["htm"], "POST");
        assert_eq!(claims["htu"], "https://b.example/base/api/v1/tasks");
        assert_eq!(claims["ath"], "hash");
        assert!(claims["iat"].as_i64().unwrap().abs_diff(now()) < 5, "{claims}");
        let (_, again) = opened(&key.proof(&Method::POST, &url, "hash").unwrap());
        assert_ne!(claims["jti"], again["jti"], "each request has its own");
        assert_eq!(format!("{key:?}"), "Key(…)");
    }

    #[test]
    fn two_runs_have_two_keys() {
        let (one, other) = (Key::generate().unwrap(), Key::generate().unwrap());
        assert_ne!(one.jwk, other.jwk);
    }

    #[test]
    fn the_brokers_clock_is_followed_once() {
        let key = Key::generate().unwrap();
        let theirs = OffsetDateTime::from_unix_timestamp(now()).unwrap() + Duration::HOUR;
        assert!(key.follow(theirs));
        assert!(!key.follow(theirs), "the time is not what is amiss");
        let url = Url::parse("https://b.example/").unwrap();
        let (_, claims) = opened(&key.proof(&Method::GET, &url, "").unwrap());
        let ahead = claims["iat"].as_i64().unwrap() - now();
        assert!((3_595..=3_605).contains(&ahead), "{ahead}");
    }

    /// RFC 9449, section 7.1.
    #[test]
    fn the_published_token_has_the_published_hash() {
        let hash = token_hash("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU");
        assert_eq!(hash, "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
    }
}
