//! The endpoint for AWS's SDKs, of `exec` and of the agent.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, thread, time::Duration};

use rustix::process::Signal;

use crate::{
    agent::minted,
    broker::{Answer, Broker, grant, opened, postgres, problem},
    program::{Running, dayfly, detached, private_place, run},
    wire::{connected, fetch},
};

const URL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";

/// A broker that gives a credential of `seconds` with the task, and more of them after it.
fn broker(seconds: u32) -> Broker {
    Broker::start(move |request, before| match request.line().as_str() {
        "POST /api/v1/tasks" => Answer::json(201, &opened(&[minted(0, "deploy", seconds, false)])),
        "POST /api/v1/leases" => Answer::json(201, &minted(before + 1, "deploy", seconds, false)),
        _ => grant(request, &[]),
    })
}

/// A command that shows its environment and waits.
fn started(broker: &Broker, inherited: &[(&str, &str)]) -> (Running, BTreeMap<String, String>) {
    let script = "env; echo END; while :; do sleep 0.05; done";
    let words = ["exec", "--aws-endpoint", "deploy", "--", "sh", "-c", script];
    let mut command = detached(&broker.url, &words);
    command.envs(inherited.iter().copied());
    let mut running = Running::start(command);
    let mut environment = BTreeMap::new();
    loop {
        let line = running.line();
        if line == "END" {
            return (running, environment);
        }
        if let Some((name, value)) = line.split_once('=') {
            environment.insert(name.to_owned(), value.to_owned());
        }
    }
}

#[test]
fn the_command_finds_an_endpoint_and_nothing_that_would_win_over_it() {
    let broker = broker(59);
    let inherited = [
        ("AWS_ACCESS_KEY_ID", "standing"),
        ("AWS_SECRET_ACCESS_KEY", "standing"),
        ("AWS_PROFILE", "standing"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/standing"),
        ("AWS_REGION", "us-east-1"),
    ];
    let (running, environment) = started(&broker, &inherited);
    assert!(!environment.values().any(|value| value.contains("standing")), "{environment:?}");
    assert!(!environment.values().any(|value| value.contains("hunter2")), "{environment:?}");
    assert_eq!(environment["AWS_REGION"], "eu-central-1");
    assert_eq!(broker.asked("POST /api/v1/tasks")[0].body["roles"], serde_json::json!(["deploy"]));

    let (url, token) = (environment[URL].as_str(), environment[TOKEN].as_str());
    let said = fetch(url, &[("authorization", token)]);
    assert_eq!(said.status, 200, "{said:?}");
    assert_eq!(
        said.body,
        serde_json::json!({ "AccessKeyId": "AKIA", "SecretAccessKey": "hunter2-0", "Token": "",
            "Expiration": "2026-01-01T00:00:59Z" })
    );
    let refused: [(&[(&str, &str)], u16); 3] = [
        (&[], 401),
        (&[("authorization", "wrong")], 401),
        (&[("authorization", token), ("host", "evil.example")], 403),
    ];
    for (headers, status) in refused {
        let said = fetch(url, headers);
        assert_eq!(said.status, status, "{said:?}");
        assert!(said.body["code"].is_string() && said.body["message"].is_string(), "{said:?}");
    }
    let said = fetch(&url.replace("/deploy", "/other"), &[("authorization", token)]);
    assert_eq!(said.status, 404, "{said:?}");

    running.signal(Signal::TERM);
    let finished = running.finish();
    assert_eq!(finished.signal, Some(Signal::TERM.as_raw()), "{finished:?}");
    assert!(!finished.err.contains("hunter2") && !finished.err.contains(token), "{finished:?}");
    assert_eq!(broker.outcome(), "cancelled");
}

#[test]
fn what_is_served_is_never_about_to_end() {
    let broker = broker(6);
    let (running, environment) = started(&broker, &[]);
    let get = || {
        let said = fetch(&environment[URL], &[("authorization", environment[TOKEN].as_str())]);
        said.body["SecretAccessKey"].as_str().unwrap().to_owned()
    };
    assert_eq!(get(), "hunter2-0");
    thread::sleep(Duration::from_secs(4));
    assert_eq!(get(), "hunter2-1", "the first has less than half of its life");
    running.signal(Signal::TERM);
    running.finish();
}

/// Its command may print what it got.
#[test]
fn what_comes_later_is_masked_and_reported_too() {
    let broker = broker(6);
    let home = private_place();
    let report = home.path().join("report.json");
    let script = "get() { curl -sS -H \"Authorization: $AWS_CONTAINER_AUTHORIZATION_TOKEN\" \
                  \"$AWS_CONTAINER_CREDENTIALS_FULL_URI\"; echo; }; get; sleep 4; get";
    let words = ["exec", "--aws-endpoint", "deploy", "--mask", "always", "--report"];
    let words = [&words, &[report.to_str().unwrap(), "--", "sh", "-c", script][..]].concat();
    let finished = run(dayfly(&broker.url, &words));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let masked = "\"SecretAccessKey\":\"[masked:deploy/secret_access_key]\"";
    assert_eq!(finished.out.matches(masked).count(), 2, "{finished:?}");
    let text = fs::read_to_string(&report).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ids: Vec<_> = report["leases"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, ["lse_0", "lse_1"]);
    assert_eq!(report["rotations"], 1);
}

#[test]
fn a_denied_endpoint_starts_nothing() {
    let broker = Broker::start(|_, _| Answer::json(403, &problem(403, "role_denied", "no")));
    let words = ["exec", "--aws-endpoint", "deploy", "--", "echo", "started"];
    let denied = run(dayfly(&broker.url, &words));
    assert_eq!((denied.code, denied.out.as_str()), (Some(125), ""), "{denied:?}");
    assert!(denied.err.contains("role `deploy` was denied"), "{}", denied.err);
}

#[test]
fn a_role_that_would_win_over_the_endpoint_is_refused() {
    let keys = [("AWS_ACCESS_KEY_ID", "password"), ("AWS_SECRET_ACCESS_KEY", "password")];
    let mut other = crate::broker::lease("keys", &keys, &[("password", "p")]);
    other.id = "lse_keys".into();
    let leases = [other, minted(0, "deploy", 59, false)];
    let broker = Broker::granting(leases.to_vec());
    let words = ["exec", "--role", "keys", "--aws-endpoint", "deploy", "--", "echo", "started"];
    let refused = run(dayfly(&broker.url, &words));
    assert_eq!((refused.code, refused.out.as_str()), (Some(125), ""), "{refused:?}");
    assert!(refused.err.contains("instead of --aws-endpoint"), "{}", refused.err);
    assert_eq!(broker.outcome(), "cancelled");

    let broker = Broker::granting(vec![postgres("r")]);
    let words = ["exec", "--role", "r", "--aws-endpoint", "r", "--", "echo", "started"];
    let refused = run(dayfly(&broker.url, &words));
    assert_eq!(refused.code, Some(125), "{refused:?}");
    assert!(refused.err.contains("one of them is enough"), "{}", refused.err);
    assert!(broker.requests().is_empty());
}

#[test]
fn an_agent_leaves_what_an_sdk_needs_to_this_user_alone() {
    let broker = broker(59);
    let place = private_place();
    let path = place.path().join("agent.sock");
    let words = ["agent", "--aws-endpoint", "deploy", "--listen", path.to_str().unwrap()];
    let running = Running::start(detached(&broker.url, &words));
    drop(connected(&path));
    let file = place.path().join("aws.env");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    let variables: BTreeMap<&str, &str> =
        text.lines().map(|line| line.split_once('=').unwrap()).collect();
    let said = fetch(variables[URL], &[("authorization", variables[TOKEN])]);
    assert_eq!(said.body["SecretAccessKey"], "hunter2-1", "{said:?}");
    running.signal(Signal::TERM);
    let finished = running.finish();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(!file.exists() && !finished.err.contains(variables[TOKEN]), "{finished:?}");
}
