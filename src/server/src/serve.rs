//! The composition: the one place where a broker is put together from its configuration.
//!
//! Invariant: nothing listens before the store is open, the policies are loaded and the
//! reapers run.

mod listen;
mod schedule;
mod store;
mod tls;

pub use listen::{Listening, listen};
pub(crate) use store::key_beside;
pub use store::{OpenError, open, open_for_reading, signer};

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use dayfly_backend_api_key::{ApiKeyBackend, KeyStore};
use dayfly_backend_sdk::Backend;
use dayfly_lease::{
    Clock, Engine, Entropy, ReplicaId, Seal, Settings, SystemClock, SystemEntropy, spawn,
};
use dayfly_store::{AnyStore, Incarnation};

use crate::{
    Roles, StoredKeys,
    broker::{Broker, Limits},
    config::{self, Config, Faults, LoginConfig},
    identity::{Authenticator, OwnAddress, SetupError},
    pods::{self, Clusters},
    policy::Policies,
    poller, preflight, recheck,
    root::{self, Roots},
    seal::AesSeal,
    ssf::Streams,
    telemetry::Metrics,
    webhook::Hooks,
};

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A backend cannot be set up.
    #[error("a backend cannot be set up")]
    Backend(#[source] dayfly_backend_sdk::Error),
    /// A poller cannot be set up.
    #[error("a poller cannot be set up")]
    Poller(#[source] SetupError),
    /// What the store has of our own passwords cannot be read.
    #[error("the store does not say what to sign in with at the backends")]
    Roots(#[source] dayfly_lease::StoreError),
    /// The configuration is wrong: every fault, one a line.
    #[error("{0}")]
    Config(Faults),
    /// An issuer cannot be set up.
    #[error("an issuer cannot be set up")]
    Identity(#[source] SetupError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A schedule could not be started.
    #[error("the schedule could not be started")]
    Schedule(#[source] tokio_cron_scheduler::JobSchedulerError),
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Store(#[source] OpenError),
    /// The certificate or its key cannot be used.
    #[error("the TLS certificate or its key cannot be used")]
    Tls(#[source] std::io::Error),
}

/// What a broker is put together from.
#[derive(Debug)]
pub struct Assembly {
    /// Leases, tasks and audit.
    pub store: AnyStore,
    /// This incarnation.
    pub replica: ReplicaId,
    /// What mints.
    pub backends: BTreeMap<String, Arc<dyn Backend>>,
    /// Our own passwords at them.
    pub roots: Option<Arc<Roots>>,
    /// Who may tell us that a job ended.
    pub hooks: Hooks,
    /// Who may tell us that somebody may no longer have what they have.
    pub streams: Streams,
    /// Whose pods' ends we follow.
    pub clusters: Clusters,
    /// How people sign in at the command line.
    pub login: Option<LoginConfig>,
    /// Those of them that verify API keys.
    pub api_keys: Vec<Arc<ApiKeyBackend>>,
    /// What can be minted.
    pub roles: Roles,
    /// What may be done.
    pub policies: Policies,
    /// Who is asking.
    pub authenticator: Authenticator,
    /// What proofs of possession must be for.
    pub own_address: OwnAddress,
    /// What we call ourselves, without a slash at the end; none where nobody has told us.
    pub public_url: Option<String>,
    /// Bounds of requests.
    pub limits: Limits,
    /// Bounds of the engine.
    pub settings: Settings,
    /// The replica's clock.
    pub clock: Arc<dyn Clock>,
    /// The replica's randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// Puts a broker together.
pub fn assemble(parts: Assembly) -> Arc<Broker> {
    let engine = Engine::new(
        parts.store.engine_store(),
        parts.backends,
        Arc::clone(&parts.clock),
        Arc::clone(&parts.entropy),
        parts.replica,
        parts.settings,
    );
    Arc::new(Broker {
        engine,
        store: parts.store,
        authenticator: parts.authenticator,
        own_address: parts.own_address,
        public_url: parts.public_url,
        policies: ArcSwap::from_pointee(parts.policies),
        roles: parts.roles,
        roots: parts.roots,
        hooks: parts.hooks,
        streams: parts.streams,
        clusters: parts.clusters,
        login: parts.login,
        api_keys: parts.api_keys,
        clock: parts.clock,
        entropy: parts.entropy,
        metrics: Metrics::default(),
        limits: parts.limits,
    })
}

/// Reads a configuration with everything that can be wrong about it, policies included.
pub fn configure(path: &Path, env: config::Env<'_>) -> Result<(Config, Policies), Faults> {
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    let config = config::load_with(path, env, &|backends, roles, rules, given| {
        let mut faults = preflight::inspect(backends, roles, &entropy, given);
        if let Some(rules) = rules {
            let facts: Vec<_> = roles.iter().map(preflight::facts).collect();
            faults.extend(preflight::policies(rules, &facts).err().unwrap_or_default());
        }
        faults
    })?;
    let facts: Vec<_> = config.roles.iter().map(preflight::facts).collect();
    let policies = preflight::policies(&config.policies, &facts).map_err(Faults)?;
    Ok((config, policies))
}

/// The engine's bounds and its seal.
pub fn settings(config: &Config, entropy: &Arc<dyn Entropy>) -> Settings {
    let seal = config.seal.as_ref().and_then(|seal| AesSeal::new(seal, Arc::clone(entropy)).ok());
    let seal = seal.map(|seal| Arc::new(seal) as Arc<dyn Seal>);
    Settings { seal, ..config.engine.settings() }
}

fn limits(config: &Config) -> Limits {
    let (server, tasks) = (&config.server, &config.tasks);
    Limits {
        body_bytes_max: server.limits.body_bytes_max as usize,
        request_timeout: server.limits.request_timeout,
        concurrency: server.limits.concurrency as usize,
        task_ttl_max: tasks.ttl_max,
        heartbeat_min: tasks.heartbeat_min,
        heartbeat_max: tasks.heartbeat_max,
        binding_required: tasks.binding_required,
        behind_proxy: server.behind_tls_proxy,
    }
}

/// Everything behind the listener.
pub async fn build(config: &Config, policies: Policies) -> Result<Arc<Broker>, ServeError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    let replica = ReplicaId::new(clock.now(), entropy.as_ref());
    let signer = signer(config, entropy.as_ref()).map_err(ServeError::Store)?;
    let incarnation = Incarnation { replica, signer };
    let store = open(&config.store, incarnation, &clock).await.map_err(ServeError::Store)?;
    let keys: Arc<dyn KeyStore> = Arc::new(StoredKeys::new(store.clone()));
    let faults = |faults| ServeError::Config(Faults(faults));
    let mut backends = preflight::backends(&config.backends, &keys, &entropy).map_err(faults)?;
    let outside = (&clock, &entropy);
    let roots = root::follow(config, &mut backends.by_name, store.engine_store(), outside);
    let roots = roots.map_err(ServeError::Backend)?.map(Arc::new);
    if let Some(roots) = &roots {
        roots.adopt().await.map_err(ServeError::Roots)?;
    }
    for name in backends.by_name.keys().filter(|_| roots.is_none()) {
        if store.engine_store().root(name).await.map_err(ServeError::Roots)?.is_some() {
            // Its configured password is dead, and without the key nobody knows the other.
            tracing::error!(backend = name, "root.unsealable");
        }
    }
    let quotas = (config.backends.as_slice(), config.quotas.as_slice());
    let roles = preflight::roles(&config.roles, &backends.by_name, quotas).map_err(faults)?;
    let authenticator = Authenticator::new(config.issuers.clone(), Arc::clone(&clock))
        .and_then(|authenticator| authenticator.trusting(config.trust_domains.clone()))
        .and_then(|issuers| issuers.with_aws(config.aws_identities.clone()))
        .and_then(|issuers| issuers.with_clusters(config.clusters.clone()))
        .map_err(ServeError::Identity)?;
    let clusters = Clusters::new(&config.clusters, &config.issuers, config.tasks.ttl_max)
        .map_err(ServeError::Identity)?;
    let age_max = authenticator.token_age_max();
    let streams = Streams::new(&config.streams, &config.issuers, age_max, &clock)
        .map_err(ServeError::Identity)?;
    Ok(assemble(Assembly {
        store,
        replica,
        backends: backends.by_name,
        roots,
        hooks: Hooks::new(&config.webhooks, &config.pollers, &config.issuers, config.tasks.ttl_max),
        streams,
        clusters,
        login: config.login.clone(),
        api_keys: backends.api_keys,
        roles,
        policies,
        authenticator,
        own_address: config.server.own_address(),
        public_url: config.server.own_url(),
        limits: limits(config),
        settings: settings(config, &entropy),
        clock,
        entropy,
    }))
}

/// Serves until the process is told to stop, then lets what is under way finish.
pub async fn serve(
    path: &Path,
    config: Config,
    policies: Policies,
    env: config::Env<'_>,
) -> Result<(), ServeError> {
    let pollers = poller::all(&config.pollers, &config.issuers, config.tasks.ttl_max);
    let pollers = pollers.map_err(ServeError::Poller)?;
    let broker = build(&config, policies).await?;
    let loops = broker.engine.start();
    let scheduler = schedule::start(&broker, &config).await?;
    if let Some(roots) = broker.roots.clone() {
        let clock = Arc::clone(&broker.clock);
        spawn(async move {
            // A panic (a defect in a backend) must not end the watch unseen.
            loop {
                let watched = Arc::clone(&roots);
                if let Err(error) = spawn(async move { watched.watch().await }).await {
                    tracing::error!(%error, "root.watch.died");
                }
                clock.sleep(DRAIN).await;
            }
        });
    }
    let refreshing = Arc::clone(&broker);
    spawn(async move {
        loop {
            refreshing.authenticator.refresh().await;
            refreshing.streams.refresh().await;
            refreshing.clock.sleep(schedule::KEY_REFRESH).await;
        }
    });
    pods::follow(&broker);
    let address = config.server.listen;
    let listening = listen(&broker, address, config.server.tls.as_ref()).await?;
    let looking = Arc::clone(&broker);
    spawn(async move {
        name_the_stranded(&looking).await;
        schedule::look_again(&looking).await;
        schedule::end_disabled(&looking).await;
    });
    if config.policies.recheck {
        // The rules, or the roles, may be others than before the start.
        recheck::begin(&broker);
    }
    for poller in pollers {
        poller.begin(&broker);
    }
    tracing::info!(address = %listening.address(), replica = %broker.engine.replica(), "server.ready");
    let stopping = || broker.engine.listen_no_more();
    let reloading = || {
        reload(path, &broker, env);
        let rereading = Arc::clone(&broker);
        spawn(async move { rereading.authenticator.reread_bundles().await });
    };
    listening.until_told_to_stop(reloading, stopping).await;
    drop(scheduler);
    broker.engine.drain(DRAIN).await;
    broker.engine.stop();
    for handle in loops {
        // A batch in flight is bounded by its own time-out.
        if let Err(error) = handle.await {
            tracing::error!(%error, "reaper.died");
        }
    }
    broker.engine.hand_back().await;
    broker.store.close().await;
    tracing::info!("server.stopped");
    Ok(())
}

/// The longest that mints under way may take after we were told to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// Leases at a backend that the configuration does not have any more are debt that nobody
/// here can pay: it is said at every start, and the metrics show their age.
async fn name_the_stranded(broker: &Broker) {
    let living = match broker.store.living().await {
        Ok(living) => living,
        Err(error) => return tracing::error!(%error, "store.living.unreadable"),
    };
    for group in living {
        if broker.engine.line(&group.backend).is_none() {
            tracing::error!(
                backend = group.backend,
                lease.state = group.state,
                leases = group.count,
                "lease.backend.not_configured"
            );
        }
    }
}

/// On SIGHUP the policies are read again, whole; a faulty set leaves the old one in place.
fn reload(path: &Path, broker: &Arc<Broker>, env: config::Env<'_>) {
    match configure(path, env) {
        Ok((config, _)) => {
            match preflight::policies(&config.policies, &broker.roles.facts()).map_err(Faults) {
                Ok(policies) => {
                    tracing::info!(policy.hash = policies.hash(), "policy.reloaded");
                    broker.policies.store(Arc::new(policies));
                    if config.policies.recheck {
                        recheck::begin(broker);
                    }
                }
                Err(faults) => tracing::error!(%faults, "policy.reload.refused"),
            }
        }
        Err(faults) => tracing::error!(%faults, "policy.reload.refused"),
    }
}
