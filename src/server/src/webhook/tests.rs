//! Events as the platforms document them, cut down to what is read and a little around it; and
//! requests that prove nothing.

mod fuzz;

use axum::http::{HeaderName, HeaderValue};
use data_encoding::{BASE64, HEXLOWER};
use dayfly_backend_sdk::Secret;
use ring::hmac;
use serde_json::{Value, json};

use super::*;
use crate::identity::Kind;

const SECRET: &str = "a secret of the test";
/// When they come, in seconds since 1970.
const NOW: i64 = 1_790_000_000;

fn moment() -> Timestamp {
    Timestamp::from_seconds(NOW)
}

fn hook(kind: HookKind, secrets: &[&str]) -> Hook {
    let key = |secret: &&str| HookKey::parse(kind, &Secret::new(*secret)).expect("a key");
    Hook {
        name: "ci".into(),
        kind,
        issuer: "ci".into(),
        keys: secrets.iter().map(key).collect(),
        only: None,
        keep: Duration::from_hours(1),
        refused: Tally::default(),
        outside: Tally::default(),
        forgotten: Tally::default(),
    }
}

fn headers(all: &[(&'static str, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in all.iter().cloned() {
        headers.append(HeaderName::from_static(name), HeaderValue::try_from(value).unwrap());
    }
    headers
}

fn tag(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, message).as_ref().to_vec()
}

fn hex(secret: &str, message: &[u8]) -> String {
    HEXLOWER.encode(&tag(secret.as_bytes(), message))
}

/// What an event ends, by key.
fn told(kind: HookKind, event: &str, body: &Value) -> Vec<(String, TaskEnd)> {
    let headers = headers(&[("x-github-event", event.to_owned())]);
    let told = hook(kind, &[SECRET]).read(&headers, body.to_string().as_bytes()).unwrap();
    assert_eq!(told.outside, 0, "it may speak of everything");
    told.ends.into_iter().map(|job| (job.key.as_str().to_owned(), job.end)).collect()
}

fn keys(kind: HookKind, claims: &[(&str, &str)]) -> (Option<String>, Option<String>) {
    let claim =
        |(name, value): &(&str, &str)| ((*name).to_owned(), ClaimValue::Text((*value).to_owned()));
    let principal = Principal {
        kind: Kind::Workload,
        issuer: "ci".into(),
        subject: "repo".into(),
        claims: claims.iter().map(claim).collect(),
        token_hash: String::new(),
        token_id: None,
        token_expires_at: moment(),
        single_use: true,
        first_key_binds: false,
    };
    let JobKeys { run, job } = job_keys(kind, &principal);
    let text = |key: Option<JobKey>| key.map(|key| key.as_str().to_owned());
    (text(run), text(job))
}

fn github_job(conclusion: &str) -> Value {
    json!({
        "action": "completed",
        "workflow_job": {
            "id": 1, "run_id": 17_000_000_001_u64, "run_attempt": 1, "name": "deploy",
            "status": "completed", "conclusion": conclusion,
            "check_run_url": "https://api.github.com/repos/o/r/check-runs/49000000123",
            "labels": ["ubuntu-latest"]
        },
        "repository": { "id": 456_789, "full_name": "o/r" }
    })
}

fn github_run(attempt: u64, conclusion: &str) -> Value {
    json!({
        "action": "completed",
        "workflow_run": {
            "id": 17_000_000_001_u64, "run_attempt": attempt, "status": "completed",
            "conclusion": conclusion, "event": "push"
        },
        "repository": { "id": 456_789 }
    })
}

const GITHUB: [(&str, &str); 4] = [
    ("repository_id", "456789"),
    ("run_id", "17000000001"),
    ("run_attempt", "1"),
    ("check_run_id", "49000000123"),
];
const GITHUB_RUN: &str = "ci|github/456789/17000000001/1";
const GITHUB_JOB: &str = "ci|github/456789/17000000001/1/49000000123";

#[test]
fn a_github_token_and_the_events_of_its_job_have_the_same_keys() {
    let both = (Some(GITHUB_RUN.to_owned()), Some(GITHUB_JOB.to_owned()));
    assert_eq!(keys(HookKind::Github, &GITHUB), both);
    let without = (Some(GITHUB_RUN.to_owned()), None);
    assert_eq!(keys(HookKind::Github, &GITHUB[..3]), without, "its jobs cannot be told apart");
    assert_eq!(keys(HookKind::Github, &GITHUB[1..]), (None, None));
    let told_of = |event, body: &Value| told(HookKind::Github, event, body);
    let ends = told_of("workflow_job", &github_job("success"));
    assert_eq!(ends, [(GITHUB_JOB.to_owned(), TaskEnd::Completed)]);
    let ends = told_of("workflow_run", &github_run(1, "cancelled"));
    assert_eq!(ends, [(GITHUB_RUN.to_owned(), TaskEnd::Cancelled)]);
    let ends = told_of("workflow_run", &github_run(2, "success"));
    assert_ne!(ends[0].0, GITHUB_RUN, "a re-run is another run");
    let mut without_url = github_job("success");
    without_url["workflow_job"].as_object_mut().unwrap().remove("check_run_url");
    let ends = told_of("workflow_job", &without_url);
    assert_eq!(ends[0].0, "ci|github/456789/17000000001/1/1");
}

#[test]
fn what_ends_a_github_job_is_its_conclusion() {
    let end = |conclusion| {
        let ends = told(HookKind::Github, "workflow_job", &github_job(conclusion));
        ends.first().map(|(_, end)| *end)
    };
    for (conclusion, expected) in [
        ("success", Some(TaskEnd::Completed)),
        ("neutral", Some(TaskEnd::Completed)),
        ("failure", Some(TaskEnd::Failed)),
        ("timed_out", Some(TaskEnd::Failed)),
        ("startup_failure", Some(TaskEnd::Failed)),
        ("cancelled", Some(TaskEnd::Cancelled)),
        ("skipped", None),
        ("action_required", None),
    ] {
        assert_eq!(end(conclusion), expected, "{conclusion}");
    }
    let mut queued = github_job("success");
    queued["action"] = json!("in_progress");
    assert!(told(HookKind::Github, "workflow_job", &queued).is_empty());
    assert!(told(HookKind::Github, "ping", &json!({ "zen": "x", "hook_id": 1 })).is_empty());
    assert!(told(HookKind::Github, "push", &github_job("success")).is_empty());
}

#[test]
fn a_gitlab_job_is_known_by_the_project_that_it_runs_in() {
    let key = "ci|gitlab/20/302".to_owned();
    let own = [("project_id", "20"), ("job_id", "302"), ("pipeline_id", "574")];
    assert_eq!(keys(HookKind::Gitlab, &own), (None, Some(key.clone())));
    let fork = [("project_id", "99"), ("job_project_id", "20"), ("job_id", "302")];
    assert_eq!(keys(HookKind::Gitlab, &fork), (None, Some(key.clone())));
    assert_eq!(keys(HookKind::Gitlab, &own[..1]), (None, None));
    let job = |status: &str| {
        let body = json!({
            "object_kind": "build", "ref": "main", "build_id": 302, "build_name": "deploy",
            "build_status": status, "retries_count": 0, "pipeline_id": 574, "project_id": 20
        });
        told(HookKind::Gitlab, "", &body)
    };
    assert_eq!(job("success"), [(key.clone(), TaskEnd::Completed)]);
    assert_eq!(job("failed"), [(key.clone(), TaskEnd::Failed)]);
    assert_eq!(job("canceled"), [(key, TaskEnd::Cancelled)]);
    for goes_on in ["created", "pending", "running", "manual", "canceling", "skipped"] {
        assert!(job(goes_on).is_empty(), "{goes_on}");
    }
}

#[test]
fn a_gitlab_pipeline_ends_those_of_its_jobs_that_ended() {
    let pipeline = |status: &str| {
        let body = json!({
            "object_kind": "pipeline",
            "object_attributes": { "id": 574, "status": status },
            "project": { "id": 20, "name": "app" },
            "builds": [
                { "id": 302, "status": "success", "name": "build" },
                { "id": 303, "status": "failed", "name": "deploy" },
                { "id": 304, "status": "skipped", "name": "clean-up" },
            ]
        });
        told(HookKind::Gitlab, "", &body)
    };
    assert!(pipeline("running").is_empty());
    let ends = [
        ("ci|gitlab/20/302".to_owned(), TaskEnd::Completed),
        ("ci|gitlab/20/303".to_owned(), TaskEnd::Failed),
    ];
    assert_eq!(pipeline("failed"), ends, "what was skipped may yet run, under the same id");
    assert!(told(HookKind::Gitlab, "", &json!({ "object_kind": "push" })).is_empty());
}

#[test]
fn a_buildkite_job_is_known_by_its_build_and_its_id() {
    const JOB: &str = "0184990a-4771-4d4a-9c48-000000000001";
    let key = format!("ci|buildkite/acme/app/7/{JOB}");
    let claims = [
        ("organization_slug", "acme"),
        ("pipeline_slug", "app"),
        ("build_number", "7"),
        ("job_id", JOB),
    ];
    assert_eq!(keys(HookKind::Buildkite, &claims), (None, Some(key.clone())));
    let strange = [("organization_slug", "ac/me"), claims[1], claims[2], claims[3]];
    assert_eq!(keys(HookKind::Buildkite, &strange), (None, None));
    let event = |event: &str, state: &str| {
        let body = json!({
            "event": event,
            "job": { "id": JOB, "type": "script", "name": "deploy", "state": state },
            "build": { "id": "0184990a-0000-4d4a-9c48-000000000001", "number": 7 },
            "pipeline": {
                "slug": "app", "url": "https://api.buildkite.com/v2/organizations/acme/pipelines/app"
            },
            "sender": { "id": "8a7693f8-dbae-4783-9137-84090fce9045", "name": "somebody" }
        });
        told(HookKind::Buildkite, "", &body)
    };
    assert_eq!(event("job.finished", "passed"), [(key.clone(), TaskEnd::Completed)]);
    assert_eq!(event("job.finished", "timed_out"), [(key.clone(), TaskEnd::Failed)]);
    assert_eq!(event("job.finished", "canceled"), [(key, TaskEnd::Cancelled)]);
    assert!(event("job.started", "running").is_empty());
}

#[test]
fn an_event_that_is_none_is_unreadable() {
    let event = headers(&[("x-github-event", "workflow_job".into())]);
    let mut twice = github_job("success").to_string();
    twice.insert_str(1, "\"action\":\"completed\",");
    let without_job = json!({ "action": "completed" }).to_string();
    for body in ["", "payload=%7B%7D", "[]", "[\"completed\"]", &without_job, twice.as_str()] {
        let read = hook(HookKind::Github, &[SECRET]).read(&event, body.as_bytes());
        assert!(read.is_err(), "{body}");
    }
    for (kind, body) in [
        (HookKind::Buildkite, json!({ "event": "job.finished" })),
        (HookKind::Gitlab, json!({ "object_kind": "build" })),
    ] {
        let read = hook(kind, &[SECRET]).read(&event, body.to_string().as_bytes());
        assert!(read.is_err(), "{body}");
    }
}

#[test]
fn an_event_that_does_not_say_what_it_is_is_of_something_else() {
    let member = json!({ "event_name": "user_add_to_group", "group_id": 78, "user_id": 41 });
    let subgroup = json!({ "event_name": "subgroup_create", "group_id": 10, "name": "subgroup1" });
    for body in [member, subgroup] {
        assert!(told(HookKind::Gitlab, "", &body).is_empty());
        assert!(told(HookKind::Buildkite, "", &body).is_empty());
        assert!(told(HookKind::Github, "workflow_job", &body).is_empty());
    }
}

#[test]
fn a_webhook_speaks_of_what_it_is_bound_to() {
    let build = json!({
        "object_kind": "build", "build_id": 302, "build_status": "success", "project_id": 20
    });
    let pipeline = json!({
        "object_kind": "pipeline", "object_attributes": { "status": "success" },
        "project": { "id": 20 },
        "builds": [{ "id": 1, "status": "success" }, { "id": 2, "status": "failed" }]
    });
    let finished = json!({
        "event": "job.finished",
        "job": { "id": "0184990a-4771-4d4a-9c48-000000000001", "state": "passed" },
        "build": { "number": 7 },
        "pipeline": { "slug": "app", "url": "https://b/v2/organizations/acme/pipelines/app" }
    });
    let job = github_job("success");
    for (kind, body, only, expected) in [
        (HookKind::Github, &job, "456789", (1, 0)),
        (HookKind::Github, &job, "45678", (0, 1)),
        (HookKind::Gitlab, &build, "20", (1, 0)),
        (HookKind::Gitlab, &build, "2", (0, 1)),
        (HookKind::Gitlab, &pipeline, "20", (2, 0)),
        (HookKind::Gitlab, &pipeline, "21", (0, 2)),
        (HookKind::Buildkite, &finished, "acme", (1, 0)),
        (HookKind::Buildkite, &finished, "acme/app", (1, 0)),
        (HookKind::Buildkite, &finished, "acm", (0, 1)),
        (HookKind::Buildkite, &finished, "acme/ap", (0, 1)),
    ] {
        let only = Some(vec!["1".to_owned(), only.to_owned()]);
        let bound = Hook { only, ..hook(kind, &[SECRET]) };
        let headers = headers(&[("x-github-event", "workflow_job".to_owned())]);
        let told = bound.read(&headers, body.to_string().as_bytes()).unwrap();
        assert_eq!((told.ends.len(), told.outside), expected, "{:?}: {body}", bound.only);
    }
}

#[test]
fn what_proves_nothing_anywhere_is_not_read() {
    for name in ["x-hub-signature-256", "webhook-signature", "x-gitlab-token", "x-buildkite-token"]
    {
        assert!(proves_something(&headers(&[(name, String::new())])), "{name}");
    }
    for name in ["x-hub-signature", "authorization", "webhook-id", "x-github-event"] {
        assert!(!proves_something(&headers(&[(name, SECRET.to_owned())])), "{name}");
    }
}

#[test]
fn a_github_signature_holds_over_the_bytes_that_came() {
    let hook = hook(HookKind::Github, &["the secret to come", SECRET]);
    let body = b"{\"action\": \"completed\"}";
    let verify = |value: String, body: &[u8]| {
        hook.verify(&headers(&[("x-hub-signature-256", value)]), body, moment())
    };
    let good = hex(SECRET, body);
    assert_eq!(verify(format!("sha256={good}"), body), Ok(()));
    let coming = hex("the secret to come", body);
    assert_eq!(verify(format!("sha256={coming}"), body), Ok(()));
    for wrong in [
        good.clone(),
        format!("sha1={good}"),
        format!("sha256={}", good.to_uppercase()),
        format!("sha256={}", good.get(..62).unwrap()),
        format!("sha256={good}00"),
        "sha256=".to_owned(),
        format!("sha256={}", hex("another secret at all", body)),
        SECRET.to_owned(),
    ] {
        assert_eq!(verify(wrong.clone(), body), Err(Unproven::Wrong), "{wrong}");
    }
    let reserialised = b"{\"action\":\"completed\"}";
    assert_eq!(verify(format!("sha256={good}"), reserialised), Err(Unproven::Wrong));
    let twice = ("x-hub-signature-256", format!("sha256={good}"));
    for none in [vec![], vec![twice.clone(), twice], vec![("x-hub-signature", good.clone())]] {
        assert_eq!(hook.verify(&headers(&none), body, moment()), Err(Unproven::Missing));
    }
}

#[test]
fn a_gitlab_token_is_compared_whole() {
    let hook = hook(HookKind::Gitlab, &[SECRET]);
    let verify = |token: &str| {
        hook.verify(&headers(&[("x-gitlab-token", token.to_owned())]), b"{}", moment())
    };
    assert_eq!(verify(SECRET), Ok(()));
    for wrong in ["", SECRET.get(1..).unwrap(), SECRET.get(..19).unwrap(), &format!("{SECRET}x")] {
        assert_eq!(verify(wrong), Err(Unproven::Wrong), "{wrong}");
    }
    assert_eq!(hook.verify(&HeaderMap::new(), b"{}", moment()), Err(Unproven::Missing));
}

#[test]
fn a_gitlab_signing_token_takes_a_signature_and_nothing_else() {
    let bytes = [7; 32];
    let secret = format!("whsec_{}", BASE64.encode(&bytes));
    let hook = hook(HookKind::Gitlab, &[secret.as_str()]);
    let signed = |at: i64, versions: &dyn Fn(String) -> String| {
        let message = [format!("msg_1.{at}.").as_bytes(), b"{}"].concat();
        let signature = versions(BASE64.encode(&tag(&bytes, &message)));
        let all = [
            ("webhook-id", "msg_1".to_owned()),
            ("webhook-timestamp", at.to_string()),
            ("webhook-signature", signature),
        ];
        hook.verify(&headers(&all), b"{}", moment())
    };
    let now = NOW;
    assert_eq!(signed(now, &|tag| format!("v1,{tag}")), Ok(()));
    assert_eq!(signed(now, &|tag| format!("v1,AAAA v1,{tag}")), Ok(()), "two, and one is good");
    assert_eq!(signed(now - 300, &|tag| format!("v1,{tag}")), Ok(()));
    for at in [now - 301, now + 301] {
        assert_eq!(signed(at, &|tag| format!("v1,{tag}")), Err(Unproven::Stale));
    }
    for wrong in ["v1a,", "v2,", ""] {
        assert_eq!(signed(now, &|tag| format!("{wrong}{tag}")), Err(Unproven::Wrong), "{wrong}");
    }
    let token = headers(&[("x-gitlab-token", secret.clone())]);
    assert_eq!(hook.verify(&token, b"{}", moment()), Err(Unproven::Wrong));
}

#[test]
fn a_buildkite_signature_is_young() {
    let hook = hook(HookKind::Buildkite, &[SECRET]);
    let now = NOW;
    let signed = |at: i64, body: &[u8]| {
        let signature = hex(SECRET, &[format!("{at}.").as_bytes(), b"{}"].concat());
        let value = format!("timestamp={at},signature={signature}");
        hook.verify(&headers(&[("x-buildkite-signature", value)]), body, moment())
    };
    for at in [now, now - 300, now + 300] {
        assert_eq!(signed(at, b"{}"), Ok(()), "{at}");
    }
    for at in [now - 301, now + 301, 0] {
        assert_eq!(signed(at, b"{}"), Err(Unproven::Stale), "{at}");
    }
    assert_eq!(signed(-1, b"{}"), Err(Unproven::Wrong), "a time has no sign");
    assert_eq!(signed(now, b"{} "), Err(Unproven::Wrong));
    let token = |token: &str| {
        hook.verify(&headers(&[("x-buildkite-token", token.to_owned())]), b"{}", moment())
    };
    assert_eq!(token(SECRET), Ok(()));
    assert_eq!(token("another secret at all"), Err(Unproven::Wrong));
    let both = [
        ("x-buildkite-token", SECRET.to_owned()),
        ("x-buildkite-signature", "timestamp=1,signature=00".to_owned()),
    ];
    assert_eq!(hook.verify(&headers(&both), b"{}", moment()), Err(Unproven::Wrong));
}

#[test]
fn a_secret_that_is_none_is_refused() {
    for (kind, secret) in [
        (HookKind::Github, "fifteen bytes !"),
        (HookKind::Gitlab, "whsec_"),
        (HookKind::Gitlab, "whsec_not base64 at all, but long enough"),
        (HookKind::Gitlab, "whsec_AAAA"),
    ] {
        assert!(HookKey::parse(kind, &Secret::new(secret)).is_none(), "{secret}");
    }
    let key = HookKey::parse(HookKind::Github, &Secret::new(SECRET)).unwrap();
    assert_eq!(format!("{key:?}"), "HookKey(…)");
}

#[test]
fn what_comes_again_and_again_is_counted_and_told_now_and_then() {
    let tally = Tally::default();
    let at = Duration::from_secs;
    assert_eq!(tally.add(0, at(1)), None, "there is nothing to tell");
    assert_eq!(tally.add(1, at(5)), Some(1));
    for second in 6..65 {
        assert_eq!(tally.add(1, at(second)), None);
    }
    assert_eq!(tally.add(1, at(65)), Some(60));
    assert_eq!(tally.add(1, at(65)), None);
}
