//! A broker whose store and whose backends `pg` and `well` are three servers of their own.
//!
//! Invariant: each measurement has a new one, so that none works on what another has left.

use std::{fs, time::Duration};

use anyhow::ensure;
use dayfly_backend_sdk::Timestamp;
use dayfly_integration::{Broker, BrokerConfig, Crowd, Postgres, Store};
use dayfly_lease::{Clock, SystemClock};
use sqlx::{Connection, PgConnection, types::time::OffsetDateTime};

use crate::{
    measure::{ms, watch},
    served::{configured, open_task, quiet, stop},
};

/// Prefixes at the two backends.
pub(super) const PG: &str = "df_";
pub(super) const WELL: &str = "dw_";

pub(super) struct Ground {
    // Before the servers that it needs, so that it is gone first.
    pub(super) broker: Broker,
    pub(super) store: Postgres,
    pub(super) pg: Postgres,
    pub(super) well: Postgres,
    pub(super) rows: Rows,
}

/// What the store itself says.
pub(super) struct Rows(PgConnection);

impl Ground {
    /// With one lease of the past at each backend. `more` is more configuration. The broker
    /// does not run.
    pub(super) async fn new(more: &str) -> anyhow::Result<Self> {
        let (store, pg, well) = (Postgres::start(), Postgres::start(), Postgres::start());
        for server in [&store, &pg, &well] {
            quiet(server);
            for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
                let value = server.sql("postgres", &format!("SHOW {setting}"));
                ensure!(value == "on", "{setting} is {value}");
            }
        }
        let mut config = BrokerConfig::new(Store::Postgres(store.url("dayfly")), Some(&pg));
        config.more.push_str(&Crowd::backend("well", WELL, well.port));
        config.more.push_str(more);
        let mut broker = configured(config);
        let file = broker.config_file();
        fs::write(&file, Crowd::unjudged(&fs::read_to_string(&file)?))?;
        broker.resume().await;
        let (id, task) = open_task(&broker).await;
        for role in ["reader", "well-reader"] {
            task.mint(role).await.expect(201);
        }
        task.complete(&id, "10s").await.expect(200);
        stop(&mut broker).await;
        let mut rows = Rows(PgConnection::connect(&store.url("dayfly")).await?);
        let alone = sqlx::raw_sql("SET max_parallel_workers_per_gather = 0");
        alone.execute(&mut rows.0).await?;
        Ok(Self { broker, store, pg, well, rows })
    }

    /// Makes leases of crowds, with their roles at the servers that have any.
    pub(super) async fn fill(&self, crowds: &[(&Crowd, Option<&Postgres>)]) {
        let started = watch();
        for (crowd, server) in crowds {
            if let Some(server) = server {
                crowd.make_roles(server).await;
            }
            crowd.make_rows(&self.store).await;
        }
        // As autovacuum would have left them.
        for (server, database) in [(&self.store, "dayfly"), (&self.pg, "app")] {
            server.sql(database, "VACUUM ANALYZE; CHECKPOINT");
        }
        eprintln!("   filled in {:.0} s", started.elapsed().as_secs_f64());
    }
}

impl Rows {
    /// How many leases of a crowd are left at a backend.
    pub(super) async fn left(&mut self, backend: &str, role: &str) -> anyhow::Result<i64> {
        let sql = "SELECT count(*) FROM leases WHERE backend = $1 AND role = $2
                   AND state IN ('pending', 'active', 'revoking')";
        let left = sqlx::query_scalar(sql).bind(backend).bind(role);
        Ok(left.fetch_one(&mut self.0).await?)
    }

    /// How many milliseconds each lease of a role at a backend lived too long.
    pub(super) async fn late(&mut self, backend: &str, role: &str) -> anyhow::Result<Vec<f64>> {
        let sql = "SELECT 1000 * extract(epoch FROM revoked_at - expires_at)::float8 FROM leases
                   WHERE backend = $1 AND role = $2 AND state = 'revoked' AND cause = 'expired'";
        let late = sqlx::query_scalar(sql).bind(backend).bind(role);
        Ok(late.fetch_all(&mut self.0).await?)
    }

    /// When the last lease of the crowd at `pg` was verified dead.
    pub(super) async fn last_death(&mut self) -> anyhow::Result<Timestamp> {
        let sql = "SELECT max(revoked_at) FROM leases WHERE backend = 'pg' AND role = $1";
        let at: OffsetDateTime =
            sqlx::query_scalar(sql).bind(Crowd::ROLE).fetch_one(&mut self.0).await?;
        Ok(at.into())
    }

    /// Waits until no lease of a role is left at a backend.
    pub(super) async fn until_none(&mut self, backend: &str, role: &str) -> anyhow::Result<()> {
        const PATIENCE: Duration = Duration::from_mins(15);
        let started = watch();
        let mut said = 0.0;
        loop {
            let left = self.left(backend, role).await?;
            if left == 0 {
                return Ok(());
            }
            if ms(started.elapsed()) >= said {
                eprintln!("   {:3.0} s: {left} left", started.elapsed().as_secs_f64());
                said += 5_000.0;
            }
            ensure!(started.elapsed() < PATIENCE, "{left} leases are left after {PATIENCE:?}");
            // Counting is work for the server that is measured, so it is not done often.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
}

/// Now, by the clock that the servers have too.
pub(super) fn now() -> Timestamp {
    SystemClock.now()
}

/// Waits for an instant.
pub(super) async fn wait_until(at: Timestamp) {
    tokio::time::sleep(at.since(now())).await;
}
