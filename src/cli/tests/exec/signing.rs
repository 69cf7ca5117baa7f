//! An identity of AWS: what reaches the broker, and what does not.

use std::{thread, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    broker::{Answer, Broker, grant, postgres, problem},
    program::{Finished, Running, dayfly, detached, run},
};

const KEY: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLEKEY000001"),
    ("AWS_SECRET_ACCESS_KEY", "hunter2-aws-secret"),
    ("AWS_REGION", "eu-central-1"),
];

/// Runs `exec` with no identity but the one of these variables.
fn exec(url: &str, variables: &[(&str, &str)]) -> Finished {
    let mut command =
        dayfly(url, &["exec", "--identity", "aws", "--role", "r", "--", "sh", "-c", "true"]);
    command.env_remove("DAYFLY_ID_TOKEN").envs(variables.iter().copied());
    run(command)
}

/// The request that a bearer holds.
fn signed(bearer: &str) -> Value {
    let encoded = bearer.strip_prefix("aws.").unwrap();
    serde_json::from_slice(&BASE64URL_NOPAD.decode(encoded.as_bytes()).unwrap()).unwrap()
}

#[test]
fn the_environments_key_signs_for_the_broker_that_is_asked() {
    let broker = Broker::granting(vec![postgres("r")]);
    let finished = exec(&broker.url, &KEY);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let asked = broker.asked("POST /api/v1/tasks");
    let request = signed(&asked[0].bearer);
    assert_eq!(request["method"], "POST");
    assert_eq!(request["url"], "https://sts.eu-central-1.amazonaws.com/");
    assert_eq!(request["body"], "Action=GetCallerIdentity&Version=2011-06-15");
    assert_eq!(request["headers"]["x-dayfly-server-id"], broker.url.as_str());
    assert!(request["headers"].get("x-amz-security-token").is_none(), "{request}");
    let all = format!("{request}{}{}", finished.out, finished.err);
    assert!(!all.contains("hunter2"), "{all}");
}

/// What is tried again later is not tried once we are told to stop.
#[test]
fn a_stop_asks_for_nothing_more() {
    let broker = Broker::start(|_, _| {
        let down = problem(503, "unavailable", "STS is slow");
        Answer::json(503, &down).with("retry-after", "1")
    });
    let words = ["exec", "--identity", "aws", "--role", "r", "--", "true"];
    let mut command = detached(&broker.url, &words);
    command.env_remove("DAYFLY_ID_TOKEN").envs(KEY);
    let running = Running::start(command);
    while broker.requests().is_empty() {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(200));
    running.signal(Signal::TERM);
    assert_eq!(running.finish().code, Some(143));
    assert_eq!(broker.requests().len(), 1);
}

/// With it the command could open tasks as we do.
#[test]
fn what_signed_does_not_reach_the_command() {
    let broker = Broker::granting(vec![postgres("r")]);
    let said = |options: &[&str]| {
        let words = [&["exec", "-q", "--role", "r"], options, &["--", "env"]].concat();
        let mut command = dayfly(&broker.url, &words);
        command.env_remove("DAYFLY_ID_TOKEN").env("DAYFLY_IDENTITY", "aws").envs(KEY);
        run(command).out
    };
    let out = said(&[]);
    assert!(out.contains("PGUSER=df_x") && out.contains("AWS_REGION=eu-central-1"), "{out}");
    for absent in ["AKIA", "hunter2-aws", "DAYFLY_IDENTITY"] {
        assert!(!out.contains(absent), "{absent}: {out}");
    }
    assert!(said(&["--keep-ci-identity"]).contains("hunter2-aws"));
}

#[test]
fn a_request_that_a_broker_saw_is_not_shown_twice() {
    let broker = Broker::start(|request, before| {
        if request.line() == "POST /api/v1/tasks" && before == 0 {
            let down = problem(503, "unavailable", "STS is slow");
            return Answer::json(503, &down).with("retry-after", "1");
        }
        grant(request, &[postgres("r")])
    });
    let finished = exec(&broker.url, &KEY);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let asked = broker.asked("POST /api/v1/tasks");
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0].bearer, asked[1].bearer);
}

#[test]
fn a_container_is_asked_with_its_own_token() {
    let broker = Broker::granting(vec![postgres("r")]);
    let container = Broker::start(|_, _| {
        let answer = json!({
            "AccessKeyId": "ASIAEXAMPLEKEY000001",
            "SecretAccessKey": "hunter2-aws-secret",
            "Token": "session-token",
            "Expiration": "2026-09-21T15:13:20Z",
        });
        Answer::json(200, &answer)
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "container-token\n").unwrap();
    let url = format!("{}/v1/credentials", container.url);
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "not-this-one"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.path().to_str().unwrap()),
    ];
    let finished = exec(&broker.url, &variables);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let asked = container.asked("GET /v1/credentials");
    assert_eq!((asked.len(), asked[0].bearer.as_str()), (1, "container-token"));
    let request = signed(&broker.asked("POST /api/v1/tasks")[0].bearer);
    assert_eq!(request["headers"]["x-amz-security-token"], "session-token");
    assert_eq!(request["url"], "https://sts.amazonaws.com/", "without a region");
}

#[test]
fn a_container_that_gives_nothing_starts_nothing() {
    let broker = Broker::granting(vec![postgres("r")]);
    for (status, body) in [(403, json!({})), (200, json!({ "AccessKeyId": "x" }))] {
        let container = Broker::start(move |_, _| Answer::json(status, &body));
        let finished =
            exec(&broker.url, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.url.as_str())]);
        assert_eq!(finished.code, Some(125), "{finished:?}");
        assert!(finished.err.contains("the container's endpoint"), "{}", finished.err);
    }
    let finished = exec(&broker.url, &[]);
    assert_eq!(finished.code, Some(125));
    assert!(finished.err.contains("AWS_ACCESS_KEY_ID"), "{}", finished.err);
    assert_eq!(broker.requests().len(), 0);
}
