//! The engine over the store in memory and a backend that fails on demand.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says by panicking what does not hold"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use dayfly_backend_sdk::{
    Backend, CanaryReport, Capabilities, Credential, Doomed, Error, ErrorKind, Expiry, Handle,
    HandlePrefix, Listed, Listing, Liveness, Marker, MintRequest, Plan, RenewRequest, Revocation,
    Secret, Template, Timestamp,
};
use dayfly_lease::{
    Cause, Engine, Lease, MintError, NewTask, Order, ReplicaId, Settings, State, Store,
    SystemClock, SystemEntropy, TaskEnd, TaskId, Write, Written,
    audit::{Chain, Entry, Signer},
    memory::MemoryStore,
};
use serde_json::Value;

/// What the backend does next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Works,
    /// Creates it and says that it does not know.
    LosesTheReply,
    /// Refuses, certainly.
    Refuses,
    /// Accepts and never answers.
    Hangs,
}

#[derive(Debug)]
struct Fake {
    capabilities: Capabilities,
    prefix: HandlePrefix,
    live: Mutex<BTreeSet<Handle>>,
    mood: Mutex<Mood>,
    poisoned: Mutex<BTreeSet<Handle>>,
    marker: Mutex<Option<Marker>>,
    mint_takes: Duration,
}

impl Fake {
    fn new(mint_takes: Duration) -> Arc<Self> {
        let capabilities = Capabilities {
            kind: "fake",
            expiry: Expiry::None,
            revoke: true,
            session_kill: false,
            verify: true,
            list: true,
            renew: true,
            deadline_guard: true,
            ttl_min: Duration::from_millis(10),
            handle_len_max: 63,
        };
        Arc::new(Self {
            capabilities,
            prefix: HandlePrefix::parse("f_").unwrap(),
            live: Mutex::default(),
            mood: Mutex::default(),
            poisoned: Mutex::default(),
            marker: Mutex::default(),
            mint_takes,
        })
    }

    fn live(&self) -> usize {
        self.live.lock().unwrap().len()
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }
}

#[async_trait]
impl Backend for Fake {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prefix(&self) -> &HandlePrefix {
        &self.prefix
    }

    fn template(&self, _raw: &Value) -> Result<Template, Error> {
        Ok(Template::new(Plan::default(), ()))
    }

    async fn mint(&self, request: &MintRequest<'_>) -> Result<Credential, Error> {
        tokio::time::sleep(self.mint_takes).await;
        let mood = self.mood();
        if mood == Mood::Refuses {
            return Err(Error::new(ErrorKind::Denied, "no"));
        }
        if mood == Mood::Hangs {
            std::future::pending::<()>().await;
        }
        self.live.lock().unwrap().insert(request.handle.clone());
        if mood == Mood::LosesTheReply {
            return Err(Error::new(ErrorKind::UnknownOutcome, "lost"));
        }
        Ok(Credential::new().secret("key", Secret::new("s3cret")))
    }

    async fn renew(&self, _request: &RenewRequest<'_>) -> Result<(), Error> {
        match self.mood() {
            Mood::Refuses => Err(Error::new(ErrorKind::Denied, "no")),
            Mood::Works | Mood::LosesTheReply | Mood::Hangs => Ok(()),
        }
    }

    async fn revoke(&self, doomed: &[Doomed]) -> Vec<Revocation> {
        let poisoned = self.poisoned.lock().unwrap().clone();
        let mut live = self.live.lock().unwrap();
        let revoke = |doomed: &Doomed| {
            if poisoned.contains(&doomed.handle) {
                return Revocation::Failed(Error::new(ErrorKind::Dependent, "owns a table"));
            }
            live.remove(&doomed.handle);
            Revocation::Gone
        };
        doomed.iter().map(revoke).collect()
    }

    async fn verify(&self, doomed: &[Doomed]) -> Result<Vec<Liveness>, Error> {
        let live = self.live.lock().unwrap();
        let of = |doomed: &Doomed| {
            if live.contains(&doomed.handle) { Liveness::Live } else { Liveness::Gone }
        };
        Ok(doomed.iter().map(of).collect())
    }

    async fn marker(&self) -> Result<Option<Marker>, Error> {
        Ok(self.marker.lock().unwrap().clone())
    }

    async fn mark(&self, marker: &Marker) -> Result<(), Error> {
        *self.marker.lock().unwrap() = Some(marker.clone());
        Ok(())
    }

    async fn list(&self, _after: Option<&Handle>, _limit: u32) -> Result<Listing, Error> {
        let live = self.live.lock().unwrap();
        let listed = |handle: &Handle| Listed { handle: handle.clone(), expires_at: None };
        Ok(Listing { credentials: live.iter().map(listed).collect(), more: false })
    }

    async fn canary(&self, _handle: &Handle, _template: &Template) -> CanaryReport {
        CanaryReport::default()
    }
}

struct Rig {
    engine: Arc<Engine>,
    store: Arc<MemoryStore>,
    backend: Arc<Fake>,
}

impl Rig {
    fn new(mint_takes: Duration) -> Self {
        let entropy = Arc::new(SystemEntropy::new());
        let replica = ReplicaId::new(Timestamp::from_seconds(1), entropy.as_ref());
        let chain = Chain::empty(replica, Signer::from_seed(&[7; 32]).unwrap());
        let store = Arc::new(MemoryStore::new(Arc::new(SystemClock), chain));
        let backend = Fake::new(mint_takes);
        let settings = Settings {
            mint_within: Duration::from_millis(400),
            settle_guarded: Duration::from_millis(200),
            backoff_first: Duration::from_millis(20),
            revoke_within: Duration::from_millis(300),
            ..Settings::default()
        };
        let engine = Engine::new(
            Arc::clone(&store) as Arc<dyn Store>,
            BTreeMap::from([("fake".to_owned(), Arc::clone(&backend) as Arc<dyn Backend>)]),
            Arc::new(SystemClock),
            entropy,
            replica,
            settings,
        );
        drop(engine.start());
        Self { engine, store, backend }
    }

    async fn task(&self) -> TaskId {
        let id = TaskId::new(self.store.now().await.unwrap(), self.engine.entropy().as_ref());
        let task = NewTask {
            id,
            principal: "ci|repo".into(),
            issuer: "ci".into(),
            identity: Value::Null,
            purpose: "test".into(),
            token_hash: [0; 32],
            ttl: Duration::from_mins(1),
        };
        let decision = Entry::new("task.opened", "ci|repo");
        let write = Write::OpenTask { task: Box::new(task), replay: None, decision };
        let Written::Task(_) = self.store.write(write).await.unwrap() else { panic!("no task") };
        id
    }

    fn order(&self, task: TaskId, ttl: Duration) -> Order {
        Order {
            task,
            role: "reader".into(),
            backend: "fake".into(),
            template: self.backend.template(&Value::Null).unwrap(),
            ttl,
            ttl_max: Duration::from_mins(5),
            renewable: true,
            key: None,
            decision: Entry::new("lease.allowed", "ci|repo"),
        }
    }

    /// The only lease, once it is verified dead, with why it died.
    async fn buried(&self) -> (Lease, Cause) {
        for _ in 0..400 {
            if let [lease] = self.store.leases().await.as_slice()
                && let State::Revoked { cause, .. } = lease.state
            {
                return (lease.clone(), cause);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not verified dead: {:?}", self.store.leases().await);
    }
}

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_caller_that_goes_away_gets_nothing_and_the_credential_dies() {
    let rig = Rig::new(Duration::from_millis(100));
    let task = rig.task().await;
    let minting = rig.engine.mint(rig.order(task, MINUTE));
    // The handler's future is dropped while the backend is at work.
    assert!(tokio::time::timeout(Duration::from_millis(30), minting).await.is_err());
    let (lease, cause) = rig.buried().await;
    assert_eq!((cause, rig.backend.live()), (Cause::Undelivered, 0));
    assert!(lease.activated_at.is_some(), "the mint ran to its end");
    assert_eq!(lease.delivered_at, None);
}

#[tokio::test]
async fn an_answer_that_is_never_handed_over_is_revoked_at_once() {
    let rig = Rig::new(Duration::ZERO);
    let task = rig.task().await;
    let minted = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap();
    assert_eq!(rig.backend.live(), 1);
    drop(minted);
    assert_eq!(rig.buried().await.1, Cause::Undelivered);
}

#[tokio::test]
async fn a_lost_reply_never_means_that_nothing_happened() {
    let rig = Rig::new(Duration::ZERO);
    rig.backend.set(Mood::LosesTheReply);
    let task = rig.task().await;
    let error = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap_err();
    assert!(matches!(error, MintError::Backend(_)));
    let (lease, cause) = rig.buried().await;
    assert_eq!((cause, rig.backend.live()), (Cause::MintFailed, 0));
    let State::Revoked { at, .. } = lease.state else { panic!("alive") };
    let settle = lease.mint_deadline.plus(Duration::from_millis(200));
    assert!(at >= settle, "buried at {at}, though a create could land until {settle}");
}

#[tokio::test]
async fn a_certain_refusal_is_buried_without_waiting() {
    let rig = Rig::new(Duration::ZERO);
    rig.backend.set(Mood::Refuses);
    let task = rig.task().await;
    rig.engine.mint(rig.order(task, MINUTE)).await.unwrap_err();
    let (lease, cause) = rig.buried().await;
    let State::Revoked { at, .. } = lease.state else { panic!("alive") };
    assert_eq!(cause, Cause::MintFailed);
    assert!(at < lease.mint_deadline);
}

#[tokio::test]
async fn a_backend_that_hangs_is_given_up_at_the_deadline() {
    let rig = Rig::new(Duration::ZERO);
    rig.backend.set(Mood::Hangs);
    let task = rig.task().await;
    let error = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap_err();
    assert!(matches!(error, MintError::Timeout));
    assert_eq!(rig.buried().await.1, Cause::MintFailed);
}

#[tokio::test]
async fn completion_during_a_mint_leaves_nothing_alive() {
    let rig = Rig::new(Duration::from_millis(150));
    let task = rig.task().await;
    let engine = Arc::clone(&rig.engine);
    let order = rig.order(task, MINUTE);
    let minting = dayfly_lease::spawn(async move { engine.mint(order).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let wait = Duration::from_secs(3);
    let done = rig.engine.complete(task, TaskEnd::Completed, "ci|repo", wait).await.unwrap();
    assert_eq!(done.counts.owed(), 0);
    assert_eq!(rig.backend.live(), 0, "success was answered while a credential lived");
    assert!(minting.await.unwrap().is_err(), "nothing is delivered after the completion");
}

#[tokio::test]
async fn completion_says_what_is_owed_while_a_credential_lives() {
    let rig = Rig::new(Duration::ZERO);
    let task = rig.task().await;
    let minted = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap();
    rig.backend.poisoned.lock().unwrap().insert(minted.lease.handle.clone());
    minted.delivery.handed_over();
    let wait = Duration::from_millis(200);
    let done = rig.engine.complete(task, TaskEnd::Completed, "ci|repo", wait).await.unwrap();
    assert_eq!(done.counts.revoking, 1);
    rig.backend.poisoned.lock().unwrap().clear();
    let (lease, cause) = rig.buried().await;
    assert_eq!(cause, Cause::TaskCompleted);
    assert!(lease.attempts > 0, "its failures were counted");
}

#[tokio::test]
async fn one_poisoned_lease_delays_no_other() {
    let rig = Rig::new(Duration::ZERO);
    let task = rig.task().await;
    let mut minted = Vec::new();
    for _ in 0..5 {
        minted.push(rig.engine.mint(rig.order(task, MINUTE)).await.unwrap());
    }
    rig.backend.poisoned.lock().unwrap().insert(minted[2].lease.handle.clone());
    let wait = Duration::from_millis(500);
    let done = rig.engine.complete(task, TaskEnd::Completed, "ci|repo", wait).await.unwrap();
    assert_eq!((done.counts.revoked, done.counts.revoking), (4, 1));
}

#[tokio::test]
async fn a_lease_dies_at_its_time_and_not_before() {
    let rig = Rig::new(Duration::ZERO);
    let task = rig.task().await;
    let ttl = Duration::from_millis(300);
    let minted = rig.engine.mint(rig.order(task, ttl)).await.unwrap();
    let expires_at = minted.lease.expires_at;
    minted.delivery.handed_over();
    let (lease, cause) = rig.buried().await;
    let State::Revoked { at, .. } = lease.state else { panic!("alive") };
    assert_eq!(cause, Cause::Expired);
    assert!(at >= expires_at, "revoked at {at}, {expires_at} was promised");
}

#[tokio::test]
async fn a_renewal_that_the_backend_refuses_changes_nothing() {
    let rig = Rig::new(Duration::ZERO);
    let task = rig.task().await;
    let minted = rig.engine.mint(rig.order(task, Duration::from_secs(20))).await.unwrap();
    let before = minted.lease.clone();
    minted.delivery.handed_over();
    rig.backend.set(Mood::Refuses);
    assert!(rig.engine.renew(before.id, MINUTE, "ci|repo").await.is_err());
    let after = rig.store.lease(before.id).await.unwrap().unwrap();
    assert_eq!(after.expires_at, before.expires_at);
    rig.backend.set(Mood::Works);
    let renewal = rig.engine.renew(before.id, Duration::from_secs(40), "ci|repo").await.unwrap();
    assert!(renewal.lease.expires_at > before.expires_at && !renewal.truncated);
    let renewal = rig.engine.renew(before.id, MINUTE * 9, "ci|repo").await.unwrap();
    assert!(renewal.truncated, "a task's deadline caps a renewal, and the answer says so");
}
