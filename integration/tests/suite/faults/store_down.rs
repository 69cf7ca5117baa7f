//! A store that is down: nothing is minted, nothing is lost, and it mends by itself.

use std::time::Duration;

use dayfly_integration::{Answer, Broker, BrokerConfig, Postgres, Store, Wire, eventually};
use serde_json::json;
use tokio::task::JoinSet;

use super::{all_dead, audit_holds, open_task, role_exists};

/// A request that needs the store is refused within this.
const REFUSED_WITHIN: Duration = Duration::from_secs(15);
/// After the store is back, everything works again within this.
const MENDED_WITHIN: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_refuses_everything_and_the_broker_mends_by_itself() {
    let backend = Postgres::start();
    let store = Postgres::start();
    // Whatever is committed asynchronously is lost in the crash, and that alone is no reason to
    // suspend minting.
    store.sql("postgres", "ALTER SYSTEM SET wal_writer_delay = '10s'");
    store.sql("postgres", "SELECT pg_reload_conf()");
    let config = BrokerConfig::new(by_tcp(&store, store.port), Some(&backend));
    let broker = Broker::start(config).await;
    let (task, owner) = open_task(&broker).await;
    let body = json!({ "role": "reader", "ttl_seconds": 5 });
    let expiring = owner.post("/api/v1/leases", body).await.expect(201);
    let handle = expiring.text("/credential/username");

    store.crash();
    let client = broker.client();
    let refused = async {
        tokio::join!(
            client.get("/readyz"),
            owner.mint("reader"),
            owner.mint("greeter"),
            owner.complete(&task, "1s")
        )
    };
    let refused = tokio::time::timeout(REFUSED_WITHIN, refused).await;
    let (ready, reader, greeter, completion) = refused.expect("refusals do not hang");
    for answer in [&ready.unwrap(), &reader, &greeter, &completion] {
        assert_unavailable(answer);
    }
    client.get("/healthz").await.unwrap().expect(200);
    many_are_refused_at_once(&broker).await;
    assert!(backend.roles("df_").iter().all(|role| *role == handle), "nothing was minted");

    store.resume();
    eventually("the broker is ready again", MENDED_WITHIN, async || {
        broker.client().get("/readyz").await.filter(|ready| ready.status == 200)
    })
    .await;
    let minted = eventually("it mints again", MENDED_WITHIN, async || {
        Some(owner.mint("reader").await).filter(|minted| minted.status == 201)
    })
    .await;
    assert!(backend.lets_in(&minted.text("/credential/url")));
    // What had its time while nobody could record a death is dead soon after.
    eventually("the lease that was due is dead", MENDED_WITHIN, async || {
        let lease = owner.lease(&expiring.text("/id")).await;
        (lease.body["state"] == "revoked").then_some(())
    })
    .await;
    assert!(!backend.roles("df_").contains(&handle));
    owner.complete(&task, "15s").await.expect(200);
    assert_eq!(backend.roles("df_"), Vec::<String>::new());
    audit_holds(&broker, "store down").await;
}

/// A store as another machine reaches it: by TCP, on this port.
fn by_tcp(server: &Postgres, port: u16) -> Store {
    server.sql(
        "postgres",
        "CREATE ROLE dayfly_store LOGIN PASSWORD 'store-password';
         ALTER DATABASE dayfly OWNER TO dayfly_store",
    );
    Store::Postgres(format!("postgres://dayfly_store:store-password@127.0.0.1:{port}/dayfly"))
}

fn assert_unavailable(answer: &Answer) {
    let code = answer.text("/code");
    assert_eq!((answer.status, code.as_str()), (503, "store_unavailable"), "{}", answer.text);
    assert!(answer.retry_after.is_some(), "{answer:?}");
}

/// Requests that come together do not wait for each other's time-outs.
async fn many_are_refused_at_once(broker: &Broker) {
    let mut requests = JoinSet::new();
    for _ in 0..20 {
        let workload = broker.client().with(&broker.issuer.token("job"));
        requests.spawn(async move {
            let body = json!({ "purpose": "test", "ttl_seconds": 60 });
            workload.post("/api/v1/tasks", body).await
        });
    }
    let answers = tokio::time::timeout(REFUSED_WITHIN, requests.join_all()).await;
    for answer in answers.expect("refusals do not queue") {
        assert_unavailable(&answer);
    }
}

/// The store dies between the intent and the activation: the credential exists, and nobody
/// gets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_dies_under_a_mint_leaves_nothing_that_works() {
    let backend = Postgres::start();
    let store = Postgres::start();
    let config = BrokerConfig::new(Store::Postgres(store.url("dayfly")), Some(&backend));
    let broker = Broker::start(config.failpoints("mint.after_backend=delay:2000")).await;
    let (_, owner) = open_task(&broker).await;
    let minting = owner.mint("reader");
    let dying = async {
        role_exists(&backend, "df_").await;
        store.crash();
    };
    let (answer, ()) = tokio::join!(minting, dying);
    assert_unavailable(&answer);
    assert!(!answer.text.contains("password"), "nothing is delivered that is not recorded");

    store.resume();
    let causes = all_dead(&broker, "store died", Duration::from_secs(35)).await;
    assert_eq!(causes, ["mint_failed"]);
    assert_eq!(backend.roles("df_"), Vec::<String>::new());
    audit_holds(&broker, "store died").await;
}

/// The store neither answers nor refuses: the same, after a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_silent_refuses_everything_and_the_broker_mends_by_itself() {
    let backend = Postgres::start();
    let store = Postgres::start();
    let wire = Wire::to(store.port).await;
    let config = BrokerConfig::new(by_tcp(&store, wire.port), Some(&backend));
    let broker = Broker::start(config).await;
    let (task, owner) = open_task(&broker).await;
    owner.mint("greeter").await.expect(201);

    // Every message has an empty text in it.
    wire.hold("");
    let ready = tokio::time::timeout(REFUSED_WITHIN, broker.client().get("/readyz")).await;
    let ready = ready.expect("readiness does not hang").unwrap();
    assert_eq!(ready.status, 503, "{}", ready.text);
    let refused = tokio::time::timeout(REFUSED_WITHIN, owner.mint("reader")).await;
    assert_unavailable(&refused.expect("a refusal does not hang"));
    many_are_refused_at_once(&broker).await;
    assert_eq!(backend.roles("df_"), Vec::<String>::new(), "nothing was minted");

    wire.release();
    let minted = eventually("it mints again", MENDED_WITHIN, async || {
        Some(owner.mint("reader").await).filter(|minted| minted.status == 201)
    })
    .await;
    assert!(backend.lets_in(&minted.text("/credential/url")));
    owner.complete(&task, "15s").await.expect(200);
    assert_eq!(backend.roles("df_"), Vec::<String>::new());
    audit_holds(&broker, "store silent").await;
}
