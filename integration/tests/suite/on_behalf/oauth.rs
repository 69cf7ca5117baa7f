//! The same in OAuth's words: a client that knows nothing of the broker but its URL, and forms
//! that no good client sends.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use dayfly_integration::{Answer, Broker, Client, Half, Issuer, Postgres, Store, eventually, root};
use reqwest::Method;
use serde_json::{Value, json};

use super::{DEAD_WITHIN, ada, all_tasks, config, dead, open, person_in, records, state};
use crate::binding::{Holder, without_token};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const FORM: &str = "application/x-www-form-urlencoded";

/// A broker that knows its own URL.
async fn broker(store: Store, postgres: Option<&Postgres>) -> Broker {
    let mut broker = Broker::configure(config(store, postgres));
    broker.know_own_url();
    broker.resume().await;
    broker
}

async fn plain() -> Broker {
    broker(Store::Sqlite, None).await
}

/// What becomes of an exchange by a real client, of the token that it gets, and of its revocation.
fn client_does(broker: &Broker, parameters: &Value, dpop: bool) -> Value {
    let peers = root().join("integration/.peers");
    let module = peers.join("node_modules/oauth4webapi");
    assert!(module.exists(), "oauth4webapi is not installed; run integration/test once");
    let mut node = Command::new("node");
    node.arg(root().join("integration/peers/oauth-client.mjs")).arg(broker.client().url());
    node.env("PEERS", &peers).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = node.spawn().expect("node is installed (Debian: nodejs)");
    let wanted = json!({ "parameters": parameters, "dpop": dpop, "role": "greeter" });
    child.stdin.take().unwrap().write_all(wanted.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn delegation(person: &str, workload: &str) -> Value {
    json!({
        "subject_token": person, "subject_token_type": ID_TOKEN,
        "actor_token": workload, "actor_token_type": JWT,
    })
}

fn encoded(pairs: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| format!("{name}={}", value.replace(':', "%3A"));
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

async fn post(client: &Client, path: &str, body: String) -> Answer {
    let request = client.request(Method::POST, path).header("content-type", FORM);
    Client::send(request.body(body)).await.unwrap()
}

/// Has `workload` act for `person`.
pub(super) async fn exchange(broker: &Broker, workload: &str, person: &str) -> Answer {
    let form = encoded(&[
        ("grant_type", GRANT),
        ("subject_token", person),
        ("subject_token_type", ID_TOKEN),
        ("actor_token", workload),
        ("actor_token_type", JWT),
    ]);
    post(&broker.client(), "/oauth2/token", form).await
}

async fn revoke(broker: &Broker, token: &str) -> Answer {
    post(&broker.client(), "/oauth2/revoke", format!("token={token}")).await
}

/// Asserts that an answer is an error as RFC 6749 has it.
fn refused(answer: &Answer, status: u16, error: &str, name: &str) {
    let said = answer.body["error"].as_str().unwrap_or_default();
    assert_eq!((answer.status, said), (status, error), "{name}: {}", answer.text);
    assert!(answer.body["error_description"].is_string(), "{name}: {}", answer.text);
    assert!(answer.header("content-type").starts_with("application/json"), "{name}");
    assert_eq!(answer.header("cache-control"), "no-store", "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_shelf_finds_exchanges_uses_and_gives_back() {
    let postgres = Postgres::start();
    for (store, dpop) in [(Store::Sqlite, true), (Store::Postgres(postgres.url("dayfly")), false)] {
        let broker = broker(store, None).await;
        let parameters = delegation(&ada(&broker), &broker.issuer.token("job"));
        let done = client_does(&broker, &parameters, dpop);
        assert_eq!(done["revoked"], 200, "{done}");
        assert_eq!(done["cached"], "no-store", "{done}");
        let token = &done["token"];
        assert_eq!(token["token_type"], if dpop { "dpop" } else { "bearer" }, "{token}");
        assert_eq!(token["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
        assert_eq!(token["expires_in"], 900);
        assert_eq!(token["sub"], "people|ada@example.test");
        assert_eq!(token["act"], json!({ "sub": "ci|job" }));
        let lease = &done["lease"];
        assert_eq!(lease["principal"], "ci|job", "{lease}");
        assert_eq!(lease["on_behalf_of"]["principal"], "people|ada@example.test", "{lease}");

        let tasks = all_tasks(&broker).await;
        let [task] = tasks.as_slice() else { panic!("not one: {tasks:?}") };
        let leases = &task["leases"];
        assert_eq!((&leases["active"], &leases["revoked"]), (&json!(0), &json!(1)), "{task}");
        assert_eq!((&task["id"], &task["state"]), (&token["task"], &json!("completed")));
        let opened = records(&broker, "task.opened").await;
        assert_eq!(opened[0]["actor"], "ci|job");
        assert_eq!(opened[0]["detail"]["on_behalf_of"], "people|ada@example.test");
        let bound = if dpop { json!("key") } else { Value::Null };
        assert_eq!(opened[0]["detail"]["binding"], bound);
        assert_eq!(opened[0]["detail"]["purpose"], "token exchange");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_actor_the_subject_acts_for_itself() {
    let broker = plain().await;
    let own = broker.client().url().to_owned();
    let parameters = json!({
        "subject_token": broker.issuer.token("job"), "subject_token_type": JWT,
        "purpose": "a nightly run", "ttl_seconds": "60", "resource": own,
    });
    let done = client_does(&broker, &parameters, false);
    assert_eq!(done["revoked"], 200, "{done}");
    assert_eq!((&done["token"]["sub"], &done["token"]["act"]), (&json!("ci|job"), &Value::Null));
    assert_eq!(done["token"]["expires_in"], 60);
    let opened = records(&broker, "task.opened").await;
    assert_eq!(opened[0]["detail"]["purpose"], "a nightly run");
    assert!(opened[0]["detail"].get("on_behalf_of").is_none(), "{opened:?}");
    // A person by themselves is asked about as any caller is, and may not.
    let alone = json!({ "subject_token": ada(&broker), "subject_token_type": ID_TOKEN });
    let denied = client_does(&broker, &alone, false);
    assert_eq!(denied["refused"]["code"], "invalid_request", "{denied}");
    let said = denied["refused"]["description"].as_str().unwrap();
    assert!(said.starts_with("denied by `default-deny`"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_names_what_there_is() {
    let broker = plain().await;
    let path = "/.well-known/oauth-authorization-server";
    let answer = broker.client().get(path).await.unwrap().expect(200);
    assert_eq!(answer.header("cache-control"), "public, max-age=300");
    let own = broker.client().url().to_owned();
    let at = |path: &str| json!(format!("{own}{path}"));
    let algorithms =
        ["ES256", "ES384", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];
    let expected = json!({
        "issuer": own,
        "token_endpoint": at("/oauth2/token"),
        "revocation_endpoint": at("/oauth2/revoke"),
        "introspection_endpoint": at("/oauth2/introspect"),
        "response_types_supported": [],
        "grant_types_supported": [GRANT],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "dpop_signing_alg_values_supported": algorithms,
    });
    assert_eq!(answer.body, expected);
    // What a request calls the broker changes nothing of it.
    let request = broker.client().request(Method::GET, path).header("host", "evil.example");
    assert_eq!(Client::send(request).await.unwrap().expect(200).body, expected);
    let unknown = super::broker().await;
    let answer = unknown.client().get(path).await.unwrap().problem(404, "public_url_unset");
    assert!(answer.text("/detail").contains("`public_url`"), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_that_no_good_client_sends_get_nothing() {
    let broker = plain().await;
    let (person, job) = (ada(&broker), broker.issuer.token("job"));
    let other = broker.issuer.token("other");
    let nobody = person_in(&broker, "everyone", json!({}));
    let good = [
        ("grant_type", GRANT),
        ("subject_token", person.as_str()),
        ("subject_token_type", ID_TOKEN),
        ("actor_token", job.as_str()),
        ("actor_token_type", JWT),
    ];
    let with = |name: &str, value: &str| {
        let kept = good.iter().filter(|(known, _)| *known != name).copied();
        let pairs: Vec<_> = kept.chain([(name, value)]).collect();
        encoded(&pairs)
    };
    let twice =
        |name: &str, value: &str| format!("{}&{}", encoded(&good), encoded(&[(name, value)]));
    let cases = [
        ("another grant", with("grant_type", "client_credentials"), 400, "unsupported_grant_type"),
        ("no subject", with("subject_token", ""), 400, "invalid_request"),
        ("a subject twice", twice("subject_token", &nobody), 400, "invalid_request"),
        ("an actor twice", twice("actor_token", &other), 400, "invalid_request"),
        ("two audiences", twice("audience", "a") + "&audience=b", 400, "invalid_request"),
        ("a subject of an unknown type", with("subject_token_type", "jwt"), 400, "invalid_request"),
        ("an actor without a type", with("actor_token_type", ""), 400, "invalid_request"),
        ("another service", with("audience", "https://other.example"), 400, "invalid_target"),
        ("another resource", with("resource", "https://other.example"), 400, "invalid_target"),
        ("a scope", with("scope", "admin"), 400, "invalid_scope"),
        ("another kind of token", with("requested_token_type", JWT), 400, "invalid_request"),
        ("a client's secret", with("client_secret", "s"), 401, "invalid_client"),
        ("a task for too long", with("ttl_seconds", "99999999"), 400, "invalid_request"),
        ("a workload for a person", with("subject_token", &other), 400, "invalid_request"),
        ("a person for a workload", with("actor_token", &nobody), 400, "invalid_request"),
        ("who may not ask", with("subject_token", &nobody), 400, "invalid_request"),
        ("no token at all", with("actor_token", "x"), 400, "invalid_request"),
        ("a body that is too large", with("purpose", &"x".repeat(70_000)), 413, "invalid_request"),
    ];
    let client = broker.client();
    for (name, body, status, error) in cases {
        let answer = post(&client, "/oauth2/token", body).await;
        refused(&answer, status, error, name);
        assert!(!answer.text.contains(&person) && !answer.text.contains(&job), "{name}");
    }
    let json = client.request(Method::POST, "/oauth2/token").json(&json!({ "grant_type": GRANT }));
    refused(&Client::send(json).await.unwrap(), 400, "invalid_request", "a JSON body");
    let header = post(&client.with(&job), "/oauth2/token", encoded(&good)).await;
    refused(&header, 401, "invalid_client", "a token in the header");
    assert_eq!(header.header("www-authenticate"), "Basic");
    let request = client.request(Method::POST, "/oauth2/token").header("content-type", FORM);
    let proof = request.header("dpop", "x").body(encoded(&good));
    refused(&Client::send(proof).await.unwrap(), 400, "invalid_dpop_proof", "a proof that is none");
    assert_eq!(all_tasks(&broker).await, Vec::<Value>::new());
    // None of it used the tokens up.
    post(&client, "/oauth2/token", encoded(&good)).await.expect(200);
    let again = post(&client, "/oauth2/token", encoded(&good)).await;
    refused(&again, 400, "invalid_request", "the workload's token once more");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_that_do_not_come_keep_nobody_out() {
    let mut config = config(Store::Sqlite, None);
    config.more.push_str("[server.limits]\nconcurrency = 32\n");
    let broker = Broker::start(config).await;
    for path in ["/oauth2/token", "/oauth2/revoke"] {
        let (task, owner) = open(&broker).await;
        let header = format!("content-type: {FORM}\r\n");
        let mut halves = Vec::new();
        for _ in 0..96 {
            halves.push(Half::post(broker.port, path, &header).await);
        }
        let complete = format!("/api/v1/tasks/{task}/complete");
        owner.post(&complete, json!({ "outcome": "completed" })).await.expect(200);
        let given = exchange(&broker, &broker.issuer.token("job"), &ada(&broker)).await.expect(200);
        revoke(&broker, &given.text("/access_token")).await.expect(200);
        // Some made room at once, the others had their time.
        for half in halves {
            assert_eq!(half.status().await, 503, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_token_is_not_told_to_strangers() {
    let broker = plain().await;
    let (person, job) = (ada(&broker), broker.issuer.token("job"));
    let exchange = |subject: &str, actor: &str| {
        encoded(&[
            ("grant_type", GRANT),
            ("subject_token", subject),
            ("subject_token_type", JWT),
            ("actor_token", actor),
            ("actor_token_type", JWT),
        ])
    };
    let now = Issuer::now();
    let times = json!({ "iat": now - 900, "nbf": now - 900, "exp": now - 600 });
    let expired = broker.issuer.token_with("job", times);
    let elsewhere = broker.issuer.token_with("job", json!({ "aud": "https://other" }));
    let workload = broker.issuer.token("other");
    let mut answers = Vec::new();
    for (subject, actor) in [
        (person.as_str(), "x"),
        (person.as_str(), expired.as_str()),
        (person.as_str(), elsewhere.as_str()),
        ("x", job.as_str()),
        (workload.as_str(), job.as_str()),
    ] {
        let answer = post(&broker.client(), "/oauth2/token", exchange(subject, actor)).await;
        refused(&answer, 400, "invalid_request", "a token that is no good");
        answers.push(answer.body);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    let refusals = records(&broker, "identity.refused").await;
    let code = |record: &Value| record["detail"]["code"].as_str().unwrap().to_owned();
    let codes: Vec<String> = refusals.iter().map(code).collect();
    let expected = ["malformed", "expired", "wrong_audience", "malformed", "not_a_person"];
    assert_eq!(codes, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_is_dead_and_giving_it_back_again_is_no_error() {
    let broker = plain().await;
    let opened = broker.client().with(&broker.issuer.token("job"));
    let body = json!({ "purpose": "test", "ttl_seconds": 600, "roles": ["greeter"] });
    let opened = opened.post("/api/v1/tasks", body).await.expect(201);
    let (task, token) = (opened.text("/id"), opened.text("/token"));
    let owner = broker.client().with(&token);
    let second = owner.mint("greeter").await.expect(201);
    // One of its keys: the task goes on.
    let first = opened.text("/leases/0/id");
    revoke(&broker, &opened.text("/leases/0/credential/key")).await.expect(200);
    assert_eq!(dead(&owner, &first).await, "requested");
    assert_eq!(owner.lease(&second.text("/id")).await.text("/state"), "active");
    let ended = records(&broker, "lease.revoking").await;
    assert_eq!(ended[0]["actor"], "holder", "{ended:?}");

    for hint in ["", "&token_type_hint=access_token", "&token_type_hint=nonsense"] {
        let answer = revoke(&broker, &format!("{token}{hint}")).await.expect(200);
        assert_eq!((answer.text.as_str(), answer.header("cache-control")), ("", "no-store"));
        assert_eq!(state(&owner, &task).await, "completed");
        assert_eq!(broker.api_keys().await, Vec::<String>::new());
    }
    assert_eq!(dead(&owner, &second.text("/id")).await, "task_completed");
    owner.mint("greeter").await.problem(409, "task_closed");

    // What nobody knows, or nobody here gave, is worth nothing here.
    let identity = broker.issuer.token("job");
    for unknown in ["dft_unknown", "k_unknown", "x", identity.as_str()] {
        revoke(&broker, unknown).await.expect(200);
    }
    broker.client().with(&identity).open_task().await;
    let nothing = post(&broker.client(), "/oauth2/revoke", String::new()).await;
    refused(&nothing, 400, "invalid_request", "no token");
    let two = post(&broker.client(), "/oauth2/revoke", "token=a&token=b".to_owned()).await;
    refused(&two, 400, "invalid_request", "two tokens");
    let header = post(&broker.client().with(&token), "/oauth2/revoke", "token=a".to_owned()).await;
    refused(&header, 401, "invalid_client", "a token in the header");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_token_is_given_back_by_its_holder_alone() {
    let broker = plain().await;
    let (client, holder) = (broker.client(), Holder::new());
    let (task, token) = holder.open(&client, &broker.issuer.token("job")).await;
    let url = format!("{}/oauth2/revoke", client.url());
    let give = async |proof: Option<String>| {
        let request = client.request(Method::POST, "/oauth2/revoke").header("content-type", FORM);
        let request = match proof {
            Some(proof) => request.header("dpop", proof),
            None => request,
        };
        Client::send(request.body(format!("token={token}"))).await.unwrap()
    };
    let own = without_token(&holder, &url);
    let elsewhere = without_token(&holder, &format!("{}/oauth2/token", client.url()));
    for (name, proof, error) in [
        ("no proof", None, "invalid_request"),
        ("a thief's key", Some(without_token(&Holder::new(), &url)), "invalid_request"),
        ("a proof for another place", Some(elsewhere), "invalid_dpop_proof"),
        ("no proof at all", Some("x".to_owned()), "invalid_dpop_proof"),
    ] {
        refused(&give(proof).await, 400, error, name);
        let admin = client.with(&broker.admin());
        assert_eq!(state(&admin, &task).await, "open", "{name}");
    }
    give(Some(own.clone())).await.expect(200);
    assert_eq!(state(&client.with(&broker.admin()), &task).await, "completed");
    refused(&give(Some(own)).await, 400, "invalid_dpop_proof", "the same proof once more");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_back_now_is_not_called_taken_back() {
    let postgres = Postgres::start();
    let broker = broker(Store::Sqlite, Some(&postgres)).await;
    let opened = broker.client().with(&broker.issuer.token("job"));
    let body = json!({ "purpose": "test", "ttl_seconds": 600, "roles": ["reader"] });
    let opened = opened.post("/api/v1/tasks", body).await.expect(201);
    let url = opened.text("/leases/0/credential/url");
    assert!(postgres.lets_in(&url));
    postgres.crash();
    let owed = revoke(&broker, &opened.text("/token")).await;
    refused(&owed, 503, "temporarily_unavailable", "a backend that is down");
    assert!(owed.retry_after.is_some(), "{owed:?}");
    postgres.resume();
    eventually("it is taken back", DEAD_WITHIN * 2, async || {
        let answer = revoke(&broker, &opened.text("/token")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert!(!postgres.lets_in(&url));
}
