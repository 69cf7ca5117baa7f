//! SIGTERM: what is under way ends well, and the process with it.

use std::time::Duration;

use dayfly_integration::{Broker, BrokerConfig, Postgres};

use super::{both_stores, ended, open_task, prefixed, role_exists};

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_under_way_is_finished_before_the_broker_stops() {
    let postgres = Postgres::start();
    let [sqlite, in_postgres] = both_stores(&postgres, "shutdown");
    tokio::join!(
        stopped_under_a_mint(&postgres, BrokerConfig::new(sqlite, Some(&postgres)), "s_"),
        stopped_under_a_mint(&postgres, BrokerConfig::new(in_postgres, Some(&postgres)), "p_"),
    );
}

async fn stopped_under_a_mint(postgres: &Postgres, config: BrokerConfig, prefix: &str) {
    let config = prefixed(config, prefix).failpoints("mint.after_backend=delay:2000");
    let mut broker = Broker::start(config).await;
    let (task, owner) = open_task(&broker).await;
    let stopping = async {
        role_exists(postgres, prefix).await;
        broker.signal("TERM");
    };
    let (minted, ()) = tokio::join!(owner.mint("reader"), stopping);
    let minted = minted.expect(201);
    let status = ended(&mut broker, prefix, Duration::from_secs(25)).await;
    assert_eq!(status.code(), Some(0), "{status}");
    let url = minted.text("/credential/url");
    assert!(postgres.lets_in(&url), "what was handed over works");

    // That it was handed over is on record, so it is not taken back later.
    broker.disarm();
    broker.resume().await;
    let admin = broker.client().with(&broker.admin());
    let delivered = format!("/api/v1/audit?event=lease.delivered&lease={}", minted.text("/id"));
    let delivered = admin.get(&delivered).await.unwrap().expect(200);
    assert_eq!(delivered.body["data"].as_array().unwrap().len(), 1, "{}", delivered.text);
    owner.complete(&task, "15s").await.expect(200);
    assert!(!postgres.lets_in(&url));
    assert_eq!(postgres.roles(prefix), Vec::<String>::new());
}
