//! Logs and metrics.
//!
//! Invariant: no secret reaches either. Headers, bodies and credentials are never fields.

use std::{
    fmt,
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{Engine, Owner, Standing};
use dayfly_store::Living;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tracing_subscriber::{EnvFilter, fmt as format};

/// Starts logging to stderr. Called once, by `main`; a second call changes nothing.
pub fn start(json: bool, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let builder = format().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json { builder.json().try_init() } else { builder.try_init() };
    drop(started);
    Ok(())
}

/// What a grant came to, at which backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GrantLabels {
    /// The backend's name.
    pub backend: String,
    /// `granted`, or a problem's code.
    pub result: String,
}

/// A request by what it came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route's template, so that ids make no series.
    pub route: String,
    /// The status.
    pub status: u16,
}

/// A poller's questions by what they came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PollerLabels {
    /// The poller's name.
    pub poller: String,
    /// `ended`, `failed`, `goes_on`, `limited`, `mismatched`, `not_found`, `refused`,
    /// `token_refused`, `token_unreadable`, `unavailable` or `unreadable`.
    pub result: String,
}

/// A stream's security event tokens by what they came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StreamLabels {
    /// The stream's name.
    pub stream: String,
    /// `taken`, `repeated`, `ignored`, `refused` or `failed`.
    pub result: String,
}

/// A webhook's requests by what they came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WebhookLabels {
    /// The webhook's name.
    pub webhook: String,
    /// `ended`, `failed`, `ignored`, `refused`, `repeated`, `unknown_job` or `unreadable`.
    pub result: String,
}

/// Leases by backend and state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LeaseLabels {
    /// The backend's name.
    pub backend: String,
    /// `pending`, `active` or `revoking`.
    pub state: String,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BackendLabels {
    /// The backend's name.
    pub backend: String,
}

/// A cluster, or one of its namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PodLabels {
    /// The cluster's name.
    pub cluster: String,
    /// The namespace; empty where all are meant.
    pub namespace: String,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClusterLabels {
    /// The cluster's name.
    pub cluster: String,
}

/// What the store says at the moment of a scrape.
#[derive(Debug)]
pub struct Situation {
    /// The leases that may live.
    pub living: Vec<Living>,
    /// Rows that could not be read and were put aside.
    pub quarantined: u64,
    /// What the installation may do.
    pub standing: Standing,
    /// The store's clock.
    pub now: Timestamp,
}

/// The replica's metrics.
pub struct Metrics {
    registry: Mutex<Registry>,
    grants: Family<GrantLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    refused: Counter,
    webhooks: Family<WebhookLabels, Counter>,
    polls: Family<PollerLabels, Counter>,
    security_events: Family<StreamLabels, Counter>,
    latency: Histogram,
    leases: Family<LeaseLabels, Gauge>,
    debt: Family<LeaseLabels, Gauge>,
    quarantined: Gauge,
    suspended: Gauge,
    brake: Gauge,
    lines: Lines,
    pods: Pods,
}

/// What is noticed of pods.
#[derive(Default)]
struct Pods {
    followed: Family<PodLabels, Gauge>,
    tasks_ended: Family<ClusterLabels, Counter>,
}

/// What the engine tells of each backend.
#[derive(Default)]
struct Lines {
    down: Family<BackendLabels, Gauge>,
    foreign: Family<BackendLabels, Gauge>,
    orphans_found: Family<BackendLabels, Counter>,
    orphans_ended: Family<BackendLabels, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// From a millisecond to half a minute.
const LATENCY_BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("dayfly");
        let grants = Family::<GrantLabels, Counter>::default();
        let requests = Family::<RequestLabels, Counter>::default();
        let refused = Counter::default();
        let webhooks = Family::<WebhookLabels, Counter>::default();
        let polls = Family::<PollerLabels, Counter>::default();
        let security_events = Family::<StreamLabels, Counter>::default();
        let latency = Histogram::new(LATENCY_BUCKETS);
        let leases = Family::<LeaseLabels, Gauge>::default();
        let debt = Family::<LeaseLabels, Gauge>::default();
        registry.register("grants", "Grants by backend and result", grants.clone());
        registry.register("requests", "HTTP requests by route and status", requests.clone());
        registry.register("identities_refused", "Tokens that were refused", refused.clone());
        registry.register("webhooks", "Webhook requests by name and result", webhooks.clone());
        registry.register("polls", "Jobs asked for by poller and result", polls.clone());
        registry.register(
            "security_events",
            "Security event tokens by stream and result",
            security_events.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "Duration of HTTP requests",
            Unit::Seconds,
            latency.clone(),
        );
        registry.register("leases", "Leases that may live, by backend and state", leases.clone());
        registry.register_with_unit(
            "debt_age",
            "Age of the oldest death that is due and not verified",
            Unit::Seconds,
            debt.clone(),
        );
        let (quarantined, suspended, brake) =
            (Gauge::default(), Gauge::default(), Gauge::default());
        registry.register(
            "leases_quarantined",
            "Rows of leases that cannot be read",
            quarantined.clone(),
        );
        registry.register(
            "suspended",
            "1 while minting is suspended until the store is recovered",
            suspended.clone(),
        );
        registry.register(
            "brake_held",
            "1 while the mass-revocation brake holds leases back",
            brake.clone(),
        );
        let (lines, pods) = (Lines::registered(&mut registry), Pods::registered(&mut registry));
        let registry = Mutex::new(registry);
        Self {
            registry,
            grants,
            requests,
            refused,
            webhooks,
            polls,
            security_events,
            latency,
            leases,
            debt,
            quarantined,
            suspended,
            brake,
            lines,
            pods,
        }
    }
}

impl Lines {
    fn registered(registry: &mut Registry) -> Self {
        let lines = Self::default();
        registry.register(
            "backend_down",
            "1 while a backend is taken to be down, and only probed",
            lines.down.clone(),
        );
        registry.register(
            "backend_foreign",
            "1 while a backend's prefix belongs to another installation",
            lines.foreign.clone(),
        );
        registry.register(
            "orphans_found",
            "Credentials without a living lease that this replica's sweeps found",
            lines.orphans_found.clone(),
        );
        registry.register(
            "orphans_ended",
            "Those of them that were ended and verified gone",
            lines.orphans_ended.clone(),
        );
        lines
    }

    fn read(&self, engine: &Engine) {
        for name in engine.backends() {
            let Some(line) = engine.line(name) else { continue };
            let labels = BackendLabels { backend: name.to_owned() };
            let foreign = matches!(line.owner(), Owner::Another(_));
            self.down.get_or_create(&labels).set(i64::from(line.is_down()));
            self.foreign.get_or_create(&labels).set(i64::from(foreign));
            let orphans = line.orphans();
            // The engine counts; these only show what it has counted.
            let set = |family: &Family<BackendLabels, Counter>, count| {
                family.get_or_create(&labels).inner().store(count, Ordering::Relaxed);
            };
            set(&self.orphans_found, orphans.found);
            set(&self.orphans_ended, orphans.ended);
        }
    }
}

impl Pods {
    fn registered(registry: &mut Registry) -> Self {
        let pods = Self::default();
        registry.register(
            "pods_followed",
            "1 while the ends of a cluster's pods are noticed",
            pods.followed.clone(),
        );
        registry.register(
            "pod_tasks_ended",
            "Tasks that ended with their pods",
            pods.tasks_ended.clone(),
        );
        pods
    }
}

impl Metrics {
    /// A grant was decided.
    pub fn grant(&self, backend: &str, result: &str) {
        let labels = GrantLabels { backend: backend.to_owned(), result: result.to_owned() };
        self.grants.get_or_create(&labels).inc();
    }

    /// A token was refused.
    pub fn identity_refused(&self) {
        self.refused.inc();
    }

    /// A webhook's request was dealt with.
    pub fn webhook(&self, webhook: &str, result: &str) {
        let labels = WebhookLabels { webhook: webhook.to_owned(), result: result.to_owned() };
        self.webhooks.get_or_create(&labels).inc();
    }

    /// A poller asked for a job.
    pub fn poll(&self, poller: &str, result: &str) {
        let labels = PollerLabels { poller: poller.to_owned(), result: result.to_owned() };
        self.polls.get_or_create(&labels).inc();
    }

    /// A security event token was dealt with.
    pub fn security_event(&self, stream: &str, result: &str) {
        let labels = StreamLabels { stream: stream.to_owned(), result: result.to_owned() };
        self.security_events.get_or_create(&labels).inc();
    }

    /// The pods of a cluster, or of one namespace, are followed, or are not.
    pub fn pods_followed(&self, cluster: &str, namespace: &str, is: bool) {
        let (cluster, namespace) = (cluster.to_owned(), namespace.to_owned());
        let labels = PodLabels { cluster, namespace };
        self.pods.followed.get_or_create(&labels).set(i64::from(is));
    }

    /// So many tasks ended with a pod.
    pub fn pod_ended(&self, cluster: &str, tasks: usize) {
        let labels = ClusterLabels { cluster: cluster.to_owned() };
        self.pods.tasks_ended.get_or_create(&labels).inc_by(tasks as u64);
    }

    /// A request was answered.
    pub fn request(&self, route: &str, status: u16, took: Duration) {
        let labels = RequestLabels { route: route.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
        self.latency.observe(took.as_secs_f64());
    }

    /// The exposition, with the leases as the store counts them now.
    pub fn exposition(&self, situation: &Situation, engine: &Engine) -> String {
        let Situation { living, quarantined, standing, now } = situation;
        let held = standing.hold.is_some_and(|hold| hold.is_on(*now));
        self.quarantined.set(i64::try_from(*quarantined).unwrap_or(i64::MAX));
        self.suspended.set(i64::from(standing.suspended.is_some()));
        self.brake.set(i64::from(held));
        self.lines.read(engine);
        self.leases.clear();
        self.debt.clear();
        for group in living {
            let labels = LeaseLabels { backend: group.backend.clone(), state: group.state.clone() };
            let count = i64::try_from(group.count).unwrap_or(i64::MAX);
            self.leases.get_or_create(&labels).set(count);
            if let Some(oldest) = group.oldest {
                let age = i64::try_from(now.since(oldest).as_secs()).unwrap_or(i64::MAX);
                self.debt.get_or_create(&labels).set(age);
            }
        }
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = encode(&mut text, &registry) {
            tracing::error!(%error, "metrics.unwritable");
        }
        text
    }
}
