//! Requests of somebody whom we know, for what he may not have or does not ask for properly.

use std::time::Duration;

use dayfly_integration::{BrokerConfig, Client, Half, Store, eventually};
use reqwest::{Method, RequestBuilder, header::CONTENT_TYPE};
use serde_json::json;

use super::{Scene, scene, scene_with_postgres};

fn raw(client: &Client, path: &str, body: impl Into<String>) -> RequestBuilder {
    let request = client.request(Method::POST, path).header(CONTENT_TYPE, "application/json");
    request.body(body.into())
}

const LEASES: &str = "/api/v1/leases";
const TASKS: &str = "/api/v1/tasks";

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_a_rule_forbids_is_denied_by_its_name() {
    let scene = scene_with_postgres().await;
    let request = raw(&scene.owner, LEASES, r#"{"role":"forbidden"}"#);
    let noted = [("decision.denied", "test/no-production")];
    let answer = scene.refused(request, (403, "role_denied"), &noted).await;
    assert_eq!(answer.text("/denied_by"), "test/no-production");
    assert_eq!(answer.text("/detail"), "tests get no production credential");
    assert_eq!(answer.text("/errors/0/pointer"), "/role");
    let record = scene.broker.audit().await.pop().unwrap();
    assert_eq!(record["detail"]["role"], "forbidden", "{record}");
    assert_eq!(record["task"], scene.task.as_str(), "{record}");
    assert!(record["actor"].as_str().unwrap().contains("job"), "{record}");
}

/// A name that does not exist cannot be told from one that no rule permits.
#[tokio::test(flavor = "multi_thread")]
async fn roles_cannot_be_enumerated() {
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    config.more.push_str(
        "[[role]]\nname = \"unlisted\"\nbackend = \"keys\"\nowner = \"test\"\nttl = \"5m\"\n\
         ttl_max = \"1h\"\ntemplate = { scopes = [] }\n",
    );
    let everything = "action == Dayfly::Action::\"mint\", resource);";
    let listed =
        "action == Dayfly::Action::\"mint\", resource)\nwhen { resource.name != \"unlisted\" };";
    config.policies = config.policies.replacen(everything, listed, 1);
    assert!(config.policies.contains("unlisted"));
    let scene = Scene::with(config, None).await;
    let mut answers = Vec::new();
    for role in ["unlisted", "no-such-role", "", "../greeter", "greeter ", "GREETER"] {
        for ttl in ["", r#","ttl_seconds":0"#, r#","ttl_seconds":999999999"#] {
            let request = raw(&scene.owner, LEASES, format!(r#"{{"role":"{role}"{ttl}}}"#));
            let noted = [("decision.denied", "default-deny")];
            let answer = scene.refused(request, (403, "role_denied"), &noted).await;
            answers.push(answer.without_request_id());
        }
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    let roles = scene.owner.get("/api/v1/roles").await.unwrap().expect(200);
    let names: Vec<_> = roles.body["data"].as_array().unwrap().iter().map(|r| &r["name"]).collect();
    assert_eq!(names, ["greeter"], "{}", roles.text);
}

/// All or none: with one role denied, the others that were asked for die as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_with_one_denied_role_leaves_nothing() {
    let scene = scene().await;
    let token = scene.broker.issuer.token("all-or-none");
    let client = scene.broker.client().with(&token);
    let body = json!({ "purpose": "both", "ttl_seconds": 60, "roles": ["greeter", "forbidden"] });
    let answer = client.post(TASKS, body).await.problem(403, "role_denied");
    assert_eq!(answer.text("/errors/0/pointer"), "/roles/1");
    eventually("its task is closed and its keys are gone", Duration::from_secs(10), async || {
        let open = scene.admin.get("/api/v1/tasks?state=open").await.unwrap().expect(200);
        let open = open.body["data"].as_array().unwrap().len();
        // The scene's own task stays.
        (open == 1 && scene.broker.api_keys().await.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_out_of_range_is_refused() {
    let scene = scene_with_postgres().await;
    for role in ["greeter", "reader"] {
        for ttl in ["0", "-1", "3601", "9223372036854775807", "-9223372036854775808"] {
            let body = format!(r#"{{"role":"{role}","ttl_seconds":{ttl}}}"#);
            let noted = [("request.refused", "invalid_ttl")];
            let request = raw(&scene.owner, LEASES, body);
            let answer = scene.refused(request, (422, "invalid_ttl"), &noted).await;
            assert_eq!(answer.text("/errors/0/pointer"), "/ttl_seconds");
        }
    }
    let fresh = |subject| scene.broker.client().with(&scene.broker.issuer.token(subject));
    for ttl in ["0", "-1", "9223372036854775807"] {
        let body = format!(r#"{{"purpose":"p","ttl_seconds":{ttl},"roles":["greeter"]}}"#);
        let noted = [("request.refused", "invalid_ttl")];
        let answer =
            scene.refused(raw(&fresh("ttl"), TASKS, body), (422, "invalid_ttl"), &noted).await;
        assert_eq!(answer.text("/errors/0/pointer"), "/ttl_seconds");
    }
    let lease = scene.owner.mint("greeter").await.expect(201);
    delivered(&scene).await;
    let renew = format!("/api/v1/leases/{}/renew", lease.text("/id"));
    for ttl in ["0", "-1", "9223372036854775807"] {
        let request = raw(&scene.owner, &renew, format!(r#"{{"ttl_seconds":{ttl}}}"#));
        let noted = [("request.refused", "invalid_ttl")];
        scene.refused(request, (422, "invalid_ttl"), &noted).await;
    }
    let now = scene.owner.lease(&lease.text("/id")).await;
    assert_eq!(now.text("/expires_at"), lease.text("/expires_at"));
}

/// The mark of a delivery is written after the answer.
async fn delivered(scene: &Scene) {
    eventually("the delivery is noted", Duration::from_secs(5), async || {
        let records = scene.broker.audit().await;
        records.iter().any(|record| record["event"] == "lease.delivered").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_read_is_refused_without_its_text() {
    let scene = scene().await;
    let big = format!(r#"{{"role":"{}"}}"#, "hunter2".repeat(10_000));
    let invalid = (400, "invalid_body");
    let leases = [
        (r#"{"role":"greeter","password":"hunter2"}"#, invalid),
        (r#"{"role":"greeter","role":"hunter2"}"#, invalid),
        (r#"{"role":"hunter2""#, invalid),
        (r#"{"role":"greeter"} hunter2"#, invalid),
        (r#"{"role":"greeter","ttl_seconds":"hunter2"}"#, invalid),
        (r#"{"role":"greeter","ttl_seconds":1.5}"#, invalid),
        (r#"{"role":"greeter","ttl_seconds":99999999999999999999}"#, invalid),
        (r#"{"role":5}"#, invalid),
        (r#"{"role":null}"#, invalid),
        (r#"{"role":["hunter2"]}"#, invalid),
        (r#"["greeter",60]"#, invalid),
        ("role=hunter2", invalid),
        ("{}", invalid),
        ("", invalid),
        (big.as_str(), (413, "body_too_large")),
    ];
    for (body, expected) in leases {
        let request = raw(&scene.owner, LEASES, body);
        let answer = scene.refused(request, expected, &[("request.refused", expected.1)]).await;
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
        assert_ne!(answer.body["retryable"], true, "{}", answer.text);
    }
    let token = scene.broker.issuer.token("bodies");
    let client = scene.broker.client().with(&token);
    let tasks = [
        (r#"{"purpose":"p","ttl_seconds":60,"roles":["greeter"],"extra":"hunter2"}"#, invalid),
        (r#"{"purpose":"p","ttl_seconds":60,"roles":"hunter2"}"#, invalid),
        (r#"{"purpose":"p"}"#, invalid),
        (r#"{"ttl_seconds":60}"#, invalid),
    ];
    for (body, expected) in tasks {
        let request = raw(&client, TASKS, body);
        let answer = scene.refused(request, expected, &[("request.refused", expected.1)]).await;
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
    let complete = format!("/api/v1/tasks/{}/complete", scene.task);
    let request = raw(&scene.owner, &complete, r#"{"outcome":"hunter2"}"#);
    let answer = scene.refused(request, invalid, &[("request.refused", invalid.1)]).await;
    assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    // What was refused has not used the token up, and the task is as good as before.
    client.open_task().await;
    scene.owner.mint("greeter").await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_needs_a_purpose_and_few_roles() {
    let scene = scene().await;
    let client = scene.broker.client().with(&scene.broker.issuer.token("purposes"));
    let purposes = [String::new(), "  \t ".to_owned(), "p".repeat(257), "a\u{1b}[2Jb".to_owned()];
    for purpose in purposes {
        let body = json!({ "purpose": purpose, "ttl_seconds": 60, "roles": ["greeter"] });
        let request = raw(&client, TASKS, body.to_string());
        let noted = [("request.refused", "invalid_purpose")];
        scene.refused(request, (422, "invalid_purpose"), &noted).await;
    }
    let body = json!({ "purpose": "p", "ttl_seconds": 60, "roles": vec!["greeter"; 17] });
    let request = raw(&client, TASKS, body.to_string());
    let noted = [("request.refused", "too_many_roles")];
    scene.refused(request, (422, "too_many_roles"), &noted).await;
    client.open_task().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federated_token_mints_nothing_and_a_task_token_opens_nothing() {
    let scene = scene().await;
    let federated = scene.broker.client().with(&scene.broker.issuer.token("direct"));
    let request = raw(&federated, LEASES, r#"{"role":"greeter"}"#);
    scene.refused(request, (422, "task_token_needed"), &[]).await;
    let body = r#"{"purpose":"p","ttl_seconds":60,"roles":["greeter"]}"#;
    scene.refused(raw(&scene.owner, TASKS, body), (401, "unauthenticated"), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_not_understood_is_refused() {
    let scene = scene().await;
    let lease = scene.owner.mint("greeter").await.expect(201).text("/id");
    delivered(&scene).await;
    let (invalid, cursor) = ((400, "invalid_query"), (400, "invalid_cursor"));
    let lists = [
        ("leases?stat=active", invalid),
        ("leases?state=active&state=revoked", invalid),
        ("leases?state=alive", invalid),
        ("leases?limit=0", invalid),
        ("leases?limit=501", invalid),
        ("leases?limit=many", invalid),
        ("leases?task=tsk_none", invalid),
        ("leases?expires_before=tomorrow", invalid),
        ("leases?cursor=lse_none", cursor),
        ("tasks?stat=open", invalid),
        ("tasks?state=alive", invalid),
        ("tasks?limit=-1", invalid),
        ("tasks?cursor=1", cursor),
        ("audit?events=all", invalid),
        ("audit?lease=1", invalid),
        ("audit?limit=0", invalid),
        ("audit?cursor=1.2", cursor),
    ];
    for (path, expected) in lists {
        let request = scene.admin.request(Method::GET, &format!("/api/v1/{path}"));
        // Administrators' reads are noted before the query is looked at more closely.
        let answer = Client::send(request).await.unwrap();
        assert_eq!(answer.status, expected.0, "{path}: {}", answer.text);
        answer.problem(expected.0, expected.1);
    }
    for wait in ["wait=5", "wait=soon", "wait=-1s", "weight=5s", "wait="] {
        let path = format!("/api/v1/leases/{lease}/revoke?{wait}");
        scene.refused(raw(&scene.owner, &path, r#"{"reason":"r"}"#), invalid, &[]).await;
        let path = format!("/api/v1/tasks/{}/complete?{wait}", scene.task);
        let body = r#"{"outcome":"completed"}"#;
        scene.refused(raw(&scene.owner, &path, body), invalid, &[]).await;
    }
    assert_eq!(scene.owner.lease(&lease).await.text("/state"), "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_or_method_that_is_not_there_is_refused() {
    let scene = scene().await;
    let client = scene.broker.client();
    for path in ["/", "/api", "/api/v1", "/api/v1/nothing", "/api/v1/leases/", "/api/v2/leases"] {
        for client in [&client, &scene.owner] {
            let request = client.request(Method::GET, path);
            scene.refused(request, (404, "not_found"), &[]).await;
        }
    }
    for (method, path, allow) in [
        (Method::DELETE, "/api/v1/leases", &["GET", "POST"][..]),
        (Method::PUT, "/api/v1/tasks/tsk_none", &["GET"]),
        (Method::GET, "/api/v1/leases/lse_none/revoke", &["POST"]),
        (Method::POST, "/api/v1/audit", &["GET"]),
        (Method::POST, "/healthz", &["GET"]),
    ] {
        let request = scene.owner.request(method, path);
        let answer = scene.refused(request, (405, "method_not_allowed"), &[]).await;
        for method in allow {
            assert!(answer.header("allow").contains(method), "{path}: {:?}", answer.headers);
        }
    }
    // What cannot be an id names nothing, also when it is not even text.
    for id in ["lse_none", "1", "%ff", "%00", "lse_%2e%2e%2f", "'%20OR%201=1"] {
        let request = scene.owner.request(Method::GET, &format!("/api/v1/leases/{id}"));
        scene.refused(request, (404, "not_found"), &[]).await;
        let request = scene.owner.request(Method::GET, &format!("/api/v1/tasks/{id}"));
        scene.refused(request, (404, "not_found"), &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_introspection_that_makes_no_sense_is_refused() {
    let scene = scene().await;
    let path = "/oauth2/introspect";
    for body in ["", "key=k_1", "token=a&token=b"] {
        scene.refused(raw(&scene.owner, path, body), (400, "invalid_request"), &[]).await;
    }
    let big = format!("token={}", "x".repeat(70_000));
    let request = raw(&scene.owner, path, big);
    scene.refused(request, (413, "body_too_large"), &[("request.refused", "body_too_large")]).await;
}

/// A request id that could forge a line of a log is replaced, a harmless one is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_kept_only_if_it_is_harmless() {
    let scene = scene().await;
    let long = "x".repeat(65);
    for (given, kept) in [("build-17.retry_2", true), ("a b", false), ("{}", false), (&long, false)]
    {
        let request = raw(&scene.owner, LEASES, "{}").header("x-request-id", given);
        let noted = [("request.refused", "invalid_body")];
        let answer = scene.refused(request, (400, "invalid_body"), &noted).await;
        assert_eq!(answer.text("/request_id") == given, kept, "{given}: {}", answer.text);
    }
}

/// Whoever has any token of a large platform is somebody whom we know.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_callers_that_do_not_come_keep_nobody_out() {
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    config.more.push_str("[server.limits]\nconcurrency = 32\nrequest_timeout = \"5s\"\n");
    let scene = Scene::with(config, None).await;
    let token = scene.broker.issuer.token("somebody");
    let headers = format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n");
    let mut halves = Vec::new();
    for _ in 0..96 {
        halves.push(Half::post(scene.broker.port, TASKS, &headers).await);
    }
    let complete = format!("{TASKS}/{}/complete", scene.task);
    // Until their token is verified, they have places like anybody else.
    eventually("the task is completed", Duration::from_secs(3), async || {
        let answer = scene.owner.post(&complete, json!({ "outcome": "completed" })).await;
        (answer.status == 200).then_some(())
    })
    .await;
    // Some made room at once, the others had their time.
    for half in halves {
        assert_eq!(half.status().await, 503);
    }
}
