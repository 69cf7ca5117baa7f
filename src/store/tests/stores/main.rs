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

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dayfly_backend_sdk::{Expiry, HandlePrefix, Plan, Timestamp};
use dayfly_lease::{
    Clock, Disabling, Engine, IdempotencyKey, Intent, JobEnd, JobKey, JobKeys, LeaseId, NewTask,
    ReplicaId, Settings, Store, StoreError, SystemClock, SystemEntropy, TaskEnd, TaskId, Write,
    Written,
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
    jobs_of_open_tasks_are_told(&store).await;
    let signer = Signer::from_seed(&[7; 32]).unwrap();
    let report = verify(&store, signer.public_key(), &[]).await.unwrap();
    assert!(report.holds(), "{:?}", report.faults);
    assert!(report.receipts >= 2, "the suite leaves receipts");
    let other = Signer::from_seed(&[8; 32]).unwrap();
    let report = verify(&store, other.public_key(), &[]).await.unwrap();
    assert!(!report.holds(), "another installation's key verifies nothing");
}

/// Each job of the issuer once, in pages, as long as a task of it is open.
async fn jobs_of_open_tasks_are_told(store: &AnyStore) {
    let engine = store.engine_store();
    let key = |text: &str| JobKey::parse(text).unwrap();
    for (token, issuer, job) in [
        (201, "pods", Some("pods|b")),
        (202, "pods", Some("pods|a")),
        (203, "pods", Some("pods|a")),
        (204, "pods", None),
        (205, "others", Some("others|c")),
    ] {
        let keys = JobKeys { run: None, job: job.map(key) };
        let task =
            NewTask { issuer: issuer.into(), keys, ..new_task(engine.as_ref(), token).await };
        open(engine.as_ref(), task).await;
    }
    let page = async |after: &str, limit| {
        store.open_jobs("pods".into(), after.into(), limit).await.unwrap()
    };
    assert_eq!(page("", 10).await, [key("pods|a"), key("pods|b")]);
    assert_eq!(page("", 1).await, [key("pods|a")]);
    assert_eq!(page("pods|a", 1).await, [key("pods|b")]);
    assert!(page("pods|b", 1).await.is_empty());
    let ended = JobEnd {
        key: key("pods|a"),
        end: TaskEnd::Failed,
        actor: "x".into(),
        keep: Duration::from_mins(1),
        remembered_max: 1_000,
        limit: 10,
    };
    engine.write(Write::CloseJob { ended: Box::new(ended), after: None }).await.unwrap();
    assert_eq!(page("", 10).await, [key("pods|b")]);
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
    let task = new_task(store, token).await;
    open(store, task).await
}

fn opened(written: Result<Written, StoreError>) -> TaskId {
    match written.unwrap() {
        Written::Task(task) => task.id,
        other => panic!("answered {other:?}"),
    }
}

async fn opening(store: &dyn Store, token: u8, keys: JobKeys) -> Write {
    let task = NewTask { keys, ..new_task(store, token).await };
    let decision = Entry::new("task.opened", "ci|repo");
    Write::OpenTask { task: Box::new(task), used: Vec::new(), decision }
}

async fn new_task(store: &dyn Store, token: u8) -> NewTask {
    NewTask {
        id: TaskId::new(store.now().await.unwrap(), &SystemEntropy::new()),
        principal: "ci|repo".into(),
        issuer: "ci".into(),
        identity: serde_json::json!({}),
        purpose: "test".into(),
        issued_at: None,
        token_hash: [token; 32],
        ttl: Duration::from_mins(1),
        heartbeat: None,
        keys: JobKeys::default(),
        binding: None,
        on_behalf_of: None,
        person_issued_at: None,
    }
}

async fn open(store: &dyn Store, task: NewTask) -> TaskId {
    let id = task.id;
    let decision = Entry::new("task.opened", "ci|repo");
    let write = Write::OpenTask { task: Box::new(task), used: Vec::new(), decision };
    store.write(write).await.unwrap();
    id
}

fn job() -> JobKeys {
    JobKeys { run: None, job: JobKey::parse("ci|1") }
}

/// The end of [`job`].
fn job_end(limit: u32) -> JobEnd {
    JobEnd {
        key: JobKey::parse("ci|1").unwrap(),
        end: TaskEnd::Failed,
        actor: "webhook|ci".into(),
        keep: Duration::from_mins(1),
        remembered_max: 10,
        limit,
    }
}

/// Ends a job with three tasks, two in a transaction, the first of which `damage` makes
/// unreadable: the others end all the same (I12).
async fn a_job_ends_beside_a_bad_row(store: Arc<dyn Store>, damage: impl AsyncFnOnce(TaskId)) {
    let mut tasks = Vec::new();
    for token in 1..=3 {
        let opening = opening(store.as_ref(), token, job()).await;
        tasks.push(opened(store.write(opening).await));
    }
    tasks.sort();
    damage(tasks[0]).await;
    let replica = incarnation().replica;
    let entropy = Arc::new(SystemEntropy::new());
    let (backends, settings) = (BTreeMap::new(), Settings::default());
    let engine = Engine::new(store, backends, clock(), entropy, replica, settings);
    let closure = engine.close_job(&job_end(2)).await.unwrap();
    assert_eq!(closure.tasks, tasks[1..]);
}

/// Disables an identity whose tasks do not go into one transaction, and of which `damage` makes the
/// first one unreadable, then more than go into one: the others end all the same, and then nothing
/// is left to be ended (I12).
async fn an_identity_ends_beside_bad_rows(store: Arc<dyn Store>, damage: impl AsyncFn(TaskId)) {
    let principal = "ci|repo".to_owned();
    for (tokens, bad) in [(1..=101, 1), (102..=202, 50)] {
        let mut tasks = Vec::new();
        for token in tokens {
            let opening = opening(store.as_ref(), token, JobKeys::default()).await;
            tasks.push(opened(store.write(opening).await));
        }
        tasks.sort();
        for task in &tasks[..bad] {
            damage(*task).await;
        }
        let (backends, settings) = (BTreeMap::new(), Settings::default());
        let (replica, entropy) = (incarnation().replica, Arc::new(SystemEntropy::new()));
        let engine = Engine::new(Arc::clone(&store), backends, clock(), entropy, replica, settings);
        let disabling = Disabling {
            principal: principal.clone(),
            cut_off: None,
            actor: "people|root".into(),
            reason: None,
            keep: Duration::from_mins(1),
            delivery: None,
        };
        let mut ended = engine.disable(disabling).await.unwrap().unwrap();
        ended.sort();
        assert_eq!(ended, tasks[bad..]);
        assert!(engine.end_disabled().await.unwrap().is_empty());
        let actor = "people|root".to_owned();
        let enable = Write::Enable { principal: principal.clone(), actor, reason: None };
        store.write(enable).await.unwrap();
    }
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
