//! The keys of one issuer: where they come from, and how long they are trusted.
//!
//! Invariant: keys that are no longer fresh are not used while their source answers, and stale
//! ones are not used at all; what is what, [`Ages`] says. An OIDC issuer's keys are fresh for
//! five minutes and stale after an hour. A bundle is fresh for as long as it asks for, a day at
//! most, and a minute; it is stale an hour later. Nothing that a caller sends makes us ask more
//! than once in thirty seconds, or five where we have no keys, and an issuer that does not answer
//! holds up few: whoever waits for its keys waits for one fetch.

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
use tokio::sync::{OwnedMutexGuard, Semaphore};

pub use file::FileKeys;
pub use http::{DiscoveryFault, HttpKeys};

pub(crate) use file::read;
pub(crate) use http::{TIMEOUT, builder, client, get};

use super::{
    Rejection,
    jwks::{JwksError, Key, KeyFault, KeySet},
};

/// The [`Ages`] of the keys of an OIDC issuer.
const RENEW_AFTER: Duration = Duration::from_mins(4);
const FRESH_MAX: Duration = Duration::from_mins(5);
const STALE_MAX: Duration = Duration::from_hours(1);
/// Callers choose the `kid`, so this is what a flood of unknown ones can cause.
const FETCH_INTERVAL: Duration = Duration::from_secs(30);
/// Without any key nothing works, so try again sooner.
const FETCH_INTERVAL_COLD: Duration = Duration::from_secs(5);

/// Callers who may wait for the keys of one issuer; there is no answer for more. Anybody can name
/// an issuer that does not answer, and each who waits has a place that others need.
const WAITING_MAX: usize = 128;

/// Where an issuer's keys come from, or the bundle of a trust domain.
#[async_trait]
pub trait KeySource<T: 'static = KeySet>: Send + Sync + fmt::Debug {
    /// The keys as they are now.
    async fn fetch(&self) -> Result<T, KeysError>;
}

/// For how long keys are good.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ages {
    /// The background loop renews keys of this age, so that callers rarely wait for it.
    pub(crate) renew_after: Duration,
    /// Beyond this age a caller waits for newer keys: a key that its issuer took back works no
    /// longer than this.
    pub(crate) fresh_max: Duration,
    /// Beyond this age we fail closed, however long the issuer's outage.
    pub(crate) stale_max: Duration,
}

/// What a [`KeyCache`] keeps.
pub(crate) trait Kept: fmt::Debug + Send + Sync + 'static {
    /// For how long it is good.
    fn ages(&self) -> Ages;
    /// Writes into the log what was fetched for `issuer`.
    fn report(&self, issuer: &str);
}

impl Kept for KeySet {
    fn ages(&self) -> Ages {
        Ages { renew_after: RENEW_AFTER, fresh_max: FRESH_MAX, stale_max: STALE_MAX }
    }

    fn report(&self, issuer: &str) {
        if self.faults().contains(&KeyFault::Private) {
            tracing::error!(issuer.name = issuer, "the issuer publishes a private key");
        }
        if self.is_empty() {
            tracing::error!(issuer.name = issuer, "the issuer has no usable key");
        }
        tracing::debug!(
            issuer.name = issuer,
            keys = self.len(),
            left_out = ?self.faults(),
            "the issuer's keys were fetched"
        );
    }
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
struct Cached<T> {
    set: T,
    fetched_at: Timestamp,
}

/// The keys of one issuer, kept.
#[derive(Debug)]
pub(crate) struct KeyCache<T: Kept = KeySet> {
    issuer: String,
    source: Arc<dyn KeySource<T>>,
    clock: Arc<dyn Clock>,
    cached: ArcSwapOption<Cached<T>>,
    /// Held while keys are fetched, so that one fetch serves all who wait.
    flight: Arc<tokio::sync::Mutex<()>>,
    /// How many fetches have ended, for those who waited for one.
    ended: AtomicU64,
    waiting: Semaphore,
    attempted_at: Mutex<Option<Timestamp>>,
    fetches: AtomicU64,
}

/// Counts a fetch as ended when it is dropped.
struct Ended<'a>(&'a AtomicU64);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl KeyCache {
    /// The key that a header means.
    pub(crate) async fn find(self: &Arc<Self>, kid: Option<&str>) -> Result<Arc<Key>, Rejection> {
        self.find_with(|set| set.select(kid)).await
    }
}

impl<T: Kept> KeyCache<T> {
    pub(crate) fn new(
        issuer: String,
        source: Arc<dyn KeySource<T>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            issuer,
            source,
            clock,
            cached: ArcSwapOption::empty(),
            flight: Arc::default(),
            ended: AtomicU64::new(0),
            waiting: Semaphore::new(WAITING_MAX),
            attempted_at: Mutex::default(),
            fetches: AtomicU64::new(0),
        }
    }

    /// How often the source was asked.
    pub(crate) fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }

    /// What `select` finds. When it knows no such key, newer keys are looked at once.
    pub(crate) async fn find_with<R>(
        self: &Arc<Self>,
        select: impl Fn(&T) -> Result<R, Rejection>,
    ) -> Result<R, Rejection> {
        let cached = self.usable();
        let fresh = cached
            .as_ref()
            .is_some_and(|cached| self.is_younger(cached, cached.set.ages().fresh_max));
        if let (true, Some(cached)) = (fresh, &cached) {
            let selected = select(&cached.set);
            if !matches!(selected, Err(Rejection::UnknownKey)) {
                return selected;
            }
        }
        // With keys that are old but usable one caller asks for newer ones, and the others do
        // not wait for an issuer that may be down.
        let wait = fresh || cached.is_none();
        self.renew(wait).await;
        self.with_usable(select)
    }

    /// What `select` finds in the keys that are there, for those who cannot wait.
    pub(crate) fn with_usable<R>(
        &self,
        select: impl FnOnce(&T) -> Result<R, Rejection>,
    ) -> Result<R, Rejection> {
        select(&self.usable().ok_or(Rejection::KeysUnavailable)?.set)
    }

    /// Has newer keys looked at, without waiting for them; no more often than a caller could.
    pub(crate) fn renew_soon(self: &Arc<Self>) {
        let cache = Arc::clone(self);
        drop(dayfly_lease::spawn(async move { cache.renew(false).await }));
    }

    /// Fetches the keys now, however young they are. For the administrator, never for a
    /// caller.
    pub(crate) async fn reread(self: &Arc<Self>) {
        *self.attempted_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.renew(true).await;
    }

    /// Renews the keys ahead of need.
    pub(crate) async fn refresh(self: &Arc<Self>) {
        let young = self
            .usable()
            .is_some_and(|cached| self.is_younger(&cached, cached.set.ages().renew_after));
        if !young {
            self.renew(true).await;
        }
    }

    /// Fetches the keys unless that was tried just now. Whoever waits does so for one fetch, and
    /// takes what it came to.
    async fn renew(self: &Arc<Self>, wait: bool) {
        let Ok(_place) = self.waiting.try_acquire() else { return };
        let flight = Arc::clone(&self.flight);
        let guard = if wait {
            let before = self.ended.load(Ordering::SeqCst);
            let guard = flight.lock_owned().await;
            if self.ended.load(Ordering::SeqCst) != before {
                return;
            }
            guard
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
        // Before others may fly, also where a source panics.
        let _ended = Ended(&self.ended);
        let fetched_at = self.clock.now();
        self.fetches.fetch_add(1, Ordering::Relaxed);
        match self.source.fetch().await {
            Ok(set) => {
                set.report(&self.issuer);
                self.cached.store(Some(Arc::new(Cached { set, fetched_at })));
            }
            Err(error) => {
                // An issuer that takes its time to fail is left alone after that.
                let mut at = self.attempted_at.lock().unwrap_or_else(PoisonError::into_inner);
                *at = Some(self.clock.now());
                tracing::warn!(
                    issuer.name = %self.issuer,
                    error = &error as &dyn std::error::Error,
                    "the issuer's keys could not be fetched"
                );
            }
        }
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

    fn usable(&self) -> Option<Arc<Cached<T>>> {
        self.cached.load_full().filter(|cached| {
            self.clock.now().since(cached.fetched_at) <= cached.set.ages().stale_max
        })
    }

    /// Keys from the future are old: the clock was set back, and their age is unknown.
    fn is_younger(&self, cached: &Cached<T>, age_max: Duration) -> bool {
        let now = self.clock.now();
        now >= cached.fetched_at && now.since(cached.fetched_at) < age_max
    }
}

#[cfg(test)]
pub(crate) mod tests;
