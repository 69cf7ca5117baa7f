//! What administrators look through, and the few writes that have no part in the engine's
//! rules.
//!
//! Invariant: every list is bounded by its filter's limit.

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{
    Disabled, Lease, ReplicaId, StoreError, Task, TaskId,
    audit::{Head, Record},
};
use rusqlite::{Row, params, params_from_iter, types::Value};
use uuid::Uuid;

use super::{
    SqliteStore,
    read::{
        DISABLED_COLUMNS, LEASE_COLUMNS, RECORD_COLUMNS, TASK_COLUMNS, at, disabled_row, heads,
        lease_row, moment, page, record_row, rows, task_row, uuid,
    },
};
use crate::{ApiKey, ApiKeyAdded, AuditFilter, LeaseFilter, Living, Page, TaskFilter, row};

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
    pub(crate) async fn read_installation(&self) -> Result<Uuid, StoreError> {
        self.read(|connection| super::read::installation(connection)).await
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

    pub(crate) async fn open_jobs(
        &self,
        issuer: String,
        after: String,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        self.read(move |connection| {
            let sql = "SELECT DISTINCT job FROM tasks
                WHERE ended IS NULL AND job IS NOT NULL AND issuer = ?1 AND job > ?2
                ORDER BY job LIMIT ?3";
            rows(connection, sql, params![issuer, after, limit], |row| row.get(0))
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
            WHERE state IN ('pending', 'active', 'revoking') GROUP BY backend, state ORDER BY backend, state";
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
    ) -> Result<Vec<(String, Timestamp)>, StoreError> {
        self.read(move |connection| {
            let sql = "SELECT handle, expires_at FROM api_keys
                WHERE substr(handle, 1, length(?1)) = ?1 AND handle > ?2 ORDER BY handle LIMIT ?3";
            rows(connection, sql, params![prefix, after, limit], |row| {
                Ok((row.get(0)?, Timestamp::from_micros(row.get(1)?)))
            })
        })
        .await
    }

    pub(crate) async fn forget_replayed(&self) -> Result<u64, StoreError> {
        let now = self.time.now().micros();
        self.change(move |connection| {
            let mut gone = 0;
            for table in ["replayed", "disabled"] {
                let sql = format!("DELETE FROM {table} WHERE expires_at < ?1");
                let rows = connection.execute(&sql, params![now]);
                gone += rows.map_err(StoreError::unavailable)? as u64;
            }
            Ok(gone)
        })
        .await
    }

    pub(crate) async fn open_tasks(
        &self,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<(Vec<Task>, Option<TaskId>), StoreError> {
        let after = after.map_or([0; 16], |id| *id.uuid().as_bytes());
        self.read(move |connection| {
            let sql = format!(
                "SELECT {TASK_COLUMNS} FROM tasks WHERE ended IS NULL AND id > ?1
                 ORDER BY id LIMIT ?2"
            );
            // Read one by one: a column that means nothing spoils its own row only (I12).
            let read = |row: &Row<'_>| Ok((TaskId::from_uuid(uuid(row, "id")?), task_row(row)));
            let found = rows(connection, &sql, params![after, limit], read)?;
            let last = found.last().map(|(id, _)| *id).filter(|_| found.len() >= limit as usize);
            let mut readable = Vec::with_capacity(found.len());
            for (id, row) in found {
                match row {
                    Ok(row) => readable.push(row),
                    Err(error) => tracing::error!(task.id = %id, %error, "task.unreadable"),
                }
            }
            Ok((row::readable_tasks(readable), last))
        })
        .await
    }

    pub(crate) async fn disabled(&self, principal: &str) -> Result<Option<Disabled>, StoreError> {
        let (principal, now) = (principal.to_owned(), self.time.now().micros());
        self.read(move |connection| {
            let sql = format!(
                "SELECT {DISABLED_COLUMNS} FROM disabled
                 WHERE principal = ?1 AND (expires_at IS NULL OR expires_at > ?2)"
            );
            Ok(rows(connection, &sql, params![principal, now], disabled_row)?.pop())
        })
        .await
    }

    pub(crate) async fn all_disabled(
        &self,
        after: String,
        limit: u32,
    ) -> Result<Page<Disabled>, StoreError> {
        let now = self.time.now().micros();
        self.read(move |connection| {
            let sql = format!(
                "SELECT {DISABLED_COLUMNS} FROM disabled
                 WHERE principal > ?1 AND (expires_at IS NULL OR expires_at > ?2)
                 ORDER BY principal LIMIT ?3"
            );
            let more = i64::from(limit) + 1;
            let found = rows(connection, &sql, params![after, now, more], disabled_row)?;
            Ok(Page::of(found, limit))
        })
        .await
    }
}
