//! Sealing: giving an entry its place, its hash and, for receipts, its signature.
//!
//! Invariant: the encoding that is hashed is unambiguous. Every field is preceded by its
//! length, so no two different records have the same bytes.

use std::{fmt, sync::Arc};

use dayfly_backend_sdk::Timestamp;
use ring::{
    digest::{Context, SHA256},
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::Value;

use super::{Entry, Record};
use crate::ReplicaId;

/// Length of an Ed25519 seed in bytes (RFC 8032 section 5.1.5).
pub const SEED_LEN: usize = 32;

/// Signs receipts and checkpoints with the installation's key.
#[derive(Clone)]
pub struct Signer(Arc<Ed25519KeyPair>);

impl Signer {
    /// From the seed; `None` if it is not one.
    pub fn from_seed(seed: &[u8]) -> Option<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(|pair| Self(Arc::new(pair)))
    }

    /// The public key, with which anybody can check a receipt.
    pub fn public_key(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn sign(&self, hash: &[u8; 32]) -> Vec<u8> {
        self.0.sign(hash).as_ref().to_vec()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(…)")
    }
}

/// Where a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The chain.
    pub chain: ReplicaId,
    /// The last record's place; 0 for an empty chain.
    pub seq: u64,
    /// The last record's hash; zeros for an empty chain.
    pub hash: [u8; 32],
}

/// A replica's own chain. A transaction works on a copy and keeps it when it has committed.
#[derive(Clone, Debug)]
pub struct Chain {
    head: Head,
    signer: Signer,
}

impl Chain {
    /// A chain that continues from `head`.
    pub fn at(head: Head, signer: Signer) -> Self {
        Self { head, signer }
    }

    /// An empty chain.
    pub fn empty(chain: ReplicaId, signer: Signer) -> Self {
        Self::at(Head { chain, seq: 0, hash: [0; 32] }, signer)
    }

    /// The same chain before its first record.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self::empty(self.head.chain, self.signer.clone())
    }

    /// Where it ends.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Gives `entry` its place.
    pub fn seal(&mut self, entry: Entry, at: Timestamp) -> Record {
        let signed = entry.is_signed();
        let mut record = Record {
            chain: self.head.chain,
            seq: self.head.seq + 1,
            at,
            event: entry.event.to_owned(),
            actor: entry.actor,
            task: entry.task,
            lease: entry.lease,
            detail: Value::Object(entry.detail).to_string(),
            prev: self.head.hash,
            hash: [0; 32],
            signature: None,
        };
        record.hash = hash_of(&record);
        record.signature = signed.then(|| self.signer.sign(&record.hash));
        self.head = Head { chain: record.chain, seq: record.seq, hash: record.hash };
        record
    }
}

/// The hash that a record must have.
pub fn hash_of(record: &Record) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let mut field = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    field(b"dayfly-audit-v1");
    field(record.chain.uuid().as_bytes());
    field(&record.seq.to_be_bytes());
    field(&record.at.micros().to_be_bytes());
    field(record.event.as_bytes());
    field(record.actor.as_bytes());
    field(record.task.map(|id| *id.uuid().as_bytes()).as_ref().map_or(&[], |b| b.as_slice()));
    field(record.lease.map(|id| *id.uuid().as_bytes()).as_ref().map_or(&[], |b| b.as_slice()));
    field(record.detail.as_bytes());
    field(&record.prev);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
