//! Every route as nobody and as the wrong principal.
//!
//! Invariant: a route that this list does not know makes it fail, so that none is added
//! without somebody having thought about who may call it.

use std::{collections::BTreeSet, fmt::Write as _};

use dayfly_integration::{Answer, Broker, BrokerConfig, Client, Issuer, Store, root};
use reqwest::Method;
use serde_json::{Value, json};

/// What somebody else's task token gets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    /// 404, as if it were not there.
    Hidden,
    /// 200, and nothing of the owner's.
    Own,
    /// 403.
    Forbidden,
    /// 403, also for the right workload: it takes a person.
    ForPeople,
    /// 401: a task token is no identity here, or no secret.
    Refused,
    /// 201: it is for the caller's own task.
    OwnMint,
    /// 401 in OAuth's words: who asks is said by the tokens in the form, and by no header.
    InForm,
    /// Nobody is asked who he is.
    Public,
}

const IDENTITY: &str = r#"{"issuer":"ci","subject":"job","reason":"mine"}"#;

/// All routes: method, path, what a stranger may send, what somebody else gets.
const ROUTES: &[(&str, &str, &str, Wrong)] = &[
    ("get", "/.well-known/jwks.json", "", Wrong::Public),
    ("get", "/.well-known/oauth-authorization-server", "", Wrong::Public),
    ("get", "/api/v1/audit", "", Wrong::Forbidden),
    ("post", "/api/v1/backends/{name}/rotate", "", Wrong::Forbidden),
    ("post", "/api/v1/identities/disable", IDENTITY, Wrong::Forbidden),
    ("get", "/api/v1/identities/disabled", "", Wrong::Forbidden),
    ("post", "/api/v1/identities/enable", IDENTITY, Wrong::ForPeople),
    ("get", "/api/v1/leases", "", Wrong::Own),
    ("post", "/api/v1/leases", r#"{"role":"greeter"}"#, Wrong::OwnMint),
    ("get", "/api/v1/leases/{id}", "", Wrong::Hidden),
    ("post", "/api/v1/leases/{id}/abandon", r#"{"reason":"mine"}"#, Wrong::Hidden),
    ("post", "/api/v1/leases/{id}/renew", r#"{"ttl_seconds":60}"#, Wrong::Hidden),
    ("post", "/api/v1/leases/{id}/revoke", r#"{"reason":"mine"}"#, Wrong::Hidden),
    ("get", "/api/v1/login", "", Wrong::Public),
    ("get", "/api/v1/roles", "", Wrong::Own),
    ("post", "/api/v1/roles/{name}/check", "{}", Wrong::Own),
    ("post", "/api/v1/ssf/{name}", "x.y.z", Wrong::Refused),
    ("get", "/api/v1/standing", "", Wrong::Forbidden),
    ("post", "/api/v1/standing/release", "", Wrong::ForPeople),
    ("get", "/api/v1/tasks", "", Wrong::Own),
    ("post", "/api/v1/tasks", r#"{"purpose":"p","ttl_seconds":60}"#, Wrong::Refused),
    ("get", "/api/v1/tasks/{id}", "", Wrong::Hidden),
    ("post", "/api/v1/tasks/{id}/complete", r#"{"outcome":"completed"}"#, Wrong::Hidden),
    ("post", "/api/v1/tasks/{id}/heartbeat", "", Wrong::Hidden),
    ("post", "/api/v1/webhooks/{name}", "{}", Wrong::Refused),
    ("get", "/api/v1/whoami", "", Wrong::Own),
    ("get", "/healthz", "", Wrong::Public),
    ("get", "/metrics", "", Wrong::Public),
    ("post", "/oauth2/introspect", "token=k_unknown", Wrong::Own),
    ("post", "/oauth2/revoke", "token=k_unknown", Wrong::InForm),
    ("post", "/oauth2/token", "grant_type=password", Wrong::InForm),
    ("get", "/openapi.json", "", Wrong::Public),
    ("get", "/readyz", "", Wrong::Public),
    ("get", "/verify", "", Wrong::Refused),
];

/// The document does not list itself.
const UNDOCUMENTED: (&str, &str) = ("get", "/openapi.json");

fn expected() -> BTreeSet<(String, String)> {
    ROUTES.iter().map(|(method, path, ..)| ((*method).into(), (*path).into())).collect()
}

/// The routes as the program registers them, read from its source.
fn registered() -> BTreeSet<(String, String)> {
    let source = std::fs::read_to_string(root().join("src/server/src/http.rs")).unwrap();
    let mut routes = BTreeSet::new();
    for registration in source.split(".route(\"").skip(1) {
        let (path, rest) = registration.split_once('"').unwrap();
        for method in ["get", "post", "put", "patch", "delete", "any", "head", "options"] {
            if rest.contains(&format!("{method}(")) {
                routes.insert((method.to_owned(), path.to_owned()));
            }
        }
    }
    routes
}

fn documented(document: &Value) -> BTreeSet<(String, String)> {
    let mut routes = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            routes.insert((method.clone(), path.clone()));
        }
    }
    routes
}

/// A subject that no text of ours has in it by chance.
const OWNER: &str = "job-4c1f9a";

async fn broker() -> Broker {
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    write!(config.more, "[login]\nissuer = \"people\"\nclient_id = \"{}\"\n", Issuer::AUDIENCE)
        .unwrap();
    let mut broker = Broker::configure(config);
    broker.know_own_url();
    broker.resume().await;
    broker
}

async fn call(client: &Client, (method, path, body, _): (&str, &str, &str, Wrong)) -> Answer {
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    let form = path.starts_with("/oauth2/");
    let kind = if form { "application/x-www-form-urlencoded" } else { "application/json" };
    let request = client.request(method, path).header("content-type", kind);
    let request = if body.is_empty() { request } else { request.body(body.to_owned()) };
    Client::send(request).await.unwrap_or_else(|| panic!("no answer at {path}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_the_document_and_this_list_name_the_same_routes() {
    let broker = broker().await;
    assert_eq!(registered(), expected(), "src/server/src/http.rs");
    let document = broker.client().get("/openapi.json").await.unwrap().expect(200);
    let mut documented = documented(&document.body);
    let (method, path) = UNDOCUMENTED;
    assert!(documented.insert((method.into(), path.into())), "the document lists itself now");
    assert_eq!(documented, expected(), "/openapi.json");
    // And the program itself: a method that is not on the list is not there.
    let paths: BTreeSet<&str> = ROUTES.iter().map(|(_, path, ..)| *path).collect();
    for path in paths {
        for method in ["get", "post", "put", "patch", "delete"] {
            let known = expected().contains(&(method.to_owned(), path.to_owned()));
            let answer = call(&broker.client(), (method, path, "", Wrong::Public)).await;
            assert_eq!(answer.status != 405, known, "{method} {path}: {}", answer.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_nothing_but_what_is_public() {
    let broker = broker().await;
    let (task, owner) = broker.client().with(&broker.issuer.token(OWNER)).open_task().await;
    let lease = owner.mint("greeter").await.expect(201);
    let before = broker.audit().await.len();
    let mut refusals = BTreeSet::new();
    for route in ROUTES {
        let path = named(route.1, &task, &lease.text("/id"));
        let answer = call(&broker.client(), (route.0, &path, route.2, route.3)).await;
        if route.3 == Wrong::Public {
            assert_eq!(answer.status, 200, "{path}: {}", answer.text);
            assert!(!answer.text.contains(&task) && !answer.text.contains(OWNER), "{path}");
        } else if route.3 == Wrong::InForm {
            // A token that nobody knows is as good as taken back, and no other kind is given.
            let expected = if route.2.starts_with("token=") { 200 } else { 400 };
            assert_eq!(answer.status, expected, "{path}: {}", answer.text);
            assert!(!answer.text.contains(&task) && !answer.text.contains(OWNER), "{path}");
        } else {
            let answer = answer.problem(401, "unauthenticated");
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{path}");
            refusals.insert(answer.without_request_id().to_string());
        }
    }
    assert_eq!(refusals.len(), 1, "one text for all: {refusals:?}");
    assert_eq!(owner.lease(&lease.text("/id")).await.text("/state"), "active");
    let records = broker.audit().await.split_off(before);
    assert!(records.iter().all(|r| r["event"] == "lease.delivered"), "{records:?}");
}

fn named(path: &str, task: &str, lease: &str) -> String {
    path.replace("{id}", if path.contains("/tasks/") { task } else { lease })
}

#[tokio::test(flavor = "multi_thread")]
async fn another_workload_sees_and_changes_nothing_of_it() {
    let broker = broker().await;
    let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let lease = owner.mint("greeter").await.expect(201);
    let id = lease.text("/id");
    let (_, other) = broker.client().with(&broker.issuer.token("other")).open_task().await;
    let federated = broker.client().with(&broker.issuer.token("third"));
    for route in ROUTES {
        let path = named(route.1, &task, &id);
        let answer = call(&other, (route.0, &path, route.2, route.3)).await;
        match route.3 {
            Wrong::Hidden => {
                let none = path.replace(&task, "tsk_none").replace(&id, "lse_none");
                let none = call(&other, (route.0, &none, route.2, route.3)).await;
                let none = none.problem(404, "not_found");
                let answer = answer.problem(404, "not_found");
                assert_eq!(answer.without_request_id(), none.without_request_id(), "{path}");
                let answer = call(&federated, (route.0, &path, route.2, route.3)).await;
                answer.problem(404, "not_found");
            }
            Wrong::Own | Wrong::OwnMint | Wrong::Public => {
                assert!(answer.status < 300, "{path}: {}", answer.text);
                for secret in [&task, &id, &lease.text("/handle"), "|job\""] {
                    assert!(!answer.text.contains(secret), "{path}: {}", answer.text);
                }
            }
            Wrong::Forbidden => {
                let answer = answer.problem(403, "denied");
                assert_eq!(answer.text("/denied_by"), "base/task-token-is-for-its-task");
                let answer = call(&federated, (route.0, &path, route.2, route.3)).await;
                let answer = answer.problem(403, "denied");
                assert_eq!(answer.text("/denied_by"), "default-deny");
            }
            Wrong::ForPeople => {
                for answer in [answer, call(&federated, (route.0, &path, route.2, route.3)).await] {
                    let answer = answer.problem(403, "denied");
                    assert_eq!(answer.text("/denied_by"), "base/only-people-in-person");
                }
            }
            Wrong::InForm => {
                assert_eq!(answer.expect(401).text("/error"), "invalid_client", "{path}");
            }
            Wrong::Refused => {
                answer.problem(401, "unauthenticated");
            }
        }
    }
    let asked = format!("/api/v1/leases?task={task}");
    let listed = federated.get(&asked).await.unwrap().expect(200);
    assert_eq!(listed.body["data"], json!([]), "{}", listed.text);
    let asked = "/api/v1/tasks?principal=ci|job";
    let listed = federated.get(asked).await.unwrap().expect(200);
    assert_eq!(listed.body["data"], json!([]), "{}", listed.text);
    assert_eq!(owner.lease(&id).await.text("/state"), "active");
    assert_eq!(owner.lease(&id).await.text("/expires_at"), lease.text("/expires_at"));
}

/// What an administrator may is what the rules say, and no more: he ends no task and mints
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_may_what_the_rules_name_and_no_more() {
    let broker = broker().await;
    let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let lease = owner.mint("greeter").await.expect(201).text("/id");
    let admin = broker.client().with(&broker.admin());
    for path in [format!("tasks/{task}"), format!("leases/{lease}"), "audit".to_owned()] {
        admin.get(&format!("/api/v1/{path}")).await.unwrap().expect(200);
    }
    admin.complete(&task, "1s").await.problem(404, "not_found");
    let body = json!({ "purpose": "p", "ttl_seconds": 60 });
    admin.post("/api/v1/tasks", body).await.problem(403, "denied");
    admin.mint("greeter").await.problem(422, "task_token_needed");
    let renew = format!("/api/v1/leases/{lease}/renew");
    admin.post(&renew, json!({ "ttl_seconds": 60 })).await.problem(404, "not_found");
    assert_eq!(owner.lease(&lease).await.text("/state"), "active");
}
