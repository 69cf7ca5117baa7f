//! The store in memory: for simulation, and the model that the real stores are held against.
//!
//! Invariant: it keeps what the real ones keep and nothing more; what a crash would lose
//! there must not matter here.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use dayfly_backend_sdk::Timestamp;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    Clock, Counts, Decision, Disabled, FirstKey, IdempotencyKey, JobEnd, JobKey, Lease, LeaseId,
    Replay, ReplicaId, Root, Sighting, Spared, Standing, State, Store, StoreError, Task, TaskEnd,
    TaskId, TaskState, Write, Written,
    audit::{Chain, Entry, Record},
    quota::{Counted, Measure, Tally},
    transact::{OpenTasks, Share, Tx, apply},
};

/// Leases, tasks and audit in maps, as one replica has them: the rows and the clock are
/// shared, the audit chain is the replica's own.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    chain: ReplicaId,
    rows: Arc<Mutex<Rows>>,
}

#[derive(Clone, Debug)]
struct Rows {
    tasks: BTreeMap<TaskId, Task>,
    leases: BTreeMap<LeaseId, Lease>,
    keys: BTreeMap<(TaskId, String), ([u8; 32], LeaseId)>,
    replayed: BTreeMap<String, Timestamp>,
    disabled: BTreeMap<String, Disabled>,
    /// The key that each token is bound to.
    first_keys: BTreeMap<String, [u8; 32]>,
    ended_jobs: BTreeMap<JobKey, EndedJob>,
    installation: Uuid,
    standing: Standing,
    turned_away: Option<Timestamp>,
    turns: BTreeMap<String, (u64, Timestamp)>,
    roots: BTreeMap<String, Root>,
    records: Vec<Record>,
    chains: BTreeMap<ReplicaId, Chain>,
}

/// The end of a job that is remembered.
#[derive(Clone, Debug)]
struct EndedJob {
    told_by: String,
    /// Among those of the same teller, in the order in which they came.
    place: u64,
    end: TaskEnd,
    expires_at: Timestamp,
}

/// All that a store held at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot(Rows);

impl MemoryStore {
    /// An empty store with one audit chain.
    pub fn new(clock: Arc<dyn Clock>, chain: Chain) -> Self {
        let own = chain.head().chain;
        let rows = Rows {
            tasks: BTreeMap::new(),
            leases: BTreeMap::new(),
            keys: BTreeMap::new(),
            replayed: BTreeMap::new(),
            disabled: BTreeMap::new(),
            first_keys: BTreeMap::new(),
            ended_jobs: BTreeMap::new(),
            installation: Uuid::from_u128(1),
            standing: Standing::default(),
            turned_away: None,
            turns: BTreeMap::new(),
            roots: BTreeMap::new(),
            records: Vec::new(),
            chains: BTreeMap::from([(own, chain)]),
        };
        Self { clock, chain: own, rows: Arc::new(Mutex::new(rows)) }
    }

    /// The same store as another replica has it, with a chain of its own.
    pub async fn replica(&self, chain: Chain) -> Self {
        let own = chain.head().chain;
        self.rows.lock().await.chains.insert(own, chain);
        Self { clock: Arc::clone(&self.clock), chain: own, rows: Arc::clone(&self.rows) }
    }

    /// What it holds now.
    pub async fn snapshot(&self) -> Snapshot {
        Snapshot(self.rows.lock().await.clone())
    }

    /// Goes back to what it held then, as after a crash that lost commits. Chains that were
    /// opened since begin again where they began.
    pub async fn restore(&self, snapshot: &Snapshot) {
        let mut rows = self.rows.lock().await;
        let opened = std::mem::take(&mut rows.chains);
        *rows = snapshot.0.clone();
        for (id, chain) in opened {
            rows.chains.entry(id).or_insert_with(|| chain.emptied());
        }
    }

    /// Looks at every lease and every audit record in place.
    pub async fn look<R>(&self, look: impl FnOnce(&BTreeMap<LeaseId, Lease>, &[Record]) -> R) -> R {
        let rows = self.rows.lock().await;
        look(&rows.leases, &rows.records)
    }

    /// The audit log so far.
    pub async fn records(&self) -> Vec<Record> {
        self.rows.lock().await.records.clone()
    }

    /// Every lease.
    pub async fn leases(&self) -> Vec<Lease> {
        self.rows.lock().await.leases.values().cloned().collect()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        let mut rows = self.rows.lock().await;
        let chain = rows.chains.get(&self.chain).cloned();
        let chain = chain.ok_or_else(|| StoreError::unavailable("no audit chain"))?;
        let mut tx = MemoryTx { now: self.clock.now(), chain, rows: &mut rows };
        let written = apply(&mut tx, &write).await;
        let chain = tx.chain;
        rows.chains.insert(self.chain, chain);
        written
    }

    async fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        Ok(self.rows.lock().await.leases.get(&id).cloned())
    }

    async fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        Ok(self.rows.lock().await.tasks.get(&id).cloned())
    }

    async fn task_by_token(&self, hash: [u8; 32]) -> Result<Option<Task>, StoreError> {
        let rows = self.rows.lock().await;
        Ok(rows.tasks.values().find(|task| task.token_hash == hash).cloned())
    }

    async fn counts(&self, task: TaskId) -> Result<Counts, StoreError> {
        let rows = self.rows.lock().await;
        let mut counts = Counts::default();
        for lease in rows.leases.values().filter(|lease| lease.task == task) {
            match lease.state {
                State::Pending => counts.pending += 1,
                State::Active { .. } => counts.active += 1,
                State::Revoking { .. } => {
                    counts.revoking += 1;
                    if lease.lingers() {
                        counts.lingering += 1;
                        counts.residual_until = counts.residual_until.max(lease.native_expires_at);
                    }
                }
                State::Revoked { .. } => counts.revoked += 1,
                State::Abandoned { .. } => counts.abandoned += 1,
            }
        }
        Ok(counts)
    }

    async fn next_due(&self, backend: &str) -> Result<Option<Duration>, StoreError> {
        let rows = self.rows.lock().await;
        let due = rows.leases.values().filter(|lease| lease.backend == backend);
        Ok(due.filter_map(Lease::due_at).min().map(|due| due.since(self.clock.now())))
    }

    async fn next_task_due(&self) -> Result<Option<Duration>, StoreError> {
        let rows = self.rows.lock().await;
        let open = rows.tasks.values().filter(|task| task.state == TaskState::Open);
        Ok(open.map(Task::due_at).min().map(|due| due.since(self.clock.now())))
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.now())
    }

    async fn installation(&self) -> Result<Uuid, StoreError> {
        Ok(self.rows.lock().await.installation)
    }

    async fn standing(&self) -> Result<Standing, StoreError> {
        Ok(self.rows.lock().await.standing.clone())
    }

    async fn root(&self, backend: &str) -> Result<Option<Root>, StoreError> {
        Ok(self.rows.lock().await.roots.get(backend).cloned())
    }

    async fn turn(&self, backend: &str) -> Result<u64, StoreError> {
        Ok(self.rows.lock().await.turns.get(backend).map_or(0, |(turn, _)| *turn))
    }

    async fn sightings(&self, ids: &[LeaseId]) -> Result<Vec<Sighting>, StoreError> {
        let rows = self.rows.lock().await;
        let seen = |lease: &Lease| Sighting {
            lease: lease.id,
            backend: lease.backend.clone(),
            may_live: lease.may_live(),
        };
        Ok(ids.iter().filter_map(|id| rows.leases.get(id)).map(seen).collect())
    }

    async fn living_of(
        &self,
        backend: &str,
        after: Option<LeaseId>,
        limit: u32,
    ) -> Result<Vec<Lease>, StoreError> {
        let rows = self.rows.lock().await;
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        let leases = rows.leases.range((lower, Bound::Unbounded)).map(|(_, lease)| lease);
        let living = leases.filter(|lease| lease.backend == backend && lease.may_live());
        Ok(living.take(limit as usize).cloned().collect())
    }
}

struct MemoryTx<'a> {
    now: Timestamp,
    chain: Chain,
    rows: &'a mut Rows,
}

impl MemoryTx<'_> {
    /// Up to `limit` of the tasks behind `after` that `wanted` wants.
    fn portion(
        &self,
        after: Option<TaskId>,
        limit: u32,
        wanted: impl Fn(&&Task) -> bool,
    ) -> OpenTasks {
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        let tasks = self.rows.tasks.range((lower, Bound::Unbounded)).map(|(_, task)| task);
        let tasks: Vec<Task> = tasks.filter(wanted).take(limit as usize).cloned().collect();
        let rows: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
        OpenTasks::new(&rows, tasks, limit)
    }
}

#[async_trait]
impl Tx for MemoryTx<'_> {
    fn now(&self) -> Timestamp {
        self.now
    }

    async fn task(&mut self, id: TaskId, _exclusive: bool) -> Result<Option<Task>, StoreError> {
        Ok(self.rows.tasks.get(&id).cloned())
    }

    async fn due_tasks(
        &mut self,
        limit: u32,
        spared: Spared,
        heard: Duration,
    ) -> Result<Vec<Task>, StoreError> {
        let due = |task: &&Task| task.due_end(self.now, spared, heard).is_some();
        Ok(self.rows.tasks.values().filter(due).take(limit as usize).cloned().collect())
    }

    async fn insert_task(&mut self, task: &Task) -> Result<(), StoreError> {
        self.rows.tasks.insert(task.id, task.clone());
        Ok(())
    }

    async fn update_task(&mut self, task: &Task) -> Result<(), StoreError> {
        self.rows.tasks.insert(task.id, task.clone());
        Ok(())
    }

    async fn ended_job(&mut self, key: &JobKey) -> Result<Option<TaskEnd>, StoreError> {
        let found = self.rows.ended_jobs.get(key).filter(|ended| ended.expires_at > self.now);
        Ok(found.map(|ended| ended.end))
    }

    async fn remember_job(&mut self, ended: &JobEnd) -> Result<u64, StoreError> {
        let (now, most) = (self.now, u64::from(ended.remembered_max));
        let rows = &mut self.rows.ended_jobs;
        let own = rows.values().filter(|row| row.told_by == ended.actor);
        let place = own.map(|row| row.place).max().unwrap_or(0) + 1;
        let (told_by, expires_at) = (ended.actor.clone(), now.plus(ended.keep));
        rows.insert(ended.key.clone(), EndedJob { told_by, place, end: ended.end, expires_at });
        let mut forgotten = 0;
        rows.retain(|_, row| {
            let old = row.expires_at <= now;
            let beyond = row.told_by == ended.actor && row.place + most <= place;
            forgotten += u64::from(beyond && !old);
            !old && !beyond
        });
        Ok(forgotten)
    }

    async fn tasks_of_job(
        &mut self,
        key: &JobKey,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<OpenTasks, StoreError> {
        let of = |task: &&Task| task.state == TaskState::Open && task.keys.contains(key);
        Ok(self.portion(after, limit, of))
    }

    async fn disabled(
        &mut self,
        principal: &str,
        _exclusive: bool,
    ) -> Result<Option<Disabled>, StoreError> {
        let lasts = |row: &&Disabled| row.expires_at.is_none_or(|at| at > self.now);
        Ok(self.rows.disabled.get(principal).filter(lasts).cloned())
    }

    async fn set_disabled(&mut self, disabled: &Disabled) -> Result<(), StoreError> {
        self.rows.disabled.insert(disabled.principal.clone(), disabled.clone());
        Ok(())
    }

    async fn enable(&mut self, principal: &str) -> Result<(), StoreError> {
        self.rows.disabled.remove(principal);
        Ok(())
    }

    async fn ending(&mut self) -> Result<Option<String>, StoreError> {
        let lasts = |row: &&Disabled| row.expires_at.is_none_or(|at| at > self.now);
        let mut rows = self.rows.disabled.values().filter(lasts);
        Ok(rows.find(|row| row.ending).map(|row| row.principal.clone()))
    }

    async fn tasks_of_principal(
        &mut self,
        principal: &str,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<OpenTasks, StoreError> {
        let asked = |task: &Task| {
            task.on_behalf_of.as_ref().is_some_and(|person| person.principal == principal)
        };
        let of = |task: &&Task| {
            task.state == TaskState::Open && (task.principal == principal || asked(task))
        };
        Ok(self.portion(after, limit, of))
    }

    async fn remember(&mut self, replays: &[Replay]) -> Result<Option<usize>, StoreError> {
        let (rows, mut keys) = (&mut self.rows.replayed, BTreeSet::new());
        let mut is_new = |key: &str| !rows.contains_key(key) && keys.insert(key.to_owned());
        if let Some(nth) = replays.iter().position(|replay| !is_new(&replay.key)) {
            return Ok(Some(nth));
        }
        rows.extend(replays.iter().map(|replay| (replay.key.clone(), replay.expires_at)));
        Ok(None)
    }

    async fn forget(&mut self, replays: &[Replay]) -> Result<(), StoreError> {
        for replay in replays {
            self.rows.replayed.remove(&replay.key);
        }
        Ok(())
    }

    async fn first_key(&mut self, first: &FirstKey) -> Result<Option<[u8; 32]>, StoreError> {
        let bound = self.rows.first_keys.get(&first.token).copied();
        if let (None, Some(key)) = (bound, first.key) {
            self.rows.first_keys.insert(first.token.clone(), key);
        }
        Ok(bound.or(first.key))
    }

    async fn lease_task(&mut self, id: LeaseId) -> Result<Option<TaskId>, StoreError> {
        Ok(self.rows.leases.get(&id).map(|lease| lease.task))
    }

    async fn lease(&mut self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        Ok(self.rows.leases.get(&id).cloned())
    }

    async fn leases(&mut self, ids: &[LeaseId]) -> Result<Vec<Lease>, StoreError> {
        Ok(ids.iter().filter_map(|id| self.rows.leases.get(id)).cloned().collect())
    }

    async fn leases_of(&mut self, task: TaskId) -> Result<Vec<Lease>, StoreError> {
        let living = |lease: &&Lease| lease.task == task && lease.may_live();
        Ok(self.rows.leases.values().filter(living).cloned().collect())
    }

    async fn due_leases(
        &mut self,
        backend: &str,
        limit: u32,
        spared: Spared,
    ) -> Result<Vec<Lease>, StoreError> {
        let due_at = |lease: &&Lease| lease.due_at().filter(|due| *due <= self.now);
        let of_backend = self.rows.leases.values().filter(|lease| lease.backend == backend);
        let due = of_backend.filter(|lease| due_at(lease).is_some());
        let mut due: Vec<&Lease> = due.filter(|lease| !spared.spares(lease, self.now)).collect();
        due.sort_by_key(|lease| (lease.due_at(), lease.id));
        Ok(due.into_iter().take(limit as usize).cloned().collect())
    }

    async fn claimed_by(&mut self, owner: ReplicaId, limit: u32) -> Result<Vec<Lease>, StoreError> {
        let of_owner = |lease: &&Lease| lease.claim.is_some_and(|claim| claim.owner == owner);
        Ok(self.rows.leases.values().filter(of_owner).take(limit as usize).cloned().collect())
    }

    async fn expiring(&mut self, from: Timestamp, to: Timestamp) -> Result<Share, StoreError> {
        let active = |lease: &&Lease| matches!(lease.state, State::Active { .. });
        let mut share = Share::default();
        for lease in self.rows.leases.values().filter(active) {
            share.whole += 1;
            share.part += u64::from(from < lease.expires_at && lease.expires_at <= to);
        }
        Ok(share)
    }

    async fn count(&mut self, counted: &Counted<'_>, most: u32) -> Result<Tally, StoreError> {
        let of = |lease: &&Lease| {
            let backend = lease.backend == counted.backend;
            let (role, principal) =
                (lease.role == counted.role, lease.principal == counted.principal);
            let within = match counted.measure {
                Measure::BackendLiving | Measure::BackendMinted => backend,
                Measure::PrincipalLiving => principal,
                Measure::RoleLiving | Measure::RoleMinted => role,
                Measure::ShareLiving | Measure::ShareMinted => role && principal,
            };
            let rate = counted.measure.is_rate();
            within && if rate { lease.issued_at > counted.since } else { lease.may_live() }
        };
        let mut issued: Vec<Timestamp> =
            self.rows.leases.values().filter(of).map(|lease| lease.issued_at).collect();
        issued.sort_unstable_by(|one, other| other.cmp(one));
        issued.truncate(most as usize);
        let count = u32::try_from(issued.len()).unwrap_or(u32::MAX);
        Ok(Tally { count, oldest: issued.last().copied() })
    }

    async fn insert_lease(&mut self, lease: &Lease) -> Result<(), StoreError> {
        self.rows.leases.insert(lease.id, lease.clone());
        Ok(())
    }

    async fn update_leases(&mut self, leases: &[Lease]) -> Result<Vec<LeaseId>, StoreError> {
        let mut lost = Vec::new();
        for lease in leases {
            match self.rows.leases.get_mut(&lease.id) {
                Some(row) if row.epoch == lease.epoch - 1 => *row = lease.clone(),
                Some(_) | None => lost.push(lease.id),
            }
        }
        Ok(lost)
    }

    async fn key(
        &mut self,
        task: TaskId,
        key: &str,
    ) -> Result<Option<([u8; 32], LeaseId)>, StoreError> {
        Ok(self.rows.keys.get(&(task, key.to_owned())).copied())
    }

    async fn set_key(
        &mut self,
        task: TaskId,
        key: &IdempotencyKey,
        seen: Option<LeaseId>,
        lease: LeaseId,
    ) -> Result<bool, StoreError> {
        let place = (task, key.key.clone());
        if self.rows.keys.get(&place).map(|(_, lease)| *lease) != seen {
            return Ok(false);
        }
        self.rows.keys.insert(place, (key.request, lease));
        Ok(true)
    }

    async fn standing(&mut self) -> Result<Standing, StoreError> {
        Ok(self.rows.standing.clone())
    }

    async fn set_standing(&mut self, standing: &Standing) -> Result<(), StoreError> {
        self.rows.standing = standing.clone();
        Ok(())
    }

    async fn turned_away(&mut self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.rows.turned_away)
    }

    async fn set_turned_away(&mut self) -> Result<(), StoreError> {
        self.rows.turned_away = Some(self.now);
        Ok(())
    }

    async fn turn(&mut self, backend: &str) -> Result<(u64, Option<Timestamp>), StoreError> {
        let found = self.rows.turns.get(backend).copied();
        Ok(found.map_or((0, None), |(turn, at)| (turn, Some(at))))
    }

    async fn set_turn(&mut self, backend: &str, turn: u64) -> Result<(), StoreError> {
        self.rows.turns.insert(backend.to_owned(), (turn, self.now));
        Ok(())
    }

    async fn root(&mut self, backend: &str) -> Result<Option<Root>, StoreError> {
        Ok(self.rows.roots.get(backend).cloned())
    }

    async fn set_root(&mut self, root: &Root) -> Result<bool, StoreError> {
        let before = self.rows.roots.get(&root.backend).map_or(0, |root| root.epoch);
        if before != root.epoch - 1 {
            return Ok(false);
        }
        self.rows.roots.insert(root.backend.clone(), root.clone());
        Ok(true)
    }

    async fn prune(&mut self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let old = |lease: &&Lease| match lease.state {
            State::Revoked { at, .. } | State::Abandoned { at, .. } => at < before,
            State::Pending | State::Active { .. } | State::Revoking { .. } => false,
        };
        let leases = self.rows.leases.values().filter(old);
        let leases: Vec<LeaseId> = leases.map(|lease| lease.id).take(limit as usize).collect();
        for id in &leases {
            self.rows.leases.remove(id);
        }
        let with_leases: BTreeSet<TaskId> = self.rows.leases.values().map(|l| l.task).collect();
        let old = |task: &&Task| match task.state {
            TaskState::Closed { at, .. } => at < before && !with_leases.contains(&task.id),
            TaskState::Open => false,
        };
        let tasks = self.rows.tasks.values().filter(old);
        let tasks: Vec<TaskId> = tasks.map(|task| task.id).take(limit as usize).collect();
        for id in &tasks {
            self.rows.tasks.remove(id);
        }
        self.rows.keys.retain(|(task, _), _| !tasks.contains(task));
        Ok((leases.len() + tasks.len()) as u64)
    }

    fn append(&mut self, entry: Entry) -> Decision {
        let record = self.chain.seal(entry, self.now);
        let decision = Decision { chain: record.chain, seq: record.seq };
        self.rows.records.push(record);
        decision
    }
}
