//! Security event tokens as they must be, and each way in which they must not.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::identity::tests::kit::{
    AUDIENCE, FakeClock, HEADER, ISSUER, NOW, Signer, claims, fixed, malformed,
};

const SET_HEADER: &str = r#"{"alg":"ES256","kid":"k1","typ":"secevent+jwt"}"#;

struct Bench {
    transmitter: Transmitter,
    signer: Signer,
}

impl Bench {
    fn new() -> Self {
        let signer = Signer::es256();
        let mut rules = IssuerConfig::new("corporate", ISSUER, AUDIENCE);
        rules.token_age_max_seconds = 3_600;
        let transmitter =
            Transmitter::with_source(rules, fixed(&[signer.jwk("k1")]), FakeClock::new());
        Self { transmitter, signer }
    }

    async fn read(&self, header: &str, set: &str) -> Result<SecurityEvents, Rejection> {
        self.transmitter.read(&self.signer.token(header, set)).await
    }

    async fn refusal(&self, set: &Value) -> Rejection {
        self.read(SET_HEADER, &set.to_string()).await.unwrap_err()
    }
}

/// A good one: the session of a subject was revoked a minute ago.
fn set() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "jti": "e-1", "iat": NOW - 10,
        "sub_id": { "format": "iss_sub", "iss": "https://idp.example", "sub": "248289761001" },
        "events": { SESSION_REVOKED: { "event_timestamp": NOW - 60 } },
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut set = set();
    set[name] = value;
    set
}

fn without(name: &str) -> Value {
    let mut set = set();
    set.as_object_mut().unwrap().remove(name).unwrap();
    set
}

fn user() -> Subject {
    let (issuer, subject) = ("https://idp.example".to_owned(), "248289761001".to_owned());
    Subject::IssSub { issuer, subject }
}

#[tokio::test]
async fn a_good_token_is_read() {
    let bench = Bench::new();
    for header in [SET_HEADER, r#"{"alg":"ES256","kid":"k1","typ":"application/SecEvent+jwt"}"#] {
        let said = bench.read(header, &set().to_string()).await.unwrap();
        assert_eq!((said.id.as_str(), said.subjects.as_slice()), ("e-1", [user()].as_slice()));
        let [event] = said.events.as_slice() else { panic!("not one: {:?}", said.events) };
        assert_eq!(event.kind, EventKind::SessionRevoked);
        assert_eq!(event.at, Timestamp::from_seconds(NOW - 60));
    }
    for several in [json!([AUDIENCE]), json!(["https://other.example", AUDIENCE])] {
        let several = with("aud", several).to_string();
        bench.read(SET_HEADER, &several).await.unwrap();
    }
    bench.read(SET_HEADER, &with("exp", json!(NOW + 60)).to_string()).await.unwrap();
}

#[tokio::test]
async fn what_is_no_security_event_is_refused() {
    let bench = Bench::new();
    let set = set().to_string();
    for (header, rejection) in [
        (HEADER, Rejection::WrongType),
        (r#"{"alg":"ES256","kid":"k1"}"#, Rejection::WrongType),
        (r#"{"alg":"ES256","kid":"k1","typ":"at+jwt"}"#, Rejection::WrongType),
        (r#"{"alg":"none","kid":"k1","typ":"secevent+jwt"}"#, Rejection::AlgorithmRefused),
        (r#"{"alg":"HS256","kid":"k1","typ":"secevent+jwt"}"#, Rejection::AlgorithmRefused),
        (r#"{"alg":"ES384","kid":"k1","typ":"secevent+jwt"}"#, Rejection::AlgorithmMismatch),
        (r#"{"alg":"ES256","kid":"k2","typ":"secevent+jwt"}"#, Rejection::UnknownKey),
    ] {
        assert_eq!(bench.read(header, &set).await.unwrap_err(), rejection, "{header}");
    }
    // An identity token under the header of a security event.
    let identity = bench.read(SET_HEADER, &claims().to_string()).await;
    assert_eq!(identity.err(), malformed::<()>("`sub` stands in a security event").err());
    let forged = Signer::es256().token(SET_HEADER, &set);
    assert_eq!(bench.transmitter.read(&forged).await.unwrap_err(), Rejection::BadSignature);
    let large = "x".repeat(17 * 1024);
    assert_eq!(bench.transmitter.read(&large).await.unwrap_err(), Rejection::TooLarge);
}

#[tokio::test]
async fn who_says_it_to_whom_and_when_must_hold() {
    let bench = Bench::new();
    for (set, rejection) in [
        (with("iss", json!(format!("{ISSUER}/"))), Rejection::UnknownIssuer),
        (with("aud", json!("https://dayfly.example.evil")), Rejection::WrongAudience),
        (with("aud", json!(["https://other.example"])), Rejection::WrongAudience),
        (with("iat", json!(NOW + 31)), Rejection::IssuedInFuture),
        (with("iat", json!(NOW - 3_601)), Rejection::TooLongLived),
        (with("exp", json!(NOW - 31)), Rejection::Expired),
    ] {
        assert_eq!(bench.refusal(&set).await, rejection, "{set}");
    }
}

#[tokio::test]
async fn what_is_malformed_is_refused() {
    let bench = Bench::new();
    let nested = json!({ "format": "aliases", "identifiers": [
        { "format": "aliases", "identifiers": [] },
    ] });
    for set in [
        without("iss"),
        without("aud"),
        without("iat"),
        without("jti"),
        without("events"),
        with("jti", json!("")),
        with("jti", json!(7)),
        with("iat", json!("1790000000")),
        with("exp", json!(null)),
        with("aud", json!([])),
        with("sub", json!("248289761001")),
        with("events", json!([])),
        with("events", json!({})),
        with("events", json!({ SESSION_REVOKED: null })),
        with("sub_id", json!("248289761001")),
        with("sub_id", json!({ "iss": "https://idp.example", "sub": "1" })),
        with("sub_id", json!({ "format": "iss_sub", "sub": "1" })),
        with("sub_id", json!({ "format": "opaque", "id": "" })),
        with("sub_id", json!({ "format": "aliases" })),
        with("sub_id", nested),
        with("sub_id", json!({ "format": "complex", "user": { "format": "complex" } })),
    ] {
        let rejection = bench.refusal(&set).await;
        assert!(matches!(rejection, Rejection::Malformed { .. }), "{set}: {rejection}");
    }
    let twice = set().to_string().replacen('{', r#"{"iss":"https://evil.example","#, 1);
    let twice = bench.read(SET_HEADER, &twice).await;
    assert_eq!(twice.err(), malformed::<()>("a member appears twice").err());
    let many: Vec<Value> =
        (0..17).map(|id| json!({ "format": "opaque", "id": id.to_string() })).collect();
    let many = with("sub_id", json!({ "format": "aliases", "identifiers": many }));
    let refusal = bench.refusal(&many).await;
    assert_eq!(Some(refusal), malformed::<()>("too many subject identifiers").err());
}

#[tokio::test]
async fn subjects_are_taken_from_what_can_hold_them() {
    let bench = Bench::new();
    let opaque = |id: &str| Subject::Opaque(id.to_owned());
    let iss_sub =
        json!({ "format": "iss_sub", "iss": "https://idp.example", "sub": "248289761001" });
    for (subject, expected) in [
        (json!({ "format": "opaque", "id": "00u1" }), vec![opaque("00u1")]),
        (json!({ "format": "email", "email": "a@example.test" }), vec![]),
        (json!({ "format": "account", "uri": "acct:a@example.test" }), vec![]),
        (json!({ "format": "of another day" }), vec![]),
        (
            json!({ "format": "aliases", "identifiers": [
                { "format": "email", "email": "a@example.test" }, iss_sub,
                { "format": "opaque", "id": "00u1" },
            ] }),
            vec![user(), opaque("00u1")],
        ),
        (
            json!({ "format": "complex", "user": iss_sub,
                "device": { "format": "opaque", "id": "not a user" } }),
            vec![user()],
        ),
        (
            json!({ "format": "complex", "user": { "format": "aliases", "identifiers": [iss_sub] } }),
            vec![user()],
        ),
        (json!({ "format": "complex", "session": { "format": "opaque", "id": "s-1" } }), vec![]),
    ] {
        let set = with("sub_id", subject.clone()).to_string();
        let said = bench.read(SET_HEADER, &set).await.unwrap();
        assert_eq!(said.subjects, expected, "{subject}");
    }
    let said = bench.read(SET_HEADER, &without("sub_id").to_string()).await.unwrap();
    assert!(said.subjects.is_empty());
}

#[tokio::test]
async fn events_have_a_kind_and_a_time_that_is_not_after_their_token() {
    let bench = Bench::new();
    let (issued, milliseconds) = (NOW - 10, NOW * 1_000);
    for (timestamp, at) in [
        (json!({}), issued),
        (json!({ "event_timestamp": NOW - 60 }), NOW - 60),
        (json!({ "event_timestamp": NOW + 60 }), issued),
        (json!({ "event_timestamp": milliseconds }), issued),
        (json!({ "event_timestamp": "yesterday" }), issued),
        (json!({ "event_timestamp": 1.5 }), issued),
    ] {
        let set = with("events", json!({ CREDENTIAL_CHANGE: timestamp })).to_string();
        let said = bench.read(SET_HEADER, &set).await.unwrap();
        let [event] = said.events.as_slice() else { panic!("not one: {:?}", said.events) };
        assert_eq!(event.kind, EventKind::CredentialChange);
        assert_eq!(event.at, Timestamp::from_seconds(at), "{timestamp}");
    }
    let both = json!({ VERIFICATION: { "state": "x" }, "https://example.test/other": {} });
    let said = bench.read(SET_HEADER, &with("events", both).to_string()).await.unwrap();
    let mut kinds: Vec<_> = said.events.iter().map(|event| event.kind).collect();
    kinds.sort_by_key(|kind| format!("{kind:?}"));
    assert_eq!(kinds, [EventKind::Other, EventKind::Verification]);
}

#[tokio::test]
async fn what_nobody_can_verify_is_not_the_transmitters_fault() {
    let rules = IssuerConfig {
        jwks_file: Some("/nonexistent/keys.json".into()),
        ..IssuerConfig::new("corporate", ISSUER, AUDIENCE)
    };
    let clock: Arc<dyn Clock> = FakeClock::new();
    let transmitter = Transmitter::new(rules, clock).unwrap();
    let token = Signer::es256().token(SET_HEADER, &set().to_string());
    assert!(transmitter.read(&token).await.unwrap_err().is_unavailable());
}
