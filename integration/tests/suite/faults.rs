//! Faults: crashes between the steps, dead clients, dead servers, two replicas, and secrets
//! where none may be. Each test ends with what is left: nothing that works.

mod backend_down;
mod clients;
mod crashes;
mod replicas;
mod secrets;
mod shutdown;
mod store_down;

use std::{process::ExitStatus, time::Duration};

use dayfly_integration::{Broker, BrokerConfig, Client, Postgres, Store, eventually};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tokio::time::Instant;

/// Both stores; the one on PostgreSQL in a database of this name, which is made.
fn both_stores(postgres: &Postgres, database: &str) -> [Store; 2] {
    postgres.sql("postgres", &format!("CREATE DATABASE {database}"));
    [Store::Sqlite, Store::Postgres(postgres.url(database))]
}

/// Its PostgreSQL roles get names of their own, so that several brokers can share a server.
fn prefixed(mut config: BrokerConfig, prefix: &str) -> BrokerConfig {
    let own = format!("prefix = \"{prefix}\"");
    assert!(config.more.contains("prefix = \"df_\""), "a PostgreSQL backend");
    config.more = config.more.replace("prefix = \"df_\"", &own);
    config
}

/// Opens a task as the workload `job`.
async fn open_task(broker: &Broker) -> (String, Client) {
    broker.client().with(&broker.issuer.token("job")).open_task().await
}

/// Every lease of the broker, or nothing while it cannot tell.
async fn leases(broker: &Broker) -> Option<Vec<Value>> {
    let admin = broker.client().with(&broker.admin());
    let page = admin.get("/api/v1/leases?limit=500").await.filter(|page| page.status == 200)?;
    page.body["data"].as_array().cloned()
}

/// Waits until every lease of the broker is verified dead, and says why each died, oldest
/// first. Looks rarely: many brokers may be waited for at once.
async fn all_dead(broker: &Broker, what: &str, within: Duration) -> Vec<String> {
    eventually(&format!("{what}: every lease is verified dead"), within, async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let leases = leases(broker).await?;
        let dead = leases.iter().rev().filter(|lease| lease["state"] == "revoked");
        let causes: Vec<String> =
            dead.map(|lease| lease["cause"].as_str().unwrap().to_owned()).collect();
        (causes.len() == leases.len()).then_some(causes)
    })
    .await
}

/// Waits for the one role whose name begins with `prefix`.
async fn role_exists(postgres: &Postgres, prefix: &str) {
    role_is_seen(watching(postgres).await, prefix).await;
}

/// A connection for [`role_is_seen`].
async fn watching(postgres: &Postgres) -> PgConnection {
    PgConnection::connect(&postgres.url("postgres")).await.unwrap()
}

/// Looks without a pause, since the role may be ended a moment later.
async fn role_is_seen(mut connection: PgConnection, prefix: &str) {
    let sql = format!(
        "SELECT count(*) FROM pg_roles
         WHERE starts_with(rolname, '{prefix}') AND rolname <> '{prefix}marker'"
    );
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let sql = AssertSqlSafe(sql.clone());
        let count: i64 = sqlx::raw_sql(sql).fetch_one(&mut connection).await.unwrap().get(0);
        if count == 1 {
            return;
        }
        assert!(Instant::now() < until, "the role was never seen");
    }
}

/// Waits for the process to end by itself.
async fn ended(broker: &mut Broker, what: &str, within: Duration) -> ExitStatus {
    eventually(&format!("{what}: the broker ends"), within, async || broker.exited()).await
}

/// The audit log holds, and has exactly one signed receipt for each lease.
async fn audit_holds(broker: &Broker, what: &str) {
    let admin = broker.client().with(&broker.admin());
    let receipts = admin.get("/api/v1/audit?event=lease.revoked&limit=500").await.unwrap();
    let receipts = receipts.expect(200);
    let receipts = receipts.body["data"].as_array().unwrap();
    assert!(receipts.iter().all(|receipt| receipt["signature"].is_string()), "{what}");
    let mut receipts: Vec<&Value> = receipts.iter().map(|receipt| &receipt["lease"]).collect();
    let leases = leases(broker).await.unwrap();
    let mut leases: Vec<&Value> = leases.iter().map(|lease| &lease["id"]).collect();
    receipts.sort_by_key(ToString::to_string);
    leases.sort_by_key(ToString::to_string);
    assert_eq!(receipts, leases, "{what}: one receipt for each lease");
    let verified = broker.command(&["audit", "verify"]);
    assert!(verified.status.success(), "{what}: {verified:?}");
}
