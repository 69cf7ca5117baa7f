//! A backend that is down, or that hangs: minting fails cleanly, deaths are owed and paid.

use std::time::Duration;

use dayfly_integration::{Answer, Broker, BrokerConfig, Client, Postgres, Store, Wire, eventually};

use super::{all_dead, audit_holds, open_task, role_is_seen, watching};

/// A mint's own deadline; an answer comes before it.
const MINT_WITHIN: Duration = Duration::from_secs(15);

/// The refusal of something that is down.
fn assert_unavailable(answer: &Answer, code: &str) {
    assert_eq!((answer.status, answer.text("/code")), (503, code.to_owned()), "{}", answer.text);
    let seconds: u32 = answer.retry_after.as_deref().unwrap().parse().unwrap();
    assert!(seconds > 0, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_down_refuses_mints_and_its_deaths_are_paid_when_it_is_back() {
    let postgres = Postgres::start();
    let broker = Broker::start(BrokerConfig::new(Store::Sqlite, Some(&postgres))).await;
    let (task, owner) = open_task(&broker).await;
    let url = owner.mint("reader").await.expect(201).text("/credential/url");
    assert!(postgres.lets_in(&url));

    postgres.crash();
    let refused = tokio::time::timeout(MINT_WITHIN, owner.mint("reader"));
    let (refused, ()) = tokio::join!(refused, others_go_on(&owner));
    assert_unavailable(&refused.expect("an answer before the deadline"), "backend_unavailable");

    // It is a debt, and never success while it may live.
    for wait in ["3s", "1s"] {
        let owed = owner.complete(&task, wait).await.expect(202);
        assert_eq!(owed.text("/state"), "revoking");
        assert_eq!(owed.body["leases"]["revoking"], 2, "{}", owed.text);
    }

    postgres.resume();
    // Nobody asks for anything but what has become of them.
    let mut causes = all_dead(&broker, "backend down", Duration::from_secs(30)).await;
    causes.sort();
    assert_eq!(causes, ["mint_failed", "task_completed", "task_completed", "task_completed"]);
    assert_eq!(postgres.roles("df_"), Vec::<String>::new());
    assert!(!postgres.lets_in(&url));
    let done = owner.complete(&task, "1s").await.expect(200);
    assert_eq!(done.text("/state"), "completed");
    audit_holds(&broker, "backend down").await;
}

/// Another backend mints as if nothing were, and does not wait for the one that is down.
async fn others_go_on(owner: &Client) {
    for _ in 0..2 {
        let minted = tokio::time::timeout(Duration::from_secs(2), owner.mint("greeter"));
        minted.await.expect("the other backend is not held up").expect(201);
    }
}

/// The create is held up on its way until everybody gave it up. It then really happens,
/// within its deadline, and the role that nobody waits for dies.
#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_lands_late_is_ended() {
    let postgres = Postgres::start();
    let (broker, wire) = by_wire(&postgres).await;
    let (_, owner) = open_task(&broker).await;
    wire.hold("VALID UNTIL");
    let refused = tokio::time::timeout(MINT_WITHIN, owner.mint("reader")).await;
    assert_unavailable(&refused.expect("an answer before the deadline"), "backend_unavailable");
    assert_eq!(postgres.roles("df_"), Vec::<String>::new(), "it is still on its way");
    let watching = watching(&postgres).await;
    let release = async { wire.release() };
    tokio::join!(role_is_seen(watching, "df_"), release);
    ends_as_failed(&postgres, &broker, "late mint").await;
}

/// Held up for longer than that, it does not happen at all: the server itself refuses it.
#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_lands_after_its_deadline_creates_nothing() {
    let postgres = Postgres::start();
    let (broker, wire) = by_wire(&postgres).await;
    let (_, owner) = open_task(&broker).await;
    wire.hold("VALID UNTIL");
    owner.mint("reader").await.expect(503);
    ends_as_failed(&postgres, &broker, "too late a mint").await;
    wire.release();
    eventually("the server refuses it", Duration::from_secs(5), async || {
        postgres.log().contains("ERROR:  the mint deadline has passed").then_some(())
    })
    .await;
    assert_eq!(postgres.roles("df_"), Vec::<String>::new());
}

/// The role is created and the server's answer is lost: an error never means that nothing
/// happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_mint_whose_acknowledgement_is_lost_is_ended() {
    let postgres = Postgres::start();
    let (broker, wire) = by_wire(&postgres).await;
    let (_, owner) = open_task(&broker).await;
    wire.cut_after("VALID UNTIL");
    let refused = tokio::time::timeout(MINT_WITHIN, owner.mint("reader")).await;
    wire.release();
    assert_unavailable(&refused.expect("an answer before the deadline"), "backend_unavailable");
    ends_as_failed(&postgres, &broker, "lost acknowledgement").await;
    let log = postgres.log();
    assert!(log.contains("CREATE ROLE \"df_"), "the server has got it");
    assert!(log.contains("DROP ROLE"), "and there was a role to end");
}

/// A broker whose way to its backend can be disturbed, and which gives up on it early.
async fn by_wire(postgres: &Postgres) -> (Broker, Wire) {
    let wire = Wire::to(postgres.port).await;
    let mut config = BrokerConfig::new(Store::Sqlite, Some(postgres));
    let direct = format!("port = {}\n", postgres.port);
    assert!(config.more.contains(&direct), "{}", config.more);
    let disturbed = format!("port = {}\nstatement_timeout_ms = 1000\n", wire.port);
    config.more = config.more.replace(&direct, &disturbed);
    (Broker::start(config).await, wire)
}

async fn ends_as_failed(postgres: &Postgres, broker: &Broker, what: &str) {
    let causes = all_dead(broker, what, Duration::from_secs(30)).await;
    assert_eq!(causes, ["mint_failed"], "{what}");
    assert_eq!(postgres.roles("df_"), Vec::<String>::new(), "{what}");
    audit_holds(broker, what).await;
}
