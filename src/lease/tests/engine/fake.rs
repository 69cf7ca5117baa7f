//! A backend that fails on demand, and an engine over it.

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
    Cause, Engine, JobKeys, Lease, NewTask, Order, ReplicaId, Seal, Settings, State, Store,
    SystemClock, SystemEntropy, TaskId, Write, Written,
    audit::{Chain, Entry, Signer},
    memory::MemoryStore,
};
use serde_json::Value;

/// What the backend does next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Works,
    /// Creates it and says that it does not know.
    LosesTheReply,
    /// Refuses, certainly.
    Refuses,
    /// Accepts and never answers.
    Hangs,
    /// Ends nothing, says that it did, and tells the truth when it is asked.
    Slow,
    /// Hangs when it is to end something.
    NeverRevokes,
    /// Cannot be reached.
    Down,
    /// Keeps something at each mint, and ends nothing without it.
    Keeps,
}

#[derive(Debug)]
pub(crate) struct Fake {
    capabilities: Capabilities,
    prefix: HandlePrefix,
    pub(crate) live: Mutex<BTreeSet<Handle>>,
    mood: Mutex<Mood>,
    pub(crate) poisoned: Mutex<BTreeSet<Handle>>,
    pub(crate) marker: Mutex<Option<Marker>>,
    pub(crate) marker_takes: Mutex<Duration>,
    mint_takes: Duration,
}

impl Fake {
    pub(crate) fn new(mint_takes: Duration, expiry: Expiry) -> Arc<Self> {
        let capabilities = Capabilities {
            kind: "fake",
            expiry,
            revoke: true,
            session_kill: false,
            verify: true,
            list: true,
            renew: true,
            deadline_guard: true,
            ttl_min: Duration::from_millis(10),
            ttl_max: None,
            handle_len_max: 63,
        };
        Arc::new(Self {
            capabilities,
            prefix: HandlePrefix::parse("f_").unwrap(),
            live: Mutex::default(),
            mood: Mutex::default(),
            poisoned: Mutex::default(),
            marker: Mutex::default(),
            marker_takes: Mutex::default(),
            mint_takes,
        })
    }

    pub(crate) fn live(&self) -> usize {
        self.live.lock().unwrap().len()
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(crate) fn mood(&self) -> Mood {
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
        if mood == Mood::Down {
            return Err(down());
        }
        if mood == Mood::Hangs {
            std::future::pending::<()>().await;
        }
        self.live.lock().unwrap().insert(request.handle.clone());
        if mood == Mood::LosesTheReply {
            return Err(Error::new(ErrorKind::UnknownOutcome, "lost"));
        }
        let credential = Credential::new().secret("key", Secret::new("s3cret"));
        if mood == Mood::Keeps {
            return Ok(credential.keep(Secret::new(format!("token of {}", request.handle))));
        }
        Ok(credential)
    }

    async fn renew(&self, _request: &RenewRequest<'_>) -> Result<(), Error> {
        match self.mood() {
            Mood::Refuses => Err(Error::new(ErrorKind::Denied, "no")),
            Mood::Down => Err(down()),
            Mood::Works
            | Mood::LosesTheReply
            | Mood::Hangs
            | Mood::Slow
            | Mood::NeverRevokes
            | Mood::Keeps => Ok(()),
        }
    }

    async fn revoke(&self, doomed: &[Doomed]) -> Vec<Revocation> {
        if self.mood() == Mood::Down {
            return doomed.iter().map(|_| Revocation::Failed(down())).collect();
        }
        if self.mood() == Mood::NeverRevokes {
            std::future::pending::<()>().await;
        }
        if self.mood() == Mood::Slow {
            return doomed.iter().map(|_| Revocation::Gone).collect();
        }
        let keeps = self.mood() == Mood::Keeps;
        let poisoned = self.poisoned.lock().unwrap().clone();
        let mut live = self.live.lock().unwrap();
        let revoke = |doomed: &Doomed| {
            if poisoned.contains(&doomed.handle) {
                return Revocation::Failed(Error::new(ErrorKind::Dependent, "owns a table"));
            }
            let token = format!("token of {}", doomed.handle);
            if keeps && doomed.kept.as_ref().map(Secret::expose) != Some(token.as_str()) {
                return Revocation::Lingers;
            }
            live.remove(&doomed.handle);
            Revocation::Gone
        };
        doomed.iter().map(revoke).collect()
    }

    async fn verify(&self, doomed: &[Doomed]) -> Result<Vec<Liveness>, Error> {
        if self.mood() == Mood::Down {
            return Err(down());
        }
        let live = self.live.lock().unwrap();
        let of = |doomed: &Doomed| {
            if live.contains(&doomed.handle) { Liveness::Live } else { Liveness::Gone }
        };
        Ok(doomed.iter().map(of).collect())
    }

    async fn marker(&self) -> Result<Option<Marker>, Error> {
        if self.mood() == Mood::Down {
            return Err(down());
        }
        let takes = *self.marker_takes.lock().unwrap();
        tokio::time::sleep(takes).await;
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

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "connection refused")
}

pub(crate) struct Rig {
    pub(crate) engine: Arc<Engine>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) backend: Arc<Fake>,
}

impl Rig {
    /// An engine at work.
    pub(crate) fn new(mint_takes: Duration) -> Self {
        let rig = Self::idle(mint_takes);
        rig.start();
        rig
    }

    /// Starts its loops.
    pub(crate) fn start(&self) {
        drop(self.engine.start());
    }

    /// An engine whose loops do not run yet.
    pub(crate) fn idle(mint_takes: Duration) -> Self {
        Self::over(Fake::new(mint_takes, Expiry::None), None)
    }

    /// Over a backend that keeps something, whose loops do not run yet.
    pub(crate) fn keeping(seal: Option<Arc<dyn Seal>>) -> Self {
        let life_min = Duration::from_millis(700);
        let backend = Fake::new(Duration::ZERO, Expiry::Native { slack: Duration::ZERO, life_min });
        backend.set(Mood::Keeps);
        Self::over(backend, seal)
    }

    fn over(backend: Arc<Fake>, seal: Option<Arc<dyn Seal>>) -> Self {
        let entropy = Arc::new(SystemEntropy::new());
        let replica = ReplicaId::new(Timestamp::from_seconds(1), entropy.as_ref());
        let chain = Chain::empty(replica, Signer::from_seed(&[7; 32]).unwrap());
        let store = Arc::new(MemoryStore::new(Arc::new(SystemClock), chain));
        let engine = engine(&store, &backend, replica, seal);
        Self { engine, store, backend }
    }

    /// The receipt of the only lease.
    pub(crate) async fn receipt(&self) -> String {
        let records = self.store.records().await;
        records.into_iter().find(|record| record.event == "lease.revoked").unwrap().detail
    }

    /// The same store and backend after a restart: an idle engine that knows nothing.
    pub(crate) fn restarted(&self) -> Self {
        let (store, backend) = (Arc::clone(&self.store), Arc::clone(&self.backend));
        let replica = ReplicaId::new(Timestamp::from_seconds(2), &SystemEntropy::new());
        Self { engine: engine(&store, &backend, replica, None), store, backend }
    }

    pub(crate) async fn task(&self) -> TaskId {
        self.task_with(None).await
    }

    /// A task that must be heard.
    pub(crate) async fn task_heard_every(&self, every: Duration) -> TaskId {
        self.task_with(Some(every)).await
    }

    async fn task_with(&self, heartbeat: Option<Duration>) -> TaskId {
        let id = TaskId::new(self.store.now().await.unwrap(), self.engine.entropy().as_ref());
        let task = NewTask {
            id,
            principal: "ci|repo".into(),
            issuer: "ci".into(),
            identity: Value::Null,
            purpose: "test".into(),
            issued_at: None,
            token_hash: [0; 32],
            ttl: Duration::from_mins(1),
            heartbeat,
            keys: JobKeys::default(),
            binding: None,
            on_behalf_of: None,
            person_issued_at: None,
        };
        let decision = Entry::new("task.opened", "ci|repo");
        let write = Write::OpenTask { task: Box::new(task), used: Vec::new(), decision };
        let Written::Task(_) = self.store.write(write).await.unwrap() else { panic!("no task") };
        id
    }

    pub(crate) fn order(&self, task: TaskId, ttl: Duration) -> Order {
        Order {
            task,
            role: "reader".into(),
            backend: "fake".into(),
            template: self.backend.template(&Value::Null).unwrap(),
            ttl,
            ttl_max: Duration::from_mins(5),
            renewable: true,
            quotas: Vec::new(),
            key: None,
            decision: Entry::new("lease.allowed", "ci|repo"),
        }
    }

    /// The only lease, once it is verified dead, with why it died.
    pub(crate) async fn buried(&self) -> (Lease, Cause) {
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

fn engine(
    store: &Arc<MemoryStore>,
    backend: &Arc<Fake>,
    replica: ReplicaId,
    seal: Option<Arc<dyn Seal>>,
) -> Arc<Engine> {
    let settings = Settings {
        mint_within: Duration::from_millis(400),
        settle_guarded: Duration::from_millis(200),
        backoff_first: Duration::from_millis(20),
        revoke_within: Duration::from_millis(300),
        sweep_every: Duration::from_millis(40),
        sweep_grace: Duration::from_millis(60),
        seal,
        ..Settings::default()
    };
    Engine::new(
        Arc::clone(store) as Arc<dyn Store>,
        BTreeMap::from([("fake".to_owned(), Arc::clone(backend) as Arc<dyn Backend>)]),
        Arc::new(SystemClock),
        Arc::new(SystemEntropy::new()),
        replica,
        settings,
    )
}
