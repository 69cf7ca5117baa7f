//! What an installation may do at the moment: everything, or less because its store or its
//! clock is not believed.
//!
//! Invariant: less is never more dangerous. A suspended store mints nothing and lets time
//! alone end nothing, until somebody has looked; a held clock keeps a lease no longer than was
//! granted by elapsed time, or [`Hold::until`].

use std::time::Duration;

use dayfly_backend_sdk::Timestamp;

/// The installation's row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The store has lost commits, or was restored.
    pub suspended: Option<Suspension>,
    /// The store's clock jumped, and took a large share of the leases with it.
    pub hold: Option<Hold>,
}

/// Why minting pauses, until `recover`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspension {
    /// Since when.
    pub since: Timestamp,
    /// What was noticed.
    pub reason: String,
}

/// The mass-revocation brake: leases whose expiry lies in the interval that the clock jumped
/// over are due as much later as it jumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Before the jump.
    pub from: Timestamp,
    /// After it.
    pub to: Timestamp,
    /// The hold ends then, whatever was released by nobody: no credential is kept alive for
    /// long by a brake that nobody looks at.
    pub until: Timestamp,
}

/// The longest that the brake holds without being released: time for a person to be called.
pub const HOLD_MAX: Duration = Duration::from_mins(10);

/// What is held never is a handful: below this, the brake does not look at the share.
pub const HOLD_LEASES_MIN: u64 = 10;

/// How much further than the replica's own reckoning the store's clock may be.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

impl Hold {
    /// A hold over a jump that was noticed at `now`.
    pub fn over(from: Timestamp, now: Timestamp) -> Self {
        Self { from, to: now, until: now.plus(HOLD_MAX) }
    }

    /// Whether it still holds anything back.
    pub fn is_on(&self, now: Timestamp) -> bool {
        now < self.until && now < self.to.plus(self.jump())
    }

    /// How far the clock jumped.
    pub fn jump(&self) -> Duration {
        self.to.since(self.from)
    }

    /// Whether what expires at `at` is held back at `now`.
    pub fn holds(&self, at: Timestamp, now: Timestamp) -> bool {
        self.is_on(now) && self.from < at && at <= self.to && now < at.plus(self.jump())
    }
}

/// What of the due is to be left for later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spared {
    /// Time alone ends nothing: only what was told to die is worked on.
    pub unless_told: bool,
    /// What the brake holds.
    pub hold: Option<Hold>,
}

impl Standing {
    /// What reapers leave for later at `now`.
    pub fn spared(&self, now: Timestamp) -> Spared {
        Spared {
            unless_told: self.suspended.is_some(),
            hold: self.hold.filter(|hold| hold.is_on(now)),
        }
    }
}

impl Spared {
    /// Whether a lease is left for later. One that was never handed over is not held: nobody
    /// has it.
    pub fn spares(&self, lease: &crate::Lease, now: Timestamp) -> bool {
        match lease.state {
            crate::State::Revoking { .. } => false,
            crate::State::Pending => self.unless_told,
            crate::State::Active { delivered_at, .. } => {
                let held = self.hold.is_some_and(|hold| hold.holds(lease.expires_at, now));
                self.unless_told || (held && delivered_at.is_some())
            }
            crate::State::Revoked { .. } | crate::State::Abandoned { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUMP: Duration = Duration::from_mins(5);

    #[test]
    fn what_the_jump_made_due_is_due_as_much_later_as_it_jumped() {
        let from = Timestamp::from_seconds(1_000);
        let to = from.plus(JUMP);
        let hold = Hold::over(from, to);
        let due = from.plus(Duration::from_mins(2));
        assert!(hold.holds(due, to));
        assert!(hold.holds(due, due.plus(JUMP).minus(Duration::from_secs(1))));
        assert!(!hold.holds(due, due.plus(JUMP)));
        assert!(!hold.holds(from, to), "what was due before the jump");
        assert!(!hold.holds(to.plus(Duration::from_secs(1)), to.plus(Duration::from_mins(2))));
    }

    #[test]
    fn nothing_is_held_for_longer_than_the_maximum() {
        let from = Timestamp::from_seconds(1_000);
        let to = from.plus(Duration::from_hours(30));
        let hold = Hold::over(from, to);
        assert!(hold.holds(to, to.plus(HOLD_MAX).minus(Duration::from_secs(1))));
        assert!(!hold.holds(to, to.plus(HOLD_MAX)));
    }
}
