//! Where time, randomness and background work come from.
//!
//! Invariant: nothing else in this crate reads a clock, draws a random number or starts a
//! task, so that the simulator owns all three.

use std::{
    fmt,
    sync::LazyLock,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use dayfly_backend_sdk::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};

/// The replica's clock. It paces work; whether a lease is due is decided by the store's
/// clock alone (I8).
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now, as this replica believes.
    fn now(&self) -> Timestamp;
    /// How long this process has been running, whatever anybody does to the wall clock.
    fn running(&self) -> Duration;
    /// Waits; a step of the wall clock does not shorten it.
    async fn sleep(&self, duration: Duration);
}

/// Where random bytes come from.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp::EPOCH.plus(since.unwrap_or_default())
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    fn running(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The operating system's random number generator.
#[derive(Debug)]
pub struct SystemEntropy(SystemRandom);

impl SystemEntropy {
    /// Opens the generator.
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl Entropy for SystemEntropy {
    #[expect(
        clippy::expect_used,
        reason = "without randomness no secret is safe, and going on would be worse than stopping"
    )]
    fn fill(&self, bytes: &mut [u8]) {
        self.0.fill(bytes).expect("the operating system gives random numbers");
    }
}

/// Starts background work. The handle may be dropped: the work goes on.
#[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
pub fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}
