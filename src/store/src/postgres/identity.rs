//! Disabled identities.
//!
//! Invariant: an identity's lock is taken before anything of it is read, as with the ends of jobs,
//! so that a task that is being opened and the disabling of its identity do not miss each other.

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{Disabled, StoreError, TaskId, transact::OpenTasks};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{job, query_disabled, query_tasks, unavailable};
use crate::row;

/// Locks `principal` until the commit; see [`job::lock`]. No key of a job begins with `|`.
pub(super) async fn lock(
    connection: &mut PgConnection,
    principal: &str,
    exclusive: bool,
) -> Result<(), StoreError> {
    let locked = job::lock(connection, &format!("|identity|{principal}"), exclusive).await;
    locked.map_err(unavailable)
}

pub(super) async fn disabled(
    connection: &mut PgConnection,
    principal: &str,
    now: Timestamp,
) -> Result<Option<Disabled>, StoreError> {
    let found = query_disabled!(
        "WHERE principal = $1 AND (expires_at IS NULL OR expires_at > $2)",
        principal,
        now.offset(),
    )
    .fetch_optional(connection)
    .await
    .map_err(unavailable)?;
    Ok(found.map(Disabled::from))
}

pub(super) async fn set(
    connection: &mut PgConnection,
    disabled: &Disabled,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO disabled (principal, cut_off, disabled_at, disabled_by, reason, ending,
            expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (principal) DO UPDATE SET cut_off = $2, disabled_at = $3, disabled_by = $4,
            reason = $5, ending = $6, expires_at = $7",
        disabled.principal,
        disabled.cut_off.map(Timestamp::offset),
        disabled.at.offset(),
        disabled.by,
        disabled.reason,
        disabled.ending,
        disabled.expires_at.map(Timestamp::offset),
    )
    .execute(connection)
    .await
    .map_err(unavailable)?;
    Ok(())
}

pub(super) async fn enable(
    connection: &mut PgConnection,
    principal: &str,
) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM disabled WHERE principal = $1", principal)
        .execute(connection)
        .await
        .map_err(unavailable)?;
    Ok(())
}

/// One whose open tasks nobody has finished ending.
pub(super) async fn ending(
    connection: &mut PgConnection,
    now: Timestamp,
) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar!(
        "SELECT principal FROM disabled WHERE ending AND (expires_at IS NULL OR expires_at > $1)
         ORDER BY disabled_at LIMIT 1",
        now.offset(),
    )
    .fetch_optional(connection)
    .await
    .map_err(unavailable)
}

/// Its open tasks, and those on its behalf, behind `after`, locked against other changes.
pub(super) async fn tasks(
    connection: &mut PgConnection,
    principal: &str,
    after: Option<TaskId>,
    limit: u32,
) -> Result<OpenTasks, StoreError> {
    let rows = query_tasks!(
        "WHERE ended IS NULL AND (principal = $1 OR on_behalf_of = $1) AND id > $2
         ORDER BY id LIMIT $3 FOR UPDATE",
        principal,
        after.map_or(Uuid::nil(), TaskId::uuid),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await
    .map_err(unavailable)?;
    let seen: Vec<TaskId> = rows.iter().map(|row| TaskId::from_uuid(row.id)).collect();
    Ok(OpenTasks::new(&seen, row::readable_tasks(rows), limit))
}
