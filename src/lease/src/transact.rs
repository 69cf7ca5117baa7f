//! What one transaction does, for every store alike.
//!
//! Invariant: a function here first reads and decides, and writes only when it has decided,
//! so that a refusal leaves nothing to undo, also among other changes of the same group. The
//! rules live here once; a store only loads and saves rows.

mod death;
mod guard;
mod identity;
mod mint;
mod root;
mod task;

use std::time::Duration;

use async_trait::async_trait;
use dayfly_backend_sdk::Timestamp;

use crate::{
    Decision, Disabled, FirstKey, IdempotencyKey, JobEnd, JobKey, Lease, LeaseId, Refusal, Replay,
    ReplicaId, Root, Spared, Standing, StoreError, Task, TaskEnd, TaskId, Transition, Write,
    Written,
    audit::Entry,
    quota::{Counted, Tally},
};

pub use guard::suspended_by;

/// Some of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// The some.
    pub part: u64,
    /// The many.
    pub whole: u64,
}

/// Some open tasks of a job or of a principal.
#[derive(Clone, Debug, Default)]
pub struct OpenTasks {
    /// Those that can be read.
    pub tasks: Vec<Task>,
    /// The last row that was looked at, if there may be more behind it.
    pub after: Option<TaskId>,
}

impl OpenTasks {
    /// Those of up to `limit` rows. A row that cannot be read was looked at all the same: it must
    /// neither end the looking nor be looked at for ever (I12).
    pub fn new(rows: &[TaskId], tasks: Vec<Task>, limit: u32) -> Self {
        let full = rows.len() >= limit as usize;
        Self { tasks, after: rows.last().copied().filter(|_| full) }
    }
}

/// A store's transaction: rows in, rows out.
#[async_trait]
pub trait Tx: Send {
    /// The store's clock. The same instant throughout one transaction.
    fn now(&self) -> Timestamp;

    /// A task; with `exclusive` nobody else can read it for a change until the commit,
    /// otherwise nobody else can change it.
    async fn task(&mut self, id: TaskId, exclusive: bool) -> Result<Option<Task>, StoreError>;

    /// Up to `limit` tasks that time ends now ([`Task::due_end`]) and that nobody else is
    /// changing.
    async fn due_tasks(
        &mut self,
        limit: u32,
        spared: Spared,
        heard: Duration,
    ) -> Result<Vec<Task>, StoreError>;

    /// Adds a task.
    async fn insert_task(&mut self, task: &Task) -> Result<(), StoreError>;

    /// Writes a task that is known to be there.
    async fn update_task(&mut self, task: &Task) -> Result<(), StoreError>;

    /// How a job ended, if that is remembered. The job is one of [`Write::job_keys`].
    async fn ended_job(&mut self, key: &JobKey) -> Result<Option<TaskEnd>, StoreError>;

    /// Remembers how a job ended, as the youngest end of all that its actor told, and forgets
    /// what is too old, and the actor's oldest where they are too many. Answers with how many of
    /// those had time left.
    async fn remember_job(&mut self, ended: &JobEnd) -> Result<u64, StoreError>;

    /// Up to `limit` open tasks of a job by their ids, after `after`, locked against other
    /// changes.
    async fn tasks_of_job(
        &mut self,
        key: &JobKey,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<OpenTasks, StoreError>;

    /// Since when and why an identity opens no tasks, if it is disabled. With `exclusive` nobody
    /// else can ask for a change until the commit, otherwise nobody else can disable it.
    async fn disabled(
        &mut self,
        principal: &str,
        exclusive: bool,
    ) -> Result<Option<Disabled>, StoreError>;

    /// Writes it over what is there, or as the first.
    async fn set_disabled(&mut self, disabled: &Disabled) -> Result<(), StoreError>;

    /// Forgets that an identity was disabled.
    async fn enable(&mut self, principal: &str) -> Result<(), StoreError>;

    /// A disabled identity whose open tasks nobody has finished ending, without a lock.
    async fn ending(&mut self) -> Result<Option<String>, StoreError>;

    /// Up to `limit` open tasks of a principal, and of others on its behalf, by their ids, after
    /// `after`, locked against other changes.
    async fn tasks_of_principal(
        &mut self,
        principal: &str,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<OpenTasks, StoreError>;

    /// Remembers tokens or proofs, all of them; none, if one of them was remembered before or is
    /// among them twice, and says which: the index of the first such one.
    async fn remember(&mut self, replays: &[Replay]) -> Result<Option<usize>, StoreError>;

    /// Forgets what this transaction has remembered.
    async fn forget(&mut self, replays: &[Replay]) -> Result<(), StoreError>;

    /// The key that a token is bound to, after it was bound to the one that was proven now if it
    /// was bound to none. Of two that come at once, one is the first.
    async fn first_key(&mut self, first: &FirstKey) -> Result<Option<[u8; 32]>, StoreError>;

    /// Whose task a lease is of, without a lock: a lease never changes its task.
    async fn lease_task(&mut self, id: LeaseId) -> Result<Option<TaskId>, StoreError>;

    /// A lease, locked against other changes.
    async fn lease(&mut self, id: LeaseId) -> Result<Option<Lease>, StoreError>;

    /// Those of `ids` that exist, locked against other changes.
    async fn leases(&mut self, ids: &[LeaseId]) -> Result<Vec<Lease>, StoreError>;

    /// A task's leases that may live, locked against other changes.
    async fn leases_of(&mut self, task: TaskId) -> Result<Vec<Lease>, StoreError>;

    /// Up to `limit` due leases of a backend that nobody else is changing, oldest first. Rows
    /// that cannot be read are quarantined by the store and left out (I12), and so are those
    /// that `spared` spares.
    async fn due_leases(
        &mut self,
        backend: &str,
        limit: u32,
        spared: Spared,
    ) -> Result<Vec<Lease>, StoreError>;

    /// Up to `limit` leases that `owner` has claimed.
    async fn claimed_by(&mut self, owner: ReplicaId, limit: u32) -> Result<Vec<Lease>, StoreError>;

    /// How many active leases expire after `from` and until `to`, and how many there are.
    async fn expiring(&mut self, from: Timestamp, to: Timestamp) -> Result<Share, StoreError>;

    /// Counts leases, up to `most` of them, the newest first. No other transaction counts
    /// beside this one ([`Write::counts`]).
    async fn count(&mut self, counted: &Counted<'_>, most: u32) -> Result<Tally, StoreError>;

    /// Adds a lease.
    async fn insert_lease(&mut self, lease: &Lease) -> Result<(), StoreError>;

    /// Writes each lease over its row if that still has the epoch before (compare and set);
    /// answers with those that did not.
    async fn update_leases(&mut self, leases: &[Lease]) -> Result<Vec<LeaseId>, StoreError>;

    /// The request and the lease that a task's idempotency key stands for.
    async fn key(
        &mut self,
        task: TaskId,
        key: &str,
    ) -> Result<Option<([u8; 32], LeaseId)>, StoreError>;

    /// Sets what a task's idempotency key stands for, if it still stands for `seen` (nothing,
    /// or a lease); false if another replica was faster.
    async fn set_key(
        &mut self,
        task: TaskId,
        key: &IdempotencyKey,
        seen: Option<LeaseId>,
        lease: LeaseId,
    ) -> Result<bool, StoreError>;

    /// What the installation may do at the moment.
    async fn standing(&mut self) -> Result<Standing, StoreError>;

    /// Writes it.
    async fn set_standing(&mut self, standing: &Standing) -> Result<(), StoreError>;

    /// When a replica last turned a heartbeat away, by what it wrote then.
    async fn turned_away(&mut self) -> Result<Option<Timestamp>, StoreError>;

    /// Writes it, as of now.
    async fn set_turned_away(&mut self) -> Result<(), StoreError>;

    /// How many sweeps of a backend have begun and when the last one did, locked against
    /// other changes.
    async fn turn(&mut self, backend: &str) -> Result<(u64, Option<Timestamp>), StoreError>;

    /// Writes it, as begun now.
    async fn set_turn(&mut self, backend: &str, turn: u64) -> Result<(), StoreError>;

    /// Our own password at a backend, locked against other changes.
    async fn root(&mut self, backend: &str) -> Result<Option<Root>, StoreError>;

    /// Writes it over the row with the epoch before, or as the first; false if another was
    /// faster.
    async fn set_root(&mut self, root: &Root) -> Result<bool, StoreError>;

    /// Deletes up to `limit` leases that ended before `before`, and the tasks that are left
    /// without any; answers with how many rows. What may live is never among them (I11 of the
    /// finer list).
    async fn prune(&mut self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;

    /// Appends to this replica's audit chain.
    fn append(&mut self, entry: Entry) -> Decision;
}

/// Does what `write` says.
pub async fn apply<T: Tx + ?Sized>(tx: &mut T, write: &Write) -> Result<Written, StoreError> {
    match write {
        Write::OpenTask { task, used, decision } => task::open(tx, task, used, decision).await,
        Write::Note(entry) => {
            tx.append(entry.clone());
            Ok(Written::Done)
        }
        Write::Remember(replay) => match tx.remember(std::slice::from_ref(replay)).await? {
            None => Ok(Written::Done),
            Some(nth) => Err(Refusal::Replayed { nth }.into()),
        },
        Write::Probe => Ok(Written::Done),
        Write::Intend(intent) => mint::intend(tx, intent).await,
        Write::Activate { lease, epoch, kept } => {
            mint::activate(tx, *lease, *epoch, kept.as_ref()).await
        }
        Write::Deliver { lease } => mint::deliver(tx, *lease).await,
        Write::Condemn { lease, cause, actor, reason } => {
            death::condemn(tx, *lease, *cause, actor, reason.as_deref()).await
        }
        Write::Settle { lease, nothing } => death::settle(tx, *lease, *nothing).await,
        Write::Renew { lease, ttl, actor } => mint::renew(tx, *lease, *ttl, actor).await,
        Write::Shorten { lease, epoch, expires_at } => {
            mint::shorten(tx, *lease, *epoch, *expires_at).await
        }
        Write::CloseTask { task, end, actor } => task::close(tx, *task, *end, actor).await,
        Write::CloseJob { ended, after } => task::close_job(tx, ended, *after).await,
        Write::Disable(disabling) => identity::disable(tx, disabling).await,
        Write::Enable { principal, actor, reason } => {
            identity::enable(tx, principal, actor, reason.as_deref()).await
        }
        Write::EndDisabled { principal, limit } => {
            identity::end_tasks(tx, principal.as_deref(), *limit).await
        }
        Write::Withdraw(withdrawal) => task::withdraw(tx, withdrawal).await,
        Write::Beat { task } => task::beat(tx, *task).await,
        Write::TurnedAway => {
            tx.set_turned_away().await?;
            Ok(Written::Done)
        }
        Write::ExpireTasks { limit, believed, heard } => {
            task::expire(tx, *limit, *believed, *heard).await
        }
        Write::Claim { backend, owner, limit, hold, believed } => {
            let spared = guard::spared(tx, *believed).await?;
            death::claim(tx, backend, *owner, *limit, *hold, spared).await
        }
        Write::HandBack { owner } => death::hand_back(tx, *owner).await,
        Write::TakeTurn { backend, every } => guard::take_turn(tx, backend, *every).await,
        Write::Suspend { reason } => guard::suspend(tx, reason).await,
        Write::Resume { actor, turns } => guard::resume(tx, actor, turns).await,
        Write::ReleaseHold { actor } => guard::release(tx, actor).await,
        Write::Adopt { lease, expires_at, actor } => {
            guard::adopt(tx, *lease, *expires_at, actor).await
        }
        Write::Abandon { lease, actor, reason } => death::abandon(tx, *lease, actor, reason).await,
        Write::StageRoot { backend, epoch, next, actor } => {
            root::stage(tx, backend, *epoch, next, actor).await
        }
        Write::SettleRoot { backend, epoch, taken, actor } => {
            root::settle(tx, backend, *epoch, *taken, actor).await
        }
        Write::Prune { keep, limit } => {
            let before = tx.now().minus(*keep);
            Ok(Written::Count(tx.prune(before, *limit).await?))
        }
        Write::Bury { leases, expired } => death::bury(tx, leases, expired).await,
        Write::Postpone { leases } => death::postpone(tx, leases).await,
    }
}

/// The lease, or that there is none.
async fn known<T: Tx + ?Sized>(tx: &mut T, id: LeaseId) -> Result<Lease, StoreError> {
    tx.lease(id).await?.ok_or(StoreError::Refused(Refusal::LeaseUnknown))
}

/// Saves one lease; it was locked when it was read, so a lost race is a fault of the store.
async fn save<T: Tx + ?Sized>(tx: &mut T, lease: &Lease) -> Result<(), StoreError> {
    match tx.update_leases(std::slice::from_ref(lease)).await?.as_slice() {
        [] => Ok(()),
        _ => Err(Refusal::LeaseChanged.into()),
    }
}

impl From<Transition> for StoreError {
    fn from(transition: Transition) -> Self {
        Self::Refused(match transition {
            Transition::Due => Refusal::LeaseExpired,
            Transition::State | Transition::Unsettled => Refusal::LeaseChanged,
        })
    }
}
