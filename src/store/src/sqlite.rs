//! The embedded store: SQLite with one writer thread and one thread for reading.
//!
//! Invariant: time never runs backwards and never stands still. The latest instant that was
//! used is kept in the database, in the transaction that used it. A second process on the
//! same file is refused.

mod ballast;
#[cfg(feature = "simulation")]
mod inline;
mod inspect;
mod inventory;
mod read;
mod schema;
mod tx;
mod writer;

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{
    Clock, Counts, Lease, LeaseId, Root, Sighting, Standing, Store, StoreError, Task, TaskId,
    Write, Written,
};
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

#[cfg(feature = "simulation")]
pub use inline::{InlineReplica, InlineSqlite};

use crate::{
    Incarnation,
    group::{Job, QUEUE_MAX},
};

/// Where the database is.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The file; made with mode 0600 if it is not there.
    pub path: PathBuf,
}

/// Leases, tasks and audit in one file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: mpsc::Sender<Command>,
    reader: mpsc::Sender<Run>,
    time: Arc<Time>,
    // Held as long as the store is: the operating system lets go of it when the process dies.
    // None when it was opened for reading.
    _lock: Option<File>,
}

/// What the writer thread is asked.
pub(crate) enum Command {
    /// A change by the engine's rules.
    Change(Box<Job>),
    /// Anything else that writes.
    Run(Run),
}

/// Something to do with a connection on its thread.
pub(crate) type Run = Box<dyn FnOnce(&mut Connection) + Send>;

/// The store's clock: the wall clock while that goes forward, and at least as fast as the
/// process's own time. A wall clock that is set back neither takes it back nor stops it, so
/// that what was granted for five minutes ends after five minutes.
#[derive(Debug)]
pub(crate) struct Time {
    clock: Arc<dyn Clock>,
    /// The latest answer, and how long the process had been running then.
    last: Mutex<(Timestamp, Duration)>,
}

/// A clock that is further behind than this was set wrong once, or is now.
const BEHIND_MAX: Duration = Duration::from_mins(5);

impl Time {
    fn new(clock: Arc<dyn Clock>, seen: Timestamp) -> Self {
        let behind = seen.since(clock.now());
        if behind > BEHIND_MAX {
            tracing::error!(store = %seen, behind_seconds = behind.as_secs(), "store.clock.behind");
        }
        let last = Mutex::new((seen, clock.running()));
        Self { clock, last }
    }

    /// How long the process has been running.
    pub(crate) fn running(&self) -> Duration {
        self.clock.running()
    }

    /// Now, and never before any earlier answer.
    pub(crate) fn now(&self) -> Timestamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let running = self.clock.running();
        let at_least = last.0.plus(running.saturating_sub(last.1));
        let now = self.clock.now().max(at_least);
        *last = (now, running);
        now
    }
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("`{path}` is in use by another process")]
    InUse { path: PathBuf },
    #[error("`{path}` cannot be opened")]
    File { path: PathBuf, source: std::io::Error },
}

impl SqliteStore {
    /// Opens the file, brings its schema up to date and opens this incarnation's audit chain.
    #[expect(clippy::unused_async, reason = "the same signature as the other store's")]
    pub async fn open(
        options: &SqliteOptions,
        incarnation: Incarnation,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, StoreError> {
        let lock = lock(&options.path).map_err(StoreError::unavailable)?;
        let mut connection = connect(&options.path).map_err(StoreError::unavailable)?;
        let reads = connect(&options.path).map_err(StoreError::unavailable)?;
        let seen = schema::migrate(&mut connection)?;
        free_claims(&connection).map_err(StoreError::unavailable)?;
        let time = Arc::new(Time::new(clock, seen));
        let chain = writer::open_chain(&mut connection, &incarnation, &time)?;
        let (writer, commands) = mpsc::channel(QUEUE_MAX);
        let (reader, runs) = mpsc::channel::<Run>(QUEUE_MAX);
        let for_writer = Arc::clone(&time);
        let ballast = ballast::Ballast::beside(&options.path);
        thread("dayfly-store", move || {
            writer::Writer::new(connection, chain, incarnation, for_writer, ballast).run(commands);
        })?;
        thread("dayfly-reads", move || read_until_closed(reads, runs))?;
        Ok(Arc::new(Self { writer, reader, time, _lock: Some(lock) }))
    }

    /// Opens the file to look at what is there, beside a broker that works on it. Writes are
    /// refused.
    pub fn open_for_reading(
        options: &SqliteOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reads = Connection::open_with_flags(&options.path, flags);
        let reads = reads.map_err(StoreError::unavailable)?;
        reads.busy_timeout(BUSY).map_err(StoreError::unavailable)?;
        // The writer's receiver is dropped at once, so that whatever is written is refused.
        let (writer, _) = mpsc::channel(1);
        let (reader, runs) = mpsc::channel::<Run>(QUEUE_MAX);
        thread("dayfly-reads", move || read_until_closed(reads, runs))?;
        let time = Arc::new(Time::new(clock, Timestamp::EPOCH));
        Ok(Arc::new(Self { writer, reader, time, _lock: None }))
    }

    /// Waits until every change that was asked for so far is done.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.change(|_| Ok(())).await {
            tracing::warn!(%error, "store.close");
        }
    }

    /// Reads on the reading thread.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, result) = oneshot::channel();
        let run: Run = Box::new(move |connection| drop(answer.send(read(connection))));
        self.reader.send(run).await.map_err(|_| StoreError::unavailable("store closed"))?;
        result.await.unwrap_or_else(|_| Err(StoreError::unavailable("store closed")))
    }

    /// Changes something that has no part in the engine's rules, on the writer thread.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, result) = oneshot::channel();
        let run: Run = Box::new(move |connection| drop(answer.send(change(connection))));
        let sent = self.writer.send(Command::Run(run)).await;
        sent.map_err(|_| StoreError::unavailable("store closed"))?;
        result.await.unwrap_or_else(|_| Err(StoreError::unavailable("store closed")))
    }
}

/// Whoever holds the lock is alone: what an earlier process had claimed when it died is nobody's,
/// and need not wait until the claim runs out.
fn free_claims(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE leases SET claim_owner = NULL, claim_since = NULL, claim_until = NULL,
            due_at = COALESCE(next_attempt_at, revoking_at), epoch = epoch + 1
         WHERE claim_owner IS NOT NULL AND state = 'revoking'",
        [],
    )
}

/// A process that dies, however it dies, lets go of this lock.
fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let at = PathBuf::from(name);
    let failed = |source| OpenError::File { path: at.clone(), source };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&at)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(OpenError::InUse { path: path.to_path_buf() })
        }
        Err(std::fs::TryLockError::Error(source)) => {
            Err(OpenError::File { path: at.clone(), source })
        }
    }
}

/// How long a connection waits for the other one.
const BUSY: Duration = Duration::from_secs(5);

fn connect(path: &Path) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
    let failed = |source| OpenError::File { path: path.to_path_buf(), source };
    // Made before SQLite makes it, so that nobody else can ever read it; the files that
    // SQLite puts beside it take over its mode.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    keep_statements(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: a commit that was answered survives a power failure.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

/// A statement is parsed once: the cache has room for all of them, and a plan does not depend
/// on what is bound to it, which SQLite would otherwise plan anew at each binding.
fn keep_statements(connection: &Connection) -> rusqlite::Result<()> {
    const STATEMENTS: usize = 128;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map(drop).map_err(StoreError::unavailable)
}

fn read_until_closed(mut connection: Connection, mut runs: mpsc::Receiver<Run>) {
    while let Some(run) = runs.blocking_recv() {
        run(&mut connection);
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        let (answer, result) = oneshot::channel();
        let sent = self.writer.send(Command::Change(Box::new(Job { write, answer }))).await;
        sent.map_err(|_| StoreError::unavailable("store closed"))?;
        result.await.unwrap_or_else(|_| Err(StoreError::Unknown("store closed".into())))
    }

    async fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        self.read(move |connection| read::lease(connection, id)).await
    }

    async fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.read(move |connection| read::task(connection, id)).await
    }

    async fn task_by_token(&self, hash: [u8; 32]) -> Result<Option<Task>, StoreError> {
        self.read(move |connection| read::task_by_token(connection, hash)).await
    }

    async fn counts(&self, task: TaskId) -> Result<Counts, StoreError> {
        self.read(move |connection| read::counts(connection, task)).await
    }

    async fn next_due(&self, backend: &str) -> Result<Option<Duration>, StoreError> {
        let backend = backend.to_owned();
        let due = self.read(move |connection| read::next_due(connection, &backend)).await?;
        Ok(due.map(|due| due.since(self.time.now())))
    }

    async fn next_task_due(&self) -> Result<Option<Duration>, StoreError> {
        let due = self.read(|connection| read::next_task_due(connection)).await?;
        Ok(due.map(|due| due.since(self.time.now())))
    }

    async fn installation(&self) -> Result<Uuid, StoreError> {
        self.read_installation().await
    }

    async fn standing(&self) -> Result<Standing, StoreError> {
        self.read(|connection| read::standing(connection)).await
    }

    async fn root(&self, backend: &str) -> Result<Option<Root>, StoreError> {
        let backend = backend.to_owned();
        self.read(move |connection| read::root(connection, &backend)).await
    }

    async fn turn(&self, backend: &str) -> Result<u64, StoreError> {
        let backend = backend.to_owned();
        let (turn, _) = self.read(move |connection| read::turn(connection, &backend)).await?;
        Ok(turn)
    }

    async fn sightings(&self, ids: &[LeaseId]) -> Result<Vec<Sighting>, StoreError> {
        let ids = ids.to_vec();
        self.read(move |connection| read::sightings(connection, &ids)).await
    }

    async fn living_of(
        &self,
        backend: &str,
        after: Option<LeaseId>,
        limit: u32,
    ) -> Result<Vec<Lease>, StoreError> {
        let backend = backend.to_owned();
        self.read(move |connection| read::living_of(connection, &backend, after, limit)).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        // Through the thread: a store whose thread is gone has no time.
        let time = Arc::clone(&self.time);
        self.read(move |_| Ok(time.now())).await
    }
}
