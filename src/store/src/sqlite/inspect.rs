//! Rows of leases with their evidence, from SQLite.
//!
//! Invariant: it only reads, but for putting rows back that were put aside.

use dayfly_lease::{LeaseId, StoreError};
use rusqlite::{Connection, Row, params, params_from_iter};
use uuid::Uuid;

use super::{
    SqliteStore,
    read::{LEASE_COLUMNS, RECORD_COLUMNS, lease_row, record_row, rows, uuid},
};
use crate::inspect::{Evidence, Inspected, Keys, Look, join};

impl SqliteStore {
    pub(crate) async fn inspect(&self, look: Look) -> Result<Vec<Inspected>, StoreError> {
        self.read(move |connection| {
            let rows = look_at(connection, look)?;
            let evidence = evidence(connection, &Keys::of(&rows))?;
            Ok(join(rows, evidence))
        })
        .await
    }

    pub(crate) async fn quarantined(&self) -> Result<u64, StoreError> {
        self.read(|connection| {
            let sql = "SELECT count(*) FROM leases WHERE quarantined IS NOT NULL";
            let count = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
            count.map(i64::cast_unsigned).map_err(StoreError::unavailable)
        })
        .await
    }

    pub(crate) async fn look_again(&self) -> Result<u64, StoreError> {
        self.change(|connection| {
            let sql = "UPDATE leases SET quarantined = NULL WHERE quarantined IS NOT NULL";
            connection.execute(sql, []).map(|back| back as u64).map_err(StoreError::unavailable)
        })
        .await
    }
}

fn look_at(connection: &Connection, look: Look) -> Result<Vec<Inspected>, StoreError> {
    let sql = |tail| format!("SELECT {LEASE_COLUMNS} FROM leases {tail}");
    match look {
        Look::After(after, limit) => {
            let after = after.map_or([0; 16], |id| *id.uuid().as_bytes());
            let sql = sql("WHERE id > ?1 ORDER BY id LIMIT ?2".to_owned());
            rows(connection, &sql, params![after, limit], inspected)
        }
        Look::Living(task, after, limit) => {
            let task = *task.uuid().as_bytes();
            let after = after.map_or([0; 16], |id| *id.uuid().as_bytes());
            let sql = sql("WHERE task = ?1 AND id > ?2
                AND state IN ('pending', 'active', 'revoking') ORDER BY id LIMIT ?3"
                .to_owned());
            rows(connection, &sql, params![task, after, limit], inspected)
        }
        Look::These(ids) => {
            let sql = sql(format!("WHERE id IN ({}) ORDER BY id", places(ids.len())));
            let ids: Vec<Uuid> = ids.into_iter().map(LeaseId::uuid).collect();
            rows(connection, &sql, params_from_iter(bytes(&ids)), inspected)
        }
    }
}

/// A value that its column cannot mean, for example an id of another length.
fn inspected(row: &Row<'_>) -> rusqlite::Result<Inspected> {
    match lease_row(row) {
        Ok(read) => Ok(Inspected::of(read)),
        Err(error) => Ok(Inspected::unreadable(uuid(row, "id")?, error.to_string())),
    }
}

fn evidence(connection: &Connection, keys: &Keys) -> Result<Evidence, StoreError> {
    let sql = format!("SELECT id, ended FROM tasks WHERE id IN ({})", places(keys.tasks.len()));
    let task = |row: &Row<'_>| Ok((uuid(row, "id")?, row.get::<_, Option<String>>(1)?.is_some()));
    let tasks = rows(connection, &sql, params_from_iter(bytes(&keys.tasks)), task)?;
    let sql = format!("SELECT {RECORD_COLUMNS} FROM audit_records WHERE chain = ?1 AND seq = ?2");
    let mut decisions = Vec::with_capacity(keys.chains.len());
    for (chain, seq) in keys.chains.iter().zip(&keys.seqs) {
        decisions.extend(rows(connection, &sql, params![chain.as_bytes(), seq], record_row)?);
    }
    let sql = format!(
        "SELECT {RECORD_COLUMNS} FROM audit_records
         WHERE lease IN ({}) AND event = 'lease.revoked'",
        places(keys.dead.len())
    );
    let receipts = rows(connection, &sql, params_from_iter(bytes(&keys.dead)), record_row)?;
    Ok(Evidence { tasks, decisions, receipts })
}

fn places(count: usize) -> String {
    vec!["?"; count].join(",")
}

fn bytes(ids: &[Uuid]) -> impl Iterator<Item = [u8; 16]> {
    ids.iter().map(|id| *id.as_bytes())
}
