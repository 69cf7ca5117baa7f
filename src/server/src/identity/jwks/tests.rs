//! Which keys are good enough, and that a bad one harms no other.

mod fuzz;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::{super::tests::kit::Signer, JwksError, KeyFault, KeySet, strength};

fn set_of(keys: &[Value]) -> Result<KeySet, JwksError> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

fn with(mut jwk: Value, name: &str, value: impl Into<Value>) -> Value {
    jwk[name] = value.into();
    jwk
}

/// Line 39, and line 35 where a key is looked at: each is left out for its own reason, and
/// the good one beside it stays.
#[test]
fn a_key_that_is_not_for_us_is_left_out_and_the_others_stay() {
    let (rsa, p256, ed) = (Signer::rsa(), Signer::es256(), Signer::ed25519());
    let good = Signer::es256().jwk("good");
    let cases = [
        (json!({"kty": "oct", "kid": "x", "k": "AAAA"}), KeyFault::Type),
        (json!({"kty": "DSA", "kid": "x"}), KeyFault::Type),
        (with(p256.jwk("x"), "kty", "RSA"), KeyFault::Malformed),
        (with(p256.jwk("x"), "d", "AAAA"), KeyFault::Private),
        (with(ed.jwk("x"), "d", "AAAA"), KeyFault::Private),
        (with(rsa.jwk("x"), "p", "AAAA"), KeyFault::Private),
        (with(p256.jwk("x"), "use", "enc"), KeyFault::Use),
        (with(p256.jwk("x"), "use", json!(["sig"])), KeyFault::Use),
        (with(p256.jwk("x"), "key_ops", json!(["sign"])), KeyFault::Use),
        (with(p256.jwk("x"), "key_ops", json!([])), KeyFault::Use),
        (with(p256.jwk("x"), "key_ops", "verify"), KeyFault::Use),
        (with(p256.jwk("x"), "crv", "P-521"), KeyFault::Curve),
        (with(p256.jwk("x"), "crv", "secp256k1"), KeyFault::Curve),
        (with(ed.jwk("x"), "crv", "Ed448"), KeyFault::Curve),
        (with(ed.jwk("x"), "crv", "X25519"), KeyFault::Curve),
        (with(p256.jwk("x"), "crv", "P-384"), KeyFault::Malformed),
        (with(p256.jwk("x"), "x", "AAAA"), KeyFault::Malformed),
        (with(p256.jwk("x"), "x", json!(1)), KeyFault::Malformed),
        (with(ed.jwk("x"), "x", "AAAA"), KeyFault::Malformed),
        (with(rsa.jwk("x"), "n", "A+/="), KeyFault::Malformed),
        (with(p256.jwk("x"), "alg", "ES384"), KeyFault::Algorithm),
        (with(p256.jwk("x"), "alg", "HS256"), KeyFault::Algorithm),
        (with(p256.jwk("x"), "alg", "none"), KeyFault::Algorithm),
        (with(rsa.jwk("x"), "alg", "RSA-OAEP"), KeyFault::Algorithm),
        (with(p256.jwk("x"), "alg", json!(null)), KeyFault::Algorithm),
        (with(p256.jwk("x"), "kid", json!(1)), KeyFault::Malformed),
        (with(p256.jwk("x"), "kid", "k".repeat(257)), KeyFault::Malformed),
        (json!("x"), KeyFault::Malformed),
        (json!({"kid": "x"}), KeyFault::Malformed),
    ];
    for (bad, fault) in cases {
        let set = set_of(&[bad.clone(), good.clone()]).unwrap();
        assert_eq!(set.faults(), [fault], "{bad}");
        assert_eq!(set.len(), 1, "{bad}");
        assert!(set.select(Some("good")).is_ok(), "{bad}");
        assert!(set.select(Some("x")).is_err(), "{bad}");
    }
    let fine = [
        with(p256.jwk("1"), "use", "sig"),
        with(p256.jwk("2"), "key_ops", json!(["sign", "verify"])),
        with(rsa.jwk("3"), "alg", "PS512"),
        with(ed.jwk("4"), "x5c", json!(["MIIB"])),
    ];
    let set = set_of(&fine).unwrap();
    assert_eq!((set.len(), set.faults().len()), (4, 0));
}

/// Line 39: of two keys with one `kid` neither is meant.
#[test]
fn keys_with_one_kid_are_left_out_together() {
    let (one, two, three) = (Signer::es256(), Signer::es256(), Signer::es256());
    let set = set_of(&[one.jwk("same"), two.jwk("same"), three.jwk("other")]).unwrap();
    assert_eq!(set.faults(), [KeyFault::DuplicateKid, KeyFault::DuplicateKid]);
    assert!(set.select(Some("same")).is_err());
    assert!(set.select(Some("other")).is_ok());
    // An encryption key of that name is no rival.
    let set = set_of(&[one.jwk("same"), with(two.jwk("same"), "use", "enc")]).unwrap();
    assert!(set.select(Some("same")).is_ok());
}

/// Line 40.
#[test]
fn a_set_out_of_bounds_or_out_of_shape_is_refused() {
    let mut keys: Vec<Value> = (0..100).map(|_| json!({"kty": "oct"})).collect();
    assert!(set_of(&keys).is_ok());
    keys.push(json!({"kty": "oct"}));
    assert_eq!(set_of(&keys).unwrap_err(), JwksError::TooManyKeys);
    let padded = |len: usize| {
        let text = r#"{"keys":[]}"#;
        format!("{text}{}", " ".repeat(len - text.len())).into_bytes()
    };
    assert!(KeySet::parse(&padded(512 * 1024)).is_ok());
    assert_eq!(KeySet::parse(&padded(512 * 1024 + 1)).unwrap_err(), JwksError::TooLarge);
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, r#"{"keys":[]}x"#] {
        let error = KeySet::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(error, JwksError::Malformed { .. }), "{text}");
    }
}

fn rsa_key(n: &[u8], e: &[u8]) -> Value {
    let base64 = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    json!({"kty": "RSA", "kid": "x", "n": base64(n), "e": base64(e)})
}

/// Line 35.
#[test]
fn rsa_keys_that_are_short_or_easy_are_left_out() {
    let jwk = Signer::rsa().jwk("x");
    let n = BASE64URL_NOPAD.decode(jwk["n"].as_str().unwrap().as_bytes()).unwrap();
    let fault = |n: &[u8], e: &[u8]| set_of(&[rsa_key(n, e)]).unwrap().faults().to_vec();
    assert_eq!(fault(&n, &[1, 0, 1]), []);
    // Some issuers leave a zero before the modulus.
    assert_eq!(fault(&[&[0], n.as_slice()].concat(), &[1, 0, 1]), []);
    let exponents: [&[u8]; 9] = [
        &[],
        &[0],
        &[1],
        &[2],
        &[3],
        &[0xff, 0xff],
        &[1, 0, 0],
        &[2, 0, 0, 0, 1],
        &[1, 0, 0, 0, 0, 0, 0, 0, 1],
    ];
    for e in exponents {
        assert_eq!(fault(&n, e), [KeyFault::Weak], "{e:?}");
    }
    let mut even = n.clone();
    *even.last_mut().unwrap() &= 0xfe;
    // 2^2048 - 1 is a multiple of 3, and its twin with a bit less is not 2048 bits long.
    let threes = vec![0xff; 256];
    for weak in [&n[..128], &n[1..], &[], &[0, 0], &even, &threes, &[n.as_slice(); 5].concat()] {
        assert_eq!(fault(weak, &[1, 0, 1]), [KeyFault::Weak], "{} bytes", weak.len());
    }
}

/// Line 35: the key of the vector is long and odd enough, and still broken (CVE-2017-15361).
#[test]
fn rsa_keys_with_the_roca_fingerprint_are_left_out() {
    let vectors: Value =
        serde_json::from_str(include_str!("../testdata/wycheproof/json_web_key_test.json"))
            .unwrap();
    let groups = vectors["testGroups"].as_array().unwrap();
    let group = groups.iter().find(|group| group["comment"] == "jws_rsa_roca_key").unwrap();
    let jwk = &group["public"]["keys"][0];
    assert_eq!(set_of(std::slice::from_ref(jwk)).unwrap().faults(), [KeyFault::Weak]);
    // A modulus beside it, of the same length, has nothing of that: the fingerprint alone
    // made it weak.
    let mut n = BASE64URL_NOPAD.decode(jwk["n"].as_str().unwrap().as_bytes()).unwrap();
    let passes = (0..=u8::MAX).any(|last| {
        *n.last_mut().unwrap() = last;
        strength::rsa_is_strong(&n, &[1, 0, 1])
    });
    assert!(passes);
}

/// Line 36: under such a key anyone signs. The forgery is made here, and ring takes it.
#[test]
fn ed25519_keys_of_small_order_are_left_out() {
    use ring::signature::{ED25519, UnparsedPublicKey};
    let identity = {
        let mut point = [0; 32];
        point[0] = 1;
        point
    };
    for small in strength::SMALL_ORDER {
        for sign in [0x00, 0x80] {
            let mut key = small;
            key[31] |= sign;
            assert!(!strength::ed25519_is_strong(&key), "{key:x?}");
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64URL_NOPAD.encode(&key)});
            assert_eq!(set_of(&[jwk]).unwrap().faults(), [KeyFault::Weak]);
        }
        // R = 0·B, S = 0: holds for every message whose hash is a multiple of the key's order.
        let forged = [identity, [0; 32]].concat();
        let public = UnparsedPublicKey::new(&ED25519, small);
        let holds = (0..200_u8).any(|message| public.verify(&[message], &forged).is_ok());
        assert!(holds, "not a point of small order: {small:x?}");
    }
    let mut above = [0xff; 32];
    above[31] = 0x7f;
    for low in 0xed..=0xff {
        above[0] = low;
        assert!(!strength::ed25519_is_strong(&above), "a second encoding of {}", low - 0xed);
    }
    let Signer::Ed(pair) = Signer::ed25519() else { panic!("an Ed25519 key") };
    let key = ring::signature::KeyPair::public_key(&pair).as_ref().try_into().unwrap();
    assert!(strength::ed25519_is_strong(&key));
}
