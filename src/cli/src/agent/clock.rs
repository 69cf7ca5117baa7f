//! Time that also passes while the machine sleeps.
//!
//! Invariant: a credential is not taken for alive because nobody counted the hours in which a laptop
//! was closed.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::sleep;

/// The longest sleep in one go: tokio's timers stand still with the machine.
const SLICE: Duration = Duration::from_secs(30);

#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
// What it counts while a machine sleeps differs; the wall clock can be set by anybody.
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// How long the machine has been running, asleep or not.
pub(crate) fn uptime() -> Duration {
    let time = clock_gettime(CLOCK);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Sleeps until then.
pub(crate) async fn sleep_until(then: Duration) {
    loop {
        let left = then.saturating_sub(uptime());
        if left.is_zero() {
            return;
        }
        sleep(left.min(SLICE)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_goes_on_and_is_slept_through() {
        let before = uptime();
        sleep_until(before + Duration::from_millis(20)).await;
        assert!(uptime() >= before + Duration::from_millis(20));
        sleep_until(Duration::ZERO).await;
    }
}
