//! Heartbeats: a task that falls silent is lost with its credentials, and nobody is lost for a
//! silence that the broker could not have heard.

use std::time::Duration;

use dayfly_integration::{Answer, Broker, BrokerConfig, Client, Postgres, Store, eventually};
use dayfly_lease::spawn;
use serde_json::{Value, json};

/// What the tests' tasks ask for: the shortest that a configuration can allow.
const EVERY: Duration = Duration::from_secs(5);
/// A silence is noticed within this: the interval, a quarter of it, a restart, and some looks.
const LOST_WITHIN: Duration = Duration::from_secs(40);

async fn start(store: Store) -> Broker {
    let mut config = BrokerConfig::new(store, None);
    config.more.push_str("[tasks]\nheartbeat_min = \"5s\"\n");
    Broker::start(config).await
}

async fn open(broker: &Broker, subject: &str) -> (String, Client) {
    let client = broker.client().with(&broker.issuer.token(subject));
    let body = json!({
        "purpose": "test", "ttl_seconds": 600, "heartbeat_seconds": EVERY.as_secs()
    });
    let opened = client.post("/api/v1/tasks", body).await.expect(201);
    assert!(opened.text("/lost_at") < opened.text("/expires_at"));
    (opened.text("/id"), client.with(&opened.text("/token")))
}

async fn beat(owner: &Client, task: &str) -> Answer {
    owner.post(&format!("/api/v1/tasks/{task}/heartbeat"), json!({})).await
}

/// Beats until one is refused.
async fn speak(owner: Client, task: String) {
    while beat(&owner, &task).await.status == 200 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn show(owner: &Client, task: &str) -> Answer {
    owner.get(&format!("/api/v1/tasks/{task}")).await.unwrap().expect(200)
}

async fn is_lost(owner: &Client, task: &str) {
    eventually("the task is lost", LOST_WITHIN, async || {
        let state = show(owner, task).await.text("/state");
        assert!(["open", "lost"].contains(&state.as_str()), "{state}");
        (state == "lost").then_some(())
    })
    .await;
}

/// The events of a task, with how it ended.
async fn events(broker: &Broker, task: &str) -> Vec<(String, String)> {
    let of_task = broker.audit().await.into_iter().filter(|record| record["task"] == task);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of_task.map(|record| (text(&record["event"]), text(&record["detail"]["end"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_falls_silent_is_lost_with_its_credentials() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let broker = start(store).await;
        let (silent, owner) = open(&broker, "silent").await;
        let (heard, other) = open(&broker, "heard").await;
        let lease = owner.mint("greeter").await.expect(201).text("/id");
        let kept = other.mint("greeter").await.expect(201).text("/id");
        let first = show(&other, &heard).await;
        assert_eq!(first.body["heartbeat_seconds"], EVERY.as_secs());
        let beating = spawn(speak(other.clone(), heard.clone()));
        is_lost(&owner, &silent).await;
        let cause = eventually("its credential is dead", LOST_WITHIN, async || {
            let lease = owner.lease(&lease).await.expect(200);
            (lease.text("/state") == "revoked").then(|| lease.text("/cause"))
        })
        .await;
        assert_eq!(cause, "task_lost");
        let ended = beat(&owner, &silent).await.problem(409, "task_closed");
        assert_eq!(ended.text("/detail"), "the task has ended: lost");
        owner.mint("greeter").await.problem(409, "task_closed");
        let closed = show(&owner, &silent).await;
        assert!(closed.body.get("lost_at").is_none(), "{}", closed.text);

        let answer = beat(&other, &heard).await.expect(200);
        assert_eq!(answer.text("/state"), "open");
        assert!(answer.text("/lost_at") > first.text("/lost_at"));
        assert_eq!(answer.text("/expires_at"), first.text("/expires_at"), "the deadline stays");
        assert_eq!(other.lease(&kept).await.text("/state"), "active");
        let ends: Vec<_> =
            events(&broker, &silent).await.into_iter().filter(|(_, end)| !end.is_empty()).collect();
        assert_eq!(ends, [("task.closed".to_owned(), "lost".to_owned())]);
        // Opened, allowed, active, delivered: no record for each beat.
        assert_eq!(events(&broker, &heard).await.len(), 4);
        assert!(!beating.is_finished(), "a beat was refused");
        beating.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_away_loses_nobody() {
    let mut broker = start(Store::Sqlite).await;
    let (task, owner) = open(&broker, "job").await;
    broker.kill();
    tokio::time::sleep(EVERY * 2).await;
    broker.resume().await;
    // It is overdue from the first look on. Whoever was kept waiting has an interval.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(show(&owner, &task).await.text("/state"), "open");
    beat(&owner, &task).await.expect(200);
    is_lost(&owner, &task).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_away_loses_nobody() {
    let postgres = Postgres::start();
    let broker = start(Store::Postgres(postgres.url("dayfly"))).await;
    let (task, owner) = open(&broker, "job").await;
    // Long enough for the broker to have heard a whole interval before.
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        beat(&owner, &task).await.expect(200);
    }
    postgres.crash();
    tokio::time::sleep(EVERY * 2).await;
    postgres.resume();
    eventually("it is heard again", EVERY * 3, async || {
        let answer = beat(&owner, &task).await;
        assert!([200, 503].contains(&answer.status), "{}", answer.text);
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(show(&owner, &task).await.text("/state"), "open");
    is_lost(&owner, &task).await;
}

/// The store takes no beats and everything else, so both replicas go on looking for the silent; one
/// of them is asked and turns every beat away.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_turns_away_no_replica_takes_for_silence() {
    let postgres = Postgres::start();
    let broker = start(Store::Postgres(postgres.url("dayfly"))).await;
    let _other = broker.replica().await;
    let (task, owner) = open(&broker, "job").await;
    // Long enough for both to have heard a whole interval before.
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        beat(&owner, &task).await.expect(200);
    }
    let no_beats = "CHECK (ended IS NOT NULL OR lost_at IS NULL) NOT VALID";
    postgres.sql("dayfly", &format!("ALTER TABLE tasks ADD CONSTRAINT no_beats {no_beats}"));
    let mut turned_away = 0;
    for _ in 0..(EVERY * 3).as_secs() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let answer = beat(&owner, &task).await;
        if answer.status == 200 {
            // Soon after the last one that was written there is nothing to write.
            continue;
        }
        answer.problem(503, "store_unavailable");
        turned_away += 1;
    }
    assert!(turned_away > 10, "{turned_away}");
    assert_eq!(show(&owner, &task).await.text("/state"), "open");
    postgres.sql("dayfly", "ALTER TABLE tasks DROP CONSTRAINT no_beats");
    beat(&owner, &task).await.expect(200);
    is_lost(&owner, &task).await;
}

/// Whoever waits for a mint has no token to beat with yet.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_the_answer_is_not_silent() {
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    config.more.push_str("[tasks]\nheartbeat_min = \"5s\"\n");
    let broker = Broker::start(config.failpoints("mint.after_backend=delay:10000")).await;
    // Long enough for the broker to have heard a whole interval before.
    tokio::time::sleep(EVERY).await;
    let body = json!({
        "purpose": "test", "ttl_seconds": 600, "heartbeat_seconds": EVERY.as_secs(),
        "roles": ["greeter"]
    });
    let client = broker.client().with(&broker.issuer.token("slow"));
    let opened = client.post("/api/v1/tasks", body).await.expect(201);
    let (task, owner) = (opened.text("/id"), client.with(&opened.text("/token")));
    let shown = show(&owner, &task).await;
    assert!(shown.text("/lost_at") >= opened.text("/lost_at"), "as it was heard last");
    // Most of an interval after the answer.
    tokio::time::sleep(EVERY * 4 / 5).await;
    beat(&owner, &task).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_heartbeat_is_refused() {
    let broker = start(Store::Sqlite).await;
    let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    beat(&owner, &task).await.problem(409, "no_heartbeat");
    let shown = show(&owner, &task).await;
    assert!(shown.body.get("heartbeat_seconds").is_none(), "{}", shown.text);
    for seconds in [i64::MIN, -1, 0, 4, 601, i64::MAX] {
        let client = broker.client().with(&broker.issuer.token("odd"));
        let body = json!({ "purpose": "p", "ttl_seconds": 60, "heartbeat_seconds": seconds });
        let answer = client.post("/api/v1/tasks", body).await.problem(422, "invalid_heartbeat");
        assert_eq!(answer.text("/errors/0/pointer"), "/heartbeat_seconds");
    }
}
