//! `[tasks]`: what bounds a task.

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
}

impl Default for TaskConfig {
    fn default() -> Self {
        Self { ttl_max: Duration::from_hours(6) }
    }
}

pub(super) fn read(section: &Section<'_>) -> TaskConfig {
    let range = duration(Duration::from_secs(1)..=TTL_LONGEST);
    let default = TaskConfig::default().ttl_max;
    TaskConfig { ttl_max: section.optional("ttl_max", range).unwrap_or(default) }
}
