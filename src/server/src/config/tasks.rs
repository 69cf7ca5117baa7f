//! `[tasks]`: what bounds a task.
//!
//! Invariant: `heartbeat_min ≤ heartbeat_max`, and no interval is shorter than an outage that
//! the engine may not notice (three looks, one a second).

use std::time::Duration;

use super::{
    role::TTL_LONGEST,
    section::{Section, duration},
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
}

impl Default for TaskConfig {
    fn default() -> Self {
        Self {
            ttl_max: Duration::from_hours(6),
            heartbeat_min: Duration::from_secs(10),
            heartbeat_max: Duration::from_mins(10),
        }
    }
}

pub(super) fn read(section: &Section<'_>) -> TaskConfig {
    let default = TaskConfig::default();
    let range = duration(Duration::from_secs(1)..=TTL_LONGEST);
    let interval = || duration(Duration::from_secs(5)..=Duration::from_hours(1));
    let min = section.optional("heartbeat_min", interval()).unwrap_or(default.heartbeat_min);
    let max = section.optional("heartbeat_max", interval()).unwrap_or(default.heartbeat_max);
    if min > max {
        section.fault("heartbeat_min", "must not be longer than `heartbeat_max`");
    }
    TaskConfig {
        ttl_max: section.optional("ttl_max", range).unwrap_or(default.ttl_max),
        heartbeat_min: min,
        heartbeat_max: max,
    }
}
