//! Disabled identities: their tasks end, they open no more, and nobody else notices.

use std::time::Duration;

use dayfly_integration::{
    Answer, Broker, BrokerConfig, Client, Issuer, Postgres, Store, eventually,
};
use serde_json::{Value, json};

const DEAD_WITHIN: Duration = Duration::from_secs(20);

fn admin(broker: &Broker) -> Client {
    broker.client().with(&broker.admin())
}

async fn disable(broker: &Broker, subject: &str, cut_off: Option<String>) -> Answer {
    let mut wanted = json!({ "issuer": "ci", "subject": subject, "reason": "it leaked" });
    if let Some(cut_off) = cut_off {
        wanted.as_object_mut().unwrap().insert("cut_off".into(), json!(cut_off));
    }
    admin(broker).post("/api/v1/identities/disable", wanted).await
}

async fn enable(broker: &Broker, subject: &str) -> Answer {
    let wanted = json!({ "issuer": "ci", "subject": subject, "reason": "rotated" });
    admin(broker).post("/api/v1/identities/enable", wanted).await
}

async fn try_open(broker: &Broker, token: &str) -> Answer {
    let wanted = json!({ "purpose": "test", "ttl_seconds": 600 });
    broker.client().with(token).post("/api/v1/tasks", wanted).await
}

async fn state(owner: &Client, task: &str) -> String {
    owner.get(&format!("/api/v1/tasks/{task}")).await.unwrap().expect(200).text("/state")
}

/// Seconds since 1970 as RFC 3339 has them.
fn rfc3339(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap();
    dayfly_backend_sdk::Timestamp::from_seconds(seconds).rfc3339()
}

async fn listed(broker: &Broker) -> Vec<Value> {
    let answer = admin(broker).get("/api/v1/identities/disabled").await.unwrap().expect(200);
    answer.body["data"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_identity_loses_what_it_has_and_gets_no_more() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let broker = Broker::start(BrokerConfig::new(store, Some(&postgres))).await;
        let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
        let lease = owner.mint("reader").await.expect(201);
        let url = lease.text("/credential/url");
        assert!(postgres.lets_in(&url));
        let other = broker.client().with(&broker.issuer.token("other"));
        let (neighbour, other) = other.open_task().await;
        let answer = disable(&broker, "job", None).await.expect(200);
        assert_eq!(answer.text("/principal"), "ci|job");
        assert_eq!(answer.body["tasks"], json!([task]));
        assert_eq!(state(&owner, &task).await, "revoked");
        owner.mint("greeter").await.problem(409, "task_closed");
        let cause = eventually("its credential is dead", DEAD_WITHIN, async || {
            let lease = owner.lease(&lease.text("/id")).await.expect(200);
            (lease.text("/state") == "revoked").then(|| lease.text("/cause"))
        })
        .await;
        assert_eq!(cause, "identity_disabled");
        assert!(!postgres.lets_in(&url), "a login of a disabled identity");
        let token = broker.issuer.token("job");
        let refused = try_open(&broker, &token).await.problem(401, "unauthenticated");
        let unknown = try_open(&broker, "nonsense").await.problem(401, "unauthenticated");
        assert_eq!(refused.without_request_id(), unknown.without_request_id());
        let asked = broker.client().with(&token).get("/api/v1/whoami").await.unwrap();
        asked.problem(401, "unauthenticated");
        assert_eq!(state(&other, &neighbour).await, "open");
        let records = broker.audit().await;
        let of = |event: &str| records.iter().find(|record| record["event"] == event).cloned();
        let record = of("identity.disabled").expect("a record");
        assert_eq!(record["actor"], "people|root@example.test");
        assert_eq!(record["detail"]["principal"], "ci|job");
        assert_eq!(record["detail"]["reason"], "it leaked");
        assert_eq!(of("task.closed").expect("a record")["detail"]["cause"], "identity_disabled");
        let refusal = of("identity.refused").expect("a record");
        assert_eq!(refusal["detail"]["code"], "identity_disabled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_off_lets_in_whoever_signed_in_since() {
    let broker = Broker::start(BrokerConfig::new(Store::Sqlite, None)).await;
    let now = Issuer::now();
    let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    disable(&broker, "job", Some(rfc3339(now - 60))).await.expect(200);
    assert_eq!(state(&owner, &task).await, "revoked", "whatever is open ends");
    let old = broker.issuer.token_with("job", json!({ "iat": now - 60, "nbf": now - 60 }));
    try_open(&broker, &old).await.problem(401, "unauthenticated");
    try_open(&broker, &broker.issuer.token("job")).await.expect(201);
    let rows = listed(&broker).await;
    let [row] = rows.as_slice() else { panic!("not one: {rows:?}") };
    assert_eq!(row["cut_off"], rfc3339(now - 60));
    // In the future: nothing that is issued until then is good, also afterwards.
    disable(&broker, "job", Some(rfc3339(now + 600))).await.expect(200);
    try_open(&broker, &broker.issuer.token("job")).await.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_enabled_again_goes_on() {
    let broker = Broker::start(BrokerConfig::new(Store::Sqlite, None)).await;
    disable(&broker, "job", None).await.expect(200);
    disable(&broker, "job", Some(rfc3339(Issuer::now()))).await.expect(200);
    let rows = listed(&broker).await;
    let [row] = rows.as_slice() else { panic!("not one: {rows:?}") };
    assert_eq!((&row["principal"], &row["cut_off"]), (&json!("ci|job"), &Value::Null));
    assert_eq!(enable(&broker, "job").await.expect(200).body["was_disabled"], true);
    try_open(&broker, &broker.issuer.token("job")).await.expect(201);
    assert_eq!(enable(&broker, "job").await.expect(200).body["was_disabled"], false);
    assert!(listed(&broker).await.is_empty());
}

/// Whoever is let in can be disabled, and what could not be disabled is not let in.
#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_nobody_could_disable_is_not_let_in() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let broker = Broker::start(BrokerConfig::new(store, None)).await;
        let longest = "x".repeat(2_048);
        let (task, owner) = broker.client().with(&broker.issuer.token(&longest)).open_task().await;
        assert_eq!(disable(&broker, &longest, None).await.expect(200).body["tasks"], json!([task]));
        assert_eq!(state(&owner, &task).await, "revoked");
        for bad in [format!("{longest}x"), "job\u{1}".to_owned(), "job\u{0}".to_owned()] {
            let token = broker.issuer.token(&bad);
            try_open(&broker, &token).await.problem(401, "unauthenticated");
            let record = broker.audit().await.pop().unwrap();
            assert_eq!(record["event"], "identity.refused");
            assert_eq!(record["detail"]["code"], "subject_refused");
            disable(&broker, &bad, None).await.problem(422, "invalid_subject");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_administrator_is_nobody() {
    let broker = Broker::start(BrokerConfig::new(Store::Sqlite, None)).await;
    let mallory = "mallory@example.test";
    let iss = format!("{}/people", Issuer::URL);
    let token = broker.people.token_with(mallory, json!({ "iss": iss }));
    let wanted = json!({ "issuer": "people", "subject": mallory, "reason": "left" });
    admin(&broker).post("/api/v1/identities/disable", wanted.clone()).await.expect(200);
    let mallory = broker.client().with(&token);
    let answer = mallory.post("/api/v1/identities/enable", wanted).await;
    answer.problem(401, "unauthenticated");
    mallory.get("/api/v1/leases").await.unwrap().problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_nobody_is_refused() {
    let broker = Broker::start(BrokerConfig::new(Store::Sqlite, None)).await;
    let path = "/api/v1/identities/disable";
    for (wanted, code) in [
        (json!({ "issuer": "cj", "subject": "job", "reason": "x" }), "unknown_issuer"),
        (json!({ "issuer": "ci", "subject": "", "reason": "x" }), "invalid_subject"),
        (json!({ "issuer": "ci", "subject": "a\u{0}", "reason": "x" }), "invalid_subject"),
        (json!({ "issuer": "ci", "subject": "x".repeat(2_049), "reason": "x" }), "invalid_subject"),
        (json!({ "issuer": "ci", "subject": "job", "reason": "a\nb" }), "invalid_reason"),
        (
            json!({ "issuer": "ci", "subject": "job", "reason": "x", "cut_off": "soon" }),
            "invalid_cut_off",
        ),
    ] {
        admin(&broker).post(path, wanted).await.problem(422, code);
    }
    assert!(listed(&broker).await.is_empty());
}
