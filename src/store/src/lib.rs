//! Leases, tasks and the audit log on PostgreSQL and on embedded SQLite.
//!
//! Invariant: one writer per replica owns the replica's audit chain and groups whatever
//! changes arrived while the last commit was in flight into one transaction; the rules of a
//! change are `dayfly_lease::transact` and not repeated here.

mod anchor;
mod group;
mod inspect;
mod inventory;
mod postgres;
mod row;
mod sqlite;

use std::sync::Arc;

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{
    Disabled, JobKey, ReplicaId, StoreError, Task, TaskId,
    audit::{Head, Record, Signer},
};
use uuid::Uuid;

pub use anchor::{AuditReport, checkpoint, verify};
pub use inspect::{Inspected, Look, TaskSeen};
pub use inventory::{ApiKey, ApiKeyAdded, AuditFilter, LeaseFilter, Living, Page, TaskFilter};
pub use postgres::{PostgresOptions, PostgresStore};
#[cfg(feature = "simulation")]
pub use sqlite::{InlineReplica, InlineSqlite};
pub use sqlite::{SqliteOptions, SqliteStore};

/// What a store is opened as.
#[derive(Clone, Debug)]
pub struct Incarnation {
    /// This start of this replica; its audit chain has the same id.
    pub replica: ReplicaId,
    /// Signs receipts and checkpoints.
    pub signer: Signer,
}

/// A store, whichever it is. The engine sees it as `dayfly_lease::Store`; what only the
/// server reads is plain methods here.
#[derive(Clone, Debug)]
pub enum AnyStore {
    /// PostgreSQL, or what speaks it.
    Postgres(Arc<PostgresStore>),
    /// Embedded SQLite.
    Sqlite(Arc<SqliteStore>),
}

impl AnyStore {
    /// The store as the engine sees it.
    pub fn engine_store(&self) -> Arc<dyn dayfly_lease::Store> {
        match self {
            Self::Postgres(store) => Arc::clone(store) as Arc<dyn dayfly_lease::Store>,
            Self::Sqlite(store) => Arc::clone(store) as Arc<dyn dayfly_lease::Store>,
        }
    }

    /// The installation's id, made when the store was first opened.
    pub async fn installation(&self) -> Result<Uuid, StoreError> {
        match self {
            Self::Postgres(store) => store.read_installation().await,
            Self::Sqlite(store) => store.read_installation().await,
        }
    }

    /// Leases, newest first.
    pub async fn leases(
        &self,
        filter: &LeaseFilter,
    ) -> Result<Page<dayfly_lease::Lease>, StoreError> {
        match self {
            Self::Postgres(store) => store.leases(filter).await,
            Self::Sqlite(store) => store.leases(filter).await,
        }
    }

    /// Tasks, newest first.
    pub async fn tasks(&self, filter: &TaskFilter) -> Result<Page<Task>, StoreError> {
        match self {
            Self::Postgres(store) => store.tasks(filter).await,
            Self::Sqlite(store) => store.tasks(filter).await,
        }
    }

    /// Up to `limit` jobs of an issuer that have open tasks, in order after `after`.
    pub async fn open_jobs(
        &self,
        issuer: String,
        after: String,
        limit: u32,
    ) -> Result<Vec<JobKey>, StoreError> {
        let keys = match self {
            Self::Postgres(store) => store.open_jobs(issuer, after, limit).await,
            Self::Sqlite(store) => store.open_jobs(issuer, after, limit).await,
        }?;
        // What is no key was written by nobody here, and nobody can say that it ended.
        Ok(keys.into_iter().filter_map(JobKey::parse).collect())
    }

    /// Audit records, oldest first.
    pub async fn records(&self, filter: &AuditFilter) -> Result<Page<Record>, StoreError> {
        match self {
            Self::Postgres(store) => store.records(filter).await,
            Self::Sqlite(store) => store.records(filter).await,
        }
    }

    /// The head of every audit chain, as the store keeps it beside the records.
    pub async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        match self {
            Self::Postgres(store) => store.heads().await,
            Self::Sqlite(store) => store.heads().await,
        }
    }

    /// Up to `limit` records of one chain after `seq`, in order.
    pub async fn chain_records(
        &self,
        chain: ReplicaId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        match self {
            Self::Postgres(store) => store.chain_records(chain, after, limit).await,
            Self::Sqlite(store) => store.chain_records(chain, after, limit).await,
        }
    }

    /// The leases that may live, counted by backend and state.
    pub async fn living(&self) -> Result<Vec<Living>, StoreError> {
        match self {
            Self::Postgres(store) => store.living().await,
            Self::Sqlite(store) => store.living().await,
        }
    }

    /// Leases' rows as they stand, by id, with their evidence.
    pub async fn inspect(&self, look: Look) -> Result<Vec<Inspected>, StoreError> {
        match self {
            Self::Postgres(store) => store.inspect(look).await,
            Self::Sqlite(store) => store.inspect(look).await,
        }
    }

    /// How many rows of leases were put aside because they cannot be read.
    pub async fn quarantined(&self) -> Result<u64, StoreError> {
        match self {
            Self::Postgres(store) => store.quarantined().await,
            Self::Sqlite(store) => store.quarantined().await,
        }
    }

    /// Has the rows that were put aside looked at again; answers with how many. What still
    /// cannot be read is put aside again when it is due.
    pub async fn look_again(&self) -> Result<u64, StoreError> {
        match self {
            Self::Postgres(store) => store.look_again().await,
            Self::Sqlite(store) => store.look_again().await,
        }
    }

    /// Adds an API key's hash, unless the store's clock is past `deadline`.
    pub async fn add_api_key(
        &self,
        key: ApiKey,
        deadline: Timestamp,
    ) -> Result<ApiKeyAdded, StoreError> {
        match self {
            Self::Postgres(store) => store.add_api_key(key, deadline).await,
            Self::Sqlite(store) => store.add_api_key(key, deadline).await,
        }
    }

    /// Removes API keys; those that are not there are no error.
    pub async fn remove_api_keys(&self, handles: Vec<String>) -> Result<(), StoreError> {
        match self {
            Self::Postgres(store) => store.remove_api_keys(handles).await,
            Self::Sqlite(store) => store.remove_api_keys(handles).await,
        }
    }

    /// The API key with this hash.
    pub async fn api_key_by_hash(&self, hash: [u8; 32]) -> Result<Option<ApiKey>, StoreError> {
        match self {
            Self::Postgres(store) => store.api_key_by_hash(hash).await,
            Self::Sqlite(store) => store.api_key_by_hash(hash).await,
        }
    }

    /// Those of `handles` that are there.
    pub async fn api_keys_there(&self, handles: Vec<String>) -> Result<Vec<String>, StoreError> {
        match self {
            Self::Postgres(store) => store.api_keys_there(handles).await,
            Self::Sqlite(store) => store.api_keys_there(handles).await,
        }
    }

    /// Moves an API key's expiry; false if it is not there.
    pub async fn extend_api_key(
        &self,
        handle: String,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        match self {
            Self::Postgres(store) => store.extend_api_key(handle, until).await,
            Self::Sqlite(store) => store.extend_api_key(handle, until).await,
        }
    }

    /// Up to `limit` API keys whose handles begin with `prefix`, after `after`, in order, with
    /// their expiries.
    pub async fn list_api_keys(
        &self,
        prefix: String,
        after: String,
        limit: u32,
    ) -> Result<Vec<(String, Timestamp)>, StoreError> {
        match self {
            Self::Postgres(store) => store.list_api_keys(prefix, after, limit).await,
            Self::Sqlite(store) => store.list_api_keys(prefix, after, limit).await,
        }
    }

    /// Up to `limit` open tasks, by id, after `after`; and the id to go on after, if there may be
    /// more. A task that cannot be read is reported and left out.
    pub async fn open_tasks(
        &self,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<(Vec<Task>, Option<TaskId>), StoreError> {
        match self {
            Self::Postgres(store) => store.open_tasks(after, limit).await,
            Self::Sqlite(store) => store.open_tasks(after, limit).await,
        }
    }

    /// Since when and why an identity opens no tasks, if it is disabled.
    pub async fn disabled(&self, principal: &str) -> Result<Option<Disabled>, StoreError> {
        match self {
            Self::Postgres(store) => store.disabled(principal).await,
            Self::Sqlite(store) => store.disabled(principal).await,
        }
    }

    /// Up to `limit` disabled identities after `after`, in the order of their names.
    pub async fn all_disabled(
        &self,
        after: String,
        limit: u32,
    ) -> Result<Page<Disabled>, StoreError> {
        match self {
            Self::Postgres(store) => store.all_disabled(&after, limit).await,
            Self::Sqlite(store) => store.all_disabled(after, limit).await,
        }
    }

    /// Forgets replayed tokens that have ended themselves, and cut-offs that no token can be as
    /// old as any more; answers with how many.
    pub async fn forget_replayed(&self) -> Result<u64, StoreError> {
        match self {
            Self::Postgres(store) => store.forget_replayed().await,
            Self::Sqlite(store) => store.forget_replayed().await,
        }
    }

    /// Finishes what was asked for and closes the store.
    pub async fn close(&self) {
        match self {
            Self::Postgres(store) => store.close().await,
            Self::Sqlite(store) => store.close().await,
        }
    }
}
