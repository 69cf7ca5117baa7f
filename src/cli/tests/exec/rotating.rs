//! Credentials that end before the command.

use std::{fs, path::Path};

use dayfly_api::{Lease, Revoked};

use crate::{
    broker::{Answer, Broker, PASSWORD, Request, grant, postgres, problem},
    program::{Finished, dayfly, run},
};

const MINT: &str = "POST /api/v1/leases";
const LOOK: &str = "GET /api/v1/leases/lse_r";
const RENEW: &str = "POST /api/v1/leases/lse_r/renew";
const REVOKE: &str = "POST /api/v1/leases/lse_r/revoke";

/// A lease of so many seconds that its role lets nobody renew.
fn short(seconds: u32) -> Lease {
    let mut lease = postgres("r");
    lease.renewable = false;
    lease.expires_at = format!("2026-01-01T00:00:{seconds:02}Z");
    lease.max_expires_at = lease.expires_at.clone();
    lease
}

/// The one that comes after it: another user, and long enough.
fn next() -> Lease {
    let mut lease = postgres("r");
    lease.id = "lse_r2".into();
    let fields = &mut lease.credential.as_mut().unwrap().fields;
    fields.insert("username".into(), "df_y".into());
    lease
}

/// The lease as it is shown later, without its credential.
fn shown(lease: &Lease) -> Lease {
    Lease { credential: None, ..lease.clone() }
}

/// What a broker says that replaces `lease`.
fn replacing(request: &Request, lease: &Lease) -> Answer {
    match request.line().as_str() {
        MINT => Answer::json(201, &next()),
        LOOK => Answer::json(200, &shown(lease)),
        REVOKE => {
            let revoked = Revoked {
                id: "lse_r".into(),
                state: "revoked".into(),
                cause: Some("requested".into()),
                revoked_at: None,
            };
            Answer::json(200, &revoked)
        }
        _ => grant(request, std::slice::from_ref(lease)),
    }
}

fn broker(seconds: u32) -> Broker {
    Broker::start(move |request, _| replacing(request, &short(seconds)))
}

fn exec(broker: &Broker, options: &[&str], script: &str) -> Finished {
    let words = [&["exec", "--role", "r"], options, &["--", "sh", "-c", script]].concat();
    run(dayfly(&broker.url, &words))
}

#[test]
fn a_file_is_replaced_before_its_credential_ends() {
    let broker = broker(4);
    let options = ["--file", "pg_service.conf=r", "--overlap", "1s"];
    let script = "grep user $PGSERVICEFILE; sleep 3.8; grep user $PGSERVICEFILE; echo $PGUSER";
    let finished = exec(&broker, &options, script);
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), "user=df_x\nuser=df_y\n\n"));
    let lines: Vec<_> = broker.requests().iter().map(Request::line).collect();
    let expected = ["POST /api/v1/tasks", LOOK, MINT, REVOKE, "POST /api/v1/tasks/tsk_1/complete"];
    assert_eq!(lines, expected);
    let minted = broker.asked(MINT).remove(0);
    assert_eq!(
        (minted.key.as_str(), &minted.body),
        ("after-lse_r", &serde_json::json!({"role": "r"}))
    );
    let revoked = broker.asked(REVOKE).remove(0);
    assert_eq!(revoked.body, serde_json::json!({"reason": "replaced by lse_r2"}));
    assert!(finished.err.contains("lse_r2 (main, until"), "{}", finished.err);
    assert!(
        !finished.err.contains("warning") && !finished.err.contains(PASSWORD),
        "{}",
        finished.err
    );
}

#[test]
fn a_renewal_that_was_cut_short_leads_to_a_replacement() {
    let mut lease = short(2);
    lease.renewable = true;
    lease.max_expires_at = "2026-01-01T00:00:04Z".into();
    let broker = Broker::start(move |request, _| match request.line().as_str() {
        RENEW => Answer::json(
            200,
            &dayfly_api::Renewed {
                id: "lse_r".into(),
                ttl_seconds: 2,
                expires_at: "2026-01-01T00:00:03Z".into(),
                max_expires_at: "2026-01-01T00:00:03Z".into(),
                truncated: true,
            },
        ),
        _ => replacing(request, &lease),
    });
    let finished = exec(&broker, &["--file", "db.json=r", "--overlap", "0s"], "sleep 3");
    assert_eq!(finished.code, Some(0));
    assert_eq!((broker.asked(RENEW).len(), broker.asked(MINT).len()), (1, 1), "{finished:?}");
    assert_eq!(broker.asked(REVOKE).len(), 1);
}

#[test]
fn a_signal_tells_the_command_of_its_new_files() {
    let options = ["--file", "db.json=r", "--on-rotate", "signal:USR1"];
    let script = "trap 'cat $DAYFLY_FILE_DB_JSON; exit 0' USR1; while :; do sleep 0.1; done";
    let finished = exec(&broker(2), &options, script);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.out.contains("\"username\":\"df_y\""), "{}", finished.out);
}

#[test]
fn a_restart_gives_the_command_new_variables() {
    let broker = broker(8);
    let script = "trap 'echo stopped; exit 9' TERM; echo $PGUSER; \
                  while test $PGUSER = df_x; do sleep 0.1; done";
    let finished = exec(&broker, &["--on-rotate", "restart"], script);
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), "df_x\nstopped\ndf_y\n"));
    assert!(finished.err.contains("the command runs again"), "{}", finished.err);
    assert!(broker.asked(REVOKE).is_empty(), "the overlap is not over");
    assert_eq!(broker.outcome(), "completed");
}

#[test]
fn a_restart_does_not_wait_for_a_command_that_does_not_stop() {
    let options = ["--on-rotate", "restart", "--stop-timeout", "1s"];
    let script = "trap '' TERM; echo $PGUSER; while test $PGUSER = df_x; do sleep 0.1; done";
    let finished = exec(&broker(6), &options, script);
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), "df_x\ndf_y\n"));
    assert!(finished.err.contains("did not stop for its restart"), "{}", finished.err);
}

#[test]
fn a_hook_is_run_with_the_new_credential_and_its_failure_is_told() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("user");
    let hook = format!("exec:echo $PGUSER > {}; echo from the hook; exit 3", file.display());
    let finished = exec(&broker(2), &["--on-rotate", &hook], "sleep 1.8; echo done");
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), "done\n"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "df_y\n");
    assert!(finished.err.contains("\nfrom the hook\n"), "{}", finished.err);
    assert!(finished.err.contains("--on-rotate failed (exit status: 3)"), "{}", finished.err);
}

/// It has the new credential in its environment.
#[test]
fn what_a_hook_prints_is_masked_as_the_commands_output_is() {
    let hook = "exec:env; env >&2";
    let finished =
        exec(&broker(2), &["--mask", "always", "--on-rotate", hook], "sleep 1.8; echo done");
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), "done\n"), "{finished:?}");
    assert_eq!(finished.err.matches("PGPASSWORD=[masked:r/password]").count(), 2, "{finished:?}");
    assert!(!finished.err.contains("hunter2"), "{}", finished.err);
}

/// Neither the lease's end nor the broker's absence stops the command, and there is a replacement
/// when the broker is back.
#[test]
fn a_broker_in_trouble_is_asked_until_it_answers() {
    let broker = Broker::start(|request, before| match request.line().as_str() {
        MINT if before < 3 => Answer::json(503, &problem(503, "unavailable", "the store is down")),
        _ => replacing(request, &short(2)),
    });
    let script = "sleep 5; grep user $PGSERVICEFILE";
    let finished = exec(&broker, &["--file", "pg_service.conf=r"], script);
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), "user=df_y\n"), "{finished:?}");
    let keys: Vec<_> = broker.asked(MINT).into_iter().map(|request| request.key).collect();
    assert_eq!(keys, ["after-lse_r"; 4]);
    assert_eq!(finished.err.matches("cannot replace lease lse_r").count(), 1, "{}", finished.err);
    assert!(finished.err.contains("until there is another"), "{}", finished.err);
    assert!(broker.asked(REVOKE).is_empty(), "it has ended by itself");
}

#[test]
fn a_lease_that_somebody_has_ended_is_not_replaced() {
    let broker = Broker::start(|request, _| match request.line().as_str() {
        LOOK => {
            let mut lease = shown(&short(2));
            lease.state = "revoked".into();
            lease.cause = Some("requested".into());
            Answer::json(200, &lease)
        }
        _ => replacing(request, &short(2)),
    });
    let script = "sleep 2.5; grep user $PGSERVICEFILE";
    let finished = exec(&broker, &["--file", "pg_service.conf=r"], script);
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), "user=df_x\n"), "{finished:?}");
    assert!(broker.asked(MINT).is_empty());
    assert!(finished.err.contains("it was ended at the broker (requested)"), "{}", finished.err);
    assert!(finished.err.contains("the command goes on without its credential"));
}

#[test]
fn a_credential_that_can_not_be_delivered_is_ended_at_once() {
    let broker = Broker::start(|request, _| match request.line().as_str() {
        MINT => {
            let mut lease = next();
            lease.credential.as_mut().unwrap().fields.remove("password");
            Answer::json(201, &lease)
        }
        _ => replacing(request, &short(2)),
    });
    let script = "sleep 1.8; grep user $PGSERVICEFILE";
    let finished = exec(&broker, &["--file", "pg_service.conf=r"], script);
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), "user=df_x\n"), "{finished:?}");
    assert_eq!(broker.asked("POST /api/v1/leases/lse_r2/revoke").len(), 1);
    assert!(finished.err.contains("is not replaced"), "{}", finished.err);
}

#[test]
fn what_would_end_with_the_task_is_not_replaced() {
    let mut lease = short(2);
    lease.max_expires_at = "2026-01-01T00:15:00Z".into();
    let broker = Broker::start(move |request, _| replacing(request, &lease));
    let finished = exec(&broker, &["--file", "pg_service.conf=r"], "sleep 1.8");
    assert_eq!(finished.code, Some(0));
    assert!(broker.asked(MINT).is_empty());
    assert!(finished.err.contains("so does the task; --ttl says"), "{}", finished.err);
}

#[test]
fn variables_alone_are_told_of_and_not_replaced() {
    let broker = broker(2);
    let finished = exec(&broker, &[], "sleep 2.5; exit 4");
    assert_eq!(finished.code, Some(4));
    assert!(broker.asked(MINT).is_empty());
    let warnings: Vec<_> = finished.err.lines().filter(|line| line.contains("warning")).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("ends at 2026-01-01T00:00:02Z: its role allows no more"));
    assert!(warnings[1].contains("has ended; the command goes on"));
}

#[test]
fn the_command_can_be_stopped_with_its_credential() {
    let broker = broker(2);
    let script = "trap 'echo told; exit 7' TERM; while :; do sleep 0.1; done";
    let finished = exec(&broker, &["--on-expiry", "term"], script);
    assert_eq!((finished.code, finished.out.as_str()), (Some(124), "told\n"), "{finished:?}");
    assert_eq!(broker.outcome(), "failed");
}

#[test]
fn a_fifo_gives_what_is_valid_when_it_is_opened() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let script = format!(
        "cat $DAYFLY_FILE_USER; echo; cat $DAYFLY_FILE_PW >{}; sleep 2; cat $DAYFLY_FILE_USER",
        out.display()
    );
    let options = ["--fifo", "user=r/username", "--fifo", "pw=r/password"];
    let finished = exec(&broker(3), &options, &script);
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), "df_x\ndf_y"), "{finished:?}");
    assert_eq!(fs::read_to_string(Path::new(&out)).unwrap(), PASSWORD);
}
