//! The audit log: one hash chain per incarnation of a replica.
//!
//! Invariant: a record is written in the transaction of the change that it tells of, and
//! holds no secret. Its hash covers every byte of it and the hash of the record before.
//! One global chain would put every mint of every replica behind one row.

mod chain;
mod verify;

pub use chain::{Chain, Head, SEED_LEN, Signer, hash_of};
pub use verify::{ChainVerifier, Fault};

use dayfly_backend_sdk::Timestamp;
use serde_json::{Map, Value};

use crate::{LeaseId, Person, ReplicaId, TaskId};

/// What happened, before the store gave it its place and time.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// `area.verb`, for example `lease.revoked`.
    pub event: &'static str,
    /// Who caused it: a principal, `reaper`, `operator`.
    pub actor: String,
    /// The task it concerns.
    pub task: Option<TaskId>,
    /// The lease it concerns.
    pub lease: Option<LeaseId>,
    /// What else there is to say. Never a secret.
    pub detail: Map<String, Value>,
}

impl Entry {
    /// An entry without detail.
    pub fn new(event: &'static str, actor: impl Into<String>) -> Self {
        Self { event, actor: actor.into(), task: None, lease: None, detail: Map::new() }
    }

    /// Names the task.
    #[must_use]
    pub fn task(mut self, task: TaskId) -> Self {
        self.task = Some(task);
        self
    }

    /// Names the lease.
    #[must_use]
    pub fn lease(mut self, lease: LeaseId) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }

    /// Names the person on whose behalf it is done, where there is one.
    #[must_use]
    pub fn on_behalf_of(self, person: Option<&Person>) -> Self {
        match person {
            Some(person) => self.with("on_behalf_of", person.principal.as_str()),
            None => self,
        }
    }

    /// Whether the record is signed by itself: receipts of a verified death, and what a
    /// verifier anchors a chain in.
    pub fn is_signed(&self) -> bool {
        matches!(self.event, "lease.revoked" | "audit.opened" | "audit.checkpoint")
    }
}

/// A record as the store keeps it. `detail` is the exact text that was hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The chain.
    pub chain: ReplicaId,
    /// Its place in the chain, from 1.
    pub seq: u64,
    /// The store's time.
    pub at: Timestamp,
    /// What happened.
    pub event: String,
    /// Who caused it.
    pub actor: String,
    /// The task it concerns.
    pub task: Option<TaskId>,
    /// The lease it concerns.
    pub lease: Option<LeaseId>,
    /// JSON text.
    pub detail: String,
    /// The hash of the record before; zeros for the first.
    pub prev: [u8; 32],
    /// SHA-256 over all of the above.
    pub hash: [u8; 32],
    /// Ed25519 over the hash, on records that are signed by themselves.
    pub signature: Option<Vec<u8>>,
}
