//! Webhooks: a job's end is the end of its tasks, told by whoever knows the secret and by nobody
//! else, however often, and also when it comes before the task.

use std::{fmt::Write as _, time::Duration};

use data_encoding::HEXLOWER;
use dayfly_integration::{
    Answer, Broker, BrokerConfig, Client, Half, Issuer, Postgres, Store, eventually,
};
use reqwest::Method;
use ring::hmac;
use serde_json::{Value, json};

const SECRET: &str = "the secret of these tests";
const DEAD_WITHIN: Duration = Duration::from_secs(20);

async fn start(store: Store, kind: &str) -> Broker {
    start_with(store, kind, "").await
}

/// With these lines more in its section.
async fn start_with(store: Store, kind: &str, more: &str) -> Broker {
    let mut config = BrokerConfig::new(store, None);
    write!(
        config.more,
        "[[webhook]]\nname = \"hook\"\nkind = \"{kind}\"\nissuer = \"ci\"\n\
         secret = {{ env = \"HOOK_SECRET\" }}\n{more}\n"
    )
    .unwrap();
    config.environment.push(("HOOK_SECRET".to_owned(), SECRET.to_owned()));
    Broker::start(config).await
}

/// A job of GitHub's.
#[derive(Clone, Copy)]
struct Job {
    repository: u64,
    run: u64,
    attempt: u64,
    id: u64,
}

const JOB: Job = Job { repository: 456_789, run: 17_000_000_001, attempt: 1, id: 49_000_000_123 };

impl Job {
    /// What its token says.
    fn claims(self) -> Value {
        json!({
            "repository_id": self.repository.to_string(), "run_id": self.run.to_string(),
            "run_attempt": self.attempt.to_string(), "check_run_id": self.id.to_string(),
        })
    }

    fn ended(self, conclusion: &str) -> String {
        let event = json!({
            "action": "completed",
            "workflow_job": {
                "id": self.id, "run_id": self.run, "run_attempt": self.attempt,
                "status": "completed", "conclusion": conclusion, "name": "deploy",
                "check_run_url": format!("https://api.github.test/check-runs/{}", self.id),
            },
            "repository": { "id": self.repository },
        });
        event.to_string()
    }

    fn run_ended(self, conclusion: &str) -> String {
        let event = json!({
            "action": "completed",
            "workflow_run": {
                "id": self.run, "run_attempt": self.attempt, "status": "completed",
                "conclusion": conclusion,
            },
            "repository": { "id": self.repository },
        });
        event.to_string()
    }
}

fn signature(secret: &str, message: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    HEXLOWER.encode(hmac::sign(&key, message).as_ref())
}

async fn post(broker: &Broker, hook: &str, headers: &[(&str, &str)], body: String) -> Answer {
    let path = format!("/api/v1/webhooks/{hook}");
    let mut request = broker.client().request(Method::POST, &path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Client::send(request.body(body)).await.expect("an answer")
}

/// GitHub's delivery `id` of an event.
async fn github(broker: &Broker, id: &str, event: &str, body: String) -> Answer {
    let signature = format!("sha256={}", signature(SECRET, body.as_bytes()));
    let headers = [
        ("content-type", "application/json"),
        ("x-github-event", event),
        ("x-github-delivery", id),
        ("x-hub-signature-256", signature.as_str()),
    ];
    post(broker, "hook", &headers, body).await
}

async fn try_open(broker: &Broker, claims: Value) -> Answer {
    let client = broker.client().with(&broker.issuer.token_with("job", claims));
    client.post("/api/v1/tasks", json!({ "purpose": "test", "ttl_seconds": 600 })).await
}

async fn open(broker: &Broker, claims: Value) -> (String, Client) {
    broker.client().with(&broker.issuer.token_with("job", claims)).open_task().await
}

async fn state(owner: &Client, task: &str) -> String {
    owner.get(&format!("/api/v1/tasks/{task}")).await.unwrap().expect(200).text("/state")
}

async fn metric(broker: &Broker, result: &str) -> u64 {
    let text = broker.client().get("/metrics").await.unwrap().expect(200).text;
    let series = format!("dayfly_webhooks_total{{webhook=\"hook\",result=\"{result}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(series.as_str()));
    value.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ended_ends_its_task_and_its_credentials() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let broker = start(store, "github").await;
        let (task, owner) = open(&broker, JOB.claims()).await;
        let lease = owner.mint("greeter").await.expect(201).text("/id");
        let (other, neighbour) = open(&broker, Job { id: 7, ..JOB }.claims()).await;
        let answer = github(&broker, "one", "workflow_job", JOB.ended("timed_out")).await;
        assert_eq!(answer.expect(202).text, "");
        assert_eq!(state(&owner, &task).await, "failed");
        owner.mint("greeter").await.problem(409, "task_closed");
        let cause = eventually("its credential is dead", DEAD_WITHIN, async || {
            let lease = owner.lease(&lease).await.expect(200);
            (lease.text("/state") == "revoked").then(|| lease.text("/cause"))
        })
        .await;
        assert_eq!(cause, "task_failed");
        assert_eq!(state(&neighbour, &other).await, "open");
        let records = broker.audit().await;
        let closed: Vec<_> = records.iter().filter(|r| r["event"] == "task.closed").collect();
        let [closed] = closed.as_slice() else { panic!("not one: {closed:?}") };
        assert_eq!((&closed["actor"], &closed["task"]), (&json!("webhook|hook"), &json!(task)));
        assert_eq!(closed["detail"]["end"], "failed");
        assert_eq!(metric(&broker, "ended").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_secret_nothing_is_told_and_nothing_is_learnt() {
    let broker = start(Store::Sqlite, "github").await;
    let (task, owner) = open(&broker, JOB.claims()).await;
    let before = broker.audit().await.len();
    let body = JOB.ended("success");
    let good = format!("sha256={}", signature(SECRET, body.as_bytes()));
    let wrong = format!("sha256={}", signature("another secret at all", body.as_bytes()));
    let event = ("x-github-event", "workflow_job");
    let mut texts = Vec::new();
    for (hook, headers, body) in [
        ("hook", vec![event], body.clone()),
        ("hook", vec![event, ("x-hub-signature-256", wrong.as_str())], body.clone()),
        ("hook", vec![event, ("x-hub-signature-256", good.as_str())], format!("{body} ")),
        ("hook", vec![event, ("x-gitlab-token", SECRET)], body.clone()),
        ("hook", vec![event, ("x-hub-signature-256", SECRET)], "not even JSON".to_owned()),
        ("none", vec![event, ("x-hub-signature-256", good.as_str())], body.clone()),
    ] {
        let answer = post(&broker, hook, &headers, body).await.problem(401, "unauthenticated");
        texts.push(answer.without_request_id());
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "one text for all: {texts:?}");
    assert_eq!(state(&owner, &task).await, "open");
    let records = broker.audit().await.split_off(before);
    let [record] = records.as_slice() else { panic!("one record for all of them: {records:?}") };
    assert_eq!(record["event"], "webhook.refused");
    assert_eq!(record["detail"]["webhook"], "hook");
    assert_eq!(record["detail"]["code"], "signature_missing");
    assert_eq!(metric(&broker, "refused").await, 5);
    assert!(!broker.log().contains(SECRET), "the log has the secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_comes_again_changes_nothing() {
    let broker = start(Store::Sqlite, "github").await;
    let (task, owner) = open(&broker, JOB.claims()).await;
    github(&broker, "one", "workflow_job", JOB.ended("success")).await.expect(202);
    assert_eq!(state(&owner, &task).await, "completed");
    let before = broker.audit().await;
    github(&broker, "one", "workflow_job", JOB.ended("success")).await.expect(202);
    // Another delivery of the same end, and another end of the same job: the first one stands.
    github(&broker, "two", "workflow_job", JOB.ended("failure")).await.expect(202);
    assert_eq!(state(&owner, &task).await, "completed");
    let after = broker.audit().await;
    let closings = |records: &[Value]| {
        records.iter().filter(|record| record["event"] == "task.closed").count()
    };
    assert_eq!((closings(&before), closings(&after)), (1, 1));
    assert_eq!((metric(&broker, "ended").await, metric(&broker, "repeated").await), (1, 2));
    let done = owner.complete(&task, "5s").await.expect(200);
    assert_eq!(done.text("/state"), "completed", "completing twice is success");
    owner.mint("greeter").await.problem(409, "task_closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_has_a_size_and_a_form() {
    let broker = start(Store::Sqlite, "github").await;
    let (task, owner) = open(&broker, JOB.claims()).await;
    let padded = |length: usize| {
        let body = JOB.ended("success");
        let padding = " ".repeat(length - body.len());
        format!("{body}{padding}")
    };
    let large = github(&broker, "one", "workflow_job", padded(1024 * 1024 + 1)).await;
    let large = large.problem(413, "body_too_large").without_request_id();
    let proof = [("x-hub-signature-256", "sha256=00")];
    let nowhere = post(&broker, "none", &proof, padded(1024 * 1024 + 1)).await;
    let nowhere = nowhere.problem(413, "body_too_large").without_request_id();
    assert_eq!(large, nowhere, "it does not tell whether there is such a webhook");
    for (event, body) in [
        ("workflow_job", "payload=%7B%7D".to_owned()),
        ("workflow_job", json!({ "action": "completed" }).to_string()),
        ("workflow_run", JOB.ended("success")),
    ] {
        github(&broker, "two", event, body).await.problem(400, "invalid_event");
    }
    assert_eq!(state(&owner, &task).await, "open");
    let whole = github(&broker, "three", "workflow_job", padded(1024 * 1024)).await;
    whole.expect(202);
    assert_eq!(state(&owner, &task).await, "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_job_itself_is_ended() {
    let broker = start(Store::Sqlite, "github").await;
    let (task, owner) = open(&broker, JOB.claims()).await;
    let (plain, unjoined) = open(&broker, json!({})).await;
    let before = broker.audit().await.len();
    for job in [
        Job { repository: 1, ..JOB },
        Job { run: 1, ..JOB },
        Job { attempt: 2, ..JOB },
        Job { id: 1, ..JOB },
    ] {
        let body = job.ended("success");
        let id = signature(SECRET, body.as_bytes());
        github(&broker, &id, "workflow_job", body).await.expect(202);
    }
    github(&broker, "ping", "ping", json!({ "zen": "x" }).to_string()).await.expect(202);
    assert_eq!(state(&owner, &task).await, "open");
    assert_eq!(state(&unjoined, &plain).await, "open");
    assert_eq!(broker.audit().await.len(), before, "nothing happened");
    assert_eq!(metric(&broker, "ignored").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ended_before_its_task_opens_none() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let broker = start(store, "github").await;
        github(&broker, "one", "workflow_job", JOB.ended("cancelled")).await.expect(202);
        assert_eq!(metric(&broker, "unknown_job").await, 1);
        let before = broker.audit().await.len();
        try_open(&broker, JOB.claims()).await.problem(409, "job_ended");
        let records = broker.audit().await.split_off(before);
        let [record] = records.as_slice() else { panic!("not one record: {records:?}") };
        assert_eq!(record["event"], "request.refused");
        assert_eq!(record["detail"]["code"], "job_ended");
        try_open(&broker, Job { id: 7, ..JOB }.claims()).await.expect(201);
        // A re-run is another attempt, with jobs of its own.
        let again = Job { attempt: 2, id: 50_000_000_000, ..JOB };
        let (task, owner) = open(&broker, again.claims()).await;
        owner.mint("greeter").await.expect(201);
        assert_eq!(state(&owner, &task).await, "open");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_does_not_name_its_job_ends_with_its_run() {
    let broker = start(Store::Sqlite, "github").await;
    let mut claims = JOB.claims();
    claims.as_object_mut().unwrap().remove("check_run_id");
    let (task, owner) = open(&broker, claims.clone()).await;
    github(&broker, "one", "workflow_job", JOB.ended("success")).await.expect(202);
    assert_eq!(state(&owner, &task).await, "open", "it may be another job of the run");
    let rerun = Job { attempt: 2, ..JOB };
    github(&broker, "two", "workflow_run", rerun.run_ended("success")).await.expect(202);
    assert_eq!(state(&owner, &task).await, "open");
    github(&broker, "three", "workflow_run", JOB.run_ended("success")).await.expect(202);
    assert_eq!(state(&owner, &task).await, "completed");
    try_open(&broker, claims).await.problem(409, "job_ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_tells_it_too() {
    let broker = start(Store::Sqlite, "gitlab").await;
    let claims = json!({ "project_id": "20", "job_id": "302", "pipeline_id": "574" });
    let (task, owner) = open(&broker, claims).await;
    let event = |status: &str| {
        let event = json!({
            "object_kind": "build", "build_id": 302, "build_status": status, "project_id": 20,
        });
        event.to_string()
    };
    let token = [("x-gitlab-token", SECRET), ("x-gitlab-event", "Job Hook")];
    post(&broker, "hook", &token, event("running")).await.expect(202);
    let member = json!({ "event_name": "user_add_to_group", "group_id": 78 }).to_string();
    post(&broker, "hook", &token, member).await.expect(202);
    post(&broker, "hook", &token[1..], event("failed")).await.problem(401, "unauthenticated");
    assert_eq!(state(&owner, &task).await, "open");
    post(&broker, "hook", &token, event("failed")).await.expect(202);
    assert_eq!(state(&owner, &task).await, "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn buildkite_tells_it_too() {
    const ID: &str = "0184990a-4771-4d4a-9c48-000000000001";
    let broker = start(Store::Sqlite, "buildkite").await;
    let claims = json!({
        "organization_slug": "acme", "pipeline_slug": "app", "build_number": 7, "job_id": ID,
    });
    let (task, owner) = open(&broker, claims).await;
    let event = json!({
        "event": "job.finished", "job": { "id": ID, "state": "canceled" },
        "build": { "number": 7 },
        "pipeline": {
            "slug": "app", "url": "https://api.buildkite.test/v2/organizations/acme/pipelines/app"
        },
    });
    let signed = |at: u64| {
        let signature = signature(SECRET, format!("{at}.{event}").as_bytes());
        format!("timestamp={at},signature={signature}")
    };
    let now = Issuer::now();
    let (old, fresh) = (signed(now - 400), signed(now));
    let old = [("x-buildkite-signature", old.as_str())];
    post(&broker, "hook", &old, event.to_string()).await.problem(401, "unauthenticated");
    assert_eq!(state(&owner, &task).await, "open");
    let fresh = [("x-buildkite-signature", fresh.as_str())];
    post(&broker, "hook", &fresh, event.to_string()).await.expect(202);
    assert_eq!(state(&owner, &task).await, "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_come_keep_nobody_out() {
    let broker = start(Store::Sqlite, "github").await;
    let (task, owner) = open(&broker, JOB.claims()).await;
    let mut halves = Vec::new();
    for number in 0..96 {
        let hook = if number % 2 == 0 { "hook" } else { "none" };
        let path = format!("/api/v1/webhooks/{hook}");
        halves.push(Half::post(broker.port, &path, "x-hub-signature-256: sha256=00\r\n").await);
    }
    github(&broker, "one", "workflow_job", JOB.ended("success")).await.expect(202);
    assert_eq!(state(&owner, &task).await, "completed");
    // Some made room at once, the others had their time.
    for half in halves {
        assert_eq!(half.status().await, 503);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_waits_for_a_store_that_is_away() {
    let store = Postgres::start();
    let broker = start(Store::Postgres(store.url("dayfly")), "github").await;
    let (task, owner) = open(&broker, JOB.claims()).await;
    store.crash();
    github(&broker, "one", "workflow_job", JOB.ended("success")).await.expect(202);
    store.resume();
    let ended = eventually("the task has ended", Duration::from_mins(1), async || {
        let answer = owner.get(&format!("/api/v1/tasks/{task}")).await?;
        (answer.status == 200).then(|| answer.text("/state")).filter(|state| state != "open")
    })
    .await;
    assert_eq!(ended, "completed");
    try_open(&broker, JOB.claims()).await.problem(409, "job_ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_ends_nothing_but_what_it_is_bound_to() {
    let only = format!("only = [\"{}\"]", JOB.repository);
    let broker = start_with(Store::Sqlite, "github", &only).await;
    let other = Job { repository: 1, ..JOB };
    let (task, owner) = open(&broker, JOB.claims()).await;
    let (beyond, neighbour) = open(&broker, other.claims()).await;
    github(&broker, "one", "workflow_job", other.ended("success")).await.expect(202);
    assert_eq!(state(&neighbour, &beyond).await, "open");
    try_open(&broker, other.claims()).await.expect(201);
    assert_eq!(metric(&broker, "outside").await, 1);
    github(&broker, "two", "workflow_job", JOB.ended("success")).await.expect(202);
    assert_eq!(state(&owner, &task).await, "completed");
}
