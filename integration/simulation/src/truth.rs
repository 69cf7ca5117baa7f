//! The store at the other end of the network, and what befalls it.
//!
//! Invariant: oracles and faults look at it directly; replicas only through the network.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{
    Clock, Lease, LeaseId, ReplicaId, Store, StoreError, Task, TaskId, Write,
    audit::{Chain, Record, SEED_LEN, Signer},
    memory::{MemoryStore, Snapshot},
};
use dayfly_store::{Incarnation, InlineSqlite};
use futures_util::FutureExt;
use rusqlite::{Connection, OptionalExtension, params, types::Value};
use uuid::Uuid;

use crate::{
    plan::StoreKind,
    world::{World, hold},
};

/// The wall clock of the store's machine.
#[derive(Debug)]
pub struct WallClock(pub std::sync::Weak<World>);

#[async_trait]
impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        self.0.upgrade().map_or(Timestamp::EPOCH, |world| world.store_wall())
    }

    fn running(&self) -> Duration {
        self.0.upgrade().map_or(Duration::ZERO, |world| world.elapsed())
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The store.
#[derive(Debug)]
pub struct Truth {
    signer: Signer,
    clock: Arc<dyn Clock>,
    rows: Rows,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of it in a run")]
enum Rows {
    Memory {
        root: MemoryStore,
        losable: Mutex<Option<(Duration, Snapshot)>>,
        copy: Mutex<Option<Snapshot>>,
        seen: Mutex<usize>,
    },
    Sqlite {
        root: Arc<InlineSqlite>,
        seen: Mutex<i64>,
    },
}

/// What changed since the last look.
#[derive(Debug, Default)]
pub struct Changes {
    /// Leases.
    pub leases: Vec<Lease>,
    /// Audit records: chain, place, event, lease, text.
    pub records: Vec<(ReplicaId, u64, String, Option<LeaseId>, String)>,
}

impl Truth {
    /// An empty store.
    pub fn open(kind: StoreKind, world: &Arc<World>) -> Result<Self, StoreError> {
        let signer = Signer::from_seed(&[7; SEED_LEN]);
        let signer = signer.ok_or_else(|| StoreError::unavailable("no signer"))?;
        let clock: Arc<dyn Clock> = Arc::new(WallClock(Arc::downgrade(world)));
        let rows = match kind {
            StoreKind::Memory => {
                let chain = Chain::empty(ReplicaId::new(world.now(), &world.dice), signer.clone());
                let root = MemoryStore::new(Arc::clone(&clock), chain);
                Rows::Memory {
                    root,
                    losable: Mutex::default(),
                    copy: Mutex::default(),
                    seen: Mutex::default(),
                }
            }
            StoreKind::Sqlite => {
                let root = InlineSqlite::open(Arc::clone(&clock))?;
                root.with(|connection| connection.execute_batch(TOUCHED))
                    .map_err(StoreError::unavailable)?;
                Rows::Sqlite { root, seen: Mutex::default() }
            }
        };
        Ok(Self { signer, clock, rows })
    }

    /// The store as a starting replica opens it.
    pub fn replica(&self, id: ReplicaId) -> Result<Arc<dyn Store>, StoreError> {
        match &self.rows {
            Rows::Memory { root, .. } => {
                let chain = Chain::empty(id, self.signer.clone());
                let replica = root.replica(chain).now_or_never();
                let replica = replica.ok_or_else(|| StoreError::unavailable("busy"))?;
                Ok(Arc::new(replica))
            }
            Rows::Sqlite { root, .. } => {
                let incarnation = Incarnation { replica: id, signer: self.signer.clone() };
                Ok(Arc::new(root.replica(incarnation)?))
            }
        }
    }

    /// The store's clock.
    pub fn now(&self) -> Timestamp {
        match &self.rows {
            Rows::Memory { .. } => self.clock.now(),
            Rows::Sqlite { root, .. } => root.time(),
        }
    }

    /// The key that the audit log is signed with.
    pub fn public_key(&self) -> &[u8] {
        self.signer.public_key()
    }

    /// A change is about to be made. One that must be durable makes durable whatever came
    /// before it; the others can be lost until then, or until the log is flushed.
    pub fn before(&self, write: &Write) {
        const FLUSHED_AFTER: Duration = Duration::from_millis(600);
        let Rows::Memory { root, losable, .. } = &self.rows else { return };
        let mut losable = hold(losable);
        if write.must_be_durable() {
            *losable = None;
            return;
        }
        let running = self.clock.running();
        if losable.as_ref().is_none_or(|(since, _)| running.saturating_sub(*since) > FLUSHED_AFTER)
        {
            *losable = root.snapshot().now_or_never().map(|snapshot| (running, snapshot));
        }
    }

    /// The store crashes: what was not durable is gone. Says whether anything was.
    pub fn lose_commits(&self) -> bool {
        let Rows::Memory { root, losable, seen, .. } = &self.rows else { return false };
        let Some((_, snapshot)) = hold(losable).take() else { return false };
        if root.restore(&snapshot).now_or_never().is_none() {
            return false;
        }
        let records = root.look(|_, records| records.len()).now_or_never();
        *hold(seen) = records.unwrap_or_default();
        true
    }

    /// Somebody takes a copy of the store.
    pub fn keep_copy(&self) {
        if let Rows::Memory { root, copy, .. } = &self.rows {
            *hold(copy) = root.snapshot().now_or_never();
        }
    }

    /// Somebody puts that copy in the store's place. Says whether there was one.
    pub fn restore_copy(&self) -> bool {
        let Rows::Memory { root, losable, copy, seen } = &self.rows else { return false };
        let Some(snapshot) = hold(copy).take() else { return false };
        *hold(losable) = None;
        *hold(seen) = 0;
        root.restore(&snapshot).now_or_never().is_some()
    }

    /// Whether somebody has taken one.
    pub fn has_copy(&self) -> bool {
        matches!(&self.rows, Rows::Memory { copy, .. } if hold(copy).is_some())
    }

    /// Which sweep of a backend the store is at.
    pub fn turn(&self, backend: &str) -> u64 {
        let Rows::Memory { root, .. } = &self.rows else { return 0 };
        root.turn(backend).now_or_never().and_then(Result::ok).unwrap_or(0)
    }

    /// Whether minting pauses until somebody has looked.
    pub fn is_suspended(&self) -> bool {
        let Rows::Memory { root, .. } = &self.rows else { return false };
        let standing = root.standing().now_or_never().and_then(Result::ok);
        standing.is_some_and(|standing| standing.suspended.is_some())
    }

    /// A task, if it is there.
    pub fn task(&self, id: TaskId) -> Option<Task> {
        match &self.rows {
            Rows::Memory { root, .. } => root.task(id).now_or_never()?.ok()?,
            Rows::Sqlite { .. } => None,
        }
    }

    /// What changed, given the epochs that were seen before.
    pub fn changes(&self, known: &BTreeMap<LeaseId, i64>) -> Changes {
        match &self.rows {
            Rows::Memory { root, seen, .. } => {
                let mut seen = hold(seen);
                let look = root.look(|leases, records| {
                    let new = leases.values().filter(|row| known.get(&row.id) != Some(&row.epoch));
                    let told = records.iter().skip(*seen).map(told).collect();
                    *seen = records.len();
                    Changes { leases: new.cloned().collect(), records: told }
                });
                look.now_or_never().unwrap_or_default()
            }
            Rows::Sqlite { root, seen } => {
                let mut seen = hold(seen);
                let ids = root.with(touched).unwrap_or_default();
                let rows = ids.into_iter().filter_map(|id| root.lease_row(id).ok().flatten());
                let new = rows.filter(|row| known.get(&row.id) != Some(&row.epoch));
                let leases = new.collect();
                let records = root.with(|connection| records_after(connection, &mut seen));
                Changes { leases, records: records.unwrap_or_default() }
            }
        }
    }

    /// Every lease that can be read.
    pub fn leases(&self) -> Vec<Lease> {
        match &self.rows {
            Rows::Memory { root, .. } => root.leases().now_or_never().unwrap_or_default(),
            Rows::Sqlite { root, .. } => {
                let ids = root.with(|connection| all_ids(connection)).unwrap_or_default();
                ids.into_iter().filter_map(|id| root.lease_row(id).ok().flatten()).collect()
            }
        }
    }

    /// Every audit record, chain by chain.
    pub fn chains(&self) -> BTreeMap<ReplicaId, Vec<Record>> {
        let records = match &self.rows {
            Rows::Memory { root, .. } => root.records().now_or_never().unwrap_or_default(),
            Rows::Sqlite { root, .. } => root.records().unwrap_or_default(),
        };
        let mut chains: BTreeMap<ReplicaId, Vec<Record>> = BTreeMap::new();
        for record in records {
            chains.entry(record.chain).or_default().push(record);
        }
        chains
    }

    /// Makes a lease's row unreadable; gives what puts it right again.
    pub fn corrupt(&self, id: LeaseId, how: u64) -> Option<Repair> {
        let Rows::Sqlite { root, .. } = &self.rows else { return None };
        let (column, garbage) = match how % 6 {
            0 => ("belts", Value::Text("n_tive_expiry".into())),
            1 => ("handle", Value::Text("DAYFLY; --".into())),
            2 => ("decision_seq", Value::Integer(-7)),
            3 => ("role", Value::Blob(vec![0xc3, 0x28])),
            4 => ("decision_chain", Value::Blob(vec![1, 2, 3])),
            _ => ("attempts", Value::Integer(5_000_000_000)),
        };
        let id = *id.uuid().as_bytes();
        root.with(|connection| {
            let read = format!("SELECT {column} FROM leases WHERE id = ?1");
            let before: Value =
                connection.query_row(&read, params![id], |row| row.get(0)).optional().ok()??;
            set(connection, column, &id, &garbage)?;
            Some(Repair { column, id, before })
        })
    }

    /// Puts a row right again, as an operator would.
    pub fn repair(&self, repair: &Repair) {
        let Rows::Sqlite { root, .. } = &self.rows else { return };
        root.with(|connection| {
            let repaired = set(connection, repair.column, &repair.id, &repair.before);
            let sql = "UPDATE leases SET quarantined = NULL WHERE id = ?1";
            repaired.and_then(|_| connection.execute(sql, params![repair.id]).ok())
        });
    }
}

/// How an unreadable row is put right.
#[derive(Debug)]
pub struct Repair {
    column: &'static str,
    id: [u8; 16],
    before: Value,
}

const TOUCHED: &str = "
    CREATE TEMP TABLE touched (id BLOB);
    CREATE TEMP TRIGGER touched_new AFTER INSERT ON main.leases
        BEGIN INSERT INTO touched VALUES (new.id); END;
    CREATE TEMP TRIGGER touched_old AFTER UPDATE ON main.leases
        BEGIN INSERT INTO touched VALUES (new.id); END;";

fn set(connection: &Connection, column: &str, id: &[u8; 16], value: &Value) -> Option<usize> {
    // A text that is none.
    let new = if column == "role" { "CAST(?2 AS TEXT)" } else { "?2" };
    let sql = format!("UPDATE leases SET {column} = {new} WHERE id = ?1");
    connection.execute(&sql, params![id, value]).ok()
}

fn ids(connection: &Connection, sql: &str) -> rusqlite::Result<BTreeSet<LeaseId>> {
    let mut statement = connection.prepare_cached(sql)?;
    let ids = statement.query_map([], |row| row.get::<_, [u8; 16]>(0))?;
    ids.map(|id| id.map(|id| LeaseId::from_uuid(Uuid::from_bytes(id)))).collect()
}

fn touched(connection: &mut Connection) -> rusqlite::Result<BTreeSet<LeaseId>> {
    let touched = ids(connection, "SELECT id FROM temp.touched")?;
    if !touched.is_empty() {
        connection.prepare_cached("DELETE FROM temp.touched")?.execute([])?;
    }
    Ok(touched)
}

fn all_ids(connection: &Connection) -> rusqlite::Result<BTreeSet<LeaseId>> {
    ids(connection, "SELECT id FROM leases")
}

type Told = (ReplicaId, u64, String, Option<LeaseId>, String);

fn told(record: &Record) -> Told {
    (record.chain, record.seq, record.event.clone(), record.lease, record.detail.clone())
}

fn records_after(connection: &Connection, seen: &mut i64) -> rusqlite::Result<Vec<Told>> {
    let sql = "SELECT rowid, chain, seq, event, lease, detail FROM audit_records
        WHERE rowid > ?1 ORDER BY rowid";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![*seen], |row| {
        let chain = ReplicaId::from_uuid(Uuid::from_bytes(row.get(1)?));
        let lease: Option<[u8; 16]> = row.get(4)?;
        let lease = lease.map(|id| LeaseId::from_uuid(Uuid::from_bytes(id)));
        let seq = row.get::<_, i64>(2)?.cast_unsigned();
        Ok((row.get::<_, i64>(0)?, (chain, seq, row.get(3)?, lease, row.get(5)?)))
    })?;
    let mut told = Vec::new();
    for row in rows {
        let (rowid, record) = row?;
        *seen = rowid;
        told.push(record);
    }
    Ok(told)
}
