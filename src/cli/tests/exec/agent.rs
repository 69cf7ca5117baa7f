//! The agent: what it keeps, to whom it gives it, how it ends.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use dayfly_api::{Lease, Renewed, Revoked};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    broker::{Answer, Broker, Request, TASK_TOKEN, grant, heard, lease, opened, problem},
    program::{Finished, Running, dayfly, detached, private_place, program, run},
    wire::{ask, connected},
};

const LEASES: &str = "POST /api/v1/leases";

/// The credential number `number`, which lives for so many seconds.
pub(crate) fn minted(number: usize, role: &str, seconds: u32, renewable: bool) -> Lease {
    let key = format!("hunter2-{number}");
    let fields = [
        ("access_key_id", "AKIA"),
        ("secret_access_key", key.as_str()),
        ("region", "eu-central-1"),
    ];
    let mut lease = lease(role, &[("AWS_REGION", "region"), ("KEY", "secret_access_key")], &fields);
    lease.id = format!("lse_{number}");
    lease.expires_at = format!("2026-01-01T00:00:{seconds:02}Z");
    lease.renewable = renewable;
    lease
}

/// A broker that mints credentials of so many seconds, renews them if `renewable`, and revokes.
fn broker(seconds: u32, renewable: bool) -> Broker {
    Broker::start(move |request, before| answer(request, before, seconds, renewable))
}

fn answer(request: &Request, before: usize, seconds: u32, renewable: bool) -> Answer {
    let line = request.line();
    match line.as_str() {
        "POST /api/v1/tasks" => Answer::json(201, &opened(&[])),
        LEASES => {
            let role = request.body["role"].as_str().unwrap();
            Answer::json(201, &minted(before, role, seconds, renewable))
        }
        "POST /api/v1/tasks/tsk_1/heartbeat" => Answer::json(200, &heard()),
        _ if line.ends_with("/renew") => {
            let renewed = Renewed {
                id: "lse_0".into(),
                ttl_seconds: i64::from(seconds),
                expires_at: format!("2026-01-01T00:01:{before:02}Z"),
                max_expires_at: "2026-01-01T01:00:00Z".into(),
                truncated: false,
            };
            Answer::json(200, &renewed)
        }
        _ if line.ends_with("/revoke") => {
            let revoked = Revoked {
                id: "lse_0".into(),
                state: "revoked".into(),
                cause: None,
                revoked_at: None,
            };
            Answer::json(200, &revoked)
        }
        _ => grant(request, &[]),
    }
}

/// An agent, and where it listens.
struct Agent {
    running: Running,
    path: PathBuf,
    _place: TempDir,
}

impl Agent {
    fn start(broker: &Broker, options: &[&str]) -> Self {
        let place = private_place();
        let path = place.path().join("agent.sock");
        let words = ["agent", "--role", "r", "--listen", path.to_str().unwrap()];
        let command = detached(&broker.url, &[&words, options].concat());
        let running = Running::start(command);
        drop(connected(&path));
        Self { running, path, _place: place }
    }

    fn stop(self) -> Finished {
        self.running.signal(Signal::TERM);
        self.running.finish()
    }
}

fn get(path: &Path) -> serde_json::Value {
    let said = ask(path, "GET /v1/credential/r");
    assert_eq!(said.status, 200, "{said:?}");
    said.body
}

pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..400 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(25));
    }
    panic!("{what}");
}

#[test]
fn all_who_ask_get_one_credential_which_ends_with_the_agent() {
    let broker = broker(59, true);
    let agent = Agent::start(&broker, &["--heartbeat", "none"]);
    assert!(broker.asked(LEASES).is_empty(), "nothing is minted before somebody asks");
    let one = thread::scope(|scope| {
        let path = &agent.path;
        let all = [(); 4].map(|()| scope.spawn(move || get(path)));
        all.map(|one| one.join().unwrap())
    });
    assert!(one.iter().all(|other| *other == one[0]), "{one:?}");
    assert_eq!(one[0]["lease"], "lse_0");
    assert_eq!(one[0]["expires_at"], "2026-01-01T00:00:59Z");
    assert_eq!(one[0]["credential"]["secret_access_key"], "hunter2-0");
    assert_eq!(broker.asked(LEASES).len(), 1);
    assert_eq!(broker.asked(LEASES)[0].bearer, TASK_TOKEN);

    let path = agent.path.clone();
    let finished = agent.stop();
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), ""), "{finished:?}");
    assert_eq!(broker.outcome(), "completed");
    assert!(!path.exists());
    assert!(
        !finished.err.contains("hunter2") && !finished.err.contains(TASK_TOKEN),
        "{finished:?}"
    );
}

#[test]
fn what_was_not_named_is_not_served() {
    let broker = broker(59, true);
    let agent = Agent::start(&broker, &[]);
    let said = ask(&agent.path, "GET /v1/credential/other");
    assert_eq!((said.status, &said.body["code"]), (404, &"unknown_role".into()));
    for (line, status) in [
        ("GET /v1/credential/r?held", 404),
        ("DELETE /v1/credential/r/lse_0", 404),
        ("POST /v1/credential/r", 400),
        ("GET /v1/credential/r/lse_0", 400),
        ("GET /", 400),
    ] {
        assert_eq!(ask(&agent.path, line).status, status, "{line}");
    }
    assert!(broker.asked(LEASES).is_empty());
    agent.stop();
}

#[test]
fn a_credential_is_renewed_while_the_agent_runs() {
    let broker = broker(4, true);
    let agent = Agent::start(&broker, &["--eager"]);
    wait_for("it is minted at the start", || broker.asked(LEASES).len() == 1);
    let renewals = || broker.asked("POST /api/v1/leases/lse_0/renew");
    wait_for("it is renewed", || !renewals().is_empty());
    assert_eq!(renewals()[0].body["ttl_seconds"], 4);
    assert_eq!(renewals()[0].bearer, TASK_TOKEN);
    let credential = get(&agent.path);
    assert_eq!(credential["lease"], "lse_0");
    assert!(credential["expires_at"].as_str().unwrap().starts_with("2026-01-01T00:01:"));
    assert_eq!(broker.asked(LEASES).len(), 1, "renewing makes no other");
    agent.stop();
}

/// The second is there before the first has ended, and who was told when the first ends keeps it
/// until then.
#[test]
fn one_that_cannot_be_renewed_is_replaced_before_its_end() {
    let broker = broker(6, false);
    let agent = Agent::start(&broker, &[]);
    assert_eq!(get(&agent.path)["lease"], "lse_0");
    wait_for("another is minted", || broker.asked(LEASES).len() == 2);
    wait_for("it is given", || get(&agent.path)["lease"] == "lse_1");
    assert!(broker.asked("POST /api/v1/leases/lse_0/revoke").is_empty());
    let finished = agent.stop();
    assert!(!finished.err.contains("warning"), "{}", finished.err);
}

#[test]
fn one_that_nobody_uses_is_not_replaced() {
    let broker = broker(3, false);
    let agent = Agent::start(&broker, &[]);
    assert_eq!(get(&agent.path)["lease"], "lse_0");
    // The second is for whoever asked for the first; nobody asks for it.
    wait_for("another is minted", || broker.asked(LEASES).len() == 2);
    thread::sleep(Duration::from_secs(5));
    assert_eq!(broker.asked(LEASES).len(), 2);
    assert_eq!(get(&agent.path)["lease"], "lse_2", "the next use gets another");
    agent.stop();
}

#[test]
fn an_old_credential_is_better_than_none() {
    let broker = Broker::start(|request, before| {
        if request.line() == LEASES && before > 0 {
            return Answer::json(503, &problem(503, "unavailable", "the store is down"));
        }
        answer(request, before, 8, false)
    });
    let agent = Agent::start(&broker, &[]);
    assert_eq!(get(&agent.path)["lease"], "lse_0");
    wait_for("another is wanted", || broker.asked(LEASES).len() > 1);
    assert_eq!(get(&agent.path)["lease"], "lse_0");
    let finished = agent.stop();
    let told = finished.err.matches("role `r`: cannot get another credential").count();
    assert_eq!(told, 1, "{}", finished.err);
}

/// AWS's SDK for Python waits two seconds, then asks again.
#[test]
fn who_does_not_wait_for_a_slow_broker_finds_the_credential_later() {
    let broker = Broker::start(|request, before| {
        if request.line() == LEASES {
            thread::sleep(Duration::from_secs(1));
        }
        answer(request, before, 59, true)
    });
    let agent = Agent::start(&broker, &[]);
    let mut impatient = connected(&agent.path);
    impatient.write_all(b"GET /v1/credential/r HTTP/1.1\r\nhost: agent\r\n\r\n").unwrap();
    wait_for("the broker is asked", || broker.asked(LEASES).len() == 1);
    drop(impatient);
    assert_eq!(get(&agent.path)["lease"], "lse_0");
    assert_eq!(broker.asked(LEASES).len(), 1);
    agent.stop();
}

#[test]
fn a_killed_agent_is_silent() {
    let broker = broker(59, true);
    let agent = Agent::start(&broker, &["--heartbeat", "1s"]);
    get(&agent.path);
    let beats = || broker.asked("POST /api/v1/tasks/tsk_1/heartbeat").len();
    wait_for("it is heard", || beats() >= 2);
    assert_eq!(broker.asked("POST /api/v1/tasks")[0].body["heartbeat_seconds"], 1);
    agent.running.signal(Signal::KILL);
    assert_eq!(agent.running.finish().code, None);
    let before = beats();
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(beats(), before);
    // What it left is taken over.
    let words = ["agent", "--role", "r", "--idle", "1s", "--listen", agent.path.to_str().unwrap()];
    assert_eq!(run(dayfly(&broker.url, &words)).code, Some(0));
}

#[test]
fn it_ends_when_nobody_asks_and_when_its_task_ends() {
    let broker = broker(59, true);
    let place = private_place();
    let path = place.path().join("agent.sock");
    let words = |options: &[&str]| {
        let words = ["agent", "--role", "r", "--listen", path.to_str().unwrap()];
        run(dayfly(&broker.url, &[&words, options].concat()))
    };
    assert_eq!(words(&["--idle", "1s"]).code, Some(0));
    assert_eq!(broker.outcome(), "completed");
    let ended = words(&["--ttl", "1s"]);
    assert_eq!(ended.code, Some(6), "{ended:?}");
    assert!(ended.err.contains("has reached its deadline"), "{}", ended.err);
}

#[test]
fn a_lost_task_ends_the_agent() {
    let broker = Broker::start(|request, before| {
        if request.line() == "POST /api/v1/tasks/tsk_1/heartbeat" {
            return Answer::json(409, &problem(409, "task_closed", "the task has ended: lost"));
        }
        answer(request, before, 59, true)
    });
    let agent = Agent::start(&broker, &["--heartbeat", "1s"]);
    let finished = agent.running.finish();
    assert_eq!(finished.code, Some(6), "{finished:?}");
    assert!(finished.err.contains("so does the agent"), "{}", finished.err);
}

#[test]
fn two_agents_do_not_share_a_socket() {
    let broker = broker(59, true);
    let agent = Agent::start(&broker, &[]);
    let words = ["agent", "--role", "r", "--listen", agent.path.to_str().unwrap()];
    let second = run(dayfly(&broker.url, &words));
    assert_eq!(second.code, Some(2), "{second:?}");
    assert!(second.err.contains("listens on"), "{}", second.err);
    assert_eq!(broker.asked("POST /api/v1/tasks").len(), 1, "it opened no task");
    get(&agent.path);
    agent.stop();
}

#[test]
fn a_role_that_is_denied_stops_an_eager_agent() {
    let broker = Broker::start(|request, before| {
        if request.line() == LEASES {
            return Answer::json(403, &problem(403, "role_denied", "not for you"));
        }
        answer(request, before, 59, true)
    });
    let mark = private_place();
    let mark = mark.path().join("started");
    let words = ["agent", "--role", "r", "--eager", "--", "touch", mark.to_str().unwrap()];
    let denied = run(dayfly(&broker.url, &words));
    assert_eq!(denied.code, Some(4), "{denied:?}");
    assert!(denied.err.contains("error[role_denied]: not for you"), "{}", denied.err);
    assert!(!mark.exists());
    assert_eq!(broker.outcome(), "cancelled");
}

#[test]
fn a_command_finds_the_agent_and_ends_it() {
    let broker = broker(59, true);
    let place = private_place();
    let script = "test -z \"$DAYFLY_ID_TOKEN\" || exit 9; echo $DAYFLY_AGENT_SOCKET; \
                  \"$DAYFLY\" credential aws --role r; exit 7";
    let words = ["agent", "--role", "r", "--", "sh", "-c", script];
    let mut command = detached(&broker.url, &words);
    command.env("TMPDIR", place.path()).env("DAYFLY", program());
    let finished = run(command);
    assert_eq!(finished.code, Some(7), "{finished:?}");
    let (socket, credential) = finished.out.split_once('\n').unwrap();
    assert!(Path::new(socket).starts_with(place.path()), "{socket}");
    assert!(credential.contains("\"SecretAccessKey\":\"hunter2-0\""), "{credential}");
    assert_eq!(broker.asked("POST /api/v1/tasks").len(), 1, "the agent was asked");
    assert_eq!(broker.outcome(), "failed");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn a_signal_reaches_the_agents_command() {
    let broker = broker(59, true);
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let words = ["agent", "--role", "r", "--", "sh", "-c", script];
    let mut running = Running::start(detached(&broker.url, &words));
    assert_eq!(running.line(), "ready");
    running.signal(Signal::TERM);
    assert_eq!(running.finish().code, Some(5));
    assert_eq!(broker.outcome(), "cancelled");
    let missing = run(dayfly(&broker.url, &["agent", "--role", "r", "--", "no-such-program"]));
    assert_eq!(missing.code, Some(127), "{missing:?}");
}

/// The end by a signal is passed on when everything is cleaned up.
#[test]
fn a_command_that_dies_of_a_signal_leaves_no_directory() {
    let broker = broker(59, true);
    let place = private_place();
    let words = ["agent", "--role", "r", "--", "sh", "-c", "ls -d $TMPDIR/dayfly-*; kill -KILL $$"];
    let mut command = detached(&broker.url, &words);
    command.env("TMPDIR", place.path());
    let finished = run(command);
    assert_eq!(finished.signal, Some(Signal::KILL.as_raw()), "{finished:?}");
    assert!(finished.out.contains("/dayfly-"), "{finished:?}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    assert_eq!(broker.outcome(), "failed");
}
