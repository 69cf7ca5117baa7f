//! A client that dies while its answer is on the way.

use std::{process::Stdio, time::Duration};

use dayfly_integration::{Broker, BrokerConfig, Postgres};
use serde_json::json;

use super::{all_dead, audit_holds, both_stores, prefixed, role_exists};

/// The lease dies because nobody took it, at once and not at its deadline: 20 s would pass
/// until that.
const AT_ONCE: Duration = Duration::from_secs(9);

#[tokio::test(flavor = "multi_thread")]
async fn a_client_killed_before_its_answer_leaves_an_undelivered_lease_that_dies() {
    let postgres = Postgres::start();
    let [sqlite, in_postgres] = both_stores(&postgres, "clients");
    tokio::join!(
        killed_client(&postgres, BrokerConfig::new(sqlite, Some(&postgres)), "s_"),
        killed_client(&postgres, BrokerConfig::new(in_postgres, Some(&postgres)), "p_"),
    );
}

async fn killed_client(postgres: &Postgres, config: BrokerConfig, prefix: &str) {
    let config = prefixed(config, prefix).failpoints("mint.after_backend=delay:3000");
    let broker = Broker::start(config).await;
    let workload = broker.client().with(&broker.issuer.token("job"));
    let body = json!({ "purpose": "test", "ttl_seconds": 600 });
    let token = workload.post("/api/v1/tasks", body).await.expect(201).text("/token");
    let mut curl = tokio::process::Command::new("curl")
        .args(["-sS", "--noproxy", "*", "-H", "content-type: application/json"])
        .args(["-H", &format!("authorization: Bearer {token}"), "-d", r#"{"role":"reader"}"#])
        .arg(format!("{}/api/v1/leases", broker.client().url()))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    role_exists(postgres, prefix).await;
    assert!(curl.try_wait().unwrap().is_none(), "the client still waits");
    curl.kill().await.unwrap();

    // The lease may not be dead before the mint went on to its end.
    let causes = all_dead(&broker, prefix, AT_ONCE).await;
    assert_eq!(causes, ["undelivered"]);
    assert_eq!(postgres.roles(prefix), Vec::<String>::new());
    audit_holds(&broker, prefix).await;
}
