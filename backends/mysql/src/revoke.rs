//! The end of accounts: locked, their sessions ended, dropped, and looked for.
//!
//! A session that is open goes on after `DROP USER`, on MariaDB with all rights that it had on
//! `*.*`; so the sessions end first. A login that had begun before the account was locked can
//! still come through after it is gone (its account was read at its beginning); it has the
//! account's name and no right on anything. [`alive`] finds it by that name.
//!
//! Invariant: an account is gone when neither it nor a session of it is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dayfly_backend_sdk::{Doomed, Handle, Revocation};
use sqlx::{Row, mysql::MySqlRow};

use crate::{
    config::Server,
    connection::Link,
    error::Failure,
    quote::{Literal, Sql},
};

const DOING: &str = "the account could not be revoked";
/// How soon sessions that were ended are looked for again, and how the wait grows.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(100);

/// Ends all of `doomed`, and says of each whether it is gone.
pub(crate) async fn revoke(
    link: &Link,
    server: Server,
    doomed: &[Doomed],
    patience: Duration,
) -> Vec<Revocation> {
    let handles: Vec<&Handle> = doomed.iter().map(|one| &one.handle).collect();
    let outcome = end(link, server, &handles, patience).await;
    let refused = outcome.as_ref().err().is_some_and(Failure::is_refused);
    if !refused || handles.len() < 2 {
        return handles.iter().map(|handle| said(outcome.as_ref(), handle)).collect();
    }
    // One of them is in the way of all: each by itself, so that it is in nobody else's.
    let mut each = Vec::with_capacity(handles.len());
    for handle in &handles {
        let outcome = end(link, server, std::slice::from_ref(handle), patience).await;
        each.push(said(outcome.as_ref(), handle));
    }
    each
}

fn said(outcome: Result<&BTreeSet<String>, &Failure>, handle: &Handle) -> Revocation {
    match outcome {
        Err(failure) => Revocation::Failed(failure.clone().into_error(DOING)),
        Ok(left) if left.contains(handle.as_str()) => {
            let failure = Failure::Survived("it or a session of it is still there");
            Revocation::Failed(failure.into_error(DOING))
        }
        Ok(_) => Revocation::Gone,
    }
}

/// Which of them are left, after all was done to end them.
async fn end(
    link: &Link,
    server: Server,
    handles: &[&Handle],
    patience: Duration,
) -> Result<BTreeSet<String>, Failure> {
    if handles.is_empty() {
        return Ok(BTreeSet::new());
    }
    let found = look(link, handles).await?;
    if !found.accounts.is_empty() {
        link.run(&on_all("ALTER USER IF EXISTS ", &found.accounts, " ACCOUNT LOCK")?).await?;
    }
    // Also those that came in before the lock took hold, so they are looked for after it.
    kill_all(link, server, handles, patience).await?;
    if !found.accounts.is_empty() {
        link.run(&on_all("DROP USER IF EXISTS ", &found.accounts, "")?).await?;
    }
    // And those whose login had begun before it.
    kill_all(link, server, handles, patience).await?;
    alive(link, handles).await
}

/// Which of them are there, or have a session.
pub(crate) async fn alive(link: &Link, handles: &[&Handle]) -> Result<BTreeSet<String>, Failure> {
    if handles.is_empty() {
        return Ok(BTreeSet::new());
    }
    let found = look(link, handles).await?;
    let accounts = found.accounts.into_iter().map(|(name, _)| name);
    let sessions = found.sessions.into_values().filter(|one| !one.is_login).map(|one| one.name);
    Ok(accounts.chain(sessions).collect())
}

/// Ends sessions and logins until there is no session. Those that do not end in time are left to be found.
async fn kill_all(
    link: &Link,
    server: Server,
    handles: &[&Handle],
    patience: Duration,
) -> Result<(), Failure> {
    let mut wait = LOOK_AGAIN;
    let mut waited = Duration::ZERO;
    loop {
        let sessions = look(link, handles).await?.sessions;
        if sessions.is_empty() {
            return Ok(());
        }
        kill(link, server, &sessions).await?;
        // Not for logins: whoever has a dead password may send as many as he likes.
        if sessions.values().all(|one| one.is_login) || waited > patience {
            return Ok(());
        }
        tokio::time::sleep(wait).await;
        waited += wait;
        wait = (wait * 2).min(LOOK_AGAIN_MAX);
    }
}

async fn kill(
    link: &Link,
    server: Server,
    sessions: &BTreeMap<u64, Connected>,
) -> Result<(), Failure> {
    if server == Server::Mariadb {
        // By name: one that has come since is ended too.
        let mut sql = Sql::new();
        for name in sessions.values().map(|one| &one.name).collect::<BTreeSet<_>>() {
            sql = sql.text("KILL USER ").literal(&Literal::new(name)?).text(";\n");
        }
        return link.run(&sql).await.map(drop);
    }
    for id in sessions.keys() {
        match link.run(&Sql::new().text("KILL ").number(*id)).await {
            // It has gone by itself.
            Err(failure) if failure.is_no_such_thread() => {}
            Err(failure) => return Err(failure),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// What there is of some handles.
#[derive(Default)]
struct Found {
    /// Name and host: an account that somebody made under our name with another host is ended
    /// as well.
    accounts: BTreeSet<(String, String)>,
    /// By the number of the connection.
    sessions: BTreeMap<u64, Connected>,
}

struct Connected {
    name: String,
    /// It has not logged in yet, and is nobody's session. Of an account that is gone, and was
    /// when it began, it never will be.
    is_login: bool,
}

async fn look(link: &Link, handles: &[&Handle]) -> Result<Found, Failure> {
    let named =
        |sql: Sql| sql.list(handles, |sql, handle| sql.literal(&Literal::handle(handle))).text(")");
    let accounts = named(
        Sql::new()
            .text("SELECT CONVERT(User USING utf8mb4), CONVERT(Host USING utf8mb4),")
            .text(" CAST(0 AS UNSIGNED) FROM mysql.user WHERE User IN ("),
    );
    let sessions = named(
        Sql::new()
            .text("SELECT CONVERT(USER USING utf8mb4), CONVERT(COMMAND USING utf8mb4),")
            .text(" CAST(ID AS UNSIGNED)")
            .text(" FROM information_schema.PROCESSLIST WHERE USER IN ("),
    );
    let rows = link.run(&accounts.text(";\n").then(&sessions)).await?;
    let mut found = Found::default();
    for row in &rows {
        let name = text(row, 0)?;
        match column::<u64>(row, 2)? {
            0 => {
                found.accounts.insert((name, text(row, 1)?));
            }
            id => {
                let is_login = text(row, 1)? == "Connect";
                found.sessions.insert(id, Connected { name, is_login });
            }
        }
    }
    Ok(found)
}

fn on_all(
    verb: &'static str,
    accounts: &BTreeSet<(String, String)>,
    rest: &'static str,
) -> Result<Sql, Failure> {
    let quoted = |(name, host): &(String, String)| -> Result<_, Failure> {
        Ok((Literal::new(name)?, Literal::new(host)?))
    };
    let quoted = accounts.iter().map(quoted).collect::<Result<Vec<_>, _>>()?;
    let sql = Sql::new().text(verb);
    Ok(sql.list(quoted, |sql, (name, host)| sql.account(&name, &host)).text(rest))
}

/// One column of a row. Types are not compared: MySQL and MariaDB differ in those of their own
/// tables.
pub(crate) fn column<'r, T>(row: &'r MySqlRow, index: usize) -> Result<T, Failure>
where
    T: sqlx::Decode<'r, sqlx::MySql> + sqlx::Type<sqlx::MySql>,
{
    row.try_get_unchecked(index)
        .map_err(|_| Failure::Ours(format!("column {index} of the answer cannot be read")))
}

pub(crate) fn text(row: &MySqlRow, index: usize) -> Result<String, Failure> {
    column(row, index)
}
