//! Renews a lease as long as it can be renewed.
//!
//! Invariant: renewal never stops the command, and tells of each lease's trouble once.

use std::time::Duration;

use dayfly_api::Lease;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Instant, sleep};

use crate::{
    client::jittered,
    exec::{Session, asleep::sleep_until},
    failure::Failure,
};

/// A shorter pause between attempts would only load a broker in trouble.
pub(super) const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The rest of a lease's life, which no renewal makes longer.
#[derive(Debug)]
pub(super) struct LastStretch {
    pub(super) ends: Instant,
    /// The same by the broker's clock.
    pub(super) expires_at: String,
    pub(super) max_expires_at: String,
    pub(super) why: Why,
}

/// Why a lease is not renewed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It has, or will have had, all the time that it can have.
    Full,
    /// Nobody could be asked in time. That was told.
    Late,
    /// The broker does not want to. That was told.
    Refused,
}

/// Renews `lease` at half its life until it can't be renewed any more. `None` if nobody can say
/// when that is.
pub(super) async fn to_the_last(
    session: &Session<'_>,
    lease: &Lease,
    mut from: Instant,
) -> Option<LastStretch> {
    // The life comes from the broker's two instants, so our own clock may be wrong.
    let Some(asked) = life(&lease.issued_at, &lease.expires_at) else {
        session
            .terminal
            .warn(&format!("lease {} has no readable times; it is not renewed", lease.id));
        return None;
    };
    let mut last = LastStretch {
        ends: from + asked,
        expires_at: lease.expires_at.clone(),
        max_expires_at: lease.max_expires_at.clone(),
        why: Why::Full,
    };
    let mut granted = asked;
    let mut warned = false;
    if !lease.renewable {
        return Some(last);
    }
    loop {
        match renew(session, lease, asked, from, granted, &mut warned).await {
            Ok(next) => {
                from = Instant::now();
                granted = next.life;
                last.ends = from + granted;
                last.expires_at = next.expires_at;
                last.max_expires_at = next.max_expires_at;
                if next.is_last {
                    break;
                }
            }
            Err(why) => {
                last.why = why;
                break;
            }
        }
    }
    Some(last)
}

struct Renewal {
    life: Duration,
    expires_at: String,
    max_expires_at: String,
    is_last: bool,
}

/// One renewal: first at half of `granted`, then at half of what is left each time.
async fn renew(
    session: &Session<'_>,
    lease: &Lease,
    asked: Duration,
    from: Instant,
    granted: Duration,
    warned: &mut bool,
) -> Result<Renewal, Why> {
    let ends = from + granted;
    let seconds = i64::try_from(asked.as_secs()).unwrap_or(i64::MAX);
    sleep_until(from + jittered(granted / 2)).await;
    loop {
        match session.client.renew_lease(&session.token, &lease.id, seconds).await {
            Ok(renewed) => {
                *warned = false;
                session.record.renewed(&lease.id, &renewed.expires_at);
                return Ok(Renewal {
                    life: Duration::from_secs(u64::try_from(renewed.ttl_seconds).unwrap_or(0)),
                    expires_at: renewed.expires_at,
                    max_expires_at: renewed.max_expires_at,
                    is_last: renewed.truncated,
                });
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
                    return Err(Why::Refused);
                }
            }
        }
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Why::Late);
        }
        sleep(jittered(left / 2).max(PAUSE_MIN)).await;
    }
}

/// The time between two RFC 3339 instants; `None` if the second is not the later one.
pub(super) fn life(from: &str, to: &str) -> Option<Duration> {
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
