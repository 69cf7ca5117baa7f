//! The replicas: started, killed, stopped, shut down, started again.
//!
//! Invariant: a replica that starts knows nothing but the store.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use dayfly_backend_sdk::Backend;
use dayfly_lease::{Clock, Engine, Entropy, Store, spawn};

use crate::{
    coverage::Moment,
    model::Phase,
    process::Process,
    seams::{RemoteBackend, RemoteStore},
    watch::backend_name,
    world::{World, hold},
};

/// A replica that runs.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its process.
    pub process: Arc<Process>,
    /// Its engine.
    pub engine: Arc<Engine>,
}

/// All replicas.
#[derive(Debug)]
pub struct Fleet {
    world: Arc<World>,
    running: Mutex<Vec<Option<Running>>>,
}

impl Fleet {
    /// No replica runs yet.
    pub fn new(world: &Arc<World>) -> Arc<Self> {
        let running = vec![None; world.plan.replicas];
        Arc::new(Self { world: Arc::clone(world), running: Mutex::new(running) })
    }

    /// One that runs.
    pub fn any(&self) -> Option<Running> {
        let running = hold(&self.running);
        let up: Vec<&Running> = running.iter().flatten().collect();
        up.get(self.world.dice.index(up.len())).map(|one| (*one).clone())
    }

    /// Starts the replica at `index`.
    pub fn start(&self, index: usize) {
        let world = &self.world;
        let process = Process::start(world, index);
        let Some(engine) = engine(world, &process) else { return };
        drop(engine.start());
        world.event("start", [index as u64, 0], || format!("replica {index}"));
        let now = world.store_now().micros();
        let owed = |phase: Phase, due: i64| phase < Phase::Revoked && due <= now;
        if world.model().leases.values().any(|one| owed(one.row.phase, one.row.due())) {
            world.saw(Moment::RestartWithDebt);
        }
        if let Some(place) = hold(&self.running).get_mut(index) {
            *place = Some(Running { process, engine });
        }
    }

    /// Whether the replica at `index` runs.
    pub fn runs(&self, index: usize) -> bool {
        hold(&self.running).get(index).is_some_and(Option::is_some)
    }

    /// Takes the replica at `index` out, to be killed or shut down.
    fn take(&self, index: usize) -> Option<Running> {
        hold(&self.running).get_mut(index).and_then(Option::take)
    }

    /// Kills the replica at `index` on the spot.
    pub fn kill(&self, index: usize) {
        let Some(running) = self.take(index) else { return };
        self.mark(&running);
        running.process.kill();
        self.world.event("kill", [index as u64, 0], || format!("replica {index}"));
    }

    /// Shuts the replica at `index` down in order, for as long as that may take.
    pub fn shut_down(&self, index: usize) {
        const DRAIN: Duration = Duration::from_secs(20);
        let Some(running) = self.take(index) else { return };
        self.world.event("shutdown", [index as u64, 0], || format!("replica {index}"));
        self.world.saw(Moment::Drained);
        drop(spawn(async move {
            running.engine.drain(DRAIN).await;
            running.engine.stop();
            running.process.sleep(DRAIN).await;
            running.engine.hand_back().await;
            running.process.kill();
        }));
    }

    /// Stops the replica at `index` for a while.
    pub fn stop(&self, index: usize, lasts: Duration) {
        let running = hold(&self.running);
        if let Some(Some(running)) = running.get(index) {
            running.process.stop(lasts);
            self.world.event("stop", [index as u64, 0], || format!("replica {index} {lasts:?}"));
        }
    }

    /// Everything runs again.
    pub fn heal(&self) {
        let running: Vec<Option<Running>> = hold(&self.running).clone();
        for (index, one) in running.into_iter().enumerate() {
            match one {
                Some(running) => running.process.resume(),
                None => self.start(index),
            }
        }
    }

    /// What a crash interrupts.
    fn mark(&self, running: &Running) {
        let model = self.world.model();
        for tracked in model.leases.values() {
            self.world.saw(match tracked.row.phase {
                Phase::Pending => Moment::CrashWithPending,
                Phase::Active => Moment::CrashWithActive,
                Phase::Revoking if tracked.row.claimed_by == Some(running.process.id) => {
                    Moment::CrashWithClaim
                }
                Phase::Revoking => Moment::CrashWithRevoking,
                Phase::Revoked | Phase::Abandoned => continue,
            });
        }
    }
}

/// An engine in `process`, whose loops do not run yet.
pub fn engine(world: &Arc<World>, process: &Arc<Process>) -> Option<Arc<Engine>> {
    let truth = world.truth().replica(process.id).ok()?;
    let store = Arc::new(RemoteStore::new(Arc::clone(process), truth));
    let backends = world.sites.iter().enumerate().map(|(place, site)| {
        let backend = RemoteBackend::new(Arc::clone(process), place, site);
        (backend_name(place), Arc::new(backend) as Arc<dyn Backend>)
    });
    Some(Engine::new(
        store as Arc<dyn Store>,
        backends.collect::<BTreeMap<_, _>>(),
        Arc::clone(process) as Arc<dyn Clock>,
        Arc::new(Chance(Arc::clone(world))) as Arc<dyn Entropy>,
        process.id,
        world.plan.settings.clone(),
    ))
}

/// The run's own randomness, for engines.
#[derive(Debug)]
struct Chance(Arc<World>);

impl Entropy for Chance {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.dice.fill(bytes);
    }
}
