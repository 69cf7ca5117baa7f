//! `[tasks]`: what bounds a task.
//!
//! Invariant: `heartbeat_min ≤ heartbeat_max`, and no interval is shorter than an outage that
//! the engine may not notice (three looks, one a second).

use std::time::Duration;

use super::{
    role::TTL_LONGEST,
    section::{Section, duration, one_of},
    server::{ClientCertificates, ServerConfig},
};

/// `[tasks]`.
#[derive(Clone, Debug)]
pub struct TaskConfig {
    /// The longest that a task may be open, and the lifetime of one that asks for none.
    pub ttl_max: Duration,
    /// The shortest interval of a heartbeat.
    pub heartbeat_min: Duration,
    /// The longest.
    pub heartbeat_max: Duration,
    /// Whether no task is opened whose token is not bound to a key or a certificate.
    pub binding_required: bool,
}

impl Default for TaskConfig {
    fn default() -> Self {
        Self {
            ttl_max: Duration::from_hours(6),
            heartbeat_min: Duration::from_secs(10),
            heartbeat_max: Duration::from_mins(10),
            binding_required: false,
        }
    }
}

pub(super) fn read(section: &Section<'_>, server: &ServerConfig) -> TaskConfig {
    let default = TaskConfig::default();
    let range = duration(Duration::from_secs(1)..=TTL_LONGEST);
    let interval = || duration(Duration::from_secs(5)..=Duration::from_hours(1));
    let min = section.optional("heartbeat_min", interval()).unwrap_or(default.heartbeat_min);
    let max = section.optional("heartbeat_max", interval()).unwrap_or(default.heartbeat_max);
    if min > max {
        section.fault("heartbeat_min", "must not be longer than `heartbeat_max`");
    }
    let words = [("optional", false), ("required", true)];
    let binding_required = section.optional("binding", one_of(&words)).unwrap_or(false);
    let certificates = server.tls.as_ref().map(|tls| tls.client_certificates);
    let provable =
        server.own_address().is_known() || certificates == Some(ClientCertificates::Spiffe);
    if binding_required && !provable {
        section.fault(
            "binding",
            "nobody could prove anything here: set `server.public_url`, or ask for \
             `server.tls.client_certificates`",
        );
    }
    TaskConfig {
        ttl_max: section.optional("ttl_max", range).unwrap_or(default.ttl_max),
        heartbeat_min: min,
        heartbeat_max: max,
        binding_required,
    }
}
