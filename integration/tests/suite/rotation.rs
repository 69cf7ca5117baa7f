//! Dayfly changes its own password at a backend, and nobody is locked out by it: not the other
//! replica, and not after a crash at any point.

use std::{process::Command, time::Duration};

use dayfly_integration::{Broker, BrokerConfig, Client, Postgres, Store, eventually, program};
use dayfly_lease::failpoint::ROOT_POINTS;
use serde_json::json;

const PATH: &str = "/api/v1/backends/pg/rotate";
/// What was staged is settled after a minute, and looked at every five seconds.
const SETTLED: Duration = Duration::from_secs(100);

fn config(postgres: &Postgres) -> BrokerConfig {
    let store = Store::Postgres(postgres.url("dayfly"));
    let mut config = BrokerConfig::new(store, Some(postgres));
    config.more.push_str("[seal]\nkey = { env = \"SEAL_KEY\" }\n");
    config.environment.push(("SEAL_KEY".to_owned(), "5b".repeat(32)));
    config
}

/// Whether the server accepts what the configuration says.
fn configured_works(postgres: &Postgres) -> bool {
    let url = format!("postgres://dayfly_admin:admin-password@127.0.0.1:{}/app", postgres.port);
    postgres.lets_in(&url)
}

async fn mints(owner: &Client) -> bool {
    let answer = owner.try_post("/api/v1/leases", json!({ "role": "reader" })).await;
    answer.is_some_and(|answer| answer.status == 201)
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_follow_a_new_password_and_the_configured_one_is_dead() {
    let postgres = Postgres::start();
    let mut one = Broker::start(config(&postgres)).await;
    let two = one.replica().await;
    let (task, owner) = one.client().with(&one.issuer.token("job")).open_task().await;
    let there = owner.at(two.client().url());
    assert!(configured_works(&postgres) && mints(&owner).await && mints(&there).await);

    // Nobody but whom a rule permits, and no backend that has no password of ours.
    let admin = one.client().with(&one.admin());
    owner.post(PATH, json!(null)).await.problem(403, "denied");
    admin.post("/api/v1/backends/keys/rotate", json!(null)).await.problem(404, "not_found");
    admin.post("/api/v1/backends/none/rotate", json!(null)).await.problem(404, "not_found");

    for round in 0..2 {
        let mut command = Command::new(program("dayfly"));
        command.args(["backend", "rotate", "pg", "--output", "json"]);
        command.env("DAYFLY_URL", one.client().url()).env("DAYFLY_TOKEN", one.admin());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let rotated: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(rotated.get("backend"), Some(&json!("pg")), "round {round}");
        assert!(!configured_works(&postgres), "the configured password is dead");
        assert!(mints(&owner).await, "the replica that changed it goes on");
        // Its connections that are open stay; a new one is refused until it has looked.
        postgres.sql(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'dayfly_admin'",
        );
        eventually("the other replica has it too", Duration::from_secs(20), async || {
            mints(&there).await.then_some(())
        })
        .await;
    }

    // From now on the store says it: a restart, a check, what revokes.
    one.kill();
    one.resume().await;
    assert!(mints(&owner).await);
    let mut check = Command::new(program("dayfly-server"));
    check.args(["check", "--canary", "--config"]).arg(one.config_file());
    let output = check.env("SEAL_KEY", "5b".repeat(32)).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // What was refused with the old password is tried again after seconds; what the killed
    // replica held, when its claim has run out, which is later than one request may wait.
    eventually("all of it is dead", Duration::from_mins(1), async || {
        (owner.complete(&task, "15s").await.status == 200).then_some(())
    })
    .await;
    let events = one.audit().await;
    let count = |event: &str| events.iter().filter(|record| record["event"] == event).count();
    assert_eq!((count("root.staged"), count("root.rotated"), count("root.kept")), (2, 2, 0));
    assert!(postgres.log().contains("ALTER ROLE CURRENT_USER PASSWORD 'SCRAM-SHA-256$4096:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_point_leaves_a_password_that_works() {
    let postgres = Postgres::start();
    let mut broker = Broker::configure(config(&postgres));
    let environment = ("SEAL_KEY".to_owned(), "5b".repeat(32));
    for point in ROOT_POINTS {
        let points = ("DAYFLY_FAILPOINTS".to_owned(), format!("{point}=abort"));
        broker.set_environment(vec![environment.clone(), points]);
        broker.resume().await;
        let rotated = broker.client().with(&broker.admin()).try_post(PATH, json!(null)).await;
        assert!(rotated.is_none(), "{point}: {rotated:?}");
        broker.kill();
        broker.set_environment(vec![environment.clone()]);
        broker.resume().await;
        let admin = broker.client().with(&broker.admin());
        let (_, owner) = broker.client().with(&broker.issuer.token(point)).open_task().await;
        assert!(mints(&owner).await, "{point}: nobody can sign in");
        if *point != "root.settled" {
            // Which one it is may only be said when nothing can be on its way any more.
            admin.post(PATH, json!(null)).await.problem(409, "rotation_under_way");
        }
        eventually("it is settled", SETTLED, async || {
            let rotated = admin.post(PATH, json!(null)).await;
            (rotated.status == 200).then_some(())
        })
        .await;
        assert!(mints(&owner).await, "{point}: after it was settled");
        broker.kill();
    }
    broker.resume().await;
    let events = broker.audit().await;
    let count = |event: &str| events.iter().filter(|record| record["event"] == event).count();
    // Staged only: kept. Set, or settled: taken. And one more each.
    assert_eq!((count("root.staged"), count("root.rotated"), count("root.kept")), (6, 5, 1));
}

/// The schedule comes to all replicas, and one of them does it. Someone who sets the backend's
/// password back to the configured one, after a loss of the store, is let in again.
#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_rotates_once_and_a_person_can_set_it_back() {
    let postgres = Postgres::start();
    let mut config = config(&postgres);
    let prefix = "prefix = \"df_\"";
    config.more = config.more.replace(prefix, &format!("{prefix}\nrotate = \"*/2 * * * * *\""));
    let one = Broker::start(config).await;
    let two = one.replica().await;
    let by_schedule = async || {
        let events = one.audit().await;
        let rotated = |record: &&serde_json::Value| record["event"] == "root.rotated";
        events.iter().filter(rotated).filter(|record| record["actor"] == "schedule").count()
    };
    eventually("it was rotated", Duration::from_secs(20), async || {
        (by_schedule().await > 0).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(by_schedule().await, 1, "the others found it fresh");
    assert!(!configured_works(&postgres));
    postgres.sql(
        "postgres",
        "ALTER ROLE dayfly_admin PASSWORD 'admin-password';
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'dayfly_admin'",
    );
    let (_, owner) = two.client().with(&one.issuer.token("job")).open_task().await;
    eventually("the configured one is tried", Duration::from_secs(20), async || {
        mints(&owner).await.then_some(())
    })
    .await;
}
