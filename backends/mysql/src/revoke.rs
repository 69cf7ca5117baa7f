//! The end of accounts: locked, their sessions ended, dropped, and looked for.
//!
//! A session that is open goes on after `DROP USER`, on MariaDB with all rights that it had on
//! `*.*`; so the sessions end first. A login that had begun before the account was locked can
//! still come through after it is gone (its account was read at its beginning); it has the
//! account's name and no right on anything. [`alive`] finds it by that name.
//!
//! Invariant: an account is gone when neither it nor a session of it is there, nobody is making
//! it, and we may see that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dayfly_backend_sdk::{Doomed, Handle, Revocation};
use sqlx::{Row, mysql::MySqlRow};

use crate::{
    connection::{Link, Open},
    error::Failure,
    mint::lock,
    quote::{Literal, Sql},
};

const DOING: &str = "the account could not be revoked";
/// How soon sessions that were ended are looked for again, and how the wait grows.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(100);
/// An account that is there again after so many drops is somebody else's doing.
const DROPS_MAX: u32 = 3;

/// Ends all of `doomed`, and says of each whether it is gone.
pub(crate) async fn revoke(link: &Link, doomed: &[Doomed], patience: Duration) -> Vec<Revocation> {
    let handles: Vec<&Handle> = doomed.iter().map(|one| &one.handle).collect();
    let outcome = end(link, &handles, patience).await;
    let refused = outcome.as_ref().err().is_some_and(Failure::is_refused);
    if !refused || handles.len() < 2 {
        return handles.iter().map(|handle| said(outcome.as_ref(), handle)).collect();
    }
    // One of them is in the way of all: each by itself, so that it is in nobody else's.
    let each = handles.iter().map(async |handle| {
        let outcome = end(link, std::slice::from_ref(handle), patience).await;
        said(outcome.as_ref(), handle)
    });
    futures_util::future::join_all(each).await
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
///
/// What is found decides the next step: a mint under way is ended; accounts are locked; while
/// they have sessions, these are ended; locked and without sessions, they are dropped; and only
/// when nothing is found any more are they gone.
async fn end(
    link: &Link,
    handles: &[&Handle],
    patience: Duration,
) -> Result<BTreeSet<String>, Failure> {
    let mut open = link.open().await?;
    let mut locked = BTreeSet::new();
    let mut drops = 0;
    let mut wait = LOOK_AGAIN;
    let mut waited = Duration::ZERO;
    while !handles.is_empty() {
        let found = look(&mut open, handles).await?;
        let fresh: BTreeSet<Account> = found.accounts.difference(&locked).cloned().collect();
        if !fresh.is_empty() {
            open.run(&on_all("ALTER USER IF EXISTS ", &fresh, " ACCOUNT LOCK")?).await?;
            locked.extend(fresh);
            // Also for those that came in before the lock took hold.
            continue;
        }
        // Logins too. They are not waited for: whoever has a dead password may send as many of
        // them as he likes.
        for (id, connected) in &found.connections {
            open = kill(open, link, *id, connected).await?;
        }
        let busy = found.connections.values().any(|one| one.what != What::Login);
        if !busy && found.accounts.is_empty() {
            return Ok(BTreeSet::new());
        }
        if !busy && drops < DROPS_MAX {
            open.run(&on_all("DROP USER IF EXISTS ", &found.accounts, "")?).await?;
            drops += 1;
            continue;
        }
        if waited > patience || drops == DROPS_MAX {
            return Ok(found.alive());
        }
        tokio::time::sleep(wait).await;
        waited += wait;
        wait = (wait * 2).min(LOOK_AGAIN_MAX);
    }
    Ok(BTreeSet::new())
}

/// Which of them are there, are being made, or have a session.
pub(crate) async fn alive(link: &Link, handles: &[&Handle]) -> Result<BTreeSet<String>, Failure> {
    if handles.is_empty() {
        return Ok(BTreeSet::new());
    }
    Ok(look(&mut link.open().await?, handles).await?.alive())
}

/// Ends a connection if it still is what it was. Gives a connection to go on with.
async fn kill<'a>(
    mut open: Open<'a>,
    link: &'a Link,
    id: u64,
    connected: &Connected,
) -> Result<Open<'a>, Failure> {
    let name = Literal::new(&connected.name)?;
    let still = match connected.what {
        What::Mint => {
            let handle =
                Handle::parse(&connected.name).map_err(|error| Failure::Ours(error.to_string()))?;
            Sql::new().text("IS_USED_LOCK(").literal(&lock(&handle)).text(") = ").number(id)
        }
        What::Login | What::Session => Sql::new()
            .text("EXISTS (SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = ")
            .number(id)
            .text(" AND USER = ")
            .literal(&name)
            .text(")"),
    };
    let kill = Sql::new().text("KILL ").number(id);
    match open.run(&Sql::new().only_if(&still, &kill)).await {
        // It has gone by itself. A connection that was told of an error is not used again.
        Err(failure) if failure.is_no_such_thread() => link.open().await,
        Err(failure) => Err(failure),
        Ok(_) => Ok(open),
    }
}

/// Name and host.
type Account = (String, String);

/// What there is of some handles.
#[derive(Default)]
struct Found {
    /// An account that somebody made under our name with another host is ended as well.
    accounts: BTreeSet<Account>,
    /// By the number of the connection.
    connections: BTreeMap<u64, Connected>,
}

struct Connected {
    name: String,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// It has not logged in yet, and is nobody's session. Of an account that is gone, and was
    /// when it began, it never will be.
    Login,
    /// One of ours that is making the account.
    Mint,
    /// A session of the account.
    Session,
}

impl Found {
    fn alive(self) -> BTreeSet<String> {
        let accounts = self.accounts.into_iter().map(|(name, _)| name);
        let connections = self.connections.into_values();
        let connections = connections.filter(|one| one.what != What::Login).map(|one| one.name);
        accounts.chain(connections).collect()
    }
}

async fn look(open: &mut Open<'_>, handles: &[&Handle]) -> Result<Found, Failure> {
    let named = |sql: Sql| {
        sql.list(handles, |sql, handle| sql.literal(&Literal::handle(handle))).text(");\n")
    };
    // Without the right to see others' connections PROCESSLIST shows our own and says nothing.
    // This has nothing to show, and fails without that right.
    let may_see = Sql::new().text("SHOW ENGINE MEMORY STATUS;\n");
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
    let mut mints = Sql::new().text("SELECT name, 'Mint', CAST(id AS UNSIGNED) FROM (");
    for (at, handle) in handles.iter().enumerate() {
        let union = if at > 0 { " UNION ALL SELECT " } else { "SELECT " };
        mints = mints.text(union).literal(&Literal::handle(handle)).text(" AS name, IS_USED_LOCK(");
        mints = mints.literal(&lock(handle)).text(") AS id");
    }
    let mints = mints.text(") AS mints WHERE id IS NOT NULL");
    // The mints before the accounts: one that ends in between has left its account.
    let message = may_see.then(&mints).text(";\n").then(&accounts).then(&sessions);
    let rows = open.run(&message).await?;
    let ours: BTreeSet<&str> = handles.iter().map(|handle| handle.as_str()).collect();
    let mut found = Found::default();
    for row in &rows {
        let name = text(row, 0)?;
        // The server may take letters in another case for the same.
        if !ours.contains(name.as_str()) {
            continue;
        }
        let detail = text(row, 1)?;
        match column::<u64>(row, 2)? {
            0 => {
                found.accounts.insert((name, detail));
            }
            id => {
                let what = match detail.as_str() {
                    "Connect" => What::Login,
                    "Mint" => What::Mint,
                    _ => What::Session,
                };
                found.connections.insert(id, Connected { name, what });
            }
        }
    }
    Ok(found)
}

fn on_all(
    verb: &'static str,
    accounts: &BTreeSet<Account>,
    rest: &'static str,
) -> Result<Sql, Failure> {
    let quoted = |(name, host): &Account| -> Result<_, Failure> {
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
