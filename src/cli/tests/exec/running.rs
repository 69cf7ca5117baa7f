//! Commands that run.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{
    broker::{
        Answer, Broker, PASSWORD, TASK_TOKEN, completed, grant, heard, lease, postgres, problem,
    },
    program::{ID_TOKEN, dayfly, detached, run},
};

#[test]
fn the_command_finds_its_credential_in_the_environment() {
    let broker = Broker::granting(vec![postgres("pg-read")]);
    let finished = run(dayfly(&broker.url, &["exec", "--role", "pg-read", "--", "env"]));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let mut lines: Vec<_> =
        finished.out.lines().filter(|line| line.contains("PG") || line.contains("URL")).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "DATABASE_URL=postgresql://df_x:hunter2-secret@db.example:5432/shop",
            &format!("DAYFLY_URL={}", broker.url),
            "PGDATABASE=shop",
            "PGHOST=db.example",
            "PGPASSWORD=hunter2-secret",
            "PGPORT=5432",
            "PGUSER=df_x",
        ]
    );
    assert_eq!(broker.outcome(), "completed");
}

#[test]
fn the_task_is_opened_with_the_identity_and_completed_with_its_own_token() {
    let broker = Broker::granting(vec![lease("a", &[("A", "key")], &[("key", "k")])]);
    let words = ["exec", "--role", "X=a", "--role", "Y=a", "--ttl", "1h", "--", "true", "-x"];
    assert_eq!(run(dayfly(&broker.url, &words)).code, Some(0));
    let requests = broker.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert_eq!(requests[0].bearer, ID_TOKEN);
    let body = serde_json::json!({
        "purpose": "exec true", "ttl_seconds": 3600, "heartbeat_seconds": 60, "roles": ["a"]
    });
    assert_eq!(requests[0].body, body);
    assert_eq!(requests[1].bearer, TASK_TOKEN);
    assert_eq!(requests[1].target, "/api/v1/tasks/tsk_1/complete?wait=5s");
}

#[test]
fn the_exit_code_is_the_commands_own() {
    for (script, code) in [("exit 7", 7), ("exit 125", 125)] {
        let broker = Broker::granting(vec![postgres("r")]);
        let finished = run(dayfly(&broker.url, &["exec", "--role", "r", "--", "sh", "-c", script]));
        assert_eq!(finished.code, Some(code), "{script}: {finished:?}");
        assert_eq!(broker.outcome(), "failed", "{script}");
    }
}

/// So a shell sees why a pipeline ended, and stops at a ^C as it would without us.
#[test]
fn what_killed_the_command_kills_us_after_the_credentials() {
    for name in ["KILL", "SEGV", "INT", "PIPE"] {
        let broker = Broker::granting(vec![postgres("r")]);
        let script = format!("ulimit -c 0; kill -{name} $$");
        let words = ["exec", "--role", "r", "--", "sh", "-c", &script];
        let finished = run(dayfly(&broker.url, &words));
        let number = match name {
            "KILL" => Signal::KILL,
            "SEGV" => Signal::SEGV,
            "INT" => Signal::INT,
            _ => Signal::PIPE,
        };
        assert_eq!(finished.signal, Some(number.as_raw()), "{finished:?}");
        assert_eq!(broker.outcome(), "failed", "{name}");
        assert!(finished.err.contains("verified dead"), "{finished:?}");
    }
    // One without a name has no default that could be had.
    let broker = Broker::granting(vec![postgres("r")]);
    let words = ["exec", "--role", "r", "--", "sh", "-c", "kill -40 $$"];
    assert_eq!(run(dayfly(&broker.url, &words)).code, Some(168));
}

#[test]
fn prefixes_keep_two_roles_apart() {
    let broker = Broker::granting(vec![postgres("a"), postgres("b")]);
    let words = ["exec", "--role", "OLD=a", "--role", "NEW=b", "sh", "-c"];
    let script = "echo $OLD_PGUSER $NEW_PGHOST; test -z \"$PGUSER\"";
    let finished = run(dayfly(&broker.url, &[words.as_slice(), &[script]].concat()));
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), "df_x db.example\n"));
}

#[test]
fn the_means_to_get_more_do_not_reach_the_command() {
    let broker = Broker::granting(vec![postgres("r")]);
    for start in [dayfly, detached] {
        // Its environment, its arguments, and those of the process above it.
        let script = "env; tr '\\0' ' ' </proc/$$/cmdline; tr '\\0' ' ' </proc/$PPID/cmdline";
        let mut command = start(&broker.url, &["exec", "--role", "r", "--", "sh", "-c", script]);
        command.env("DAYFLY_TOKEN", "dft_other").env("DAYFLY_TOKEN_FILE", "/nowhere");
        command.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request-secret");
        command.env("ACTIONS_ID_TOKEN_REQUEST_URL", "https://token.example");
        let finished = run(command);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        for absent in [ID_TOKEN, "dft_", "request-secret", "token.example", "/nowhere"] {
            assert!(!finished.out.contains(absent), "{absent}: {}", finished.out);
        }
        let arguments = finished.out.lines().last().unwrap();
        assert!(arguments.contains("exec --role r"), "{arguments}");
        assert!(!arguments.contains(PASSWORD), "{arguments}");
    }
}

#[test]
fn messages_go_to_stderr_and_hold_no_secret() {
    let broker = Broker::granting(vec![postgres("r")]);
    let mut command = dayfly(&broker.url, &["exec", "--role", "r", "--", "echo", "data"]);
    command.env("PGHOST", "elsewhere");
    let finished = run(command);
    assert_eq!(finished.out, "data\n");
    assert!(finished.err.contains("lse_r") && finished.err.contains("PGHOST"), "{}", finished.err);
    for secret in [PASSWORD, TASK_TOKEN, ID_TOKEN, "elsewhere"] {
        assert!(!finished.err.contains(secret), "{}", finished.err);
    }
    let quiet = run(dayfly(&broker.url, &["exec", "-q", "--role", "r", "--", "true"]));
    assert_eq!(quiet.err, "");
}

#[test]
fn what_is_not_verified_dead_is_told_and_changes_no_exit_code() {
    let broker = Broker::start(|request, _| match request.line().as_str() {
        "POST /api/v1/tasks/tsk_1/complete" => Answer::json(202, &completed("revoking", 1, 0)),
        _ => grant(request, &[postgres("r")]),
    });
    let finished = run(dayfly(&broker.url, &["exec", "--role", "r", "--", "sh", "-c", "exit 3"]));
    assert_eq!(finished.code, Some(3));
    assert!(finished.err.contains("warning: task tsk_1: 1 credential not yet"), "{}", finished.err);
}

#[test]
fn completion_is_tried_until_the_time_for_it_is_up() {
    for (failures, warned) in [(1, false), (3, false), (99, true)] {
        let broker = Broker::start(move |request, before| match request.line().as_str() {
            "POST /api/v1/tasks/tsk_1/complete" if before < failures => {
                Answer::json(503, &problem(503, "unavailable", "the store is down"))
            }
            _ => grant(request, &[postgres("r")]),
        });
        let words = ["exec", "--role", "r", "--revoke-timeout", "3s", "--", "true"];
        let finished = run(dayfly(&broker.url, &words));
        assert_eq!(finished.code, Some(0));
        assert_eq!(finished.err.contains("could not complete"), warned, "{}", finished.err);
    }
}

/// As when something between us and the broker has forgotten the connection.
#[test]
fn a_completion_without_an_answer_is_repeated_over_another_connection() {
    let broker = Broker::start(|request, before| {
        if request.line() == "POST /api/v1/tasks/tsk_1/complete" && before == 0 {
            std::thread::sleep(Duration::from_secs(20));
        }
        grant(request, &[postgres("r")])
    });
    let finished = run(dayfly(&broker.url, &["exec", "--role", "r", "--", "true"]));
    assert_eq!(finished.code, Some(0));
    assert!(finished.err.contains("verified dead"), "{}", finished.err);
    assert_eq!(broker.asked("POST /api/v1/tasks/tsk_1/complete").len(), 2);
}

#[test]
fn a_broker_that_does_not_answer_the_completion_holds_nobody_up() {
    let broker = Broker::start(|request, _| match request.line().as_str() {
        "POST /api/v1/tasks/tsk_1/complete" => {
            std::thread::sleep(Duration::from_secs(20));
            Answer::json(200, &completed("completed", 0, 1))
        }
        _ => grant(request, &[postgres("r")]),
    });
    let start = now();
    let words = ["exec", "--role", "r", "--revoke-timeout", "1s", "--", "sh", "-c", "exit 4"];
    let finished = run(dayfly(&broker.url, &words));
    assert_eq!(finished.code, Some(4));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(finished.err.contains("could not complete task tsk_1"), "{}", finished.err);
}

#[test]
fn leases_are_renewed_at_half_their_life() {
    let mut short = postgres("r");
    short.expires_at = "2026-01-01T00:00:02Z".into();
    let broker = Broker::start(move |request, _| match request.line().as_str() {
        "POST /api/v1/leases/lse_r/renew" => Answer::json(
            200,
            &dayfly_api::Renewed {
                id: "lse_r".into(),
                ttl_seconds: 2,
                expires_at: "2026-01-01T00:00:03Z".into(),
                max_expires_at: "2026-01-01T01:00:00Z".into(),
                truncated: false,
            },
        ),
        _ => grant(request, std::slice::from_ref(&short)),
    });
    let finished = run(dayfly(&broker.url, &["exec", "--role", "r", "--", "sleep", "2.7"]));
    assert_eq!(finished.code, Some(0));
    let renewals = broker.asked("POST /api/v1/leases/lse_r/renew");
    assert_eq!(renewals.len(), 2, "{renewals:?}");
    assert_eq!(renewals[0].bearer, TASK_TOKEN);
    assert_eq!(renewals[0].body, serde_json::json!({"ttl_seconds": 2}));
    assert!(!finished.err.contains("warning"), "{}", finished.err);
}

#[test]
fn a_lease_that_cannot_be_renewed_is_told_of_and_stops_nothing() {
    let mut short = postgres("r");
    short.expires_at = "2026-01-01T00:00:02Z".into();
    let broker = Broker::start(move |request, _| match request.line().as_str() {
        "POST /api/v1/leases/lse_r/renew" => {
            Answer::json(409, &problem(409, "task_closed", "the task has ended"))
        }
        _ => grant(request, std::slice::from_ref(&short)),
    });
    let finished = run(dayfly(&broker.url, &["exec", "--role", "r", "--", "sleep", "2.7"]));
    assert_eq!(finished.code, Some(0));
    assert_eq!(broker.asked("POST /api/v1/leases/lse_r/renew").len(), 1);
    let warnings: Vec<_> = finished.err.lines().filter(|line| line.contains("warning")).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("the task has ended"), "{warnings:?}");
    assert!(warnings[1].contains("has ended; the command goes on"), "{warnings:?}");
}

/// Three beats in each interval, also while there is nothing to renew; a broker in trouble is told
/// of once and asked again.
#[test]
fn the_broker_hears_that_the_command_still_runs() {
    let broker = Broker::start(|request, before| match request.line().as_str() {
        "POST /api/v1/tasks/tsk_1/heartbeat" if before == 1 || before == 2 => {
            Answer::json(503, &problem(503, "store_unavailable", "the store is down"))
        }
        "POST /api/v1/tasks/tsk_1/heartbeat" => Answer::json(200, &heard()),
        _ => grant(request, &[postgres("r")]),
    });
    let words = ["exec", "--role", "r", "--heartbeat", "1s", "--", "sleep", "4"];
    let finished = run(dayfly(&broker.url, &words));
    assert_eq!(finished.code, Some(0));
    let beats = broker.asked("POST /api/v1/tasks/tsk_1/heartbeat");
    assert!((4..=16).contains(&beats.len()), "{beats:?}");
    assert!(beats.iter().all(|beat| beat.bearer == TASK_TOKEN));
    let opened = broker.asked("POST /api/v1/tasks");
    assert_eq!(opened[0].body["heartbeat_seconds"], 1);
    assert_eq!(finished.err.matches("cannot tell the broker").count(), 1, "{}", finished.err);
}

/// A connection may die without a word; the broker must hear of us again all the same.
#[test]
fn a_beat_that_is_never_answered_is_not_the_last_of_its_interval() {
    let broker = Broker::start(|request, before| match request.line().as_str() {
        "POST /api/v1/tasks/tsk_1/heartbeat" if before == 0 => {
            std::thread::sleep(Duration::from_secs(4));
            Answer::json(200, &heard())
        }
        "POST /api/v1/tasks/tsk_1/heartbeat" => Answer::json(200, &heard()),
        _ => grant(request, &[postgres("r")]),
    });
    let words = ["exec", "--role", "r", "--heartbeat", "3s", "--", "sleep", "2.9"];
    let finished = run(dayfly(&broker.url, &words));
    assert_eq!(finished.code, Some(0));
    assert!(broker.asked("POST /api/v1/tasks/tsk_1/heartbeat").len() >= 2);
    assert!(finished.err.contains("did not answer in time"), "{}", finished.err);
}

/// A replica of an older version has no such path, and the next beat meets another one.
#[test]
fn a_broker_that_knows_no_heartbeat_is_told_again() {
    let broker = Broker::start(|request, before| match request.line().as_str() {
        "POST /api/v1/tasks/tsk_1/heartbeat" if before < 2 => {
            Answer::json(404, &problem(404, "not_found", "there is no such thing here"))
        }
        "POST /api/v1/tasks/tsk_1/heartbeat" => Answer::json(200, &heard()),
        _ => grant(request, &[postgres("r")]),
    });
    let words = ["exec", "--role", "r", "--heartbeat", "1s", "--", "sleep", "2.5"];
    let finished = run(dayfly(&broker.url, &words));
    assert_eq!(finished.code, Some(0));
    assert!(broker.asked("POST /api/v1/tasks/tsk_1/heartbeat").len() >= 3, "{finished:?}");
    assert_eq!(finished.err.matches("cannot tell the broker").count(), 1, "{}", finished.err);
    assert!(!finished.err.contains("its credentials end"), "{}", finished.err);
}

/// What a task's token is not accepted for, it will not be accepted for later either.
#[test]
fn a_token_that_is_not_accepted_is_not_shown_again() {
    for (status, code) in [(401, "unauthenticated"), (409, "no_heartbeat")] {
        let broker = Broker::start(move |request, _| match request.line().as_str() {
            "POST /api/v1/tasks/tsk_1/heartbeat" => {
                Answer::json(status, &problem(status, code, "no"))
            }
            _ => grant(request, &[postgres("r")]),
        });
        let words = ["exec", "--role", "r", "--heartbeat", "1s", "--", "sleep", "1.5"];
        let finished = run(dayfly(&broker.url, &words));
        assert_eq!(finished.code, Some(0));
        assert_eq!(broker.asked("POST /api/v1/tasks/tsk_1/heartbeat").len(), 1, "{code}");
    }
}

#[test]
fn a_task_that_was_lost_is_told_of_and_stops_nothing() {
    let broker = Broker::start(|request, _| match request.line().as_str() {
        "POST /api/v1/tasks/tsk_1/heartbeat" => {
            Answer::json(409, &problem(409, "task_closed", "the task has ended: lost"))
        }
        _ => grant(request, &[postgres("r")]),
    });
    let words = ["exec", "--role", "r", "--heartbeat", "1s", "--", "sleep", "1.5"];
    let finished = run(dayfly(&broker.url, &words));
    assert_eq!(finished.code, Some(0));
    assert_eq!(broker.asked("POST /api/v1/tasks/tsk_1/heartbeat").len(), 1);
    assert!(finished.err.contains("the task has ended: lost"), "{}", finished.err);
    assert!(finished.err.contains("the command goes on, and its credentials end"));
}

#[test]
fn without_a_heartbeat_nothing_is_said() {
    let broker = Broker::granting(vec![postgres("r")]);
    let words = ["exec", "--role", "r", "--heartbeat", "none", "--", "sleep", "1"];
    assert_eq!(run(dayfly(&broker.url, &words)).code, Some(0));
    assert_eq!(broker.requests().len(), 2, "{:?}", broker.requests());
    assert_eq!(broker.requests()[0].body.get("heartbeat_seconds"), None);
}

#[test]
fn github_gives_a_fresh_token_for_each_try() {
    let broker = Broker::start(|request, before| match request.line().as_str() {
        "GET /token" => {
            Answer::json(200, &serde_json::json!({"value": format!("github-jwt-{before}")}))
        }
        "POST /api/v1/tasks" if before == 0 => {
            let down = problem(503, "unavailable", "the store is down");
            Answer::json(503, &down).with("retry-after", "1")
        }
        _ => grant(request, &[postgres("r")]),
    });
    let mut command = dayfly(&broker.url, &["exec", "--role", "r", "--", "true"]);
    command.env_remove("DAYFLY_ID_TOKEN");
    command.env("ACTIONS_ID_TOKEN_REQUEST_URL", format!("{}/token?api=1", broker.url));
    command.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request-secret");
    let finished = run(command);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let asked = broker.asked("GET /token");
    assert_eq!(asked[0].bearer, "request-secret");
    let audience = broker.url.replace(':', "%3A").replace('/', "%2F");
    assert_eq!(asked[0].target, format!("/token?api=1&audience={audience}"));
    let bearers: Vec<_> =
        broker.asked("POST /api/v1/tasks").into_iter().map(|request| request.bearer).collect();
    assert_eq!(bearers, ["github-jwt-0", "github-jwt-1"]);
}

#[test]
fn a_token_file_comes_before_the_variable() {
    let broker = Broker::granting(vec![postgres("r")]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "file-secret\n").unwrap();
    let path = file.path().to_str().unwrap();
    let words = ["exec", "--role", "r", "--token-file", path, "--", "true"];
    assert_eq!(run(dayfly(&broker.url, &words)).code, Some(0));
    assert_eq!(broker.requests()[0].bearer, "file-secret");
}

#[expect(clippy::disallowed_methods, reason = "the program is watched from outside its clock")]
fn now() -> Instant {
    Instant::now()
}
