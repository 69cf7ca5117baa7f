//! Rows out of SQLite.
//!
//! Invariant: a column of the wrong type is an error; what a text means is judged in `row.rs`.

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{
    Counts, Disabled, Lease, LeaseId, ReplicaId, Root, Sealed, Sighting, Standing, StoreError,
    Task, TaskId, audit::Head,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::{
    Page,
    row::{self, DisabledRow, LeaseRow, Moment, RecordRow, TaskRow},
};

pub(super) const LEASE_COLUMNS: &str = "id, task, principal, issuer, role, backend, handle, \
    decision_chain, decision_seq, epoch, state, issued_at, expires_at, max_expires_at, \
    native_expires_at, mint_deadline, settle_at, activated_at, delivered_at, cause, revoking_at, \
    revoked_at, next_attempt_at, attempts, error_class, claim_owner, claim_since, claim_until, \
    renewable, belts, abandon_by, abandon_reason, abandon_at, plan, due_at, quarantined, kept, \
    on_behalf_of, on_behalf_name";
pub(super) const TASK_COLUMNS: &str = "id, principal, issuer, identity, purpose, token_hash, \
    opened_at, expires_at, ended, closed_at, heartbeat, lost_at, run, job, bound_by, bound_to, \
    on_behalf_of, on_behalf_name";
/// When a task is due, as the index on it has it: `min` of a NULL would be NULL.
pub(super) const TASK_DUE: &str = "min(expires_at, ifnull(lost_at, expires_at))";
pub(super) const DISABLED_COLUMNS: &str =
    "principal, cut_off, disabled_at, disabled_by, reason, ending, expires_at";
pub(super) const RECORD_COLUMNS: &str =
    "chain, seq, at, event, actor, task, lease, detail, prev, hash, signature";

pub(super) fn uuid(row: &Row<'_>, column: &str) -> rusqlite::Result<Uuid> {
    row.get::<_, [u8; 16]>(column).map(Uuid::from_bytes)
}

fn uuid_or_none(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Uuid>> {
    row.get::<_, Option<[u8; 16]>>(column).map(|bytes| bytes.map(Uuid::from_bytes))
}

pub(super) fn at(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_micros)
}

pub(super) fn moment(row: &Row<'_>, column: &str) -> rusqlite::Result<Moment> {
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
        abandon_by: row.get("abandon_by")?,
        abandon_reason: row.get("abandon_reason")?,
        abandon_at: moment(row, "abandon_at")?,
        plan: json(row, "plan")?,
        due_at: moment(row, "due_at")?,
        quarantined: row.get("quarantined")?,
        kept: row.get("kept")?,
        on_behalf_of: row.get("on_behalf_of")?,
        on_behalf_name: row.get("on_behalf_name")?,
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
        heartbeat: row.get("heartbeat")?,
        lost_at: moment(row, "lost_at")?,
        run: row.get("run")?,
        job: row.get("job")?,
        bound_by: row.get("bound_by")?,
        bound_to: row.get("bound_to")?,
        on_behalf_of: row.get("on_behalf_of")?,
        on_behalf_name: row.get("on_behalf_name")?,
    })
}

pub(super) fn disabled_row(row: &Row<'_>) -> rusqlite::Result<Disabled> {
    let columns = DisabledRow {
        principal: row.get("principal")?,
        cut_off: moment(row, "cut_off")?,
        disabled_at: at(row, "disabled_at")?,
        disabled_by: row.get("disabled_by")?,
        reason: row.get("reason")?,
        ending: row.get("ending")?,
        expires_at: moment(row, "expires_at")?,
    };
    Ok(columns.into())
}

pub(super) fn record_row(row: &Row<'_>) -> rusqlite::Result<RecordRow> {
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
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
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

pub(super) fn page<R, T>(rows: Vec<R>, limit: u32) -> Result<Page<T>, StoreError>
where
    T: TryFrom<R, Error = StoreError>,
{
    Ok(Page::of(rows.into_iter().map(T::try_from).collect::<Result<_, _>>()?, limit))
}

pub(super) fn lease(connection: &Connection, id: LeaseId) -> Result<Option<Lease>, StoreError> {
    let sql = format!("SELECT {LEASE_COLUMNS} FROM leases WHERE id = ?1");
    let read = |row: &Row<'_>| Ok(lease_row(row));
    let found = rows(connection, &sql, params![id.uuid().as_bytes()], read)?.into_iter().next();
    let unreadable = |_| StoreError::Corrupt { what: format!("lease {id}") };
    found.map(|row| row.map_err(unreadable).and_then(Lease::try_from)).transpose()
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
    let sql = "SELECT state, count(*), COALESCE(error_class = ?2, false), max(native_expires_at)
        FROM leases WHERE task = ?1 GROUP BY state, 3";
    let read = |row: &Row<'_>| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get(2)?, row.get(3)?))
    };
    let mut counts = Counts::default();
    let task = task.uuid();
    let params = params![task.as_bytes(), Lease::LINGERS];
    for (state, count, lingers, until) in rows(connection, sql, params, read)? {
        let (count, until): (u64, Option<i64>) = (count.cast_unsigned(), until);
        match state.as_str() {
            "pending" => counts.pending += count,
            "active" => counts.active += count,
            "revoked" => counts.revoked += count,
            "abandoned" => counts.abandoned += count,
            "revoking" if lingers => {
                counts.revoking += count;
                counts.lingering = count;
                counts.residual_until = until.map(Timestamp::from_micros);
            }
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
    let sql =
        format!("SELECT {TASK_DUE} FROM tasks WHERE ended IS NULL ORDER BY {TASK_DUE} LIMIT 1");
    instant(connection, &sql, [])
}

pub(super) fn installation(connection: &Connection) -> Result<Uuid, StoreError> {
    connection
        .query_row("SELECT id FROM installation", [], |row| uuid(row, "id"))
        .map_err(StoreError::unavailable)
}

pub(super) fn standing(connection: &Connection) -> Result<Standing, StoreError> {
    let sql = "SELECT suspended_at, suspended_reason, hold_from, hold_to, hold_until
        FROM installation";
    let read = |row: &Row<'_>| {
        Ok(row::standing(
            moment(row, "suspended_at")?,
            row.get("suspended_reason")?,
            [moment(row, "hold_from")?, moment(row, "hold_to")?, moment(row, "hold_until")?],
        ))
    };
    connection.query_row(sql, [], read).map_err(StoreError::unavailable)
}

/// When a heartbeat was last turned away.
pub(super) fn turned_away(connection: &Connection) -> Result<Option<Timestamp>, StoreError> {
    let sql = "SELECT turned_away_at FROM installation";
    let read = |row: &Row<'_>| row.get::<_, Option<i64>>(0);
    let found = connection.query_row(sql, [], read).map_err(StoreError::unavailable)?;
    Ok(found.map(Timestamp::from_micros))
}

/// How many sweeps have begun, and when the last one did.
pub(super) fn turn(
    connection: &Connection,
    backend: &str,
) -> Result<(u64, Option<Timestamp>), StoreError> {
    let sql = "SELECT turn, began_at FROM sweeps WHERE backend = ?1";
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>("turn")?, at(row, "began_at")?));
    let found = rows(connection, sql, params![backend], read)?.into_iter().next();
    Ok(found.map_or((0, None), |(turn, at)| (turn.cast_unsigned(), Some(at))))
}

/// Which of `ids` have a row, readable or not.
pub(super) fn sightings(
    connection: &Connection,
    ids: &[LeaseId],
) -> Result<Vec<Sighting>, StoreError> {
    let places = vec!["?"; ids.len()].join(",");
    let sql = format!("SELECT id, backend, state FROM leases WHERE id IN ({places})");
    let ids = ids.iter().map(|id| *id.uuid().as_bytes());
    let read = |row: &Row<'_>| {
        let state: String = row.get("state")?;
        Ok(Sighting {
            lease: LeaseId::from_uuid(uuid(row, "id")?),
            backend: row.get("backend")?,
            may_live: row::may_live(&state),
        })
    };
    rows(connection, &sql, rusqlite::params_from_iter(ids), read)
}

pub(super) fn living_of(
    connection: &Connection,
    backend: &str,
    after: Option<LeaseId>,
    limit: u32,
) -> Result<Vec<Lease>, StoreError> {
    let sql = format!(
        "SELECT {LEASE_COLUMNS} FROM leases WHERE backend = ?1 AND id > ?2
         AND state IN ('pending', 'active', 'revoking') ORDER BY id LIMIT ?3"
    );
    let after = after.map_or([0; 16], |id| *id.uuid().as_bytes());
    let rows = rows(connection, &sql, params![backend, after, limit], lease_row)?;
    rows.into_iter().map(Lease::try_from).collect()
}

pub(super) fn root(connection: &Connection, backend: &str) -> Result<Option<Root>, StoreError> {
    let sql = "SELECT epoch, current, staged, staged_at, rotated_at FROM roots WHERE backend = ?1";
    let instant = |at: Option<i64>| at.map(Timestamp::from_micros);
    let read = |row: &Row<'_>| {
        let staged = row.get::<_, Option<Vec<u8>>>(2)?.map(Sealed::from_bytes);
        Ok(Root {
            backend: backend.to_owned(),
            epoch: row.get(0)?,
            current: row.get::<_, Option<Vec<u8>>>(1)?.map(Sealed::from_bytes),
            staged: staged.zip(instant(row.get(3)?)),
            rotated_at: instant(row.get(4)?),
        })
    };
    Ok(rows(connection, sql, params![backend], read)?.into_iter().next())
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
