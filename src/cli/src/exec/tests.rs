use clap::Parser as _;
use dayfly_api::FieldFault;

use super::*;
use crate::args::{Cli, Command};

fn args(words: &[&str]) -> ExecArgs {
    let cli = Cli::try_parse_from([&["dayfly", "exec", "--role", "r"], words].concat()).unwrap();
    let Command::Exec(args) = cli.command else { panic!("not exec") };
    *args
}

fn problem(denied_by: Option<&str>, pointer: Option<&str>) -> Problem {
    let fault = |pointer: &str| FieldFault { pointer: pointer.into(), detail: "denied".into() };
    Problem {
        kind: String::new(),
        title: "Forbidden".into(),
        status: 403,
        code: "role_denied".into(),
        detail: "no changes before the release.".into(),
        request_id: "req_1".into(),
        retryable: false,
        denied_by: denied_by.map(Into::into),
        errors: pointer.map(fault).into_iter().collect(),
    }
}

#[test]
fn the_purpose_names_the_command_and_not_its_arguments() {
    assert_eq!(purpose(&args(&["--", "/usr/bin/psql", "-c", "hunter2"])), "exec psql");
    assert_eq!(purpose(&args(&["--purpose", "nightly", "--", "psql"])), "nightly");
    assert_eq!(purpose(&args(&["--purpose", &"ä".repeat(300), "x"])).chars().count(), 256);
}

#[test]
fn a_denial_names_role_and_rule() {
    let roles = ["pg-read".to_owned(), "pg-migrate".to_owned()];
    assert_eq!(
        denial(&problem(Some("production-freeze"), Some("/roles/1")), &roles),
        "role `pg-migrate` was denied by rule `production-freeze`: \
         no changes before the release (request req_1)"
    );
    assert_eq!(
        denial(&problem(None, None), &roles[..1]),
        "role `pg-read` was denied: no changes before the release (request req_1)"
    );
    let unnamed = denial(&problem(None, Some("/roles/7")), &roles);
    assert!(unnamed.starts_with("a role was denied: ") && unnamed.ends_with("(request req_1)"));
}
