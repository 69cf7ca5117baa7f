//! The store in memory keeps every rule that the real stores keep.

use std::sync::Arc;

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{
    ReplicaId, SystemClock, SystemEntropy,
    audit::{Chain, ChainVerifier, Signer},
    conformance,
    memory::MemoryStore,
};

#[tokio::test]
async fn the_store_in_memory_conforms() {
    let signer = Signer::from_seed(&[7; 32]).unwrap();
    let replica = ReplicaId::new(Timestamp::from_seconds(1), &SystemEntropy::new());
    let chain = Chain::empty(replica, signer.clone());
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock), chain));
    conformance::run(Arc::clone(&store) as Arc<dyn dayfly_lease::Store>).await;
    let mut verifier = ChainVerifier::new(replica, signer.public_key(), Vec::new());
    let records = store.records().await;
    assert!(records.iter().any(|record| record.event == "lease.revoked"));
    for record in &records {
        verifier.record(record).unwrap();
    }
    verifier.finish().unwrap();
}
