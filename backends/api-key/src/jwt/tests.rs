//! Settings, templates and keys, each rule with its fault.

use super::*;

/// The key of RFC 8037, appendix A, and its thumbprint there.
const ED25519: [&str; 3] = [
    "-----BEGIN PRIVATE KEY-----\n\
     MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
     -----END PRIVATE KEY-----",
    "-----BEGIN PUBLIC KEY-----\n\
     MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
     -----END PUBLIC KEY-----\n",
    "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
];
/// The key of RFC 7515, appendix A.3, and its thumbprint.
const P256: [&str; 3] = [
    "-----BEGIN PRIVATE KEY-----\n\
     MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjpsQnnGQmL+YBIff\n\
     H1136cspYG6+0iY7X1fCE9+E9LKhRANCAAR/zc4ncPbEXUGDy+5v20t7WAczNXvp\n\
     7xO6z248e9FURcfxRM0bvZt+hyzf7bnuufSzaV1uqQskrYpGIyiFiOWt\n\
     -----END PRIVATE KEY-----\n",
    "-----BEGIN PUBLIC KEY-----\n\
     MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n\
     6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n\
     -----END PUBLIC KEY-----",
    "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U",
];

fn config(more: &Value) -> JwtConfig {
    let mut raw = json!({ "issuer": "https://dayfly.example" });
    raw.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut config: JwtConfig = serde_json::from_value(raw).unwrap();
    config.signing_key = Some(Secret::new(P256[0]));
    config
}

fn refused(config: &JwtConfig) -> String {
    Issuer::new(config).unwrap_err().to_string()
}

#[test]
fn a_key_is_named_by_its_thumbprint() {
    for [private, public, thumbprint] in [ED25519, P256] {
        let signing = SigningKey::from_pem(&Secret::new(private)).unwrap();
        assert_eq!(signing.public().kid(), thumbprint);
        assert_eq!(PublicKey::from_pem(public).as_ref(), Some(signing.public()));
    }
    let jwk = PublicKey::from_pem(P256[1]).unwrap().jwk();
    let expected = json!({
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": P256[2],
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    assert_eq!(jwk, expected);
}

#[test]
fn what_is_not_one_key_is_refused() {
    let twice = format!("{}\n{}", ED25519[1], P256[1]);
    // The same point as above, and not as we publish it.
    let compressed = "-----BEGIN PUBLIC KEY-----\n\
        MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgADf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n\
        6e8Tus9uPHvRVEU=\n-----END PUBLIC KEY-----";
    for bad in ["", "none", ED25519[0], &twice, compressed] {
        assert_eq!(PublicKey::from_pem(bad), None, "{bad}");
        let keys = config(&json!({ "published_keys": [ED25519[1], bad] }));
        assert!(refused(&keys).contains("published_keys[1]"), "{bad}");
    }
    for bad in ["none", ED25519[1], &P256[0].replace("PRIVATE", "EC PRIVATE")] {
        let mut config = config(&json!({}));
        config.signing_key = Some(Secret::new(bad));
        assert!(refused(&config).contains("`jwt.signing_key` is not one private key"), "{bad}");
    }
}

#[test]
fn each_setting_has_its_bounds() {
    for (more, text) in [
        (json!({ "issuer": "http://dayfly.example" }), "is no `https://` address"),
        (json!({ "issuer": "https://dayfly.example?x" }), "is no `https://` address"),
        (json!({ "issuer": "dayfly" }), "is no `https://` address"),
        (json!({ "issuer": null }), "there is no `server.public_url`"),
        (json!({ "ttl_max_s": 3_601 }), "`jwt.ttl_max_s` is 3601"),
        (json!({ "ttl_max_s": 59 }), "`jwt.ttl_max_s` is 59"),
        (json!({ "leeway_s": 301 }), "`jwt.leeway_s` is 301"),
        (json!({ "published_keys": vec![ED25519[1]; 9] }), "at most 8"),
    ] {
        let error = refused(&config(&more));
        assert!(error.contains(text), "{more}: {error}");
    }
    let mut keyless = config(&json!({}));
    keyless.signing_key = None;
    assert_eq!(refused(&keyless), "`jwt.signing_key` is missing");
    assert!(Issuer::new(&config(&json!({ "issuer": "http://127.0.0.1:8420" }))).is_ok());
}

#[test]
fn what_it_can_follows_from_who_verifies() {
    let can = |more: Value| Issuer::new(&config(&more)).unwrap().capabilities();
    let slack = |more| match can(more).expiry {
        Expiry::Native { slack, .. } => slack.as_secs(),
        Expiry::None => panic!("a token has an end"),
    };
    assert_eq!((slack(json!({})), slack(json!({ "leeway_s": 0 }))), (61, 1));
    assert_eq!(slack(json!({ "introspected": true })), 0);
    assert!(!can(json!({})).revoke && can(json!({ "introspected": true })).revoke);
    let hour = can(json!({ "ttl_max_s": 3_600 }));
    assert_eq!(hour.ttl_max, Some(Duration::from_hours(1)));
}

#[test]
fn each_published_key_is_published_once() {
    let keys = json!({ "published_keys": [ED25519[1], P256[1], ED25519[1]] });
    let jwks = Issuer::new(&config(&keys)).unwrap().jwks();
    let kids: Vec<_> = jwks.iter().map(|key| key["kid"].as_str().unwrap()).collect();
    assert_eq!(kids, [P256[2], ED25519[2]]);
}

#[test]
fn a_template_says_whom_a_token_is_for_and_sets_no_claim_of_ours() {
    let with = |more: Value| {
        let mut raw = json!({ "audience": "https://orders.example" });
        raw.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        JwtTemplate::parse(&raw)
    };
    let claims = json!({ "tier": "gold", "limit": 5, "ratio": 0.5, "on": true });
    let good = with(json!({ "audience": ["a", "b"], "scopes": ["x"], "claims": claims })).unwrap();
    assert_eq!(good.audience, ["a", "b"]);
    for audience in [json!([]), json!(""), json!("a b"), json!(["a", "a"]), json!(["é"])] {
        assert!(with(json!({ "audience": audience })).is_err(), "{audience}");
    }
    assert!(matches!(JwtTemplate::parse(&json!({})), Err(ApiKeyError::Template(_))));
    for ours in [
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
        "client_id",
        "scope",
        "act",
        "authorization_details",
        "SUB",
        "Client_Id",
    ] {
        let refused = with(json!({ "claims": { ours: "x" } }));
        assert!(matches!(refused, Err(ApiKeyError::ClaimReserved(_))), "{ours}");
    }
    for value in [json!(null), json!([]), json!({})] {
        let refused = with(json!({ "claims": { "a": value } }));
        assert!(matches!(refused, Err(ApiKeyError::ClaimValue(_))), "{value}");
    }
    assert!(matches!(with(json!({ "claims": { "": 1 } })), Err(ApiKeyError::ClaimName(_))));
    let long = "a".repeat(5_000);
    let refused = with(json!({ "claims": { "a": long } }));
    assert!(matches!(refused, Err(ApiKeyError::TooLarge { .. })));
}

#[test]
fn a_token_is_read_and_nothing_else_is() {
    let claims = json!({ "iss": "i", "aud": "a", "client_id": "c", "iat": 1, "exp": 2 });
    let text = |claims: &Value| {
        format!("e30.{}.c2ln", BASE64URL_NOPAD.encode(claims.to_string().as_bytes()))
    };
    assert!(is_token(&text(&claims)));
    let read = JwtClaims::of(&text(&claims)).unwrap();
    assert_eq!((read.aud, read.exp), (vec!["a".to_owned()], 2));
    for bad in ["", "a.b", "a..b", "a.b.c.d", "a.b.c=", "dfk_0", ".."] {
        assert!(!is_token(bad), "{bad:?}");
        assert_eq!(JwtClaims::of(bad), None, "{bad:?}");
    }
}
