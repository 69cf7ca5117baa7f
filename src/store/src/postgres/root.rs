//! Our own passwords at backends.
//!
//! Invariant: a row is written only over the epoch before.

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{Root, Sealed, StoreError};
use sqlx::PgConnection;

use super::unavailable;

pub(super) async fn read(
    connection: &mut PgConnection,
    backend: &str,
    locked: bool,
) -> Result<Option<Root>, StoreError> {
    if locked {
        sqlx::query!("SELECT FROM roots WHERE backend = $1 FOR UPDATE", backend)
            .fetch_optional(&mut *connection)
            .await
            .map_err(unavailable)?;
    }
    let row = sqlx::query!(
        "SELECT epoch, current, staged, staged_at, rotated_at FROM roots WHERE backend = $1",
        backend
    )
    .fetch_optional(connection)
    .await
    .map_err(unavailable)?;
    Ok(row.map(|row| Root {
        backend: backend.to_owned(),
        epoch: row.epoch,
        current: row.current.map(Sealed::from_bytes),
        staged: row.staged.map(Sealed::from_bytes).zip(row.staged_at.map(Timestamp::from)),
        rotated_at: row.rotated_at.map(Timestamp::from),
    }))
}

pub(super) async fn write(connection: &mut PgConnection, root: &Root) -> Result<bool, StoreError> {
    let staged = root.staged.as_ref();
    let written = sqlx::query!(
        "INSERT INTO roots AS r (backend, epoch, current, staged, staged_at, rotated_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (backend) DO UPDATE SET epoch = $2, current = $3, staged = $4,
            staged_at = $5, rotated_at = $6
         WHERE r.epoch = $2 - 1",
        root.backend,
        root.epoch,
        root.current.as_ref().map(Sealed::as_bytes),
        staged.map(|(next, _)| next.as_bytes()),
        staged.map(|(_, at)| at.offset()),
        root.rotated_at.map(Timestamp::offset),
    )
    .execute(connection)
    .await
    .map_err(unavailable)?;
    Ok(written.rows_affected() == 1)
}
