//! Where the keys' hashes are kept.
//!
//! Invariant: one clock. The store that keeps the keys also says what time it is, at the
//! insert and at every check.

use std::fmt;

use async_trait::async_trait;
use dayfly_backend_sdk::{Error, Handle, HandlePrefix, Listed, Timestamp};
use uuid::Uuid;

/// One key, without the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its name.
    pub handle: Handle,
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
    /// What it is good for.
    pub scopes: Vec<String>,
    /// Who it was minted for.
    pub principal: String,
    /// The lease that it belongs to.
    pub lease: String,
    /// After this it is refused.
    pub expires_at: Timestamp,
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// The deadline had passed by the store's clock; nothing was kept.
    Late,
    /// It is kept.
    Stored,
    /// The handle is taken; what was there is untouched.
    Taken,
}

/// The table of keys. The server keeps it in its own database.
#[async_trait]
pub trait KeyStore: Send + Sync + fmt::Debug {
    /// The store's clock.
    async fn now(&self) -> Result<Timestamp, Error>;

    /// Adds `record`, unless its handle exists or the store's clock is past `deadline`; both
    /// are judged in the statement that inserts.
    async fn insert(&self, record: &KeyRecord, deadline: Timestamp) -> Result<Insertion, Error>;

    /// Removes these; those that are not there are no error.
    async fn remove(&self, handles: &[Handle]) -> Result<(), Error>;

    /// The record of a hash, expired or not.
    async fn find(&self, hash: &[u8; 32]) -> Result<Option<KeyRecord>, Error>;

    /// Which of these exist, in any order.
    async fn live(&self, handles: &[Handle]) -> Result<Vec<Handle>, Error>;

    /// Moves an expiry, later or earlier; `false` when there is no such key.
    async fn extend(&self, handle: &Handle, until: Timestamp) -> Result<bool, Error>;

    /// Up to `limit` keys under `prefix`, in the byte order of their handles, after `after`.
    async fn list(
        &self,
        prefix: &HandlePrefix,
        after: Option<&Handle>,
        limit: u32,
    ) -> Result<Vec<Listed>, Error>;

    /// The installation that the store is of.
    async fn installation(&self) -> Result<Uuid, Error>;
}
