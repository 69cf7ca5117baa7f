//! `Idempotency-Key`: at most one live credential per key and task.

use std::time::Duration;

use dayfly_integration::{Answer, BrokerConfig, Client, Store, eventually};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use super::{Scene, scene};

fn minting(client: &Client, key: &str, ttl: u32) -> RequestBuilder {
    let request = client.request(Method::POST, "/api/v1/leases").header("idempotency-key", key);
    request.json(&json!({ "role": "greeter", "ttl_seconds": ttl }))
}

async fn mint(client: &Client, key: &str, ttl: u32) -> Answer {
    Client::send(minting(client, key, ttl)).await.expect("an answer")
}

async fn works(scene: &Scene, lease: &Answer) -> bool {
    let key = scene.broker.client().with(&lease.text("/credential/key"));
    key.get("/verify").await.unwrap().status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_while_the_first_is_in_flight_is_a_conflict() {
    let config = BrokerConfig::new(Store::Sqlite, None).failpoints("mint.after_intent=delay:1500");
    let scene = Scene::with(config, None).await;
    let first = mint(&scene.owner, "deploy", 60);
    let second = async {
        eventually("the intent is there", Duration::from_secs(5), async || {
            (!scene.minted().await.leases.is_empty()).then_some(())
        })
        .await;
        mint(&scene.owner, "deploy", 60).await
    };
    let (first, second) = tokio::join!(first, second);
    second.problem(409, "idempotency_in_progress");
    let first = first.expect(201);
    assert_eq!(scene.minted().await.leases, [first.text("/id")]);
    assert!(works(&scene, &first).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_request_under_the_same_key_mints_nothing() {
    let scene = scene().await;
    let first = mint(&scene.owner, "deploy", 60).await.expect(201);
    let before = scene.minted().await;
    mint(&scene.owner, "deploy", 61).await.problem(422, "idempotency_key_reused");
    assert_eq!(scene.minted().await, before);
    assert!(works(&scene, &first).await, "the first lives on");
    assert_eq!(scene.owner.lease(&first.text("/id")).await.text("/state"), "active");
}

/// A secret is never shown twice: the repeat gets a new one, and the old one dies.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_after_the_answer_supersedes_the_first() {
    let scene = scene().await;
    let first = mint(&scene.owner, "deploy", 60).await.expect(201);
    let second = mint(&scene.owner, "deploy", 60).await.expect(201);
    assert_ne!(first.text("/id"), second.text("/id"));
    assert_ne!(first.text("/credential/key"), second.text("/credential/key"));
    let old = eventually("the first is dead", Duration::from_secs(10), async || {
        let lease = scene.owner.lease(&first.text("/id")).await.expect(200);
        (lease.text("/state") == "revoked").then_some(lease)
    })
    .await;
    assert_eq!(old.text("/cause"), "superseded");
    assert!(!works(&scene, &first).await);
    assert!(works(&scene, &second).await);
    let third = mint(&scene.owner, "deploy", 60).await.expect(201);
    assert!(works(&scene, &third).await);
    eventually("one key is left", Duration::from_secs(10), async || {
        (scene.broker.api_keys().await.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_one_task() {
    let scene = scene().await;
    let other = scene.broker.client().with(&scene.broker.issuer.token("other"));
    let (_, other) = other.open_task().await;
    let mine = mint(&scene.owner, "deploy", 60).await.expect(201);
    let theirs = mint(&other, "deploy", 90).await.expect(201);
    assert!(works(&scene, &mine).await && works(&scene, &theirs).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_none_is_refused() {
    let scene = scene().await;
    for key in [String::new(), "x".repeat(256)] {
        let request = minting(&scene.owner, &key, 60);
        scene.refused(request, (400, "invalid_idempotency_key"), &[]).await;
    }
}
