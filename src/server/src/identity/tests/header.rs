//! Size, shape and header: what is refused before any key is looked at.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::kit::{AUDIENCE, Desk, FakeClock, HEADER, ISSUER, Signer, claims, fixed, malformed};
use crate::identity::{
    Authenticator, IssuerConfig, KeySet, KeySource, KeysError, Rejection, TOKEN_LEN_MAX,
};

fn header_with(name: &str, value: impl Into<Value>) -> String {
    let mut header: Value = serde_json::from_str(HEADER).unwrap();
    header[name] = value.into();
    header.to_string()
}

/// Line 1.
#[tokio::test]
async fn alg_none_in_every_spelling_and_shape_is_refused() {
    let desk = Desk::new().await;
    for none in ["none", "None", "NONE", "nOnE", "", "es256", "ES256 ", "ES512", "ES256K"] {
        let answer = desk.ask_header(&header_with("alg", none)).await;
        assert_eq!(answer, Err(Rejection::AlgorithmRefused), "{none:?}");
    }
    for other in [json!(["ES256"]), json!(1), json!(null), json!({}), json!(true)] {
        let answer = desk.ask_header(&header_with("alg", other.clone())).await;
        assert_eq!(answer, malformed("`alg` is not a string"), "{other}");
    }
    let answer = desk.ask_header(r#"{"kid":"k1","typ":"JWT"}"#).await;
    assert_eq!(answer, malformed("`alg` is missing"));
}

/// Line 2: an HMAC whose secret is the public key in any of its forms.
#[tokio::test]
async fn a_public_key_is_never_a_shared_secret() {
    let desk = Desk::new().await;
    let jwk = desk.signer.jwk("k1");
    let x = data_encoding::BASE64URL_NOPAD.decode(jwk["x"].as_str().unwrap().as_bytes()).unwrap();
    for (alg, hmac) in [
        ("HS256", ring::hmac::HMAC_SHA256),
        ("HS384", ring::hmac::HMAC_SHA384),
        ("HS512", ring::hmac::HMAC_SHA512),
    ] {
        for secret in [jwk.to_string().into_bytes(), x.clone(), vec![]] {
            let base64 = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
            let header = header_with("alg", alg);
            let message = format!(
                "{}.{}",
                base64(header.as_bytes()),
                base64(claims().to_string().as_bytes())
            );
            let tag = ring::hmac::sign(&ring::hmac::Key::new(hmac, &secret), message.as_bytes());
            let token = format!("{message}.{}", base64(tag.as_ref()));
            assert_eq!(desk.ask(&token).await, Err(Rejection::AlgorithmRefused), "{alg}");
        }
    }
}

/// A source that must not be asked.
#[derive(Debug)]
struct Untouchable;

#[async_trait]
impl KeySource for Untouchable {
    async fn fetch(&self) -> Result<KeySet, KeysError> {
        panic!("the keys were asked for")
    }
}

/// Lines 5, 6, 8 to 11: the header cannot bring a key, name one elsewhere, or change what
/// the bytes mean, and nobody is asked for keys.
#[tokio::test]
async fn a_header_that_brings_keys_or_asks_for_extensions_is_refused_without_a_request() {
    let rules = IssuerConfig::new("ci", ISSUER, AUDIENCE);
    let source: Arc<dyn KeySource> = Arc::new(Untouchable);
    let clock = FakeClock::new();
    let authenticator = Authenticator::with_sources(vec![(rules, source)], clock).unwrap();
    let signer = Signer::es256();
    let key = "the header brings its own key";
    let extension = "the header asks for an extension";
    let unknown = "the header has an unknown member";
    for (name, value, why) in [
        ("jwk", signer.jwk("k1"), key),
        ("jku", json!("https://evil.example/jwks"), key),
        ("x5u", json!("https://evil.example/cert"), key),
        ("x5c", json!(["MIIB"]), key),
        ("x5t", json!("dGh1bWI"), "the header names a certificate"),
        ("x5t#S256", json!("dGh1bWI"), "the header names a certificate"),
        ("x5t", json!(["dGh1bWI"]), "`x5t` is not a printable string"),
        ("crit", json!(["exp"]), extension),
        ("crit", json!(["unknown"]), extension),
        ("crit", json!([]), extension),
        ("crit", json!(["b64", "b64"]), extension),
        ("b64", json!(false), extension),
        ("zip", json!("DEF"), extension),
        ("enc", json!("A256GCM"), extension),
        ("cty", json!("JWT"), extension),
        ("epk", json!({}), unknown),
        ("nonce", json!("n"), unknown),
        ("Alg", json!("none"), unknown),
    ] {
        let token = signer.token(&header_with(name, value), &claims().to_string());
        assert_eq!(authenticator.authenticate(&token).await, malformed(why), "{name}");
    }
    assert_eq!(authenticator.key_fetches()["ci"], 0);
}

/// Line 6, the twin: GitHub's tokens name a certificate; an issuer may be set to ignore it.
#[tokio::test]
async fn a_thumbprint_is_ignored_where_the_issuer_is_set_so() {
    let mut rules = IssuerConfig::new("ci", ISSUER, AUDIENCE);
    rules.ignore_x5t = true;
    let desk = Desk::with_rules(rules).await;
    assert!(desk.ask_header(&header_with("x5t", "dGh1bWI")).await.is_ok());
    assert!(desk.ask_header(&header_with("x5t#S256", "dGh1bWI")).await.is_ok());
    let answer = desk.ask_header(&header_with("x5c", json!(["MIIB"]))).await;
    assert_eq!(answer, malformed("the header brings its own key"));
}

/// Line 7.
#[tokio::test]
async fn a_kid_is_looked_up_and_nothing_else() {
    let desk = Desk::new().await;
    for kid in ["../../dev/null", "' OR 1=1--", "K1", "k1 ", "", "k"] {
        let answer = desk.ask_header(&header_with("kid", kid)).await;
        assert_eq!(answer, Err(Rejection::UnknownKey), "{kid:?}");
    }
    let long = "k".repeat(257);
    for kid in [json!("k1\0"), json!("k\n1"), json!("ké"), json!(["k1"]), json!(1), json!(long)] {
        let answer = desk.ask_header(&header_with("kid", kid.clone())).await;
        assert_eq!(answer, malformed("`kid` is not a printable string"), "{kid}");
    }
    // 10 kB go the same way, and 256 bytes are merely unknown.
    let answer = desk.ask_header(&header_with("kid", "k".repeat(10_000))).await;
    assert_eq!(answer, malformed("a string is too long"));
    let answer = desk.ask_header(&header_with("kid", "k".repeat(256))).await;
    assert_eq!(answer, Err(Rejection::UnknownKey));
}

/// Line 7, end: without a `kid` a single key is meant, and of two none.
#[tokio::test]
async fn a_missing_kid_means_the_only_key_or_none() {
    let desk = Desk::new().await;
    let bare = r#"{"alg":"ES256"}"#;
    assert!(desk.ask_header(bare).await.is_ok());
    let keys = fixed(&[desk.signer.jwk("k1"), Signer::es256().jwk("k2")]);
    let rules = IssuerConfig::new("ci", ISSUER, AUDIENCE);
    let two = Authenticator::with_sources(vec![(rules, keys)], FakeClock::new()).unwrap();
    let token = desk.signer.token(bare, &claims().to_string());
    assert_eq!(two.authenticate(&token).await, Err(Rejection::AmbiguousKey));
    let token = desk.signer.token(HEADER, &claims().to_string());
    assert!(two.authenticate(&token).await.is_ok());
}

/// Line 12.
#[tokio::test]
async fn a_token_of_another_type_is_refused_unless_the_issuer_has_that_type() {
    let desk = Desk::new().await;
    for typ in ["at+jwt", "logout+jwt", "dpop+jwt", "application/jwt", "jwt", ""] {
        let answer = desk.ask_header(&header_with("typ", typ)).await;
        assert_eq!(answer, Err(Rejection::WrongType), "{typ}");
    }
    let answer = desk.ask_header(&header_with("typ", json!(["JWT"]))).await;
    assert_eq!(answer, malformed("`typ` is not a printable string"));
    assert!(desk.ask_header(r#"{"alg":"ES256","kid":"k1"}"#).await.is_ok());

    let mut rules = IssuerConfig::new("ci", ISSUER, AUDIENCE);
    rules.types = vec!["JWT".into(), "at+jwt".into()];
    let desk = Desk::with_rules(rules).await;
    assert!(desk.ask_header(&header_with("typ", "at+jwt")).await.is_ok());
}

/// Line 27.
#[tokio::test]
async fn a_token_that_is_too_large_is_refused_before_it_is_read() {
    let desk = Desk::new().await;
    for huge in [".".repeat(1_000_000), "a".repeat(TOKEN_LEN_MAX + 1)] {
        assert_eq!(desk.ask(&huge).await, Err(Rejection::TooLarge));
    }
    let just = "a".repeat(TOKEN_LEN_MAX);
    assert_eq!(desk.ask(&just).await, malformed("not three parts"));
}

/// Lines 10, 31, 32.
#[tokio::test]
async fn only_three_parts_with_something_in_them_are_a_token() {
    let desk = Desk::new().await;
    let good = desk.signer.token(HEADER, &claims().to_string());
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("three parts") };
    let json = json!({
        "payload": payload,
        "signatures": [{"protected": header, "signature": signature}],
    });
    for shape in [
        String::new(),
        header.to_owned(),
        format!("{header}.{payload}"),
        format!("{good}."),
        format!("{good}.{signature}"),
        format!("{header}.{payload}.{signature}.a.b"),
        json.to_string(),
        json!({"protected": header, "payload": payload, "signature": signature}).to_string(),
    ] {
        assert_eq!(desk.ask(&shape).await, malformed("not three parts"), "{shape}");
    }
    for shape in [
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        "..".to_owned(),
    ] {
        assert_eq!(desk.ask(&shape).await, malformed("an empty part"), "{shape}");
    }
}

/// Line 29.
#[tokio::test]
async fn base64url_has_one_spelling() {
    let desk = Desk::new().await;
    let good = desk.signer.token(HEADER, &claims().to_string());
    let parts: Vec<String> = good.split('.').map(str::to_owned).collect();
    let not_canonical = malformed("a part is not canonical base64url");
    for part in 0..3 {
        for change in ["=", "==", "+", "/", " ", "\n", "\t", "é", "\0", "%3D"] {
            let mut changed = parts.clone();
            changed[part].push_str(change);
            assert_eq!(desk.ask(&changed.join(".")).await, not_canonical, "{part} {change:?}");
            let mut changed = parts.clone();
            changed[part].insert_str(4, change);
            assert_eq!(desk.ask(&changed.join(".")).await, not_canonical, "{part} {change:?}");
        }
    }
    // 64 bytes leave two bits of the last character over: they must be zero.
    let mut changed = parts.clone();
    let last = changed[2].pop().unwrap();
    let other = if last == 'A' { 'B' } else { char::from(last as u8 + 1) };
    changed[2].push(other);
    assert!("AQgw".contains(last), "a canonical last character, not {last}");
    assert_eq!(desk.ask(&changed.join(".")).await, not_canonical);
}

/// Lines 25, 28, 30 for the header.
#[tokio::test]
async fn a_header_with_two_readings_is_refused() {
    let desk = Desk::new().await;
    let twice = malformed("a member appears twice");
    assert_eq!(desk.ask_header(r#"{"alg":"none","alg":"ES256","kid":"k1"}"#).await, twice);
    assert_eq!(desk.ask_header(r#"{"alg":"ES256","kid":"k1","\u006bid":"k2"}"#).await, twice);
    let syntax = malformed("a part is not a JSON object");
    for header in ["", "[]", "\"x\"", "{}{}", "\u{feff}{}", r#"{"alg":"\ud800"}"#, "{'alg':1}"] {
        let token = desk.signer.token(header, &claims().to_string());
        if header.is_empty() {
            assert_eq!(desk.ask(&token).await, malformed("an empty part"));
        } else {
            assert_eq!(desk.ask(&token).await, syntax, "{header}");
        }
    }
    let invalid = desk.signer.token_of_bytes(b"{\"alg\":\"\xff\"}", b"{}");
    assert_eq!(desk.ask(&invalid).await, syntax);
    let spaced = "{ \"alg\" : \"ES256\",\n\t\"kid\":\"k1\" }";
    assert!(desk.ask_header(spaced).await.is_ok());
}
