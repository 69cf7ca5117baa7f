//! Quotas: the same for all replicas together, and said when they have no room.

use dayfly_integration::{Broker, BrokerConfig, Postgres, Store};
use futures_util::future::join_all;

const ROLES: &str = r#"
[[role]]
name = "few"
backend = "keys"
owner = "test"
ttl = "5m"
ttl_max = "1h"
quotas = { leases = 5, leases_per_principal = 3 }
template = { scopes = [] }

[[role]]
name = "slow"
backend = "keys"
owner = "test"
ttl = "5m"
ttl_max = "1h"
quotas = { mints_per_minute = 2 }
template = { scopes = [] }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn replicas_together_exceed_no_quota() {
    let postgres = Postgres::start();
    let mut config = BrokerConfig::new(Store::Postgres(postgres.url("dayfly")), None);
    config.more.push_str(ROLES);
    let one = Broker::start(config).await;
    let two = one.replica().await;
    let url = two.client().url().to_owned();
    let open = async |subject: &str| {
        let (_, owner) = one.client().with(&one.issuer.token(subject)).open_task().await;
        [owner.clone(), owner.at(&url)]
    };
    let ask = async |owners: &[dayfly_integration::Client; 2], role: &str| {
        let asked = (0..8).map(|number| owners[number % 2].mint(role));
        let (minted, refused): (Vec<_>, Vec<_>) =
            join_all(asked).await.into_iter().partition(|answer| answer.status == 201);
        for answer in &refused {
            let problem = answer.clone().problem(429, "quota_exceeded");
            let after: u32 = problem.retry_after.as_deref().unwrap().parse().unwrap();
            assert!((1..=61).contains(&after), "{after}");
        }
        let detail = refused.first().map(|answer| answer.text("/detail")).unwrap_or_default();
        (minted, detail)
    };
    let (ada, bob) = (open("ada").await, open("bob").await);
    let (minted, detail) = ask(&ada, "few").await;
    assert_eq!(minted.len(), 3);
    assert_eq!(detail, "this principal has its quota of 3 leases of this role");
    let (of_bob, detail) = ask(&bob, "few").await;
    assert_eq!(of_bob.len(), 2);
    assert_eq!(detail, "this role has its quota of 5 leases");
    // What is dead makes room.
    let id = minted[0].text("/id");
    let path = format!("/api/v1/leases/{id}/revoke?wait=10s");
    let revoked = ada[0].post(&path, serde_json::json!({ "reason": "enough" })).await;
    revoked.expect(200);
    bob[1].mint("few").await.expect(201);
    bob[0].mint("few").await.problem(429, "quota_exceeded");

    let (minted, detail) = ask(&bob, "slow").await;
    assert_eq!(minted.len(), 2);
    assert_eq!(detail, "this role has its quota of 2 leases a minute");
    let refused = one.audit().await.into_iter().filter(|record| {
        record.pointer("/detail/code").and_then(serde_json::Value::as_str) == Some("quota_exceeded")
    });
    assert!(refused.count() >= 12, "each refusal is on record");
}
