//! Tokens in places that are not theirs: nobody is named by them, nothing is opened, and whoever
//! tries hears one answer, whatever was wrong.

use std::collections::BTreeSet;

use dayfly_integration::{Broker, Issuer};
use serde_json::json;

use super::{Client, TASKS, ada, all_tasks, broker, open, person_in, records, try_open};
use crate::binding::Holder;

/// A token in the person's place, and what the audit log says of it.
type Attack = (&'static str, String, &'static str);

/// Tokens that are no person's, or no good.
fn attacks(broker: &Broker, job: &str, task_token: &str) -> Vec<Attack> {
    let now = Issuer::now();
    let people = format!("{}/people", Issuer::URL);
    let signed_by_ci = broker
        .issuer
        .token_with("ada@example.test", json!({ "iss": people, "groups": ["on-call"] }));
    let with = |more| person_in(broker, "on-call", more);
    let ada = ada(broker);
    let (message, _) = ada.rsplit_once('.').unwrap();
    let (_, signature) = job.rsplit_once('.').unwrap();
    let holder = Holder::new();
    vec![
        ("another workload's token", broker.issuer.token("other"), "not_a_person"),
        ("the workload's own token once more", job.to_owned(), "not_a_person"),
        ("a task's token", task_token.to_owned(), "malformed"),
        ("no token at all", String::new(), "malformed"),
        ("a name instead of a token", "people|ada@example.test".to_owned(), "malformed"),
        ("a person's token that another issuer signed", signed_by_ci, "unknown_key"),
        ("a token with another's signature", format!("{message}.{signature}"), "bad_signature"),
        ("a token for another service", with(json!({ "aud": "https://other" })), "wrong_audience"),
        (
            "a token of an issuer that nobody configured",
            with(json!({ "iss": "https://evil.example" })),
            "unknown_issuer",
        ),
        (
            "a token that has expired",
            with(json!({ "iat": now - 900, "nbf": now - 900, "exp": now - 600 })),
            "expired",
        ),
        (
            "a token that was bound to a key which nobody proves",
            with(json!({ "cnf": { "jkt": holder.thumbprint() } })),
            "token_bound_to_key",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_no_person_is_not_taken_for_one() {
    let broker = broker().await;
    let (task, owner) = open(&broker).await;
    let opened = broker.client().with(&broker.issuer.token("job"));
    let body = json!({ "purpose": "test", "ttl_seconds": 600 });
    let task_token = opened.post(TASKS, body).await.expect(201).text("/token");
    let job = broker.issuer.token("job");
    let mut answers = BTreeSet::new();
    for (name, token, code) in attacks(&broker, &job, &task_token) {
        let before = records(&broker, "identity.refused").await.len();
        let answer = try_open(&broker, &job, &token, &["greeter"]).await;
        let answer = answer.problem(422, "person_not_accepted");
        assert_eq!(answer.text("/errors/0/pointer"), "/on_behalf_of", "{name}");
        answers.insert(answer.without_request_id().to_string());
        let refused = records(&broker, "identity.refused").await;
        let [refusal] = &refused[before..] else { panic!("{name}: {refused:?}") };
        assert_eq!(refusal["detail"]["code"], code, "{name}");
        assert_eq!(refusal["detail"]["shown_by"], "ci|job", "{name}");
    }
    assert_eq!(answers.len(), 1, "one text for all: {answers:?}");
    assert_eq!(all_tasks(&broker).await.len(), 2, "none but the two from before");
    assert!(records(&broker, "lease.allowed").await.is_empty());
    assert_eq!(super::state(&owner, &task).await, "open");
    // Nor was the workload's token used up by any of it.
    try_open(&broker, &job, &ada(&broker), &["greeter"]).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_no_workload_acts_for_nobody() {
    let broker = broker().await;
    let (person, job) = (ada(&broker), broker.issuer.token("job"));
    let bob = person_in(&broker, "on-call", json!({ "sub": "bob@example.test" }));
    let denied = try_open(&broker, &bob, &person, &[]).await.problem(403, "denied");
    assert_eq!(denied.text("/denied_by"), "base/programs-act-for-people");
    let swapped = try_open(&broker, &person, &job, &[]).await;
    swapped.problem(422, "person_not_accepted");
    let herself = try_open(&broker, &person, &person, &[]).await.problem(403, "denied");
    assert_eq!(herself.text("/denied_by"), "base/programs-act-for-people");
    // A task acts for whom it was opened for, and names nobody else.
    let (_, owner) = open(&broker).await;
    let wanted = json!({ "purpose": "p", "ttl_seconds": 60, "on_behalf_of": bob });
    owner.post(TASKS, wanted).await.problem(401, "unauthenticated");
    let named = json!({ "role": "greeter", "on_behalf_of": bob });
    owner.post("/api/v1/leases", named).await.problem(400, "invalid_body");
    assert_eq!(all_tasks(&broker).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_bound_to_the_key_of_the_request_names_its_person() {
    let broker = broker().await;
    let (client, holder) = (broker.client(), Holder::new());
    let cnf = json!({ "cnf": { "jkt": holder.thumbprint() } });
    let (bound, job) = (person_in(&broker, "on-call", cnf), broker.issuer.token("job"));
    let body = json!({ "purpose": "test", "ttl_seconds": 600, "on_behalf_of": bound });
    let request = holder.request(&client, (reqwest::Method::POST, TASKS), ("Bearer", &job));
    let opened = Client::send(request.json(&body)).await.unwrap().expect(201);
    assert_eq!(opened.text("/binding"), "key");
}
