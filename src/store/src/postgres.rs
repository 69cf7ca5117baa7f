//! The store on PostgreSQL, and so the distributed engine: any number of replicas, no leader.
//!
//! Invariant: only the primary is ever asked, and only its clock decides what is due. A
//! commit whose answer was lost is reported as unknown, and the chain's head is read back
//! before anything else is written.

mod count;
mod identity;
mod inspect;
mod job;
mod read;
mod root;
mod server;
mod tx;
mod writer;

use std::{str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;
use dayfly_backend_sdk::{Secret, Timestamp};
use dayfly_lease::{
    Clock, Counts, Lease, LeaseId, Root, Sighting, Standing, Store, StoreError, Task, TaskId,
    Write, Written, spawn,
};
use sqlx::{
    ConnectOptions, Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    Incarnation,
    group::{Job, QUEUE_MAX, submit},
};

/// How to reach the database.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// `postgres://…`, of the primary.
    pub url: Secret,
    /// Connections for reading; one more is the writer's.
    pub connections_max: u32,
}

/// Leases, tasks and audit on PostgreSQL.
#[derive(Debug)]
pub struct PostgresStore {
    reads: PgPool,
    queue: mpsc::Sender<Job>,
}

/// A statement that takes longer has met a lock or a dying server.
const STATEMENT_TIMEOUT_MS: &str = "5000";
const LOCK_TIMEOUT_MS: &str = "3000";
/// The longest wait for a connection, after which a request is refused rather than queued.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

impl PostgresStore {
    /// Connects, brings the schema up to date and opens this incarnation's audit chain.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the server cannot be reached, is a standby, or has a
    /// schema that is newer than this program.
    pub async fn open(
        options: &PostgresOptions,
        incarnation: Incarnation,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, StoreError> {
        let connect = connect_options(options)?;
        let pool =
            |max: u32| PgPoolOptions::new().max_connections(max).acquire_timeout(ACQUIRE_TIMEOUT);
        let server = server::Recognised::default();
        let asking = server.clone();
        let writes = pool(1)
            .after_connect(move |connection, _| {
                let asking = asking.clone();
                Box::pin(async move { asking.ask(connection).await })
            })
            .connect_with(connect.clone())
            .await
            .map_err(unavailable)?;
        refuse_standby(&writes).await?;
        migrate(&options.url).await?;
        let reads = pool(options.connections_max.max(1)).connect_lazy_with(connect);
        let writer = writer::Writer::open(writes, server, incarnation, clock).await?;
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        spawn(writer.run(jobs));
        Ok(Arc::new(Self { reads, queue }))
    }

    /// Connects to look at what is there, beside replicas that work on it. Writes are refused.
    pub async fn open_for_reading(options: &PostgresOptions) -> Result<Arc<Self>, StoreError> {
        let reads = PgPoolOptions::new()
            .max_connections(options.connections_max.max(1))
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(connect_options(options)?)
            .await
            .map_err(unavailable)?;
        refuse_standby(&reads).await?;
        // The receiver is dropped at once, so that whatever is written is refused.
        let (queue, _) = mpsc::channel(1);
        Ok(Arc::new(Self { reads, queue }))
    }

    /// Waits until every change that was asked for so far is done, and closes what reads.
    pub(crate) async fn close(&self) {
        if let Err(error) = submit(&self.queue, Write::Probe).await {
            tracing::warn!(%error, "store.close");
        }
        self.reads.close().await;
    }
}

fn connect_options(options: &PostgresOptions) -> Result<PgConnectOptions, StoreError> {
    let connect = PgConnectOptions::from_str(options.url.expose())
        .map_err(|_| StoreError::unavailable("the store's url is not a PostgreSQL url"))?;
    Ok(connect
        .application_name("dayfly")
        .options([
            ("statement_timeout", STATEMENT_TIMEOUT_MS),
            ("lock_timeout", LOCK_TIMEOUT_MS),
            ("idle_in_transaction_session_timeout", "10000"),
            // An intent that was answered must survive the server, whatever its default is.
            ("synchronous_commit", "on"),
            // What is read behind a lock must be what was committed under it (`job.rs`).
            ("default_transaction_isolation", "read committed"),
            ("timezone", "UTC"),
        ])
        .disable_statement_logging())
}

async fn refuse_standby(pool: &PgPool) -> Result<(), StoreError> {
    let standby = sqlx::query_scalar!(r#"SELECT pg_is_in_recovery() AS "standby!""#)
        .fetch_one(pool)
        .await
        .map_err(unavailable)?;
    if standby {
        return Err(StoreError::unavailable("the store's url leads to a standby"));
    }
    Ok(())
}

/// Replicas that start together take turns: sqlx holds an advisory lock meanwhile. On a
/// connection without our time-outs, since a migration may take long, and waiting for it too.
async fn migrate(url: &Secret) -> Result<(), StoreError> {
    let options = PgConnectOptions::from_str(url.expose())
        .map_err(|_| StoreError::unavailable("the store's url is not a PostgreSQL url"))?
        .application_name("dayfly-migrate")
        .disable_statement_logging();
    let mut connection = sqlx::PgConnection::connect_with(&options).await.map_err(unavailable)?;
    let migrator = sqlx::migrate!("../../migrations/postgres");
    migrator.run(&mut connection).await.map_err(StoreError::unavailable)?;
    connection.close().await.map_err(unavailable)
}

pub(super) fn unavailable(error: sqlx::Error) -> StoreError {
    StoreError::unavailable(error)
}

#[async_trait]
impl Store for PostgresStore {
    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        submit(&self.queue, write).await
    }

    async fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        self.read_lease(id).await
    }

    async fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.read_task(id).await
    }

    async fn task_by_token(&self, hash: [u8; 32]) -> Result<Option<Task>, StoreError> {
        self.read_task_by_token(hash).await
    }

    async fn counts(&self, task: TaskId) -> Result<Counts, StoreError> {
        self.read_counts(task).await
    }

    async fn next_due(&self, backend: &str) -> Result<Option<Duration>, StoreError> {
        self.read_next_due(backend).await
    }

    async fn next_task_due(&self) -> Result<Option<Duration>, StoreError> {
        self.read_next_task_due().await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.read_now().await
    }

    async fn installation(&self) -> Result<Uuid, StoreError> {
        self.read_installation().await
    }

    async fn standing(&self) -> Result<Standing, StoreError> {
        self.read_standing().await
    }

    async fn root(&self, backend: &str) -> Result<Option<Root>, StoreError> {
        self.read_root(backend).await
    }

    async fn turn(&self, backend: &str) -> Result<u64, StoreError> {
        self.read_turn(backend).await
    }

    async fn sightings(&self, ids: &[LeaseId]) -> Result<Vec<Sighting>, StoreError> {
        self.read_sightings(ids).await
    }

    async fn living_of(
        &self,
        backend: &str,
        after: Option<LeaseId>,
        limit: u32,
    ) -> Result<Vec<Lease>, StoreError> {
        self.read_living_of(backend, after, limit).await
    }
}

/// One list of columns for every query on leases, so that all of them are checked against the
/// schema alike. The tail is a literal, as the macro asks.
macro_rules! query_leases {
    ($tail:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::row::LeaseRow,
            r#"SELECT id, task, principal, issuer, role, backend, handle, decision_chain,
                decision_seq, epoch, state, issued_at, expires_at, max_expires_at,
                native_expires_at, mint_deadline, settle_at, activated_at, delivered_at, cause,
                revoking_at, revoked_at, next_attempt_at, attempts, error_class, claim_owner,
                claim_since, claim_until, renewable, belts, abandon_by, abandon_reason,
                abandon_at, plan, due_at, quarantined, kept, on_behalf_of, on_behalf_name
            FROM leases "# + $tail
            $(, $argument)*
        )
    };
}

macro_rules! query_tasks {
    ($tail:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::row::TaskRow,
            r#"SELECT id, principal, issuer, identity, purpose, token_hash, opened_at,
                expires_at, ended, closed_at, heartbeat, lost_at, run, job, bound_by, bound_to,
                on_behalf_of, on_behalf_name
            FROM tasks "# + $tail
            $(, $argument)*
        )
    };
}

macro_rules! query_disabled {
    ($tail:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::row::DisabledRow,
            r#"SELECT principal, cut_off, disabled_at, disabled_by, reason, ending, expires_at
            FROM disabled "# + $tail
            $(, $argument)*
        )
    };
}

macro_rules! query_records {
    ($tail:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::row::RecordRow,
            r#"SELECT chain, seq, at, event, actor, task, lease, detail, prev, hash, signature
            FROM audit_records "# + $tail
            $(, $argument)*
        )
    };
}

pub(crate) use {query_disabled, query_leases, query_records, query_tasks};
