//! What is held, and what must be done about it next.
//!
//! Invariant: nothing here asks the broker or the clock; lives come from the broker's instants, so
//! our own clock may be wrong.

use std::time::Duration;

use dayfly_api::{Lease, Renewed};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::credential::Handed;

/// What is given out has at least so much left, or else a share of its life: AWS's SDK for Python asks
/// again when ten minutes are left.
const LEFT_MIN: Duration = Duration::from_mins(10);
/// A credential is not replaced in the background sooner than this after it was made: a role whose
/// credentials live for seconds is minted when it is asked for.
const REPLACE_MIN: Duration = Duration::from_secs(2);
/// Ends that are no further apart are the same.
const SLACK: Duration = Duration::from_secs(1);

/// Who has a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    Nobody,
    /// Somebody who was not told when it ends.
    Untold,
    /// Somebody who was.
    Told,
}

/// A credential and its life.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) handed: Handed,
    /// Its first life, which is asked for again at each renewal.
    asked: Duration,
    /// What was granted last, and when.
    granted: Duration,
    from: Duration,
    made: Duration,
    /// Whether another renewal may move its end.
    renewable: bool,
    /// It lives as long as the task: so would any other.
    lasts: bool,
    how: Use,
    /// Not before then, after a failure.
    again: Duration,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Let go of what has ended.
    Lapse,
    Renew {
        lease: String,
        asked: Duration,
    },
    Replace,
    Revoke(String),
}

impl Held {
    /// `None` without a credential or without readable times.
    pub(super) fn read(lease: Lease, from: Duration, task_ends: &str) -> Option<Self> {
        let life = between(&lease.issued_at, &lease.expires_at)?;
        let lasts = lasts(&lease.expires_at, task_ends);
        let handed = Handed {
            role: lease.role,
            lease: lease.id,
            expires_at: lease.expires_at,
            credential: lease.credential?,
        };
        Some(Self {
            handed,
            asked: life,
            granted: life,
            from,
            made: from,
            renewable: lease.renewable,
            lasts,
            how: Use::Nobody,
            again: Duration::ZERO,
        })
    }

    pub(super) fn give(&mut self, how: Use) -> Handed {
        self.how = self.how.max(how);
        self.handed.clone()
    }

    fn ends(&self) -> Duration {
        self.from + self.granted
    }

    pub(super) fn left(&self, now: Duration) -> Duration {
        self.ends().saturating_sub(now)
    }

    pub(super) fn is_alive(&self, now: Duration) -> bool {
        !self.left(now).is_zero()
    }

    /// Whether it can be given out as it is. One that lasts as long as the task is as good as any.
    pub(super) fn is_fresh(&self, now: Duration) -> bool {
        self.is_alive(now) && (self.lasts || now < self.stale())
    }

    /// From when on another one is wanted. Where it can be renewed, which is tried from half of its
    /// life on, that has time to succeed.
    fn stale(&self) -> Duration {
        let share = if self.renewable { 4 } else { 2 };
        self.ends().saturating_sub(LEFT_MIN.min(self.granted / share))
    }

    pub(super) fn renewed(&mut self, renewed: &Renewed, from: Duration, task_ends: &str) {
        self.from = from;
        self.granted = Duration::from_secs(u64::try_from(renewed.ttl_seconds).unwrap_or(0));
        self.handed.expires_at.clone_from(&renewed.expires_at);
        self.renewable = !renewed.truncated;
        self.lasts = lasts(&renewed.expires_at, task_ends);
        self.again = Duration::ZERO;
    }

    /// `again` says when to try once more; without it there is no hope.
    pub(super) fn not_renewed(&mut self, again: Option<Duration>) {
        match again {
            Some(again) => self.again = again,
            None => self.renewable = false,
        }
    }

    pub(super) fn not_replaced(&mut self, again: Duration) {
        self.again = again;
    }

    /// When to revoke it now that there is another; `None` where its end was told, which it may
    /// see.
    pub(super) fn retire(&self, now: Duration, overlap: Duration) -> Option<Duration> {
        match self.how {
            Use::Nobody => Some(now),
            Use::Untold => Some(now + overlap).filter(|at| *at < self.ends()),
            Use::Told => None,
        }
    }

    /// Its own next step: renewed at half of its life, replaced when that is not possible and
    /// somebody wants it.
    fn next(&self, eager: bool) -> (Duration, Step) {
        let ends = self.ends();
        let half = (self.from + self.granted / 2).max(self.again);
        if self.renewable && half < ends {
            let (lease, asked) = (self.handed.lease.clone(), self.asked);
            return (half, Step::Renew { lease, asked });
        }
        let wanted = eager || self.how != Use::Nobody;
        let stale = self.stale().max(self.again).max(self.made + REPLACE_MIN);
        if wanted && !self.lasts && stale < ends {
            return (stale, Step::Replace);
        }
        (ends, Step::Lapse)
    }
}

/// The first thing to do, and when; `None` while nothing is held.
pub(super) fn next(
    current: Option<&Held>,
    retired: &[(String, Duration)],
    eager: bool,
) -> Option<(Duration, Step)> {
    let revocations = retired.iter().map(|(lease, at)| (*at, Step::Revoke(lease.clone())));
    let own = current.map(|held| held.next(eager));
    revocations.chain(own).min_by_key(|(at, _)| *at)
}

/// The time between two of the broker's instants.
fn between(from: &str, to: &str) -> Option<Duration> {
    let from = OffsetDateTime::parse(from, &Rfc3339).ok()?;
    let to = OffsetDateTime::parse(to, &Rfc3339).ok()?;
    Duration::try_from(to - from).ok()
}

/// Whether what ends then lives as long as the task.
fn lasts(expires_at: &str, task_ends: &str) -> bool {
    match (OffsetDateTime::parse(expires_at, &Rfc3339), OffsetDateTime::parse(task_ends, &Rfc3339))
    {
        (Ok(expires_at), Ok(task_ends)) => expires_at + SLACK >= task_ends,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
