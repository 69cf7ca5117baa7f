//! `dayfly credential`: each protocol from outside, with and without an agent.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use dayfly_api::Revoked;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    agent::{minted, wait_for},
    broker::{Answer, Broker, PASSWORD, TASK_TOKEN, grant, lease, opened, postgres, problem},
    program::{Finished, ID_TOKEN, Running, dayfly, detached, private_place, run},
    wire::connected,
};

const OPEN: &str = "POST /api/v1/tasks";
const COMPLETE: &str = "POST /api/v1/tasks/tsk_1/complete";

fn credential(broker: &Broker, words: &[&str]) -> Finished {
    run(dayfly(&broker.url, &[&["credential"], words].concat()))
}

/// The same with something on stdin.
fn asked(mut command: Command, request: &str) -> Finished {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Whoever has seen enough in the command line reads nothing.
    let _ = child.stdin.take().unwrap().write_all(request.as_bytes());
    child.wait_with_output().unwrap().into()
}

fn helper(broker: &Broker, protocol: &str, operation: &str, request: &str) -> Finished {
    let words = ["credential", protocol, "--role", "r", "--host", "ghcr.io", operation];
    asked(dayfly(&broker.url, &words), request)
}

#[test]
fn without_an_agent_a_task_is_opened_for_the_credential_and_left_to_its_end() {
    let broker = Broker::granting(vec![postgres("r")]);
    let finished = credential(&broker, &["pgpass", "--role", "r"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(finished.out, format!("db.example:5432:shop:df_x:{PASSWORD}\n"));
    assert_eq!(finished.err, "");
    let requests = broker.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(requests[0].bearer, ID_TOKEN);
    assert_eq!(
        requests[0].body,
        json!({ "purpose": "credential pgpass", "ttl_seconds": 3600, "roles": ["r"] })
    );
}

#[test]
fn a_life_that_was_asked_for_is_asked_for() {
    let broker = Broker::start(|request, _| match request.line().as_str() {
        "POST /api/v1/leases/lse_r/renew" => Answer::json(
            200,
            &dayfly_api::Renewed {
                id: "lse_r".into(),
                ttl_seconds: 7200,
                expires_at: "2026-01-01T02:00:00.5Z".into(),
                max_expires_at: "2026-01-01T02:00:00.5Z".into(),
                truncated: false,
            },
        ),
        _ => grant(request, &[lease("r", &[], &[("token", "hunter2")])]),
    });
    let finished = credential(&broker, &["k8s", "--role", "r", "--ttl", "2h"]);
    let answer: Value = serde_json::from_str(&finished.out).unwrap();
    assert_eq!(
        answer["status"],
        json!({ "token": "hunter2", "expirationTimestamp": "2026-01-01T02:00:00Z" })
    );
    assert_eq!(broker.asked(OPEN)[0].body["ttl_seconds"], 7200);
    assert_eq!(broker.requests()[1].body["ttl_seconds"], 7200);
}

#[test]
fn what_a_protocol_cannot_say_is_ended_and_said_without_a_value() {
    let broker = Broker::granting(vec![postgres("r")]);
    let finished = credential(&broker, &["aws", "--role", "r"]);
    assert_eq!((finished.code, finished.out.as_str()), (Some(2), ""), "{finished:?}");
    assert!(finished.err.contains("has no field for `access_key_id`"), "{}", finished.err);
    assert!(!finished.err.contains(PASSWORD), "{}", finished.err);
    assert_eq!(broker.outcome(), "cancelled");

    let names = ["--field-map", "access_key_id=username", "--field-map"];
    let names = [&["aws", "--role", "r"], &names[..], &["secret_access_key=password"]].concat();
    let finished = credential(&broker, &names);
    assert!(finished.out.contains("\"AccessKeyId\":\"df_x\""), "{finished:?}");
}

#[test]
fn a_kubernetes_client_of_another_version_gets_nothing() {
    let broker = Broker::granting(vec![lease("r", &[], &[("token", "t")])]);
    let mut command = dayfly(&broker.url, &["credential", "k8s", "--role", "r"]);
    let info = json!({ "apiVersion": "client.authentication.k8s.io/v1beta1",
        "kind": "ExecCredential", "spec": { "interactive": false } });
    command.env("KUBERNETES_EXEC_INFO", info.to_string());
    let finished = run(command);
    assert_eq!((finished.code, finished.out.as_str()), (Some(2), ""));
    assert!(finished.err.contains("set `apiVersion: client.authentication.k8s.io/v1`"));
    assert!(broker.requests().is_empty());
}

#[test]
fn google_reads_a_failure_from_stdout_and_nothing_from_stderr() {
    let broker = Broker::start(|_, _| Answer::json(403, &problem(403, "role_denied", "no")));
    let finished = credential(&broker, &["gcp", "--role", "r"]);
    assert_eq!((finished.code, finished.err.as_str()), (Some(0), ""), "{finished:?}");
    let answer: Value = serde_json::from_str(&finished.out).unwrap();
    assert_eq!((&answer["success"], &answer["code"]), (&json!(false), &json!("4")));
    assert!(answer["message"].as_str().unwrap().contains("req_1"), "{answer}");

    let broker = Broker::granting(vec![lease("r", &[], &[("key", "e.y.J")])]);
    let finished = credential(&broker, &["gcp", "--role", "r"]);
    assert_eq!((finished.code, finished.err.as_str()), (Some(0), ""), "{finished:?}");
    let answer: Value = serde_json::from_str(&finished.out).unwrap();
    assert_eq!(answer["id_token"], "e.y.J");
}

#[test]
fn docker_reads_everything_from_stdout() {
    let broker = Broker::granting(vec![postgres("r")]);
    let other = helper(&broker, "docker", "get", "evil.example\n");
    assert_eq!(other.code, Some(1), "{other:?}");
    assert_eq!(other.out, "credentials not found in native keychain\n");
    let store = helper(&broker, "docker", "store", "{}");
    assert_eq!((store.code, store.err.as_str()), (Some(1), ""), "{store:?}");
    assert!(store.out.contains("nowhere to store"), "{store:?}");
    assert_eq!(helper(&broker, "docker", "list", "").out, "{\"ghcr.io\":\"\"}\n");
    assert_eq!(helper(&broker, "docker", "erase", "ghcr.io").code, Some(0));
    assert!(broker.requests().is_empty());

    let got = helper(&broker, "docker", "get", "https://ghcr.io\n");
    let answer: Value = serde_json::from_str(&got.out).unwrap();
    assert_eq!(
        answer,
        json!({ "ServerURL": "https://ghcr.io", "Username": "df_x", "Secret": PASSWORD })
    );
    let broker = Broker::start(|_, _| Answer::json(403, &problem(403, "role_denied", "\u{1b}[2J")));
    let denied = helper(&broker, "docker", "get", "ghcr.io");
    assert_eq!((denied.code, denied.err.as_str()), (Some(1), ""), "{denied:?}");
    assert!(denied.out.contains("(request req_1)") && !denied.out.contains('\u{1b}'), "{denied:?}");
}

#[test]
fn git_is_answered_for_the_named_host_over_https_alone() {
    let broker = Broker::granting(vec![lease("r", &[], &[("token", "hunter2")])]);
    for request in [
        "protocol=https\nhost=evil.example\n\n",
        "protocol=http\nhost=ghcr.io\n\n",
        "protocol=https\n\nhost=ghcr.io\n",
        "",
    ] {
        let finished = helper(&broker, "git", "get", request);
        assert_eq!((finished.code, finished.out.as_str()), (Some(0), ""), "{request:?}");
    }
    for operation in ["store", "capability", "erase"] {
        let finished = helper(&broker, "git", operation, "protocol=https\nhost=ghcr.io\n\n");
        assert_eq!((finished.code, finished.out.as_str()), (Some(0), ""), "{operation}");
    }
    assert!(broker.requests().is_empty(), "nothing was minted for them");
    let finished = helper(&broker, "git", "get", "protocol=https\nhost=ghcr.io\nx[]=1\n\n");
    assert_eq!(
        finished.out,
        "username=x-access-token\npassword=hunter2\npassword_expiry_utc=1767226500\n"
    );
    // Another user's password is not ours, and what was minted is ended.
    let broker = Broker::granting(vec![postgres("r")]);
    let request = "protocol=https\nhost=ghcr.io\nusername=root\n\n";
    let finished = helper(&broker, "git", "get", request);
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), ""), "{finished:?}");
    assert_eq!(broker.outcome(), "cancelled");
}

/// A broker for an agent of the role `r`, and the agent.
fn agent(place: &Path) -> (Broker, Running) {
    let broker = Broker::start(|request, before| match request.line().as_str() {
        OPEN => Answer::json(201, &opened(&[])),
        "POST /api/v1/leases" => Answer::json(201, &minted(before, "r", 59, true)),
        line if line.ends_with("/revoke") => {
            let id = "lse_0".into();
            let state = "revoked".into();
            Answer::json(200, &Revoked { id, state, cause: None, revoked_at: None })
        }
        _ => grant(request, &[]),
    });
    let path = place.join("agent.sock");
    let words = ["agent", "--role", "r", "--listen", path.to_str().unwrap()];
    let running = Running::start(detached(&broker.url, &words));
    drop(connected(&path));
    (broker, running)
}

#[test]
fn an_agent_is_asked_where_there_is_one_and_erases_what_was_rejected() {
    let place = private_place();
    let (broker, agent) = agent(place.path());
    let path = place.path().join("agent.sock");
    let git = |operation: &str, request: &str| {
        let words = ["credential", "git", "--role", "r", "--host", "ghcr.io", "--field-map"];
        let words = [&words[..], &["password=secret_access_key", operation]].concat();
        let mut command = dayfly("https://broker.invalid", &words);
        command.env("DAYFLY_AGENT_SOCKET", &path);
        asked(command, request)
    };
    let https = "protocol=https\nhost=ghcr.io\n";
    let got = git("get", https);
    assert!(got.out.contains("password=hunter2-0\n"), "{got:?}");
    assert!(got.out.contains("password_expiry_utc=1767225659\n"), "{got:?}");
    // An older password than the one that is held says nothing about that.
    assert_eq!(git("erase", &format!("{https}password=hunter2-7\n")).code, Some(0));
    assert!(git("get", https).out.contains("password=hunter2-0\n"));
    assert_eq!(git("erase", &format!("{https}password=hunter2-0\n")).code, Some(0));
    assert!(git("get", https).out.contains("password=hunter2-1\n"), "the next one is another");
    let revoked = || broker.asked("POST /api/v1/leases/lse_0/revoke");
    wait_for("the first is revoked", || !revoked().is_empty());
    assert_eq!((revoked().len(), revoked()[0].bearer.as_str()), (1, TASK_TOKEN));
    assert_eq!(broker.asked(OPEN).len(), 1, "only the agent's");
    agent.signal(Signal::TERM);
    let finished = agent.finish();
    assert!(!finished.err.contains("hunter2"), "{}", finished.err);
}

#[test]
fn a_named_agent_must_answer_and_the_usual_one_need_not() {
    let broker = Broker::granting(vec![postgres("other")]);
    let place = private_place();
    let directory = place.path().join("dayfly");
    std::fs::create_dir(&directory).unwrap();
    let gone = directory.join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&gone).unwrap());
    let words = ["credential", "pgpass", "--role", "other"];
    let mut command = dayfly(&broker.url, &words);
    command.env("DAYFLY_AGENT_SOCKET", &gone);
    let finished = run(command);
    assert_eq!((finished.code, finished.out.as_str()), (Some(6), ""), "{finished:?}");
    assert!(broker.requests().is_empty());
    let mut command = dayfly(&broker.url, &words);
    command.env("XDG_RUNTIME_DIR", place.path());
    assert_eq!(run(command).code, Some(0));
    assert_eq!(broker.asked(OPEN).len(), 1);
    assert!(broker.asked(COMPLETE).is_empty());

    // One that is there for other roles is not in the way either.
    let other = private_place();
    let (_agents, running) = agent(other.path());
    let path = other.path().join("agent.sock");
    let mut command = dayfly(&broker.url, &words);
    command.env("DAYFLY_AGENT_SOCKET", &path);
    let named = run(command);
    assert_eq!(named.code, Some(3), "{named:?}");
    assert!(named.err.contains("--role other"), "{}", named.err);
    let mut command = dayfly(&broker.url, &[&words[..], &["--no-agent"]].concat());
    command.env("DAYFLY_AGENT_SOCKET", &path);
    assert_eq!(run(command).code, Some(0));
    running.signal(Signal::TERM);
    running.finish();
}
