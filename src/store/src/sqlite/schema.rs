//! The schema's version and its migrations.
//!
//! Invariant: a migration and the version that says it was done are one transaction, and a
//! schema that is newer than this program is refused.

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::StoreError;
use rusqlite::Connection;

const MIGRATIONS: &[&str] = &[
    include_str!("../../../../migrations/sqlite/0001_leases.sql"),
    include_str!("../../../../migrations/sqlite/0002_kept.sql"),
    include_str!("../../../../migrations/sqlite/0003_quotas.sql"),
    include_str!("../../../../migrations/sqlite/0004_roots.sql"),
    include_str!("../../../../migrations/sqlite/0005_heartbeats.sql"),
    include_str!("../../../../migrations/sqlite/0006_jobs.sql"),
    include_str!("../../../../migrations/sqlite/0007_disabled.sql"),
    include_str!("../../../../migrations/sqlite/0008_bindings.sql"),
    include_str!("../../../../migrations/sqlite/0009_turned_away.sql"),
    include_str!("../../../../migrations/sqlite/0010_on_behalf.sql"),
];

#[derive(Debug, thiserror::Error)]
#[error("the database has schema version {found}, and this program knows {known}")]
struct TooNew {
    found: usize,
    known: usize,
}

/// Brings the schema up to date; answers with the latest instant that the store has used.
pub(super) fn migrate(connection: &mut Connection) -> Result<Timestamp, StoreError> {
    let known = MIGRATIONS.len();
    let found: usize = connection
        .pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0))
        .map_err(StoreError::unavailable)? as usize;
    if found > known {
        return Err(StoreError::unavailable(TooNew { found, known }));
    }
    for (version, sql) in (1_u32..).zip(MIGRATIONS).skip(found) {
        let transaction = connection.transaction().map_err(StoreError::unavailable)?;
        transaction.execute_batch(sql).map_err(StoreError::unavailable)?;
        transaction
            .pragma_update(None, "user_version", version)
            .map_err(StoreError::unavailable)?;
        transaction.commit().map_err(StoreError::unavailable)?;
    }
    connection
        .query_row("SELECT seen FROM clock", [], |row| row.get::<_, i64>(0))
        .map(Timestamp::from_micros)
        .map_err(StoreError::unavailable)
}
