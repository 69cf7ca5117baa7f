//! What a PostgreSQL server is recognised by: its system identifier and its timeline.
//!
//! Invariant: asked on every new connection of the writer, before anything is written over it,
//! so that no change reaches a promoted standby unnoticed.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::PgConnection;

/// The server at the other end of the writer's connection, if it tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Recognised(Arc<Mutex<Option<String>>>);

impl Recognised {
    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks over a new connection. The timeline is that of the write-ahead log, which changes
    /// at the promotion itself; the control file follows with the next checkpoint.
    pub(super) async fn ask(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let asked = sqlx::query_scalar!(
            r#"SELECT (pg_control_system()).system_identifier::text || '/'
                || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS "server!""#
        )
        .fetch_one(connection)
        .await;
        let found = match asked {
            Ok(found) => Some(found),
            // What speaks PostgreSQL without being it has neither; then the sweeps' turns and
            // the audit chain alone tell.
            Err(sqlx::Error::Database(error)) => {
                tracing::warn!(%error, "store.server.unrecognised");
                None
            }
            Err(error) => return Err(error),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    }
}
