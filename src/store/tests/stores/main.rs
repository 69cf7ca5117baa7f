//! The conformance suite on both databases, and what only a database can get wrong.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test says by panicking what does not hold"
)]

mod postgres;
mod sqlite;

use std::sync::Arc;

use std::time::Duration;

use dayfly_backend_sdk::{Expiry, HandlePrefix, Plan, Timestamp};
use dayfly_lease::{
    Clock, IdempotencyKey, Intent, LeaseId, NewTask, ReplicaId, Store, SystemClock, SystemEntropy,
    TaskEnd, TaskId, Write, Written,
    audit::{Entry, Signer},
    conformance,
};
use dayfly_store::{AnyStore, Incarnation, verify};

fn incarnation() -> Incarnation {
    let now = SystemClock.now();
    Incarnation {
        replica: ReplicaId::new(now, &SystemEntropy::new()),
        signer: Signer::from_seed(&[7; 32]).unwrap(),
    }
}

/// The suite, then the audit log that it left behind.
async fn conforms(store: AnyStore) {
    conformance::run(store.engine_store()).await;
    let signer = Signer::from_seed(&[7; 32]).unwrap();
    let report = verify(&store, signer.public_key(), &[]).await.unwrap();
    assert!(report.holds(), "{:?}", report.faults);
    assert!(report.receipts >= 2, "the suite leaves receipts");
    let other = Signer::from_seed(&[8; 32]).unwrap();
    let report = verify(&store, other.public_key(), &[]).await.unwrap();
    assert!(!report.holds(), "another installation's key verifies nothing");
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// A clock that can be set.
#[derive(Debug)]
struct SetClock {
    wall: std::sync::atomic::AtomicI64,
    running: std::sync::atomic::AtomicU64,
}

#[async_trait::async_trait]
impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.wall.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn running(&self) -> Duration {
        Duration::from_secs(self.running.load(std::sync::atomic::Ordering::SeqCst))
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// An open task.
async fn task(store: &dyn Store, token: u8) -> TaskId {
    let id = TaskId::new(store.now().await.unwrap(), &SystemEntropy::new());
    let task = NewTask {
        id,
        principal: "ci|repo".into(),
        issuer: "ci".into(),
        identity: serde_json::json!({}),
        purpose: "test".into(),
        token_hash: [token; 32],
        ttl: Duration::from_mins(1),
        heartbeat: None,
    };
    let decision = Entry::new("task.opened", "ci|repo");
    let write = Write::OpenTask { task: Box::new(task), replay: None, decision };
    store.write(write).await.unwrap();
    id
}

async fn intent(
    store: &dyn Store,
    task: TaskId,
    backend: &str,
    key: Option<IdempotencyKey>,
) -> Intent {
    let id = LeaseId::new(store.now().await.unwrap(), &SystemEntropy::new());
    Intent {
        id,
        handle: HandlePrefix::parse("t_").unwrap().handle(id.uuid(), 63).unwrap(),
        task,
        role: "reader".into(),
        backend: backend.to_owned(),
        ttl: Duration::from_secs(30),
        ttl_max: Duration::from_secs(30),
        ttl_min: Duration::from_secs(1),
        expiry: Expiry::None,
        mint_within: Duration::from_secs(15),
        settle_within: Duration::from_secs(5),
        renewable: false,
        belts: Vec::new(),
        plan: Plan::default(),
        quotas: Vec::new(),
        key,
        decision: Entry::new("lease.intended", "ci|repo"),
    }
}

/// Two leases at `backend` that must die.
async fn two_condemned(store: &dyn Store, backend: &str) -> (LeaseId, LeaseId) {
    let token = u8::try_from(backend.len()).unwrap();
    let task = task(store, token).await;
    let mut leases = Vec::new();
    for _ in 0..2 {
        let intent = intent(store, task, backend, None).await;
        leases.push(intent.id);
        store.write(Write::Intend(Box::new(intent))).await.unwrap();
    }
    let end = TaskEnd::Completed;
    store.write(Write::CloseTask { task, end, actor: "x".into() }).await.unwrap();
    (leases[0], leases[1])
}

async fn claimed(store: &dyn Store, backend: &str) -> Vec<LeaseId> {
    let owner = ReplicaId::new(store.now().await.unwrap(), &SystemEntropy::new());
    let hold = Duration::from_secs(30);
    let backend = backend.into();
    let claim = Write::Claim { backend, owner, limit: 10, hold, believed: None };
    match store.write(claim).await.unwrap() {
        Written::Claimed { leases, .. } => leases.into_iter().map(|lease| lease.id).collect(),
        other => panic!("answered {other:?}"),
    }
}
