//! A PostgreSQL transaction as the engine's rules see it.
//!
//! Invariant: within one change, rows are locked in the order task, then leases; the jobs of a
//! whole group before any row. A group of changes may still meet another replica's group the
//! other way round; PostgreSQL then ends one of the two, whose changes are made again one by one.

use std::time::Duration;

use async_trait::async_trait;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{
    Abandonment, Binding, Decision, Disabled, FirstKey, IdempotencyKey, JobEnd, JobKey, Lease,
    LeaseId, Replay, ReplicaId, Root, Spared, Standing, StoreError, Task, TaskEnd, TaskId,
    audit::{Chain, Entry, Head, Record},
    quota::{Counted, Tally},
    transact::{OpenTasks, Share, Tx},
};
use sqlx::{PgConnection, types::time::OffsetDateTime};
use uuid::Uuid;

use super::{count, identity, job, query_leases, query_tasks, root, unavailable};
use crate::row::{self, LeaseRow};

pub(super) struct PostgresTx<'a> {
    pub(super) connection: &'a mut PgConnection,
    pub(super) now: Timestamp,
    pub(super) chain: Chain,
    pub(super) records: Vec<Record>,
    /// As it was when the transaction began, and as it has changed it since.
    pub(super) standing: Standing,
    /// What the server is recognised by, if it tells.
    pub(super) server: Option<String>,
}

impl PostgresTx<'_> {
    /// Writes the records of this transaction and moves the chain's head on; false if the
    /// head is not at `before` any more.
    pub(super) async fn flush(&mut self, before: Head) -> Result<bool, sqlx::Error> {
        if self.records.is_empty() {
            return Ok(true);
        }
        let head = self.chain.head();
        // The head moves only from where this replica believes it to be: a second process
        // with the same chain stops here instead of forking it.
        let moved = sqlx::query!(
            "UPDATE audit_chains SET seq = $2, hash = $3
             WHERE chain = $1 AND seq = $4 AND hash = $5",
            head.chain.uuid(),
            head.seq.cast_signed(),
            head.hash.as_slice(),
            before.seq.cast_signed(),
            before.hash.as_slice(),
        )
        .execute(&mut *self.connection)
        .await?;
        if moved.rows_affected() != 1 {
            return Ok(false);
        }
        let records = std::mem::take(&mut self.records);
        let seqs: Vec<i64> = records.iter().map(|r| r.seq.cast_signed()).collect();
        let ats: Vec<OffsetDateTime> = records.iter().map(|r| r.at.offset()).collect();
        let events: Vec<String> = records.iter().map(|r| r.event.clone()).collect();
        let actors: Vec<String> = records.iter().map(|r| r.actor.clone()).collect();
        let tasks: Vec<Option<Uuid>> = records.iter().map(|r| r.task.map(TaskId::uuid)).collect();
        let leases: Vec<Option<Uuid>> =
            records.iter().map(|r| r.lease.map(LeaseId::uuid)).collect();
        let details: Vec<String> = records.iter().map(|r| r.detail.clone()).collect();
        let prevs: Vec<Vec<u8>> = records.iter().map(|r| r.prev.to_vec()).collect();
        let hashes: Vec<Vec<u8>> = records.iter().map(|r| r.hash.to_vec()).collect();
        let signatures: Vec<Option<Vec<u8>>> =
            records.iter().map(|r| r.signature.clone()).collect();
        sqlx::query!(
            "INSERT INTO audit_records
                (chain, seq, at, event, actor, task, lease, detail, prev, hash, signature)
             SELECT $1, * FROM UNNEST($2::bigint[], $3::timestamptz[], $4::text[], $5::text[],
                $6::uuid[], $7::uuid[], $8::text[], $9::bytea[], $10::bytea[], $11::bytea[])",
            before.chain.uuid(),
            &seqs,
            &ats,
            &events,
            &actors,
            &tasks as &[Option<Uuid>],
            &leases as &[Option<Uuid>],
            &details,
            &prevs,
            &hashes,
            &signatures as &[Option<Vec<u8>>],
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(true)
    }

    /// The lease of each row. One that cannot be read is put aside and reported, so that it
    /// stops nobody (I12).
    async fn readable(&mut self, rows: Vec<LeaseRow>) -> Result<Vec<Lease>, StoreError> {
        let mut leases = Vec::with_capacity(rows.len());
        for row in rows {
            let id = row.id;
            match Lease::try_from(row) {
                Ok(lease) => leases.push(lease),
                Err(error) => {
                    tracing::error!(lease.id = %LeaseId::from_uuid(id), %error, "lease.quarantined");
                    sqlx::query!(
                        "UPDATE leases SET quarantined = $2 WHERE id = $1",
                        id,
                        error.to_string()
                    )
                    .execute(&mut *self.connection)
                    .await
                    .map_err(unavailable)?;
                }
            }
        }
        Ok(leases)
    }
}

/// The interval that the brake holds, and the instant after which what expires in it is still
/// held; without a hold, an interval of nothing.
fn held(spared: Spared, now: Timestamp) -> [OffsetDateTime; 3] {
    spared.hold.map_or([OffsetDateTime::UNIX_EPOCH; 3], |hold| {
        [hold.from.offset(), hold.to.offset(), now.minus(hold.jump()).offset()]
    })
}

fn uuids(ids: &[LeaseId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.uuid()).collect()
}

#[async_trait]
impl Tx for PostgresTx<'_> {
    fn now(&self) -> Timestamp {
        self.now
    }

    async fn task(&mut self, id: TaskId, exclusive: bool) -> Result<Option<Task>, StoreError> {
        // SHARE lets intents of one task go on side by side and makes its completion wait.
        let row = if exclusive {
            query_tasks!("WHERE id = $1 FOR UPDATE", id.uuid())
                .fetch_optional(&mut *self.connection)
                .await
        } else {
            query_tasks!("WHERE id = $1 FOR SHARE", id.uuid())
                .fetch_optional(&mut *self.connection)
                .await
        };
        row.map_err(unavailable)?.map(Task::try_from).transpose()
    }

    async fn due_tasks(
        &mut self,
        limit: u32,
        spared: Spared,
        heard: Duration,
    ) -> Result<Vec<Task>, StoreError> {
        let [from, to, now_less_jump] = held(spared, self.now);
        // LEAST passes over a NULL, and is what the index is on. SKIP LOCKED: replicas that look
        // at the same time take different tasks.
        let rows = query_tasks!(
            "WHERE ended IS NULL AND LEAST(expires_at, lost_at) <= $1
               AND ((expires_at <= $1
                   AND NOT (expires_at > $3 AND expires_at <= $4 AND expires_at > $5))
                 OR (lost_at <= $1 AND heartbeat <= $6))
             ORDER BY LEAST(expires_at, lost_at) LIMIT $2 FOR UPDATE SKIP LOCKED",
            self.now.offset(),
            i64::from(limit),
            from,
            to,
            now_less_jump,
            row::in_micros(heard),
        )
        .fetch_all(&mut *self.connection)
        .await
        .map_err(unavailable)?;
        Ok(row::readable_tasks(rows))
    }

    async fn insert_task(&mut self, task: &Task) -> Result<(), StoreError> {
        let bound_to = task.binding.map(Binding::hash);
        sqlx::query!(
            "INSERT INTO tasks (id, principal, issuer, identity, purpose, token_hash, opened_at,
                expires_at, heartbeat, lost_at, run, job, bound_by, bound_to, on_behalf_of,
                on_behalf_name)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
            task.id.uuid(),
            task.principal,
            task.issuer,
            task.identity,
            task.purpose,
            task.token_hash.as_slice(),
            task.opened_at.offset(),
            task.expires_at.offset(),
            task.heartbeat.map(|heartbeat| row::in_micros(heartbeat.every)),
            task.heartbeat.map(|heartbeat| heartbeat.lost_at.offset()),
            task.keys.run.as_ref().map(JobKey::as_str),
            task.keys.job.as_ref().map(JobKey::as_str),
            task.binding.map(Binding::as_str),
            bound_to.as_ref().map(<[u8; 32]>::as_slice),
            task.on_behalf_of.as_ref().map(|person| person.principal.as_str()),
            task.on_behalf_of.as_ref().and_then(|person| person.name.as_deref()),
        )
        .execute(&mut *self.connection)
        .await
        .map_err(unavailable)?;
        Ok(())
    }

    async fn update_task(&mut self, task: &Task) -> Result<(), StoreError> {
        let (ended, closed_at) = row::task_end(task);
        let written = sqlx::query!(
            "UPDATE tasks SET expires_at = $2, ended = $3, closed_at = $4, lost_at = $5
             WHERE id = $1",
            task.id.uuid(),
            task.expires_at.offset(),
            ended,
            closed_at.map(Timestamp::offset),
            task.heartbeat.map(|heartbeat| heartbeat.lost_at.offset()),
        )
        .execute(&mut *self.connection)
        .await
        .map_err(unavailable)?;
        match written.rows_affected() {
            1 => Ok(()),
            _ => Err(StoreError::Corrupt { what: format!("task {}", task.id) }),
        }
    }

    async fn ended_job(&mut self, key: &JobKey) -> Result<Option<TaskEnd>, StoreError> {
        job::ended(self.connection, key, self.now).await
    }

    async fn remember_job(&mut self, ended: &JobEnd) -> Result<u64, StoreError> {
        job::remember(self.connection, ended, self.now).await
    }

    async fn tasks_of_job(
        &mut self,
        key: &JobKey,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<OpenTasks, StoreError> {
        job::tasks(self.connection, key, after, limit).await
    }

    async fn disabled(
        &mut self,
        principal: &str,
        exclusive: bool,
    ) -> Result<Option<Disabled>, StoreError> {
        identity::lock(self.connection, principal, exclusive).await?;
        identity::disabled(self.connection, principal, self.now).await
    }

    async fn set_disabled(&mut self, disabled: &Disabled) -> Result<(), StoreError> {
        identity::set(self.connection, disabled).await
    }

    async fn enable(&mut self, principal: &str) -> Result<(), StoreError> {
        identity::enable(self.connection, principal).await
    }

    async fn ending(&mut self) -> Result<Option<String>, StoreError> {
        identity::ending(self.connection, self.now).await
    }

    async fn tasks_of_principal(
        &mut self,
        principal: &str,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<OpenTasks, StoreError> {
        identity::tasks(self.connection, principal, after, limit).await
    }

    async fn remember(&mut self, replays: &[Replay]) -> Result<Option<usize>, StoreError> {
        for (nth, replay) in replays.iter().enumerate() {
            // Waits for whoever remembers the same at another replica.
            let written = sqlx::query!(
                "INSERT INTO replayed (key, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                replay.key,
                replay.expires_at.offset(),
            )
            .execute(&mut *self.connection)
            .await
            .map_err(unavailable)?;
            if written.rows_affected() == 0 {
                self.forget(replays.get(..nth).unwrap_or_default()).await?;
                return Ok(Some(nth));
            }
        }
        Ok(None)
    }

    async fn forget(&mut self, replays: &[Replay]) -> Result<(), StoreError> {
        for replay in replays {
            sqlx::query!("DELETE FROM replayed WHERE key = $1", replay.key)
                .execute(&mut *self.connection)
                .await
                .map_err(unavailable)?;
        }
        Ok(())
    }

    async fn first_key(&mut self, first: &FirstKey) -> Result<Option<[u8; 32]>, StoreError> {
        if let Some(key) = &first.key {
            // Waits for whoever binds the same token at another replica, and then changes nothing.
            sqlx::query!(
                "INSERT INTO replayed (key, expires_at, bound_to) VALUES ($1, $2, $3)
                 ON CONFLICT DO NOTHING",
                first.token,
                first.expires_at.offset(),
                key.as_slice(),
            )
            .execute(&mut *self.connection)
            .await
            .map_err(unavailable)?;
        }
        let found =
            sqlx::query_scalar!("SELECT bound_to FROM replayed WHERE key = $1", first.token)
                .fetch_optional(&mut *self.connection)
                .await
                .map_err(unavailable)?;
        let Some(bound) = found.flatten() else { return Ok(None) };
        let unreadable = || StoreError::Corrupt { what: format!("binding of {}", first.token) };
        row::hash(&bound).map(Some).ok_or_else(unreadable)
    }

    async fn lease_task(&mut self, id: LeaseId) -> Result<Option<TaskId>, StoreError> {
        let task = sqlx::query_scalar!("SELECT task FROM leases WHERE id = $1", id.uuid())
            .fetch_optional(&mut *self.connection)
            .await
            .map_err(unavailable)?;
        Ok(task.map(TaskId::from_uuid))
    }

    async fn lease(&mut self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        query_leases!("WHERE id = $1 FOR UPDATE", id.uuid())
            .fetch_optional(&mut *self.connection)
            .await
            .map_err(unavailable)?
            .map(Lease::try_from)
            .transpose()
    }

    async fn leases(&mut self, ids: &[LeaseId]) -> Result<Vec<Lease>, StoreError> {
        let rows = query_leases!("WHERE id = ANY($1) ORDER BY id FOR UPDATE", &uuids(ids))
            .fetch_all(&mut *self.connection)
            .await
            .map_err(unavailable)?;
        self.readable(rows).await
    }

    async fn leases_of(&mut self, task: TaskId) -> Result<Vec<Lease>, StoreError> {
        let rows = query_leases!(
            "WHERE task = $1 AND state IN ('pending', 'active', 'revoking')
             ORDER BY id FOR UPDATE",
            task.uuid()
        )
        .fetch_all(&mut *self.connection)
        .await
        .map_err(unavailable)?;
        self.readable(rows).await
    }

    async fn due_leases(
        &mut self,
        backend: &str,
        limit: u32,
        spared: Spared,
    ) -> Result<Vec<Lease>, StoreError> {
        let [from, to, now_less_jump] = held(spared, self.now);
        let rows = query_leases!(
            "WHERE backend = $1 AND due_at <= $2 AND quarantined IS NULL
               AND (state = 'revoking' OR NOT $4)
               AND NOT (state = 'active' AND delivered_at IS NOT NULL AND expires_at > $5
                 AND expires_at <= $6 AND expires_at > $7)
             ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED",
            backend,
            self.now.offset(),
            i64::from(limit),
            spared.unless_told,
            from,
            to,
            now_less_jump,
        )
        .fetch_all(&mut *self.connection)
        .await
        .map_err(unavailable)?;
        self.readable(rows).await
    }

    async fn claimed_by(&mut self, owner: ReplicaId, limit: u32) -> Result<Vec<Lease>, StoreError> {
        let rows = query_leases!(
            "WHERE claim_owner = $1 ORDER BY id LIMIT $2 FOR UPDATE",
            owner.uuid(),
            i64::from(limit),
        )
        .fetch_all(&mut *self.connection)
        .await
        .map_err(unavailable)?;
        self.readable(rows).await
    }

    async fn expiring(&mut self, from: Timestamp, to: Timestamp) -> Result<Share, StoreError> {
        let counted = sqlx::query!(
            r#"SELECT count(*) FILTER (WHERE expires_at > $1 AND expires_at <= $2) AS "part!",
                count(*) AS "whole!" FROM leases WHERE state = 'active'"#,
            from.offset(),
            to.offset(),
        )
        .fetch_one(&mut *self.connection)
        .await
        .map_err(unavailable)?;
        let (part, whole) = (counted.part.cast_unsigned(), counted.whole.cast_unsigned());
        Ok(Share { part, whole })
    }

    async fn count(&mut self, counted: &Counted<'_>, most: u32) -> Result<Tally, StoreError> {
        let found = count::count(self.connection, counted, i64::from(most)).await;
        let (count, oldest) = found.map_err(unavailable)?;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Ok(Tally { count, oldest: oldest.map(Timestamp::from) })
    }

    async fn insert_lease(&mut self, lease: &Lease) -> Result<(), StoreError> {
        let at = |at: Option<Timestamp>| at.map(Timestamp::offset);
        let state = row::state_columns(lease);
        sqlx::query!(
            "INSERT INTO leases (id, task, principal, issuer, role, backend, handle,
                decision_chain, decision_seq, epoch, state, issued_at, expires_at, max_expires_at,
                native_expires_at, mint_deadline, settle_at, due_at, attempts, renewable, belts,
                plan, on_behalf_of, on_behalf_name)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                $18, $19, $20, $21, $22, $23, $24)",
            lease.id.uuid(),
            lease.task.uuid(),
            lease.principal,
            lease.issuer,
            lease.role,
            lease.backend,
            lease.handle.as_str(),
            lease.decision.chain.uuid(),
            lease.decision.seq.cast_signed(),
            lease.epoch,
            state.state,
            lease.issued_at.offset(),
            lease.expires_at.offset(),
            lease.max_expires_at.offset(),
            at(lease.native_expires_at),
            lease.mint_deadline.offset(),
            at(lease.settle_at),
            at(lease.due_at()),
            lease.attempts.cast_signed(),
            lease.renewable,
            &row::belt_names(&lease.belts),
            lease.plan.0,
            lease.on_behalf_of.as_ref().map(|person| person.principal.as_str()),
            lease.on_behalf_of.as_ref().and_then(|person| person.name.as_deref()),
        )
        .execute(&mut *self.connection)
        .await
        .map_err(unavailable)?;
        Ok(())
    }

    async fn update_leases(&mut self, leases: &[Lease]) -> Result<Vec<LeaseId>, StoreError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let written = update(self.connection, leases).await.map_err(unavailable)?;
        let lost = |lease: &&Lease| !written.contains(&lease.id.uuid());
        Ok(leases.iter().filter(lost).map(|lease| lease.id).collect())
    }

    async fn key(
        &mut self,
        task: TaskId,
        key: &str,
    ) -> Result<Option<([u8; 32], LeaseId)>, StoreError> {
        let found = sqlx::query!(
            "SELECT request, lease FROM idempotency_keys WHERE task = $1 AND key = $2 FOR UPDATE",
            task.uuid(),
            key,
        )
        .fetch_optional(&mut *self.connection)
        .await
        .map_err(unavailable)?;
        let Some(found) = found else { return Ok(None) };
        let request = row::hash(&found.request)
            .ok_or_else(|| StoreError::Corrupt { what: format!("idempotency key of {task}") })?;
        Ok(Some((request, LeaseId::from_uuid(found.lease))))
    }

    async fn set_key(
        &mut self,
        task: TaskId,
        key: &IdempotencyKey,
        seen: Option<LeaseId>,
        lease: LeaseId,
    ) -> Result<bool, StoreError> {
        // ON CONFLICT waits for another replica's insert of the same key, and then writes only
        // over what this transaction has seen.
        let written = sqlx::query!(
            "INSERT INTO idempotency_keys AS k (task, key, request, lease)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (task, key) DO UPDATE SET request = $3, lease = $4 WHERE k.lease = $5",
            task.uuid(),
            key.key,
            key.request.as_slice(),
            lease.uuid(),
            seen.map(LeaseId::uuid),
        )
        .execute(&mut *self.connection)
        .await
        .map_err(unavailable)?;
        Ok(written.rows_affected() == 1)
    }

    async fn standing(&mut self) -> Result<Standing, StoreError> {
        Ok(self.standing.clone())
    }

    async fn set_standing(&mut self, standing: &Standing) -> Result<(), StoreError> {
        let suspended = standing.suspended.as_ref();
        let at = |at: Option<Timestamp>| at.map(Timestamp::offset);
        // While it is suspended the server is not accepted; when it is resumed, it is.
        let accepted = self.server.as_deref().filter(|_| suspended.is_none());
        sqlx::query!(
            "UPDATE installation SET suspended_at = $1, suspended_reason = $2, hold_from = $3,
                hold_to = $4, hold_until = $5, server = COALESCE($6, server)",
            at(suspended.map(|suspended| suspended.since)),
            suspended.map(|suspended| suspended.reason.as_str()),
            at(standing.hold.map(|hold| hold.from)),
            at(standing.hold.map(|hold| hold.to)),
            at(standing.hold.map(|hold| hold.until)),
            accepted,
        )
        .execute(&mut *self.connection)
        .await
        .map_err(unavailable)?;
        self.standing = standing.clone();
        Ok(())
    }

    async fn turned_away(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let at = sqlx::query_scalar!("SELECT turned_away_at FROM installation")
            .fetch_one(&mut *self.connection)
            .await
            .map_err(unavailable)?;
        Ok(at.map(Timestamp::from))
    }

    async fn set_turned_away(&mut self) -> Result<(), StoreError> {
        sqlx::query!("UPDATE installation SET turned_away_at = $1", self.now.offset())
            .execute(&mut *self.connection)
            .await
            .map_err(unavailable)?;
        Ok(())
    }

    async fn turn(&mut self, backend: &str) -> Result<(u64, Option<Timestamp>), StoreError> {
        let found = sqlx::query!(
            "SELECT turn, began_at FROM sweeps WHERE backend = $1 FOR UPDATE",
            backend
        )
        .fetch_optional(&mut *self.connection)
        .await
        .map_err(unavailable)?;
        Ok(found.map_or((0, None), |row| (row.turn.cast_unsigned(), Some(row.began_at.into()))))
    }

    async fn set_turn(&mut self, backend: &str, turn: u64) -> Result<(), StoreError> {
        // Two replicas may both have found no row: the greater turn stands.
        sqlx::query!(
            "INSERT INTO sweeps AS s (backend, turn, began_at) VALUES ($1, $2, $3)
             ON CONFLICT (backend) DO UPDATE SET turn = GREATEST(s.turn, $2), began_at = $3",
            backend,
            turn.cast_signed(),
            self.now.offset(),
        )
        .execute(&mut *self.connection)
        .await
        .map_err(unavailable)?;
        Ok(())
    }

    async fn root(&mut self, backend: &str) -> Result<Option<Root>, StoreError> {
        root::read(self.connection, backend, true).await
    }

    async fn set_root(&mut self, root: &Root) -> Result<bool, StoreError> {
        root::write(self.connection, root).await
    }

    async fn prune(&mut self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let (before, limit) = (before.offset(), i64::from(limit));
        let leases = sqlx::query!(
            "DELETE FROM leases WHERE id IN (SELECT id FROM leases
             WHERE revoked_at < $1 AND state IN ('revoked', 'abandoned') LIMIT $2)",
            before,
            limit,
        )
        .execute(&mut *self.connection)
        .await
        .map_err(unavailable)?;
        let tasks = sqlx::query_scalar!(
            "SELECT id FROM tasks WHERE closed_at < $1
             AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.task = tasks.id)
             LIMIT $2 FOR UPDATE SKIP LOCKED",
            before,
            limit,
        )
        .fetch_all(&mut *self.connection)
        .await
        .map_err(unavailable)?;
        sqlx::query!("DELETE FROM idempotency_keys WHERE task = ANY($1)", &tasks)
            .execute(&mut *self.connection)
            .await
            .map_err(unavailable)?;
        sqlx::query!("DELETE FROM tasks WHERE id = ANY($1)", &tasks)
            .execute(&mut *self.connection)
            .await
            .map_err(unavailable)?;
        Ok(leases.rows_affected() + tasks.len() as u64)
    }

    fn append(&mut self, entry: Entry) -> Decision {
        let record = self.chain.seal(entry, self.now);
        let decision = Decision { chain: record.chain, seq: record.seq };
        self.records.push(record);
        decision
    }
}

/// Compare and set of many rows in one round trip; answers with those that were written.
async fn update(connection: &mut PgConnection, leases: &[Lease]) -> Result<Vec<Uuid>, sqlx::Error> {
    type At = Option<OffsetDateTime>;
    let at = |of: fn(&Lease) -> Option<Timestamp>| -> Vec<At> {
        leases.iter().map(|lease| of(lease).map(Timestamp::offset)).collect()
    };
    let wishes = |of: fn(&Abandonment) -> String| -> Vec<Option<String>> {
        leases.iter().map(|lease| lease.abandonment.as_ref().map(of)).collect()
    };
    let ids: Vec<Uuid> = leases.iter().map(|l| l.id.uuid()).collect();
    let epochs: Vec<i64> = leases.iter().map(|l| l.epoch).collect();
    let states: Vec<String> = leases.iter().map(|l| l.state.as_str().to_owned()).collect();
    let expires: Vec<OffsetDateTime> = leases.iter().map(|l| l.expires_at.offset()).collect();
    let causes: Vec<Option<String>> =
        leases.iter().map(|lease| row::state_columns(lease).cause.map(str::to_owned)).collect();
    let attempts: Vec<i32> = leases.iter().map(|l| l.attempts.cast_signed()).collect();
    let errors: Vec<Option<String>> = leases.iter().map(|l| l.error_class.clone()).collect();
    let owners: Vec<Option<Uuid>> =
        leases.iter().map(|l| l.claim.map(|claim| claim.owner.uuid())).collect();
    let kept: Vec<Option<Vec<u8>>> =
        leases.iter().map(|l| l.kept.as_ref().map(|kept| kept.as_bytes().to_vec())).collect();
    sqlx::query_scalar!(
        r#"UPDATE leases SET
            epoch = new.epoch, state = new.state, expires_at = new.expires_at,
            native_expires_at = new.native_expires_at, settle_at = new.settle_at,
            activated_at = new.activated_at, delivered_at = new.delivered_at, cause = new.cause,
            revoking_at = COALESCE(leases.revoking_at, new.revoking_at),
            revoked_at = new.revoked_at, due_at = new.due_at,
            next_attempt_at = new.next_attempt_at, attempts = new.attempts,
            error_class = new.error_class, claim_owner = new.claim_owner,
            claim_since = new.claim_since, claim_until = new.claim_until,
            abandon_by = new.abandon_by, abandon_reason = new.abandon_reason,
            abandon_at = new.abandon_at, kept = new.kept
         FROM UNNEST($1::uuid[], $2::bigint[], $3::text[], $4::timestamptz[], $5::timestamptz[],
            $6::timestamptz[], $7::timestamptz[], $8::timestamptz[], $9::text[],
            $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[],
            $14::integer[], $15::text[], $16::uuid[], $17::timestamptz[], $18::timestamptz[],
            $19::text[], $20::text[], $21::timestamptz[], $22::bytea[])
            AS new(id, epoch, state, expires_at, native_expires_at, settle_at, activated_at,
                delivered_at, cause, revoking_at, revoked_at, due_at, next_attempt_at, attempts,
                error_class, claim_owner, claim_since, claim_until, abandon_by, abandon_reason,
                abandon_at, kept)
         WHERE leases.id = new.id AND leases.epoch = new.epoch - 1
         RETURNING leases.id AS "id!""#,
        &ids,
        &epochs,
        &states,
        &expires,
        &at(|l| l.native_expires_at) as &[At],
        &at(|l| l.settle_at) as &[At],
        &at(|l| l.activated_at) as &[At],
        &at(|l| l.delivered_at) as &[At],
        &causes as &[Option<String>],
        &at(|l| row::state_columns(l).revoking_at) as &[At],
        &at(|l| row::state_columns(l).revoked_at) as &[At],
        &at(Lease::due_at) as &[At],
        &at(|l| l.next_attempt_at) as &[At],
        &attempts,
        &errors as &[Option<String>],
        &owners as &[Option<Uuid>],
        &at(|l| l.claim.map(|claim| claim.since)) as &[At],
        &at(|l| l.claim.map(|claim| claim.until)) as &[At],
        &wishes(|wish| wish.by.clone()) as &[Option<String>],
        &wishes(|wish| wish.reason.clone()) as &[Option<String>],
        &at(|l| l.abandonment.as_ref().map(|wish| wish.at)) as &[At],
        &kept as &[Option<Vec<u8>>],
    )
    .fetch_all(connection)
    .await
}
