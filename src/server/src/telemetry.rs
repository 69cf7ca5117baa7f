//! Logs and metrics.
//!
//! Invariant: no secret reaches either. Headers, bodies and credentials are never fields.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use dayfly_backend_sdk::Timestamp;
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

/// Leases by backend and state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LeaseLabels {
    /// The backend's name.
    pub backend: String,
    /// `pending`, `active` or `revoking`.
    pub state: String,
}

/// The replica's metrics.
pub struct Metrics {
    registry: Mutex<Registry>,
    grants: Family<GrantLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    refused: Counter,
    latency: Histogram,
    leases: Family<LeaseLabels, Gauge>,
    debt: Family<LeaseLabels, Gauge>,
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
        let latency = Histogram::new(LATENCY_BUCKETS);
        let leases = Family::<LeaseLabels, Gauge>::default();
        let debt = Family::<LeaseLabels, Gauge>::default();
        registry.register("grants", "Grants by backend and result", grants.clone());
        registry.register("requests", "HTTP requests by route and status", requests.clone());
        registry.register("identities_refused", "Tokens that were refused", refused.clone());
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
        let registry = Mutex::new(registry);
        Self { registry, grants, requests, refused, latency, leases, debt }
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

    /// A request was answered.
    pub fn request(&self, route: &str, status: u16, took: Duration) {
        let labels = RequestLabels { route: route.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
        self.latency.observe(took.as_secs_f64());
    }

    /// The exposition, with the leases as the store counts them now.
    pub fn exposition(&self, living: &[Living], now: Timestamp) -> String {
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
