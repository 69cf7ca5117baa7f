//! Credentials in variables, files and FIFOs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::Signal;

use crate::{
    broker::{Broker, PASSWORD, lease, postgres},
    program::{Finished, Running, dayfly, detached, run},
};

fn exec(broker: &Broker, options: &[&str], script: &str) -> Finished {
    let words = [&["exec"], options, &["--", "sh", "-c", script]].concat();
    run(dayfly(&broker.url, &words))
}

#[test]
fn a_program_finds_its_file_by_the_usual_variable() {
    let broker = Broker::granting(vec![postgres("r")]);
    let script = "cat $PGPASSFILE; echo $PGUSER@$PGHOST:$PGPORT ${PGPASSWORD-none}; \
                  stat -c %a $PGPASSFILE $(dirname $PGPASSFILE); echo $PGPASSFILE";
    let finished = exec(&broker, &["--file", "pgpass=r"], script);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let lines: Vec<_> = finished.out.lines().collect();
    let line = format!("db.example:5432:*:df_x:{PASSWORD}");
    assert_eq!(lines[..4], [line.as_str(), "df_x@db.example:5432 none", "600", "700"]);
    let path = Path::new(lines[4]);
    assert!(path.starts_with("/dev/shm"), "{path:?}");
    assert!(!path.parent().unwrap().exists(), "it went with the run");
    assert!(finished.err.contains("(PGPASSFILE, DAYFLY_FILE_PGPASS)"), "{}", finished.err);
    assert!(!finished.err.contains(PASSWORD), "{}", finished.err);
    assert_eq!(broker.asked("POST /api/v1/tasks")[0].body["roles"], serde_json::json!(["r"]));
}

#[test]
fn references_name_roles_that_nothing_else_names() {
    let broker = Broker::granting(vec![postgres("pg"), lease("api", &[], &[("key", "k-secret")])]);
    let words = ["exec", "--resolve-env=URL", "--env", "K=api/key", "--", "sh", "-c"];
    let words = [&words[..], &["echo $URL $K ${PGUSER-none} $TITLE"]].concat();
    let mut command = dayfly(&broker.url, &words);
    command.env("URL", "x://dayfly://pg/username@dayfly://pg/host/");
    command.env("TITLE", "dayfly://production/password");
    let finished = run(command);
    assert_eq!(
        finished.out, "x://df_x@db.example/ k-secret none dayfly://production/password\n",
        "{finished:?}"
    );
    let roles = &broker.asked("POST /api/v1/tasks")[0].body["roles"];
    assert_eq!(roles, &serde_json::json!(["pg", "api"]));
}

#[test]
fn a_field_that_is_not_there_starts_nothing_and_ends_the_task() {
    let home = tempfile::tempdir().unwrap();
    let mark = home.path().join("started");
    let template = home.path().join("in");
    fs::write(&template, "{{ r.nothing }}").unwrap();
    let template = format!("t=@{}", template.display());
    for options in [["--env", "X=r/nothing"], ["--file", "x=r/nothing"], ["--file", &template]] {
        let broker = Broker::granting(vec![postgres("r")]);
        let finished = exec(&broker, &options, &format!("touch {}", mark.display()));
        assert_eq!(finished.code, Some(125), "{finished:?}");
        assert!(!mark.exists(), "the command was started");
        let expected = "has no field `nothing`, which it needs; it has database, host, password";
        assert!(finished.err.contains(expected), "{}", finished.err);
        assert!(!finished.err.contains(PASSWORD), "{}", finished.err);
        assert_eq!(broker.outcome(), "cancelled");
    }
}

#[test]
fn mistakes_ask_for_nothing() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("env");
    fs::write(&file, "A=1\n\nB=$A\n").unwrap();
    let file = file.to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&[], "name a role: --role ROLE"),
        (&["--role", "r", "--env", "LD_PRELOAD=r/x"], "LD_PRELOAD is reserved"),
        (&["--role", "r", "--env-file", file], "line 3: it has a character that readers differ on"),
        (&["--role", "r", "--on-rotate", "signal:HUP"], "--on-rotate signal needs a file"),
        (&["--file", "k=r/key", "--file-dir", "/"], "is not this user's alone"),
        (&["--file", "k=r/key", "--file-dir", "/no/such/place"], "cannot make a directory"),
    ];
    for (options, expected) in cases {
        let broker = Broker::granting(vec![postgres("r")]);
        let finished = exec(&broker, options, "true");
        assert_eq!(finished.code, Some(125), "{options:?}: {finished:?}");
        assert!(finished.err.contains(expected), "{options:?}: {}", finished.err);
        assert!(broker.requests().is_empty(), "{options:?}");
    }
}

#[test]
fn a_fifo_is_read_as_often_as_wanted() {
    let broker = Broker::granting(vec![postgres("r")]);
    let options = ["--fifo", "pw=r/password", "--fifo", "once@ONCE=r/username"];
    let script = "for i in 1 2 3; do cat $DAYFLY_FILE_PW; echo; done; cat $ONCE; test -p $ONCE";
    let finished = exec(&broker, &options, script);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(finished.out, format!("{PASSWORD}\n{PASSWORD}\n{PASSWORD}\ndf_x"));

    let script = "cat $DAYFLY_FILE_PW $DAYFLY_FILE_PW >/dev/null; cat $DAYFLY_FILE_PW";
    let options = ["--fifo", "pw=r/password", "--fifo-reads", "2"];
    let finished = exec(&broker, &options, script);
    assert_eq!((finished.code, finished.out.as_str()), (Some(1), ""), "{finished:?}");
}

/// Starts a command that says where its file is, then waits.
fn waiting(broker: &Broker, options: &[&str]) -> (Running, PathBuf) {
    let script = "echo $DAYFLY_FILE_PW; while :; do sleep 0.05; done";
    let words =
        [&["exec", "--file", "pw=r/password"], options, &["--", "sh", "-c", script]].concat();
    let mut running = Running::start(detached(&broker.url, &words));
    let path = PathBuf::from(running.line());
    assert_eq!(fs::read_to_string(&path).unwrap(), PASSWORD);
    (running, path)
}

#[test]
fn files_go_on_every_way_out() {
    let broker = Broker::granting(vec![postgres("r")]);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let (running, path) = waiting(&broker, &[]);
        running.signal(signal);
        running.finish();
        assert!(!path.parent().unwrap().exists(), "{signal:?}");
    }
    let finished = exec(&broker, &["--file", "pw=r/password"], "echo $DAYFLY_FILE_PW; kill -9 $$");
    assert_eq!(finished.signal, Some(Signal::KILL.as_raw()));
    assert!(!Path::new(finished.out.trim()).parent().unwrap().exists());
    // The command's own files in it as well, and a directory that the user has named.
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join("files");
    let options = ["--file", "pw=r/password", "--file-dir", place.to_str().unwrap()];
    let finished = exec(&broker, &options, "cd $(dirname $DAYFLY_FILE_PW); mkdir -p a/b; pwd");
    assert_eq!(Path::new(finished.out.trim()), home.path().canonicalize().unwrap().join("files"));
    assert!(!place.exists());
}

#[test]
fn what_a_killed_run_left_goes_with_the_next() {
    let broker = Broker::granting(vec![postgres("r")]);
    let (alive, kept) = waiting(&broker, &[]);
    let (killed, left) = waiting(&broker, &[]);
    killed.signal(Signal::KILL);
    killed.finish();
    assert!(left.exists());
    assert_eq!(exec(&broker, &["--file", "pw=r/password"], "true").code, Some(0));
    assert!(!left.parent().unwrap().exists() && kept.exists());
    alive.signal(Signal::TERM);
    alive.finish();
}
