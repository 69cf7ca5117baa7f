//! What the tests share: a clock, keys to sign with, and a desk with one issuer.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use data_encoding::BASE64URL_NOPAD;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::Clock;
use ring::{
    rand::SystemRandom,
    rsa::KeyPair as RsaKeyPair,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding},
};
use serde_json::{Value, json};

use crate::identity::{Authenticator, FixedKeys, IssuerConfig, KeySource, Principal, Rejection};

/// The second that every test begins in.
pub(crate) const NOW: i64 = 1_790_000_000;
pub(crate) const ISSUER: &str = "https://issuer.example/realm";
pub(crate) const AUDIENCE: &str = "https://dayfly.example";

#[derive(Debug)]
pub(crate) struct FakeClock(Mutex<Timestamp>);

impl FakeClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Timestamp::from_seconds(NOW))))
    }

    pub(crate) fn advance(&self, seconds: u64) {
        let mut now = self.0.lock().unwrap();
        *now = now.plus(Duration::from_secs(seconds));
    }

    pub(crate) fn set_back(&self, seconds: u64) {
        let mut now = self.0.lock().unwrap();
        *now = now.minus(Duration::from_secs(seconds));
    }
}

#[async_trait]
impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn running(&self) -> Duration {
        Duration::ZERO
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A private key that signs with any algorithm of its type.
pub(crate) enum Signer {
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl Signer {
    pub(crate) fn es256() -> Self {
        Self::ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")
    }

    pub(crate) fn es384() -> Self {
        Self::ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")
    }

    fn ec(algorithm: &'static signature::EcdsaSigningAlgorithm, curve: &'static str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap(), curve)
    }

    pub(crate) fn ed25519() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    /// ring makes no RSA keys, so this is the published private key of a test vector.
    pub(crate) fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::from_der(&rsa_der()).unwrap()))
    }

    /// The public key as a JWK, with `kid` and without `alg`.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let base64 = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        match self {
            Self::Ec(pair, curve) => {
                let point = pair.public_key().as_ref();
                let (x, y) = point[1..].split_at(point.len() / 2);
                json!({"kty": "EC", "crv": curve, "kid": kid, "x": base64(x), "y": base64(y)})
            }
            Self::Ed(pair) => {
                let x = base64(pair.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x})
            }
            Self::Rsa(pair) => {
                let public = signature::RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
                let (n, e) = (public.n, public.e);
                json!({"kty": "RSA", "kid": kid, "n": base64(&n), "e": base64(&e)})
            }
        }
    }

    /// Signs as `alg` says; a type that does not match signs as it can.
    pub(crate) fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ec(pair, _) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let padding: &dyn RsaEncoding = match alg {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// A compact token of these very texts.
    pub(crate) fn token(&self, header: &str, claims: &str) -> String {
        self.token_of_bytes(header.as_bytes(), claims.as_bytes())
    }

    pub(crate) fn token_of_bytes(&self, header: &[u8], claims: &[u8]) -> String {
        let alg: Option<Value> = serde_json::from_slice(header).ok();
        let alg = alg.as_ref().and_then(|h| h["alg"].as_str()).unwrap_or("").to_owned();
        let message =
            format!("{}.{}", BASE64URL_NOPAD.encode(header), BASE64URL_NOPAD.encode(claims));
        let signature = self.sign(&alg, message.as_bytes());
        format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}

/// The header that the desk's key goes with.
pub(crate) const HEADER: &str = r#"{"alg":"ES256","kid":"k1","typ":"JWT"}"#;

/// Good claims.
pub(crate) fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "repo:acme/app", "jti": "j-1",
        "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 300,
    })
}

/// Good claims with one other value.
pub(crate) fn with(name: &str, value: impl Into<Value>) -> String {
    let mut claims = claims();
    claims[name] = value.into();
    claims.to_string()
}

/// Good claims with one value as it is written here.
pub(crate) fn with_raw(name: &str, raw: &str) -> String {
    let mut claims = claims();
    claims[name] = json!("@@");
    claims.to_string().replace("\"@@\"", raw)
}

/// Good claims without one.
pub(crate) fn without(name: &str) -> String {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name).unwrap();
    claims.to_string()
}

/// An issuer with an ES256 key `k1`, and us.
pub(crate) struct Desk {
    pub(crate) authenticator: Authenticator,
    pub(crate) signer: Signer,
    pub(crate) clock: Arc<FakeClock>,
}

impl Desk {
    pub(crate) async fn new() -> Self {
        Self::with_rules(IssuerConfig::new("ci", ISSUER, AUDIENCE)).await
    }

    pub(crate) async fn with_rules(rules: IssuerConfig) -> Self {
        let signer = Signer::es256();
        let clock = FakeClock::new();
        let source = fixed(&[signer.jwk("k1")]);
        let authenticator =
            Authenticator::with_sources(vec![(rules, source)], clock.clone()).unwrap();
        let desk = Self { authenticator, signer, clock };
        let good = desk.signer.token(HEADER, &claims().to_string());
        assert_eq!(desk.ask(&good).await.unwrap().subject, "repo:acme/app");
        desk
    }

    pub(crate) async fn ask(&self, token: &str) -> Result<Principal, Rejection> {
        self.authenticator.authenticate(token).await
    }

    pub(crate) async fn ask_claims(&self, claims: &str) -> Result<Principal, Rejection> {
        self.ask(&self.signer.token(HEADER, claims)).await
    }

    pub(crate) async fn ask_header(&self, header: &str) -> Result<Principal, Rejection> {
        self.ask(&self.signer.token(header, &claims().to_string())).await
    }
}

pub(crate) fn fixed(keys: &[Value]) -> Arc<dyn KeySource> {
    let jwks = json!({ "keys": keys }).to_string();
    Arc::new(FixedKeys::parse(jwks.as_bytes()).unwrap())
}

pub(crate) fn malformed<T>(why: &'static str) -> Result<T, Rejection> {
    Err(Rejection::Malformed { why })
}

/// One DER element.
pub(crate) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut element = vec![tag];
    match len {
        0..=0x7f => element.push(u8::try_from(len).unwrap()),
        0x80..=0xff => element.extend([0x81, u8::try_from(len).unwrap()]),
        0x100..=0xffff => {
            element.push(0x82);
            element.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        _ => {
            let [_, len @ ..] = u32::try_from(len).unwrap().to_be_bytes();
            element.push(0x83);
            element.extend(len);
        }
    }
    element.extend_from_slice(content);
    element
}

pub(crate) fn der_integer(bytes: &[u8]) -> Vec<u8> {
    let sign = if bytes[0] & 0x80 == 0 { vec![] } else { vec![0] };
    der(0x02, &[sign.as_slice(), bytes].concat())
}

/// The RS256 private key of the Wycheproof JWS vectors as PKCS #1.
pub(crate) fn rsa_der() -> Vec<u8> {
    let vectors: Value =
        serde_json::from_str(include_str!("../testdata/wycheproof/json_web_signature_test.json"))
            .unwrap();
    let groups = vectors["testGroups"].as_array().unwrap();
    let group = groups.iter().find(|group| group["comment"] == "rs256").unwrap();
    let mut fields = der_integer(&[0]);
    for name in ["n", "e", "d", "p", "q", "dp", "dq", "qi"] {
        let base64 = group["private"][name].as_str().unwrap();
        fields.extend(der_integer(&BASE64URL_NOPAD.decode(base64.as_bytes()).unwrap()));
    }
    der(0x30, &fields)
}
