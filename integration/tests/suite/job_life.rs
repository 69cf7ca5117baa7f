//! The life of a CI job's credential, from its token to its verified death, for each platform and
//! for each of the ways in which its end is noticed: the webhook; the poller, where the webhook is
//! lost; silence, where the runner is killed; and the deadline, where all of them fail.
//!
//! Each test prints what happened and when, since its broker was ready: its output is the record of
//! a run.

use std::{fmt::Write as _, time::Duration};

use dayfly_backend_sdk::Timestamp;
use dayfly_integration::{
    Answer, Broker, BrokerConfig, Client, Issuer, Postgres, Store, eventually,
};
use dayfly_lease::{Clock as _, SystemClock, spawn};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::platforms::{Api, Canned, HOOK_SECRET, Platform};

/// The shortest heartbeat that a configuration can allow.
const BEAT: Duration = Duration::from_secs(5);
/// For how long the runner beats until it is killed.
const RUNNER_LIVES: Duration = Duration::from_secs(8);
/// The deadline of a task whose end nobody notices. A poller has asked by then.
const DEADLINE: Duration = Duration::from_secs(26);
/// All of it, from the moment that the end could be noticed.
const DEAD_WITHIN: Duration = Duration::from_secs(45);

/// What every life leaves in the audit log, in this order.
const EVENTS: [&str; 7] = [
    "task.opened",
    "lease.allowed",
    "lease.active",
    "lease.delivered",
    "task.closed",
    "lease.revoking",
    "lease.revoked",
];

/// How a job's end is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The platform tells it.
    Webhook,
    /// The webhook is lost, and the platform says so when it is asked.
    Poller,
    /// The runner is killed, and the platform has not noticed.
    Silence,
    /// No webhook, no heartbeat, and no answer.
    Deadline,
}

impl Fate {
    /// The task's end, the cause of its credential's death, and who says so; `NAME` is the
    /// platform's.
    fn expected(self) -> [&'static str; 3] {
        match self {
            Self::Webhook => ["completed", "task_completed", "webhook|NAME"],
            Self::Poller => ["failed", "task_failed", "poller|NAME"],
            Self::Silence => ["lost", "task_lost", "reaper"],
            Self::Deadline => ["expired", "expired", "reaper"],
        }
    }

    /// What a job asks for when it opens its task.
    fn wanted(self) -> Value {
        let ttl = if self == Self::Deadline { DEADLINE } else { Duration::from_mins(10) };
        let mut wanted = json!({ "purpose": "deploy", "ttl_seconds": ttl.as_secs() });
        if self == Self::Silence {
            wanted["heartbeat_seconds"] = json!(BEAT.as_secs());
        }
        wanted
    }
}

/// A broker that three platforms' jobs come to, and a database to reach.
struct Stage {
    broker: Broker,
    postgres: Postgres,
    api: Api,
    /// In the order of the platforms.
    issuers: Vec<Issuer>,
    ready: Timestamp,
}

impl Stage {
    async fn new() -> Self {
        let (postgres, api) = (Postgres::start(), Api::start().await);
        let store = Store::Postgres(postgres.url("dayfly"));
        let mut config = BrokerConfig::new(store, Some(&postgres));
        config.more.push_str("[tasks]\nheartbeat_min = \"5s\"\n");
        for platform in Platform::ALL {
            let (name, url, audience) = (platform.name(), Issuer::URL, Issuer::AUDIENCE);
            write!(
                config.more,
                "[[issuer]]\nname = \"{name}\"\nissuer = \"{url}/{name}\"\n\
                 audience = \"{audience}\"\njwks_file = \"{name}.json\"\n\
                 [[webhook]]\nname = \"{name}\"\nkind = \"{name}\"\nissuer = \"{name}\"\n\
                 secret = {{ env = \"HOOK_SECRET\" }}\n\
                 [[poller]]\nname = \"{name}\"\nkind = \"{name}\"\nissuer = \"{name}\"\n\
                 token = {{ env = \"POLL_TOKEN\" }}\napi_url = \"{}\"\ninterval = \"10s\"\n",
                api.url
            )
            .unwrap();
        }
        config.environment.push(("HOOK_SECRET".to_owned(), HOOK_SECRET.to_owned()));
        config.environment.push(("POLL_TOKEN".to_owned(), "a-token-of-these-tests".to_owned()));
        let mut broker = Broker::configure(config);
        let jwks = |platform: Platform| broker.path().join(format!("{}.json", platform.name()));
        let issuers = Platform::ALL.map(|platform| Issuer::new(&jwks(platform)));
        broker.resume().await;
        for platform in Platform::ALL {
            platform.show(&api, false);
        }
        Self { broker, postgres, api, issuers: issuers.into(), ready: SystemClock.now() }
    }

    /// The token of a platform's job.
    fn token(&self, platform: Platform) -> String {
        let index = Platform::ALL.iter().position(|one| *one == platform).unwrap();
        let mut claims = platform.claims();
        claims["iss"] = json!(format!("{}/{}", Issuer::URL, platform.name()));
        self.issuers[index].token_with("job", claims)
    }

    /// The records of a task, oldest first.
    async fn records(&self, task: &str) -> Vec<Value> {
        let all = self.broker.audit().await;
        all.into_iter().filter(|record| record["task"] == task).collect()
    }
}

/// What happened, and when.
struct Timeline {
    platform: Platform,
    ready: Timestamp,
    lines: Vec<(Timestamp, String)>,
}

impl Timeline {
    fn new(stage: &Stage, platform: Platform) -> Self {
        Self { platform, ready: stage.ready, lines: Vec::new() }
    }

    /// Notes what the test did or saw just now.
    fn note(&mut self, what: impl Into<String>) {
        self.lines.push((SystemClock.now(), what.into()));
    }

    /// Notes what the broker has written down, by the store's clock, which is this machine's.
    fn note_records(&mut self, records: &[Value]) {
        for record in records {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let at = Timestamp::parse_rfc3339(&text(&record["at"])).unwrap();
            let (event, actor) = (text(&record["event"]), text(&record["actor"]));
            let cause = text(&record["detail"]["cause"]);
            let cause = if cause.is_empty() { cause } else { format!(", {cause}") };
            self.lines.push((at, format!("  audit: {event} by {actor}{cause}")));
        }
    }

    /// Everything in the order of its time.
    fn text(mut self) -> String {
        self.lines.sort_by_key(|(at, _)| *at);
        let mut text = format!("{}\n", self.platform.name());
        for (at, what) in self.lines {
            writeln!(text, "{:8.2}s  {what}", at.since(self.ready).as_secs_f64()).unwrap();
        }
        text
    }
}

async fn beat(owner: &Client, task: &str) -> Answer {
    owner.post(&format!("/api/v1/tasks/{task}/heartbeat"), json!({})).await
}

/// A runner that beats until it is killed.
fn runner(owner: &Client, task: &str) -> JoinHandle<()> {
    let (owner, task) = (owner.clone(), task.to_owned());
    spawn(async move {
        loop {
            beat(&owner, &task).await.expect(200);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}

/// Has the job of `platform` end, noticed in the way of `fate` alone.
async fn end(
    stage: &Stage,
    platform: Platform,
    fate: Fate,
    (owner, task): (&Client, &str),
    timeline: &mut Timeline,
) {
    match fate {
        Fate::Webhook => {
            platform.tell(&stage.broker).await.expect(202);
            timeline.note("the job succeeds, and its webhook is taken");
        }
        Fate::Poller => {
            platform.show(&stage.api, true);
            timeline.note("the job fails, and its webhook is lost");
        }
        Fate::Silence => {
            let running = runner(owner, task);
            tokio::time::sleep(RUNNER_LIVES).await;
            assert!(!running.is_finished(), "a beat was refused");
            running.abort();
            timeline.note("the runner is killed");
        }
        Fate::Deadline => {
            stage.api.outage(Some(Canned::refusal(503)));
            timeline.note("the job is gone, its webhook is lost, and its platform does not answer");
        }
    }
}

/// One life; gives its timeline.
async fn live(stage: &Stage, platform: Platform, fate: Fate) -> String {
    let mut timeline = Timeline::new(stage, platform);
    let client = stage.broker.client().with(&stage.token(platform));
    let opened = client.post("/api/v1/tasks", fate.wanted()).await.expect(201);
    let (task, owner) = (opened.text("/id"), client.with(&opened.text("/token")));
    timeline.note("the job's token opens a task");
    let lease = owner.mint("reader").await.expect(201);
    let (id, url) = (lease.text("/id"), lease.text("/credential/url"));
    timeline.note("a role of PostgreSQL is handed out");
    let read = stage.postgres.psql(&url, "SELECT text FROM app.notes");
    assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), "hello", "{read:?}");
    timeline.note("it logs in and reads");
    end(stage, platform, fate, (&owner, task.as_str()), &mut timeline).await;

    let [ended, cause, actor] = fate.expected();
    let died_of = eventually("the credential is verified dead", DEAD_WITHIN, async || {
        let lease = owner.lease(&id).await.expect(200);
        (lease.text("/state") == "revoked").then(|| lease.text("/cause"))
    })
    .await;
    timeline.note(format!("its death is verified: {died_of}"));
    assert_eq!(died_of, cause, "{platform:?}");
    assert!(!stage.postgres.lets_in(&url), "{platform:?}: it still logs in");
    timeline.note("its login is refused");
    let state = eventually("the task has ended", DEAD_WITHIN, async || {
        let task = owner.get(&format!("/api/v1/tasks/{task}")).await.unwrap().expect(200);
        Some(task.text("/state")).filter(|state| state != "open")
    })
    .await;
    assert_eq!(state, ended, "{platform:?}");

    let records = stage.records(&task).await;
    timeline.note_records(&records);
    check_order(fate, &records);
    let the = |event: &str| records.iter().find(|record| record["event"] == event).unwrap();
    let (closed, receipt) = (the("task.closed"), the("lease.revoked"));
    assert_eq!(closed["actor"], actor.replace("NAME", platform.name()));
    assert_eq!(
        (&closed["detail"]["end"], &closed["detail"]["cause"]),
        (&json!(ended), &json!(cause))
    );
    assert_eq!((&receipt["lease"], &receipt["detail"]["cause"]), (&json!(id), &json!(cause)));
    assert!(receipt["signature"].is_string(), "a death without a receipt: {receipt}");
    owner.mint("reader").await.problem(409, "task_closed");
    timeline.text()
}

/// Asserts that these are the events of a life, and in which order they are.
fn check_order(fate: Fate, records: &[Value]) {
    let of = |of: &str| {
        let events = records.iter().filter_map(|record| record["event"].as_str());
        events.filter(|event| event.starts_with(of)).collect::<Vec<_>>()
    };
    if fate == Fate::Deadline {
        // The lease ends at the same instant as its task, and whoever looks first ends it.
        for kind in ["task.", "lease."] {
            let expected: Vec<_> = EVENTS.into_iter().filter(|e| e.starts_with(kind)).collect();
            assert_eq!(of(kind), expected, "{records:?}");
        }
    } else {
        assert_eq!(of(""), EVENTS, "{records:?}");
    }
}

/// The lives of all platforms' jobs at once.
async fn live_all(fate: Fate) -> Stage {
    let stage = Stage::new().await;
    let lives = Platform::ALL.map(|platform| live(&stage, platform, fate));
    let timelines = join_all(lives).await;
    print(&format!("{fate:?}\n{}", timelines.concat()));
    assert_eq!(stage.postgres.roles("df_"), Vec::<String>::new(), "nothing is left");
    stage
}

#[expect(clippy::print_stdout, reason = "the record of a run")]
fn print(text: &str) {
    println!("{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_webhook_comes() {
    live_all(Fate::Webhook).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_webhook_is_lost() {
    let stage = live_all(Fate::Poller).await;
    for platform in Platform::ALL {
        assert!(stage.api.times(&platform.path()) >= 1, "{platform:?} was not asked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_runner_is_killed() {
    live_all(Fate::Silence).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_which_nothing_is_heard_any_more() {
    let stage = live_all(Fate::Deadline).await;
    for platform in Platform::ALL {
        assert!(stage.api.times(&platform.path()) >= 1, "{platform:?} was not asked");
    }
}
