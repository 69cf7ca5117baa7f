//! Answers as the platforms document them, cut down to what is read and a little around it; and
//! claims that no path is made of.

use std::collections::BTreeMap;

use dayfly_lease::{SystemClock, SystemEntropy};
use serde_json::{Value, json};
use url::Url;

use super::*;
use crate::identity::ClaimValue;

const ISSUER: &str = "ci";
const JOB: &str = "0184990a-4771-4d4a-9c48-000000000001";
const OTHER_JOB: &str = "0184990a-4771-4d4a-9c48-000000000002";

const GITHUB: [(&str, &str); 5] = [
    ("repository", "octo-org/octo-repo"),
    ("repository_id", "456789"),
    ("run_id", "17000000001"),
    ("run_attempt", "1"),
    ("check_run_id", "49000000123"),
];
const GITLAB: [(&str, &str); 2] = [("project_id", "20"), ("job_id", "302")];
const BUILDKITE: [(&str, &str); 4] = [
    ("organization_slug", "acme"),
    ("pipeline_slug", "app"),
    ("build_number", "7"),
    ("job_id", JOB),
];

fn claims(pairs: &[(&str, &str)]) -> BTreeMap<String, ClaimValue> {
    let claim =
        |(name, value): &(&str, &str)| ((*name).to_owned(), ClaimValue::Text((*value).to_owned()));
    pairs.iter().map(claim).collect()
}

fn locate(kind: HookKind, pairs: &[(&str, &str)]) -> Option<Place> {
    Place::of(kind, &Claims(&claims(pairs)))
}

fn url(api: &str, place: &Place) -> String {
    place.url(&Url::parse(api).unwrap()).unwrap().to_string()
}

/// What an answer says, by key.
fn said(place: &Place, body: &Value) -> Vec<(String, Option<TaskEnd>)> {
    let told = place.read(ISSUER, body.to_string().as_bytes()).unwrap();
    told.into_iter().map(|told| (told.key.as_str().to_owned(), told.end)).collect()
}

fn is_readable(place: &Place, body: &str) -> bool {
    place.read(ISSUER, body.as_bytes()).is_ok()
}

fn github_job(status: &str, conclusion: Option<&str>) -> Value {
    json!({
        "id": 49_000_000_123_u64, "run_id": 17_000_000_001_u64, "run_attempt": 1,
        "run_url": "https://api.github.com/repos/octo-org/octo-repo/actions/runs/17000000001",
        "status": status, "conclusion": conclusion, "name": "deploy",
        "started_at": "2026-09-21T14:14:00Z", "completed_at": null,
        "steps": [{ "name": "Set up job", "status": "completed", "conclusion": "success" }],
        "check_run_url": "https://api.github.com/repos/octo-org/octo-repo/check-runs/49000000123",
        "labels": ["ubuntu-latest"], "workflow_name": "deploy", "head_branch": "main"
    })
}

fn github_run(repository: u64, status: Option<&str>, conclusion: Option<&str>) -> Value {
    json!({
        "id": 17_000_000_001_u64, "run_number": 88, "run_attempt": 1, "event": "push",
        "status": status, "conclusion": conclusion,
        "repository": { "id": repository, "full_name": "octo-org/octo-repo" },
        "head_repository": { "id": 1, "full_name": "fork/octo-repo" }
    })
}

/// Every status with every conclusion that it comes with.
const GITHUB_STATES: [(&str, Option<&str>, Option<TaskEnd>); 14] = [
    ("queued", None, None),
    ("requested", None, None),
    ("waiting", None, None),
    ("pending", None, None),
    ("in_progress", None, None),
    ("completed", None, None),
    ("completed", Some("success"), Some(TaskEnd::Completed)),
    ("completed", Some("neutral"), Some(TaskEnd::Completed)),
    ("completed", Some("cancelled"), Some(TaskEnd::Cancelled)),
    ("completed", Some("failure"), Some(TaskEnd::Failed)),
    ("completed", Some("timed_out"), Some(TaskEnd::Failed)),
    ("completed", Some("stale"), Some(TaskEnd::Failed)),
    ("completed", Some("skipped"), None),
    ("completed", Some("action_required"), None),
];

#[test]
fn a_github_job_is_asked_for_by_name_and_told_by_ids() {
    let place = locate(HookKind::Github, &GITHUB).unwrap();
    let path = "repos/octo-org/octo-repo/actions/jobs/49000000123";
    assert_eq!(url("https://api.github.com", &place), format!("https://api.github.com/{path}"));
    let server = "https://git.example.com/api/v3";
    assert_eq!(url(server, &place), format!("{server}/{path}"));
    assert_eq!(url(&format!("{server}/"), &place), format!("{server}/{path}"));
    let key = "ci|github/456789/17000000001/1/49000000123".to_owned();
    for (status, conclusion, end) in GITHUB_STATES {
        let answer = github_job(status, conclusion);
        assert_eq!(said(&place, &answer), [(key.clone(), end)], "{status} {conclusion:?}");
    }
    let early = github_job("in_progress", Some("success"));
    assert_eq!(said(&place, &early), [(key.clone(), None)], "not before it is completed");
    let mut without = github_job("completed", Some("success"));
    for name in ["run_attempt", "check_run_url"] {
        without.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(said(&place, &without), [(key, Some(TaskEnd::Completed))]);
    let mut rerun = github_job("completed", Some("success"));
    rerun["run_attempt"] = json!(2);
    let other = "ci|github/456789/17000000001/2/49000000123";
    assert_eq!(said(&place, &rerun), [(other.to_owned(), Some(TaskEnd::Completed))]);
}

#[test]
fn the_end_of_a_github_job_needs_the_repositorys_id_besides() {
    let place = locate(HookKind::Github, &GITHUB).unwrap();
    let (proof, key) = place.proof(ISSUER).unwrap();
    let path = "repos/octo-org/octo-repo/actions/runs/17000000001/attempts/1";
    assert_eq!(url("https://api.github.com", &proof), format!("https://api.github.com/{path}"));
    let running = github_run(456_789, Some("in_progress"), None);
    assert_eq!(said(&proof, &running), [(key.as_str().to_owned(), None)]);
    let (told, _) = said(&proof, &github_run(666, Some("completed"), Some("success"))).remove(0);
    assert_ne!(told, key.as_str(), "another repository has the name now");
    assert_eq!(proof.proof(ISSUER), None, "it is its own proof");
}

#[test]
fn a_github_token_without_its_job_asks_for_its_run() {
    let place = locate(HookKind::Github, &GITHUB[..4]).unwrap();
    let key = "ci|github/456789/17000000001/1".to_owned();
    for (status, conclusion, end) in GITHUB_STATES {
        let answer = github_run(456_789, Some(status), conclusion);
        assert_eq!(said(&place, &answer), [(key.clone(), end)], "{status} {conclusion:?}");
    }
    let startup = github_run(456_789, Some("completed"), Some("startup_failure"));
    assert_eq!(said(&place, &startup), [(key.clone(), Some(TaskEnd::Failed))]);
    let unsaid = github_run(456_789, None, Some("success"));
    assert_eq!(said(&place, &unsaid), [(key, None)]);
}

#[test]
fn a_gitlab_job_is_told_by_its_own_ids() {
    let place = locate(HookKind::Gitlab, &GITLAB).unwrap();
    let api = "https://gitlab.example.com/api/v4";
    assert_eq!(url(api, &place), format!("{api}/projects/20/jobs/302"));
    let answer = |project: u64, job: u64, status: &str| {
        json!({
            "id": job, "name": "deploy", "stage": "deploy", "status": status, "ref": "main",
            "failure_reason": null, "started_at": "2026-09-21T14:14:00.000Z", "finished_at": null,
            "pipeline": { "id": 574, "project_id": project, "ref": "main", "status": "running" },
            "project": { "ci_job_token_scope_enabled": false },
            "user": { "id": 1, "username": "dev" }, "artifacts": []
        })
    };
    let key = "ci|gitlab/20/302".to_owned();
    for (status, end) in [
        ("created", None),
        ("waiting_for_resource", None),
        ("preparing", None),
        ("pending", None),
        ("running", None),
        ("waiting_for_callback", None),
        ("scheduled", None),
        ("manual", None),
        ("canceling", None),
        ("skipped", None),
        ("success", Some(TaskEnd::Completed)),
        ("failed", Some(TaskEnd::Failed)),
        ("canceled", Some(TaskEnd::Cancelled)),
    ] {
        assert_eq!(said(&place, &answer(20, 302, status)), [(key.clone(), end)], "{status}");
    }
    for other in [answer(21, 302, "success"), answer(20, 303, "success")] {
        let (told, _) = said(&place, &other).remove(0);
        assert_ne!(told, key);
    }
    let fork = [GITLAB[0], GITLAB[1], ("job_project_id", "9")];
    let fork = locate(HookKind::Gitlab, &fork).unwrap();
    assert_eq!(url(api, &fork), format!("{api}/projects/9/jobs/302"));
    assert_eq!(fork.proof(ISSUER), None);
}

#[test]
fn a_buildkite_build_tells_of_its_jobs() {
    let place = locate(HookKind::Buildkite, &BUILDKITE).unwrap();
    let api = "https://api.buildkite.com/v2";
    let path = "organizations/acme/pipelines/app/builds/7?include_retried_jobs=true";
    assert_eq!(url(api, &place), format!("{api}/{path}"));
    let answer = |organization: &str, number: u64, state: &str| {
        json!({
            "id": "f62a1b4d-10f9-4790-bc1c-e2c3a0c80983", "number": number, "state": "running",
            "url": format!("{api}/organizations/{organization}/pipelines/app/builds/{number}"),
            "pipeline": {
                "slug": "app", "url": format!("{api}/organizations/{organization}/pipelines/app")
            },
            "jobs": [
                { "id": JOB, "type": "script", "state": state, "retried": false, "agent": null },
                { "id": OTHER_JOB, "type": "script", "state": "running" },
                { "id": "b63254c0-3271-4a98-8270-7cfbd6c2f14e", "type": "waiter" },
                { "type": "manual", "state": "blocked" },
            ],
            "env": { "A": "b" }
        })
    };
    let key = |job: &str| format!("ci|buildkite/acme/app/7/{job}");
    for (state, end) in [
        ("pending", None),
        ("waiting", None),
        ("waiting_failed", None),
        ("blocked", None),
        ("blocked_failed", None),
        ("unblocked", None),
        ("unblocked_failed", None),
        ("limiting", None),
        ("limited", None),
        ("scheduled", None),
        ("assigned", None),
        ("accepted", None),
        ("running", None),
        ("canceling", None),
        ("timing_out", None),
        ("skipped", None),
        ("broken", None),
        ("passed", Some(TaskEnd::Completed)),
        ("failed", Some(TaskEnd::Failed)),
        ("timed_out", Some(TaskEnd::Failed)),
        ("expired", Some(TaskEnd::Failed)),
        ("canceled", Some(TaskEnd::Cancelled)),
    ] {
        let told = said(&place, &answer("acme", 7, state));
        assert_eq!(told[..2], [(key(JOB), end), (key(OTHER_JOB), None)], "{state}");
        assert_eq!(told.len(), 3, "what has no id is no job");
    }
    for other in [answer("other", 7, "passed"), answer("acme", 8, "passed")] {
        let told = said(&place, &other);
        assert!(!told.is_empty() && told.iter().all(|(told, _)| *told != key(JOB)));
    }
}

#[test]
fn what_no_platform_answers_is_unreadable() {
    let places = [
        locate(HookKind::Github, &GITHUB),
        locate(HookKind::Github, &GITHUB[..4]),
        locate(HookKind::Gitlab, &GITLAB),
        locate(HookKind::Buildkite, &BUILDKITE),
    ];
    for place in places.into_iter().flatten() {
        for body in ["", "null", "{}", "[]", "<html></html>", r#"{ "message": "Not Found" }"#] {
            assert!(!is_readable(&place, body), "{place:?} {body}");
        }
    }
    let place = locate(HookKind::Github, &GITHUB).unwrap();
    let mut twice = github_job("in_progress", None).to_string();
    assert!(is_readable(&place, &twice));
    twice.insert_str(1, "\"status\":\"completed\",\"conclusion\":\"success\",");
    assert!(!is_readable(&place, &twice));
}

#[test]
fn no_claim_leads_out_of_its_place() {
    for repository in [
        "octo-repo",
        "/octo-repo",
        "octo-org/",
        "octo-org/octo-repo/actions",
        "../user",
        "octo-org/..",
        "./octo-repo",
        "octo org/repo",
        "octo-org/re%2e%2epo",
        "octo-org/repo?x",
        "octo-org/repo#x",
        "octo-org\\repo/x",
        "",
    ] {
        let mut claims = GITHUB;
        claims[0].1 = repository;
        assert_eq!(locate(HookKind::Github, &claims), None, "{repository}");
    }
    for slug in ["", ".", "..", "a/b", "a b", "a%2fb", "ä"] {
        for index in [0, 1] {
            let mut claims = BUILDKITE;
            claims[index].1 = slug;
            assert_eq!(locate(HookKind::Buildkite, &claims), None, "{slug}");
        }
    }
    for (kind, all) in [
        (HookKind::Github, &GITHUB[..4]),
        (HookKind::Gitlab, &GITLAB[..]),
        (HookKind::Buildkite, &BUILDKITE[..3]),
    ] {
        for missing in 0..all.len() {
            let mut claims = all.to_vec();
            claims.remove(missing);
            assert_eq!(locate(kind, &claims), None, "without {:?}", all[missing]);
        }
    }
    let number = [("project_id", "20/../21"), ("job_id", "302")];
    assert_eq!(locate(HookKind::Gitlab, &number), None);
}

#[test]
fn a_job_is_one_question_however_many_tasks_it_has() {
    let task = || TaskId::new(dayfly_lease::Clock::now(&SystemClock), &SystemEntropy::new());
    let key = |text: &str| JobKey::parse(text).unwrap();
    let place = |job: &'static str| {
        locate(HookKind::Gitlab, &[("project_id", "20"), ("job_id", job)]).unwrap()
    };
    let mut plan = Plan::of(2);
    let (first, second) = (task(), task());
    assert!(plan.add(place("1"), key("ci|1"), first));
    assert!(plan.add(place("2"), key("ci|2"), second));
    assert!(plan.add(place("1"), key("ci|1"), task()));
    assert!(!plan.add(place("3"), key("ci|3"), task()), "a round has a bound");
    assert!(plan.add(place("2"), key("ci|2b"), task()), "what is asked anyway has room");
    let questions = plan.into_questions();
    let summary: Vec<_> =
        questions.iter().map(|q| (q.place.clone(), q.keys.len(), q.task)).collect();
    assert_eq!(summary, [(place("1"), 1, first), (place("2"), 2, second)]);
}

#[test]
fn what_is_said_about_one_job_holds_up_no_other() {
    let round = || Round::new(Secret::new("token"), Pace::of(HookKind::Github));
    let mut patient = round();
    for trouble in [
        Trouble::NotFound,
        Trouble::Refused,
        Trouble::Mismatched,
        Trouble::Unreadable,
        Trouble::Unavailable,
        Trouble::Unavailable,
        Trouble::NotFound,
        Trouble::Unavailable,
    ] {
        assert!(!patient.troubled(trouble) && !patient.stopped, "{trouble:?}");
    }
    patient.answered();
    assert!(!patient.troubled(Trouble::Unavailable));
    assert!(!patient.troubled(Trouble::Unavailable));
    assert!(patient.troubled(Trouble::Unavailable) && patient.stopped, "three in a row");
    assert!(!patient.troubled(Trouble::Unavailable), "it is given up once");
    let mut refused = round();
    assert!(refused.troubled(Trouble::TokenRefused) && refused.stopped);
}

#[test]
fn each_trouble_is_warned_of_once_until_a_round_has_none() {
    let mut memory = Memory::default();
    let mut round = |troubles: &[Trouble]| memory.conclude(troubles.iter().copied().collect());
    let (limited, missing) = (Trouble::Limited, Trouble::NotFound);
    assert_eq!(round(&[]), (vec![], false));
    assert_eq!(round(&[missing]), (vec![missing], false));
    assert_eq!(round(&[missing]), (vec![], false));
    assert_eq!(round(&[limited, missing]), (vec![limited], false));
    assert_eq!(round(&[limited]), (vec![], false));
    assert_eq!(round(&[]), (vec![], true));
    assert_eq!(round(&[]), (vec![], false));
    assert_eq!(round(&[missing]), (vec![missing], false));
}
