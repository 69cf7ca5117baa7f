//! Sleeping by a clock that does not stop while the machine is suspended.
//!
//! Invariant: what is due after a suspension is done within [`LOOK`] of its end, since the
//! broker's time went on. A job that was stopped by ^Z needs nothing of this: the clock of timers
//! goes on meanwhile, so that they are all due when it continues.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The longest sleep without a look at how long the machine was suspended.
const LOOK: Duration = Duration::from_secs(15);

/// Sleeps until `deadline`, in which time spent suspended counts as well.
pub(super) async fn sleep_until(deadline: Instant) {
    let before = suspended();
    loop {
        let missed = suspended().saturating_sub(before);
        let left = deadline.saturating_duration_since(Instant::now()).saturating_sub(missed);
        if left.is_zero() {
            return;
        }
        sleep(left.min(LOOK)).await;
    }
}

/// How long the machine has been suspended since its start.
#[cfg(target_os = "linux")]
fn suspended() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    read(ClockId::Boottime).saturating_sub(read(ClockId::Monotonic))
}

/// Elsewhere the timers' clock is all that there is.
#[cfg(not(target_os = "linux"))]
fn suspended() -> Duration {
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleep_ends_at_its_time() {
        let start = Instant::now();
        sleep_until(start + Duration::from_millis(40)).await;
        assert!(start.elapsed() >= Duration::from_millis(40));
        sleep_until(start).await;
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
