//! Keys, algorithms and signatures, made and broken one by one.

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::kit::{
    AUDIENCE, Desk, FakeClock, HEADER, ISSUER, NOW, Signer, claims, der, fixed, with,
};
use crate::identity::{Algorithm, Authenticator, IssuerConfig, Rejection};

fn desk_of(keys: &[Value]) -> Authenticator {
    let rules = IssuerConfig::new("ci", ISSUER, AUDIENCE);
    Authenticator::with_sources(vec![(rules, fixed(keys))], FakeClock::new()).unwrap()
}

fn header(alg: &str, kid: &str) -> String {
    json!({"alg": alg, "kid": kid}).to_string()
}

#[tokio::test]
async fn every_algorithm_verifies_with_its_key() {
    let (rsa, p256, p384, ed) =
        (Signer::rsa(), Signer::es256(), Signer::es384(), Signer::ed25519());
    let desk = desk_of(&[rsa.jwk("rsa"), p256.jwk("p256"), p384.jwk("p384"), ed.jwk("ed")]);
    for (signer, kid, alg) in [
        (&rsa, "rsa", "RS256"),
        (&rsa, "rsa", "RS384"),
        (&rsa, "rsa", "RS512"),
        (&rsa, "rsa", "PS256"),
        (&rsa, "rsa", "PS384"),
        (&rsa, "rsa", "PS512"),
        (&p256, "p256", "ES256"),
        (&p384, "p384", "ES384"),
        (&ed, "ed", "EdDSA"),
        (&ed, "ed", "Ed25519"),
    ] {
        let token = signer.token(&header(alg, kid), &claims().to_string());
        assert!(desk.authenticate(&token).await.is_ok(), "{alg}");
        let mut forged = token.into_bytes();
        let at = forged.len() - 10;
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        assert_eq!(desk.authenticate(&forged).await, Err(Rejection::BadSignature), "{alg}");
    }
}

/// Lines 3, 4.
#[tokio::test]
async fn a_token_cannot_choose_another_algorithm_than_the_keys() {
    let rsa = Signer::rsa();
    let (p256, p384, ed) = (Signer::es256(), Signer::es384(), Signer::ed25519());
    let mut rs256 = rsa.jwk("rs256");
    rs256["alg"] = json!("RS256");
    let desk = desk_of(&[rs256, p256.jwk("p256"), p384.jwk("p384"), ed.jwk("ed")]);
    for (signer, kid, alg) in [
        (&rsa, "rs256", "PS256"),
        (&rsa, "rs256", "RS512"),
        (&rsa, "p256", "RS256"),
        (&p384, "p384", "ES256"),
        (&p256, "p256", "ES384"),
        (&p256, "rs256", "ES256"),
        (&p256, "ed", "ES256"),
        (&ed, "p256", "EdDSA"),
    ] {
        let token = signer.token(&header(alg, kid), &claims().to_string());
        let answer = desk.authenticate(&token).await;
        assert_eq!(answer, Err(Rejection::AlgorithmMismatch), "{kid} as {alg}");
    }
    let good = rsa.token(&header("RS256", "rs256"), &claims().to_string());
    assert!(desk.authenticate(&good).await.is_ok());
}

#[tokio::test]
async fn an_algorithm_that_the_issuer_does_not_use_is_refused() {
    let ed = Signer::ed25519();
    let mut rules = IssuerConfig::new("ci", ISSUER, AUDIENCE);
    rules.algorithms = vec![Algorithm::Es256];
    let keys = fixed(&[ed.jwk("ed")]);
    let desk = Authenticator::with_sources(vec![(rules, keys)], FakeClock::new()).unwrap();
    let token = ed.token(&header("EdDSA", "ed"), &claims().to_string());
    assert_eq!(desk.authenticate(&token).await, Err(Rejection::AlgorithmRefused));
    assert!(desk_of(&[ed.jwk("ed")]).authenticate(&token).await.is_ok());
}

const P256_ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

/// `order - s`, the other valid half of an ECDSA signature.
fn negated(s: &[u8]) -> Vec<u8> {
    let order = data_encoding::HEXLOWER.decode(P256_ORDER.as_bytes()).unwrap();
    let mut difference = vec![0; 32];
    let mut borrow = 0;
    for i in (0..32).rev() {
        let digit = i32::from(order[i]) - i32::from(s[i]) - borrow;
        borrow = i32::from(digit < 0);
        difference[i] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    difference
}

/// Line 33: both halves of an ECDSA signature hold, and both are one token to the replay
/// check. DER is refused.
#[tokio::test]
async fn a_changed_signature_that_still_holds_is_the_same_token() {
    let desk = Desk::new().await;
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove("jti");
    let token = desk.signer.token(HEADER, &claims.to_string());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    let (r, s) = signature.split_at(32);
    let signed = |signature: &[u8]| format!("{message}.{}", BASE64URL_NOPAD.encode(signature));
    let other = signed(&[r, &negated(s)].concat());
    assert_ne!(other, token);
    let (one, two) = (desk.ask(&token).await.unwrap(), desk.ask(&other).await.unwrap());
    assert_eq!(one.replay_key(), two.replay_key());

    let integer = |bytes: &[u8]| der(0x02, &[&[0], bytes].concat());
    let as_der = der(0x30, &[integer(r), integer(s)].concat());
    assert_eq!(desk.ask(&signed(&as_der)).await, Err(Rejection::BadSignature));
}

/// Line 34.
#[tokio::test]
async fn signatures_of_zero_or_the_order_are_refused() {
    let desk = Desk::new().await;
    let token = desk.signer.token(HEADER, &claims().to_string());
    let (message, good) = token.rsplit_once('.').unwrap();
    let good = BASE64URL_NOPAD.decode(good.as_bytes()).unwrap();
    let (r, s) = good.split_at(32);
    let zero = [0; 32];
    let order = data_encoding::HEXLOWER.decode(P256_ORDER.as_bytes()).unwrap();
    let above = [0xff; 32];
    for (r, s) in [
        (&zero[..], &zero[..]),
        (&zero, s),
        (r, &zero),
        (&order, s),
        (r, &order),
        (&order, &order),
        (&above, s),
        (r, &above),
        (&order, &zero),
    ] {
        let forged = format!("{message}.{}", BASE64URL_NOPAD.encode(&[r, s].concat()));
        assert_eq!(desk.ask(&forged).await, Err(Rejection::BadSignature), "{r:x?} {s:x?}");
    }
    for short in [&good[..63], &good[..1], &[&good[..], &[0]].concat()] {
        let forged = format!("{message}.{}", BASE64URL_NOPAD.encode(short));
        assert_eq!(desk.ask(&forged).await, Err(Rejection::BadSignature));
    }
}

/// Line 46: a forged token is reported as forged, whatever else is wrong with it.
#[tokio::test]
async fn a_forged_token_is_never_reported_as_merely_expired() {
    let desk = Desk::new().await;
    let mut expired = claims();
    expired["iat"] = json!(NOW - 1_000);
    expired["exp"] = json!(NOW - 500);
    for flawed in [expired.to_string(), with("aud", "other"), with("iat", NOW + 1_000)] {
        let genuine = desk.signer.token(HEADER, &flawed);
        assert_ne!(desk.ask(&genuine).await, Err(Rejection::BadSignature));
        assert!(desk.ask(&genuine).await.is_err());
        let forged = Signer::es256().token(HEADER, &flawed);
        assert_eq!(desk.ask(&forged).await, Err(Rejection::BadSignature));
    }
}

/// Line 50: what was signed decides, not what the header or another payload says.
#[tokio::test]
async fn a_payload_or_header_that_was_swapped_does_not_verify() {
    let desk = Desk::new().await;
    let one = desk.signer.token(HEADER, &claims().to_string());
    let two = desk.signer.token(HEADER, &with("sub", "repo:acme/admin"));
    let three = desk.signer.token(r#"{"alg":"ES256","kid":"k1"}"#, &claims().to_string());
    let part = |token: &str, index: usize| token.split('.').nth(index).unwrap().to_owned();
    let swapped = [
        format!("{}.{}.{}", part(&one, 0), part(&two, 1), part(&one, 2)),
        format!("{}.{}.{}", part(&three, 0), part(&one, 1), part(&one, 2)),
        format!("{}.{}.{}", part(&one, 0), part(&one, 1), part(&two, 2)),
    ];
    for token in swapped {
        assert_eq!(desk.ask(&token).await, Err(Rejection::BadSignature));
    }
}

/// The provider signs for the library too, and refuses shared secrets in both directions.
#[test]
fn the_library_signs_and_verifies_through_ring_and_never_with_a_secret() {
    use jsonwebtoken::{Algorithm as Jwa, DecodingKey, EncodingKey, crypto};
    use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair};

    crate::identity::install_crypto();
    let random = ring::rand::SystemRandom::new();
    let message = b"message";
    let es = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let p256 = EcdsaKeyPair::generate_pkcs8(es, &random).unwrap();
    let p256_pair = EcdsaKeyPair::from_pkcs8(es, p256.as_ref(), &random).unwrap();
    let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let ed_pair = Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap();
    let rsa = super::kit::rsa_der();
    let rsa_pair = ring::rsa::KeyPair::from_der(&rsa).unwrap();
    let keys = [
        (
            Jwa::ES256,
            EncodingKey::from_ec_der(p256.as_ref()),
            DecodingKey::from_ec_der(p256_pair.public_key().as_ref()),
        ),
        (
            Jwa::EdDSA,
            EncodingKey::from_ed_der(ed.as_ref()),
            DecodingKey::from_ed_der(ed_pair.public_key().as_ref()),
        ),
        (
            Jwa::RS256,
            EncodingKey::from_rsa_der(&rsa),
            DecodingKey::from_rsa_der(rsa_pair.public().as_ref()),
        ),
    ];
    for (algorithm, private, public) in &keys {
        let signature = crypto::sign(message, private, *algorithm).unwrap();
        assert!(crypto::verify(&signature, message, public, *algorithm).unwrap());
        assert!(!crypto::verify(&signature, b"other", public, *algorithm).unwrap());
        assert!(crypto::verify(&signature, message, public, Jwa::HS256).is_err());
        assert!(crypto::sign(message, private, Jwa::HS256).is_err());
    }
    let secret = DecodingKey::from_secret(b"secret");
    assert!(crypto::verify("AAAA", message, &secret, Jwa::HS256).is_err());
    assert!(crypto::sign(message, &EncodingKey::from_secret(b"secret"), Jwa::HS256).is_err());
    let crossed = crypto::verify("AAAA", message, &keys[0].2, Jwa::EdDSA);
    assert!(crossed.is_err(), "a key of another family");
}
