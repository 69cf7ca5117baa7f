//! Verifying the whole audit log: every chain, against its head and against the other chains.
//!
//! Invariant: memory does not grow with the log; records are read a page at a time.

use std::collections::BTreeMap;

use dayfly_lease::{
    ReplicaId, StoreError,
    audit::{ChainVerifier, Entry, Fault, Head},
};
use serde_json::Value;

use crate::AnyStore;

const PAGE: u32 = 1_000;

/// What a verification saw.
#[derive(Debug, Default)]
pub struct AuditReport {
    /// Chains.
    pub chains: u64,
    /// Records, all chains together.
    pub records: u64,
    /// Receipts among them.
    pub receipts: u64,
    /// Where each chain ends: to be kept elsewhere, and given as `expected` the next time.
    pub heads: Vec<Head>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

impl AuditReport {
    /// Whether nothing is wrong.
    pub fn holds(&self) -> bool {
        self.faults.is_empty()
    }
}

/// A record that anchors where every chain ends now. It is signed when it is sealed.
pub fn checkpoint(heads: &[Head]) -> Entry {
    Entry::new("audit.checkpoint", "engine").with("heads", heads_detail(heads))
}

/// Verifies every chain. `expected` are heads that somebody kept outside the store; without
/// one, a truncation that also changed the table of heads is found only where another chain
/// has anchored the lost records.
pub async fn verify(
    store: &AnyStore,
    public_key: &[u8],
    expected: &[Head],
) -> Result<AuditReport, StoreError> {
    let mut heads = store.heads().await?;
    heads.sort_by_key(|head| head.chain);
    let mut anchors: BTreeMap<ReplicaId, Vec<Head>> = BTreeMap::new();
    for head in expected.iter().chain(&heads) {
        anchors.entry(head.chain).or_default().push(*head);
    }
    // Anchors that stand in other chains are read in a first pass, because a chain may be
    // anchored in one that comes later.
    let chains: Vec<ReplicaId> = anchors.keys().copied().collect();
    for chain in &chains {
        for anchor in anchored_in(store, *chain).await? {
            anchors.entry(anchor.chain).or_default().push(anchor);
        }
    }
    let mut report = AuditReport::default();
    for (chain, anchors) in anchors {
        report.chains += 1;
        verify_chain(store, ChainVerifier::new(chain, public_key, anchors), chain, &mut report)
            .await?;
    }
    Ok(report)
}

async fn verify_chain(
    store: &AnyStore,
    mut verifier: ChainVerifier<'_>,
    chain: ReplicaId,
    report: &mut AuditReport,
) -> Result<(), StoreError> {
    let mut after = 0;
    loop {
        let page = store.chain_records(chain, after, PAGE).await?;
        for record in &page {
            if let Err(fault) = verifier.record(record) {
                report.faults.push(fault);
                return Ok(());
            }
            report.records += 1;
            report.receipts += u64::from(record.event == "lease.revoked");
            after = record.seq;
        }
        if page.len() < PAGE as usize {
            break;
        }
    }
    match verifier.finish() {
        Ok(head) => report.heads.push(head),
        Err(fault) => report.faults.push(fault),
    }
    Ok(())
}

/// The heads of other chains that `chain`'s own records keep.
async fn anchored_in(store: &AnyStore, chain: ReplicaId) -> Result<Vec<Head>, StoreError> {
    let mut anchors = Vec::new();
    let mut after = 0;
    loop {
        let page = store.chain_records(chain, after, PAGE).await?;
        for record in &page {
            after = record.seq;
            if record.event.starts_with("audit.") {
                anchors.extend(heads_in(&record.detail));
            }
        }
        if page.len() < PAGE as usize {
            return Ok(anchors);
        }
    }
}

/// Reads what [`heads_detail`] wrote.
fn heads_in(detail: &str) -> Vec<Head> {
    let Ok(detail) = serde_json::from_str::<Value>(detail) else { return Vec::new() };
    let Some(heads) = detail.get("heads").and_then(Value::as_object) else { return Vec::new() };
    heads.iter().filter_map(|(chain, head)| head_of(chain, head)).collect()
}

fn head_of(chain: &str, head: &Value) -> Option<Head> {
    let (seq, hash) = head.as_str()?.split_once(':')?;
    let hash = data_encoding::HEXLOWER.decode(hash.as_bytes()).ok()?;
    Some(Head {
        chain: chain.parse().ok()?,
        seq: seq.parse().ok()?,
        hash: crate::row::hash(&hash)?,
    })
}

/// The heads of the other chains, for a record that anchors them.
pub(crate) fn heads_detail(heads: &[Head]) -> Value {
    let entry = |head: &Head| {
        let hash = data_encoding::HEXLOWER.encode(&head.hash);
        (head.chain.to_string(), Value::from(format!("{}:{hash}", head.seq)))
    };
    Value::Object(heads.iter().map(entry).collect())
}
