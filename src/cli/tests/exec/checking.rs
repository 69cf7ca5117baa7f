//! `role check`, `exec --dry-run` and `doctor`, where what the broker says matters less than what we
//! do about it.

use serde_json::{Value, json};

use crate::{
    broker::{Answer, Broker, Request, problem},
    program::{ID_TOKEN, dayfly, run},
};

/// A broker that only says what it would do: `roles` with their variables, if it knows them.
fn knowing(roles: &'static [(&'static str, Option<&'static str>)]) -> Broker {
    Broker::start(move |request, _| answer(request, roles))
}

fn answer(request: &Request, roles: &[(&str, Option<&str>)]) -> Answer {
    let line = request.line();
    let name = line.strip_prefix("POST /api/v1/roles/").and_then(|it| it.strip_suffix("/check"));
    let Some(name) = name else {
        return Answer::json(404, &problem(404, "no_such_path", "there is no such path"));
    };
    let Some((_, variable)) = roles.iter().find(|(role, _)| *role == name) else {
        let decisions = json!([{ "action": "mint", "allowed": false }]);
        let denied = json!({ "role": name, "allowed": false, "denied_by": "default-deny",
            "detail": "no rule permits it", "decisions": decisions });
        return Answer::json(200, &denied);
    };
    let mut check = json!({
        "role": name, "allowed": true, "ttl_seconds": 300, "decisions": [],
        // A newer broker says more.
        "moon": "full",
    });
    if let Some(variable) = variable {
        let name = *variable;
        check["variables"] = json!({ name: "key" });
    }
    Answer::json(200, &check)
}

fn asked(broker: &Broker) -> Vec<String> {
    broker.requests().iter().map(Request::line).collect()
}

#[test]
fn a_dry_run_asks_what_would_be_and_nothing_else() {
    let broker = knowing(&[("a", Some("A_KEY")), ("b", None)]);
    let words = [
        "exec",
        "--dry-run",
        "--ttl",
        "30m",
        "--role",
        "a",
        "--role",
        "X=a",
        "--role",
        "b",
        "--",
        "true",
        "hunter2",
    ];
    let told = run(dayfly(&broker.url, &words));
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.out.contains("\nsets       A_KEY DAYFLY_TASK X_A_KEY "), "{}", told.out);
    assert!(told.out.contains("the role's own variables of `b`"), "{}", told.out);
    assert!(!told.out.contains("hunter2") && !told.out.contains(ID_TOKEN), "{}", told.out);
    let checks = ["POST /api/v1/roles/a/check", "POST /api/v1/roles/b/check"];
    assert_eq!(asked(&broker), checks);
    for request in broker.requests() {
        let body = json!({ "purpose": "exec true", "task_ttl_seconds": 1_800, "explain": false });
        assert_eq!((request.body, request.proof.is_empty()), (body, false));
    }
}

#[test]
fn a_dry_run_that_would_not_start_says_why_for_each_role() {
    let broker = knowing(&[("a", Some("A_KEY"))]);
    let words = ["exec", "--dry-run", "--role", "x", "--role", "a", "--role", "y", "--", "true"];
    let told = run(dayfly(&broker.url, &words));
    assert_eq!(told.code, Some(125), "{told:?}");
    for role in ["x", "y"] {
        let line = format!(
            "dayfly: error: role `{role}` would be denied by rule `default-deny`: no rule permits it; \
             run `dayfly role check {role} --explain`\n"
        );
        assert!(told.err.contains(&line), "{}", told.err);
    }
    assert!(told.out.contains("a: 5m\n") && !told.out.contains("sets"), "{}", told.out);
}

#[test]
fn a_dry_run_refuses_what_the_run_would_refuse() {
    let broker = knowing(&[("a", Some("LD_PRELOAD")), ("b", Some("KEY")), ("c", Some("KEY"))]);
    for (words, said) in [
        (&["--role", "a"][..], "LD_PRELOAD"),
        (&["--role", "b", "--role", "c"], "--role NAME=c"),
        (&["--role", "b", "--env", "PATH=b/key"], "PATH"),
        (&["--role", "b", "--report", "x"], "--report"),
    ] {
        let words = [&["exec", "--dry-run"], words, &["--", "true"]].concat();
        let refused = run(dayfly(&broker.url, &words));
        assert_eq!(refused.code, Some(125), "{refused:?}");
        assert!(refused.err.contains(said), "{}", refused.err);
    }
    let missing = run(dayfly(&broker.url, &["exec", "--dry-run", "--role", "b", "--", "no-such"]));
    assert_eq!((missing.code, missing.out.as_str()), (Some(127), ""), "{missing:?}");
}

#[test]
fn an_older_broker_is_told_as_such() {
    let broker = Broker::start(|_, _| {
        Answer::json(404, &problem(404, "no_such_path", "there is no such path here"))
    });
    let told = run(dayfly(&broker.url, &["exec", "--dry-run", "--role", "a", "--", "true"]));
    assert_eq!(told.code, Some(125), "{told:?}");
    assert!(told.err.contains("no such path"), "{}", told.err);
    assert_eq!(run(dayfly(&broker.url, &["role", "check", "a"])).code, Some(3));
}

fn state(report: &Value, name: &str) -> String {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {report}"))["state"].as_str().unwrap().to_owned()
}

#[test]
fn the_doctor_tells_a_page_from_a_broker_and_sends_it_no_token() {
    let page = Broker::start(|_, _| Answer {
        status: 200,
        headers: vec![("date", "Thu, 01 Jan 2026 00:00:00 GMT".to_owned())],
        body: "<html>It works!</html>".into(),
    });
    let told = run(dayfly(&page.url, &["doctor", "--output", "json"]));
    assert_eq!(told.code, Some(1), "{told:?}");
    let report: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(
        (state(&report, "healthz"), state(&report, "whoami")),
        ("failed".into(), "skipped".into())
    );
    assert_eq!(
        (state(&report, "clock"), state(&report, "version")),
        ("warning".into(), "warning".into())
    );
    assert!(page.requests().iter().all(|request| request.bearer.is_empty()));
}

#[test]
fn the_doctor_shows_no_proxy_and_no_token() {
    let broker = knowing(&[]);
    let mut command = dayfly(&broker.url, &["doctor"]);
    command.env("HTTPS_PROXY", "http://user:hunter2@proxy.example:3128");
    let told = run(command);
    assert!(!told.out.contains("hunter2") && !told.out.contains(ID_TOKEN), "{}", told.out);
    assert!(told.out.lines().all(|line| !line.is_empty()), "{}", told.out);
    assert!(told.out.contains("ok       identity: a token in DAYFLY_ID_TOKEN\n"), "{}", told.out);
}
