//! Commands that read and administer.

use dayfly_api::{LeasePage, OnBehalfOf, Revoked, Role, RoleList, Task, WhoAmI};
use serde_json::Value;

use crate::{
    broker::{Answer, Broker, completed, lease, problem},
    program::{ID_TOKEN, dayfly, program, run},
};

fn page(ids: std::ops::Range<usize>, next_cursor: Option<&str>) -> LeasePage {
    let one = |id| dayfly_api::Lease {
        id: format!("lse_{id}"),
        credential: None,
        ..lease("pg-read", &[], &[])
    };
    LeasePage { data: ids.map(one).collect(), next_cursor: next_cursor.map(Into::into) }
}

fn paging() -> Broker {
    Broker::start(|request, _| {
        let answer = if request.target.contains("cursor=next") {
            page(2..3, None)
        } else {
            page(0..2, Some("next"))
        };
        Answer::json(200, &answer)
    })
}

#[test]
fn leases_are_listed_over_all_pages() {
    let broker = paging();
    let words = ["lease", "list", "--state", "active", "--principal", "ci:a&b"];
    let finished = run(dayfly(&broker.url, &words));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let lines: Vec<_> = finished.out.lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].starts_with("ID     ROLE     STATE "), "{lines:?}");
    assert!(lines[3].starts_with("lse_2  pg-read  active"), "{lines:?}");
    let requests = broker.requests();
    let query = "/api/v1/leases?state=active&principal=ci%3Aa%26b&limit=100";
    assert_eq!(requests[0].target, query);
    assert_eq!(requests[1].target, format!("{query}&cursor=next"));
    assert_eq!(requests[0].bearer, ID_TOKEN);
}

#[test]
fn a_limit_is_kept_and_told() {
    let broker = paging();
    let finished = run(dayfly(&broker.url, &["lease", "list", "--limit", "2", "--output", "json"]));
    let value: Value = serde_json::from_str(&finished.out).unwrap();
    assert_eq!(value["data"].as_array().unwrap().len(), 2);
    assert_eq!(value["data"][0]["id"], "lse_0");
    assert!(finished.err.contains("more than 2"), "{}", finished.err);
    assert_eq!(broker.requests().len(), 1);
}

#[test]
fn the_own_token_comes_before_the_identity() {
    let broker = Broker::start(|_, _| {
        let me = WhoAmI {
            principal: "ci:repo".into(),
            kind: "workload".into(),
            issuer: "ci".into(),
            subject: "repo\u{1b}[2J".into(),
            task: Some("tsk_1".into()),
            on_behalf_of: None,
        };
        Answer::json(200, &me)
    });
    let mut command = dayfly(&broker.url, &["whoami"]);
    command.env("DAYFLY_TOKEN", "dft_mine");
    let finished = run(command);
    assert_eq!(broker.requests()[0].bearer, "dft_mine");
    assert_eq!(
        finished.out,
        "principal  ci:repo\nkind       workload\nissuer     ci\n\
         subject    repo\u{fffd}[2J\ntask       tsk_1\n"
    );
}

#[test]
fn a_revocation_says_whether_it_is_verified() {
    for (status, state, code) in [(200, "revoked", 0), (202, "revoking", 6)] {
        let broker = Broker::start(move |_, _| {
            let revoked = Revoked {
                id: "lse_1".into(),
                state: state.into(),
                cause: Some("requested".into()),
                revoked_at: None,
            };
            Answer::json(status, &revoked)
        });
        let words = ["lease", "revoke", "lse_1", "--reason", "laptop lost", "--wait", "3s"];
        let finished = run(dayfly(&broker.url, &words));
        assert_eq!(finished.code, Some(code), "{finished:?}");
        let request = &broker.requests()[0];
        assert_eq!(request.line(), "POST /api/v1/leases/lse_1/revoke");
        assert!(request.target.ends_with("?wait=3s"), "{request:?}");
        assert_eq!(request.body, serde_json::json!({"reason": "laptop lost"}));
    }
}

#[test]
fn tasks_are_shown_and_completed() {
    let broker = Broker::start(|request, _| match request.method.as_str() {
        "GET" => Answer::json(
            200,
            &Task {
                id: "tsk_1".into(),
                state: "open".into(),
                purpose: "nightly".into(),
                principal: "ci:repo".into(),
                issuer: "ci".into(),
                on_behalf_of: Some(OnBehalfOf {
                    principal: "people|ada".into(),
                    issuer: "people".into(),
                    subject: "ada".into(),
                    name: Some("Ada\u{1b}[2J Lovelace".into()),
                }),
                opened_at: "2026-01-01T00:00:00Z".into(),
                expires_at: "2026-01-01T00:15:00Z".into(),
                heartbeat_seconds: None,
                lost_at: None,
                closed_at: None,
                binding: None,
                leases: dayfly_api::LeaseCounts { active: 2, ..Default::default() },
            },
        ),
        _ => Answer::json(202, &completed("revoking", 1, 1)),
    });
    let shown = run(dayfly(&broker.url, &["task", "show", "tsk_1"]));
    assert_eq!(shown.code, Some(0));
    assert!(shown.out.contains("leases        2 active\n"), "{}", shown.out);
    let asked = "on behalf of  people|ada (Ada\u{fffd}[2J Lovelace)\n";
    assert!(shown.out.contains(asked), "{}", shown.out);
    let ended = run(dayfly(&broker.url, &["task", "complete", "tsk_1", "--outcome", "failed"]));
    assert_eq!(ended.code, Some(6), "{ended:?}");
    assert!(ended.out.contains("1 revoking, 1 revoked"), "{}", ended.out);
    assert_eq!(broker.requests()[1].body, serde_json::json!({"outcome": "failed"}));
}

#[test]
fn roles_are_listed_with_their_lifetimes() {
    let broker = Broker::start(|_, _| {
        let role = Role {
            name: "pg-read".into(),
            backend: "main".into(),
            kind: "postgres".into(),
            owner: "data".into(),
            labels: [("env".to_owned(), "prod".to_owned())].into(),
            ttl_seconds: 900,
            ttl_max_seconds: 3600,
        };
        Answer::json(200, &RoleList { data: vec![role] })
    });
    let finished = run(dayfly(&broker.url, &["role", "list"]));
    assert_eq!(
        finished.out,
        "ROLE     KIND      BACKEND  TTL  MAX  OWNER  LABELS\n\
         pg-read  postgres  main     15m   1h  data   env=prod\n"
    );
}

#[test]
fn each_refusal_has_its_exit_code_and_one_line() {
    for (status, code) in [(401, 5), (403, 4), (404, 3), (409, 7), (422, 2), (500, 1)] {
        let broker =
            Broker::start(move |_, _| Answer::json(status, &problem(status, "x", "it is so")));
        let finished = run(dayfly(&broker.url, &["lease", "show", "lse_1"]));
        assert_eq!(finished.code, Some(code), "{status}");
        assert_eq!(finished.err, "dayfly: error[x]: it is so (request req_1)\n", "{status}");
        assert_eq!(finished.out, "");
    }
}

#[test]
fn reading_is_tried_again_when_the_broker_is_away() {
    let broker = Broker::start(|_, before| match before {
        0 | 1 => Answer::json(503, &problem(503, "unavailable", "the store is down")),
        _ => Answer::json(200, &page(0..1, None)),
    });
    assert_eq!(run(dayfly(&broker.url, &["lease", "list"])).code, Some(0));
    assert_eq!(broker.requests().len(), 3);
}

#[test]
fn an_unreachable_broker_is_told_with_its_address() {
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let finished = run(dayfly(&format!("http://{free}"), &["whoami"]));
    assert_eq!(finished.code, Some(6));
    let expected = format!("dayfly: error: cannot reach the broker at http://{free} ");
    assert!(finished.err.starts_with(&expected), "{}", finished.err);
    assert!(finished.err.contains(": Connection refused"), "{}", finished.err);
    assert_eq!(finished.err.lines().count(), 1);
}

#[test]
fn localhost_is_this_machine() {
    let broker = paging();
    let url = broker.url.replace("127.0.0.1", "localhost");
    assert_eq!(run(dayfly(&url, &["lease", "list"])).code, Some(0));
    assert_eq!(broker.requests().len(), 2);
}

#[test]
fn ids_cannot_reach_another_path() {
    let broker = Broker::start(|_, _| Answer::json(404, &problem(404, "not_found", "no")));
    run(dayfly(&broker.url, &["lease", "show", "../roles?x=1"]));
    assert_eq!(broker.requests()[0].target, "/api/v1/leases/..%2Froles%3Fx=1");
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let broker = Broker::start(|_, _| Answer::json(200, &page(0..5000, None)));
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "{ \"$0\" lease list --limit 5000; echo $? >&2; } | head -n 1"]);
    command.arg(program());
    command.env("DAYFLY_URL", &broker.url).env("DAYFLY_ID_TOKEN", "jwt");
    let finished = run(command);
    assert!(finished.out.starts_with("ID "), "{finished:?}");
    assert_eq!(finished.err, "0\n");
}
