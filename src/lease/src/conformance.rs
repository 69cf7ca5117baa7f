//! What every store must do: the same suite for the one in memory and for the real ones.
//!
//! Invariant: each case asserts on what the store answers and on what it kept. Cases share a
//! store and make their own tasks and backends; they run one after the other, since some of
//! them pause the whole store for a while.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a suite says by panicking what does not hold"
)]

mod behalf;
mod bindings;
mod cases;
mod guards;
mod identities;
mod jobs;
mod silence;

use std::{sync::Arc, time::Duration};

use dayfly_backend_sdk::{Belt, Expiry, HandlePrefix, Plan, Timestamp};
use serde_json::json;

use crate::{
    Cause, Counts, Entropy, Intent, JobKeys, Lease, LeaseId, NewTask, Refusal, Replay, ReplicaId,
    Store, StoreError, SystemEntropy, Task, TaskId, TokenUse, Write, Written, audit::Entry,
};

/// Runs every case on `store`.
pub async fn run(store: Arc<dyn Store>) {
    run_beside_others(Arc::clone(&store)).await;
    let suite = Suite { store, entropy: Arc::new(SystemEntropy::new()) };
    guards::run(&suite).await;
    silence::run(&suite).await;
    jobs::run(&suite).await;
    identities::run(&suite).await;
    behalf::run_alone(&suite).await;
}

/// Runs the cases that do not mind others on the same store.
pub async fn run_beside_others(store: Arc<dyn Store>) {
    let suite = Suite { store, entropy: Arc::new(SystemEntropy::new()) };
    cases::run(&suite).await;
    bindings::run(&suite).await;
    behalf::run(&suite).await;
}

struct Suite {
    store: Arc<dyn Store>,
    entropy: Arc<dyn Entropy>,
}

/// Intents of the suite live this long unless a case says otherwise.
const TTL: Duration = Duration::from_mins(1);

impl Suite {
    async fn now(&self) -> Timestamp {
        self.store.now().await.expect("the store has a clock")
    }

    fn random(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.entropy.fill(&mut bytes);
        bytes
    }

    /// A backend's name that no other case uses, so that claims do not mix.
    fn backend(&self) -> String {
        format!("b{}", u32::from_be_bytes(self.random()[..4].try_into().unwrap()))
    }

    async fn open(&self, ttl: Duration) -> Task {
        self.try_open(ttl, None).await.expect("a task opens")
    }

    async fn try_open(&self, ttl: Duration, replay: Option<Replay>) -> Result<Task, StoreError> {
        self.try_open_as("ci|repo", ttl, replay).await
    }

    async fn open_as(&self, principal: &str, ttl: Duration) -> Task {
        self.try_open_as(principal, ttl, None).await.expect("a task opens")
    }

    /// A task that must be heard.
    async fn open_with_heartbeat(&self, ttl: Duration, every: Duration) -> Task {
        let task = NewTask { heartbeat: Some(every), ..self.new_task("ci|repo", ttl).await };
        self.try_open_new(task, None).await.expect("a task opens")
    }

    async fn try_open_as(
        &self,
        principal: &str,
        ttl: Duration,
        replay: Option<Replay>,
    ) -> Result<Task, StoreError> {
        self.try_open_new(self.new_task(principal, ttl).await, replay).await
    }

    async fn new_task(&self, principal: &str, ttl: Duration) -> NewTask {
        NewTask {
            id: TaskId::new(self.now().await, self.entropy.as_ref()),
            principal: principal.into(),
            issuer: "ci".into(),
            identity: json!({ "subject": "repo" }),
            purpose: "conformance".into(),
            issued_at: None,
            token_hash: self.random(),
            ttl,
            heartbeat: None,
            keys: JobKeys::default(),
            binding: None,
            on_behalf_of: None,
            person_issued_at: None,
        }
    }

    async fn try_open_new(
        &self,
        task: NewTask,
        replay: Option<Replay>,
    ) -> Result<Task, StoreError> {
        self.try_open_by(task, replay.map(TokenUse::Once).into_iter().collect()).await
    }

    async fn try_open_by(&self, task: NewTask, used: Vec<TokenUse>) -> Result<Task, StoreError> {
        let decision = Entry::new("task.opened", "ci|repo");
        match self.store.write(Write::OpenTask { task: Box::new(task), used, decision }).await? {
            Written::Task(task) => Ok(*task),
            other => panic!("opening answered {other:?}"),
        }
    }

    async fn intent(&self, task: TaskId, backend: &str) -> Intent {
        let id = LeaseId::new(self.now().await, self.entropy.as_ref());
        Intent {
            id,
            handle: HandlePrefix::parse("t_").unwrap().handle(id.uuid(), 63).unwrap(),
            task,
            role: "reader".into(),
            backend: backend.to_owned(),
            ttl: TTL,
            ttl_max: TTL * 2,
            ttl_min: Duration::from_secs(1),
            expiry: Expiry::Native { slack: Duration::from_secs(2), life_min: Duration::ZERO },
            mint_within: Duration::from_secs(15),
            settle_within: Duration::from_secs(5),
            renewable: true,
            belts: vec![Belt::NativeExpiry, Belt::Revoke],
            plan: Plan(json!({ "statements": ["x"] })),
            quotas: Vec::new(),
            key: None,
            decision: Entry::new("lease.intended", "ci|repo"),
        }
    }

    async fn intend(&self, intent: Intent) -> Result<Lease, StoreError> {
        match self.store.write(Write::Intend(Box::new(intent))).await? {
            Written::Lease(lease) | Written::Superseding { lease, .. } => Ok(*lease),
            other => panic!("an intent answered {other:?}"),
        }
    }

    /// A lease that was minted and delivered.
    async fn active(&self, task: TaskId, backend: &str) -> Lease {
        let lease = self.intend(self.intent(task, backend).await).await.unwrap();
        let active =
            self.lease(Write::Activate { lease: lease.id, epoch: lease.epoch, kept: None }).await;
        assert_eq!(active.as_ref().unwrap().state.as_str(), "active");
        self.lease(Write::Deliver { lease: lease.id }).await.unwrap()
    }

    async fn lease(&self, write: Write) -> Result<Lease, StoreError> {
        match self.store.write(write).await? {
            Written::Lease(lease) => Ok(*lease),
            other => panic!("answered {other:?}"),
        }
    }

    async fn leases(&self, write: Write) -> Vec<Lease> {
        match self.store.write(write).await.expect("a batch is written") {
            Written::Leases(leases) => leases,
            other => panic!("answered {other:?}"),
        }
    }

    async fn claim(&self, backend: &str, limit: u32, hold: Duration) -> Vec<Lease> {
        let owner = ReplicaId::new(self.now().await, self.entropy.as_ref());
        let backend = backend.to_owned();
        let claim = Write::Claim { backend, owner, limit, hold, believed: None };
        match self.store.write(claim).await.expect("a claim is written") {
            Written::Claimed { leases, .. } => leases,
            other => panic!("answered {other:?}"),
        }
    }

    /// Verified dead: the first of `leases`, which are of `backend`.
    async fn bury_one(&self, backend: &str, leases: &[Box<Lease>]) {
        let lease = leases.first().expect("a lease").id;
        let (cause, actor) = (Cause::Requested, "x".to_owned());
        self.lease(Write::Condemn { lease, cause, actor, reason: None }).await.unwrap();
        self.lease(Write::Settle { lease, nothing: false }).await.unwrap();
        let claimed = self.claim(backend, 10, TTL).await;
        let leases = claimed.iter().map(|lease| (lease.id, lease.epoch)).collect();
        assert_eq!(self.leases(Write::Bury { leases, expired: Vec::new() }).await.len(), 1);
    }

    async fn counts(&self, task: TaskId) -> Counts {
        self.store.counts(task).await.unwrap()
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Refusal {
    result.expect_err("refused").refusal().expect("a refusal")
}
