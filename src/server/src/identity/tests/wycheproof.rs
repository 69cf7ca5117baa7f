//! Project Wycheproof's vectors, all of them, through our own reader and keys.
//!
//! A vector that we refuse although it is valid must be in a class that is named here with
//! its reason, and every class must be met, so that none outlives its use.

use std::collections::BTreeMap;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};

use crate::identity::{Algorithm, KeySet, Rejection, install_crypto, preparse::Compact};

fn vectors(text: &str) -> Value {
    install_crypto();
    serde_json::from_str(text).unwrap()
}

/// What is left of `authenticate` without claims, which these payloads have not.
fn verify(jwks: &Value, token: &str) -> Result<(), Rejection> {
    let compact = Compact::parse(token)?;
    let set = KeySet::parse(jwks.to_string().as_bytes()).unwrap();
    let key = set.select(compact.header.kid.as_deref())?;
    key.verify(compact.header.algorithm, compact.message, compact.signature)
}

/// Why a valid vector may be refused by us.
fn exception(key: &Value, token: &str) -> Option<&'static str> {
    let mut parts = token.split('.');
    let header = parts.next().and_then(|part| BASE64URL_NOPAD.decode(part.as_bytes()).ok());
    let Some(header) = header.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()) else {
        return Some("base64 with foreign characters: one spelling only");
    };
    let payload = parts.next().unwrap_or_default();
    match (key["kty"].as_str(), key["alg"].as_str(), header["alg"].as_str()) {
        (Some("oct"), ..) => Some("symmetric keys are never accepted"),
        (_, Some("ES521"), _) => Some("P-521 is not offered by ring"),
        (_, Some("PS256"), Some("PS384")) => Some("the key is for another algorithm"),
        _ if payload.is_empty() => Some("an empty payload holds no claims"),
        _ => None,
    }
}

fn run(file: &str, is_set: bool) -> (usize, usize, BTreeMap<&'static str, usize>) {
    let (mut accepted, mut refused, mut exceptions) = (0, 0, BTreeMap::new());
    for group in vectors(file)["testGroups"].as_array().unwrap() {
        let key = group.get("public").unwrap_or(&group["private"]);
        let jwks = if is_set { key.clone() } else { json!({ "keys": [key] }) };
        for test in group["tests"].as_array().unwrap() {
            let id = &test["tcId"];
            let token = test["jws"].as_str().unwrap();
            let answer = verify(&jwks, token);
            match (test["result"].as_str().unwrap(), answer) {
                ("valid", Ok(())) => accepted += 1,
                ("invalid", Err(_)) => refused += 1,
                ("valid", Err(why)) => {
                    let reason = exception(&jwks["keys"][0], token);
                    let reason = reason.unwrap_or_else(|| panic!("{id} is valid, but {why}"));
                    *exceptions.entry(reason).or_default() += 1;
                }
                (result, answer) => panic!("{id} is {result}, but {answer:?}"),
            }
        }
    }
    (accepted, refused, exceptions)
}

#[test]
fn json_web_signatures() {
    let file = include_str!("../testdata/wycheproof/json_web_signature_test.json");
    let (accepted, refused, exceptions) = run(file, false);
    assert_eq!(
        exceptions,
        BTreeMap::from([
            ("an empty payload holds no claims", 6),
            ("P-521 is not offered by ring", 2),
            ("base64 with foreign characters: one spelling only", 1),
            ("symmetric keys are never accepted", 9),
            ("the key is for another algorithm", 2),
        ])
    );
    assert_eq!((accepted, refused), (26, 355));
    assert_eq!(accepted + refused + exceptions.values().sum::<usize>(), 401);
}

#[test]
fn json_web_keys() {
    let file = include_str!("../testdata/wycheproof/json_web_key_test.json");
    let (accepted, refused, exceptions) = run(file, true);
    assert_eq!(exceptions, BTreeMap::from([("symmetric keys are never accepted", 4)]));
    assert_eq!((accepted, refused), (1, 21));
}

/// The group's public key. Some groups have none as a JWK: those are made from the point.
fn jwk_of(group: &Value) -> Value {
    if let Some(jwk) = group.get("publicKeyJwk").or(group.get("keyJwk")) {
        let mut jwk = jwk.clone();
        jwk.as_object_mut().unwrap().remove("alg");
        return jwk;
    }
    let point = group["publicKey"]["uncompressed"].as_str().unwrap();
    let point = HEXLOWER.decode(point.as_bytes()).unwrap();
    let (x, y) = point[1..].split_at(point.len() / 2);
    let curve = if x.len() == 32 { "P-256" } else { "P-384" };
    let base64 = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    json!({"kty": "EC", "crv": curve, "x": base64(x), "y": base64(y)})
}

/// Bare signatures: groups of a public key, tests of message and signature in hex. Returns
/// how many signatures held, and how many keys were not good enough.
fn run_bare(file: &str, algorithm: Algorithm) -> (usize, usize) {
    let (mut accepted, mut weak) = (0, 0);
    for group in vectors(file)["testGroups"].as_array().unwrap() {
        let jwk = jwk_of(group);
        let set = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
        if set.is_empty() {
            weak += group["tests"].as_array().unwrap().len();
            continue;
        }
        let key = set.select(jwk["kid"].as_str()).unwrap();
        for test in group["tests"].as_array().unwrap() {
            let hex =
                |name: &str| HEXLOWER.decode(test[name].as_str().unwrap().as_bytes()).unwrap();
            let signature = BASE64URL_NOPAD.encode(&hex("sig"));
            let answer = key.verify_bytes(algorithm, &hex("msg"), &signature);
            // «acceptable» is what a lenient reader may take; we do not.
            let valid = test["result"] == "valid";
            assert_eq!(answer.is_ok(), valid, "{}: {}", test["tcId"], test["comment"]);
            accepted += usize::from(valid);
        }
    }
    (accepted, weak)
}

#[test]
fn ecdsa_signatures_on_p256_and_p384() {
    let file = include_str!("../testdata/wycheproof/ecdsa_secp256r1_sha256_p1363_test.json");
    assert_eq!(run_bare(file, Algorithm::Es256), (173, 0));
    let file = include_str!("../testdata/wycheproof/ecdsa_secp384r1_sha384_p1363_test.json");
    assert_eq!(run_bare(file, Algorithm::Es384), (193, 0));
}

#[test]
fn ed25519_signatures() {
    let file = include_str!("../testdata/wycheproof/ed25519_test.json");
    assert_eq!(run_bare(file, Algorithm::EdDsa), (88, 0));
}

#[test]
fn rsa_signatures() {
    // Two vectors have a key with exponent 3, which is left out at load.
    let file = include_str!("../testdata/wycheproof/rsa_signature_2048_sha256_test.json");
    assert_eq!(run_bare(file, Algorithm::Rs256), (7, 2));
    let file = include_str!("../testdata/wycheproof/rsa_pss_2048_sha256_mgf1_32_test.json");
    assert_eq!(run_bare(file, Algorithm::Ps256), (63, 0));
}
