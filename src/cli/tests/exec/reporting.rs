//! `--report` and `--revoke-failure`: what programs learn of a run.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use dayfly_api::{LeaseCounts, LeasePage};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, Broker, PASSWORD, TASK_TOKEN, completed, grant, lease, postgres, problem},
    program::{Finished, dayfly, detached, run},
};

fn exec(broker: &Broker, report: &Path, options: &[&str], script: &str) -> (Finished, Value) {
    let words = ["exec", "--role", "r", "--report", report.to_str().unwrap()];
    let words = [&words, options, &["--", "sh", "-c", script]].concat();
    let finished = run(dayfly(&broker.url, &words));
    let text = fs::read_to_string(report).unwrap_or_default();
    assert!(!text.contains(PASSWORD) && !text.contains(TASK_TOKEN), "{text}");
    (finished, serde_json::from_str(&text).unwrap_or_default())
}

#[test]
fn a_report_says_what_no_exit_code_can() {
    let broker = Broker::granting(vec![postgres("r")]);
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("report.json");
    for (script, child) in [
        ("exit 125", json!({ "exit_code": 125, "signal": null })),
        ("kill -KILL $$", json!({ "exit_code": null, "signal": 9 })),
    ] {
        let (_, report) = exec(&broker, &path, &[], script);
        let lease = json!({
            "id": "lse_r", "role": "r", "expires_at": "2026-01-01T00:15:00Z", "revoked": true
        });
        let expected =
            json!({ "task": "tsk_1", "leases": [lease], "child": child, "rotations": 0 });
        assert_eq!(report, expected);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // Nothing was started, which is 125 as well.
    let denying = Broker::start(|_, _| Answer::json(403, &problem(403, "role_denied", "no")));
    let (denied, report) = exec(&denying, &path, &[], "exit 0");
    assert_eq!(denied.code, Some(125));
    assert_eq!(report, json!({ "task": null, "leases": [], "child": null, "rotations": 0 }));
}

/// What looks like a program and is none is found out by the system alone.
#[test]
fn a_command_that_is_not_executed_is_not_the_commands_own_end() {
    let home = tempfile::tempdir().unwrap();
    let (path, script) = (home.path().join("report.json"), home.path().join("script"));
    for (text, code) in [("#!/nonexistent/sh\n", 127), ("#!/etc/passwd\n", 126)] {
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let broker = Broker::granting(vec![postgres("r")]);
        let words = ["exec", "--role", "r", "--report", path.to_str().unwrap(), "--"];
        let words = [&words[..], &[script.to_str().unwrap()]].concat();
        let finished = run(detached(&broker.url, &words));
        assert_eq!(finished.code, Some(code), "{finished:?}");
        assert!(finished.err.contains("error: cannot start `"), "{}", finished.err);
        let report: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!((&report["child"], &report["task"]), (&Value::Null, &json!("tsk_1")));
        assert_eq!(broker.outcome(), "cancelled");
    }
    // One that says so itself.
    let broker = Broker::granting(vec![postgres("r")]);
    let (_, report) = exec(&broker, &path, &[], "exit 127");
    assert_eq!(report["child"]["exit_code"], 127);
}

#[test]
fn a_report_that_cannot_be_left_asks_for_nothing() {
    let broker = Broker::granting(vec![postgres("r")]);
    let (finished, _) = exec(&broker, Path::new("/nonexistent/report"), &[], "exit 0");
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(finished.err.contains("`/nonexistent/report`"), "{}", finished.err);
    assert_eq!(broker.requests().len(), 0);
}

#[test]
fn a_credential_that_is_not_dead_can_be_a_failure() {
    let broker = Broker::start(|request, _| match request.line().as_str() {
        "POST /api/v1/tasks/tsk_1/complete" => Answer::json(202, &completed("revoking", 1, 0)),
        _ => grant(request, &[postgres("r")]),
    });
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("report.json");
    for (options, script, code) in [
        (["--revoke-failure", "warn"], "exit 0", 0),
        (["--revoke-failure", "fail"], "exit 0", 125),
        (["--revoke-failure", "fail"], "exit 3", 3),
    ] {
        let (finished, report) = exec(&broker, &path, &options, script);
        assert_eq!(finished.code, Some(code), "{options:?} {script}");
        assert_eq!(report["leases"][0]["revoked"], false);
        assert!(finished.err.contains("not yet verified dead"), "{}", finished.err);
    }
}

#[test]
fn of_several_credentials_the_dead_ones_are_named() {
    let broker = Broker::start(|request, _| match request.line().as_str() {
        "POST /api/v1/tasks/tsk_1/complete" => Answer::json(202, &completed("revoking", 1, 1)),
        line if line.starts_with("GET /api/v1/leases") => {
            let mut dead = lease("s", &[], &[]);
            (dead.state, dead.credential) = ("revoked".into(), None);
            Answer::json(200, &LeasePage { data: vec![dead], next_cursor: None })
        }
        _ => grant(request, &[postgres("r"), lease("s", &[("KEY", "key")], &[("key", "k")])]),
    });
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("report.json");
    let (finished, report) = exec(&broker, &path, &["--role", "s"], "exit 0");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let revoked = [0, 1].map(|index| report["leases"][index]["revoked"].clone());
    assert_eq!(revoked, [json!(false), json!(true)], "{report}");
}

#[test]
fn what_nobody_can_prove_is_not_called_dead() {
    let abandoned = LeaseCounts { abandoned: 1, ..LeaseCounts::default() };
    let lingering = LeaseCounts { revoking: 1, lingering: 1, ..LeaseCounts::default() };
    for (state, leases, until, said) in [
        (
            "abandoned",
            abandoned,
            None,
            "1 credential given up by two people, and nothing proves the end",
        ),
        (
            "revoking",
            lingering,
            Some("2026-01-01T00:15:00Z"),
            "1 credential can be used until 2026-01-01T00:15:00Z",
        ),
    ] {
        let mut done = completed(state, 0, 0);
        (done.leases, done.residual_until) = (leases, until.map(Into::into));
        let broker = Broker::start(move |request, _| match request.line().as_str() {
            "POST /api/v1/tasks/tsk_1/complete" => Answer::json(202, &done),
            _ => grant(request, &[postgres("r")]),
        });
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("report.json");
        let (finished, report) = exec(&broker, &path, &["--revoke-failure", "fail"], "exit 0");
        assert_eq!((finished.code, &report["leases"][0]["revoked"]), (Some(125), &json!(false)));
        assert!(finished.err.contains(said), "{}", finished.err);
    }
}
