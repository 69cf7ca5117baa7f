//! `[engine]`: the few bounds of the lease engine that depend on where it runs.
//!
//! Invariant: no value here can keep a credential alive for longer. What could (claims,
//! backoff, the brake) is fixed.

use std::time::Duration;

use dayfly_lease::Settings;

use super::section::{Section, duration};

/// `[engine]`.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// How long a mint may take at its backend.
    pub mint_within: Duration,
    /// How often each backend is looked through for credentials without a lease.
    pub sweep_every: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        let Settings { mint_within, sweep_every, .. } = Settings::default();
        Self { mint_within, sweep_every }
    }
}

impl EngineConfig {
    /// All of the engine's bounds.
    pub fn settings(&self) -> Settings {
        let Self { mint_within, sweep_every } = *self;
        Settings { mint_within, sweep_every, ..Settings::default() }
    }
}

pub(super) fn read(section: &Section<'_>) -> EngineConfig {
    let default = EngineConfig::default();
    let range = || duration(Duration::from_secs(5)..=Duration::from_mins(1));
    EngineConfig {
        mint_within: section.optional("mint_within", range()).unwrap_or(default.mint_within),
        sweep_every: section.optional("sweep_every", range()).unwrap_or(default.sweep_every),
    }
}
