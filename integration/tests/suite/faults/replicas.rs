//! Two replicas on one PostgreSQL store: what one minted, the other ends.

use std::time::Duration;

use dayfly_integration::{Broker, BrokerConfig, Postgres, Store, eventually};
use serde_json::json;

use super::{audit_holds, open_task};

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_ends_what_the_other_minted_also_after_that_was_killed() {
    let postgres = Postgres::start();
    let config = BrokerConfig::new(Store::Postgres(postgres.url("dayfly")), Some(&postgres));
    let mut one = Broker::start(config).await;
    let two = one.replica().await;

    // While both are alive: whichever of them revokes, the answer waits for the death.
    let (task, owner) = open_task(&one).await;
    let url = owner.mint("reader").await.expect(201).text("/credential/url");
    assert!(postgres.lets_in(&url));
    let owner_at_two = owner.at(two.client().url());
    let done = owner_at_two.complete(&task, "15s").await.expect(200);
    assert_eq!(done.text("/state"), "completed");
    assert!(!postgres.lets_in(&url), "a login after completion at the other replica");

    // By time and by completion after the replica that minted was killed.
    let (_, owner) = open_task(&one).await;
    let body = json!({ "role": "reader", "ttl_seconds": 4 });
    let expiring = owner.post("/api/v1/leases", body).await.expect(201);
    let (task, keeper) = open_task(&one).await;
    let kept = keeper.mint("reader").await.expect(201).text("/credential/url");
    one.kill();
    assert!(postgres.lets_in(&kept), "a crash ends nothing that may live");

    let owner_at_two = owner.at(two.client().url());
    let id = expiring.text("/id");
    let cause = eventually("the lease expires on time", Duration::from_secs(7), async || {
        let lease = owner_at_two.lease(&id).await.expect(200);
        (lease.text("/state") == "revoked").then(|| lease.text("/cause"))
    })
    .await;
    assert_eq!(cause, "expired");
    assert!(!postgres.lets_in(&expiring.text("/credential/url")));

    let done = keeper.at(two.client().url()).complete(&task, "15s").await.expect(200);
    assert_eq!(
        (done.text("/state"), &done.body["leases"]["revoked"]),
        ("completed".into(), &json!(1))
    );
    assert!(!postgres.lets_in(&kept));
    assert_eq!(postgres.roles("df_"), Vec::<String>::new());
    // The killed replica's chain verifies as well.
    one.resume().await;
    audit_holds(&one, "two replicas").await;
}
