//! The fuzz target `jwks`: key sets as somebody could publish them.

use std::collections::BTreeSet;

use ring::signature::Ed25519KeyPair;

use super::{
    super::{Key, PRIVATE},
    *,
};
use crate::{
    fuzz::{self, Dice, Node, Target},
    identity::{Rejection, install_crypto},
};

/// The generators of P-256 and P-384, whose private key everybody knows, as x and y.
const P256: [&str; 2] =
    ["axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY", "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"];
const P384: [&str; 2] = [
    "qofKIr6LBTeOscce8yCtdG4dO2KLp5uYWfdB4IJUKjhVAvJdv1UpbDpUXjhydgq3",
    "NhfeSpYmLG9dnpi_kpLcKfj0Hb0omhR86doxE7XwuMAKYLHOHX6BnXpDHXyQ6g5f",
];

fn on_curve(curve: &str, [x, y]: [&str; 2], kid: &str) -> Value {
    json!({"kty": "EC", "crv": curve, "kid": kid, "x": x, "y": y})
}

fn ed25519(kid: &str) -> Value {
    Signer::Ed(Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()).jwk(kid)
}

/// The keys of the vectors, good and bad.
fn published() -> Vec<Value> {
    let vectors: Value =
        serde_json::from_str(include_str!("../../testdata/wycheproof/json_web_key_test.json"))
            .unwrap();
    let groups = vectors["testGroups"].as_array().unwrap();
    groups.iter().map(|group| group["public"].clone()).filter(Value::is_object).collect()
}

fn text<'k>(key: &'k Value, name: &str) -> Option<&'k str> {
    key.get(name)?.as_str()
}

fn bytes(key: &Value, name: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text(key, name)?.as_bytes()).ok()
}

/// What must be true at least of a key that is used, in other words than the reader's.
fn is_public_and_large(key: &Value) -> bool {
    let members = key.as_object().unwrap();
    let len = |name| bytes(key, name).map(|bytes| bytes.len());
    let large = match (text(key, "kty"), text(key, "crv")) {
        (Some("RSA"), _) => {
            let integer = |name| {
                let hex = data_encoding::HEXLOWER.encode(&bytes(key, name).unwrap_or_default());
                hex.trim_start_matches('0').to_owned()
            };
            let (n, e) = (integer("n"), integer("e"));
            let odd = |hex: &str| hex.ends_with(|last: char| "13579bdf".contains(last));
            let e_value = u64::from_str_radix(&e, 16).unwrap_or(0);
            // A modulus of 2048 bits has 512 digits, the first of them 8 or more.
            let long = n.len() > 512 || n.len() == 512 && n.as_str() >= "8";
            long && n.len() <= 2_048 && odd(&n) && odd(&e) && e_value >= 65_537
        }
        (Some("EC"), Some("P-256")) => (len("x"), len("y")) == (Some(32), Some(32)),
        (Some("EC"), Some("P-384")) => (len("x"), len("y")) == (Some(48), Some(48)),
        (Some("OKP"), Some("Ed25519")) => len("x") == Some(32),
        _ => false,
    };
    let purpose = members.get("use").is_none_or(|purpose| purpose == "sig");
    large && purpose && !PRIVATE.iter().any(|name| members.contains_key(*name))
}

/// Whether a key of that type signs so.
fn fits(key: &Value, algorithm: &str) -> bool {
    let named = text(key, "alg").is_none_or(|alg| alg == algorithm || alg == "Ed25519");
    let typed = match text(key, "kty") {
        Some("RSA") => algorithm.starts_with("RS") || algorithm.starts_with("PS"),
        Some("EC") => algorithm.starts_with("ES"),
        Some("OKP") => algorithm == "EdDSA",
        _ => false,
    };
    named && typed
}

/// The key is one of `published`, and no signature that nobody made holds under it.
fn holds(key: &Key, published: &[&Value]) {
    let fits_all = |candidate: &Value| {
        key.algorithms.iter().all(|algorithm| fits(candidate, algorithm.as_str()))
    };
    let known = published.iter().copied().any(fits_all);
    assert!(known, "{:?} is of no key that may be used: {published:?}", key.algorithms);
    assert!(!key.algorithms.is_empty());
    for algorithm in &key.algorithms {
        for signature in ["", "AAAA", &"AAAA".repeat(16), &"____".repeat(86)] {
            let verified = key.verify(*algorithm, "message", signature);
            assert_eq!(verified, Err(Rejection::BadSignature), "{published:?}");
        }
    }
}

/// Reads a set.
type Read = fn(&[u8]) -> Result<KeySet, JwksError>;

struct Sets {
    /// Ours, or one with a planted weakness.
    read: Read,
}

impl Target for Sets {
    const NAME: &'static str = "jwks";
    const ROUNDS: u64 = 1_000;

    fn corpus(&self) -> Vec<Vec<u8>> {
        let (rsa, p256) = (Signer::rsa().jwk("r"), on_curve("P-256", P256, "p"));
        let mut sets = vec![
            json!({"keys": [rsa, p256, ed25519("e"), on_curve("P-384", P384, "q")]}),
            json!({"keys": [with(p256.clone(), "use", "sig"), with(rsa.clone(), "alg", "PS256")]}),
            json!({"keys": [with(p256.clone(), "key_ops", json!(["verify"])), ed25519("p")]}),
            json!({"keys": [with(p256.clone(), "d", "AAAA"), {"kty": "oct", "k": "AAAA"}]}),
            json!({"keys": [with(p256.clone(), "use", "enc"), with(ed25519("e"), "use", "enc")]}),
            json!({"keys": [{"kty": "RSA", "kid": "s", "n": "AQAB", "e": "AQAB"}]}),
            json!({"keys": [with(rsa, "d", "AAAA"), on_curve("P-256", P384, "x")]}),
            json!({"keys": vec![p256; 100]}),
            json!({"keys": vec![json!({}); 101]}),
            json!({"keys": [], "spiffe_sequence": 1}),
            json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AQ".repeat(21) + "A"}]}),
        ];
        sets.extend(published());
        sets.iter().map(|set| set.to_string().into_bytes()).collect()
    }

    fn reshaped(&self, input: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
        Node::changed(input, dice)
    }

    fn attempt(&self, input: &[u8]) -> String {
        let set = match (self.read)(input) {
            Ok(set) => set,
            Err(error) => return format!("{error:?}"),
        };
        assert!(Node::read(input).unwrap().is_unambiguous(), "has two readings");
        let document: Value = serde_json::from_slice(input).unwrap();
        let keys = document["keys"].as_array().unwrap();
        assert!(keys.len() <= 100);
        assert!(set.len() <= keys.len(), "{} of {} keys", set.len(), keys.len());
        assert_eq!(set.len() + set.faults().len(), keys.len(), "each is used or has its fault");
        let with_kid = |kid: Option<&str>| -> Vec<&Value> {
            let such = |key: &&Value| key.is_object() && text(key, "kid") == kid;
            keys.iter().filter(such).filter(|key| is_public_and_large(key)).collect()
        };
        for (kid, key) in &set.named {
            holds(key, &with_kid(Some(kid)));
        }
        assert!(set.unnamed.len() <= with_kid(None).len());
        for key in &set.unnamed {
            holds(key, &with_kid(None));
        }
        assert_eq!(set.select(None).is_ok(), set.len() == 1);
        let faults: BTreeSet<String> =
            set.faults().iter().map(|fault| format!("{fault:?}")).collect();
        format!("{} used, {faults:?}", set.len().min(4))
    }
}

#[test]
fn a_set_has_public_keys_that_are_good_enough_or_none() {
    install_crypto();
    let report = fuzz::run(&Sets { read: KeySet::parse });
    for place in ["4 used", "0 used", "Malformed", "TooManyKeys"] {
        assert!(report.reached(place), "{place}: {report:?}");
    }
}

/// The set as if none of its keys had these members.
fn without(names: &[&str], input: &[u8]) -> Result<KeySet, JwksError> {
    let unreadable = JwksError::Malformed { why: "unreadable" };
    KeySet::parse(input)?;
    let mut document: Value = serde_json::from_slice(input).map_err(|_| unreadable)?;
    for key in document["keys"].as_array_mut().into_iter().flatten() {
        if let Some(members) = key.as_object_mut() {
            members.retain(|name, _| !names.contains(&name.as_str()));
        }
    }
    KeySet::parse(document.to_string().as_bytes())
}

#[test]
fn a_reader_that_takes_private_keys_or_keys_for_something_else_or_counts_wrong_is_found() {
    install_crypto();
    let planted: [(Read, &str); 3] = [
        (|input| without(&["d"], input), "is of no key that may be used"),
        (|input| without(&["use"], input), "is of no key that may be used"),
        (
            |input| {
                let set = KeySet::parse(input)?;
                Ok(KeySet { unnamed: set.named.values().cloned().collect(), ..set })
            },
            "8 of 4 keys",
        ),
    ];
    for (read, expected) in planted {
        let found = fuzz::finding(&Sets { read }).unwrap_or_default();
        assert!(found.contains(expected), "{expected}: {found}");
    }
}
