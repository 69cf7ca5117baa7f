//! The keys in memory: the fake for tests and simulation.
//!
//! Invariant: its clock moves only when [`MemoryKeyStore::set_now`] moves it.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use dayfly_backend_sdk::{Error, Handle, HandlePrefix, Listed, Timestamp};
use uuid::Uuid;

use crate::{Insertion, KeyRecord, KeyStore};

/// A [`KeyStore`] that forgets everything when it is dropped.
#[derive(Debug)]
pub struct MemoryKeyStore(Mutex<State>);

#[derive(Debug)]
struct State {
    now: Timestamp,
    keys: BTreeMap<Handle, KeyRecord>,
}

impl MemoryKeyStore {
    /// Empty, with its clock at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(Mutex::new(State { now, keys: BTreeMap::new() }))
    }

    /// Moves the clock.
    pub fn set_now(&self, now: Timestamp) {
        self.state().now = now;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KeyStore for MemoryKeyStore {
    async fn now(&self) -> Result<Timestamp, Error> {
        Ok(self.state().now)
    }

    async fn insert(&self, record: &KeyRecord, deadline: Timestamp) -> Result<Insertion, Error> {
        let mut state = self.state();
        if state.now > deadline {
            return Ok(Insertion::Late);
        }
        if state.keys.contains_key(&record.handle) {
            return Ok(Insertion::Taken);
        }
        state.keys.insert(record.handle.clone(), record.clone());
        Ok(Insertion::Stored)
    }

    async fn remove(&self, handles: &[Handle]) -> Result<(), Error> {
        let mut state = self.state();
        for handle in handles {
            state.keys.remove(handle);
        }
        Ok(())
    }

    async fn find(&self, hash: &[u8; 32]) -> Result<Option<KeyRecord>, Error> {
        Ok(self.state().keys.values().find(|record| record.hash == *hash).cloned())
    }

    async fn live(&self, handles: &[Handle]) -> Result<Vec<Handle>, Error> {
        let state = self.state();
        Ok(handles.iter().filter(|handle| state.keys.contains_key(handle)).cloned().collect())
    }

    async fn extend(&self, handle: &Handle, until: Timestamp) -> Result<bool, Error> {
        let mut state = self.state();
        let Some(record) = state.keys.get_mut(handle) else { return Ok(false) };
        record.expires_at = until;
        Ok(true)
    }

    async fn list(
        &self,
        prefix: &HandlePrefix,
        after: Option<&Handle>,
        limit: u32,
    ) -> Result<Vec<Listed>, Error> {
        let state = self.state();
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        let under = state.keys.range((lower, Bound::Unbounded));
        let listed = |(handle, record): (&Handle, &KeyRecord)| Listed {
            handle: handle.clone(),
            expires_at: Some(record.expires_at),
        };
        Ok(under
            .filter(|(handle, _)| handle.as_str().starts_with(prefix.as_str()))
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .map(listed)
            .collect())
    }

    async fn installation(&self) -> Result<Uuid, Error> {
        Ok(Uuid::nil())
    }
}
