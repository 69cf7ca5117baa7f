//! What is read without a transaction: single rows, pages, API keys.
//!
//! Invariant: reads go to the primary. A replica of it may not have the last commits yet.

use std::time::Duration;

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{
    Counts, Disabled, Lease, LeaseId, ReplicaId, Root, Sighting, Standing, StoreError, Task,
    TaskId,
    audit::{Head, Record},
};
use uuid::Uuid;

use super::{
    PostgresStore, query_disabled, query_leases, query_records, query_tasks, root, unavailable,
};
use crate::{ApiKey, ApiKeyAdded, AuditFilter, LeaseFilter, Living, Page, TaskFilter, row};

fn collect<R, T>(rows: Vec<R>) -> Result<Vec<T>, StoreError>
where
    T: TryFrom<R, Error = StoreError>,
{
    rows.into_iter().map(T::try_from).collect()
}

fn seconds(seconds: Option<f64>) -> Option<Duration> {
    seconds.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

impl PostgresStore {
    pub(super) async fn read_now(&self) -> Result<Timestamp, StoreError> {
        let now = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#)
            .fetch_one(&self.reads)
            .await
            .map_err(unavailable)?;
        Ok(now.into())
    }

    pub(super) async fn read_lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        let row = query_leases!("WHERE id = $1", id.uuid()).fetch_optional(&self.reads).await;
        row.map_err(unavailable)?.map(Lease::try_from).transpose()
    }

    pub(super) async fn read_task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        let row = query_tasks!("WHERE id = $1", id.uuid()).fetch_optional(&self.reads).await;
        row.map_err(unavailable)?.map(Task::try_from).transpose()
    }

    pub(super) async fn read_task_by_token(
        &self,
        hash: [u8; 32],
    ) -> Result<Option<Task>, StoreError> {
        let row = query_tasks!("WHERE token_hash = $1", hash.as_slice())
            .fetch_optional(&self.reads)
            .await;
        row.map_err(unavailable)?.map(Task::try_from).transpose()
    }

    pub(super) async fn read_counts(&self, task: TaskId) -> Result<Counts, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT state, count(*) AS "count!", COALESCE(error_class = $2, false) AS "lingers!",
                max(native_expires_at) AS until
             FROM leases WHERE task = $1 GROUP BY state, 3"#,
            task.uuid(),
            Lease::LINGERS,
        )
        .fetch_all(&self.reads)
        .await
        .map_err(unavailable)?;
        let mut counts = Counts::default();
        for row in rows {
            let count = row.count.cast_unsigned();
            match row.state.as_str() {
                "pending" => counts.pending += count,
                "active" => counts.active += count,
                "revoked" => counts.revoked += count,
                "abandoned" => counts.abandoned += count,
                "revoking" if row.lingers => {
                    counts.revoking += count;
                    counts.lingering = count;
                    counts.residual_until = row.until.map(Timestamp::from);
                }
                // Whatever cannot be read may be alive.
                _ => counts.revoking += count,
            }
        }
        Ok(counts)
    }

    pub(super) async fn read_next_due(
        &self,
        backend: &str,
    ) -> Result<Option<Duration>, StoreError> {
        let left = sqlx::query_scalar!(
            "SELECT extract(epoch FROM due_at - clock_timestamp())::float8 FROM leases
             WHERE backend = $1 AND due_at IS NOT NULL AND quarantined IS NULL
             ORDER BY due_at LIMIT 1",
            backend
        )
        .fetch_optional(&self.reads)
        .await
        .map_err(unavailable)?;
        Ok(seconds(left.flatten()))
    }

    pub(super) async fn read_next_task_due(&self) -> Result<Option<Duration>, StoreError> {
        let left = sqlx::query_scalar!(
            "SELECT extract(epoch FROM LEAST(expires_at, lost_at) - clock_timestamp())::float8
             FROM tasks WHERE ended IS NULL ORDER BY LEAST(expires_at, lost_at) LIMIT 1"
        )
        .fetch_optional(&self.reads)
        .await
        .map_err(unavailable)?;
        Ok(seconds(left.flatten()))
    }

    pub(crate) async fn read_installation(&self) -> Result<Uuid, StoreError> {
        sqlx::query_scalar!("SELECT id FROM installation")
            .fetch_one(&self.reads)
            .await
            .map_err(unavailable)
    }

    pub(super) async fn read_standing(&self) -> Result<Standing, StoreError> {
        let row = sqlx::query!(
            "SELECT suspended_at, suspended_reason, hold_from, hold_to, hold_until
             FROM installation"
        )
        .fetch_one(&self.reads)
        .await
        .map_err(unavailable)?;
        let hold = [row.hold_from.into(), row.hold_to.into(), row.hold_until.into()];
        Ok(row::standing(row.suspended_at.into(), row.suspended_reason, hold))
    }

    pub(super) async fn read_root(&self, backend: &str) -> Result<Option<Root>, StoreError> {
        let mut connection = self.reads.acquire().await.map_err(unavailable)?;
        root::read(&mut connection, backend, false).await
    }

    pub(super) async fn read_turn(&self, backend: &str) -> Result<u64, StoreError> {
        let turn = sqlx::query_scalar!("SELECT turn FROM sweeps WHERE backend = $1", backend)
            .fetch_optional(&self.reads)
            .await
            .map_err(unavailable)?;
        Ok(turn.map_or(0, i64::cast_unsigned))
    }

    pub(super) async fn read_sightings(
        &self,
        ids: &[LeaseId],
    ) -> Result<Vec<Sighting>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        let rows = sqlx::query!("SELECT id, backend, state FROM leases WHERE id = ANY($1)", &ids)
            .fetch_all(&self.reads)
            .await
            .map_err(unavailable)?;
        let sighting = |(id, backend, state): (Uuid, String, String)| Sighting {
            lease: LeaseId::from_uuid(id),
            backend,
            may_live: row::may_live(&state),
        };
        Ok(rows.into_iter().map(|row| sighting((row.id, row.backend, row.state))).collect())
    }

    pub(super) async fn read_living_of(
        &self,
        backend: &str,
        after: Option<LeaseId>,
        limit: u32,
    ) -> Result<Vec<Lease>, StoreError> {
        query_leases!(
            "WHERE backend = $1 AND id > $2 AND state IN ('pending', 'active', 'revoking')
             ORDER BY id LIMIT $3",
            backend,
            after.map_or(Uuid::nil(), LeaseId::uuid),
            i64::from(limit),
        )
        .fetch_all(&self.reads)
        .await
        .map_err(unavailable)?
        .into_iter()
        .map(Lease::try_from)
        .collect()
    }

    pub(crate) async fn leases(&self, filter: &LeaseFilter) -> Result<Page<Lease>, StoreError> {
        let rows = query_leases!(
            "WHERE ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR role = $2)
               AND ($3::text IS NULL OR backend = $3) AND ($4::uuid IS NULL OR task = $4)
               AND ($5::text IS NULL OR principal = $5) AND ($6::text IS NULL OR issuer = $6)
               AND ($7::timestamptz IS NULL OR expires_at < $7)
               AND ($8::uuid IS NULL OR id < $8)
             ORDER BY id DESC LIMIT $9",
            filter.state.as_deref(),
            filter.role.as_deref(),
            filter.backend.as_deref(),
            filter.task.map(TaskId::uuid),
            filter.principal.as_deref(),
            filter.issuer.as_deref(),
            filter.expires_before.map(Timestamp::offset),
            filter.before.map(LeaseId::uuid),
            i64::from(filter.limit) + 1,
        )
        .fetch_all(&self.reads)
        .await
        .map_err(unavailable)?;
        Ok(Page::of(collect(rows)?, filter.limit))
    }

    pub(crate) async fn tasks(&self, filter: &TaskFilter) -> Result<Page<Task>, StoreError> {
        let rows = query_tasks!(
            "WHERE ($1::text IS NULL OR coalesce(ended, 'open') = $1)
               AND ($2::text IS NULL OR principal = $2) AND ($3::text IS NULL OR issuer = $3)
               AND ($4::uuid IS NULL OR id = $4) AND ($5::uuid IS NULL OR id < $5)
             ORDER BY id DESC LIMIT $6",
            filter.state.as_deref(),
            filter.principal.as_deref(),
            filter.issuer.as_deref(),
            filter.id.map(TaskId::uuid),
            filter.before.map(TaskId::uuid),
            i64::from(filter.limit) + 1,
        )
        .fetch_all(&self.reads)
        .await
        .map_err(unavailable)?;
        Ok(Page::of(collect(rows)?, filter.limit))
    }

    pub(crate) async fn open_jobs(
        &self,
        issuer: String,
        after: String,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        // In the order of the index on the open tasks' jobs, whatever the database's collation.
        sqlx::query_scalar!(
            r#"SELECT DISTINCT job AS "job!" FROM tasks
             WHERE ended IS NULL AND job IS NOT NULL AND issuer = $1 AND job > $2
             ORDER BY job LIMIT $3"#,
            issuer,
            after,
            i64::from(limit),
        )
        .fetch_all(&self.reads)
        .await
        .map_err(unavailable)
    }

    pub(crate) async fn records(&self, filter: &AuditFilter) -> Result<Page<Record>, StoreError> {
        let (at, chain, seq) = match filter.after {
            Some((at, chain, seq)) => (at, chain.uuid(), seq),
            None => (Timestamp::EPOCH, Uuid::nil(), 0),
        };
        let rows = query_records!(
            "WHERE ($1::text IS NULL OR event = $1) AND ($2::uuid IS NULL OR task = $2)
               AND ($3::uuid IS NULL OR lease = $3) AND (at, chain, seq) > ($4, $5, $6)
             ORDER BY at, chain, seq LIMIT $7",
            filter.event.as_deref(),
            filter.task.map(TaskId::uuid),
            filter.lease.map(LeaseId::uuid),
            at.offset(),
            chain,
            seq.cast_signed(),
            i64::from(filter.limit) + 1,
        )
        .fetch_all(&self.reads)
        .await
        .map_err(unavailable)?;
        Ok(Page::of(collect(rows)?, filter.limit))
    }

    pub(crate) async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        let rows = sqlx::query!("SELECT chain, seq, hash FROM audit_chains ORDER BY chain")
            .fetch_all(&self.reads)
            .await
            .map_err(unavailable)?;
        let head = |chain, seq: i64, hash: &[u8]| {
            let chain = ReplicaId::from_uuid(chain);
            let head = u64::try_from(seq).ok().zip(row::hash(hash));
            head.map(|(seq, hash)| Head { chain, seq, hash })
                .ok_or_else(|| StoreError::Corrupt { what: format!("audit chain {chain}") })
        };
        rows.iter().map(|r| head(r.chain, r.seq, &r.hash)).collect()
    }

    pub(crate) async fn chain_records(
        &self,
        chain: ReplicaId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        let rows = query_records!(
            "WHERE chain = $1 AND seq > $2 ORDER BY seq LIMIT $3",
            chain.uuid(),
            after.cast_signed(),
            i64::from(limit),
        )
        .fetch_all(&self.reads)
        .await
        .map_err(unavailable)?;
        collect(rows)
    }

    pub(crate) async fn living(&self) -> Result<Vec<Living>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT backend, state, count(*) AS "count!", min(coalesce(revoking_at, due_at)) AS oldest FROM leases
             WHERE state IN ('pending', 'active', 'revoking') GROUP BY backend, state ORDER BY backend, state"#
        )
        .fetch_all(&self.reads)
        .await
        .map_err(unavailable)?;
        let living = rows.into_iter().map(|row| Living {
            backend: row.backend,
            state: row.state,
            count: row.count.cast_unsigned(),
            oldest: row.oldest.map(Timestamp::from),
        });
        Ok(living.collect())
    }

    pub(crate) async fn add_api_key(
        &self,
        key: ApiKey,
        deadline: Timestamp,
    ) -> Result<ApiKeyAdded, StoreError> {
        // One statement: the deadline is judged where the row is written.
        let added = sqlx::query!(
            r#"WITH clock AS (SELECT clock_timestamp() > $7 AS late),
                added AS (
                    INSERT INTO api_keys (handle, hash, principal, lease, scopes, expires_at)
                    SELECT $1, $2, $3, $4, $5, $6 FROM clock WHERE NOT late
                    ON CONFLICT DO NOTHING RETURNING 1)
             SELECT late AS "late!", EXISTS (SELECT FROM added) AS "written!" FROM clock"#,
            key.handle,
            key.hash.as_slice(),
            key.principal,
            key.lease,
            &key.scopes,
            key.expires_at.offset(),
            deadline.offset(),
        )
        .fetch_one(&self.reads)
        .await
        .map_err(unavailable)?;
        Ok(ApiKeyAdded::of(added.written, added.late))
    }

    pub(crate) async fn remove_api_keys(&self, handles: Vec<String>) -> Result<(), StoreError> {
        sqlx::query!("DELETE FROM api_keys WHERE handle = ANY($1)", &handles)
            .execute(&self.reads)
            .await
            .map_err(unavailable)?;
        Ok(())
    }

    pub(crate) async fn api_key_by_hash(
        &self,
        hash: [u8; 32],
    ) -> Result<Option<ApiKey>, StoreError> {
        let found = sqlx::query!(
            "SELECT handle, principal, lease, scopes, expires_at FROM api_keys WHERE hash = $1",
            hash.as_slice()
        )
        .fetch_optional(&self.reads)
        .await
        .map_err(unavailable)?;
        Ok(found.map(|row| ApiKey {
            handle: row.handle,
            hash,
            principal: row.principal,
            lease: row.lease,
            scopes: row.scopes,
            expires_at: row.expires_at.into(),
        }))
    }

    pub(crate) async fn api_keys_there(
        &self,
        handles: Vec<String>,
    ) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar!("SELECT handle FROM api_keys WHERE handle = ANY($1)", &handles)
            .fetch_all(&self.reads)
            .await
            .map_err(unavailable)
    }

    pub(crate) async fn extend_api_key(
        &self,
        handle: String,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let written = sqlx::query!(
            "UPDATE api_keys SET expires_at = $2 WHERE handle = $1",
            handle,
            until.offset()
        )
        .execute(&self.reads)
        .await
        .map_err(unavailable)?;
        Ok(written.rows_affected() == 1)
    }

    pub(crate) async fn list_api_keys(
        &self,
        prefix: String,
        after: String,
        limit: u32,
    ) -> Result<Vec<(String, Timestamp)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT handle, expires_at FROM api_keys
             WHERE starts_with(handle, $1) AND handle COLLATE "C" > $2
             ORDER BY handle COLLATE "C" LIMIT $3"#,
            prefix,
            after,
            i64::from(limit),
        )
        .fetch_all(&self.reads)
        .await
        .map_err(unavailable)?;
        Ok(rows.into_iter().map(|row| (row.handle, row.expires_at.into())).collect())
    }

    pub(crate) async fn forget_replayed(&self) -> Result<u64, StoreError> {
        let tokens = sqlx::query!("DELETE FROM replayed WHERE expires_at < clock_timestamp()")
            .execute(&self.reads)
            .await
            .map_err(unavailable)?;
        let cut_offs = sqlx::query!("DELETE FROM disabled WHERE expires_at < clock_timestamp()")
            .execute(&self.reads)
            .await
            .map_err(unavailable)?;
        Ok(tokens.rows_affected() + cut_offs.rows_affected())
    }

    pub(crate) async fn open_tasks(
        &self,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<(Vec<Task>, Option<TaskId>), StoreError> {
        let rows = query_tasks!(
            "WHERE ended IS NULL AND id > $1 ORDER BY id LIMIT $2",
            after.map_or(Uuid::nil(), TaskId::uuid),
            i64::from(limit),
        )
        .fetch_all(&self.reads)
        .await
        .map_err(unavailable)?;
        let last = rows.last().map(|row| TaskId::from_uuid(row.id));
        let last = last.filter(|_| rows.len() >= limit as usize);
        Ok((row::readable_tasks(rows), last))
    }

    pub(crate) async fn disabled(&self, principal: &str) -> Result<Option<Disabled>, StoreError> {
        let found = query_disabled!(
            "WHERE principal = $1 AND (expires_at IS NULL OR expires_at > clock_timestamp())",
            principal,
        )
        .fetch_optional(&self.reads)
        .await
        .map_err(unavailable)?;
        Ok(found.map(Disabled::from))
    }

    pub(crate) async fn all_disabled(
        &self,
        after: &str,
        limit: u32,
    ) -> Result<Page<Disabled>, StoreError> {
        let rows = query_disabled!(
            "WHERE principal > $1 AND (expires_at IS NULL OR expires_at > clock_timestamp())
             ORDER BY principal LIMIT $2",
            after,
            i64::from(limit) + 1,
        )
        .fetch_all(&self.reads)
        .await
        .map_err(unavailable)?;
        Ok(Page::of(rows.into_iter().map(Disabled::from).collect(), limit))
    }
}
