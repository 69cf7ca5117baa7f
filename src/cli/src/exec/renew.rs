//! Keeps the command's leases alive.
//!
//! Invariant: renewal never stops the command, and tells of each lease's trouble once.

use std::time::Duration;

use dayfly_api::Lease;
use futures_util::future::join_all;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Instant, sleep};

use crate::{
    client::jittered,
    exec::{Session, asleep::sleep_until},
    failure::Failure,
};

/// A shorter pause between attempts would only load a broker in trouble.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Renews each lease at half its life until it can't be renewed any more.
pub(super) async fn keep_alive(session: &Session<'_>) {
    join_all(session.task.leases.iter().map(|lease| keep_one(session, lease))).await;
}

async fn keep_one(session: &Session<'_>, lease: &Lease) {
    // The life comes from the broker's two instants, so our own clock may be wrong.
    let Some(asked) = life(&lease.issued_at, &lease.expires_at) else {
        session
            .terminal
            .warn(&format!("lease {} has no readable times; it is not renewed", lease.id));
        return;
    };
    let mut granted = asked;
    let mut from = session.opened_at;
    let mut warned = false;
    if lease.renewable {
        while let Some(next) = renew(session, lease, asked, from, granted, &mut warned).await {
            from = Instant::now();
            granted = next.life;
            if next.is_last {
                break;
            }
        }
    }
    sleep_until(from + granted).await;
    session.terminal.warn(&format!(
        "lease {} (role `{}`) has ended; the command goes on without its credential",
        lease.id, lease.role
    ));
}

struct Renewal {
    life: Duration,
    is_last: bool,
}

/// One renewal: first at half of `granted`, then at half of what is left each time. `None` if
/// there is no more hope.
async fn renew(
    session: &Session<'_>,
    lease: &Lease,
    asked: Duration,
    from: Instant,
    granted: Duration,
    warned: &mut bool,
) -> Option<Renewal> {
    let ends = from + granted;
    let seconds = i64::try_from(asked.as_secs()).unwrap_or(i64::MAX);
    sleep_until(from + jittered(granted / 2)).await;
    loop {
        match session.client.renew_lease(&session.token, &lease.id, seconds).await {
            Ok(renewed) => {
                *warned = false;
                session.record.renewed(&lease.id, &renewed.expires_at);
                let life = Duration::from_secs(u64::try_from(renewed.ttl_seconds).unwrap_or(0));
                return Some(Renewal { life, is_last: renewed.truncated });
            }
            Err(error) => {
                let hopeless = !error.is_temporary();
                if !*warned {
                    *warned = true;
                    session.terminal.warn(&format!(
                        "cannot renew lease {} (role `{}`): {}",
                        lease.id,
                        lease.role,
                        Failure::from(error).to_line()
                    ));
                }
                if hopeless {
                    return None;
                }
            }
        }
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        sleep(jittered(left / 2).max(PAUSE_MIN)).await;
    }
}

/// The time between two RFC 3339 instants.
fn life(from: &str, to: &str) -> Option<Duration> {
    let from = OffsetDateTime::parse(from, &Rfc3339).ok()?;
    let to = OffsetDateTime::parse(to, &Rfc3339).ok()?;
    Duration::try_from(to - from).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_the_difference_of_the_brokers_instants() {
        let of = |from, to| life(from, to);
        assert_eq!(
            of("2026-11-22T06:00:00.25Z", "2026-11-22T06:15:00.25Z"),
            Some(Duration::from_mins(15))
        );
        assert_eq!(of("2026-11-22T06:00:00Z", "2026-11-22T05:00:00Z"), None);
        assert_eq!(of("soon", "2026-11-22T05:00:00Z"), None);
    }
}
