//! A lease: our record of one credential, from before it exists until its death is verified.
//!
//! Invariant: every transition is one of the functions here, adds one to the epoch, and never
//! goes back: what is revoking never becomes active again, and only what was verified gone
//! becomes revoked.

use std::time::Duration;

use dayfly_backend_sdk::{Belt, Doomed, Handle, Plan, Timestamp};

use crate::{
    LeaseId, Person, ReplicaId, Sealed, TaskId,
    planted::{self, Bug},
};

/// Why a lease ends. The first cause stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its time was up.
    Expired,
    /// Who it was for may no longer have it.
    IdentityDisabled,
    /// The backend failed to mint it, or may have.
    MintFailed,
    /// The backend had it and no lease knew it.
    Orphan,
    /// Policy no longer permits it.
    PolicyChanged,
    /// Its owner or an administrator asked for it.
    Requested,
    /// The same idempotency key was used again.
    Superseded,
    /// Its task was given up.
    TaskCancelled,
    /// Its task did its work.
    TaskCompleted,
    /// Its task did not do its work.
    TaskFailed,
    /// Its task missed its heartbeats.
    TaskLost,
    /// Nobody was there to take it.
    Undelivered,
}

impl Cause {
    const ALL: [Self; 12] = [
        Self::Expired,
        Self::IdentityDisabled,
        Self::MintFailed,
        Self::Orphan,
        Self::PolicyChanged,
        Self::Requested,
        Self::Superseded,
        Self::TaskCancelled,
        Self::TaskCompleted,
        Self::TaskFailed,
        Self::TaskLost,
        Self::Undelivered,
    ];

    /// The cause as it stands in rows, in the audit log and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::IdentityDisabled => "identity_disabled",
            Self::MintFailed => "mint_failed",
            Self::Orphan => "orphan",
            Self::PolicyChanged => "policy_changed",
            Self::Requested => "requested",
            Self::Superseded => "superseded",
            Self::TaskCancelled => "task_cancelled",
            Self::TaskCompleted => "task_completed",
            Self::TaskFailed => "task_failed",
            Self::TaskLost => "task_lost",
            Self::Undelivered => "undelivered",
        }
    }

    /// The cause that `as_str` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == text)
    }
}

/// Where a lease is in its life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The intent is durable; the credential may or may not exist.
    Pending,
    /// The credential exists and may be used.
    Active {
        /// When the backend had answered.
        activated_at: Timestamp,
        /// When the answer was handed to the client's connection.
        delivered_at: Option<Timestamp>,
    },
    /// The credential must die. Never terminal while it may live.
    Revoking {
        /// Why.
        cause: Cause,
        /// Since when.
        since: Timestamp,
    },
    /// The credential is verified dead.
    Revoked {
        /// Why.
        cause: Cause,
        /// When that was verified.
        at: Timestamp,
    },
    /// Two people gave up on it: nothing proves that the credential is dead. Its name stays
    /// on the sweep's kill list.
    Abandoned {
        /// Why it was to die.
        cause: Cause,
        /// When the second of them agreed.
        at: Timestamp,
    },
}

/// A person's wish to give up on a lease whose revocation keeps failing. A second person must
/// agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abandonment {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

impl Abandonment {
    /// A wish that nobody agreed to for so long is forgotten.
    pub const VALID_FOR: Duration = Duration::from_hours(24);

    /// Whether somebody can still agree.
    pub fn stands(&self, now: Timestamp) -> bool {
        now < self.at.plus(Self::VALID_FOR)
    }
}

impl State {
    /// The state as it stands in rows and in the API.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active { .. } => "active",
            Self::Revoking { .. } => "revoking",
            Self::Revoked { .. } => "revoked",
            Self::Abandoned { .. } => "abandoned",
        }
    }

    /// Why it ends or ended.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Pending | Self::Active { .. } => None,
            Self::Revoking { cause, .. }
            | Self::Revoked { cause, .. }
            | Self::Abandoned { cause, .. } => Some(*cause),
        }
    }
}

/// Where the decision that allowed a lease stands in the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The chain.
    pub chain: ReplicaId,
    /// The place in it.
    pub seq: u64,
}

/// A replica's time-limited right to work on a revoking lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who has it.
    pub owner: ReplicaId,
    /// Since when: whatever its holder saw, it saw after this.
    pub since: Timestamp,
    /// Until when; after that anybody may claim it.
    pub until: Timestamp,
}

/// A lease's row.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// Its id; the handle is a function of it.
    pub id: LeaseId,
    /// The task that it was minted for.
    pub task: TaskId,
    /// Issuer and subject of who it is for.
    pub principal: String,
    /// The issuer's name in the configuration.
    pub issuer: String,
    /// Who asked for it, where that principal does not act for itself.
    pub on_behalf_of: Option<Person>,
    /// The role's name.
    pub role: String,
    /// The backend's name in the configuration.
    pub backend: String,
    /// The credential's name at the backend.
    pub handle: Handle,
    /// The audit record of the decision that allowed it.
    pub decision: Decision,
    /// One more at every transition; the fence.
    pub epoch: i64,
    /// Where it is in its life.
    pub state: State,
    /// When the intent was written.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The latest that renewal can move that to.
    pub max_expires_at: Timestamp,
    /// When the backend itself stops accepting it, where it does.
    pub native_expires_at: Option<Timestamp>,
    /// After this the backend must not create it any more.
    pub mint_deadline: Timestamp,
    /// Until then a create that is still on its way could land; none once the mint's outcome
    /// is known. A lease is not verified dead before.
    pub settle_at: Option<Timestamp>,
    /// When it was first usable, kept after that state is left.
    pub activated_at: Option<Timestamp>,
    /// When it was handed over, kept after that state is left.
    pub delivered_at: Option<Timestamp>,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// What protects it.
    pub belts: Vec<Belt>,
    /// When the reaper next tries.
    pub next_attempt_at: Option<Timestamp>,
    /// Failed attempts to revoke it.
    pub attempts: u32,
    /// The last failure's class.
    pub error_class: Option<String>,
    /// Who is revoking it.
    pub claim: Option<Claim>,
    /// Who wants to give up on it.
    pub abandonment: Option<Abandonment>,
    /// All that revoking needs.
    pub plan: Plan,
    /// What the mint's answer added to that; erased at death.
    pub kept: Option<Sealed>,
}

/// Why a transition did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Transition {
    /// The lease's time was up.
    #[error("the lease is due")]
    Due,
    /// The lease is not in a state from which this can happen.
    #[error("the lease is not in a state for this")]
    State,
    /// A create may still land.
    #[error("the lease is not settled")]
    Unsettled,
}

impl Lease {
    /// When the reaper must look at it: the one column that drives every death. None once it
    /// is verified dead.
    pub fn due_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Pending => Some(self.mint_deadline),
            State::Active { delivered_at: None, .. } => {
                Some(self.expires_at.min(self.undelivered_at()))
            }
            State::Active { delivered_at: Some(_), .. } => Some(self.expires_at),
            State::Revoking { since, .. } => {
                let attempt = self.next_attempt_at.unwrap_or(since);
                Some(self.claim.map_or(attempt, |claim| claim.until.max(attempt)))
            }
            State::Revoked { .. } | State::Abandoned { .. } => None,
        }
    }

    /// Why a lease that is due and not yet revoking must die.
    pub fn due_cause(&self, now: Timestamp) -> Option<Cause> {
        match self.state {
            State::Pending => (self.mint_deadline <= now).then_some(Cause::MintFailed),
            State::Active { .. } if self.expires_at <= now => Some(Cause::Expired),
            State::Active { delivered_at: None, .. } => {
                (self.undelivered_at() <= now).then_some(Cause::Undelivered)
            }
            State::Active { .. }
            | State::Revoking { .. }
            | State::Revoked { .. }
            | State::Abandoned { .. } => None,
        }
    }

    /// A lease that nobody was seen to take by then was lost on its way: the process that
    /// had the secret in its memory is gone.
    fn undelivered_at(&self) -> Timestamp {
        const DELIVERY_GRACE: Duration = Duration::from_secs(5);
        if planted::is(Bug::UndeliveredNeverDue) {
            return self.expires_at;
        }
        self.mint_deadline.plus(DELIVERY_GRACE)
    }

    /// The longest that the credential could outlive its lease if Dayfly died now; none where
    /// the backend has no expiry of its own.
    pub fn exposure(&self) -> Option<Duration> {
        self.native_expires_at.map(|native| native.since(self.expires_at))
    }

    /// Whether its credential may still be alive and somebody is at work on it.
    pub fn may_live(&self) -> bool {
        !matches!(self.state, State::Revoked { .. } | State::Abandoned { .. })
    }

    /// The error class of a lease that nothing ends before its native expiry.
    pub const LINGERS: &str = "lingers";

    /// Until when the credential works whatever is done about it; none where it can be ended.
    pub fn residual_until(&self) -> Option<Timestamp> {
        let endless = self.lingers() || !self.belts.contains(&Belt::Revoke);
        self.native_expires_at.filter(|_| self.may_live() && endless)
    }

    /// Whether its backend has said that nothing ends it before its native expiry.
    pub fn lingers(&self) -> bool {
        self.error_class.as_deref() == Some(Self::LINGERS)
    }

    /// How long after it was claimed its backend goes on accepting it; none where that has no
    /// expiry of its own.
    pub fn lingers_for(&self) -> Option<Duration> {
        let seen = self.claim.map_or(Timestamp::EPOCH, |claim| claim.since);
        self.native_expires_at.map(|native| native.since(seen))
    }

    /// What a backend needs to end it, but for what the mint kept.
    pub fn doomed(&self) -> Doomed {
        Doomed::new(self.handle.clone(), self.plan.clone())
    }

    /// The backend has answered: pending → active.
    pub fn activate(&self, now: Timestamp, kept: Option<Sealed>) -> Result<Self, Transition> {
        match self.state {
            State::Pending if now >= self.expires_at => Err(Transition::Due),
            State::Pending => Ok(Self {
                state: State::Active { activated_at: now, delivered_at: None },
                activated_at: Some(now),
                settle_at: None,
                kept,
                ..self.next()
            }),
            State::Active { .. }
            | State::Revoking { .. }
            | State::Revoked { .. }
            | State::Abandoned { .. } => Err(Transition::State),
        }
    }

    /// The answer was handed to the client's connection.
    pub fn deliver(&self, now: Timestamp) -> Result<Self, Transition> {
        match self.state {
            State::Active { activated_at, delivered_at: None } => Ok(Self {
                state: State::Active { activated_at, delivered_at: Some(now) },
                delivered_at: Some(now),
                ..self.next()
            }),
            State::Pending
            | State::Active { .. }
            | State::Revoking { .. }
            | State::Revoked { .. }
            | State::Abandoned { .. } => Err(Transition::State),
        }
    }

    /// A longer life, within `max_expires_at`. Only what is alive can be renewed.
    pub fn renew(&self, now: Timestamp, ttl: Duration) -> Result<Self, Transition> {
        match self.state {
            State::Active { .. } if now >= self.expires_at => Err(Transition::Due),
            State::Active { .. } if self.renewable => {
                let latest = if planted::is(Bug::RenewBeyondMax) {
                    Timestamp::MAX
                } else {
                    self.max_expires_at
                };
                let expires_at = now.plus(ttl).min(latest);
                let slack = self.exposure();
                Ok(Self {
                    expires_at,
                    native_expires_at: slack.map(|slack| expires_at.plus(slack)),
                    ..self.next()
                })
            }
            State::Pending
            | State::Active { .. }
            | State::Revoking { .. }
            | State::Revoked { .. }
            | State::Abandoned { .. } => Err(Transition::State),
        }
    }

    /// Back to an earlier expiry, after the backend refused the later one.
    pub fn shorten(&self, expires_at: Timestamp) -> Result<Self, Transition> {
        match self.state {
            State::Active { .. } if expires_at <= self.expires_at => {
                let slack = self.exposure();
                Ok(Self {
                    expires_at,
                    native_expires_at: slack.map(|slack| expires_at.plus(slack)),
                    ..self.next()
                })
            }
            State::Pending
            | State::Active { .. }
            | State::Revoking { .. }
            | State::Revoked { .. }
            | State::Abandoned { .. } => Err(Transition::State),
        }
    }

    /// It must die: pending or active → revoking, due at once.
    pub fn condemn(&self, now: Timestamp, cause: Cause) -> Result<Self, Transition> {
        match self.state {
            State::Pending | State::Active { .. } => Ok(Self {
                state: State::Revoking { cause, since: now },
                next_attempt_at: Some(now),
                claim: None,
                ..self.next()
            }),
            State::Revoking { .. } | State::Revoked { .. } | State::Abandoned { .. } => {
                Err(Transition::State)
            }
        }
    }

    /// The mint's outcome is known: nothing can land any more, so it may be buried at once. If
    /// `nothing` is there, there is no native expiry to wait for either.
    pub fn settle(&self, now: Timestamp, nothing: bool) -> Result<Self, Transition> {
        let native_expires_at = self.native_expires_at.map(|at| if nothing { now } else { at });
        match self.state {
            State::Revoking { .. } if self.settle_at.is_some() => Ok(Self {
                settle_at: None,
                native_expires_at,
                next_attempt_at: Some(now),
                claim: None,
                ..self.next()
            }),
            State::Pending
            | State::Active { .. }
            | State::Revoking { .. }
            | State::Revoked { .. }
            | State::Abandoned { .. } => Err(Transition::State),
        }
    }

    /// Takes the right to work on it until `claim.until`.
    pub fn claimed(&self, now: Timestamp, claim: Claim) -> Result<Self, Transition> {
        match self.state {
            State::Revoking { .. } if self.due_at().is_some_and(|due| due <= now) => {
                Ok(Self { claim: Some(claim), ..self.next() })
            }
            State::Pending
            | State::Active { .. }
            | State::Revoking { .. }
            | State::Revoked { .. }
            | State::Abandoned { .. } => Err(Transition::State),
        }
    }

    /// Verified gone: revoking → revoked.
    ///
    /// # Errors
    /// [`Transition::Unsettled`] if a create could have landed after it was looked at. What
    /// counts is when the claim was taken, not when the burial is written: the evidence is
    /// from in between, and it may be old.
    pub fn bury(&self, now: Timestamp) -> Result<Self, Transition> {
        let judged = planted::is(Bug::BuryByNow).then_some(now);
        let seen_since = judged.or(self.claim.map(|claim| claim.since));
        let settled = self.settle_at.is_none_or(|at| seen_since.is_some_and(|seen| at <= seen));
        match self.state {
            State::Revoking { .. } if !settled => Err(Transition::Unsettled),
            State::Revoking { cause, .. } => Ok(Self {
                state: State::Revoked { cause, at: now },
                settle_at: None,
                next_attempt_at: None,
                claim: None,
                error_class: None,
                kept: None,
                ..self.next()
            }),
            State::Pending
            | State::Active { .. }
            | State::Revoked { .. }
            | State::Abandoned { .. } => Err(Transition::State),
        }
    }

    /// Not gone yet: stays revoking, and is tried again at `at`. `failure` is the error's
    /// class, none when it only waits until it is settled.
    pub fn postpone(&self, at: Timestamp, failure: Option<&str>) -> Result<Self, Transition> {
        // There is nothing to try at what lingers.
        let attempted = failure.is_some_and(|class| class != Self::LINGERS);
        match self.state {
            State::Revoking { .. } => Ok(Self {
                next_attempt_at: Some(at),
                claim: None,
                attempts: self.attempts.saturating_add(u32::from(attempted)),
                error_class: failure.map(str::to_owned).or_else(|| self.error_class.clone()),
                ..self.next()
            }),
            State::Pending
            | State::Active { .. }
            | State::Revoked { .. }
            | State::Abandoned { .. } => Err(Transition::State),
        }
    }

    /// Its claim is given back: somebody else may try at once.
    pub fn hand_back(&self, now: Timestamp) -> Result<Self, Transition> {
        match self.state {
            State::Revoking { .. } if self.claim.is_some() => {
                Ok(Self { claim: None, next_attempt_at: Some(now), ..self.next() })
            }
            State::Pending
            | State::Active { .. }
            | State::Revoking { .. }
            | State::Revoked { .. }
            | State::Abandoned { .. } => Err(Transition::State),
        }
    }

    /// The backend has it, and for longer than the row knows: the store lost an activation or
    /// a renewal. Within the maximum, and somebody has it.
    pub fn adopt(&self, now: Timestamp, expires_at: Timestamp) -> Result<Self, Transition> {
        match self.state {
            State::Pending | State::Active { .. } => {
                let expires_at = expires_at.max(self.expires_at).min(self.max_expires_at);
                let activated_at = self.activated_at.unwrap_or(now);
                let slack = self.exposure();
                Ok(Self {
                    expires_at,
                    native_expires_at: slack.map(|slack| expires_at.plus(slack)),
                    state: State::Active {
                        activated_at,
                        delivered_at: Some(self.delivered_at.unwrap_or(now)),
                    },
                    activated_at: Some(activated_at),
                    delivered_at: Some(self.delivered_at.unwrap_or(now)),
                    settle_at: None,
                    ..self.next()
                })
            }
            State::Revoking { .. } | State::Revoked { .. } | State::Abandoned { .. } => {
                Err(Transition::State)
            }
        }
    }

    /// Somebody wants to give up on it. Only what is owed can be given up.
    pub fn propose_abandoning(&self, wish: Abandonment) -> Result<Self, Transition> {
        match self.state {
            State::Revoking { .. } => Ok(Self { abandonment: Some(wish), ..self.next() }),
            State::Pending
            | State::Active { .. }
            | State::Revoked { .. }
            | State::Abandoned { .. } => Err(Transition::State),
        }
    }

    /// A second person agrees: revoking → abandoned.
    pub fn abandon(&self, now: Timestamp) -> Result<Self, Transition> {
        match self.state {
            State::Revoking { cause, .. } => Ok(Self {
                state: State::Abandoned { cause, at: now },
                next_attempt_at: None,
                claim: None,
                ..self.next()
            }),
            State::Pending
            | State::Active { .. }
            | State::Revoked { .. }
            | State::Abandoned { .. } => Err(Transition::State),
        }
    }

    fn next(&self) -> Self {
        Self { epoch: self.epoch + 1, ..self.clone() }
    }
}

#[cfg(test)]
mod tests;
