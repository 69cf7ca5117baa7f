//! The message that creates roles.
//!
//! Invariant: one message, one transaction, and the server's clock is looked at after all that
//! can take time, so that a message that was held up on its way, or by a lock, creates nothing
//! after the earliest deadline in it.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use dayfly_backend_sdk::{Handle, MintRequest, Timestamp};

use crate::{
    config::Recipe,
    queue::Key,
    quote::{Ident, Literal, QuoteError, Sql},
    statement::Values,
};

/// Serialises additional statements. Grants on the same object by two transactions at once
/// fail with `tuple concurrently updated` or deadlock, and retrying is slower than queueing.
/// The number is only a name: "dayfly" in ASCII.
pub(crate) const STATEMENTS_LOCK: i64 = 0x6461_7966_6c79;

/// The longest comment on a role.
const COMMENT_CHARS_MAX: usize = 500;

/// One role of a message.
pub(crate) struct Part {
    handle: Handle,
    /// The latest instant at which it may come into being, by the server's clock.
    deadline: Timestamp,
    /// The server repeats them.
    iterations: NonZeroU32,
    create: Sql,
    member_of: Vec<Ident>,
    statements: Sql,
}

impl Part {
    pub(crate) fn new(
        request: &MintRequest<'_>,
        recipe: &Recipe,
        verifier: &str,
        skew: Duration,
    ) -> Result<Self, QuoteError> {
        let name = Ident::handle(request.handle);
        let until = instant(request.expires_at.plus(skew))?;
        let mut sql = create(&name, recipe, &until, verifier)?;
        sql = sql.text("COMMENT ON ROLE ").ident(&name).text(" IS ");
        sql = sql.literal(&Literal::new(&comment(request))?).text(";\n");
        for (setting, values) in &recipe.set {
            sql = sql.text("ALTER ROLE ").ident(&name).text(" SET ");
            for (at, part) in setting.iter().enumerate() {
                sql = if at == 0 { sql.ident(part) } else { sql.text(".").ident(part) };
            }
            sql = sql.text(" = ").list(values, Sql::literal).text(";\n");
        }
        let values = Values::new(request.handle, Some(until));
        let statements = recipe.statements.iter();
        Ok(Self {
            handle: request.handle.clone(),
            deadline: request.mint_deadline.minus(skew),
            iterations: recipe.scram_iterations,
            create: sql,
            member_of: recipe.member_of.clone(),
            statements: statements.fold(Sql::new(), |sql, one| one.render(sql, &values)),
        })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn iterations(&self) -> u32 {
        self.iterations.get()
    }

    pub(crate) fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Whose locks it needs.
    pub(crate) fn key(&self) -> Key {
        Key { groups: self.member_of.iter().cloned().collect(), is_unusual: self.is_unusual() }
    }

    /// Whether it has statements of its own, which nobody else's mint should wait for.
    fn is_unusual(&self) -> bool {
        !self.statements.is_empty()
    }
}

/// The whole message for `parts`. Its last rows are the new roles' names and oids, one for each.
/// It waits for each lock of the server as long as `lock_timeout`; for ours, which others' mints
/// and deaths hold while they get on, as long as a statement may take.
pub(crate) fn message(parts: &[&Part], lock_timeout: Duration) -> Result<Sql, QuoteError> {
    let mut sql = Sql::new();
    if parts.iter().any(|part| part.is_unusual()) {
        sql = locked(sql);
    }
    let lock_timeout_ms = i64::try_from(lock_timeout.as_millis()).unwrap_or(i64::MAX);
    sql = sql.text("SET LOCAL lock_timeout = ").number(lock_timeout_ms).text(";\n");
    for part in parts {
        sql = sql.then(&part.create);
    }
    // After all of them: from PostgreSQL 16 on a grant locks the group's role until the end, and
    // each of the server's own PBKDF2 runs in a `CREATE ROLE`. One group after the other in the
    // order of their names: whoever locks them in another waits in a circle.
    let mut members: BTreeMap<&Ident, Vec<&Handle>> = BTreeMap::new();
    for part in parts {
        for group in &part.member_of {
            members.entry(group).or_default().push(&part.handle);
        }
    }
    for (group, handles) in members {
        sql = sql.text("GRANT ").ident(group).text(" TO ");
        sql = sql.list(handles, |sql, handle| sql.ident(&Ident::handle(handle))).text(";\n");
    }
    for part in parts {
        sql = sql.then(&part.statements);
    }
    let earliest = parts.iter().map(|part| part.deadline).min().unwrap_or(Timestamp::EPOCH);
    let sql = sql.then(&deadline_guard(earliest)?);
    let sql = sql.text("SELECT rolname::pg_catalog.text, oid::pg_catalog.int8 FROM ");
    Ok(any_name(
        sql.text("pg_catalog.pg_roles WHERE rolname"),
        parts.iter().map(|part| &part.handle),
    ))
}

/// That what stands before is one of these names. The server takes the index whatever it
/// knows of the table, and does not weigh each name while it plans, as with `IN`.
pub(crate) fn any_name<'a>(sql: Sql, names: impl Iterator<Item = &'a Handle>) -> Sql {
    sql.text(" = ANY (ARRAY(SELECT pg_catalog.unnest(ARRAY[")
        .list(names, |sql, name| sql.literal(&Literal::handle(name)))
        .text("]::pg_catalog.name[])))")
}

/// Moves a role's expiry.
pub(crate) fn renewal(
    handle: &Handle,
    until: Timestamp,
    skew: Duration,
) -> Result<Sql, QuoteError> {
    let sql = Sql::new().text("ALTER ROLE ").ident(&Ident::handle(handle));
    Ok(sql.text(" VALID UNTIL ").literal(&instant(until.plus(skew))?))
}

/// Waits for the lock that serialises additional statements.
pub(crate) fn locked(sql: Sql) -> Sql {
    sql.text("SELECT pg_catalog.pg_advisory_xact_lock(").number(STATEMENTS_LOCK).text(");\n")
}

fn create(
    name: &Ident,
    recipe: &Recipe,
    until: &Literal,
    verifier: &str,
) -> Result<Sql, QuoteError> {
    let sql = Sql::new()
        .text("CREATE ROLE ")
        .ident(name)
        .text(" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT")
        .text(" CONNECTION LIMIT ")
        .number(recipe.connection_limit)
        .text(" VALID UNTIL ")
        .literal(until)
        .text(" PASSWORD ")
        .literal(&Literal::new(verifier)?);
    Ok(sql.text(";\n"))
}

/// Raises when the server's clock is past `deadline`.
fn deadline_guard(deadline: Timestamp) -> Result<Sql, QuoteError> {
    Sql::new()
        .text("BEGIN IF pg_catalog.clock_timestamp() > ")
        .literal(&instant(deadline)?)
        .text("::pg_catalog.timestamptz THEN RAISE EXCEPTION USING ERRCODE = 'DF001',")
        .text(" MESSAGE = 'the mint deadline has passed'; END IF; END")
        .as_block()
}

fn instant(at: Timestamp) -> Result<Literal, QuoteError> {
    Literal::new(&at.rfc3339())
}

/// For the person who looks at the server: whose role it is.
fn comment(request: &MintRequest<'_>) -> String {
    let text = format!("dayfly lease {} for {}", request.lease, request.principal);
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(COMMENT_CHARS_MAX).map(plain).collect()
}
