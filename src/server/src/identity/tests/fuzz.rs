//! The fuzz target `jwt_preparse`: tokens, through the reader and all that stands behind it.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{
    ED25519, Ed25519KeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::kit::{AUDIENCE, FakeClock, ISSUER, NOW, Signer, claims, fixed, with};
use crate::{
    fuzz::{self, Dice, Node, Target, change_bytes},
    identity::{
        Authenticator, ClaimValue, IssuerConfig, Platform, Principal, Rejection, json::Json,
        preparse::Compact,
    },
};

const GITHUB: &str = include_str!("../testdata/presets/github.json");
const GITHUB_ISSUER: &str = "https://token.actions.githubusercontent.com";
const KUBERNETES: &str = include_str!("../testdata/presets/kubernetes.json");
const HEADER: &str = r#"{"alg":"EdDSA","kid":"k1","typ":"JWT"}"#;
const RSA_HEADER: &str = r#"{"alg":"RS256","kid":"k1","typ":"JWT","x5t":"eBZ_cn3sXYAd0ch4THBK"}"#;
/// Of an issuer with the defaults.
const LEEWAY_SECONDS: i64 = 30;

/// An issuer `ci` that signs with Ed25519, and GitHub. Both keys are the same in each run.
struct Tokens {
    authenticator: Authenticator,
    ed25519: Signer,
    ed25519_public: Vec<u8>,
    rsa: Signer,
    rsa_public: Vec<u8>,
    runtime: Runtime,
    /// Ours, or one with a planted weakness.
    ask: Ask,
}

/// Decides who sends a token.
type Ask = fn(&Tokens, &str) -> Result<Principal, Rejection>;

impl Tokens {
    fn new(ask: Ask) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let ed25519_public = pair.public_key().as_ref().to_vec();
        let (ed25519, rsa) = (Signer::Ed(pair), Signer::rsa());
        let Signer::Rsa(pair) = &rsa else { panic!("an RSA key") };
        let rsa_public = pair.public_key().as_ref().to_vec();
        let issuers = vec![
            (IssuerConfig::new("ci", ISSUER, AUDIENCE), fixed(&[ed25519.jwk("k1")])),
            (
                IssuerConfig::of(Platform::Github, "github", GITHUB_ISSUER, AUDIENCE),
                fixed(&[rsa.jwk("k1")]),
            ),
        ];
        let authenticator = Authenticator::with_sources(issuers, FakeClock::new()).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { authenticator, ed25519, ed25519_public, rsa, rsa_public, runtime, ask }
    }

    /// The signature of whoever has the key that the header is for.
    fn signature(&self, header: &[u8], message: &str) -> String {
        let with_rsa = header.windows(5).any(|name| name == b"RS256");
        let signature = if with_rsa {
            self.rsa.sign("RS256", message.as_bytes())
        } else {
            self.ed25519.sign("EdDSA", message.as_bytes())
        };
        BASE64URL_NOPAD.encode(&signature)
    }

    /// What must hold of a token that is somebody's, checked without any of our code.
    fn holds(&self, token: &str, [header, claims]: [&Value; 2], principal: &Principal) {
        let (message, signature) = token.rsplit_once('.').unwrap();
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        let alg = header["alg"].as_str().unwrap();
        let (issuer, verified) = if principal.issuer == "github" {
            assert_eq!(alg, "RS256", "{token}");
            let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.rsa_public);
            (GITHUB_ISSUER, key.verify(message.as_bytes(), &signature))
        } else {
            assert!(["EdDSA", "Ed25519"].contains(&alg), "{token}");
            let key = UnparsedPublicKey::new(&ED25519, &self.ed25519_public);
            (ISSUER, key.verify(message.as_bytes(), &signature))
        };
        assert!(verified.is_ok(), "nobody signed {token}");
        assert_eq!(claims["iss"].as_str(), Some(issuer), "{token}");
        assert_eq!(claims["sub"].as_str(), Some(principal.subject.as_str()), "{token}");
        let audience = claims["aud"].as_str().or_else(|| claims["aud"][0].as_str());
        assert_eq!(audience, Some(AUDIENCE), "for somebody else: {token}");
        assert!(claims["exp"].as_i64().unwrap() + LEEWAY_SECONDS > NOW, "{token}");
        assert!(claims["iat"].as_i64().unwrap() - LEEWAY_SECONDS <= NOW, "{token}");
        all_claims(claims, &principal.claims);
    }
}

/// Every claim at the top is there with its value, and there is none that was not written.
fn all_claims(written: &Value, read: &BTreeMap<String, ClaimValue>) {
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    for (name, value) in written.as_object().unwrap() {
        if let Some(text) = scalar(value) {
            assert_eq!(read.get(name), Some(&ClaimValue::Text(text)), "{name}");
        }
    }
    for (path, value) in read.iter().filter(|(path, _)| !path.contains('.')) {
        let own = &written[path.as_str()];
        match value {
            ClaimValue::Text(text) => assert_eq!(scalar(own).as_ref(), Some(text), "{path}"),
            ClaimValue::List(texts) => {
                let own: Option<Vec<_>> = own.as_array().unwrap().iter().map(scalar).collect();
                assert_eq!(own.as_ref(), Some(texts), "{path}");
            }
        }
    }
}

/// What other readers make of bytes that ours takes: the same, whichever of two members they
/// would go by.
fn read_elsewhere(part: &[u8]) -> Value {
    let bytes = BASE64URL_NOPAD.decode(part).unwrap();
    assert_eq!(BASE64URL_NOPAD.encode(&bytes).as_bytes(), part, "has another spelling");
    assert!(Node::read(&bytes).unwrap().is_unambiguous(), "has two readings");
    serde_json::from_slice(&bytes).unwrap()
}

fn agree(ours: &Json, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Json::Null, Value::Null) => true,
        (Json::Bool(ours), Value::Bool(theirs)) => ours == theirs,
        (Json::Integer(ours), Value::Number(theirs)) => theirs.as_i64() == Some(*ours),
        (Json::Inexact, Value::Number(theirs)) => theirs.as_i64().is_none(),
        (Json::Text(ours), Value::String(theirs)) => ours == theirs,
        (Json::List(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|(ours, theirs)| agree(ours, theirs))
        }
        (Json::Object(ours), Value::Object(theirs)) => {
            let same = |(name, ours): (&String, &Json)| {
                theirs.get(name).is_some_and(|theirs| agree(ours, theirs))
            };
            ours.len() == theirs.len() && ours.iter().all(same)
        }
        _ => false,
    }
}

impl Target for Tokens {
    const NAME: &'static str = "jwt_preparse";
    const ROUNDS: u64 = 5_000;

    fn corpus(&self) -> Vec<Vec<u8>> {
        let mut pod: Value = serde_json::from_str(KUBERNETES).unwrap();
        pod["iss"] = json!(ISSUER);
        let good = claims().to_string();
        let forged = self.ed25519.token(&HEADER.replace("EdDSA", "none"), &good);
        let (unsigned, _) = forged.rsplit_once('.').unwrap();
        let tokens = [
            self.ed25519.token(HEADER, &good),
            self.ed25519.token(r#"{"alg":"Ed25519"}"#, &with("groups", json!(["a", "b", 1, true]))),
            self.ed25519.token(HEADER, &with("a", json!({"b": {"c": [{"d": 1}, []]}, "e": null}))),
            self.ed25519.token(HEADER, &pod.to_string()),
            self.ed25519.token(HEADER, &with("aud", "https://other.example")),
            self.ed25519.token(HEADER, &good.replacen('{', "{\"s\\u0075b\":\"admin\",", 1)),
            self.ed25519.token(&HEADER.replace("EdDSA", "HS256"), &good),
            self.rsa.token(RSA_HEADER, GITHUB),
            format!("{unsigned}."),
            forged,
        ];
        tokens.into_iter().map(String::into_bytes).collect()
    }

    fn reshaped(&self, input: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
        let mut parts = input.splitn(3, |byte| *byte == b'.');
        let mut decoded = || BASE64URL_NOPAD.decode(parts.next()?).ok();
        let (mut header, mut claims) = (decoded()?, decoded()?);
        let signature = parts.next()?;
        let part = if dice.one_in(3) { &mut header } else { &mut claims };
        if dice.one_in(6) {
            change_bytes(part, b"", dice);
        } else {
            *part = Node::changed(part, dice)?;
        }
        let encoded = [&header, &claims].map(|part| BASE64URL_NOPAD.encode(part));
        let message = encoded.join(".");
        let signature = match dice.below(12) {
            0 => String::from_utf8_lossy(signature).into_owned(),
            1 => String::new(),
            _ => self.signature(&header, &message),
        };
        Some(format!("{message}.{signature}").into_bytes())
    }

    fn attempt(&self, input: &[u8]) -> String {
        let Ok(token) = std::str::from_utf8(input) else { return "not a text".to_owned() };
        let answer = (self.ask)(self, token);
        let read = Compact::parse(token)
            .and_then(|compact| compact.members().map(|members| (compact, members)));
        let (compact, members) = match read {
            Ok(read) => read,
            Err(rejection) => {
                assert!(answer.is_err(), "{token} is somebody's and cannot be read");
                return format!("unread: {rejection:?}");
            }
        };
        assert_eq!(format!("{}.{}", compact.message, compact.signature), token);
        let mut parts = token.split('.').map(str::as_bytes);
        let header = read_elsewhere(parts.next().unwrap());
        let claims = read_elsewhere(parts.next().unwrap());
        let signature = parts.next().unwrap();
        let bytes = BASE64URL_NOPAD.decode(signature).unwrap();
        assert_eq!(BASE64URL_NOPAD.encode(&bytes).as_bytes(), signature, "has another spelling");
        assert!(agree(&Json::Object(members), &claims), "{token} has two readings");
        let (kid, typ) = (&compact.header.kid, &compact.header.typ);
        assert_eq!(kid.as_deref(), header["kid"].as_str(), "{token}");
        assert_eq!(typ.as_deref(), header["typ"].as_str(), "{token}");
        match answer {
            Ok(principal) => {
                self.holds(token, [&header, &claims], &principal);
                let (issuer, count) = (&principal.issuer, principal.claims.len().ilog2());
                format!("accepted: {issuer}, {} {} {count}", kid.is_some(), typ.is_some())
            }
            Err(rejection) => format!("refused: {rejection:?}"),
        }
    }
}

fn ours(tokens: &Tokens, token: &str) -> Result<Principal, Rejection> {
    tokens.runtime.block_on(tokens.authenticator.authenticate(token))
}

#[test]
fn a_token_has_one_reading_and_is_nobodys_that_nobody_signed() {
    let report = fuzz::run(&Tokens::new(ours));
    for place in [
        "accepted: ci",
        "accepted: github",
        "refused: BadSignature",
        "refused: WrongAudience",
        "unread: AlgorithmRefused",
        "unread: Malformed",
    ] {
        assert!(report.reached(place), "{place}: {report:?}");
    }
}

/// Takes every signature for a good one.
fn unsigned(tokens: &Tokens, token: &str) -> Result<Principal, Rejection> {
    let message = Compact::parse(token)?.message;
    let header = message.split('.').next().unwrap_or_default();
    let header = BASE64URL_NOPAD.decode(header.as_bytes()).unwrap();
    ours(tokens, &format!("{message}.{}", tokens.signature(&header, message)))
}

/// Takes every good token for one for us.
fn anybodys(tokens: &Tokens, token: &str) -> Result<Principal, Rejection> {
    let answer = ours(tokens, token);
    if answer != Err(Rejection::WrongAudience) {
        return answer;
    }
    let claims = token.split('.').nth(1).unwrap_or_default();
    let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap();
    let mut claims: Value = serde_json::from_slice(&claims).unwrap();
    claims["aud"] = json!(AUDIENCE);
    ours(tokens, &tokens.ed25519.token(HEADER, &claims.to_string()))
}

#[test]
fn a_broker_that_verifies_no_signature_or_takes_any_audience_is_found() {
    let planted: [(Ask, &str); 2] = [(unsigned, "nobody signed"), (anybodys, "for somebody else")];
    for (ask, expected) in planted {
        let found = fuzz::finding(&Tokens::new(ask)).unwrap_or_default();
        assert!(found.contains(expected), "{expected}: {found}");
    }
}
