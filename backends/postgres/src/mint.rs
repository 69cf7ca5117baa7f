//! The message that creates a role.
//!
//! Invariant: one message, one transaction, and the server's clock is looked at before the
//! `CREATE ROLE` and once more at the end, so that a message that was held up on its way, or
//! by a lock, creates nothing after its deadline.

use std::time::Duration;

use dayfly_backend_sdk::{Handle, MintRequest, Timestamp};

use crate::{
    config::Recipe,
    quote::{Ident, Literal, QuoteError, Sql},
    statement::Values,
};

/// Serialises additional statements. Grants on the same object by two transactions at once
/// fail with `tuple concurrently updated` or deadlock, and retrying is slower than queueing.
/// The number is only a name: "dayfly" in ASCII.
pub(crate) const STATEMENTS_LOCK: i64 = 0x6461_7966_6c79;

/// The longest comment on a role.
const COMMENT_CHARS_MAX: usize = 500;

/// The whole message. Its last row is the new role's oid.
pub(crate) fn message(
    request: &MintRequest<'_>,
    recipe: &Recipe,
    verifier: &str,
    skew: Duration,
) -> Result<Sql, QuoteError> {
    let name = Ident::handle(request.handle);
    let guard = deadline_guard(request.mint_deadline.minus(skew))?;
    let until = instant(request.expires_at.plus(skew))?;
    let mut sql = Sql::new();
    if !recipe.statements.is_empty() {
        // Before the guard: the time spent waiting counts.
        sql = locked(sql);
    }
    sql = create(sql.then(&guard), &name, recipe, &until, verifier)?;
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
    for statement in &recipe.statements {
        sql = statement.render(sql, &values);
    }
    Ok(oid_of(sql.then(&guard), request.handle))
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
    sql: Sql,
    name: &Ident,
    recipe: &Recipe,
    until: &Literal,
    verifier: &str,
) -> Result<Sql, QuoteError> {
    let mut sql = sql
        .text("CREATE ROLE ")
        .ident(name)
        .text(" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT")
        .text(" CONNECTION LIMIT ")
        .number(recipe.connection_limit)
        .text(" VALID UNTIL ")
        .literal(until)
        .text(" PASSWORD ")
        .literal(&Literal::new(verifier)?);
    if !recipe.member_of.is_empty() {
        sql = sql.text(" IN ROLE ").list(&recipe.member_of, Sql::ident);
    }
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

fn oid_of(sql: Sql, handle: &Handle) -> Sql {
    sql.text("SELECT oid::pg_catalog.int8 FROM pg_catalog.pg_roles WHERE rolname = ")
        .literal(&Literal::handle(handle))
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
