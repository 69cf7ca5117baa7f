//! The engine: mints under a lease, and makes every due death true.
//!
//! Invariant: no backend is called for a lease whose intent is not durable, and no lease
//! leaves the engine's care before its credential is verified dead.

mod bell;
mod breaker;
mod complete;
mod hear;
mod kept;
mod mint;
mod reap;
mod recover;
mod renew;
mod sweep;
mod withdraw;

pub use complete::{Completion, JobClosure};
pub use mint::{Delivery, MintError, Minted, Order};
pub use recover::{Survey, SurveyError};
pub use renew::{RenewError, Renewal};
pub use sweep::{Orphans, Owner, Sweep, SweepError};

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dayfly_backend_sdk::{Backend, Timestamp};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::{Clock, Entropy, ReplicaId, Seal, Store, Write, failpoint};

use bell::Bell;
use breaker::{Breaker, Pass};
use hear::Hearing;
use sweep::Tally;

/// The engine's bounds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a mint may take, from its intent; after that the intent is revoked.
    pub mint_within: Duration,
    /// How long after the mint's deadline a create could still land at a backend that guards
    /// the deadline itself: the clock skew that is tolerated.
    pub settle_guarded: Duration,
    /// The same at a backend that does not: twice the longest time-out of a request.
    pub settle_unguarded: Duration,
    /// How long a claim on a revoking lease lasts.
    pub claim_hold: Duration,
    /// The most leases in one claim.
    pub claim_limit: u32,
    /// How long a batch of revocations may take at its backend; less than `claim_hold`.
    pub revoke_within: Duration,
    /// The longest that the reaper sleeps, since another replica may have died.
    pub poll_max: Duration,
    /// The first wait after a failed revocation; doubled at each failure.
    pub backoff_first: Duration,
    /// The longest wait between attempts.
    pub backoff_max: Duration,
    /// The most mints at one backend at a time.
    pub mints_per_backend: usize,
    /// The reapers of one backend: a batch that hangs holds up one of them only.
    pub reapers_per_backend: usize,
    /// How often each backend is swept for orphans, by whichever replica comes first.
    pub sweep_every: Duration,
    /// How long an unknown name is left alone before it is looked at again and ended.
    pub sweep_grace: Duration,
    /// What seals what mints keep. Without it a backend that keeps something cannot mint.
    pub seal: Option<Arc<dyn Seal>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mint_within: Duration::from_secs(15),
            settle_guarded: Duration::from_secs(5),
            settle_unguarded: Duration::from_secs(30),
            claim_hold: Duration::from_secs(30),
            claim_limit: 100,
            revoke_within: Duration::from_secs(20),
            poll_max: Duration::from_secs(1),
            backoff_first: Duration::from_millis(500),
            backoff_max: Duration::from_mins(15),
            mints_per_backend: 64,
            reapers_per_backend: 2,
            sweep_every: Duration::from_secs(30),
            sweep_grace: Duration::from_secs(5),
            seal: None,
        }
    }
}

/// One backend with its own way to be woken and its own bound, so that a slow one delays
/// nobody else (I10).
#[derive(Debug)]
pub struct Line {
    name: String,
    backend: Arc<dyn Backend>,
    wake: Bell,
    mints: Semaphore,
    breaker: Breaker,
    owner: watch::Sender<Owner>,
    tally: Tally,
}

impl Line {
    /// The backend.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Whose prefix the backend says it is.
    pub fn owner(&self) -> Owner {
        self.owner.borrow().clone()
    }

    /// Whether the backend is taken to be down, and only probed.
    pub fn is_down(&self) -> bool {
        self.breaker.is_open()
    }

    /// What this replica's sweeps came across here.
    pub fn orphans(&self) -> Orphans {
        self.tally.read()
    }

    fn wake(&self) {
        self.wake.ring();
    }
}

/// Mints, renews, completes and reaps.
#[derive(Debug)]
pub struct Engine {
    store: Arc<dyn Store>,
    lines: BTreeMap<String, Line>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    replica: ReplicaId,
    settings: Settings,
    deaths: Bell,
    /// The store's clock as last seen, and how long the process had been running then.
    seen: Mutex<Option<(Timestamp, Duration)>>,
    hearing: Hearing,
    shutdown: watch::Sender<bool>,
    /// What runs detached from its request: sagas, delivery marks, condemnations.
    detached: TaskTracker,
}

impl Engine {
    /// An engine over `store` and the named backends. Nothing runs before
    /// [`Engine::start`].
    pub fn new(
        store: Arc<dyn Store>,
        backends: BTreeMap<String, Arc<dyn Backend>>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        replica: ReplicaId,
        settings: Settings,
    ) -> Arc<Self> {
        let store = failpoint::around_store(store);
        let line = |name: &str, backend| Line {
            name: name.to_owned(),
            backend: failpoint::around_backend(backend),
            wake: Bell::default(),
            mints: Semaphore::new(settings.mints_per_backend),
            breaker: Breaker::new(),
            owner: watch::Sender::new(Owner::Unknown),
            tally: Tally::default(),
        };
        let hearing = Hearing::new(settings.poll_max);
        let lines = backends.into_iter();
        let lines = lines.map(|(name, backend)| (name.clone(), line(&name, backend))).collect();
        Arc::new(Self {
            store,
            lines,
            clock,
            entropy,
            replica,
            settings,
            deaths: Bell::default(),
            seen: Mutex::new(None),
            hearing,
            shutdown: watch::Sender::new(false),
            detached: TaskTracker::new(),
        })
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// This incarnation of the replica.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// A backend's line, by its configured name.
    pub fn line(&self, backend: &str) -> Option<&Line> {
        self.lines.get(backend)
    }

    /// The clock that paces this replica.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The randomness of this replica.
    pub fn entropy(&self) -> &Arc<dyn Entropy> {
        &self.entropy
    }

    /// Wakes the reapers of `backend`: something became due.
    fn wake(&self, backend: &str) {
        if let Some(line) = self.lines.get(backend) {
            line.wake();
        }
    }

    /// The backends' names.
    pub fn backends(&self) -> impl Iterator<Item = &str> {
        self.lines.keys().map(String::as_str)
    }

    /// Gives back what this replica has claimed and will not finish: it stops.
    pub async fn hand_back(&self) {
        let write = Write::HandBack { owner: self.replica };
        if let Err(error) = self.store.write(write).await {
            // The claims end by themselves.
            tracing::warn!(%error, "engine.hand_back.failed");
        }
    }

    /// As far as the store's clock can be, by this replica's own reckoning.
    fn believed(&self) -> Option<Timestamp> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.map(|(at, running)| at.plus(self.clock.running().saturating_sub(running)))
    }

    fn saw(&self, now: Timestamp) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Some((now, self.clock.running()));
    }

    /// Around a hundred, so that replicas and leases that failed together do not come back
    /// together.
    fn percent(&self) -> u32 {
        let mut random = [0_u8; 1];
        self.entropy.fill(&mut random);
        80 + u32::from(random[0]) * 40 / 255
    }

    /// A heartbeat was turned away: nobody is taken to be silent for what happened before, by no
    /// replica. If that cannot be written, this one alone knows.
    pub fn missed_a_beat(&self) {
        self.hearing.broke_off();
        if !self.hearing.must_tell(self.clock.running()) {
            return;
        }
        let store = Arc::clone(&self.store);
        drop(self.detach(async move {
            if let Err(error) = store.write(Write::TurnedAway).await {
                tracing::warn!(%error, "engine.turned_away.untold");
            }
        }));
    }

    /// From now on nothing is heard here, since the process stops listening; so no silence is
    /// held against anybody by this replica any more.
    pub fn listen_no_more(&self) {
        self.hearing.stop();
    }

    /// Tells the loops to stop after what they are doing.
    pub fn stop(&self) {
        self.shutdown.send_replace(true);
    }

    /// Runs `work` to its end whatever becomes of the request that asked for it.
    pub fn detach<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.detached.spawn(work)
    }

    /// Waits until nothing runs detached any more, but no longer than `within`.
    pub async fn drain(&self, within: Duration) {
        self.detached.close();
        if mint::timeout(self.clock.as_ref(), within, self.detached.wait()).await.is_none() {
            tracing::warn!(left = self.detached.len(), "engine.drain.incomplete");
        }
    }
}
