//! From the start of the process to the first 200 of `/readyz`, with a store full of leases,
//! and the memory that it then has.
//!
//! Invariant: the store is the one that the program made; its rows were put there while no
//! broker ran, and the pages of it that are in memory are the operating system's choice.

use std::{path::Path, time::Duration};

use anyhow::ensure;
use dayfly_integration::{Broker, BrokerConfig, Postgres, Store};
use dayfly_lease::{Clock, SystemClock};
use rusqlite::Connection;

use crate::{
    measure::{median, ms, watch},
    population::{Dialect, Size, statements},
    report::Report,
    served::{configured, open_task, resident_mib, stop},
};

const STARTS: usize = 3;
const READY_MS_MAX: f64 = 2_000.0;
const MEMORY_MIB_MAX: f64 = 100.0;
/// When the memory is looked at.
const SETTLED: Duration = Duration::from_secs(2);
const USUAL: Size = Size { terminal: 1_000_000, active: 100_000 };
const LARGE: Size = Size { terminal: 1_000_000, active: 1_000_000 };

pub(crate) async fn measure(report: &mut Report, large: bool) -> anyhow::Result<()> {
    let sizes: &[Size] = if large { &[USUAL, LARGE] } else { &[USUAL] };
    let empty = Size { terminal: 0, active: 0 };
    for dialect in [Dialect::Sqlite, Dialect::Postgres] {
        let installation = Installation::new(&dialect).await?;
        installation.told(report, empty, false).await?;
    }
    for size in sizes {
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            let mut installation = Installation::new(&dialect).await?;
            installation.fill(*size)?;
            installation.told(report, *size, true).await?;
        }
    }
    Ok(())
}

/// A broker with its store; the broker does not run.
struct Installation<'a> {
    dialect: &'a Dialect,
    // Before the server that it needs, so that it is gone first.
    broker: Broker,
    postgres: Option<Postgres>,
}

impl<'a> Installation<'a> {
    /// With one lease of the past, by which the others are made.
    async fn new(dialect: &'a Dialect) -> anyhow::Result<Self> {
        let postgres = matches!(dialect, Dialect::Postgres).then(Postgres::start);
        let store = match &postgres {
            Some(postgres) => Store::Postgres(postgres.url("dayfly")),
            None => Store::Sqlite,
        };
        let mut broker = configured(BrokerConfig::new(store, None));
        broker.resume().await;
        let (id, task) = open_task(&broker).await;
        task.mint("greeter").await.expect(201);
        task.complete(&id, "5s").await.expect(200);
        stop(&mut broker).await;
        Ok(Self { dialect, broker, postgres })
    }

    fn fill(&mut self, size: Size) -> anyhow::Result<()> {
        let started = watch();
        let statements = statements(self.dialect, size, SystemClock.now().micros());
        match &self.postgres {
            Some(postgres) => {
                for statement in statements {
                    postgres.sql("dayfly", &format!("SET synchronous_commit = off; {statement}"));
                }
                // As autovacuum would have left it.
                postgres.sql("dayfly", "VACUUM ANALYZE; CHECKPOINT");
            }
            None => fill_file(&self.broker.path().join("dayfly.db"), &statements)?,
        }
        let (terminal, active) = (size.terminal, size.active);
        eprintln!("   {terminal} + {active} leases in {:.0} s", started.elapsed().as_secs_f64());
        ensure!(self.count("revoked")? == terminal + 1, "not as many terminal leases");
        ensure!(self.count("active")? == active, "not as many active leases");
        Ok(())
    }

    fn count(&self, state: &str) -> anyhow::Result<u64> {
        let sql = format!("SELECT count(*) FROM leases WHERE state = '{state}'");
        if let Some(postgres) = &self.postgres {
            return Ok(postgres.sql("dayfly", &sql).parse()?);
        }
        let connection = Connection::open(self.broker.path().join("dayfly.db"))?;
        let count: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }

    /// Starts it some times and writes down what that took.
    async fn told(mut self, report: &mut Report, size: Size, aimed: bool) -> anyhow::Result<()> {
        let (mut ready, mut memory) = (Vec::new(), Vec::new());
        for _ in 0..STARTS {
            ready.push(self.start().await?);
            tokio::time::sleep(SETTLED).await;
            memory.push(resident_mib(self.broker.pid())?);
            stop(&mut self.broker).await;
        }
        if aimed {
            ensure!(self.count("active")? == size.active, "leases ended that were not due");
        }
        let (ready, memory) = (median(&ready), median(&memory));
        let (name, store) = match self.dialect {
            Dialect::Postgres => ("PostgreSQL", "postgres"),
            Dialect::Sqlite => ("SQLite", "sqlite"),
        };
        let key = |what: &str| format!("start.{store}.{}_{}.{what}", size.terminal, size.active);
        let text = |what: &str| {
            format!("{name}, {} terminal and {} active leases: {what}", size.terminal, size.active)
        };
        let (ready_text, memory_text) = (text("start to ready"), text("resident memory"));
        if aimed {
            report.aim(&key("ready_ms"), &ready_text, (ready, "ms"), READY_MS_MAX);
            report.aim(&key("memory_mib"), &memory_text, (memory, "MiB"), MEMORY_MIB_MAX);
        } else {
            report.note(&key("ready_ms"), &ready_text, ready, "ms");
            report.note(&key("memory_mib"), &memory_text, memory, "MiB");
        }
        Ok(())
    }

    /// Milliseconds until it says that it is ready.
    async fn start(&mut self) -> anyhow::Result<f64> {
        const PATIENCE: Duration = Duration::from_mins(2);
        let client = self.broker.client();
        let started = watch();
        self.broker.spawn();
        while started.elapsed() < PATIENCE {
            if client.get("/readyz").await.is_some_and(|answer| answer.status == 200) {
                return Ok(ms(started.elapsed()));
            }
            let ended = self.broker.exited();
            ensure!(ended.is_none(), "the broker ended: {ended:?}\n{}", self.broker.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        anyhow::bail!("the broker was not ready within {PATIENCE:?}:\n{}", self.broker.log())
    }
}

/// Without waiting for the disk: the broker does not run, and what is lost is made again.
fn fill_file(path: &Path, statements: &[String]) -> anyhow::Result<()> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -262_144)?;
    let transaction = connection.transaction()?;
    for statement in statements {
        transaction.execute_batch(statement)?;
    }
    transaction.commit()?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}
