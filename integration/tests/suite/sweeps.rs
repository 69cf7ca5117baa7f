//! The orphan sweep at a real server: it ends its own strays, and nobody else's anything.

use std::time::Duration;

use dayfly_integration::{Answer, Broker, BrokerConfig, Client, Postgres, Store, eventually};

/// Sweeps come often, so that a test need not wait for the usual half minute.
fn config(postgres: &Postgres) -> BrokerConfig {
    let mut config = BrokerConfig::beside(Store::Sqlite, Some(postgres));
    config.more.push_str("[engine]\nsweep_every = \"5s\"\n");
    config
}

/// A sweep looks, waits for its grace and looks again; the next one may be five seconds away.
const SWEPT: Duration = Duration::from_secs(30);

async fn job(broker: &Broker) -> (String, Client) {
    broker.client().with(&broker.issuer.token("job")).open_task().await
}

fn url(lease: &Answer) -> String {
    lease.text("/credential/url")
}

/// A role of our shape that no lease has ever had dies; the group next to it, whose name only
/// begins like ours, stays; and so does what a lease covers.
#[tokio::test(flavor = "multi_thread")]
async fn a_stray_role_dies_and_its_neighbours_live() {
    let postgres = Postgres::start();
    let broker = Broker::start(config(&postgres)).await;
    let (_, owner) = job(&broker).await;
    let lease = owner.mint("reader").await.expect(201);
    let covered = lease.text("/handle");
    let stray = format!("df_{}", "a".repeat(26));
    // As the broker's own account makes it: that is whose roles it can drop.
    let sql = format!(
        "SET ROLE dayfly_admin; CREATE ROLE {stray} LOGIN PASSWORD 'x'; CREATE ROLE df_reporting"
    );
    postgres.sql("postgres", &sql);
    eventually("the stray is gone", SWEPT, async || {
        let mut roles = postgres.roles("df_");
        roles.sort();
        let mut left = [covered.clone(), "df_reporting".to_owned()];
        left.sort();
        (roles == left).then_some(())
    })
    .await;
    assert!(postgres.lets_in(&url(&lease)));
    let admin = broker.client().with(&broker.admin());
    let records = admin.get("/api/v1/audit?event=orphan.revoked").await.unwrap().expect(200);
    assert_eq!(records.body["data"][0]["detail"]["handle"], stray.as_str(), "{}", records.text);
}

/// Two installations meet at one server: under one prefix the second gets nothing and ends
/// nothing; under its own, both live side by side.
#[tokio::test(flavor = "multi_thread")]
async fn another_installations_credentials_are_not_touched() {
    let postgres = Postgres::start();
    let first = Broker::start(config(&postgres)).await;
    let (_, owner) = job(&first).await;
    let lease = owner.mint("reader").await.expect(201);
    let marker = postgres.marker("df_");
    assert!(marker.starts_with("dayfly installation="), "{marker}");

    let second = Broker::start(config(&postgres)).await;
    let (_, stranger) = job(&second).await;
    let refused = stranger.mint("reader").await.problem(502, "backend_of_another");
    assert_eq!(refused.body["retryable"], false, "{}", refused.text);
    eventually("the refusal to sweep is in the log", SWEPT, async || {
        second.log().contains("the prefix belongs to installation").then_some(())
    })
    .await;
    assert!(postgres.lets_in(&url(&lease)), "the first one's credential lives");

    let mut beside = config(&postgres);
    beside.more = beside.more.replace("prefix = \"df_\"", "prefix = \"dg_\"");
    let third = Broker::start(beside).await;
    let (_, neighbour) = job(&third).await;
    let theirs = neighbour.mint("reader").await.expect(201);
    eventually("both have swept again", SWEPT, async || {
        let turns = [postgres.marker("df_"), postgres.marker("dg_")];
        let swept = |marker: &String| marker.rsplit('=').next()?.parse::<u32>().ok();
        turns.iter().all(|marker| swept(marker).is_some_and(|turn| turn >= 3)).then_some(())
    })
    .await;
    assert!(postgres.lets_in(&url(&lease)) && postgres.lets_in(&url(&theirs)));
}

/// A backend that is restored from an old backup has roles again that were verified dead.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_restored_backend_brings_back_is_ended_again() {
    let postgres = Postgres::start();
    let broker = Broker::start(config(&postgres)).await;
    let (task, owner) = job(&broker).await;
    let dead = owner.mint("reader").await.expect(201);
    let (_, keeper) = broker.client().with(&broker.issuer.token("other")).open_task().await;
    let kept = keeper.mint("reader").await.expect(201);
    postgres.crash();
    let backup = postgres.backup();
    postgres.resume();
    owner.complete(&task, "20s").await.expect(200);
    assert!(!postgres.lets_in(&url(&dead)));
    postgres.crash();
    postgres.restore(&backup);
    postgres.resume();
    assert!(postgres.lets_in(&url(&dead)), "the backup brought it back");
    eventually("it is dead again", SWEPT * 2, async || {
        (!postgres.lets_in(&url(&dead))).then_some(())
    })
    .await;
    assert!(postgres.lets_in(&url(&kept)));
}

/// The broker is started on another store by mistake: the credentials of the right one live,
/// and nothing is minted.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_store_is_refused_and_kills_nothing() {
    let postgres = Postgres::start();
    let mut broker = Broker::start(config(&postgres)).await;
    let (_, owner) = job(&broker).await;
    let lease = owner.mint("reader").await.expect(201);
    broker.kill();
    let path = broker.path().join("dayfly.db");
    let aside = broker.path().join("right.db");
    for end in ["", "-wal", "-shm"] {
        let from = path.with_file_name(format!("dayfly.db{end}"));
        if from.exists() {
            std::fs::rename(&from, aside.with_file_name(format!("right.db{end}"))).unwrap();
        }
    }
    broker.resume().await;
    let (_, stranger) = broker.client().with(&broker.issuer.token("late")).open_task().await;
    let refused = stranger.mint("reader").await.problem(502, "backend_of_another");
    assert!(refused.text("/detail").contains("another installation"), "{}", refused.text);
    eventually("the sweep says why it refuses", SWEPT, async || {
        broker.log().contains("the prefix belongs to installation").then_some(())
    })
    .await;
    assert!(postgres.lets_in(&url(&lease)));
}
