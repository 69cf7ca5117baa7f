//! What is read, and the few writes that have no part in the engine's rules.
//!
//! Invariant: every list is bounded by its filter's limit.

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{
    Counts, Lease, LeaseId, ReplicaId, StoreError, Task, TaskId,
    audit::{Head, Record},
};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter, types::Value};
use uuid::Uuid;

use super::SqliteStore;
use crate::{
    ApiKey, ApiKeyAdded, AuditFilter, LeaseFilter, Living, Page, TaskFilter,
    row::{self, LeaseRow, Moment, RecordRow, TaskRow},
};

pub(super) const LEASE_COLUMNS: &str = "id, task, principal, issuer, role, backend, handle, \
    decision_chain, decision_seq, epoch, state, issued_at, expires_at, max_expires_at, \
    native_expires_at, mint_deadline, settle_at, activated_at, delivered_at, cause, revoking_at, \
    revoked_at, next_attempt_at, attempts, error_class, claim_owner, claim_since, claim_until, renewable, \
    belts, plan";
pub(super) const TASK_COLUMNS: &str = "id, principal, issuer, identity, purpose, token_hash, \
    opened_at, expires_at, ended, closed_at";
const RECORD_COLUMNS: &str =
    "chain, seq, at, event, actor, task, lease, detail, prev, hash, signature";

fn uuid(row: &Row<'_>, column: &str) -> rusqlite::Result<Uuid> {
    row.get::<_, [u8; 16]>(column).map(Uuid::from_bytes)
}

fn uuid_or_none(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Uuid>> {
    row.get::<_, Option<[u8; 16]>>(column).map(|bytes| bytes.map(Uuid::from_bytes))
}

fn at(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_micros)
}

fn moment(row: &Row<'_>, column: &str) -> rusqlite::Result<Moment> {
    row.get::<_, Option<i64>>(column).map(|at| Moment(at.map(Timestamp::from_micros)))
}

/// JSON that cannot be read becomes null, which no plan and no identity is.
fn json(row: &Row<'_>, column: &str) -> rusqlite::Result<serde_json::Value> {
    let text: String = row.get(column)?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

pub(super) fn lease_row(row: &Row<'_>) -> rusqlite::Result<LeaseRow> {
    Ok(LeaseRow {
        id: uuid(row, "id")?,
        task: uuid(row, "task")?,
        principal: row.get("principal")?,
        issuer: row.get("issuer")?,
        role: row.get("role")?,
        backend: row.get("backend")?,
        handle: row.get("handle")?,
        decision_chain: uuid(row, "decision_chain")?,
        decision_seq: row.get("decision_seq")?,
        epoch: row.get("epoch")?,
        state: row.get("state")?,
        issued_at: at(row, "issued_at")?,
        expires_at: at(row, "expires_at")?,
        max_expires_at: at(row, "max_expires_at")?,
        native_expires_at: moment(row, "native_expires_at")?,
        mint_deadline: at(row, "mint_deadline")?,
        settle_at: moment(row, "settle_at")?,
        activated_at: moment(row, "activated_at")?,
        delivered_at: moment(row, "delivered_at")?,
        cause: row.get("cause")?,
        revoking_at: moment(row, "revoking_at")?,
        revoked_at: moment(row, "revoked_at")?,
        next_attempt_at: moment(row, "next_attempt_at")?,
        attempts: row.get("attempts")?,
        error_class: row.get("error_class")?,
        claim_owner: uuid_or_none(row, "claim_owner")?,
        claim_since: moment(row, "claim_since")?,
        claim_until: moment(row, "claim_until")?,
        renewable: row.get("renewable")?,
        belts: row.get::<_, String>("belts")?.split_whitespace().map(str::to_owned).collect(),
        plan: json(row, "plan")?,
    })
}

pub(super) fn task_row(row: &Row<'_>) -> rusqlite::Result<TaskRow> {
    Ok(TaskRow {
        id: uuid(row, "id")?,
        principal: row.get("principal")?,
        issuer: row.get("issuer")?,
        identity: json(row, "identity")?,
        purpose: row.get("purpose")?,
        token_hash: row.get("token_hash")?,
        opened_at: at(row, "opened_at")?,
        expires_at: at(row, "expires_at")?,
        ended: row.get("ended")?,
        closed_at: moment(row, "closed_at")?,
    })
}

fn record_row(row: &Row<'_>) -> rusqlite::Result<RecordRow> {
    Ok(RecordRow {
        chain: uuid(row, "chain")?,
        seq: row.get("seq")?,
        at: at(row, "at")?,
        event: row.get("event")?,
        actor: row.get("actor")?,
        task: uuid_or_none(row, "task")?,
        lease: uuid_or_none(row, "lease")?,
        detail: row.get("detail")?,
        prev: row.get("prev")?,
        hash: row.get("hash")?,
        signature: row.get("signature")?,
    })
}

pub(super) fn rows<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(StoreError::unavailable)?;
    let rows = statement.query_map(params, read).map_err(StoreError::unavailable)?;
    rows.collect::<Result<_, _>>().map_err(StoreError::unavailable)
}

fn one<R, T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: fn(&Row<'_>) -> rusqlite::Result<R>,
) -> Result<Option<T>, StoreError>
where
    T: TryFrom<R, Error = StoreError>,
{
    rows(connection, sql, params, read)?.into_iter().next().map(T::try_from).transpose()
}

fn page<R, T>(rows: Vec<R>, limit: u32) -> Result<Page<T>, StoreError>
where
    T: TryFrom<R, Error = StoreError>,
{
    Ok(Page::of(rows.into_iter().map(T::try_from).collect::<Result<_, _>>()?, limit))
}

pub(super) fn lease(connection: &Connection, id: LeaseId) -> Result<Option<Lease>, StoreError> {
    let sql = format!("SELECT {LEASE_COLUMNS} FROM leases WHERE id = ?1");
    one(connection, &sql, params![id.uuid().as_bytes()], lease_row)
}

pub(super) fn task(connection: &Connection, id: TaskId) -> Result<Option<Task>, StoreError> {
    let sql = format!("SELECT {TASK_COLUMNS} FROM tasks WHERE id = ?1");
    one(connection, &sql, params![id.uuid().as_bytes()], task_row)
}

pub(super) fn task_by_token(
    connection: &Connection,
    hash: [u8; 32],
) -> Result<Option<Task>, StoreError> {
    let sql = format!("SELECT {TASK_COLUMNS} FROM tasks WHERE token_hash = ?1");
    one(connection, &sql, params![hash], task_row)
}

pub(super) fn counts(connection: &Connection, task: TaskId) -> Result<Counts, StoreError> {
    let sql = "SELECT state, count(*) FROM leases WHERE task = ?1 GROUP BY state";
    let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
    let mut counts = Counts::default();
    for (state, count) in rows(connection, sql, params![task.uuid().as_bytes()], read)? {
        let count = count.cast_unsigned();
        match state.as_str() {
            "pending" => counts.pending = count,
            "active" => counts.active = count,
            "revoked" => counts.revoked = count,
            // Whatever cannot be read may be alive.
            _ => counts.revoking += count,
        }
    }
    Ok(counts)
}

fn instant(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Option<Timestamp>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(StoreError::unavailable)?;
    let found = statement.query_row(params, |row| row.get::<_, i64>(0)).optional();
    Ok(found.map_err(StoreError::unavailable)?.map(Timestamp::from_micros))
}

pub(super) fn next_due(
    connection: &Connection,
    backend: &str,
) -> Result<Option<Timestamp>, StoreError> {
    let sql = "SELECT due_at FROM leases
        WHERE backend = ?1 AND due_at IS NOT NULL AND quarantined IS NULL ORDER BY due_at LIMIT 1";
    instant(connection, sql, params![backend])
}

pub(super) fn next_task_due(connection: &Connection) -> Result<Option<Timestamp>, StoreError> {
    let sql = "SELECT expires_at FROM tasks WHERE ended IS NULL ORDER BY expires_at LIMIT 1";
    instant(connection, sql, [])
}

pub(super) fn heads(
    connection: &Connection,
    sql: &str,
    limit: i64,
) -> Result<Vec<Head>, StoreError> {
    let read = |row: &Row<'_>| Ok((uuid(row, "chain")?, row.get(1)?, row.get::<_, Vec<u8>>(2)?));
    let head = |(chain, seq, hash): (Uuid, i64, Vec<u8>)| {
        let chain = ReplicaId::from_uuid(chain);
        let head = u64::try_from(seq).ok().zip(row::hash(&hash));
        head.map(|(seq, hash)| Head { chain, seq, hash })
            .ok_or_else(|| StoreError::Corrupt { what: format!("audit chain {chain}") })
    };
    rows(connection, sql, params![limit], read)?.into_iter().map(head).collect()
}

/// Conditions that a filter sets, with their values.
#[derive(Default)]
struct Conditions {
    sql: Vec<&'static str>,
    values: Vec<Value>,
}

impl Conditions {
    fn add(&mut self, sql: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.sql.push(sql);
            self.values.push(value.into());
        }
    }

    /// `WHERE …` with the limit as the last value.
    fn clause(mut self, order: &str, limit: u32) -> (String, Vec<Value>) {
        let mut clause = String::new();
        for (index, sql) in self.sql.iter().enumerate() {
            clause.push_str(if index == 0 { "WHERE " } else { " AND " });
            clause.push_str(sql);
        }
        clause.push_str(order);
        clause.push_str(" LIMIT ?");
        self.values.push(Value::from(i64::from(limit) + 1));
        (clause, self.values)
    }
}

fn blob(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

impl SqliteStore {
    pub(crate) async fn installation(&self) -> Result<Uuid, StoreError> {
        let now = self.time.now().micros();
        self.change(move |connection| {
            connection
                .query_row(
                    "INSERT INTO installation (only_one, id, created_at)
                     VALUES (1, randomblob(16), ?1)
                     ON CONFLICT (only_one) DO UPDATE SET only_one = 1 RETURNING id",
                    params![now],
                    |row| uuid(row, "id"),
                )
                .map_err(StoreError::unavailable)
        })
        .await
    }

    pub(crate) async fn leases(&self, filter: &LeaseFilter) -> Result<Page<Lease>, StoreError> {
        let mut conditions = Conditions::default();
        conditions.add("state = ?", filter.state.clone());
        conditions.add("role = ?", filter.role.clone());
        conditions.add("backend = ?", filter.backend.clone());
        conditions.add("task = ?", filter.task.map(|id| blob(id.uuid())));
        conditions.add("principal = ?", filter.principal.clone());
        conditions.add("issuer = ?", filter.issuer.clone());
        conditions.add("expires_at < ?", filter.expires_before.map(Timestamp::micros));
        conditions.add("id < ?", filter.before.map(|id| blob(id.uuid())));
        let limit = filter.limit;
        let (clause, values) = conditions.clause(" ORDER BY id DESC", limit);
        self.read(move |connection| {
            let sql = format!("SELECT {LEASE_COLUMNS} FROM leases {clause}");
            page(rows(connection, &sql, params_from_iter(values), lease_row)?, limit)
        })
        .await
    }

    pub(crate) async fn tasks(&self, filter: &TaskFilter) -> Result<Page<Task>, StoreError> {
        let mut conditions = Conditions::default();
        conditions.add("coalesce(ended, 'open') = ?", filter.state.clone());
        conditions.add("principal = ?", filter.principal.clone());
        conditions.add("issuer = ?", filter.issuer.clone());
        conditions.add("id = ?", filter.id.map(|id| blob(id.uuid())));
        conditions.add("id < ?", filter.before.map(|id| blob(id.uuid())));
        let limit = filter.limit;
        let (clause, values) = conditions.clause(" ORDER BY id DESC", limit);
        self.read(move |connection| {
            let sql = format!("SELECT {TASK_COLUMNS} FROM tasks {clause}");
            page(rows(connection, &sql, params_from_iter(values), task_row)?, limit)
        })
        .await
    }

    pub(crate) async fn records(&self, filter: &AuditFilter) -> Result<Page<Record>, StoreError> {
        let mut conditions = Conditions::default();
        conditions.add("event = ?", filter.event.clone());
        conditions.add("task = ?", filter.task.map(|id| blob(id.uuid())));
        conditions.add("lease = ?", filter.lease.map(|id| blob(id.uuid())));
        if let Some((at, chain, seq)) = filter.after {
            conditions.sql.push("(at, chain, seq) > (?, ?, ?)");
            conditions.values.push(Value::from(at.micros()));
            conditions.values.push(Value::from(blob(chain.uuid())));
            conditions.values.push(Value::from(seq.cast_signed()));
        }
        let limit = filter.limit;
        let (clause, values) = conditions.clause(" ORDER BY at, chain, seq", limit);
        self.read(move |connection| {
            let sql = format!("SELECT {RECORD_COLUMNS} FROM audit_records {clause}");
            page(rows(connection, &sql, params_from_iter(values), record_row)?, limit)
        })
        .await
    }

    pub(crate) async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        let sql = "SELECT chain, seq, hash FROM audit_chains ORDER BY chain LIMIT ?1";
        self.read(move |connection| heads(connection, sql, i64::MAX)).await
    }

    pub(crate) async fn chain_records(
        &self,
        chain: ReplicaId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        self.read(move |connection| {
            let sql = format!(
                "SELECT {RECORD_COLUMNS} FROM audit_records WHERE chain = ?1 AND seq > ?2
                 ORDER BY seq LIMIT ?3"
            );
            let chain = chain.uuid();
            rows(
                connection,
                &sql,
                params![chain.as_bytes(), after.cast_signed(), limit],
                record_row,
            )?
            .into_iter()
            .map(Record::try_from)
            .collect()
        })
        .await
    }

    pub(crate) async fn living(&self) -> Result<Vec<Living>, StoreError> {
        let sql = "SELECT backend, state, count(*) AS count, min(coalesce(revoking_at, due_at)) AS oldest FROM leases
            WHERE state <> 'revoked' GROUP BY backend, state ORDER BY backend, state";
        let read = |row: &Row<'_>| {
            Ok(Living {
                backend: row.get("backend")?,
                state: row.get("state")?,
                count: row.get::<_, i64>("count")?.cast_unsigned(),
                oldest: moment(row, "oldest")?.0,
            })
        };
        self.read(move |connection| rows(connection, sql, [], read)).await
    }

    pub(crate) async fn add_api_key(
        &self,
        key: ApiKey,
        deadline: Timestamp,
    ) -> Result<ApiKeyAdded, StoreError> {
        let time = std::sync::Arc::clone(&self.time);
        self.change(move |connection| {
            // On the writer's thread, so that the deadline is judged when the row is written.
            if time.now() > deadline {
                return Ok(ApiKeyAdded::Late);
            }
            let written = connection.execute(
                "INSERT OR IGNORE INTO api_keys
                    (handle, hash, principal, lease, scopes, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    key.handle,
                    key.hash,
                    key.principal,
                    key.lease,
                    key.scopes.join(" "),
                    key.expires_at.micros()
                ],
            );
            Ok(ApiKeyAdded::of(written.map_err(StoreError::unavailable)? == 1, false))
        })
        .await
    }

    pub(crate) async fn remove_api_keys(&self, handles: Vec<String>) -> Result<(), StoreError> {
        self.change(move |connection| {
            let places = vec!["?"; handles.len()].join(",");
            let sql = format!("DELETE FROM api_keys WHERE handle IN ({places})");
            connection
                .execute(&sql, params_from_iter(handles))
                .map(drop)
                .map_err(StoreError::unavailable)
        })
        .await
    }

    pub(crate) async fn api_key_by_hash(
        &self,
        hash: [u8; 32],
    ) -> Result<Option<ApiKey>, StoreError> {
        self.read(move |connection| {
            let sql = "SELECT handle, hash, principal, lease, scopes, expires_at FROM api_keys
                WHERE hash = ?1";
            let read = |row: &Row<'_>| {
                Ok(ApiKey {
                    handle: row.get("handle")?,
                    hash: row.get("hash")?,
                    principal: row.get("principal")?,
                    lease: row.get("lease")?,
                    scopes: row
                        .get::<_, String>("scopes")?
                        .split_whitespace()
                        .map(str::to_owned)
                        .collect(),
                    expires_at: at(row, "expires_at")?,
                })
            };
            Ok(rows(connection, sql, params![hash], read)?.into_iter().next())
        })
        .await
    }

    pub(crate) async fn api_keys_there(
        &self,
        handles: Vec<String>,
    ) -> Result<Vec<String>, StoreError> {
        self.read(move |connection| {
            let places = vec!["?"; handles.len()].join(",");
            let sql = format!("SELECT handle FROM api_keys WHERE handle IN ({places})");
            rows(connection, &sql, params_from_iter(handles), |row| row.get(0))
        })
        .await
    }

    pub(crate) async fn extend_api_key(
        &self,
        handle: String,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.change(move |connection| {
            connection
                .execute(
                    "UPDATE api_keys SET expires_at = ?2 WHERE handle = ?1",
                    params![handle, until.micros()],
                )
                .map(|written| written == 1)
                .map_err(StoreError::unavailable)
        })
        .await
    }

    pub(crate) async fn list_api_keys(
        &self,
        prefix: String,
        after: String,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        self.read(move |connection| {
            let sql = "SELECT handle FROM api_keys
                WHERE substr(handle, 1, length(?1)) = ?1 AND handle > ?2 ORDER BY handle LIMIT ?3";
            rows(connection, sql, params![prefix, after, limit], |row| row.get(0))
        })
        .await
    }

    pub(crate) async fn forget_replayed(&self) -> Result<u64, StoreError> {
        let now = self.time.now().micros();
        self.change(move |connection| {
            connection
                .execute("DELETE FROM replayed WHERE expires_at < ?1", params![now])
                .map(|gone| gone as u64)
                .map_err(StoreError::unavailable)
        })
        .await
    }
}
