//! The tokens of a cluster's pods, as Kubernetes 1.33 signs them, but with ES256: an API server
//! signs so where its key is one, and ring makes no keys of RSA.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        UnparsedPublicKey,
    },
};
use serde_json::{Value, json};

use super::{Cluster, Pod, uuid};
use crate::Issuer;

/// The uid of the account `runner`.
pub(super) const ACCOUNT_UID: &str = "51fa6c1e-7d04-4c1b-9a57-0c6a1b7e11d2";
pub(super) const NODE_UID: &str = "646e4ac2-11d8-4a0b-8a33-9d3b8a1c2f10";

/// What a token of the account `runner` says that is bound to `pod`.
pub(super) fn claims(pod: &Pod, audience: &str) -> Value {
    let now = Issuer::now();
    let Pod { namespace, name, uid } = pod;
    json!({
        "aud": [audience], "exp": now + 3_607, "iat": now, "iss": Cluster::ISSUER,
        "jti": uuid().to_string(),
        "kubernetes.io": {
            "namespace": namespace,
            "node": { "name": "n1", "uid": NODE_UID },
            "pod": { "name": name, "uid": uid },
            "serviceaccount": { "name": "runner", "uid": ACCOUNT_UID },
            "warnafter": now + 3_607,
        },
        "nbf": now, "sub": format!("system:serviceaccount:{namespace}:runner"),
    })
}

/// The key of a cluster.
pub(super) struct Signer(EcdsaKeyPair);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(…)")
    }
}

impl Signer {
    pub(super) fn new() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap())
    }

    /// The public key, as `/openid/v1/jwks` has it.
    pub(super) fn jwks(&self) -> Value {
        let point = self.0.public_key().as_ref().get(1..).unwrap();
        let (x, y) = point.split_at(point.len() / 2);
        let (x, y) = (BASE64URL_NOPAD.encode(x), BASE64URL_NOPAD.encode(y));
        json!({ "keys": [{
            "use": "sig", "kty": "EC", "kid": "k1", "crv": "P-256", "alg": "ES256", "x": x, "y": y,
        }] })
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let part = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        let message = format!("{}.{}", part(&json!({ "alg": "ES256", "kid": "k1" })), part(claims));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }

    /// The claims of a token that this key signed.
    pub(super) fn verified(&self, token: &str) -> Option<Value> {
        let (message, signature) = token.rsplit_once('.')?;
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.0.public_key().as_ref());
        key.verify(message.as_bytes(), &signature).ok()?;
        let claims = BASE64URL_NOPAD.decode(message.split_once('.')?.1.as_bytes()).ok()?;
        serde_json::from_slice(&claims).ok()
    }
}
