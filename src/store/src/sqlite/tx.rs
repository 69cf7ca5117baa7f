//! A SQLite transaction as the engine's rules see it.
//!
//! Invariant: nothing here waits. There is one writer, so every row is as good as locked.

use std::time::Duration;

use async_trait::async_trait;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{
    Binding, Decision, Disabled, FirstKey, IdempotencyKey, JobEnd, JobKey, Lease, LeaseId, Replay,
    ReplicaId, Root, Sealed, Spared, Standing, StoreError, Task, TaskEnd, TaskId,
    audit::{Chain, Entry, Head, Record},
    quota::{Counted, Measure, Tally},
    transact::{OpenTasks, Share, Tx},
};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use uuid::Uuid;

use super::read::{
    self, DISABLED_COLUMNS, LEASE_COLUMNS, TASK_COLUMNS, TASK_DUE, disabled_row, lease_row,
    task_row,
};
use crate::row;

pub(super) struct SqliteTx<'a> {
    connection: &'a mut Connection,
    now: Timestamp,
    chain: Chain,
    records: Vec<Record>,
}

/// A task's row, as far as it can be read.
type FoundTask = (Uuid, rusqlite::Result<row::TaskRow>);

/// The tasks among the rows that can be read; the others are reported (I12).
fn readable_tasks(rows: Vec<FoundTask>) -> Vec<Task> {
    let readable = |(id, row): FoundTask| match row {
        Ok(row) => Some(row),
        Err(error) => {
            tracing::error!(task.id = %TaskId::from_uuid(id), %error, "task.unreadable");
            None
        }
    };
    row::readable_tasks(rows.into_iter().filter_map(readable).collect())
}

fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::micros)
}

/// The interval that the brake holds and how far the clock jumped; without a hold, nothing.
fn held(spared: Spared) -> [i64; 3] {
    spared.hold.map_or([0; 3], |hold| {
        let jump = i64::try_from(hold.jump().as_micros()).unwrap_or(i64::MAX / 2);
        [hold.from.micros(), hold.to.micros(), jump]
    })
}

impl<'a> SqliteTx<'a> {
    pub(super) fn new(connection: &'a mut Connection, now: Timestamp, chain: Chain) -> Self {
        Self { connection, now, chain, records: Vec::new() }
    }

    pub(super) fn into_chain(self) -> Chain {
        self.chain
    }

    /// Writes the records and the high-water mark of the clock.
    pub(super) fn flush(&mut self, before: Head) -> Result<(), StoreError> {
        self.execute("UPDATE clock SET seen = ?1", params![self.now.micros()])?;
        let records = std::mem::take(&mut self.records);
        if records.is_empty() {
            return Ok(());
        }
        for record in &records {
            self.insert_record(record)?;
        }
        let head = self.chain.head();
        let moved = self.execute(
            "UPDATE audit_chains SET seq = ?2, hash = ?3 WHERE chain = ?1 AND seq = ?4",
            params![
                head.chain.uuid().as_bytes(),
                head.seq.cast_signed(),
                head.hash,
                before.seq.cast_signed()
            ],
        )?;
        match moved {
            1 => Ok(()),
            _ => Err(StoreError::unavailable("the audit chain is not where it was")),
        }
    }

    fn insert_record(&self, record: &Record) -> Result<usize, StoreError> {
        self.execute(
            "INSERT INTO audit_records
                (chain, seq, at, event, actor, task, lease, detail, prev, hash, signature)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                record.chain.uuid().as_bytes(),
                record.seq.cast_signed(),
                record.at.micros(),
                record.event,
                record.actor,
                record.task.map(|id| *id.uuid().as_bytes()),
                record.lease.map(|id| *id.uuid().as_bytes()),
                record.detail,
                record.prev,
                record.hash,
                record.signature,
            ],
        )
    }

    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize, StoreError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(StoreError::unavailable)?;
        statement.execute(params).map_err(StoreError::unavailable)
    }

    fn select(&self, tail: &str, params: impl rusqlite::Params) -> Result<Vec<Lease>, StoreError> {
        let sql = format!("SELECT {LEASE_COLUMNS} FROM leases {tail}");
        // Read one by one: a column that means nothing spoils its own row only (I12).
        let read = |row: &Row<'_>| Ok((read::uuid(row, "id")?, lease_row(row)));
        let rows = read::rows(self.connection, &sql, params, read)?;
        let mut leases = Vec::with_capacity(rows.len());
        for (id, row) in rows {
            let unreadable =
                |_| StoreError::Corrupt { what: format!("lease {}", LeaseId::from_uuid(id)) };
            match row.map_err(unreadable).and_then(Lease::try_from) {
                Ok(lease) => leases.push(lease),
                Err(error) => {
                    tracing::error!(lease.id = %LeaseId::from_uuid(id), %error, "lease.quarantined");
                    self.execute(
                        "UPDATE leases SET quarantined = ?2 WHERE id = ?1",
                        params![id.as_bytes(), error.to_string()],
                    )?;
                }
            }
        }
        Ok(leases)
    }

    /// The tasks among the rows that can be read; the others are reported (I12).
    fn select_tasks(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<Task>, StoreError> {
        self.task_rows(sql, params).map(readable_tasks)
    }

    /// The rows of `sql`, of which `?1` says whose tasks, `?2` behind which one and `?3` how many.
    fn open_tasks(
        &self,
        sql: &str,
        whose: &str,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<OpenTasks, StoreError> {
        let after = after.map_or(Uuid::nil(), TaskId::uuid);
        let rows = self.task_rows(sql, params![whose, after.as_bytes(), limit])?;
        let seen: Vec<TaskId> = rows.iter().map(|(id, _)| TaskId::from_uuid(*id)).collect();
        Ok(OpenTasks::new(&seen, readable_tasks(rows), limit))
    }

    fn task_rows(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<FoundTask>, StoreError> {
        let read = |row: &Row<'_>| Ok((read::uuid(row, "id")?, task_row(row)));
        read::rows(self.connection, sql, params, read)
    }

    fn update_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        let state = row::state_columns(lease);
        let written = self.execute(
            "UPDATE leases SET epoch = ?2, state = ?3, expires_at = ?4, native_expires_at = ?5,
                settle_at = ?6, activated_at = ?7, delivered_at = ?8, cause = ?9,
                revoking_at = COALESCE(revoking_at, ?10), revoked_at = ?11, due_at = ?12,
                next_attempt_at = ?13, attempts = ?14, error_class = ?15, claim_owner = ?16,
                claim_until = ?17, claim_since = ?18, abandon_by = ?19, abandon_reason = ?20,
                abandon_at = ?21, kept = ?22
             WHERE id = ?1 AND epoch = ?2 - 1",
            params![
                lease.id.uuid().as_bytes(),
                lease.epoch,
                state.state,
                lease.expires_at.micros(),
                micros(lease.native_expires_at),
                micros(lease.settle_at),
                micros(lease.activated_at),
                micros(lease.delivered_at),
                state.cause,
                micros(state.revoking_at),
                micros(state.revoked_at),
                micros(lease.due_at()),
                micros(lease.next_attempt_at),
                lease.attempts,
                lease.error_class,
                lease.claim.map(|claim| *claim.owner.uuid().as_bytes()),
                micros(lease.claim.map(|claim| claim.until)),
                micros(lease.claim.map(|claim| claim.since)),
                lease.abandonment.as_ref().map(|wish| wish.by.as_str()),
                lease.abandonment.as_ref().map(|wish| wish.reason.as_str()),
                micros(lease.abandonment.as_ref().map(|wish| wish.at)),
                lease.kept.as_ref().map(Sealed::as_bytes),
            ],
        )?;
        Ok(written == 1)
    }
}

#[async_trait]
impl Tx for SqliteTx<'_> {
    fn now(&self) -> Timestamp {
        self.now
    }

    async fn task(&mut self, id: TaskId, _exclusive: bool) -> Result<Option<Task>, StoreError> {
        read::task(self.connection, id)
    }

    async fn due_tasks(
        &mut self,
        limit: u32,
        spared: Spared,
        heard: Duration,
    ) -> Result<Vec<Task>, StoreError> {
        let sql = format!(
            "SELECT {TASK_COLUMNS} FROM tasks WHERE ended IS NULL AND {TASK_DUE} <= ?1
             AND ((expires_at <= ?1
                 AND NOT (expires_at > ?3 AND expires_at <= ?4 AND expires_at + ?5 > ?1))
               OR (lost_at <= ?1 AND heartbeat <= ?6))
             ORDER BY {TASK_DUE} LIMIT ?2"
        );
        let [from, to, jump] = held(spared);
        let heard = row::in_micros(heard);
        self.select_tasks(&sql, params![self.now.micros(), limit, from, to, jump, heard])
    }

    async fn insert_task(&mut self, task: &Task) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO tasks (id, principal, issuer, identity, purpose, token_hash, opened_at,
                expires_at, heartbeat, lost_at, run, job, bound_by, bound_to, on_behalf_of,
                on_behalf_name)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
            params![
                task.id.uuid().as_bytes(),
                task.principal,
                task.issuer,
                task.identity.to_string(),
                task.purpose,
                task.token_hash,
                task.opened_at.micros(),
                task.expires_at.micros(),
                task.heartbeat.map(|heartbeat| row::in_micros(heartbeat.every)),
                micros(task.heartbeat.map(|heartbeat| heartbeat.lost_at)),
                task.keys.run.as_ref().map(JobKey::as_str),
                task.keys.job.as_ref().map(JobKey::as_str),
                task.binding.map(Binding::as_str),
                task.binding.map(Binding::hash),
                task.on_behalf_of.as_ref().map(|person| person.principal.as_str()),
                task.on_behalf_of.as_ref().and_then(|person| person.name.as_deref()),
            ],
        )
        .map(drop)
    }

    async fn update_task(&mut self, task: &Task) -> Result<(), StoreError> {
        let (ended, closed_at) = row::task_end(task);
        let written = self.execute(
            "UPDATE tasks SET expires_at = ?2, ended = ?3, closed_at = ?4, lost_at = ?5
             WHERE id = ?1",
            params![
                task.id.uuid().as_bytes(),
                task.expires_at.micros(),
                ended,
                micros(closed_at),
                micros(task.heartbeat.map(|heartbeat| heartbeat.lost_at)),
            ],
        )?;
        match written {
            1 => Ok(()),
            _ => Err(StoreError::Corrupt { what: format!("task {}", task.id) }),
        }
    }

    async fn ended_job(&mut self, key: &JobKey) -> Result<Option<TaskEnd>, StoreError> {
        let sql = "SELECT ended FROM ended_jobs WHERE key = ?1 AND expires_at > ?2";
        let mut statement = self.connection.prepare_cached(sql).map_err(StoreError::unavailable)?;
        let found: Option<String> = statement
            .query_row(params![key.as_str(), self.now.micros()], |row| row.get(0))
            .optional()
            .map_err(StoreError::unavailable)?;
        found.map(|ended| row::job_end(key, &ended)).transpose()
    }

    async fn remember_job(&mut self, ended: &JobEnd) -> Result<u64, StoreError> {
        // What is there already is too old to count.
        let sql = "INSERT INTO ended_jobs (key, told_by, place, ended, expires_at)
             VALUES (?1, ?2,
                1 + ifnull((SELECT max(place) FROM ended_jobs WHERE told_by = ?2), 0), ?3, ?4)
             ON CONFLICT (key) DO UPDATE SET told_by = excluded.told_by, place = excluded.place,
                ended = excluded.ended, expires_at = excluded.expires_at
             RETURNING place";
        let (key, end) = (ended.key.as_str(), ended.end.as_str());
        let (now, expires_at) = (self.now.micros(), self.now.plus(ended.keep).micros());
        let params = params![key, ended.actor, end, expires_at];
        let places = read::rows(self.connection, sql, params, |row| row.get::<_, i64>(0))?;
        let place = places.first().copied().unwrap_or_default();
        // A few more than come, so that it ends.
        self.execute(
            "DELETE FROM ended_jobs WHERE key IN (
                SELECT key FROM ended_jobs WHERE expires_at <= ?1 ORDER BY expires_at LIMIT 64)",
            params![now],
        )?;
        let forgotten = self.execute(
            "DELETE FROM ended_jobs WHERE key IN (
                SELECT key FROM ended_jobs WHERE told_by = ?1 AND place <= ?2 AND expires_at > ?3
                ORDER BY place LIMIT 64)",
            params![ended.actor, place - i64::from(ended.remembered_max), now],
        )?;
        Ok(forgotten as u64)
    }

    async fn tasks_of_job(
        &mut self,
        key: &JobKey,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<OpenTasks, StoreError> {
        let sql = format!(
            "SELECT {TASK_COLUMNS} FROM tasks
             WHERE ended IS NULL AND (job = ?1 OR run = ?1) AND id > ?2 ORDER BY id LIMIT ?3"
        );
        self.open_tasks(&sql, key.as_str(), after, limit)
    }

    async fn disabled(
        &mut self,
        principal: &str,
        _exclusive: bool,
    ) -> Result<Option<Disabled>, StoreError> {
        let sql = format!(
            "SELECT {DISABLED_COLUMNS} FROM disabled
             WHERE principal = ?1 AND (expires_at IS NULL OR expires_at > ?2)"
        );
        let now = self.now.micros();
        Ok(read::rows(self.connection, &sql, params![principal, now], disabled_row)?.pop())
    }

    async fn set_disabled(&mut self, disabled: &Disabled) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO disabled (principal, cut_off, disabled_at, disabled_by, reason, ending,
                expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (principal) DO UPDATE SET cut_off = ?2, disabled_at = ?3,
                disabled_by = ?4, reason = ?5, ending = ?6, expires_at = ?7",
            params![
                disabled.principal,
                micros(disabled.cut_off),
                disabled.at.micros(),
                disabled.by,
                disabled.reason,
                disabled.ending,
                micros(disabled.expires_at),
            ],
        )
        .map(drop)
    }

    async fn enable(&mut self, principal: &str) -> Result<(), StoreError> {
        self.execute("DELETE FROM disabled WHERE principal = ?1", params![principal]).map(drop)
    }

    async fn ending(&mut self) -> Result<Option<String>, StoreError> {
        let sql = "SELECT principal FROM disabled
            WHERE ending = 1 AND (expires_at IS NULL OR expires_at > ?1)
            ORDER BY disabled_at LIMIT 1";
        Ok(read::rows(self.connection, sql, params![self.now.micros()], |row| row.get(0))?.pop())
    }

    async fn tasks_of_principal(
        &mut self,
        principal: &str,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<OpenTasks, StoreError> {
        let sql = format!(
            "SELECT {TASK_COLUMNS} FROM tasks
             WHERE ended IS NULL AND (principal = ?1 OR on_behalf_of = ?1) AND id > ?2
             ORDER BY id LIMIT ?3"
        );
        self.open_tasks(&sql, principal, after, limit)
    }

    async fn remember(&mut self, replays: &[Replay]) -> Result<Option<usize>, StoreError> {
        for (nth, replay) in replays.iter().enumerate() {
            let written = self.execute(
                "INSERT OR IGNORE INTO replayed (key, expires_at) VALUES (?1, ?2)",
                params![replay.key, replay.expires_at.micros()],
            )?;
            if written == 0 {
                self.forget(replays.get(..nth).unwrap_or_default()).await?;
                return Ok(Some(nth));
            }
        }
        Ok(None)
    }

    async fn forget(&mut self, replays: &[Replay]) -> Result<(), StoreError> {
        for replay in replays {
            self.execute("DELETE FROM replayed WHERE key = ?1", params![replay.key])?;
        }
        Ok(())
    }

    async fn first_key(&mut self, first: &FirstKey) -> Result<Option<[u8; 32]>, StoreError> {
        if let Some(key) = first.key {
            self.execute(
                "INSERT INTO replayed (key, expires_at, bound_to) VALUES (?1, ?2, ?3)
                 ON CONFLICT (key) DO NOTHING",
                params![first.token, first.expires_at.micros(), key],
            )?;
        }
        let mut statement = self
            .connection
            .prepare_cached("SELECT bound_to FROM replayed WHERE key = ?1")
            .map_err(StoreError::unavailable)?;
        let found: Option<Option<[u8; 32]>> = statement
            .query_row(params![first.token], |row| row.get(0))
            .optional()
            .map_err(StoreError::unavailable)?;
        Ok(found.flatten())
    }

    async fn lease_task(&mut self, id: LeaseId) -> Result<Option<TaskId>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT task FROM leases WHERE id = ?1")
            .map_err(StoreError::unavailable)?;
        let found: Option<[u8; 16]> = statement
            .query_row(params![id.uuid().as_bytes()], |row| row.get(0))
            .optional()
            .map_err(StoreError::unavailable)?;
        Ok(found.map(|bytes| TaskId::from_uuid(Uuid::from_bytes(bytes))))
    }

    async fn lease(&mut self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        read::lease(self.connection, id)
    }

    async fn leases(&mut self, ids: &[LeaseId]) -> Result<Vec<Lease>, StoreError> {
        let places = vec!["?"; ids.len()].join(",");
        let ids = ids.iter().map(|id| *id.uuid().as_bytes());
        self.select(&format!("WHERE id IN ({places}) ORDER BY id"), params_from_iter(ids))
    }

    async fn leases_of(&mut self, task: TaskId) -> Result<Vec<Lease>, StoreError> {
        let task = task.uuid();
        self.select(
            "WHERE task = ?1 AND state IN ('pending', 'active', 'revoking') ORDER BY id",
            params![task.as_bytes()],
        )
    }

    async fn due_leases(
        &mut self,
        backend: &str,
        limit: u32,
        spared: Spared,
    ) -> Result<Vec<Lease>, StoreError> {
        let [from, to, jump] = held(spared);
        self.select(
            "WHERE backend = ?1 AND due_at <= ?2 AND quarantined IS NULL
               AND (state = 'revoking' OR NOT ?4)
               AND NOT (state = 'active' AND delivered_at IS NOT NULL AND expires_at > ?5
                 AND expires_at <= ?6 AND expires_at + ?7 > ?2)
             ORDER BY due_at LIMIT ?3",
            params![backend, self.now.micros(), limit, spared.unless_told, from, to, jump],
        )
    }

    async fn claimed_by(&mut self, owner: ReplicaId, limit: u32) -> Result<Vec<Lease>, StoreError> {
        let owner = owner.uuid();
        self.select("WHERE claim_owner = ?1 LIMIT ?2", params![owner.as_bytes(), limit])
    }

    async fn expiring(&mut self, from: Timestamp, to: Timestamp) -> Result<Share, StoreError> {
        let sql = "SELECT count(*) FILTER (WHERE expires_at > ?1 AND expires_at <= ?2), count(*)
            FROM leases WHERE state = 'active'";
        let mut statement = self.connection.prepare_cached(sql).map_err(StoreError::unavailable)?;
        let counted = statement.query_row(params![from.micros(), to.micros()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        });
        let (part, whole) = counted.map_err(StoreError::unavailable)?;
        Ok(Share { part: part.cast_unsigned(), whole: whole.cast_unsigned() })
    }

    async fn count(&mut self, counted: &Counted<'_>, most: u32) -> Result<Tally, StoreError> {
        let Counted { measure, backend, role, principal, since } = *counted;
        // A rate is counted along the backend's index of what was issued.
        let whose = match measure {
            Measure::BackendLiving | Measure::BackendMinted => "backend = ?1",
            Measure::PrincipalLiving => "principal = ?3",
            Measure::RoleLiving => "role = ?2",
            Measure::RoleMinted => "backend = ?1 AND role = ?2",
            Measure::ShareLiving => "role = ?2 AND principal = ?3",
            Measure::ShareMinted => "backend = ?1 AND role = ?2 AND principal = ?3",
        };
        let which = if measure.is_rate() {
            "issued_at > ?5 ORDER BY issued_at DESC"
        } else {
            "state IN ('pending', 'active', 'revoking') AND ?5 IS NOT NULL"
        };
        let sql = format!(
            "SELECT count(*), min(issued_at)
             FROM (SELECT issued_at FROM leases WHERE {whose} AND {which} LIMIT ?4)"
        );
        let mut statement =
            self.connection.prepare_cached(&sql).map_err(StoreError::unavailable)?;
        let params = params![backend, role, principal, most, since.micros()];
        let counted = statement
            .query_row(params, |row| Ok((row.get::<_, u32>(0)?, row.get::<_, Option<i64>>(1)?)));
        let (count, oldest) = counted.map_err(StoreError::unavailable)?;
        Ok(Tally { count, oldest: oldest.map(Timestamp::from_micros) })
    }

    async fn insert_lease(&mut self, lease: &Lease) -> Result<(), StoreError> {
        let state = row::state_columns(lease);
        self.execute(
            "INSERT INTO leases (id, task, principal, issuer, role, backend, handle,
                decision_chain, decision_seq, epoch, state, issued_at, expires_at, max_expires_at,
                native_expires_at, mint_deadline, settle_at, due_at, attempts, renewable, belts,
                plan, on_behalf_of, on_behalf_name)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                ?18, ?19, ?20, ?21, ?22, ?23, ?24)",
            params![
                lease.id.uuid().as_bytes(),
                lease.task.uuid().as_bytes(),
                lease.principal,
                lease.issuer,
                lease.role,
                lease.backend,
                lease.handle.as_str(),
                lease.decision.chain.uuid().as_bytes(),
                lease.decision.seq.cast_signed(),
                lease.epoch,
                state.state,
                lease.issued_at.micros(),
                lease.expires_at.micros(),
                lease.max_expires_at.micros(),
                micros(lease.native_expires_at),
                lease.mint_deadline.micros(),
                micros(lease.settle_at),
                micros(lease.due_at()),
                lease.attempts,
                lease.renewable,
                row::belt_names(&lease.belts).join(" "),
                lease.plan.0.to_string(),
                lease.on_behalf_of.as_ref().map(|person| person.principal.as_str()),
                lease.on_behalf_of.as_ref().and_then(|person| person.name.as_deref()),
            ],
        )
        .map(drop)
    }

    async fn update_leases(&mut self, leases: &[Lease]) -> Result<Vec<LeaseId>, StoreError> {
        let mut lost = Vec::new();
        for lease in leases {
            if !self.update_lease(lease)? {
                lost.push(lease.id);
            }
        }
        Ok(lost)
    }

    async fn key(
        &mut self,
        task: TaskId,
        key: &str,
    ) -> Result<Option<([u8; 32], LeaseId)>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT request, lease FROM idempotency_keys WHERE task = ?1 AND key = ?2",
            )
            .map_err(StoreError::unavailable)?;
        let found: Option<([u8; 32], [u8; 16])> = statement
            .query_row(params![task.uuid().as_bytes(), key], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(StoreError::unavailable)?;
        let lease = |bytes| LeaseId::from_uuid(Uuid::from_bytes(bytes));
        Ok(found.map(|(request, bytes)| (request, lease(bytes))))
    }

    async fn set_key(
        &mut self,
        task: TaskId,
        key: &IdempotencyKey,
        seen: Option<LeaseId>,
        lease: LeaseId,
    ) -> Result<bool, StoreError> {
        let written = self.execute(
            "INSERT INTO idempotency_keys AS k (task, key, request, lease)
             VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (task, key) DO UPDATE SET request = ?3, lease = ?4 WHERE k.lease = ?5",
            params![
                task.uuid().as_bytes(),
                key.key,
                key.request,
                lease.uuid().as_bytes(),
                seen.map(|id| *id.uuid().as_bytes()),
            ],
        )?;
        Ok(written == 1)
    }

    async fn standing(&mut self) -> Result<Standing, StoreError> {
        read::standing(self.connection)
    }

    async fn set_standing(&mut self, standing: &Standing) -> Result<(), StoreError> {
        let suspended = standing.suspended.as_ref();
        self.execute(
            "UPDATE installation SET suspended_at = ?1, suspended_reason = ?2, hold_from = ?3,
                hold_to = ?4, hold_until = ?5",
            params![
                micros(suspended.map(|suspended| suspended.since)),
                suspended.map(|suspended| suspended.reason.as_str()),
                micros(standing.hold.map(|hold| hold.from)),
                micros(standing.hold.map(|hold| hold.to)),
                micros(standing.hold.map(|hold| hold.until)),
            ],
        )
        .map(drop)
    }

    async fn turned_away(&mut self) -> Result<Option<Timestamp>, StoreError> {
        read::turned_away(self.connection)
    }

    async fn set_turned_away(&mut self) -> Result<(), StoreError> {
        let sql = "UPDATE installation SET turned_away_at = ?1";
        self.execute(sql, params![self.now.micros()]).map(drop)
    }

    async fn turn(&mut self, backend: &str) -> Result<(u64, Option<Timestamp>), StoreError> {
        read::turn(self.connection, backend)
    }

    async fn set_turn(&mut self, backend: &str, turn: u64) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO sweeps (backend, turn, began_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (backend) DO UPDATE SET turn = ?2, began_at = ?3",
            params![backend, turn.cast_signed(), self.now.micros()],
        )
        .map(drop)
    }

    async fn root(&mut self, backend: &str) -> Result<Option<Root>, StoreError> {
        read::root(self.connection, backend)
    }

    async fn set_root(&mut self, root: &Root) -> Result<bool, StoreError> {
        let staged = root.staged.as_ref();
        let written = self.execute(
            "INSERT INTO roots AS r (backend, epoch, current, staged, staged_at, rotated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (backend) DO UPDATE SET epoch = ?2, current = ?3, staged = ?4,
                staged_at = ?5, rotated_at = ?6
             WHERE r.epoch = ?2 - 1",
            params![
                root.backend,
                root.epoch,
                root.current.as_ref().map(Sealed::as_bytes),
                staged.map(|(next, _)| next.as_bytes()),
                staged.map(|(_, at)| at.micros()),
                micros(root.rotated_at),
            ],
        )?;
        Ok(written == 1)
    }

    async fn prune(&mut self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let before = before.micros();
        let leases = self.execute(
            "DELETE FROM leases WHERE id IN (SELECT id FROM leases
             WHERE revoked_at < ?1 AND state IN ('revoked', 'abandoned') LIMIT ?2)",
            params![before, limit],
        )?;
        let ended = "SELECT id FROM tasks WHERE closed_at < ?1
             AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.task = tasks.id)
             ORDER BY id LIMIT ?2";
        let keys = format!("DELETE FROM idempotency_keys WHERE task IN ({ended})");
        self.execute(&keys, params![before, limit])?;
        let tasks = format!("DELETE FROM tasks WHERE id IN ({ended})");
        let tasks = self.execute(&tasks, params![before, limit])?;
        Ok((leases + tasks) as u64)
    }

    fn append(&mut self, entry: Entry) -> Decision {
        let record = self.chain.seal(entry, self.now);
        let decision = Decision { chain: record.chain, seq: record.seq };
        self.records.push(record);
        decision
    }
}
