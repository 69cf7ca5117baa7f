//! The ends of jobs.
//!
//! Invariant: a key's lock is taken before anything of it is read, so that a task that is being
//! opened and the end of its job do not miss each other: neither sees what the other has not
//! yet committed. That holds because each statement sees what was committed before it, and not
//! before its transaction: READ COMMITTED, which our connections ask for.

use std::collections::BTreeMap;

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{JobEnd, JobKey, StoreError, TaskEnd, TaskId, Write, transact::OpenTasks};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{query_tasks, unavailable};
use crate::row;

/// Locks the jobs that `writes` ask about until the commit. Tasks of one job are opened side by
/// side; its end waits for them, and they for it.
pub(super) async fn lock_all(
    connection: &mut PgConnection,
    writes: &[Write],
) -> Result<(), sqlx::Error> {
    for (key, exclusive) in in_order(writes) {
        lock(connection, key.as_str(), exclusive).await?;
    }
    Ok(())
}

/// Each job once, exclusively if one of the writes ends it, in the order that every replica has:
/// none waits in a circle, and none that has a share of a lock asks for the whole.
fn in_order(writes: &[Write]) -> BTreeMap<&JobKey, bool> {
    let mut keys = BTreeMap::new();
    for (key, ends) in writes.iter().flat_map(Write::job_keys) {
        *keys.entry(key).or_insert(false) |= ends;
    }
    keys
}

pub(super) async fn lock(
    connection: &mut PgConnection,
    key: &str,
    exclusive: bool,
) -> Result<(), sqlx::Error> {
    // Two keys with one hash wait for each other, and that is all.
    if exclusive {
        sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1, 1)) IS NULL AS held", key,)
            .fetch_one(connection)
            .await
            .map(drop)
    } else {
        sqlx::query!(
            "SELECT pg_advisory_xact_lock_shared(hashtextextended($1, 1)) IS NULL AS held",
            key,
        )
        .fetch_one(connection)
        .await
        .map(drop)
    }
}

/// How it ended, if that is remembered.
pub(super) async fn ended(
    connection: &mut PgConnection,
    key: &JobKey,
    now: Timestamp,
) -> Result<Option<TaskEnd>, StoreError> {
    let ended = sqlx::query_scalar!(
        "SELECT ended FROM ended_jobs WHERE key = $1 AND expires_at > $2",
        key.as_str(),
        now.offset(),
    )
    .fetch_optional(connection)
    .await
    .map_err(unavailable)?;
    ended.map(|ended| row::job_end(key, &ended)).transpose()
}

/// Answers with how many ends were forgotten before their time.
pub(super) async fn remember(
    connection: &mut PgConnection,
    ended: &JobEnd,
    now: Timestamp,
) -> Result<u64, StoreError> {
    // What is there already is too old to count.
    let place = sqlx::query_scalar!(
        "INSERT INTO ended_jobs (key, told_by, place, ended, expires_at)
         VALUES ($1, $2,
            1 + COALESCE((SELECT max(place) FROM ended_jobs WHERE told_by = $2), 0), $3, $4)
         ON CONFLICT (key) DO UPDATE SET told_by = EXCLUDED.told_by, place = EXCLUDED.place,
            ended = EXCLUDED.ended, expires_at = EXCLUDED.expires_at
         RETURNING place",
        ended.key.as_str(),
        ended.actor,
        ended.end.as_str(),
        now.plus(ended.keep).offset(),
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(unavailable)?;
    // A few more than come, so that it ends. What another replica is deleting is passed over.
    sqlx::query!(
        "DELETE FROM ended_jobs WHERE key IN (
            SELECT key FROM ended_jobs WHERE expires_at <= $1
            ORDER BY expires_at LIMIT 64 FOR UPDATE SKIP LOCKED)",
        now.offset(),
    )
    .execute(&mut *connection)
    .await
    .map_err(unavailable)?;
    let forgotten = sqlx::query!(
        "DELETE FROM ended_jobs WHERE key IN (
            SELECT key FROM ended_jobs WHERE told_by = $1 AND place <= $2 AND expires_at > $3
            ORDER BY place LIMIT 64 FOR UPDATE SKIP LOCKED)",
        ended.actor,
        place - i64::from(ended.remembered_max),
        now.offset(),
    )
    .execute(connection)
    .await
    .map_err(unavailable)?;
    Ok(forgotten.rows_affected())
}

/// Its open tasks behind `after`, locked against other changes.
pub(super) async fn tasks(
    connection: &mut PgConnection,
    key: &JobKey,
    after: Option<TaskId>,
    limit: u32,
) -> Result<OpenTasks, StoreError> {
    let rows = query_tasks!(
        "WHERE ended IS NULL AND (job = $1 OR run = $1) AND id > $2
         ORDER BY id LIMIT $3 FOR UPDATE",
        key.as_str(),
        after.map_or(Uuid::nil(), TaskId::uuid),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await
    .map_err(unavailable)?;
    let seen: Vec<TaskId> = rows.iter().map(|row| TaskId::from_uuid(row.id)).collect();
    Ok(OpenTasks::new(&seen, row::readable_tasks(rows), limit))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dayfly_lease::{JobKeys, NewTask, ReplicaId, audit::Entry};

    use super::*;

    fn key(text: &str) -> JobKey {
        JobKey::parse(text).unwrap()
    }

    fn opening(run: &str, job: &str) -> Write {
        let task = NewTask {
            id: TaskId::from_uuid(Uuid::nil()),
            principal: "ci|repo".into(),
            issuer: "ci".into(),
            identity: serde_json::Value::Null,
            issued_at: None,
            purpose: "test".into(),
            token_hash: [0; 32],
            ttl: Duration::from_mins(1),
            heartbeat: None,
            keys: JobKeys { run: Some(key(run)), job: Some(key(job)) },
            binding: None,
            on_behalf_of: None,
            person_issued_at: None,
        };
        let decision = Entry::new("task.opened", "ci|repo");
        Write::OpenTask { task: Box::new(task), used: Vec::new(), decision }
    }

    fn ending(job: &str) -> Write {
        let ended = JobEnd {
            key: key(job),
            end: TaskEnd::Completed,
            actor: "webhook|ci".into(),
            keep: Duration::from_mins(1),
            remembered_max: 10,
            limit: 10,
        };
        Write::CloseJob { ended: Box::new(ended), after: None }
    }

    #[test]
    fn jobs_are_locked_once_and_in_one_order() {
        let owner = ReplicaId::from_uuid(Uuid::nil());
        let writes = [ending("c"), opening("d", "b"), Write::HandBack { owner }, opening("a", "c")];
        let locked: Vec<_> =
            in_order(&writes).into_iter().map(|(key, whole)| (key.as_str(), whole)).collect();
        assert_eq!(locked, [("a", false), ("b", false), ("c", true), ("d", false)]);
        let mut reversed = writes.clone();
        reversed.reverse();
        assert_eq!(in_order(&reversed), in_order(&writes));
    }
}
