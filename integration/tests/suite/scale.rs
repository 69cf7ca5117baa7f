//! Thousands of leases that are due at once: they die, and nobody else waits for them. How
//! fast, `integration/bench --only deaths` measures.

use std::{fs, time::Duration};

use dayfly_integration::{Broker, BrokerConfig, Client, Crowd, Postgres, Store, eventually};
use dayfly_lease::{Clock, SystemClock};

const CROWD: u32 = 5_000;
const OTHERS: u32 = 40;
/// For making the crowd and for starting on it.
const LEAD: Duration = Duration::from_secs(20);
/// No target: only that nothing is forgotten and nothing stands still.
const WITHIN: Duration = Duration::from_mins(3);
const OTHERS_LATE_MAX: Duration = Duration::from_secs(20);
const MINT_MAX: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn thousands_that_are_due_at_once_die_and_delay_nobody() {
    // The store is on the healthy server, and the crowd at a server of its own.
    let (crowded, well) = (Postgres::start(), Postgres::start());
    let mut broker = broker(&crowded, &well);
    broker.resume().await;
    let task = one_of_the_past(&broker).await;
    broker.signal("TERM");
    eventually("the broker ends", Duration::from_secs(20), async || broker.exited()).await;
    let begin = SystemClock.now().plus(LEAD);
    let crowd = Crowd::new("pg", "df_", (0..CROWD).map(|_| begin));
    crowd.make_roles(&crowded).await;
    crowd.make_rows(&well).await;
    // While the crowd dies, and a little longer.
    let others = (1..=OTHERS).map(|n| begin.plus(Duration::from_millis(250) * n));
    let others = Crowd::new("well", "dw_", others);
    others.make_roles(&well).await;
    others.make_rows(&well).await;
    assert_eq!(crowded.roles("df_").len(), CROWD as usize);
    broker.resume().await;
    assert_eq!(left(&well, "pg"), CROWD, "they live until their time has come");
    tokio::time::sleep(begin.since(SystemClock.now())).await;

    let mut minted = 0;
    eventually("all of them are dead", WITHIN, async || {
        // One after the other: each must be answered while the crowd dies.
        let mint = tokio::time::timeout(MINT_MAX, task.mint("reader")).await;
        mint.expect("an answer to a mint").expect(201);
        minted += 1;
        (left(&well, "pg") + left(&well, "well") == 0).then_some(())
    })
    .await;
    assert_eq!(crowded.roles("df_").len(), minted, "the new ones are left, and no other");
    assert_eq!(well.roles("dw_"), Vec::<String>::new());
    let sql = "SELECT count(*) FROM leases WHERE backend = 'well' AND role = 'crowd'
               AND cause = 'expired' AND revoked_at < expires_at + interval";
    let sql = format!("{sql} '{} s'", OTHERS_LATE_MAX.as_secs());
    assert_eq!(well.sql("dayfly", &sql), OTHERS.to_string(), "the others died on time");
    let verified = broker.command(&["audit", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

/// Logs only what it logs by default: everything of thousands is too much.
fn broker(crowded: &Postgres, well: &Postgres) -> Broker {
    let mut config = BrokerConfig::new(Store::Postgres(well.url("dayfly")), Some(crowded));
    config.more.push_str(&Crowd::backend("well", "dw_", well.port));
    let broker = Broker::configure(config);
    let text = fs::read_to_string(broker.config_file()).unwrap();
    let quiet = text.replace("log_filter = \"trace\"", "log_filter = \"info\"");
    assert_ne!(quiet, text);
    fs::write(broker.config_file(), Crowd::unjudged(&quiet)).unwrap();
    broker
}

/// Mints and ends the one that the others are copies of; gives a task that goes on.
async fn one_of_the_past(broker: &Broker) -> Client {
    let workload = broker.client().with(&broker.issuer.token("job"));
    let (id, task) = workload.open_task().await;
    task.mint("reader").await.expect(201);
    task.complete(&id, "10s").await.expect(200);
    broker.client().with(&broker.issuer.token("late")).open_task().await.1
}

/// How many of the crowd may live.
fn left(store: &Postgres, backend: &str) -> u32 {
    let sql = format!(
        "SELECT count(*) FROM leases WHERE backend = '{backend}' AND role = '{}'
         AND state IN ('pending', 'active', 'revoking')",
        Crowd::ROLE
    );
    store.sql("dayfly", &sql).parse().unwrap()
}
