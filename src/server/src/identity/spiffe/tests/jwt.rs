//! Tokens that are a JWT-SVID, and those that are not.

use serde_json::{Value, json};

use super::{AUDIENCE, DOMAIN, Desk, Signer, WEB, text, token_key};
use crate::identity::{
    Principal, Rejection,
    tests::kit::{NOW, malformed},
};

const HEADER: &str = r#"{"alg":"ES256","kid":"k1","typ":"JWT"}"#;

fn claims() -> Value {
    json!({ "sub": WEB, "aud": [AUDIENCE], "exp": NOW + 300 })
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name).unwrap();
    claims
}

async fn ask(desk: &Desk, header: &str, claims: &Value) -> Result<Principal, Rejection> {
    desk.ask(&desk.signer.token(header, &claims.to_string())).await
}

#[tokio::test]
async fn a_token_needs_a_subject_an_audience_and_an_end() {
    let desk = Desk::new().await;
    let principal = ask(&desk, HEADER, &claims()).await.unwrap();
    assert_eq!(principal.id(), format!("{DOMAIN}|{WEB}"));
    assert_eq!(text(&principal, "svid"), "jwt");
    assert_eq!(text(&principal, "trust_domain"), DOMAIN);
    assert!(!principal.single_use, "a workload takes its token from a cache");
    // `iss` decides nothing, whatever it says.
    let issued = with("iss", "https://spire.example.org");
    assert_eq!(ask(&desk, HEADER, &issued).await.unwrap().id(), principal.id());
    assert_eq!(ask(&desk, HEADER, &without("aud")).await, malformed(AUDIENCES));
    assert_eq!(ask(&desk, HEADER, &without("exp")).await, malformed("`exp` is not a time"));
    assert_eq!(ask(&desk, HEADER, &without("sub")).await, malformed("`sub` is not a string"));
}

const AUDIENCES: &str = "`aud` is not a string or a list of strings";

#[tokio::test]
async fn a_subject_that_is_no_workloads_id_is_refused() {
    let desk = Desk::new().await;
    let not_an_id = "`sub` is not a SPIFFE ID";
    for (subject, answer) in [
        ("repo:acme/app", malformed(not_an_id)),
        ("Spiffe://example.org/web", malformed(not_an_id)),
        ("spiffe://EXAMPLE.org/web", malformed(not_an_id)),
        ("spiffe://example.org/web/", malformed(not_an_id)),
        ("spiffe://example.org/a/../web", malformed(not_an_id)),
        ("spiffe://example.org/%77eb", malformed(not_an_id)),
        ("spiffe://example.org:443/web", malformed(not_an_id)),
        ("spiffe://example.org", malformed("`sub` names a trust domain and no workload")),
        ("spiffe://example.com/web", Err(Rejection::UnknownTrustDomain)),
        // Its bundle has a key of the same id.
        ("spiffe://other.example/web", Err(Rejection::BadSignature)),
    ] {
        assert_eq!(ask(&desk, HEADER, &with("sub", subject)).await, answer, "{subject}");
    }
}

#[tokio::test]
async fn audiences_are_compared_to_the_letter() {
    let desk = Desk::new().await;
    assert!(ask(&desk, HEADER, &with("aud", AUDIENCE)).await.is_ok());
    for wrong in ["https://dayfly.example/", "https://DAYFLY.example", "https://dayfly.exampl"] {
        let answer = ask(&desk, HEADER, &with("aud", json!([wrong]))).await;
        assert_eq!(answer, Err(Rejection::WrongAudience), "{wrong}");
    }
    for empty in [json!([]), json!([""]), json!(""), json!({}), json!(1)] {
        assert_eq!(ask(&desk, HEADER, &with("aud", empty)).await, malformed(AUDIENCES));
    }
    let both = with("aud", json!([AUDIENCE, "https://other.example"]));
    assert_eq!(ask(&desk, HEADER, &both).await, Err(Rejection::ManyAudiences));
    let lenient = Desk::with(|rules| rules.multiple_audiences = true).await;
    assert!(ask(&lenient, HEADER, &both).await.is_ok());
    let none = Desk::with(|rules| rules.audiences.clear()).await;
    assert_eq!(ask(&none, HEADER, &claims()).await, Err(Rejection::WrongAudience));
}

#[tokio::test]
async fn times_are_bounded() {
    let desk = Desk::new().await;
    for (claim, at, answer) in [
        ("exp", NOW - 31, Rejection::Expired),
        ("exp", NOW + 3_631, Rejection::TooLongLived),
        ("nbf", NOW + 31, Rejection::NotYetValid),
        ("iat", NOW + 31, Rejection::IssuedInFuture),
        ("iat", NOW - 3_631, Rejection::TooLongLived),
    ] {
        assert_eq!(ask(&desk, HEADER, &with(claim, at)).await, Err(answer), "{claim} {at}");
    }
    assert!(ask(&desk, HEADER, &with("exp", NOW - 29)).await.is_ok());
    // Fresh, as long-lived as can be, from a clock that is ahead of ours.
    assert!(ask(&desk, HEADER, &with("exp", NOW + 3_630)).await.is_ok());
    let endless = with("exp", "9999999999");
    assert_eq!(ask(&desk, HEADER, &endless).await, malformed("`exp` is not a time"));
}

#[tokio::test]
async fn a_header_has_an_algorithm_of_the_specification_and_a_key_id() {
    let desk = Desk::new().await;
    for typ in [r#","typ":"JWT""#, r#","typ":"JOSE""#, ""] {
        let header = format!(r#"{{"alg":"ES256","kid":"k1"{typ}}}"#);
        assert!(ask(&desk, &header, &claims()).await.is_ok(), "{typ}");
    }
    let own_key = "the header brings its own key";
    for (header, answer) in [
        (r#"{"alg":"none","kid":"k1"}"#, Err(Rejection::AlgorithmRefused)),
        (r#"{"alg":"HS256","kid":"k1"}"#, Err(Rejection::AlgorithmRefused)),
        (r#"{"alg":"EdDSA","kid":"k1"}"#, Err(Rejection::AlgorithmRefused)),
        (r#"{"alg":"ES384","kid":"k1"}"#, Err(Rejection::AlgorithmMismatch)),
        (r#"{"alg":"ES256","kid":"k1","typ":"at+jwt"}"#, Err(Rejection::WrongType)),
        (r#"{"alg":"ES256","kid":"k1","typ":"jwt"}"#, Err(Rejection::WrongType)),
        (r#"{"alg":"ES256"}"#, malformed("`kid` is missing")),
        (r#"{"alg":"ES256","kid":"k2"}"#, Err(Rejection::UnknownKey)),
        (r#"{"alg":"ES256","kid":"k1","jwk":{}}"#, malformed(own_key)),
        (r#"{"alg":"ES256","kid":"k1","x5t":"a"}"#, malformed("the header names a certificate")),
    ] {
        assert_eq!(ask(&desk, header, &claims()).await, answer, "{header}");
    }
}

#[tokio::test]
async fn a_key_serves_the_use_that_it_declares_and_no_other() {
    for declared in [json!("x509-svid"), json!("sig"), json!("JWT-SVID"), json!(1), Value::Null] {
        let desk = Desk::new().await;
        let mut key = desk.signer.jwk("k1");
        if !declared.is_null() {
            key["use"] = declared.clone();
        }
        desk.publish(DOMAIN, &[desk.authority.jwk(), key]);
        desk.authenticator.reread_bundles().await;
        assert_eq!(ask(&desk, HEADER, &claims()).await, Err(Rejection::UnknownKey), "{declared}");
    }
}

#[tokio::test]
async fn the_keys_of_one_trust_domain_sign_for_no_other() {
    let desk = Desk::new().await;
    let theirs = desk.other_signer.token(HEADER, &claims().to_string());
    assert_eq!(desk.ask(&theirs).await, Err(Rejection::BadSignature));
    let own = desk.other_signer.token(HEADER, &with("sub", "spiffe://other.example/x").to_string());
    assert!(desk.ask(&own).await.is_ok());
}

/// A signer could otherwise be of another trust domain where rules look at claims.
#[tokio::test]
async fn claims_that_an_id_gives_cannot_be_brought() {
    let desk = Desk::new().await;
    for name in ["trust_domain", "path", "path.0", "path.9", "svid"] {
        let answer = ask(&desk, HEADER, &with(name, "other.example")).await;
        assert!(matches!(answer, Err(Rejection::Malformed { .. })), "{name}");
    }
    let nested = with("path", json!({ "0": "admin" }));
    assert!(matches!(ask(&desk, HEADER, &nested).await, Err(Rejection::Malformed { .. })));
    assert!(ask(&desk, HEADER, &with("paths", "x")).await.is_ok());
}

#[tokio::test]
async fn a_new_key_works_as_soon_as_it_is_asked_for() {
    let desk = Desk::new().await;
    assert!(ask(&desk, HEADER, &claims()).await.is_ok());
    let new = Signer::es384();
    desk.publish(DOMAIN, &[token_key(&new, "k2")]);
    desk.clock.advance(30);
    let token = new.token(r#"{"alg":"ES384","kid":"k2"}"#, &claims().to_string());
    assert!(desk.ask(&token).await.is_ok());
    assert_eq!(ask(&desk, HEADER, &claims()).await, Err(Rejection::UnknownKey));
}
