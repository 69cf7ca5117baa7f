//! `task open`: what it leaves, and what it leaves behind when it fails.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use dayfly_api::Renewed;

use crate::{
    broker::{Answer, Broker, PASSWORD, TASK_TOKEN, grant, lease, postgres, problem},
    program::{Finished, dayfly, run},
};

fn open(broker: &Broker, directory: &Path, roles: &[&str]) -> Finished {
    let directory = directory.to_str().unwrap();
    let words = ["task", "open", "--directory", directory, "--ttl", "20m", "--purpose", "nightly"];
    run(dayfly(&broker.url, &[&words, roles].concat()))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_a_script_needs_is_left_to_this_user_alone() {
    let broker = Broker::start(|request, _| {
        if request.line() == "POST /api/v1/leases/lse_pg/renew" {
            let renewed = Renewed {
                id: "lse_pg".into(),
                ttl_seconds: 1200,
                expires_at: "2026-01-01T00:20:00Z".into(),
                max_expires_at: "2026-01-01T01:00:00Z".into(),
                truncated: false,
            };
            return Answer::json(200, &renewed);
        }
        grant(request, &[postgres("pg")])
    });
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("state");
    let finished = open(&broker, &directory, &["--role", "pg"]);
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), ""), "{finished:?}");
    assert!(
        finished.err.contains("lease lse_pg (main, until 2026-01-01T00:20:00Z)"),
        "{finished:?}"
    );
    assert!(!finished.err.contains(PASSWORD) && !finished.err.contains(TASK_TOKEN), "{finished:?}");

    assert_eq!(mode(&directory), 0o700);
    for name in ["env", "task", "token"] {
        assert_eq!(mode(&directory.join(name)), 0o600, "{name}");
    }
    assert_eq!(fs::read_to_string(directory.join("token")).unwrap().trim(), TASK_TOKEN);
    assert_eq!(fs::read_to_string(directory.join("task")).unwrap().trim(), "tsk_1");
    let text = fs::read_to_string(directory.join("env")).unwrap();
    assert!(text.contains(&format!("export PGPASSWORD='{PASSWORD}'\n")), "{text}");
    let opened = broker.asked("POST /api/v1/tasks");
    assert_eq!(opened[0].body["purpose"], "nightly");
    assert_eq!(opened[0].body["ttl_seconds"], 1200);
    assert_eq!(broker.asked("POST /api/v1/leases/lse_pg/renew")[0].bearer, TASK_TOKEN);
    assert_eq!(broker.asked("POST /api/v1/tasks/tsk_1/complete").len(), 0);

    // Once more would lose what completes the first one.
    let again = open(&broker, &directory, &["--role", "pg"]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert_eq!(broker.asked("POST /api/v1/tasks").len(), 1);
}

#[test]
fn what_was_refused_leaves_nothing() {
    let broker = Broker::start(|_, _| Answer::json(403, &problem(403, "role_denied", "no")));
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("state");
    let denied = open(&broker, &directory, &["--role", "pg"]);
    assert_eq!((denied.code, denied.out.as_str()), (Some(4), ""), "{denied:?}");
    assert!(!directory.exists());
}

#[test]
fn credentials_that_cannot_be_left_are_ended() {
    let broker = Broker::granting(vec![lease("odd", &[("LD_PRELOAD", "x")], &[("x", "y")])]);
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("state");
    let refused = open(&broker, &directory, &["--role", "odd"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("is reserved: it could run code"), "{refused:?}");
    assert_eq!(broker.outcome(), "cancelled");
    assert!(!directory.exists());
}

#[test]
fn whoever_asked_is_named_by_their_token_and_the_command_never_sees_it() {
    let broker = Broker::granting(vec![postgres("pg")]);
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("ada");
    fs::write(&file, "ada.person.secret\n").unwrap();
    let directory = place.path().join("state");
    let words = ["task", "open", "--role", "pg", "--directory", directory.to_str().unwrap()];
    let mut open = dayfly(&broker.url, &words);
    open.arg("--on-behalf-of-file").arg(&file);
    let opened = run(open);
    assert_eq!(opened.code, Some(0), "{opened:?}");
    let mut exec = dayfly(&broker.url, &["exec", "--role", "pg", "--", "env"]);
    exec.env("DAYFLY_ON_BEHALF_OF_FILE", &file);
    let ran = run(exec);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let mut helper = dayfly(&broker.url, &["credential", "pgpass", "--role", "pg"]);
    helper.env("DAYFLY_ON_BEHALF_OF_FILE", &file);
    let helped = run(helper);
    assert_eq!(helped.code, Some(0), "{helped:?}");
    let mut agent = dayfly(&broker.url, &["agent", "--role", "pg", "--on-behalf-of-file"]);
    agent.arg(&file).args(["--", "env"]);
    let attended = run(agent);
    assert_eq!(attended.code, Some(0), "{attended:?}");
    let asked = broker.asked("POST /api/v1/tasks");
    assert_eq!(asked.len(), 4, "{asked:?}");
    for request in asked {
        assert_eq!(request.body["on_behalf_of"], "ada.person.secret");
    }
    let texts = [opened.out, opened.err, ran.out, ran.err, helped.out, helped.err];
    for text in texts.into_iter().chain([attended.out, attended.err]) {
        assert!(!text.contains("ada.person.secret") && !text.contains("ON_BEHALF"), "{text}");
    }

    for (name, code) in [("-", 2), ("/nonexistent", 2)] {
        let mut open = dayfly(&broker.url, &words);
        open.args(["--on-behalf-of-file", name]);
        let refused = run(open);
        assert_eq!(refused.code, Some(code), "{refused:?}");
    }
    assert_eq!(broker.asked("POST /api/v1/tasks").len(), 4);
}
