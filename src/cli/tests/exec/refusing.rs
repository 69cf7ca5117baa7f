//! Commands that never start.

use std::os::unix::fs::PermissionsExt as _;

use dayfly_api::FieldFault;

use crate::{
    broker::{Answer, Broker, PASSWORD, lease, postgres, problem},
    program::{Finished, dayfly, run},
};

/// Runs `exec` with a command that would leave a mark.
fn exec(url: &str, roles: &[&str], prepare: impl Fn(&mut std::process::Command)) -> Finished {
    let mark = tempfile::tempdir().unwrap();
    let file = mark.path().join("started");
    let mut words = vec!["exec"];
    for role in roles {
        words.extend(["--role", role]);
    }
    words.extend(["--", "touch", file.to_str().unwrap()]);
    let mut command = dayfly(url, &words);
    prepare(&mut command);
    let finished = run(command);
    assert!(!file.exists(), "the command was started: {finished:?}");
    finished
}

#[test]
fn a_denied_role_starts_nothing_and_names_the_rule() {
    let broker = Broker::start(|_, _| {
        let mut denial = problem(403, "role_denied", "no changes before the release");
        denial.denied_by = Some("production-freeze".into());
        denial.errors = vec![FieldFault { pointer: "/roles/1".into(), detail: "denied".into() }];
        Answer::json(403, &denial)
    });
    let finished = exec(&broker.url, &["pg-read", "pg-migrate"], |_| {});
    assert_eq!(finished.code, Some(125));
    assert!(
        finished.err.starts_with(
            "dayfly: error[role_denied]: role `pg-migrate` was denied by rule `production-freeze`: \
             no changes before the release"
        ),
        "{}",
        finished.err
    );
    assert!(
        finished.err.ends_with("(request req_1); run `dayfly role check pg-migrate --explain`\n"),
        "{}",
        finished.err
    );
    assert_eq!(broker.requests().len(), 1);
}

#[test]
fn a_command_that_cannot_run_asks_for_nothing() {
    let broker = Broker::granting(vec![postgres("r")]);
    let home = tempfile::tempdir().unwrap();
    let notes = home.path().join("notes");
    std::fs::write(&notes, "").unwrap();
    std::fs::set_permissions(&notes, std::fs::Permissions::from_mode(0o644)).unwrap();
    let folder = home.path().to_str().unwrap();
    for (word, code) in [
        ("no-such-command-here", 127),
        ("/no/such/file", 127),
        (notes.to_str().unwrap(), 126),
        (folder, 126),
    ] {
        let finished = run(dayfly(&broker.url, &["exec", "--role", "r", "--", word]));
        assert_eq!(finished.code, Some(code), "{finished:?}");
        assert!(finished.err.contains(word), "{}", finished.err);
    }
    assert_eq!(broker.requests().len(), 0);
}

#[test]
fn a_script_without_its_interpreter_ends_its_task() {
    let broker = Broker::granting(vec![postgres("r")]);
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let word = script.to_str().unwrap();
    let finished = run(dayfly(&broker.url, &["exec", "--role", "r", "--", word]));
    assert_eq!(finished.code, Some(127), "{finished:?}");
    assert_ne!(broker.outcome(), "completed");
}

#[test]
fn two_roles_with_the_same_variables_end_their_task() {
    let broker = Broker::granting(vec![postgres("a"), postgres("b")]);
    let finished = exec(&broker.url, &["a", "b"], |_| {});
    assert_eq!(finished.code, Some(125));
    assert!(finished.err.contains("--role NAME=b"), "{}", finished.err);
    assert_eq!(broker.outcome(), "cancelled");
    assert!(!finished.err.contains(PASSWORD));
}

#[test]
fn the_same_role_twice_asks_for_nothing() {
    let broker = Broker::granting(vec![postgres("a")]);
    assert_eq!(exec(&broker.url, &["a", "a"], |_| {}).code, Some(125));
    assert_eq!(broker.requests().len(), 0);
}

#[test]
fn a_role_cannot_steer_the_command() {
    let leases = vec![lease("r", &[("LD_PRELOAD", "key")], &[("key", "/tmp/evil.so")])];
    let broker = Broker::granting(leases);
    let finished = exec(&broker.url, &["r"], |_| {});
    assert_eq!(finished.code, Some(125));
    assert!(finished.err.contains("LD_PRELOAD"), "{}", finished.err);
    assert_eq!(broker.outcome(), "cancelled");
}

#[test]
fn without_an_identity_nothing_is_asked() {
    let broker = Broker::granting(vec![postgres("r")]);
    let finished = exec(&broker.url, &["r"], |command| {
        command.env_remove("DAYFLY_ID_TOKEN");
    });
    assert_eq!(finished.code, Some(125));
    assert!(finished.err.contains("DAYFLY_ID_TOKEN"), "{}", finished.err);
    assert_eq!(broker.requests().len(), 0);
}

#[test]
fn a_token_is_not_sent_in_clear() {
    let finished = exec("http://broker.example.com", &["r"], |_| {});
    assert_eq!(finished.code, Some(125));
    assert!(finished.err.contains("use https"), "{}", finished.err);
}

#[test]
fn a_proxy_never_sees_loopback() {
    let proxy = Broker::granting(vec![postgres("r")]);
    let broker = Broker::granting(vec![postgres("r")]);
    let mut command = dayfly(&broker.url, &["exec", "--role", "r", "--", "true"]);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(name, &proxy.url);
    }
    assert_eq!(run(command).code, Some(0));
    assert_eq!((proxy.requests().len(), broker.requests().len()), (0, 2));
}

#[test]
fn redirects_are_not_followed() {
    let other = Broker::granting(vec![postgres("r")]);
    let location = format!("{}/api/v1/tasks", other.url);
    let broker = Broker::start(move |_, _| {
        Answer::json(307, &serde_json::json!({})).with("location", location.clone())
    });
    let finished = exec(&broker.url, &["r"], |_| {});
    assert_eq!(finished.code, Some(125));
    assert!(finished.err.contains(&other.url), "{}", finished.err);
    assert_eq!(other.requests().len(), 0);
}

#[test]
fn a_token_that_was_seen_is_not_sent_again() {
    let broker = Broker::start(|_, _| {
        let down = problem(503, "unavailable", "the store is down");
        Answer::json(503, &down).with("retry-after", "1")
    });
    let finished = exec(&broker.url, &["r"], |_| {});
    assert_eq!(finished.code, Some(125));
    assert!(finished.err.contains("the store is down"), "{}", finished.err);
    assert_eq!(broker.requests().len(), 1);
}

#[test]
fn an_answer_from_something_else_is_told_as_such() {
    let broker = Broker::start(|_, _| Answer {
        status: 200,
        headers: Vec::new(),
        body: "<html>It works!</html>".into(),
    });
    let finished = exec(&broker.url, &["r"], |_| {});
    assert_eq!(finished.code, Some(125));
    assert!(!finished.err.contains("It works"), "{}", finished.err);
}

#[test]
fn a_mistaken_command_line_is_125_for_exec_alone() {
    let broker = Broker::granting(vec![postgres("r")]);
    for (words, code) in [
        (["exec", "--rolle", "r", "--", "true"].as_slice(), 125),
        (&["--url", "x", "exec", "--", "true"], 125),
        (&["lease", "list", "--rolle", "r"], 2),
        (&["lease", "list", "--role", "exec", "--bogus"], 2),
        (&["bogus"], 2),
    ] {
        assert_eq!(run(dayfly(&broker.url, words)).code, Some(code), "{words:?}");
    }
    let help = run(dayfly(&broker.url, &["exec", "--help"]));
    assert_eq!(help.code, Some(0));
    assert!(help.out.contains("125") && !help.out.contains(&broker.url), "{}", help.out);
    assert_eq!(broker.requests().len(), 0);
}
