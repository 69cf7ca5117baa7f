//! Pollers: a job's end is noticed by asking its platform; nothing but a plain answer about this
//! very job ends anybody; and the platform is not asked for more than it wants to be.
//!
//! A poller asks every ten seconds at the shortest, so each of these tests takes some of those.

use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt, time::Duration};

use dayfly_integration::{Broker, BrokerConfig, Client, Postgres, Store, eventually};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::platforms::{Api, Canned, GithubJob};

const TOKEN: &str = "ghs_of-these-tests";
/// How often the pollers of these tests ask, and how old a task is before it is asked for.
const INTERVAL: Duration = Duration::from_secs(10);
/// Some rounds, and a question that takes as long as it may.
const ENDED_WITHIN: Duration = Duration::from_mins(1);
const DEAD_WITHIN: Duration = Duration::from_secs(20);

const JOB: GithubJob = GithubJob { run: 17_000_000_001, job: 49_000_000_123 };

fn config(store: Store, api: &Api) -> BrokerConfig {
    let mut config = BrokerConfig::new(store, None);
    write!(
        config.more,
        "[[poller]]\nname = \"asker\"\nkind = \"github\"\nissuer = \"ci\"\n\
         api_url = \"{}\"\ntoken = {{ env = \"POLL_TOKEN\" }}\ninterval = \"10s\"\n",
        api.url
    )
    .unwrap();
    config.environment.push(("POLL_TOKEN".to_owned(), TOKEN.to_owned()));
    config
}

async fn open(broker: &Broker, job: GithubJob) -> (String, Client) {
    let token = broker.issuer.token_with("job", job.claims());
    broker.client().with(&token).open_task().await
}

async fn state(owner: &Client, task: &str) -> String {
    owner.get(&format!("/api/v1/tasks/{task}")).await.unwrap().expect(200).text("/state")
}

async fn ended(owner: &Client, task: &str) -> String {
    eventually("the task has ended", ENDED_WITHIN, async || {
        Some(state(owner, task).await).filter(|state| state != "open")
    })
    .await
}

async fn metric(broker: &Broker, result: &str) -> u64 {
    let text = broker.client().get("/metrics").await.unwrap().expect(200).text;
    let series = format!("dayfly_polls_total{{poller=\"asker\",result=\"{result}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(series.as_str()));
    value.map_or(0, |value| value.parse().unwrap())
}

/// How often the log warns of a trouble.
fn warnings(broker: &Broker, code: &str) -> usize {
    let log = broker.log();
    let about = |line: &&str| line.contains("poller.trouble") && line.contains(code);
    log.lines().filter(about).count()
}

async fn ends_with_its_job(store: Store) {
    let api = Api::start().await;
    let broker = Broker::start(config(store, &api)).await;
    let neighbour = GithubJob { job: 49_000_000_124, ..JOB };
    for job in [JOB, neighbour] {
        api.put(&job.path(), Canned::shown(&job.shown(None)));
        api.put(&job.run_path(), Canned::shown(&job.run_shown()));
    }
    api.put(&JOB.path(), Canned::shown(&JOB.shown(Some("timed_out"))));
    let opened = Instant::now();
    let (task, owner) = open(&broker, JOB).await;
    let lease = owner.mint("greeter").await.expect(201).text("/id");
    let (twin, _) = open(&broker, JOB).await;
    let (other, bystander) = open(&broker, neighbour).await;
    assert_eq!(ended(&owner, &task).await, "failed");
    owner.mint("greeter").await.problem(409, "task_closed");
    let cause = eventually("its credential is dead", DEAD_WITHIN, async || {
        let lease = owner.lease(&lease).await.expect(200);
        (lease.text("/state") == "revoked").then(|| lease.text("/cause"))
    })
    .await;
    assert_eq!(cause, "task_failed");
    assert_eq!(state(&bystander, &other).await, "open");
    let again = broker.client().with(&broker.issuer.token_with("job", JOB.claims()));
    let wanted = json!({ "purpose": "late", "ttl_seconds": 60 });
    again.post("/api/v1/tasks", wanted).await.problem(409, "job_ended");

    let records = broker.audit().await;
    let mut closed: Vec<_> = records.iter().filter(|r| r["event"] == "task.closed").collect();
    closed.sort_by_key(|record| record["task"] != json!(task));
    let [first, second] = closed.as_slice() else { panic!("not both of them: {closed:?}") };
    assert_eq!((&first["task"], &second["task"]), (&json!(task), &json!(twin)));
    for record in [first, second] {
        assert_eq!(record["actor"], "poller|asker");
        assert_eq!(record["detail"]["end"], "failed");
    }
    assert_eq!(metric(&broker, "ended").await, 1, "one job, and two tasks of it");
    assert_eq!(api.times(&JOB.path()), 1, "one question for both of them");
    assert_eq!(api.times(&JOB.run_path()), 1, "and its proof");
    let asked = api.asked();
    assert!(asked.iter().all(|asked| asked.token == TOKEN), "{asked:?}");
    let first = asked.first().unwrap().at;
    assert!(first - opened >= INTERVAL, "asked for after {:?}", first - opened);
    assert!(!broker.log().contains(TOKEN), "the log has the token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_has_ended_ends_its_tasks_and_their_credentials() {
    let postgres = Postgres::start();
    let stores = [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))];
    join_all(stores.map(ends_with_its_job)).await;
}

/// A job of its own run for each thing that can go wrong, with its answer.
fn answers_that_say_nothing() -> Vec<(GithubJob, Canned)> {
    let over = |job: GithubJob| job.shown(Some("success"));
    let job = |number: u64| GithubJob { run: 100 + number, job: 200 + number };
    let other = GithubJob { run: 1, ..job(8) };
    let padding = " ".repeat(5 * 1024 * 1024);
    vec![
        (job(1), Canned::refusal(404)),
        (job(2), Canned::refusal(403)),
        (job(3), Canned::refusal(500)),
        (job(4), Canned::refusal(302).header("location", "/elsewhere")),
        (job(5), Canned::shown(&over(job(5))).with_body(format!("{}{padding}", over(job(5))))),
        (job(6), Canned::shown(&Value::Null).with_body("<html></html>".to_owned())),
        (job(7), Canned::shown(&over(job(7))).after(Duration::from_secs(30))),
        (job(8), Canned::shown(&over(other))),
        // Its run is in another repository, which has the name now.
        (job(9), Canned::shown(&over(job(9)))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_says_nothing_of_a_job_ends_nobody_and_holds_up_no_other() {
    let api = Api::start().await;
    let broker = Broker::start(config(Store::Sqlite, &api)).await;
    let all = answers_that_say_nothing();
    let mut open_tasks = Vec::new();
    for (job, answer) in &all {
        api.put(&job.path(), answer.clone());
        api.put(&job.run_path(), Canned::shown(&job.run_shown()));
        open_tasks.push(open(&broker, *job).await);
    }
    let (taken, _) = all.last().unwrap();
    let mut run = taken.run_shown();
    run["repository"]["id"] = json!(666);
    api.put(&taken.run_path(), Canned::shown(&run));
    api.put("/elsewhere", Canned::shown(&json!({})));
    api.put(&JOB.path(), Canned::shown(&JOB.shown(Some("success"))));
    api.put(&JOB.run_path(), Canned::shown(&JOB.run_shown()));
    let (task, owner) = open(&broker, JOB).await;
    assert_eq!(ended(&owner, &task).await, "completed");

    let (first, _) = all.first().unwrap();
    eventually("all are asked for again", ENDED_WITHIN, async || {
        let again = api.times(&first.path()) > 1 && api.times(&taken.run_path()) > 1;
        (again && metric(&broker, "mismatched").await >= 4).then_some(())
    })
    .await;
    for ((task, owner), (job, _)) in open_tasks.iter().zip(&all) {
        assert_eq!(state(owner, task).await, "open", "{job:?}");
    }
    assert_eq!(api.times("/elsewhere"), 0, "a redirect is not followed");
    assert_eq!(metric(&broker, "ended").await, 1);
    for (result, least) in [("not_found", 2), ("refused", 2), ("unavailable", 3), ("unreadable", 5)]
    {
        let times = metric(&broker, result).await;
        assert!(times >= least, "{result}: {times}");
        assert_eq!(warnings(&broker, result), 1, "{result}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_wants_to_be_left_alone_is_left_alone() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let api = Api::start().await;
    let broker = Broker::start(config(Store::Sqlite, &api)).await;
    let (task, owner) = open(&broker, JOB).await;
    let (other, neighbour) = open(&broker, GithubJob { job: 1, ..JOB }).await;
    let wait = PATIENCE.as_secs().to_string();
    api.outage(Some(Canned::refusal(429).header("retry-after", wait)));
    eventually("it is asked", ENDED_WITHIN, async || api.asked().first().map(|asked| asked.at))
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(api.asked().len(), 1, "nor for the other job: {:?}", api.asked());
    api.outage(None);
    api.put(&JOB.path(), Canned::shown(&JOB.shown(Some("cancelled"))));
    api.put(&JOB.run_path(), Canned::shown(&JOB.run_shown()));
    assert_eq!(ended(&owner, &task).await, "cancelled");
    assert_eq!(state(&neighbour, &other).await, "open", "404 is no end");
    let asked = api.asked();
    let [first, second, ..] = asked.as_slice() else { panic!("not asked again: {asked:?}") };
    assert!(second.at - first.at >= PATIENCE, "after {:?}", second.at - first.at);
    assert_eq!((metric(&broker, "limited").await, warnings(&broker, "limited")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_replaced_is_used_from_then_on() {
    let api = Api::start().await;
    let mut config = config(Store::Sqlite, &api);
    config.more = config.more.replace("{ env = \"POLL_TOKEN\" }", "{ file = \"poll-token\" }");
    let mut broker = Broker::configure(config);
    let write = |name: &str, token: &str| {
        let path = broker.path().join(name);
        fs::write(&path, token).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let path = write("poll-token", "an-old-token");
    let next = write("next-token", TOKEN);
    broker.resume().await;
    api.only(TOKEN);
    api.put(&JOB.path(), Canned::shown(&JOB.shown(Some("success"))));
    api.put(&JOB.run_path(), Canned::shown(&JOB.run_shown()));
    let (task, owner) = open(&broker, JOB).await;
    eventually("the old one is refused", ENDED_WITHIN, async || {
        (metric(&broker, "token_refused").await > 0).then_some(())
    })
    .await;
    assert_eq!(state(&owner, &task).await, "open");
    fs::rename(next, path).unwrap();
    assert_eq!(ended(&owner, &task).await, "completed");
    let tokens: Vec<_> = api.asked().into_iter().map(|asked| asked.token).collect();
    assert_eq!(tokens.first().map(String::as_str), Some("an-old-token"));
    assert_eq!(warnings(&broker, "token_refused"), 1);
    eventually("the log says that it works", DEAD_WITHIN, async || {
        broker.log().contains("poller.works").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_ask_by_turns() {
    let postgres = Postgres::start();
    let api = Api::start().await;
    let store = Store::Postgres(postgres.url("dayfly"));
    let first = Broker::start(config(store, &api)).await;
    let second = first.replica().await;
    api.put(&JOB.path(), Canned::shown(&JOB.shown(None)));
    let (task, owner) = open(&first, JOB).await;
    eventually("it was asked for three times", ENDED_WITHIN, async || {
        (api.times(&JOB.path()) >= 3).then_some(())
    })
    .await;
    let asked = api.asked();
    for pair in asked.windows(2) {
        // Four fifths of the interval, but for how long a question takes on its way.
        let apart = pair[1].at - pair[0].at;
        assert!(apart >= INTERVAL * 7 / 10, "{apart:?} apart");
    }
    assert_eq!(state(&owner, &task).await, "open");
    let counted = metric(&first, "goes_on").await + metric(&second, "goes_on").await;
    assert!(counted >= 2, "what was answered is counted: {counted}");
}
