use clap::{CommandFactory as _, error::ErrorKind};

use super::*;

fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from([&["dayfly"], words].concat())
}

fn exec(words: &[&str]) -> ExecArgs {
    let Command::Exec(exec) = parse(&[&["exec"], words].concat()).unwrap().command else {
        panic!("not exec");
    };
    *exec
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn roles_take_an_optional_prefix() {
    let roles = exec(&["--role", "pg-read", "--role", "NEW=pg-write", "--", "true"]).roles;
    assert_eq!(roles[0], RoleRequest { prefix: None, role: "pg-read".into() });
    assert_eq!(roles[1], RoleRequest { prefix: Some("NEW".into()), role: "pg-write".into() });
}

#[test]
fn roles_that_cannot_be_meant_are_refused() {
    for bad in ["", "=r", "1A=r", "A-B=r", "A=", "A=b=c", "two words"] {
        let fault = parse(&["exec", "--role", bad, "--", "true"]).unwrap_err();
        assert!(
            matches!(fault.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue),
            "{bad}: {fault}"
        );
    }
}

#[test]
fn exec_needs_a_command() {
    assert!(parse(&["exec", "--role", "r"]).is_err());
    assert!(parse(&["exec", "--role", "r", "--"]).is_err());
}

#[test]
fn the_commands_own_flags_stay_its_own() {
    for words in [
        ["--role", "r", "--", "psql", "-q", "--url", "x", "--", "y"].as_slice(),
        ["--role", "r", "psql", "-q", "--url", "x", "--", "y"].as_slice(),
    ] {
        assert_eq!(exec(words).command, ["psql", "-q", "--url", "x", "--", "y"], "{words:?}");
    }
}

#[test]
fn times_have_units() {
    let ttl = |text: &str| parse(&["exec", "--role", "r", "--ttl", text, "true"]);
    let seconds = |text: &str| exec(&["--role", "r", "--ttl", text, "true"]).ttl.as_secs();
    assert_eq!(["90s", "15m", "1h30m"].map(seconds), [90, 900, 5400]);
    for bad in ["", "900", "m", "1d", "-5m", "0s", "5m5", "99999999999999999999h", "9999999h"] {
        assert!(ttl(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_broker_may_be_named_before_and_after_the_command() {
    for words in [["--url", "https://b", "whoami"], ["whoami", "--url", "https://b"]] {
        assert_eq!(parse(&words).unwrap().broker.url.as_deref(), Some("https://b"));
    }
}

#[test]
fn revoking_needs_a_reason() {
    assert!(parse(&["lease", "revoke", "lse_1"]).is_err());
    assert!(parse(&["lease", "revoke", "lse_1", "--reason", "lost", "--wait", "0s"]).is_ok());
}

#[test]
fn no_flag_takes_a_token() {
    let mut pending = vec![Cli::command()];
    while let Some(command) = pending.pop() {
        pending.extend(command.get_subcommands().cloned());
        for flag in command.get_arguments().filter_map(|flag| flag.get_long()) {
            assert!(!flag.contains("token") || flag == "token-file", "--{flag}");
            assert!(!flag.contains("password") && !flag.contains("secret"), "--{flag}");
        }
    }
}

#[test]
fn what_systemd_gets_is_a_field_or_a_file() {
    let served = |text: &str| text.parse::<ServedCredential>();
    let one = |part| ServedCredential { name: "db".into(), role: "pg-app".into(), part };
    assert_eq!(served("db=pg-app/password"), Ok(one(Part::Field("password".into()))));
    assert_eq!(served("db=pg-app/a/b=c"), Ok(one(Part::Field("a/b=c".into()))));
    assert_eq!(served("db=pg-app:pgpass"), Ok(one(Part::Pgpass)));
    assert_eq!(served("db=pg-app:mysql"), Ok(one(Part::Mysql)));
    for bad in
        ["", "db", "db=", "=r/f", "a/b=r/f", "db=r", "db=r/", "db=/f", "db=r:aws", "db=a b/f"]
    {
        assert!(served(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_agent_serves_something_and_a_helper_answers_for_somebody() {
    assert!(parse(&["agent"]).is_err());
    assert!(parse(&["agent", "--role", "r"]).is_ok());
    assert!(parse(&["agent", "--aws-endpoint", "r", "--idle", "5m"]).is_ok());
    assert!(parse(&["agent", "--systemd", "/s", "--credential", "n=r/f"]).is_ok());
    for bad in [
        ["agent", "--role", "a/b"].as_slice(),
        &["agent", "--role", "r", "--systemd", "/s"],
        &["agent", "--credential", "n=r/f"],
        &["agent", "--role", "r", "--idle", "5m", "--", "true"],
        &["credential"],
        &["credential", "aws"],
        &["credential", "git", "--role", "r", "get"],
        &["credential", "docker", "--role", "r", "--host", "h"],
        &["credential", "aws", "--role", "r", "--field-map", "x"],
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
    assert!(parse(&["credential", "git", "--role", "r", "--host", "h", "get"]).is_ok());
}

#[test]
fn an_endpoint_alone_is_enough_for_a_command() {
    let args = exec(&["--aws-endpoint", "deploy", "--", "aws", "--role", "x"]);
    assert_eq!((args.roles.len(), args.aws_endpoint.as_deref()), (0, Some("deploy")));
}

#[test]
fn what_is_delivered_where_can_be_said_more_than_once() {
    let words = ["--env", "A=r/x", "--env", "B=r/y", "--file", "pgpass=r", "--fifo", "k=r/key"];
    let deliver = exec(&[&words[..], &["--on-rotate", "restart", "--", "true"]].concat()).deliver;
    assert_eq!((deliver.variables.len(), deliver.files.len(), deliver.fifos.len()), (2, 1, 1));
    assert_eq!(deliver.on_rotate, OnRotate::Restart);
    assert_eq!((deliver.overlap.as_secs(), deliver.on_expiry), (60, OnExpiry::Warn));
    assert!(parse(&["exec", "--fifo-reads", "0", "--", "true"]).is_err());
}

#[test]
fn what_is_mistyped_is_answered_with_what_was_meant() {
    for (words, meant) in [
        (&["lease", "list", "--state", "revokd"][..], "'revoked'"),
        (&["task", "list", "--state", "opn"], "'open'"),
        (&["lease", "lsit"], "'list'"),
        (&["lease", "list", "--outptu", "json"], "'--output'"),
        (&["completion", "bsh"], "'bash'"),
    ] {
        let fault = parse(words).unwrap_err().to_string();
        assert!(fault.contains(meant), "{words:?}: {fault}");
    }
    assert!(parse(&["lease", "list", "--state", "abandoned"]).is_ok());
    assert!(parse(&["task", "list", "--state", "lost", "--limit", "5"]).is_ok());
}

#[test]
fn whatever_shows_something_shows_it_to_programs_too() {
    let readers = ["backend", "config", "lease", "role", "standing", "task", "version", "whoami"];
    let program = Cli::command();
    let named = program.get_subcommands().filter(|one| readers.contains(&one.get_name()));
    let mut pending: Vec<_> = named.cloned().collect();
    assert_eq!(pending.len(), readers.len());
    while let Some(command) = pending.pop() {
        let more: Vec<_> = command.get_subcommands().cloned().collect();
        let name = command.get_name();
        let has_output = command.get_arguments().any(|flag| flag.get_long() == Some("output"));
        // These leave files.
        assert!(has_output || !more.is_empty() || ["init", "open"].contains(&name), "{name}");
        pending.extend(more);
    }
}

#[test]
fn what_is_about_the_program_alone_needs_no_broker() {
    for words in [&["completion", "zsh"][..], &["man"], &["version"]] {
        assert!(parse(words).unwrap().command.is_alone(), "{words:?}");
    }
    assert!(!parse(&["version", "--broker"]).unwrap().command.is_alone());
    // What `exec` calls itself by is no command.
    assert!(parse(&["exec-child", "--", "1", "true", "true"]).is_err());
}
