//! The claims and their rules.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::kit::{
    AUDIENCE, Desk, FakeClock, HEADER, ISSUER, NOW, Signer, claims, fixed, malformed, with,
    with_raw, without,
};
use crate::identity::{
    Authenticator, ClaimValue, IssuerConfig, KeySource, Kind, Principal, Rejection,
};

/// Line 13: malformed is not absent, and absent is not «for ever».
#[tokio::test]
async fn an_expiry_that_is_missing_or_malformed_is_refused() {
    let desk = Desk::new().await;
    let not_a_time = malformed("`exp` is not a time");
    assert_eq!(desk.ask_claims(&without("exp")).await, not_a_time);
    let later = (NOW + 300).to_string();
    for raw in [
        "\"9999999999\"".to_owned(),
        format!("\"{later}\""),
        format!("{later}.0"),
        format!("{later}.5"),
        "1.79e9".to_owned(),
        "-1".to_owned(),
        "-0".to_owned(),
        "null".to_owned(),
        "true".to_owned(),
        "{}".to_owned(),
        format!("[{later}]"),
        "9223372036854775807".to_owned(),
        "9223372036854775808".to_owned(),
        "18446744073709551616".to_owned(),
        "253402300800".to_owned(),
    ] {
        assert_eq!(desk.ask_claims(&with_raw("exp", &raw)).await, not_a_time, "{raw}");
    }
    let answer = desk.ask_claims(&with_raw("exp", "1e400")).await;
    assert_eq!(answer, malformed("a part is not a JSON object"));
    assert!(desk.ask_claims(&with_raw("exp", &later)).await.is_ok());
}

/// Who could not be named could not be disabled.
#[tokio::test]
async fn a_subject_that_nobody_could_disable_is_refused() {
    let desk = Desk::new().await;
    let longest = "x".repeat(2_048);
    let principal = desk.ask_claims(&with("sub", longest.as_str())).await.unwrap();
    assert_eq!(Principal::id_of("ci", &longest), Some(principal.id()));
    for bad in [format!("{longest}x"), "repo\u{1}".to_owned(), "repo\u{0}".to_owned()] {
        let answer = desk.ask_claims(&with("sub", bad.as_str())).await;
        assert_eq!(answer, Err(Rejection::SubjectRefused), "{bad:?}");
        assert_eq!(Principal::id_of("ci", &bad), None, "{bad:?}");
    }
}

/// Line 14.
#[tokio::test]
async fn a_token_that_lives_or_lived_too_long_is_refused() {
    let desk = Desk::new().await;
    // Of a platform whose clock is ahead by the leeway, one that was made this moment.
    assert!(desk.ask_claims(&with("exp", NOW + 86_430)).await.is_ok());
    let answer = desk.ask_claims(&with("exp", NOW + 86_431)).await;
    assert_eq!(answer, Err(Rejection::TooLongLived));
    assert!(desk.ask_claims(&with("iat", NOW - 86_400)).await.is_ok());
    let answer = desk.ask_claims(&with("iat", NOW - 86_431)).await;
    assert_eq!(answer, Err(Rejection::TooLongLived));
}

/// OpenID Connect Back-Channel Logout 1.0, section 2.4: a logout token has all that an identity
/// token must have, under the same keys, and its `typ` is only recommended.
#[tokio::test]
async fn a_token_that_tells_of_an_event_identifies_nobody() {
    let desk = Desk::new().await;
    let logout = "http://schemas.openid.net/event/backchannel-logout";
    let revoked = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
    let refused = malformed("`events` make it a security event token");
    for header in [HEADER, r#"{"alg":"ES256","kid":"k1"}"#] {
        for events in [
            json!({ logout: {} }),
            json!({ revoked: { "event_timestamp": NOW } }),
            json!({}),
            json!([]),
            json!("x"),
            Value::Null,
        ] {
            let token = desk.signer.token(header, &with("events", events.clone()));
            assert_eq!(desk.ask(&token).await, refused, "{header} {events}");
        }
        let token = desk.signer.token(header, &with("event_name", "push"));
        assert!(desk.ask(&token).await.is_ok(), "{header}");
    }
}

/// Line 15.
#[tokio::test]
async fn a_token_expires_after_the_leeway_and_not_before() {
    let desk = Desk::new().await;
    assert!(desk.ask_claims(&with("exp", NOW - 30 + 1)).await.is_err());
    // `iat` of the good claims is NOW - 10, so move it back with `exp`.
    let at = |exp: i64| {
        let mut claims = claims();
        claims["iat"] = json!(NOW - 100);
        claims["nbf"] = json!(NOW - 100);
        claims["exp"] = json!(exp);
        claims.to_string()
    };
    assert!(desk.ask_claims(&at(NOW - 30 + 1)).await.is_ok());
    assert_eq!(desk.ask_claims(&at(NOW - 30)).await, Err(Rejection::Expired));
    assert_eq!(desk.ask_claims(&at(NOW - 30 - 1)).await, Err(Rejection::Expired));
    assert_eq!(desk.ask_claims(&at(0)).await, Err(Rejection::Expired));

    let token = desk.signer.token(HEADER, &claims().to_string());
    desk.clock.advance(329);
    assert!(desk.ask(&token).await.is_ok());
    desk.clock.advance(1);
    assert_eq!(desk.ask(&token).await, Err(Rejection::Expired));
}

/// Lines 16 to 18.
#[tokio::test]
async fn times_in_the_future_or_out_of_order_are_refused() {
    let desk = Desk::new().await;
    assert!(desk.ask_claims(&with("nbf", NOW + 30)).await.is_ok());
    assert_eq!(desk.ask_claims(&with("nbf", NOW + 31)).await, Err(Rejection::NotYetValid));
    assert!(desk.ask_claims(&without("nbf")).await.is_ok());
    for raw in ["\"0\"", "null", "0.5", "-1", "1e30", "99999999999999999999", "[]"] {
        let answer = desk.ask_claims(&with_raw("nbf", raw)).await;
        assert_eq!(answer, malformed("`nbf` is not a time"), "{raw}");
        let answer = desk.ask_claims(&with_raw("iat", raw)).await;
        assert_eq!(answer, malformed("`iat` is not a time"), "{raw}");
    }
    assert_eq!(desk.ask_claims(&without("iat")).await, malformed("`iat` is not a time"));
    assert!(desk.ask_claims(&with("iat", NOW + 30)).await.is_ok());
    assert_eq!(desk.ask_claims(&with("iat", NOW + 31)).await, Err(Rejection::IssuedInFuture));
    let mut backwards = claims();
    backwards["iat"] = json!(NOW + 20);
    backwards["exp"] = json!(NOW + 19);
    let answer = desk.ask_claims(&backwards.to_string()).await;
    assert_eq!(answer, Err(Rejection::TimesOutOfOrder));
}

/// Lines 19, 20, 22.
#[tokio::test]
async fn the_audience_is_ours_byte_for_byte() {
    let desk = Desk::new().await;
    let shape = malformed("`aud` is not a string or a list of strings");
    assert_eq!(desk.ask_claims(&without("aud")).await, shape);
    for aud in [
        json!(""),
        json!([]),
        json!([""]),
        json!({"a": AUDIENCE}),
        json!(1),
        json!(null),
        json!(true),
        json!([AUDIENCE, 1]),
        json!([AUDIENCE, ""]),
        json!([[AUDIENCE]]),
    ] {
        assert_eq!(desk.ask_claims(&with("aud", aud.clone())).await, shape, "{aud}");
    }
    let wrong = [
        "other".to_owned(),
        format!("{AUDIENCE}/"),
        format!("{AUDIENCE}.evil.example"),
        AUDIENCE.trim_end_matches('e').to_owned(),
        AUDIENCE.to_uppercase(),
        format!(" {AUDIENCE}"),
        format!("{AUDIENCE}:443"),
        format!("{AUDIENCE}\0"),
        "*".to_owned(),
    ];
    for aud in wrong {
        let answer = desk.ask_claims(&with("aud", aud.clone())).await;
        assert_eq!(answer, Err(Rejection::WrongAudience), "{aud}");
        let answer = desk.ask_claims(&with("aud", json!([aud]))).await;
        assert_eq!(answer, Err(Rejection::WrongAudience), "[{aud}]");
    }
    assert!(desk.ask_claims(&with("aud", json!([AUDIENCE]))).await.is_ok());
}

/// Line 21.
#[tokio::test]
async fn several_audiences_are_refused_unless_the_issuer_may() {
    let both = with("aud", json!(["other", AUDIENCE]));
    let desk = Desk::new().await;
    assert_eq!(desk.ask_claims(&both).await, Err(Rejection::ManyAudiences));
    let mut rules = IssuerConfig::new("ci", ISSUER, AUDIENCE);
    rules.multiple_audiences = true;
    let desk = Desk::with_rules(rules).await;
    assert!(desk.ask_claims(&both).await.is_ok());
    let others = with("aud", json!(["other", "another"]));
    assert_eq!(desk.ask_claims(&others).await, Err(Rejection::WrongAudience));
}

/// Lines 23, 24.
#[tokio::test]
async fn the_issuer_is_a_configured_one_byte_for_byte() {
    let desk = Desk::new().await;
    for iss in [
        format!("{ISSUER}/"),
        ISSUER.to_uppercase(),
        "https://issuer.example/Realm".to_owned(),
        "https://issuer.example:443/realm".to_owned(),
        "https://issuer.example@evil.example/realm".to_owned(),
        "https://issuer.example.evil.example/realm".to_owned(),
        "https://issuer.example/realm/../realm".to_owned(),
        "https://issuer.example/realm?x".to_owned(),
        "https://issuer.example/realm#".to_owned(),
        "https://issuer.ex\u{430}mple/realm".to_owned(),
        "https://xn--issuer-example/realm".to_owned(),
        "http://issuer.example/realm".to_owned(),
        "https://issuer.example/real".to_owned(),
        "https://issuer.example".to_owned(),
        format!(" {ISSUER}"),
        "ci".to_owned(),
    ] {
        let answer = desk.ask_claims(&with("iss", iss.clone())).await;
        assert_eq!(answer, Err(Rejection::UnknownIssuer), "{iss}");
    }
    for iss in [json!(["https://evil.example", ISSUER]), json!([ISSUER]), json!(1), json!(null)] {
        let answer = desk.ask_claims(&with("iss", iss.clone())).await;
        assert_eq!(answer, malformed("`iss` is not a string"), "{iss}");
    }
    assert_eq!(desk.ask_claims(&without("iss")).await, malformed("`iss` is not a string"));
    for sub in [json!(""), json!(1), json!(null), json!(["a"])] {
        let answer = desk.ask_claims(&with("sub", sub.clone())).await;
        assert_eq!(answer, malformed("`sub` is not a string"), "{sub}");
    }
    assert_eq!(desk.ask_claims(&without("sub")).await, malformed("`sub` is not a string"));
    for jti in [json!(""), json!(1), json!(null), json!("j".repeat(257))] {
        let answer = desk.ask_claims(&with("jti", jti.clone())).await;
        assert_eq!(answer, malformed("`jti` is not a short string"), "{jti}");
    }
}

/// Lines 25, 26, 28, 30.
#[tokio::test]
async fn claims_with_two_readings_or_out_of_bounds_are_refused() {
    let desk = Desk::new().await;
    let good = claims().to_string();
    let and = |more: &str| good.replacen('{', &format!("{{{more},"), 1);
    let many = |count: usize| {
        let members: Vec<String> = (0..count).map(|i| format!("\"c{i}\":1")).collect();
        members.join(",")
    };
    let deep = |depth: usize| format!("\"x\":{}1{}", "[".repeat(depth), "]".repeat(depth));
    let cases = [
        (and(r#""sub":"admin""#), "a member appears twice"),
        (and(r#""a":{"b":1,"b":2}"#), "a member appears twice"),
        (and(r#""s\u0075b":"admin""#), "a member appears twice"),
        (and(&many(194)), "too many members"),
        (and(&deep(16)), "JSON nested too deeply"),
        (and(&format!("\"x\":\"{}\"", "a".repeat(4_097))), "a string is too long"),
        (and(&format!("\"x\":[{}]", vec!["1"; 1_001].join(","))), "too many members"),
        (format!("{good}{{}}"), "a part is not a JSON object"),
        (format!("{good} x"), "a part is not a JSON object"),
        (format!("\u{feff}{good}"), "a part is not a JSON object"),
        (and(r#""x":"\ud800""#), "a part is not a JSON object"),
        ("[]".to_owned(), "a part is not a JSON object"),
        (format!("[{good}]"), "a part is not a JSON object"),
        ("\"sub\"".to_owned(), "a part is not a JSON object"),
        ("1".to_owned(), "a part is not a JSON object"),
        ("null".to_owned(), "a part is not a JSON object"),
    ];
    for (claims, why) in cases {
        assert_eq!(desk.ask_claims(&claims).await, malformed(why), "{why}: {claims}");
    }
    for bytes in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"] {
        let mut claims = good.clone().into_bytes();
        claims.truncate(claims.len() - 1);
        claims.extend_from_slice(b",\"x\":\"");
        claims.extend_from_slice(bytes);
        claims.extend_from_slice(b"\"}");
        let token = desk.signer.token_of_bytes(HEADER.as_bytes(), &claims);
        assert_eq!(desk.ask(&token).await, malformed("a part is not a JSON object"), "{bytes:?}");
    }
    // What just fits.
    assert!(desk.ask_claims(&and(&many(193))).await.is_ok());
    assert!(desk.ask_claims(&and(&deep(15))).await.is_ok());
    let long = format!("\"x\":\"{}\"", "a".repeat(4_096));
    assert!(desk.ask_claims(&and(&long)).await.is_ok());
}

/// The claims that a policy sees: nested by dotted path, ids as text.
#[tokio::test]
async fn claims_are_flattened_without_loss_or_collision() {
    let desk = Desk::new().await;
    let mut token = claims();
    token["kubernetes.io"] = json!({"pod": {"uid": "u-1", "name": "web"}, "namespace": "prod"});
    token["run_id"] = json!(14_142_499_651_i64);
    token["protected"] = json!(true);
    token["groups"] = json!(["a", 7, false]);
    token["empty"] = json!([]);
    token["nothing"] = json!(null);
    token["permissions"] = json!([{"name": "p"}, {"name": "q"}]);
    let principal = desk.ask_claims(&token.to_string()).await.unwrap();
    let text = |text: &str| Some(ClaimValue::Text(text.to_owned()));
    let claim = |name: &str| principal.claims.get(name).cloned();
    assert_eq!(claim("kubernetes.io.pod.uid"), text("u-1"));
    assert_eq!(claim("kubernetes.io.namespace"), text("prod"));
    assert_eq!(claim("run_id"), text("14142499651"));
    assert_eq!(claim("protected"), text("true"));
    assert_eq!(claim("iss"), text(ISSUER));
    let list = |texts: &[&str]| {
        Some(ClaimValue::List(texts.iter().map(|text| (*text).to_owned()).collect()))
    };
    assert_eq!(claim("groups"), list(&["a", "7", "false"]));
    assert_eq!(claim("empty"), list(&[]));
    assert_eq!(claim("nothing"), None);
    assert_eq!(claim("permissions.1.name"), text("q"));

    let collision = malformed("two claims have the same path");
    token["kubernetes.io.pod"] = json!({"uid": "u-2"});
    assert_eq!(desk.ask_claims(&token.to_string()).await, collision);
    let inexact = malformed("a claim is neither text, a whole number nor a boolean");
    for raw in ["1.5", "9223372036854775808", "[1.5]", "[null]"] {
        assert_eq!(desk.ask_claims(&with_raw("x", raw)).await, inexact, "{raw}");
    }
}

/// Lines 33, 45: what a replay check keys on, and what a principal shows of its token.
#[tokio::test]
async fn a_principal_names_its_token_and_holds_none_of_it() {
    let desk = Desk::new().await;
    let token = desk.signer.token(HEADER, &claims().to_string());
    let principal = desk.ask(&token).await.unwrap();
    assert_eq!(principal.id(), "ci|repo:acme/app");
    assert_eq!(principal.replay_key(), "ci|j-1");
    assert_eq!(principal.kind, Kind::Workload);
    assert_eq!(principal.token_expires_at.seconds(), NOW + 300);
    assert!(principal.single_use);

    let stored = serde_json::to_string(&principal).unwrap();
    assert_eq!(serde_json::from_str::<Principal>(&stored).unwrap(), principal);
    for part in token.split('.') {
        assert!(!stored.contains(part) && !format!("{principal:?}").contains(part));
    }

    let anonymous = desk.ask_claims(&without("jti")).await.unwrap();
    assert_eq!(anonymous.replay_key(), anonymous.token_hash);
    assert_eq!(anonymous.token_hash.len(), 64);
    let again = desk.ask_claims(&without("jti")).await.unwrap();
    assert_eq!(again.replay_key(), anonymous.replay_key(), "another signature of the same token");
    let mut other: Value = serde_json::from_str(&without("jti")).unwrap();
    other["sub"] = json!("repo:acme/other");
    let other = desk.ask_claims(&other.to_string()).await.unwrap();
    assert_ne!(other.replay_key(), anonymous.replay_key());
}

/// Lines 38, 49: one key and one subject at two issuers are two principals, and a token of
/// one is nothing at the other.
#[tokio::test]
async fn two_issuers_with_one_kid_do_not_speak_for_each_other() {
    let (one, two) = (Signer::es256(), Signer::es256());
    let elsewhere = "https://other.example";
    let issuers: Vec<(IssuerConfig, Arc<dyn KeySource>)> = vec![
        (IssuerConfig::new("one", ISSUER, AUDIENCE), fixed(&[one.jwk("k1")])),
        (IssuerConfig::new("two", elsewhere, AUDIENCE), fixed(&[two.jwk("k1")])),
    ];
    let desk = Authenticator::with_sources(issuers, FakeClock::new()).unwrap();
    let of_one = claims().to_string();
    let of_two = with("iss", elsewhere);
    let first = desk.authenticate(&one.token(HEADER, &of_one)).await.unwrap();
    let second = desk.authenticate(&two.token(HEADER, &of_two)).await.unwrap();
    assert_eq!(first.subject, second.subject);
    assert_ne!(first.id(), second.id());
    assert_ne!(first.replay_key(), second.replay_key());
    for crossed in [one.token(HEADER, &of_two), two.token(HEADER, &of_one)] {
        assert_eq!(desk.authenticate(&crossed).await, Err(Rejection::BadSignature));
    }
}

/// The code of every rejection is its own, and only one of them is not the caller's fault.
#[test]
fn rejections_have_stable_codes() {
    let all = [
        Rejection::AlgorithmMismatch,
        Rejection::AlgorithmRefused,
        Rejection::AmbiguousKey,
        Rejection::BadSignature,
        Rejection::ClaimMalformed { claim: "x" },
        Rejection::ClaimMissing { claim: "x" },
        Rejection::Expired,
        Rejection::IssuedInFuture,
        Rejection::KeysUnavailable,
        Rejection::Malformed { why: "x" },
        Rejection::ManyAudiences,
        Rejection::NotYetValid,
        Rejection::TimesOutOfOrder,
        Rejection::TooLongLived,
        Rejection::TooLarge,
        Rejection::Trapped { trap: "x" },
        Rejection::UnknownIssuer,
        Rejection::UnknownKey,
        Rejection::WrongAudience,
        Rejection::WrongType,
    ];
    let codes: BTreeMap<&str, Rejection> = all.iter().map(|r| (r.code(), *r)).collect();
    assert_eq!(codes.len(), all.len());
    let unavailable: Vec<_> = all.into_iter().filter(|r| r.is_unavailable()).collect();
    assert_eq!(unavailable, [Rejection::KeysUnavailable]);
}
