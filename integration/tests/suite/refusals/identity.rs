//! Tokens that are no identity. Whatever is wrong with one, the client reads the same text.

use dayfly_integration::{Client, Issuer};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{Scene, scene};

/// Opening a task with a role, which would mint at once.
pub(super) fn opening(client: &Client) -> RequestBuilder {
    let body = json!({ "purpose": "refused", "ttl_seconds": 60, "roles": ["greeter"] });
    client.request(Method::POST, "/api/v1/tasks").json(&body)
}

/// Tokens with one thing wrong each, and what the audit log calls it.
fn bad_tokens(scene: &Scene) -> Vec<(&'static str, String)> {
    let (issuer, now) = (&scene.broker.issuer, Issuer::now());
    let with = |more: Value| issuer.token_with("secret-subject", more);
    let past = json!({ "iat": now - 900, "nbf": now - 900, "exp": now - 600 });
    let (whole, people) = (with(json!({})), &scene.broker.people);
    let (message, signature) = whole.rsplit_once('.').unwrap();
    let (first, rest) = signature.split_at(1);
    let forged = format!("{message}.{}{rest}", if first == "A" { "B" } else { "A" });
    let parts: Vec<&str> = whole.split('.').collect();
    let other = with(json!({ "sub": "another" }));
    let swapped = format!("{}.{}.{}", parts[0], other.split('.').nth(1).unwrap(), parts[2]);
    vec![
        ("expired", with(past)),
        ("not_yet_valid", with(json!({ "nbf": now + 900 }))),
        ("wrong_audience", with(json!({ "aud": "https://elsewhere.example.test" }))),
        ("many_audiences", with(json!({ "aud": [Issuer::AUDIENCE, "https://b.example.test"] }))),
        ("unknown_issuer", with(json!({ "iss": "https://stranger.example.test" }))),
        ("unknown_issuer", with(json!({ "iss": format!("{}/", Issuer::URL) }))),
        ("bad_signature", forged),
        ("bad_signature", swapped),
        ("unknown_key", people.token("secret-subject")),
        ("subject_refused", with(json!({ "sub": "secret-subject".repeat(147) }))),
        ("too_large", with(json!({ "padding": "x".repeat(17_000) }))),
        ("malformed", format!("{}.{}.", parts[0], parts[1])),
        ("malformed", "secret-subject".to_owned()),
        ("unknown_task_token", "dft_secret-subject".to_owned()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_something_wrong_is_refused_in_one_constant_text() {
    let scene = scene().await;
    let client = scene.broker.client();
    let mut texts = Vec::new();
    for (code, token) in bad_tokens(&scene) {
        let request = opening(&client.with(&token));
        let noted = [("identity.refused", code)];
        let answer = scene.refused(request, (401, "unauthenticated"), &noted).await;
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        texts.push(answer.without_request_id());
        for part in token.split('.').filter(|part| !part.is_empty()) {
            assert!(!answer.text.contains(part), "{code}: {}", answer.text);
        }
        // Nor does the audit log keep what could be used, or what a stranger chose to claim.
        let record = scene.broker.audit().await.pop().unwrap();
        let record = record.to_string();
        assert!(!record.contains("secret-subject") && !record.contains(&token), "{record}");
    }
    assert!(texts.windows(2).all(|pair| pair[0] == pair[1]), "{texts:?}");
    let said = texts[0].to_string();
    for word in ["expired", "audience", "issuer", "signature", "large", "kid", Issuer::URL] {
        assert!(!said.contains(word), "`{word}` in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_one_task_and_no_second() {
    let scene = scene().await;
    let token = scene.broker.issuer.token("job");
    let client = scene.broker.client().with(&token);
    client.open_task().await;
    let noted = [("identity.refused", "replayed")];
    let replayed = scene.refused(opening(&client), (401, "unauthenticated"), &noted).await;
    let stranger = opening(&scene.broker.client().with("nonsense"));
    let stranger = Client::send(stranger).await.unwrap();
    assert_eq!(replayed.without_request_id(), stranger.without_request_id());
}

/// Whoever shows no token at all is not worth a record: anybody could fill the log.
#[tokio::test(flavor = "multi_thread")]
async fn no_bearer_is_refused_without_a_record() {
    let scene = scene().await;
    let client = scene.broker.client();
    let token = scene.broker.issuer.token("job");
    let twice = || opening(&client).bearer_auth(&token).bearer_auth(&token);
    let unauthenticated = (401, "unauthenticated");
    let basic = opening(&client).basic_auth("job", Some(&token));
    let bare = opening(&client).header("authorization", &token);
    let cookie = opening(&client).header("cookie", format!("token={token}"));
    for request in [opening(&client), twice(), basic, bare, cookie] {
        let answer = scene.refused(request, unauthenticated, &[]).await;
        assert!(!answer.text.contains(&token), "{}", answer.text);
    }
    // None of this used the token up.
    Client::send(opening(&client).bearer_auth(&token)).await.unwrap().expect(201);
}

/// Larger than what the HTTP server reads at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_beyond_all_bounds_reaches_nothing() {
    let scene = scene().await;
    let before = (scene.minted().await, scene.broker.audit().await.len());
    let client = scene.broker.client().with(&"x".repeat(1_000_000));
    let answer = Client::send(opening(&client)).await;
    assert!(answer.is_none_or(|answer| answer.status == 431 && answer.text.is_empty()));
    assert_eq!((scene.minted().await, scene.broker.audit().await.len()), before);
}
