//! Shared signals: what an identity provider says of a subject ends the subject's tasks, told by
//! whoever has the key and the bearer, and by nobody else.

use std::{fmt::Write as _, time::Duration};

use dayfly_integration::{
    Answer, Broker, BrokerConfig, Client, Half, Issuer, Postgres, Store, eventually,
};
use reqwest::Method;
use serde_json::{Value, json};

const TRANSMITTER: &str = "https://idp.example.test";
const RECEIVER: &str = "https://dayfly.example.test/ssf";
const BEARER: &str = "the bearer of these tests";
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const CREDENTIAL_CHANGE: &str =
    "https://schemas.openid.net/secevent/caep/event-type/credential-change";
const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";
const DEAD_WITHIN: Duration = Duration::from_secs(20);

/// A broker and the transmitter that it listens to.
struct Stage {
    broker: Broker,
    transmitter: Issuer,
}

impl Stage {
    async fn new(store: Store) -> Self {
        Self::with(store, "bearer = { env = \"SSF_BEARER\" }").await
    }

    /// With these lines more in the stream's section.
    async fn with(store: Store, more: &str) -> Self {
        let mut config = BrokerConfig::new(store, None);
        write!(
            config.more,
            "[[ssf]]\nname = \"corporate\"\nissuer = \"{TRANSMITTER}\"\n\
             audience = \"{RECEIVER}\"\njwks_file = \"idp.json\"\nsubjects = [\"ci\"]\n\
             {more}\n"
        )
        .unwrap();
        config.environment.push(("SSF_BEARER".to_owned(), BEARER.to_owned()));
        let mut broker = Broker::configure(config);
        let transmitter = Issuer::new(&broker.path().join("idp.json"));
        broker.resume().await;
        Self { broker, transmitter }
    }

    /// A token about the subject `job` of the issuer `ci`, with other claims on top.
    fn set(&self, id: &str, event: &str, more: Value) -> String {
        let now = Issuer::now();
        let mut set = json!({
            "iss": TRANSMITTER, "aud": RECEIVER, "jti": id, "iat": now,
            "sub_id": { "format": "iss_sub", "iss": Issuer::URL, "sub": "job" },
            "events": { event: { "event_timestamp": now } },
        });
        let Value::Object(more) = more else { panic!("claims are an object") };
        set.as_object_mut().unwrap().extend(more);
        self.transmitter.security_event(&set)
    }

    async fn push(&self, set: String) -> Answer {
        self.push_with(Some(BEARER), "application/secevent+jwt", set).await
    }

    async fn push_with(&self, bearer: Option<&str>, media_type: &str, set: String) -> Answer {
        let client = self.broker.client();
        let client = bearer.map_or_else(|| client.clone(), |bearer| client.with(bearer));
        let request = client.request(Method::POST, "/api/v1/ssf/corporate");
        Client::send(request.header("content-type", media_type).body(set)).await.unwrap()
    }

    async fn open(&self, subject: &str) -> (String, Client) {
        self.broker.client().with(&self.broker.issuer.token(subject)).open_task().await
    }

    async fn try_open(&self, token: &str) -> Answer {
        let wanted = json!({ "purpose": "test", "ttl_seconds": 600 });
        self.broker.client().with(token).post("/api/v1/tasks", wanted).await
    }

    async fn metric(&self, result: &str) -> u64 {
        let text = self.broker.client().get("/metrics").await.unwrap().expect(200).text;
        let series =
            format!("dayfly_security_events_total{{stream=\"corporate\",result=\"{result}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(series.as_str()));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

async fn state(owner: &Client, task: &str) -> String {
    owner.get(&format!("/api/v1/tasks/{task}")).await.unwrap().expect(200).text("/state")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_session_ends_the_subjects_tasks_and_no_others() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let stage = Stage::new(store).await;
        let (task, owner) = stage.open("job").await;
        let lease = owner.mint("greeter").await.expect(201).text("/id");
        let (other, neighbour) = stage.open("other").await;
        let earlier = Issuer::now() - 30;
        let old = json!({ "iat": earlier, "nbf": earlier });
        let old = stage.broker.issuer.token_with("job", old);
        let answer = stage.push(stage.set("e-1", SESSION_REVOKED, json!({}))).await.expect(202);
        assert_eq!(answer.text, "");
        assert_eq!(state(&owner, &task).await, "revoked");
        let cause = eventually("its credential is dead", DEAD_WITHIN, async || {
            let lease = owner.lease(&lease).await.expect(200);
            (lease.text("/state") == "revoked").then(|| lease.text("/cause"))
        })
        .await;
        assert_eq!(cause, "identity_disabled");
        assert_eq!(state(&neighbour, &other).await, "open");
        stage.try_open(&old).await.problem(401, "unauthenticated");
        let records = stage.broker.audit().await;
        let closed: Vec<_> = records.iter().filter(|r| r["event"] == "task.closed").collect();
        let [closed] = closed.as_slice() else { panic!("not one: {closed:?}") };
        assert_eq!(closed["actor"], "ssf|corporate");
        let disabled = records.iter().find(|r| r["event"] == "identity.disabled").unwrap();
        assert_eq!(disabled["detail"]["principal"], "ci|job");
        assert_eq!(disabled["detail"]["reason"], "session-revoked");
        assert_eq!(stage.metric("taken").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_signs_in_after_the_event_goes_on_also_when_it_is_told_again() {
    let stage = Stage::new(Store::Sqlite).await;
    let before = Issuer::now() - 60;
    let event = json!({ CREDENTIAL_CHANGE: {
        "event_timestamp": before, "credential_type": "password", "change_type": "update",
    } });
    let set = stage.set("e-1", CREDENTIAL_CHANGE, json!({ "events": event }));
    stage.push(set.clone()).await.expect(202);
    let (task, owner) = stage.open("job").await;
    stage.push(set).await.expect(202);
    assert_eq!(state(&owner, &task).await, "open");
    assert_eq!((stage.metric("taken").await, stage.metric("repeated").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_concerns_nobody_here_is_taken_and_does_nothing() {
    let stage = Stage::new(Store::Sqlite).await;
    let (task, owner) = stage.open("job").await;
    let elsewhere =
        json!({ "sub_id": { "format": "iss_sub", "iss": "https://c.example", "sub": "job" } });
    let verification = json!({
        "sub_id": { "format": "opaque", "id": "stream-1" },
        "events": { VERIFICATION: { "state": "abc" } },
    });
    let people = format!("{}/people", Issuer::URL);
    let people = json!({ "sub_id": { "format": "iss_sub", "iss": people, "sub": "job" } });
    for (id, event, more) in [
        ("e-1", SESSION_REVOKED, elsewhere),
        ("e-2", VERIFICATION, verification),
        ("e-3", "https://example.test/of-another-day", json!({})),
        ("e-4", SESSION_REVOKED, people),
        ("e-5", SESSION_REVOKED, json!({ "sub_id": { "format": "email", "email": "job" } })),
    ] {
        stage.push(stage.set(id, event, more)).await.expect(202);
    }
    assert_eq!(state(&owner, &task).await, "open");
    assert_eq!(stage.metric("ignored").await, 5);
    let records = stage.broker.audit().await;
    let ignored = records.iter().filter(|record| record["event"] == "ssf.ignored");
    assert_eq!(ignored.count(), 5);
    assert!(!records.iter().any(|record| record["event"] == "identity.disabled"), "{records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_may_stand_in_an_alias_or_be_opaque() {
    let stage = Stage::new(Store::Sqlite).await;
    let aliases = json!({ "format": "aliases", "identifiers": [
        { "format": "email", "email": "a@example.test" },
        { "format": "iss_sub", "iss": Issuer::URL, "sub": "a" },
    ] });
    let complex = json!({ "format": "complex", "user": { "format": "opaque", "id": "b" } });
    for (subject, sub_id) in [("a", aliases), ("b", complex)] {
        let (task, owner) = stage.open(subject).await;
        let set = stage.set(subject, SESSION_REVOKED, json!({ "sub_id": sub_id }));
        stage.push(set).await.expect(202);
        assert_eq!(state(&owner, &task).await, "revoked", "{subject}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_key_and_bearer_nothing_ends() {
    let stage = Stage::new(Store::Sqlite).await;
    let (task, owner) = stage.open("job").await;
    let before = stage.broker.audit().await.len();
    let set = |more| stage.set("e-1", SESSION_REVOKED, more);
    let media_type = "application/secevent+jwt";
    let mut texts = Vec::new();
    for bearer in [None, Some("another bearer altogether")] {
        let answer = stage.push_with(bearer, media_type, set(json!({}))).await;
        texts.push(answer.problem(401, "unauthenticated").without_request_id());
    }
    let request = stage.broker.client().with(BEARER).request(Method::POST, "/api/v1/ssf/none");
    let none = Client::send(request.header("content-type", media_type).body(set(json!({})))).await;
    texts.push(none.unwrap().problem(401, "unauthenticated").without_request_id());
    texts.dedup();
    assert_eq!(texts.len(), 1, "one text for all: {texts:?}");
    let now = Issuer::now();
    let forged = stage.broker.issuer.security_event(&json!({
        "iss": TRANSMITTER, "aud": RECEIVER, "jti": "e-1", "iat": now,
        "sub_id": { "format": "iss_sub", "iss": Issuer::URL, "sub": "job" },
        "events": { SESSION_REVOKED: {} },
    }));
    for (set, err) in [
        (forged, "invalid_key"),
        (set(json!({ "aud": "https://other.example" })), "invalid_audience"),
        (set(json!({ "iss": "https://other.example" })), "invalid_issuer"),
        (set(json!({ "iat": now + 600 })), "invalid_request"),
        (set(json!({ "iat": now - 8 * 86_400 })), "invalid_request"),
        (set(json!({ "sub": "job" })), "invalid_request"),
        (set(json!({ "jti": 7 })), "invalid_request"),
        (stage.broker.issuer.token("job"), "invalid_request"),
        ("not a token".to_owned(), "invalid_request"),
        (String::new(), "invalid_request"),
    ] {
        let answer = stage.push(set).await.expect(400);
        assert_eq!(answer.text("/err"), err, "{}", answer.text);
        assert!(!answer.text("/description").is_empty());
        assert_eq!(answer.header("content-type"), "application/json");
    }
    let typed = stage.push_with(Some(BEARER), "application/json", set(json!({}))).await;
    assert_eq!(typed.expect(400).text("/err"), "invalid_request");
    stage.push("x".repeat(16 * 1024 + 1)).await.problem(413, "body_too_large");
    assert_eq!(state(&owner, &task).await, "open");
    let records = stage.broker.audit().await.split_off(before);
    let [record] = records.as_slice() else { panic!("one record for all of them: {records:?}") };
    assert_eq!(
        (&record["event"], &record["detail"]["stream"]),
        (&json!("ssf.refused"), &json!("corporate"),)
    );
    assert!(!stage.broker.log().contains(BEARER), "the log has the bearer");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_do_not_come_keep_no_other_out() {
    let stage = Stage::with(Store::Sqlite, "").await;
    let (task, owner) = stage.open("job").await;
    let media_type = "application/secevent+jwt";
    let mut halves = Vec::new();
    for _ in 0..96 {
        let header = format!("content-type: {media_type}\r\n");
        halves.push(Half::post(stage.broker.port, "/api/v1/ssf/corporate", &header).await);
    }
    let set = stage.set("e-1", SESSION_REVOKED, json!({}));
    stage.push_with(None, media_type, set).await.expect(202);
    assert_eq!(state(&owner, &task).await, "revoked");
    // Some made room at once, the others had their time.
    for half in halves {
        assert_eq!(half.status().await, 503);
    }
}
