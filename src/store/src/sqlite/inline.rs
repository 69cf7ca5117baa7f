//! The embedded store without its threads, in memory: for the simulator, which must own every
//! step.
//!
//! Invariant: the SQL, the transactions and the clock are those of [`super::SqliteStore`];
//! only who calls them differs. Several replicas share one connection, each with its chain.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{
    Clock, Counts, Lease, LeaseId, Root, Sighting, Standing, Store, StoreError, Task, TaskId,
    Write, Written,
    audit::{Chain, Record},
};
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

use super::{Time, keep_statements, read, schema, writer};
use crate::Incarnation;

/// One database in memory.
#[derive(Debug)]
pub struct InlineSqlite {
    connection: Mutex<Connection>,
    time: Time,
}

/// The database as one replica has it.
#[derive(Debug)]
pub struct InlineReplica {
    store: Arc<InlineSqlite>,
    chain: Mutex<Chain>,
    incarnation: Incarnation,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl InlineSqlite {
    /// An empty database with the newest schema.
    pub fn open(clock: Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
        let flags = OpenFlags::default() | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_in_memory_with_flags(flags);
        let mut connection = connection.map_err(StoreError::unavailable)?;
        keep_statements(&connection).map_err(StoreError::unavailable)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(StoreError::unavailable)?;
        let seen = schema::migrate(&mut connection)?;
        let time = Time::new(clock, seen);
        Ok(Arc::new(Self { connection: Mutex::new(connection), time }))
    }

    /// Opens the chain of a replica's incarnation.
    pub fn replica(
        self: &Arc<Self>,
        incarnation: Incarnation,
    ) -> Result<InlineReplica, StoreError> {
        let chain = writer::open_chain(&mut hold(&self.connection), &incarnation, &self.time)?;
        Ok(InlineReplica { store: Arc::clone(self), chain: Mutex::new(chain), incarnation })
    }

    /// Whatever a fault or an oracle does to the database itself.
    pub fn with<T>(&self, work: impl FnOnce(&mut Connection) -> T) -> T {
        work(&mut hold(&self.connection))
    }

    /// A lease's row, read as the store reads it.
    pub fn lease_row(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        read::lease(&hold(&self.connection), id)
    }

    /// The whole audit log, chain by chain.
    pub fn records(&self) -> Result<Vec<Record>, StoreError> {
        let sql = format!("SELECT {} FROM audit_records ORDER BY chain, seq", read::RECORD_COLUMNS);
        let rows = read::rows(&hold(&self.connection), &sql, [], read::record_row)?;
        rows.into_iter().map(Record::try_from).collect()
    }

    /// The store's clock.
    pub fn time(&self) -> Timestamp {
        self.time.now()
    }
}

#[async_trait]
impl Store for InlineReplica {
    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        let (mut connection, mut chain) = (hold(&self.store.connection), hold(&self.chain));
        let time = &self.store.time;
        match writer::transact(&mut connection, &mut chain, time, &[&write]) {
            Ok(answers) => answers
                .into_iter()
                .next()
                .unwrap_or_else(|| Err(StoreError::unavailable("no answer"))),
            Err(error) => {
                writer::read_back(&connection, &mut chain, &self.incarnation);
                Err(error)
            }
        }
    }

    async fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        self.store.lease_row(id)
    }

    async fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        read::task(&hold(&self.store.connection), id)
    }

    async fn task_by_token(&self, hash: [u8; 32]) -> Result<Option<Task>, StoreError> {
        read::task_by_token(&hold(&self.store.connection), hash)
    }

    async fn counts(&self, task: TaskId) -> Result<Counts, StoreError> {
        read::counts(&hold(&self.store.connection), task)
    }

    async fn next_due(&self, backend: &str) -> Result<Option<Duration>, StoreError> {
        let due = read::next_due(&hold(&self.store.connection), backend)?;
        Ok(due.map(|due| due.since(self.store.time.now())))
    }

    async fn next_task_due(&self) -> Result<Option<Duration>, StoreError> {
        let due = read::next_task_due(&hold(&self.store.connection))?;
        Ok(due.map(|due| due.since(self.store.time.now())))
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.store.time.now())
    }

    async fn installation(&self) -> Result<Uuid, StoreError> {
        read::installation(&hold(&self.store.connection))
    }

    async fn standing(&self) -> Result<Standing, StoreError> {
        read::standing(&hold(&self.store.connection))
    }

    async fn root(&self, backend: &str) -> Result<Option<Root>, StoreError> {
        read::root(&hold(&self.store.connection), backend)
    }

    async fn turn(&self, backend: &str) -> Result<u64, StoreError> {
        read::turn(&hold(&self.store.connection), backend).map(|(turn, _)| turn)
    }

    async fn sightings(&self, ids: &[LeaseId]) -> Result<Vec<Sighting>, StoreError> {
        read::sightings(&hold(&self.store.connection), ids)
    }

    async fn living_of(
        &self,
        backend: &str,
        after: Option<LeaseId>,
        limit: u32,
    ) -> Result<Vec<Lease>, StoreError> {
        read::living_of(&hold(&self.store.connection), backend, after, limit)
    }
}
