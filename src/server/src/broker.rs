//! What every request shares.
//!
//! Invariant: built once by `serve` or `demo`; what can change while it runs is behind a swap
//! that is replaced whole.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use dayfly_backend_api_key::ApiKeyBackend;
use dayfly_lease::{Clock, Engine, Entropy, JobKeys};
use dayfly_store::AnyStore;

use crate::{
    Roles,
    config::LoginConfig,
    identity::{Authenticator, OwnAddress, Principal},
    pods::Clusters,
    policy::Policies,
    root::Roots,
    ssf::Streams,
    telemetry::Metrics,
    webhook::Hooks,
};

/// The parts of a running broker.
#[derive(Debug)]
pub struct Broker {
    /// The lease engine.
    pub engine: Arc<Engine>,
    /// The store, for what only the server reads.
    pub store: AnyStore,
    /// Who is asking.
    pub authenticator: Authenticator,
    /// What proofs of possession must be for.
    pub own_address: OwnAddress,
    /// What we call ourselves, without a slash at the end; none where nobody has told us.
    pub public_url: Option<String>,
    /// What they may do.
    pub policies: ArcSwap<Policies>,
    /// What can be minted.
    pub roles: Roles,
    /// Our own passwords at backends; none where nothing can be sealed.
    pub roots: Option<Arc<Roots>>,
    /// Who may tell us that a job ended.
    pub hooks: Hooks,
    /// Who may tell us that somebody may no longer have what they have.
    pub streams: Streams,
    /// Whose pods' ends we follow.
    pub clusters: Clusters,
    /// How people sign in at the command line.
    pub login: Option<LoginConfig>,
    /// The API-key backends, for introspection.
    pub api_keys: Vec<Arc<ApiKeyBackend>>,
    /// The replica's clock.
    pub clock: Arc<dyn Clock>,
    /// The replica's randomness.
    pub entropy: Arc<dyn Entropy>,
    /// What is counted.
    pub metrics: Metrics,
    /// Bounds of requests.
    pub limits: Limits,
}

impl Broker {
    /// The job that `principal` is, if anybody could tell of its end.
    pub(crate) fn job_of(&self, principal: &Principal) -> JobKeys {
        self.clusters.job_of(principal).unwrap_or_else(|| self.hooks.job_of(principal))
    }
}

/// Bounds of requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest body.
    pub body_bytes_max: usize,
    /// The longest that a request may take; what it began goes on without it.
    pub request_timeout: Duration,
    /// Requests at a time.
    pub concurrency: usize,
    /// The longest lifetime of a task.
    pub task_ttl_max: Duration,
    /// The shortest interval of a heartbeat.
    pub heartbeat_min: Duration,
    /// The longest.
    pub heartbeat_max: Duration,
    /// Whether no task is opened without a binding of its token.
    pub binding_required: bool,
    /// A proxy stands before us, so the connection's address is not the caller's.
    pub behind_proxy: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 * 1024,
            request_timeout: Duration::from_secs(30),
            concurrency: 1_024,
            task_ttl_max: Duration::from_hours(6),
            heartbeat_min: Duration::from_secs(10),
            heartbeat_max: Duration::from_mins(10),
            binding_required: false,
            behind_proxy: false,
        }
    }
}
