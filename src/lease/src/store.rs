//! What the engine asks of a store.
//!
//! Invariant: a [`Write`] is one transaction that happens whole or not at all, its audit
//! records with it, and its times are the store's own (I8).

use std::{fmt, time::Duration};

use async_trait::async_trait;
use dayfly_backend_sdk::{Belt, Expiry, Handle, Plan, Timestamp};

use uuid::Uuid;

use crate::{
    Cause, Disabling, JobEnd, JobKey, JobKeys, Lease, LeaseId, NewTask, ReplicaId, Root, Sealed,
    Standing, Task, TaskEnd, TaskId,
    audit::Entry,
    quota::{Exceeded, Quota},
};

/// Keeps leases, tasks and the audit log.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Makes one change, durably, and answers with what became of it.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the change is not allowed: nothing was written.
    /// [`StoreError::Unknown`] when the outcome is not known: it may have been written.
    async fn write(&self, write: Write) -> Result<Written, StoreError>;

    /// A lease by its id.
    async fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError>;

    /// A task by its id.
    async fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError>;

    /// A task by the SHA-256 of its token.
    async fn task_by_token(&self, hash: [u8; 32]) -> Result<Option<Task>, StoreError>;

    /// A task's leases, counted by state.
    async fn counts(&self, task: TaskId) -> Result<Counts, StoreError>;

    /// How long until the next lease of `backend` is due, by the store's clock; zero when one
    /// is due now, none when nothing is scheduled.
    async fn next_due(&self, backend: &str) -> Result<Option<Duration>, StoreError>;

    /// How long until the next open task is due ([`Task::due_at`]), by the store's clock; zero
    /// when one is due now, also where nobody could have heard it.
    async fn next_task_due(&self) -> Result<Option<Duration>, StoreError>;

    /// Whether the store answers, and its clock.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// The installation's id, made when the store was first opened.
    async fn installation(&self) -> Result<Uuid, StoreError>;

    /// What the installation may do at the moment.
    async fn standing(&self) -> Result<Standing, StoreError>;

    /// Our own password at `backend`, if it was ever changed.
    async fn root(&self, backend: &str) -> Result<Option<Root>, StoreError>;

    /// How many sweeps of `backend` have begun.
    async fn turn(&self, backend: &str) -> Result<u64, StoreError>;

    /// Which of `ids` have a row, and whether anybody is at work on it. Rows that cannot be
    /// read are among them.
    async fn sightings(&self, ids: &[LeaseId]) -> Result<Vec<Sighting>, StoreError>;

    /// Up to `limit` leases of `backend` that may live, by id, after `after`.
    async fn living_of(
        &self,
        backend: &str,
        after: Option<LeaseId>,
        limit: u32,
    ) -> Result<Vec<Lease>, StoreError>;
}

/// A lease's row, seen from a name at a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Which lease.
    pub lease: LeaseId,
    /// The backend that it is of.
    pub backend: String,
    /// Whether it may live, and the reaper has it in hand.
    pub may_live: bool,
}

/// One change.
#[derive(Clone, Debug)]
pub enum Write {
    /// A principal opens a task.
    OpenTask {
        /// The task.
        task: Box<NewTask>,
        /// What becomes of the tokens that open it: of all of them, or of none. Empty where
        /// whoever has them may use them as often as they like.
        used: Vec<TokenUse>,
        /// The decision that allowed it.
        decision: Entry,
    },
    /// Something to remember that changes nothing: a denial, an administrative read.
    Note(Entry),
    /// Something that must not be accepted a second time, which changes nothing else: a proof of
    /// possession.
    Remember(Replay),
    /// Nothing: a transaction by which the writer shows that it works.
    Probe,
    /// The intent to mint: the row that must be durable before the backend is called.
    Intend(Box<Intent>),
    /// The backend has answered.
    Activate {
        /// Which lease.
        lease: LeaseId,
        /// As the intent left it.
        epoch: i64,
        /// What its end needs of the answer.
        kept: Option<Sealed>,
    },
    /// The answer was handed to the client's connection.
    Deliver {
        /// Which lease.
        lease: LeaseId,
    },
    /// It must die.
    Condemn {
        /// Which lease.
        lease: LeaseId,
        /// Why.
        cause: Cause,
        /// Who says so.
        actor: String,
        /// In their words.
        reason: Option<String>,
    },
    /// The mint's outcome is known, so that nothing can land any more.
    Settle {
        /// Which lease.
        lease: LeaseId,
        /// Whether nothing was created, or what was is gone.
        nothing: bool,
    },
    /// A longer life.
    Renew {
        /// Which lease.
        lease: LeaseId,
        /// How long from now.
        ttl: Duration,
        /// Who asks.
        actor: String,
    },
    /// The backend refused the longer life.
    Shorten {
        /// Which lease.
        lease: LeaseId,
        /// As the renewal left it; if it has moved on since, nothing happens.
        epoch: i64,
        /// The expiry before.
        expires_at: Timestamp,
    },
    /// A task ends, and all its leases with it.
    CloseTask {
        /// Which task.
        task: TaskId,
        /// How.
        end: TaskEnd,
        /// Who says so.
        actor: String,
    },
    /// A job ended: so do some of its tasks, and what comes of it later is refused.
    CloseJob {
        /// The job, and how it ended.
        ended: Box<JobEnd>,
        /// The last of its tasks that was looked at before; none to begin with.
        after: Option<TaskId>,
    },
    /// An identity opens no tasks any more. Those that are open are ended by
    /// [`Write::EndDisabled`]. Nothing happens if this delivery was told before.
    Disable(Box<Disabling>),
    /// An identity may open tasks again, with whatever token.
    Enable {
        /// Issuer and subject.
        principal: String,
        /// Who says so.
        actor: String,
        /// In their words.
        reason: Option<String>,
    },
    /// Ends open tasks of one disabled identity. If there were any, there may be more.
    EndDisabled {
        /// Of this one; without it, of any whose tasks nobody has finished ending.
        principal: Option<String>,
        /// At most so many. At least one.
        limit: u32,
    },
    /// What policy permitted once it would deny now: a task ends, or one lease of it.
    Withdraw(Box<Withdrawal>),
    /// A task is heard: whoever works on it is there.
    Beat {
        /// Which task.
        task: TaskId,
    },
    /// A replica turned somebody's heartbeat away: whoever was silent until now may have spoken,
    /// whichever replica looks.
    TurnedAway,
    /// Ends the tasks whose deadline has passed, and those that have been silent for too long.
    ExpireTasks {
        /// At most so many.
        limit: u32,
        /// As far as the store's clock can be, by the replica's own reckoning.
        believed: Option<Timestamp>,
        /// For how long the replica has heard whoever spoke; without it no silence is believed.
        heard: Option<Heard>,
    },
    /// Takes due leases of one backend to work on; those that were alive become revoking.
    Claim {
        /// The backend's name.
        backend: String,
        /// Who claims.
        owner: ReplicaId,
        /// At most so many.
        limit: u32,
        /// For how long.
        hold: Duration,
        /// As far as the store's clock can be, by the replica's own reckoning.
        believed: Option<Timestamp>,
    },
    /// Gives back every claim that a replica has: it stops.
    HandBack {
        /// Which replica.
        owner: ReplicaId,
    },
    /// Takes the next turn to sweep a backend, or to do what else one replica does for all, if it
    /// is time.
    TakeTurn {
        /// The backend's name; for other work, a text that no backend can have for its name.
        backend: String,
        /// How long after the last one.
        every: Duration,
    },
    /// The store has lost commits or was restored: minting pauses.
    Suspend {
        /// What was noticed.
        reason: String,
    },
    /// Somebody has looked: minting goes on.
    Resume {
        /// Who.
        actor: String,
        /// How far the sweeps of each backend had really come.
        turns: Vec<(String, u64)>,
    },
    /// Lets go of the mass-revocation brake: the store's clock is right.
    ReleaseHold {
        /// Who says so.
        actor: String,
    },
    /// The backend has it for longer than the row knows.
    Adopt {
        /// Which lease.
        lease: LeaseId,
        /// Until when.
        expires_at: Timestamp,
        /// Who says so.
        actor: String,
    },
    /// Somebody wants to give up on a lease that cannot be revoked, or agrees to it.
    Abandon {
        /// Which lease.
        lease: LeaseId,
        /// Who.
        actor: String,
        /// Why.
        reason: String,
    },
    /// Our own password at a backend is about to become another.
    StageRoot {
        /// The backend's name.
        backend: String,
        /// As it was read; zero where there is none yet.
        epoch: i64,
        /// The new one.
        next: Sealed,
        /// Who wants it.
        actor: String,
    },
    /// It is certain which of the two the backend accepts.
    SettleRoot {
        /// The backend's name.
        backend: String,
        /// As staging left it.
        epoch: i64,
        /// Whether it is the new one.
        taken: bool,
        /// Who found out.
        actor: String,
    },
    /// Forgets leases and tasks that ended long ago.
    Prune {
        /// How long they are kept after their end.
        keep: Duration,
        /// At most so many.
        limit: u32,
    },
    /// Verified gone. Each with its epoch as claimed.
    Bury {
        /// Which leases.
        leases: Vec<(LeaseId, i64)>,
        /// Those of them that nobody saw dead: their native expiry has passed.
        expired: Vec<LeaseId>,
    },
    /// Not gone yet.
    Postpone {
        /// Which leases.
        leases: Vec<Owed>,
    },
}

impl Write {
    /// The jobs that it asks about, each with whether it ends the job. Where several replicas
    /// share a store, nobody else asks about a job that is being ended, or ends one that is being
    /// asked about, until the commit; the store sees to that before it reads anything of the job.
    pub fn job_keys(&self) -> impl Iterator<Item = (&JobKey, bool)> {
        let ended = if let Self::CloseJob { ended, .. } = self { Some(&ended.key) } else { None };
        let opened = if let Self::OpenTask { task, .. } = self { Some(&task.keys) } else { None };
        let asked = opened.into_iter().flat_map(JobKeys::all);
        asked.map(|key| (key, false)).chain(ended.map(|key| (key, true)))
    }

    /// Whether it counts what others may be adding to.
    pub fn counts(&self) -> bool {
        matches!(self, Self::Intend(intent) if !intent.quotas.is_empty())
    }

    /// Whether losing it would do more than bring a revocation forward. An activation, a
    /// delivery mark or a heartbeat (also one that was turned away) that is lost only fails towards
    /// revocation, unless the activation has with it what the revocation needs. A proof that a
    /// crash forgets is too old a minute later.
    pub fn must_be_durable(&self) -> bool {
        !matches!(
            self,
            Self::Activate { kept: None, .. }
                | Self::Beat { .. }
                | Self::Deliver { .. }
                | Self::Remember(_)
                | Self::TurnedAway
        )
    }
}

/// For how long a replica has heard whoever spoke: it ran, and the store took what it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// For how long without a gap, by the replica's own running time.
    pub length: Duration,
    /// The latest that the store's clock can be, by the replica's own reckoning. If it is later,
    /// it jumped, or this was long on its way: then nothing was heard.
    pub until: Timestamp,
}

/// A lease whose revocation failed, or must be repeated.
#[derive(Clone, Debug)]
pub struct Owed {
    /// Which lease.
    pub lease: LeaseId,
    /// Its epoch as claimed.
    pub epoch: i64,
    /// When to try again, from now. Never before the lease is settled, where it is not.
    pub after: Duration,
    /// The error's class; none when it was gone and must be looked at once more.
    pub failure: Option<String>,
    /// Whether it counts as an attempt: while its backend as a whole does not answer, it
    /// does not.
    pub counted: bool,
}

/// A right that policy no longer gives.
#[derive(Clone, Debug)]
pub struct Withdrawal {
    /// Whose task.
    pub task: TaskId,
    /// Which lease of it must die; without it, the task ends with all of them.
    pub lease: Option<LeaseId>,
    /// Who found out.
    pub actor: String,
    /// The denial, written if anything ends by it.
    pub denial: Entry,
}

/// By whom, or how often, a token may be used to open tasks.
#[derive(Clone, Debug)]
pub enum TokenUse {
    /// Whoever has the key that was proven with it first.
    ByFirstKey(FirstKey),
    /// Once.
    Once(Replay),
}

/// A token that is bound to the first key that is proven with it. Until one is, it is bound to
/// none.
#[derive(Clone, Debug)]
pub struct FirstKey {
    /// What the token is known by.
    pub token: String,
    /// The thumbprint of the key that was proven now, if one was.
    pub key: Option<[u8; 32]>,
    /// When the token itself ends, and the binding can be forgotten.
    pub expires_at: Timestamp,
}

/// What is accepted once: a token that opens one task, a proof, a delivery.
#[derive(Clone, Debug)]
pub struct Replay {
    /// What it is known by.
    pub key: String,
    /// When it ends by itself, and the key can be forgotten.
    pub expires_at: Timestamp,
}

/// What an `Idempotency-Key` stands for: at most one live credential.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    /// The key, as the client sent it.
    pub key: String,
    /// SHA-256 of the request, so that another request under the key is noticed.
    pub request: [u8; 32],
}

/// All that a pending row needs.
#[derive(Clone, Debug)]
pub struct Intent {
    /// The lease's id.
    pub id: LeaseId,
    /// The handle that follows from it.
    pub handle: Handle,
    /// Whose task.
    pub task: TaskId,
    /// The role's name.
    pub role: String,
    /// The backend's name.
    pub backend: String,
    /// How long from now.
    pub ttl: Duration,
    /// How long at most, renewals included.
    pub ttl_max: Duration,
    /// The shortest life that the backend can give.
    pub ttl_min: Duration,
    /// The backend's own expiry.
    pub expiry: Expiry,
    /// How long the mint may take.
    pub mint_within: Duration,
    /// How long after that a create could still land.
    pub settle_within: Duration,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// What protects it.
    pub belts: Vec<Belt>,
    /// All that revoking needs.
    pub plan: Plan,
    /// What must have room.
    pub quotas: Vec<Quota>,
    /// The client's key.
    pub key: Option<IdempotencyKey>,
    /// The decision that allowed it.
    pub decision: Entry,
}

/// What became of a [`Write`].
#[derive(Clone, Debug)]
pub enum Written {
    /// The task, after it was opened.
    Task(Box<Task>),
    /// The lease, after the change.
    Lease(Box<Lease>),
    /// An intent that supersedes an earlier lease of the same key, which is now revoking.
    Superseding {
        /// The new lease.
        lease: Box<Lease>,
        /// The old one.
        old: Box<Lease>,
    },
    /// The lease with its new expiry, and the one before.
    Renewed {
        /// The lease.
        lease: Box<Lease>,
        /// Its expiry before.
        before: Timestamp,
    },
    /// The leases that were buried, postponed or handed back. A lease that has moved on since
    /// is not among them.
    Leases(Vec<Lease>),
    /// The leases that were claimed, and the store's clock.
    Claimed {
        /// The leases.
        leases: Vec<Lease>,
        /// The clock.
        now: Timestamp,
    },
    /// Our own password at a backend, after the change.
    Root(Box<Root>),
    /// The number of the turn, if it was time for one.
    Turn(Option<u64>),
    /// So many rows.
    Count(u64),
    /// The task that was closed, with the backends of its leases.
    Closed(Vec<Closed>),
    /// Some tasks of a job that ended.
    JobClosed {
        /// The tasks, with the backends of their leases.
        closed: Vec<Closed>,
        /// The last that was looked at, if there may be more behind it.
        after: Option<TaskId>,
        /// Whether the end was known before.
        known: bool,
        /// How many other ends were forgotten for it before their time.
        forgotten: u64,
    },
    /// The tasks that time ended, and the store's clock.
    Ended {
        /// The tasks, with the backends of their leases.
        closed: Vec<Closed>,
        /// The clock.
        now: Timestamp,
    },
    /// Nothing to tell.
    Done,
}

/// A task that ended.
#[derive(Clone, Debug)]
pub struct Closed {
    /// The task.
    pub task: Task,
    /// The backends that have leases of it to revoke.
    pub backends: Vec<String>,
}

/// A task's leases by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not yet minted.
    pub pending: u64,
    /// Usable.
    pub active: u64,
    /// Must die and not yet verified dead.
    pub revoking: u64,
    /// Verified dead.
    pub revoked: u64,
    /// Given up by two people.
    pub abandoned: u64,
    /// Of the revoking, those that nothing ends before their native expiry.
    pub lingering: u64,
    /// When the last of those ends.
    pub residual_until: Option<Timestamp>,
}

impl Counts {
    /// How many may still be alive.
    pub fn owed(&self) -> u64 {
        self.pending + self.active + self.revoking
    }

    /// Whether there is nothing to wait for: what is owed, nobody can pay before its time.
    pub fn is_settled(&self) -> bool {
        self.owed() == self.lingering
    }
}

/// Why a change is not allowed. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A token is bound to a key, and it was not that one that was proven.
    #[error("the token is bound to another key")]
    AnotherKey {
        /// Which of the tokens that were to be used, counted from 0.
        nth: usize,
    },
    /// The idempotency key's first request is still being worked on.
    #[error("a request with this idempotency key is in progress")]
    InProgress,
    /// The identity is disabled, or the token is from before it was.
    #[error("the identity is disabled")]
    IdentityDisabled,
    /// The same of the person on whose behalf the task was to be opened.
    #[error("the person's identity is disabled")]
    PersonDisabled,
    /// The job that the task would run in has ended.
    #[error("the job of this token has ended")]
    JobEnded,
    /// The idempotency key stands for another request.
    #[error("this idempotency key was used for another request")]
    KeyReused,
    /// A quota has no room.
    #[error(transparent)]
    Quota(Exceeded),
    /// A person who gives up on a lease cannot be the second one too.
    #[error("somebody else must agree")]
    SamePerson,
    /// The store has lost commits or was restored, and nobody has looked yet.
    #[error("minting is suspended until the store is recovered")]
    Suspended,
    /// The task was opened without a heartbeat.
    #[error("the task has no heartbeat")]
    NoHeartbeat,
    /// Only a lease whose revocation is owed can be given up.
    #[error("the lease is not owed")]
    NotOwed,
    /// The lease has moved on.
    #[error("the lease has changed")]
    LeaseChanged,
    /// The lease's time was up.
    #[error("the lease has expired")]
    LeaseExpired,
    /// There is no such lease.
    #[error("no such lease")]
    LeaseUnknown,
    /// The lease cannot be renewed, ever or any more.
    #[error("the lease cannot be renewed")]
    NotRenewable,
    /// Our own password at a backend has changed since.
    #[error("the backend's password has been changed meanwhile")]
    RootChanged,
    /// Nobody knows yet what became of the change before.
    #[error("the backend's password is being changed")]
    RootStaged,
    /// A token has opened a task before.
    #[error("the token was used before")]
    Replayed {
        /// Which of the tokens that were to be used, counted from 0.
        nth: usize,
    },
    /// The task has ended.
    #[error("the task has ended")]
    TaskClosed,
    /// The task ends before the backend's shortest lifetime.
    #[error("the task ends too soon for this role")]
    TaskEnding,
    /// There is no such task.
    #[error("no such task")]
    TaskUnknown,
}

/// What went wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A row cannot be read.
    #[error("row of {what} cannot be read")]
    Corrupt {
        /// Which row.
        what: String,
    },
    /// The change is not allowed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store cannot be reached, or has no room: nothing was written.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer to a commit was lost: it may have been written.
    #[error("the outcome of a write to the store is not known")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// A failure that left nothing behind.
    pub fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(source.into())
    }

    /// The refusal, if it was one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(*refusal),
            Self::Corrupt { .. } | Self::Unavailable(_) | Self::Unknown(_) => None,
        }
    }
}
