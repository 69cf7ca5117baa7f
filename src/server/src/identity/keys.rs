//! The keys of one issuer: where they come from, and how long they are trusted.
//!
//! Invariant: keys older than five minutes are not used while the issuer answers, keys older
//! than an hour are not used at all, and nothing that a caller sends makes us ask the issuer
//! more than once in thirty seconds.

mod file;
mod http;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::Clock;
use tokio::sync::OwnedMutexGuard;

pub use file::FileKeys;
pub use http::{DiscoveryFault, HttpKeys};

use super::{
    Rejection,
    jwks::{JwksError, Key, KeyFault, KeySet},
};

/// The background loop renews keys of this age, so that callers rarely wait for it.
const RENEW_AFTER: Duration = Duration::from_mins(4);
/// Beyond this age a caller waits for newer keys: a key that its issuer took back works no
/// longer than this.
const FRESH_MAX: Duration = Duration::from_mins(5);
/// Beyond this age we fail closed, however long the issuer's outage.
const STALE_MAX: Duration = Duration::from_hours(1);
/// Callers choose the `kid`, so this is what a flood of unknown ones can cause.
const FETCH_INTERVAL: Duration = Duration::from_secs(30);
/// Without any key nothing works, so try again sooner.
const FETCH_INTERVAL_COLD: Duration = Duration::from_secs(5);

/// Where an issuer's keys come from.
#[async_trait]
pub trait KeySource: Send + Sync + fmt::Debug {
    /// The keys as they are now.
    async fn fetch(&self) -> Result<KeySet, KeysError>;
}

/// Why an issuer's keys could not be had. Never holds what the issuer answered.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The answer is compressed, which nobody asked for.
    #[error("the answer is compressed")]
    Compressed,
    /// The discovery document is not one for this issuer.
    #[error("the discovery document is refused")]
    Discovery(#[source] DiscoveryFault),
    /// The file cannot be read.
    #[error("the key file cannot be read")]
    File(#[source] std::io::Error),
    /// The keys are no JWK set.
    #[error("the keys are refused")]
    Jwks(#[source] JwksError),
    /// The answer redirects elsewhere.
    #[error("the answer is a redirect")]
    Redirect,
    /// The answer is not 200.
    #[error("the answer has status {0}")]
    Status(u16),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// The answer is too large.
    #[error("the answer is too large")]
    TooLarge,
    /// No connection, or it broke.
    #[error("the request failed")]
    Transport(#[source] reqwest::Error),
}

/// Keys that are given once and for all.
#[derive(Debug)]
pub struct FixedKeys(KeySet);

impl FixedKeys {
    /// From a JWK set.
    pub fn parse(jwks: &[u8]) -> Result<Self, JwksError> {
        KeySet::parse(jwks).map(Self)
    }
}

#[async_trait]
impl KeySource for FixedKeys {
    async fn fetch(&self) -> Result<KeySet, KeysError> {
        Ok(self.0.clone())
    }
}

#[derive(Debug)]
struct Cached {
    set: KeySet,
    fetched_at: Timestamp,
}

/// The keys of one issuer, kept.
#[derive(Debug)]
pub(crate) struct KeyCache {
    issuer: String,
    source: Arc<dyn KeySource>,
    clock: Arc<dyn Clock>,
    cached: ArcSwapOption<Cached>,
    /// Held while keys are fetched, so that one fetch serves all who wait.
    flight: Arc<tokio::sync::Mutex<()>>,
    attempted_at: Mutex<Option<Timestamp>>,
    fetches: AtomicU64,
}

impl KeyCache {
    pub(crate) fn new(issuer: String, source: Arc<dyn KeySource>, clock: Arc<dyn Clock>) -> Self {
        Self {
            issuer,
            source,
            clock,
            cached: ArcSwapOption::empty(),
            flight: Arc::default(),
            attempted_at: Mutex::default(),
            fetches: AtomicU64::new(0),
        }
    }

    /// How often the source was asked.
    pub(crate) fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }

    /// The key that a header means.
    pub(crate) async fn find(self: &Arc<Self>, kid: Option<&str>) -> Result<Arc<Key>, Rejection> {
        let cached = self.usable();
        let fresh = cached.as_ref().is_some_and(|cached| self.is_younger(cached, FRESH_MAX));
        if let (true, Some(cached)) = (fresh, &cached) {
            let selected = cached.set.select(kid);
            if !matches!(selected, Err(Rejection::UnknownKey)) {
                return selected;
            }
        }
        // With keys that are old but usable one caller asks for newer ones, and the others do
        // not wait for an issuer that may be down.
        let wait = fresh || cached.is_none();
        self.renew(wait).await;
        self.usable().ok_or(Rejection::KeysUnavailable)?.set.select(kid)
    }

    /// Renews the keys ahead of need.
    pub(crate) async fn refresh(self: &Arc<Self>) {
        let young = self.usable().is_some_and(|cached| self.is_younger(&cached, RENEW_AFTER));
        if !young {
            self.renew(true).await;
        }
    }

    /// Fetches the keys unless that was tried just now.
    async fn renew(self: &Arc<Self>, wait: bool) {
        let flight = Arc::clone(&self.flight);
        let guard = if wait {
            flight.lock_owned().await
        } else if let Ok(guard) = flight.try_lock_owned() {
            guard
        } else {
            return;
        };
        if self.may_attempt() {
            // Detached: a caller that goes away must not cut the fetch short, or callers who
            // come and go could keep new keys out.
            let done = dayfly_lease::spawn(Arc::clone(self).fetch(guard)).await;
            drop(done);
        }
    }

    async fn fetch(self: Arc<Self>, _flight: OwnedMutexGuard<()>) {
        let fetched_at = self.clock.now();
        self.fetches.fetch_add(1, Ordering::Relaxed);
        match self.source.fetch().await {
            Ok(set) => {
                self.report(&set);
                self.cached.store(Some(Arc::new(Cached { set, fetched_at })));
            }
            Err(error) => tracing::warn!(
                issuer.name = %self.issuer,
                error = &error as &dyn std::error::Error,
                "the issuer's keys could not be fetched"
            ),
        }
    }

    fn report(&self, set: &KeySet) {
        if set.faults().contains(&KeyFault::Private) {
            tracing::error!(issuer.name = %self.issuer, "the issuer publishes a private key");
        }
        if set.is_empty() {
            tracing::error!(issuer.name = %self.issuer, "the issuer has no usable key");
        }
        tracing::debug!(
            issuer.name = %self.issuer,
            keys = set.len(),
            left_out = ?set.faults(),
            "the issuer's keys were fetched"
        );
    }

    /// Records the attempt if one may be made.
    fn may_attempt(&self) -> bool {
        let cold = self.usable().is_none();
        let interval = if cold { FETCH_INTERVAL_COLD } else { FETCH_INTERVAL };
        let now = self.clock.now();
        let mut at = self.attempted_at.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back must not hold the next attempt up.
        let due = at.is_none_or(|last| now < last || now.since(last) >= interval);
        if due {
            *at = Some(now);
        }
        due
    }

    fn usable(&self) -> Option<Arc<Cached>> {
        self.cached
            .load_full()
            .filter(|cached| self.clock.now().since(cached.fetched_at) <= STALE_MAX)
    }

    /// Keys from the future are old: the clock was set back, and their age is unknown.
    fn is_younger(&self, cached: &Cached, age_max: Duration) -> bool {
        let now = self.clock.now();
        now >= cached.fetched_at && now.since(cached.fetched_at) < age_max
    }
}

#[cfg(test)]
mod tests;
