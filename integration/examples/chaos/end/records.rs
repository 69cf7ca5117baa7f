//! What is written down and what is there, read past Dayfly: with SQL of our own, at the store
//! and at the backend.
//!
//! Invariant: it only reads.

use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, types::Value};
use tokio::task::block_in_place;

use crate::world::World;

/// A lease as its row has it; times in microseconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct LeaseRow {
    pub(crate) handle: String,
    pub(crate) state: String,
    pub(crate) activated: bool,
    pub(crate) expires_at: i64,
    pub(crate) revoking_at: Option<i64>,
    pub(crate) revoked_at: Option<i64>,
}

impl LeaseRow {
    pub(crate) fn may_live(&self) -> bool {
        self.state != "revoked"
    }

    /// When it had to die: at its end, or when it was told to.
    pub(crate) fn due(&self) -> i64 {
        self.revoking_at.map_or(self.expires_at, |at| at.min(self.expires_at))
    }

    /// How much later it was verified dead, if it was ever active.
    pub(crate) fn late(&self) -> Option<i64> {
        self.revoked_at.filter(|_| self.activated).map(|at| at - self.due())
    }
}

/// The store and the backend.
#[derive(Clone, Debug)]
pub(crate) struct Records(Arc<World>);

impl Records {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self(world)
    }

    /// How many leases may live; as if there were some while the store cannot tell.
    pub(crate) fn owed(&self) -> u64 {
        let rows = self.query("SELECT count(*) FROM leases WHERE state <> 'revoked'");
        rows.first().and_then(|row| row.first()?.parse().ok()).unwrap_or(u64::MAX)
    }

    pub(crate) fn leases(&self) -> Vec<LeaseRow> {
        let time = |column: &str| match self.0.store {
            Some(_) => format!("(extract(epoch FROM {column}) * 1000000)::bigint"),
            None => column.to_owned(),
        };
        let (expires, revoking, revoked) =
            (time("expires_at"), time("revoking_at"), time("revoked_at"));
        let rows = self.query(&format!(
            "SELECT handle, state, activated_at IS NOT NULL, {expires}, {revoking}, {revoked}
                 FROM leases"
        ));
        rows.into_iter().map(|row| lease(&row)).collect()
    }

    /// Everything under our prefixes: roles, their sessions, keys. Nothing of it may be left,
    /// but for what has no name that a lease could have.
    pub(crate) fn left_at_backends(&self) -> Vec<(String, String)> {
        let backend = &self.0.backend;
        let roles = block_in_place(|| {
            backend
                .sql("postgres", "SELECT rolname FROM pg_roles WHERE rolname ~ '^df_[a-z2-7]{26}$'")
        });
        // A session whose role is gone has no name any more.
        let sessions = block_in_place(|| {
            backend.sql(
                "postgres",
                "SELECT coalesce(usename, 'role ' || usesysid) FROM pg_stat_activity
                 WHERE backend_type = 'client backend'
                   AND (usename ~ '^df_[a-z2-7]{26}$' OR usename IS NULL)",
            )
        });
        let keys = self.query("SELECT handle FROM api_keys");
        let lines = |text: &str, what: &str| -> Vec<(String, String)> {
            text.lines().map(|line| (line.to_owned(), what.to_owned())).collect()
        };
        let mut left = lines(&roles, "the role is still there");
        left.extend(lines(&sessions, "a session is still open"));
        left.extend(
            keys.into_iter().flatten().map(|key| (key, "the key is still there".to_owned())),
        );
        left
    }

    /// All that is written about a lease, oldest first.
    pub(crate) fn story(&self, handle: &str) -> Vec<String> {
        let handle = handle.replace('\'', "");
        let of = format!("(SELECT id FROM leases WHERE handle = '{handle}')");
        let row = format!(
            "SELECT state, cause, issued_at, expires_at, max_expires_at, mint_deadline, settle_at,
                activated_at, delivered_at, revoking_at, revoked_at, due_at, next_attempt_at,
                attempts, error_class, claim_since, claim_until, epoch
             FROM leases WHERE handle = '{handle}'"
        );
        let records = format!(
            "SELECT at, chain, seq, event, actor, detail FROM audit_records WHERE lease = {of}
             ORDER BY at, seq"
        );
        let mut lines = Vec::new();
        for (what, sql) in [("row", row), ("audit", records)] {
            for row in self.query(&sql) {
                lines.push(format!("{what}: {}", row.join(" | ")));
            }
        }
        lines
    }

    fn query(&self, sql: &str) -> Vec<Vec<String>> {
        match &self.0.store {
            Some(store) => {
                let text = block_in_place(|| store.sql("dayfly", sql));
                let row = |line: &str| line.split('|').map(str::to_owned).collect();
                text.lines().map(row).collect()
            }
            None => block_in_place(|| self.embedded(sql)).unwrap_or_default(),
        }
    }

    fn embedded(&self, sql: &str) -> rusqlite::Result<Vec<Vec<String>>> {
        let path = self.0.disk.as_ref().map(|disk| disk.path().join("dayfly.db")).unwrap();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        let mut statement = connection.prepare(sql)?;
        let columns = statement.column_count();
        let rows = statement
            .query_map([], |row| (0..columns).map(|at| row.get(at).map(text)).collect())?;
        rows.collect()
    }
}

fn text(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text,
        Value::Blob(bytes) => data_encoding::HEXLOWER.encode(&bytes),
    }
}

fn lease(row: &[String]) -> LeaseRow {
    LeaseRow {
        handle: row[0].clone(),
        state: row[1].clone(),
        activated: matches!(row[2].as_str(), "t" | "1"),
        expires_at: row[3].parse().unwrap(),
        revoking_at: row[4].parse().ok(),
        revoked_at: row[5].parse().ok(),
    }
}
