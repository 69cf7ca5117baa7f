//! The API-key backend's table of hashes, kept in our own store.
//!
//! Invariant: what the store cannot answer is an unknown outcome, never "not there".

use async_trait::async_trait;
use dayfly_backend_api_key::{Insertion, KeyRecord, KeyStore};
use dayfly_backend_sdk::{Error, ErrorKind, Handle, HandlePrefix, Listed, Timestamp};
use dayfly_lease::StoreError;
use dayfly_store::{AnyStore, ApiKey, ApiKeyAdded};
use uuid::Uuid;

/// The store as the backend sees it.
#[derive(Clone, Debug)]
pub struct StoredKeys(AnyStore);

impl StoredKeys {
    /// Over `store`.
    pub fn new(store: AnyStore) -> Self {
        Self(store)
    }
}

fn failed(error: StoreError) -> Error {
    Error::new(ErrorKind::UnknownOutcome, "the table of API keys did not answer").with_source(error)
}

fn names(handles: &[Handle]) -> Vec<String> {
    handles.iter().map(|handle| handle.as_str().to_owned()).collect()
}

/// A name in the table that is no handle was not written by us.
fn handle(name: String) -> Result<Handle, Error> {
    Handle::parse(name).map_err(|e| {
        Error::new(ErrorKind::Invalid, "the table of API keys is damaged").with_source(e)
    })
}

#[async_trait]
impl KeyStore for StoredKeys {
    async fn now(&self) -> Result<Timestamp, Error> {
        self.0.engine_store().now().await.map_err(failed)
    }

    async fn insert(&self, record: &KeyRecord, deadline: Timestamp) -> Result<Insertion, Error> {
        let key = ApiKey {
            handle: record.handle.as_str().to_owned(),
            hash: record.hash,
            principal: record.principal.clone(),
            lease: record.lease.clone(),
            scopes: record.scopes.clone(),
            expires_at: record.expires_at,
        };
        match self.0.add_api_key(key, deadline).await.map_err(failed)? {
            ApiKeyAdded::Late => Ok(Insertion::Late),
            ApiKeyAdded::Stored => Ok(Insertion::Stored),
            ApiKeyAdded::Taken => Ok(Insertion::Taken),
        }
    }

    async fn remove(&self, handles: &[Handle]) -> Result<(), Error> {
        self.0.remove_api_keys(names(handles)).await.map_err(failed)
    }

    async fn find(&self, hash: &[u8; 32]) -> Result<Option<KeyRecord>, Error> {
        let Some(key) = self.0.api_key_by_hash(*hash).await.map_err(failed)? else {
            return Ok(None);
        };
        Ok(Some(KeyRecord {
            handle: handle(key.handle)?,
            hash: key.hash,
            scopes: key.scopes,
            principal: key.principal,
            lease: key.lease,
            expires_at: key.expires_at,
        }))
    }

    async fn live(&self, handles: &[Handle]) -> Result<Vec<Handle>, Error> {
        let there = self.0.api_keys_there(names(handles)).await.map_err(failed)?;
        there.into_iter().map(handle).collect()
    }

    async fn extend(&self, handle: &Handle, until: Timestamp) -> Result<bool, Error> {
        self.0.extend_api_key(handle.as_str().to_owned(), until).await.map_err(failed)
    }

    async fn list(
        &self,
        prefix: &HandlePrefix,
        after: Option<&Handle>,
        limit: u32,
    ) -> Result<Vec<Listed>, Error> {
        let after = after.map_or_else(String::new, |handle| handle.as_str().to_owned());
        let listed = self.0.list_api_keys(prefix.as_str().to_owned(), after, limit).await;
        let listed = listed.map_err(failed)?.into_iter();
        listed
            .map(|(name, at)| Ok(Listed { handle: handle(name)?, expires_at: Some(at) }))
            .collect()
    }

    async fn installation(&self) -> Result<Uuid, Error> {
        self.0.installation().await.map_err(failed)
    }
}
