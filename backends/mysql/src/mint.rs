//! The message that makes an account.
//!
//! Invariant: the name exists already is an error, and after the deadline, by the server's own
//! clock, no statement begins. One that has begun may wait in the server for longer than any
//! setting bounds; so the whole message runs under a lock of the server by the account's name,
//! and who ends the account ends the lock's holder first.

use std::time::Duration;

use dayfly_backend_sdk::{Handle, MintRequest, Timestamp};
use time::{OffsetDateTime, macros::format_description};

use crate::{
    authentication::Authentication,
    config::Server,
    quote::{Literal, QuoteError, Sql},
    template::Recipe,
};

/// What a mint is made of, besides the request.
pub(crate) struct Order<'a> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) hash: &'a str,
    pub(crate) account_host: &'a Literal,
    pub(crate) server: Server,
    /// How much earlier than the deadline the server looks: the clocks' difference, and how long
    /// a statement may wait for a lock after it has looked.
    pub(crate) early: Duration,
}

/// Looked at anew before each statement.
const IN_TIME: &str =
    "@dayfly_lock = 1 AND UTC_TIMESTAMP(6) <= CAST(@dayfly_deadline AS DATETIME(6))";

/// The server's lock that a mint of `handle` holds.
pub(crate) fn lock(handle: &Handle) -> Literal {
    Literal::plain(&format!("dayfly:{handle}"))
}

/// One message. Its last row says whether it had the lock, and whether it was in time.
///
/// A statement of these commits by itself, so that one that fails leaves those before it: the
/// lease of a mint that failed is revoked, whatever it left.
pub(crate) fn message(request: &MintRequest<'_>, order: &Order<'_>) -> Result<Sql, QuoteError> {
    let name = Literal::handle(request.handle);
    let account = |sql: Sql| sql.account(&name, order.account_host);
    let recipe = order.recipe;
    let deadline = Literal::new(&utc(request.mint_deadline.minus(order.early)))?;
    let lock = lock(request.handle);
    let in_time = Sql::new().text(IN_TIME);
    let mut sql = Sql::new()
        .text("SET @dayfly_deadline = ")
        .literal(&deadline)
        .text(";\nSET @dayfly_lock = GET_LOCK(")
        .literal(&lock)
        .text(", 0);\n");
    let mut create = account(Sql::new().text("CREATE USER "));
    let hash = Literal::new(order.hash)?;
    create = create.text(identified(recipe.authentication)).literal(&hash);
    if order.server == Server::Mysql && !recipe.roles.is_empty() {
        create = create.text(" DEFAULT ROLE ").list(&recipe.roles, Sql::literal);
    }
    if recipe.require_tls {
        create = create.text(" REQUIRE SSL");
    }
    create = create.text(" WITH MAX_USER_CONNECTIONS ").number(recipe.connection_limit);
    for &(limit, number) in &recipe.hourly {
        create = create.text(limit).number(number);
    }
    sql = sql.only_if(&in_time, &create);
    for grant in &recipe.grants {
        let grant = account(Sql::new().text("GRANT ").then(grant).text(" TO "));
        sql = sql.only_if(&in_time, &grant);
    }
    if order.server == Server::Mariadb {
        for role in &recipe.roles {
            let grant = account(Sql::new().text("GRANT ").literal(role).text(" TO "));
            let set = Sql::new().text("SET DEFAULT ROLE ").literal(role).text(" FOR ");
            sql = sql.only_if(&in_time, &grant).only_if(&in_time, &account(set));
        }
    }
    let sql = sql.text("SET @dayfly_in_time = ").text(IN_TIME);
    let sql = sql.text(";\nDO RELEASE_LOCK(").literal(&lock);
    Ok(sql.text(");\nSELECT CAST(@dayfly_lock AS SIGNED), CAST(@dayfly_in_time AS SIGNED)"))
}

/// What stands before the hash. The two servers have a grammar each.
fn identified(authentication: Authentication) -> &'static str {
    match authentication {
        Authentication::CachingSha2Password => " IDENTIFIED WITH caching_sha2_password AS ",
        Authentication::Ed25519 => " IDENTIFIED VIA ed25519 USING ",
        Authentication::MysqlNativePassword => " IDENTIFIED VIA mysql_native_password USING ",
    }
}

/// `2026-11-22 16:07:35.000000`, in UTC.
fn utc(at: Timestamp) -> String {
    let format =
        format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]");
    let nanos = i128::from(at.micros()) * 1_000;
    // A time that cannot be written is long past: nothing is made.
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(format).unwrap_or_else(|_| "1970-01-01 00:00:00".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_written_as_the_server_reads_it() {
        let at = Timestamp::from_micros(1_700_000_000_000_042);
        assert_eq!(utc(at), "2023-11-14 22:13:20.000042");
        assert_eq!(utc(Timestamp::from_micros(i64::MAX)), "9999-12-31 23:59:59.000000");
    }
}
