//! What of our own environment reaches the command.

use std::process::Command;

use crate::{
    broker::{Broker, PASSWORD, lease, postgres},
    program::{dayfly, program, run},
};

/// The names in the environment of a command that is run with `options`.
fn names(options: &[&str], prepare: impl Fn(&mut Command)) -> Vec<String> {
    let broker = Broker::granting(vec![postgres("r")]);
    let words = [&["exec", "--role", "r"], options, &["--", "env"]].concat();
    let mut command = dayfly(&broker.url, &words);
    prepare(&mut command);
    let finished = run(command);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let names = finished.out.lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

#[test]
fn a_clean_environment_is_what_was_asked_for() {
    let prepare = |command: &mut Command| {
        command.env("HOME", "/h").env("MINE", "1").env("OTHER", "2").env("LC_ALL", "C");
        command.env("RUNNER_TRACKING_ID", "github_1").env("SSL_CERT_FILE", "/x");
    };
    let expected = [
        "DATABASE_URL",
        "DAYFLY_TASK",
        "HOME",
        "LC_ALL",
        "MINE",
        "PATH",
        "PGDATABASE",
        "PGHOST",
        "PGPASSWORD",
        "PGPORT",
        "PGUSER",
        "RUNNER_TRACKING_ID",
    ];
    assert_eq!(names(&["--clean-env=MINE"], prepare), expected);
    let everything = names(&[], prepare);
    assert!(["OTHER", "SSL_CERT_FILE"].iter().all(|name| everything.contains(&(*name).into())));
}

#[test]
fn what_is_preserved_keeps_its_value_and_is_named() {
    let broker = Broker::granting(vec![postgres("r")]);
    let script = "echo $PGHOST $PGUSER $PGPASSWORD";
    let words = ["exec", "--role", "r", "--preserve-env=PGHOST,PGUSER", "--", "sh", "-c", script];
    let mut command = dayfly(&broker.url, &words);
    command.env("PGHOST", "mine").env("PGPASSWORD", "old");
    let finished = run(command);
    assert_eq!(finished.out, format!("mine df_x {PASSWORD}\n"));
    assert!(finished.err.contains("keeping from the environment: PGHOST\n"), "{}", finished.err);
    assert!(finished.err.contains("replacing from the environment: PGPASSWORD\n"));
}

#[test]
fn the_platforms_identity_is_left_only_where_it_is_asked_for() {
    let prepare = |command: &mut Command| {
        command.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t");
        command.env("ACTIONS_ID_TOKEN_REQUEST_URL", "https://token.example");
        // As a job does that hands its platform's token to us.
        command.env("CIRCLE_OIDC_TOKEN_V2", "c").env("MY_TOKEN", crate::program::ID_TOKEN);
    };
    let identities = |names: Vec<String>| -> Vec<String> {
        names.into_iter().filter(|name| name.contains("TOKEN")).collect()
    };
    assert_eq!(identities(names(&[], prepare)), Vec::<String>::new());
    let kept = [
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "ACTIONS_ID_TOKEN_REQUEST_URL",
        "CIRCLE_OIDC_TOKEN_V2",
        "MY_TOKEN",
    ];
    assert_eq!(identities(names(&["--keep-ci-identity"], prepare)), kept);
}

/// The one inside opens a task of its own, and finds the means only where it is left them.
#[test]
fn an_exec_inside_of_another_has_a_task_of_its_own() {
    let broker = Broker::granting(vec![postgres("r")]);
    let inner = format!("{} exec -q --role r -- sh -c 'echo $DAYFLY_TASK'", program());
    let refused = run(dayfly(&broker.url, &["exec", "--role", "r", "--", "sh", "-c", &inner]));
    assert_eq!((refused.code, refused.out.as_str()), (Some(125), ""), "{refused:?}");
    assert!(refused.err.contains("inside of another `dayfly exec`"), "{}", refused.err);

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "inner-secret\n").unwrap();
    let flag = format!("exec --token-file {}", file.path().display());
    let inner = inner.replacen("exec", &flag, 1);
    let both = run(dayfly(&broker.url, &["exec", "--role", "r", "--", "sh", "-c", &inner]));
    assert_eq!(both.code, Some(0), "{both:?}");
    let bearers: Vec<_> =
        broker.asked("POST /api/v1/tasks").into_iter().map(|request| request.bearer).collect();
    assert_eq!(bearers.last().map(String::as_str), Some("inner-secret"), "{bearers:?}");
    assert_eq!(broker.asked("POST /api/v1/tasks/tsk_1/complete").len(), 3);
}

#[test]
fn an_environment_that_is_too_large_is_told_and_starts_nothing() {
    let long = "x".repeat(100 * 1024);
    let names: Vec<String> = (0..80).map(|index| format!("V{index}")).collect();
    let variables: Vec<_> = names.iter().map(|name| (name.as_str(), "key")).collect();
    let broker = Broker::granting(vec![lease("r", &variables, &[("key", long.as_str())])]);
    let finished = run(dayfly(&broker.url, &["exec", "--role", "r", "--", "echo", "started"]));
    assert_eq!((finished.code, finished.out.as_str()), (Some(125), ""));
    assert!(finished.err.contains("KiB, and the system allows"), "{}", finished.err);
    assert!(finished.err.len() < 2000, "no value is shown");
    assert_eq!(broker.outcome(), "cancelled");
}
