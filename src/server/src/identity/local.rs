//! The issuer that `dev` and `demo` bring along.
//!
//! Invariant: its key is made at start, lives in memory only and never leaves it.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use dayfly_lease::Entropy;
use ring::{
    digest,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// An issuer with one Ed25519 key.
pub struct LocalIssuer {
    pair: Ed25519KeyPair,
    kid: String,
}

impl LocalIssuer {
    /// Makes a key.
    pub fn new(entropy: &dyn Entropy) -> Result<Self, ring::error::KeyRejected> {
        let mut seed = Zeroizing::new([0; 32]);
        entropy.fill(seed.as_mut());
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref())?;
        let hash = digest::digest(&digest::SHA256, pair.public_key().as_ref());
        let kid = HEXLOWER.encode(hash.as_ref()).chars().take(16).collect();
        Ok(Self { pair, kid })
    }

    /// The public key, as a JWK set.
    pub fn jwks(&self) -> Value {
        json!({ "keys": [{
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "use": "sig",
            "kid": self.kid,
            "x": BASE64URL_NOPAD.encode(self.pair.public_key().as_ref()),
        }] })
    }

    /// A signed token with these claims, all of which the caller chooses.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as("JWT", claims)
    }

    /// The same as a token of another type.
    pub fn sign_as(&self, typ: &str, claims: &Value) -> String {
        let header = json!({ "alg": "EdDSA", "typ": typ, "kid": self.kid });
        let part = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = self.pair.sign(message.as_bytes());
        format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }
}

impl fmt::Debug for LocalIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalIssuer").field("kid", &self.kid).finish_non_exhaustive()
    }
}
