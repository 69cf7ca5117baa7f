//! The store in memory: for simulation, and the model that the real stores are held against.
//!
//! Invariant: it keeps what the real ones keep and nothing more; what a crash would lose
//! there must not matter here.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use dayfly_backend_sdk::Timestamp;
use tokio::sync::Mutex;

use crate::{
    Clock, Counts, Decision, IdempotencyKey, Lease, LeaseId, Replay, State, Store, StoreError,
    Task, TaskId, TaskState, Write, Written,
    audit::{Chain, Entry, Record},
    transact::{Tx, apply},
};

/// Leases, tasks and audit in maps.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    rows: Mutex<Rows>,
}

#[derive(Debug)]
struct Rows {
    tasks: BTreeMap<TaskId, Task>,
    leases: BTreeMap<LeaseId, Lease>,
    keys: BTreeMap<(TaskId, String), ([u8; 32], LeaseId)>,
    replayed: BTreeMap<String, Timestamp>,
    records: Vec<Record>,
    chain: Chain,
}

impl MemoryStore {
    /// An empty store with one audit chain.
    pub fn new(clock: Arc<dyn Clock>, chain: Chain) -> Self {
        let rows = Rows {
            tasks: BTreeMap::new(),
            leases: BTreeMap::new(),
            keys: BTreeMap::new(),
            replayed: BTreeMap::new(),
            records: Vec::new(),
            chain,
        };
        Self { clock, rows: Mutex::new(rows) }
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
        let mut tx = MemoryTx { now: self.clock.now(), rows: &mut rows };
        apply(&mut tx, &write).await
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
                State::Revoking { .. } => counts.revoking += 1,
                State::Revoked { .. } => counts.revoked += 1,
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
        Ok(open.map(|task| task.expires_at).min().map(|due| due.since(self.clock.now())))
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.now())
    }
}

struct MemoryTx<'a> {
    now: Timestamp,
    rows: &'a mut Rows,
}

#[async_trait]
impl Tx for MemoryTx<'_> {
    fn now(&self) -> Timestamp {
        self.now
    }

    async fn task(&mut self, id: TaskId, _exclusive: bool) -> Result<Option<Task>, StoreError> {
        Ok(self.rows.tasks.get(&id).cloned())
    }

    async fn due_tasks(&mut self, limit: u32) -> Result<Vec<Task>, StoreError> {
        let due = |task: &&Task| task.state == TaskState::Open && task.expires_at <= self.now;
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

    async fn remember(&mut self, replay: &Replay) -> Result<bool, StoreError> {
        let before = self.rows.replayed.insert(replay.key.clone(), replay.expires_at);
        Ok(before.is_none())
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

    async fn due_leases(&mut self, backend: &str, limit: u32) -> Result<Vec<Lease>, StoreError> {
        let due_at = |lease: &&Lease| lease.due_at().filter(|due| *due <= self.now);
        let of_backend = self.rows.leases.values().filter(|lease| lease.backend == backend);
        let mut due: Vec<&Lease> = of_backend.filter(|lease| due_at(lease).is_some()).collect();
        due.sort_by_key(|lease| (lease.due_at(), lease.id));
        Ok(due.into_iter().take(limit as usize).cloned().collect())
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

    fn append(&mut self, entry: Entry) -> Decision {
        let record = self.rows.chain.seal(entry, self.now);
        let decision = Decision { chain: record.chain, seq: record.seq };
        self.rows.records.push(record);
        decision
    }
}
