//! What people are told, and how it looks.

use std::{collections::BTreeMap, process::Command};

use dayfly_api::{FieldFault, LeaseCounts, Renewed, Role, RoleList, Task, TaskPage};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, Broker, completed, problem},
    program::{Finished, dayfly, run},
};

const NOWHERE: &str = "http://127.0.0.1:9";

fn with(mut command: Command, variables: &[(&str, &str)]) -> Finished {
    command.envs(variables.iter().copied());
    run(command)
}

#[test]
fn a_broken_configuration_stops_nothing_that_needs_none() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("broken.toml");
    std::fs::write(&file, "roles = what\n").unwrap();
    let broken = [("DAYFLY_PROJECT_FILE", file.to_str().unwrap()), ("DAYFLY_URL", "nonsense")];
    let asked = with(dayfly(NOWHERE, &["whoami"]), &broken);
    assert_eq!(asked.code, Some(2), "{asked:?}");
    let pages = home.path().join("pages");
    for words in [
        &["version"][..],
        &["version", "--output", "json"],
        &["completion", "bash"],
        &["man"],
        &["man", "--directory", pages.to_str().unwrap()],
    ] {
        let finished = with(dayfly(NOWHERE, words), &broken);
        assert_eq!((finished.code, finished.err.as_str()), (Some(0), ""), "{words:?}");
    }
    assert!(pages.join("dayfly-exec.1").exists() && !pages.join("dayfly-exec-child.1").exists());
    let asked = with(dayfly(NOWHERE, &["version", "--broker"]), &broken);
    assert_eq!((asked.code, asked.out.as_str()), (Some(2), ""), "{asked:?}");
}

#[test]
fn the_version_is_told_and_the_brokers_if_it_answers() {
    let own = run(dayfly(NOWHERE, &["version", "--output", "json"]));
    let own: Value = serde_json::from_str(&own.out).unwrap();
    assert_eq!(own["version"], env!("CARGO_PKG_VERSION"));
    assert!(own["target"].as_str().unwrap().starts_with(std::env::consts::ARCH), "{own}");
    assert_eq!(own.get("broker"), None);

    let broker = Broker::start(|_, _| Answer::json(200, &json!({ "info": { "version": "7.1" } })));
    let both = run(dayfly(&broker.url, &["version", "--broker", "--output", "json"]));
    let both: Value = serde_json::from_str(&both.out).unwrap();
    assert_eq!(both["broker"], json!({ "url": broker.url, "version": "7.1" }));
    let request = &broker.requests()[0];
    assert_eq!((request.line().as_str(), request.bearer.as_str()), ("GET /openapi.json", ""));
    let shown = run(dayfly(&broker.url, &["version", "--broker"]));
    assert!(shown.out.contains(&format!("broker  7.1 at {}\n", broker.url)), "{}", shown.out);

    let away = run(dayfly(NOWHERE, &["version", "--broker"]));
    assert_eq!((away.code, away.out.as_str()), (Some(6), ""), "{away:?}");
}

fn task(id: usize, state: &str) -> Task {
    Task {
        id: format!("tsk_{id}"),
        state: state.into(),
        purpose: "夜間".into(),
        principal: "ci:repo".into(),
        issuer: "ci".into(),
        on_behalf_of: None,
        opened_at: "2026-01-01T00:00:00Z".into(),
        expires_at: "2026-01-01T00:15:00Z".into(),
        heartbeat_seconds: None,
        lost_at: None,
        closed_at: None,
        binding: None,
        leases: LeaseCounts { active: 1, ..LeaseCounts::default() },
    }
}

#[test]
fn tasks_are_listed_over_all_pages() {
    let broker = Broker::start(|request, _| {
        let page = if request.target.contains("cursor=b") {
            TaskPage { data: vec![task(2, "open")], next_cursor: None }
        } else if request.target.contains("cursor=a") {
            // What the caller may not see has been left out.
            TaskPage { data: Vec::new(), next_cursor: Some("b".into()) }
        } else {
            TaskPage { data: vec![task(1, "open")], next_cursor: Some("a".into()) }
        };
        Answer::json(200, &page)
    });
    let words = ["task", "list", "--state", "open", "--issuer", "ci"];
    let listed = run(dayfly(&broker.url, &words));
    assert_eq!(
        listed.out,
        "ID     STATE  PURPOSE  EXPIRES               PRINCIPAL  LEASES\n\
         tsk_1  open   夜間     2026-01-01T00:15:00Z  ci:repo    1 active\n\
         tsk_2  open   夜間     2026-01-01T00:15:00Z  ci:repo    1 active\n"
    );
    assert_eq!(broker.requests()[0].target, "/api/v1/tasks?state=open&issuer=ci&limit=100");
    let one = run(dayfly(&broker.url, &["task", "list", "--limit", "1", "--output", "json"]));
    let value: Value = serde_json::from_str(&one.out).unwrap();
    assert_eq!(value["data"].as_array().unwrap().len(), 1);
    assert!(one.err.contains("more than 1"), "{}", one.err);
}

#[test]
fn a_lease_is_renewed_and_what_was_not_given_is_told() {
    let broker = Broker::start(|request, before| {
        assert_eq!(request.line(), "POST /api/v1/leases/lse_1/renew");
        let (ttl_seconds, expires_at) = match before {
            0 => (1800, "2026-01-01T00:30:00Z"),
            _ => (900, "2026-01-01T01:00:00Z"),
        };
        let renewed = Renewed {
            id: "lse_1".into(),
            ttl_seconds,
            expires_at: expires_at.into(),
            max_expires_at: "2026-01-01T01:00:00Z".into(),
            truncated: before > 0,
        };
        Answer::json(200, &renewed)
    });
    let words = ["lease", "renew", "lse_1", "--ttl", "30m"];
    let whole = run(dayfly(&broker.url, &words));
    assert_eq!((whole.code, whole.err.as_str()), (Some(0), ""), "{whole:?}");
    assert!(whole.out.contains("granted        30m\n"), "{}", whole.out);
    assert_eq!(broker.requests()[0].body, json!({ "ttl_seconds": 1800 }));
    let less = run(dayfly(&broker.url, &words));
    assert_eq!(less.code, Some(0), "{less:?}");
    let expected = "dayfly: warning: lease lse_1 was given 15m of the 30m that were asked for: it \
                    ends for good at 2026-01-01T01:00:00Z";
    assert!(less.err.starts_with(expected), "{}", less.err);
}

fn denying(rule: &'static str, known: &'static str) -> Broker {
    Broker::start(move |request, _| {
        if request.line() == "GET /api/v1/roles" {
            let role = Role {
                name: known.into(),
                backend: "main".into(),
                kind: "postgres".into(),
                owner: "data".into(),
                labels: BTreeMap::new(),
                ttl_seconds: 900,
                ttl_max_seconds: 3600,
            };
            return Answer::json(200, &RoleList { data: vec![role] });
        }
        let mut denial = problem(403, "role_denied", "no rule permits it");
        denial.denied_by = Some(rule.into());
        denial.errors = vec![FieldFault { pointer: "/roles/0".into(), detail: "denied".into() }];
        Answer::json(403, &denial)
    })
}

#[test]
fn a_role_that_is_mistyped_is_answered_with_the_one_that_was_meant() {
    let words = ["exec", "--role", "pg-raed", "--", "true"];
    let exec = |broker: &Broker| run(dayfly(&broker.url, &words));
    let broker = denying("default-deny", "pg-read");
    let meant = exec(&broker);
    assert_eq!(meant.code, Some(125), "{meant:?}");
    assert!(meant.err.ends_with("(request req_1); did you mean `pg-read`?\n"), "{}", meant.err);
    // One that is there, one that is near to nothing, and a denial by a rule of its own.
    for (rule, known, questions) in [
        ("default-deny", "pg-raed", 1),
        ("default-deny", "deploy", 1),
        ("production-freeze", "pg-read", 0),
    ] {
        let broker = denying(rule, known);
        let denied = exec(&broker);
        assert!(!denied.err.contains("did you mean"), "{}", denied.err);
        assert_eq!(broker.asked("GET /api/v1/roles").len(), questions, "{rule} {known}");
    }
}

#[test]
fn colour_is_for_those_who_want_it_and_never_in_json() {
    let broker = Broker::start(|request, _| match request.method.as_str() {
        "GET" => {
            let data = vec![task(1, "open"), task(2, "lost"), task(3, "completed")];
            Answer::json(200, &TaskPage { data, next_cursor: None })
        }
        _ => Answer::json(202, &completed("revoking", 1, 1)),
    });
    let list = ["task", "list"];
    let plain = run(dayfly(&broker.url, &list));
    assert!(!plain.out.contains('\x1b'), "{:?}", plain.out);
    for variables in [&[("FORCE_COLOR", "1")][..], &[("CLICOLOR_FORCE", "1")]] {
        let shown = with(dayfly(&broker.url, &list), variables);
        assert!(shown.out.contains("\x1b[32mopen\x1b[0m "), "{:?}", shown.out);
        assert!(shown.out.contains("\x1b[33mlost\x1b[0m "), "{:?}", shown.out);
        assert_eq!(shown.out.matches('\x1b').count(), 4, "{:?}", shown.out);
    }
    let against = [("FORCE_COLOR", "1"), ("NO_COLOR", "0")];
    assert_eq!(with(dayfly(&broker.url, &list), &against).out, plain.out);
    let words = ["--color", "always", "task", "list", "--output", "json"];
    let json = run(dayfly(&broker.url, &words));
    assert!(serde_json::from_str::<Value>(&json.out).is_ok() && !json.out.contains('\x1b'));

    let words = ["--color=always", "task", "complete", "tsk_1"];
    let owing = with(dayfly(&broker.url, &words), &against);
    assert!(
        owing.err.starts_with("dayfly: \x1b[33mwarning:\x1b[0m 1 credential"),
        "{:?}",
        owing.err
    );
    assert!(owing.out.contains("\x1b[33mrevoking\x1b[0m\n"), "{:?}", owing.out);
    let failed = run(dayfly(NOWHERE, &["--color", "always", "whoami"]));
    assert!(failed.err.starts_with("dayfly: \x1b[1;31merror:\x1b[0m "), "{:?}", failed.err);
}

#[test]
fn help_and_what_is_wrong_with_a_command_line_follow_the_same_rules() {
    for (words, coloured) in [
        (&["--help"][..], false),
        (&["--color", "always", "--help"], true),
        (&["lease", "lsit", "--color=always"], true),
        (&["lease", "lsit"], false),
        (&["--color=maybe", "whoami"], false),
    ] {
        let finished = run(dayfly(NOWHERE, words));
        let text = finished.out + &finished.err;
        assert!(text.contains("--help"), "{words:?}: {text}");
        assert_eq!(text.contains('\x1b'), coloured, "{words:?}: {text:?}");
    }
    let wanted = with(dayfly(NOWHERE, &["--help"]), &[("FORCE_COLOR", "1")]);
    assert!(wanted.code == Some(0) && wanted.out.contains('\x1b'), "{wanted:?}");
}

#[test]
fn nothing_moves_where_nobody_sits() {
    let broker = Broker::start(|_, _| {
        std::thread::sleep(std::time::Duration::from_millis(1500));
        Answer::json(202, &completed("completed", 0, 1))
    });
    let variables = [("TERM", "xterm"), ("FORCE_COLOR", "1")];
    let finished = with(dayfly(&broker.url, &["task", "complete", "tsk_1"]), &variables);
    assert_eq!((finished.code, finished.err.as_str()), (Some(0), ""), "{finished:?}");
}
