//! The name of a key that follows from the key itself (RFC 7638).
//!
//! Invariant: one key has one thumbprint. Only the required members count, in the order of their
//! names and without white space, and each of them has one spelling.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use ring::digest;

use super::json::Json;

/// The SHA-256 thumbprint of a public key that was read from this JWK; none of what is none.
pub(crate) fn thumbprint(jwk: &Json) -> Option<[u8; 32]> {
    let Json::Object(members) = jwk else { return None };
    let text = |name: &str| members.get(name).and_then(Json::text);
    let required: &[&str] = match text("kty")? {
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        // A number with a zero before it would be the same key under another name.
        "RSA" if ["e", "n"].into_iter().all(|name| text(name).is_some_and(is_shortest)) => {
            &["e", "kty", "n"]
        }
        _ => return None,
    };
    let members: Option<BTreeMap<&str, &str>> =
        required.iter().map(|name| Some((*name, text(name)?))).collect();
    let json = serde_json::to_vec(&members?).ok()?;
    digest::digest(&digest::SHA256, &json).as_ref().try_into().ok()
}

fn is_shortest(number: &str) -> bool {
    let bytes = BASE64URL_NOPAD.decode(number.as_bytes());
    bytes.is_ok_and(|bytes| bytes.first().is_some_and(|byte| *byte != 0))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::identity::json::{self as reader, Limits};

    const LIMITS: Limits = Limits { depth: 2, members: 16, elements: 4, text_len: 1_024 };

    fn of(jwk: &Value) -> Option<String> {
        let members = reader::object(jwk.to_string().as_bytes(), LIMITS).unwrap();
        thumbprint(&Json::Object(members)).map(|hash| BASE64URL_NOPAD.encode(&hash))
    }

    /// RFC 7638, section 3.1.
    fn published() -> Value {
        json!({
            "kty": "RSA",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1\
                  L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4\
                  QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbO\
                  pbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csF\
                  Cur-kEgU8awapJzKnqDKgw",
            "e": "AQAB",
            "alg": "RS256",
            "kid": "2011-04-29",
        })
    }

    #[test]
    fn the_published_key_has_the_published_thumbprint() {
        let expected = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
        assert_eq!(of(&published()).as_deref(), Some(expected));
    }

    /// RFC 9449, sections 4.1 and 6.1.
    #[test]
    fn the_published_proofs_key_has_the_published_thumbprint() {
        let key = json!({
            "kty": "EC", "crv": "P-256",
            "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
            "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        });
        let expected = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
        assert_eq!(of(&key).as_deref(), Some(expected));
        let mut more = key.clone();
        more["use"] = json!("sig");
        assert_eq!(of(&more), of(&key), "what is not required does not count");
        let mut other = key;
        other["crv"] = json!("P-384");
        assert_ne!(of(&other).as_deref(), Some(expected));
    }

    /// RFC 8037, appendix A.3.
    #[test]
    fn the_published_ed25519_key_has_the_published_thumbprint() {
        let key = json!({
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        });
        let expected = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
        assert_eq!(of(&key).as_deref(), Some(expected));
    }

    #[test]
    fn what_has_a_second_spelling_or_is_no_public_key_has_none() {
        let mut padded = published();
        let exponent = BASE64URL_NOPAD.encode(&[0, 1, 0, 1]);
        padded["e"] = json!(exponent);
        let mut without = published();
        without.as_object_mut().unwrap().remove("n");
        let mut number = published();
        number["n"] = json!(5);
        for jwk in [padded, without, number, json!({ "kty": "oct", "k": "AA" }), json!({})] {
            assert_eq!(of(&jwk), None, "{jwk}");
        }
    }
}
