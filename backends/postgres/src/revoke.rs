//! How a role ends: fence, end its sessions, hand over what it owns, drop it, look.
//!
//! Invariant: the order. A session that did `SET ROLE` goes on after its role was dropped,
//! so sessions end first; a new one could start while they end, so the fence is before that.
//! Each step takes the whole batch in one message; a message that fails is sent again in
//! halves, so that one bad role delays no other.
//!
//! Where nobody is logged in, the drop is its own fence: nothing is there that would have to
//! end first. One message looks and drops; the server refuses it if one of them owns anything,
//! and then all go the long way. Such a death is proven by [`alive`], which waits for logins that
//! were under way.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use dayfly_backend_sdk::{Doomed, Handle, Revocation};
use sqlx::{Row, postgres::PgRow};

use crate::{
    config::{EndPlan, Owned},
    connection::Server,
    error::Failure,
    mint::{any_name, locked},
    oids::Oids,
    quote::{Ident, Sql},
    statement::{Statement, Values},
};

mod leave;

/// How long ended sessions are waited for between two looks, at first and at most.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(5);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(200);

/// A login that was past its checks when its role was dropped is, as a rule, a session that can be
/// seen after this. On a server that is short of time it may take longer: then it is found as a
/// session of nobody, when the next role is dropped.
const LOGIN_MAX: Duration = Duration::from_millis(10);

/// Ends all of `doomed`, and says of each whether it is gone.
pub(crate) async fn revoke(
    server: &Server,
    oids: &Oids,
    doomed: &[Doomed],
    patience: Duration,
) -> Vec<Revocation> {
    let mut batch = Batch::new(server, doomed);
    let ended = async {
        batch.drop_idle(oids).await?;
        if batch.targets.iter().all(|target| target.dropped) {
            return Ok(());
        }
        batch.locate(oids).await?;
        batch.fence().await;
        batch.end_sessions(patience).await;
        batch.leave().await;
        batch.explain().await;
        batch.verify(oids, patience).await
    };
    match ended.await {
        Ok(()) => batch.outcome(),
        Err(failure) => doomed.iter().map(|_| failed(failure.clone())).collect(),
    }
}

/// The roles and sessions that are left of `handles`. One that was dropped just now is looked at
/// when a login that was past its checks by then can be seen.
pub(crate) async fn alive(
    server: &Server,
    oids: &Oids,
    handles: &[&Handle],
) -> Result<BTreeSet<String>, Failure> {
    let dropped = handles.iter().filter_map(|handle| oids.gone_at(handle)).max();
    if let Some(at) = dropped {
        tokio::time::sleep_until(at + LOGIN_MAX).await;
    }
    let known: Vec<_> = handles.iter().map(|handle| (*handle, oids.known(handle))).collect();
    let left = look(server, &known).await?;
    for handle in handles.iter().filter(|handle| !left.contains(handle.as_str())) {
        oids.gone(handle);
    }
    Ok(left)
}

/// The same at once, with the ids that are given.
async fn look(
    server: &Server,
    handles: &[(&Handle, Option<i64>)],
) -> Result<BTreeSet<String>, Failure> {
    if handles.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows = server.run(&what_is_left(handles)).await?;
    let mut names = BTreeSet::new();
    for row in &rows {
        let (name, oid): (Option<String>, i64) = (column(row, 0)?, column(row, 1)?);
        let by_id = handles.iter().filter(|(_, known)| *known == Some(oid));
        names.extend(by_id.map(|(handle, _)| handle.to_string()));
        names.extend(name);
    }
    Ok(names)
}

/// Each way by an index of its own. A session is looked for by the id alone: one whose role
/// still has a name is found with that.
fn what_is_left(handles: &[(&Handle, Option<i64>)]) -> Sql {
    let names = handles.iter().map(|(handle, _)| *handle);
    let known = || std::iter::once(0).chain(handles.iter().filter_map(|(_, oid)| *oid));
    let roles = "SELECT rolname::pg_catalog.text, oid::pg_catalog.int8 FROM pg_catalog.pg_roles";
    let sql = any_name(Sql::new().text(roles).text(" WHERE rolname"), names);
    let sql = any_id(sql.text(" UNION ALL ").text(roles).text(" WHERE oid"), known());
    let sql = sql.text(" UNION ALL SELECT NULL, usesysid::pg_catalog.int8");
    any_id(sql.text(" FROM pg_catalog.pg_stat_activity WHERE usesysid"), known())
}

/// As [`any_name`], with ids.
pub(crate) fn any_id(sql: Sql, ids: impl Iterator<Item = i64>) -> Sql {
    sql.text(" = ANY (ARRAY(SELECT pg_catalog.unnest(ARRAY[")
        .list(ids, Sql::number)
        .text("]::pg_catalog.oid[])))")
}

/// Ends the sessions of these, and has a row for each that was still there.
fn termination(targets: &[&Target]) -> Sql {
    Sql::new()
        .text("SELECT usesysid::pg_catalog.int8, pg_catalog.pg_terminate_backend(pid)")
        .text(" FROM pg_catalog.pg_stat_activity WHERE usesysid IN (")
        .list(targets.iter().filter_map(|target| target.oid), Sql::number)
        .text(")")
}

/// Whose sessions are those of roles that are no more.
fn strays() -> Sql {
    of_nobody(Sql::new().text("SELECT DISTINCT s.usesysid::pg_catalog.int8"))
}

/// Ends those of them that are sessions of these.
fn end_of_strays(oids: &[i64]) -> Sql {
    let sql = of_nobody(Sql::new().text("SELECT pg_catalog.pg_terminate_backend(s.pid)"));
    any_id(sql.text(" AND s.usesysid"), oids.iter().copied())
}

fn of_nobody(sql: Sql) -> Sql {
    sql.text(" FROM pg_catalog.pg_stat_activity s WHERE s.usesysid IS NOT NULL AND NOT EXISTS")
        .text(" (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = s.usesysid)")
}

/// Drops all of them, and undoes it if somebody is logged in as one: as a role that is no more.
/// What other people have dropped under a session makes this refuse as well. It has the names and
/// ids of those that were there.
fn drop_all(targets: &[&Target]) -> Result<Sql, Failure> {
    let guard = of_nobody(Sql::new().text("BEGIN IF EXISTS (SELECT"))
        .text(") THEN RAISE EXCEPTION USING ERRCODE = 'DF002', MESSAGE = 'a session is open';")
        .text(" END IF; END");
    let sql = Sql::new().text("SELECT rolname::pg_catalog.text, oid::pg_catalog.int8");
    let sql = sql.text(" FROM pg_catalog.pg_roles WHERE rolname");
    let sql = any_name(sql, targets.iter().map(|target| &target.handle));
    let sql = sql.text(";\nDROP ROLE IF EXISTS ");
    let sql = sql.list(targets, |sql, target| sql.ident(&target.name)).text(";\n");
    Ok(sql.then(&guard.as_block()?))
}

/// Drops those of them that nobody is logged in as, and undoes it if somebody is by then. First
/// come the names and ids of all that were there, at last the names of those that still are.
fn drop_unused(targets: &[&Target]) -> Result<Sql, Failure> {
    let named = |sql: Sql| {
        any_name(sql.text(" WHERE rolname"), targets.iter().map(|target| &target.handle))
    };
    let body = Sql::new()
        .text("DECLARE names pg_catalog.text; ids pg_catalog.oid[]; BEGIN")
        .text(" SELECT pg_catalog.string_agg(pg_catalog.quote_ident(rolname), ', '),")
        .text(" pg_catalog.array_agg(oid) INTO names, ids FROM pg_catalog.pg_roles");
    let body = named(body)
        .text(" AND oid <> ALL (ARRAY(SELECT usesysid FROM pg_catalog.pg_stat_activity")
        .text(" WHERE usesysid IS NOT NULL));")
        .text(" IF names IS NULL THEN RETURN; END IF; EXECUTE 'DROP ROLE ' || names;")
        // Within a transaction the view answers as it did before.
        .text(" PERFORM pg_catalog.pg_stat_clear_snapshot();")
        .text(" IF EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE usesysid = ANY (ids))")
        .text(" THEN RAISE EXCEPTION USING ERRCODE = 'DF002', MESSAGE = 'a session is open';")
        .text(" END IF; END");
    let sql = Sql::new().text("SELECT rolname::pg_catalog.text, oid::pg_catalog.int8");
    let sql = named(sql.text(" FROM pg_catalog.pg_roles")).text(";\n").then(&body.as_block()?);
    let sql = sql.text("SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles");
    Ok(named(sql))
}

/// Drops them, and undoes it if one has a session by then.
fn drop_ended(sql: Sql, targets: &[&Target]) -> Result<Sql, Failure> {
    let guard = Sql::new()
        .text("BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE usesysid IN (")
        .list(targets.iter().filter_map(|target| target.oid), Sql::number)
        .text(")) THEN RAISE EXCEPTION USING ERRCODE = 'DF002',")
        .text(" MESSAGE = 'a session is open'; END IF; END");
    let sql = sql.text("DROP ROLE IF EXISTS ");
    let sql = sql.list(targets, |sql, target| sql.ident(&target.name)).text(";\n");
    Ok(sql.then(&guard.as_block()?))
}

/// Decodes one column of an answer of ours.
pub(crate) fn column<'r, T>(row: &'r PgRow, at: usize) -> Result<T, Failure>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(at).map_err(|error| Failure::sent(&error))
}

fn failed(failure: Failure) -> Revocation {
    Revocation::Failed(failure.into_error("the role could not be ended"))
}

struct Target {
    handle: Handle,
    name: Ident,
    owned: Owned,
    statements: Vec<Statement>,
    oid: Option<i64>,
    exists: bool,
    /// Dropped while nobody was logged in as it.
    dropped: bool,
    failure: Option<Failure>,
}

impl Target {
    fn new(doomed: &Doomed) -> Self {
        let mut failure = None;
        let mut note = |error: Failure| failure = Some(error);
        let plan = EndPlan::read(&doomed.plan).unwrap_or_else(|error| {
            note(error.into());
            EndPlan::default()
        });
        let statements = plan.statements().unwrap_or_else(|error| {
            note(Failure::Ours(error.to_string()));
            Vec::new()
        });
        Self {
            handle: doomed.handle.clone(),
            name: Ident::handle(&doomed.handle),
            owned: plan.owned,
            statements,
            oid: None,
            exists: false,
            dropped: false,
            failure,
        }
    }

    /// Whether the next step still makes sense.
    fn stands(&self) -> bool {
        self.exists && self.failure.is_none()
    }
}

struct Batch<'a> {
    server: &'a Server,
    targets: Vec<Target>,
}

impl<'a> Batch<'a> {
    fn new(server: &'a Server, doomed: &[Doomed]) -> Self {
        Self { server, targets: doomed.iter().map(Target::new).collect() }
    }

    /// Which of the others exist, under which id. The id outlives the name.
    async fn locate(&mut self, oids: &Oids) -> Result<(), Failure> {
        let sql = Sql::new()
            .text("SELECT rolname::pg_catalog.text, oid::pg_catalog.int8")
            .text(" FROM pg_catalog.pg_roles WHERE rolname");
        let others = self.targets.iter_mut().filter(|target| !target.dropped);
        let mut others: Vec<&mut Target> = others.collect();
        let sql = any_name(sql, others.iter().map(|target| &target.handle));
        let mut found = BTreeMap::new();
        for row in self.server.run(&sql).await? {
            found.insert(column::<String>(&row, 0)?, column::<i64>(&row, 1)?);
        }
        for target in &mut others {
            let oid = found.get(target.handle.as_str()).copied();
            target.exists = oid.is_some();
            target.oid = oid.or_else(|| oids.known(&target.handle));
            if let Some(oid) = oid {
                oids.remember(&target.handle, oid);
            }
        }
        Ok(())
    }

    /// Most roles have no session and own nothing when they end: a quarter of the server's
    /// work, which counts when very many are due. One that does own something makes the server
    /// refuse all of the message, and nothing of it has happened.
    async fn drop_idle(&mut self, oids: &Oids) -> Result<(), Failure> {
        let chosen = self.those(|target| target.failure.is_none() && target.statements.is_empty());
        let targets: Vec<&Target> = chosen.iter().filter_map(|at| self.targets.get(*at)).collect();
        if targets.is_empty() {
            return Ok(());
        }
        let mut answer = self.server.run(&drop_all(&targets)?).await;
        if let Err(failure) = &answer
            && failure.is_session_open()
        {
            // What cannot be ended now is found again by the next.
            let _ = self.end_strays(oids).await;
            if targets.len() > 1 {
                answer = self.server.run(&drop_unused(&targets)?).await;
            }
        }
        let rows = match answer {
            Ok(rows) => rows,
            Err(failure) if failure.is_rolled_back() => return Ok(()),
            Err(failure @ Failure::Connect { .. }) => return Err(failure),
            Err(failure) => {
                self.note(&chosen, &failure);
                return Ok(());
            }
        };
        let (mut found, mut left) = (BTreeMap::new(), BTreeSet::new());
        for row in &rows {
            match row.len() {
                1 => drop(left.insert(column::<String>(row, 0)?)),
                _ => drop(found.insert(column::<String>(row, 0)?, column::<i64>(row, 1)?)),
            }
        }
        for at in chosen {
            let Some(target) = self.targets.get_mut(at) else { continue };
            let name = target.handle.as_str();
            if let Some(oid) = found.get(name).filter(|_| !left.contains(name)) {
                oids.dropped(&target.handle, *oid);
                target.dropped = true;
            }
        }
        Ok(())
    }

    /// Ends the sessions of roles that were ours and are no more: of a login that came through
    /// after we had looked, or of a role that somebody else has dropped.
    async fn end_strays(&self, oids: &Oids) -> Result<(), Failure> {
        let rows = self.server.run(&strays()).await?;
        let found = rows.iter().map(|row| column(row, 0)).collect::<Result<Vec<i64>, _>>()?;
        let ours = oids.ours(&found);
        if ours.is_empty() {
            return Ok(());
        }
        self.server.run(&end_of_strays(&ours)).await.map(drop)
    }

    /// No new login, whatever else goes wrong. Whoever is no superuser needs membership in a
    /// role to end its sessions and to hand over what it owns; we take it only now, so that
    /// our account is not a member of every live role. The fence holds even if that fails:
    /// with `pg_signal_backend` the sessions can be ended all the same.
    async fn fence(&mut self) {
        let chosen = self.those(|target| target.exists);
        self.each(&chosen, None, |targets| {
            let mut sql = Sql::new();
            for target in targets {
                sql = sql
                    .text("ALTER ROLE ")
                    .ident(&target.name)
                    .text(" NOLOGIN PASSWORD NULL VALID UNTIL '1970-01-01 00:00:00+00';\n");
            }
            let body = Sql::new()
                .text("BEGIN IF NOT (SELECT rolsuper FROM pg_catalog.pg_roles")
                .text(" WHERE rolname = current_user) THEN GRANT ")
                .list(targets, |sql, target| sql.ident(&target.name))
                .text(" TO CURRENT_USER; END IF; EXCEPTION WHEN OTHERS THEN NULL; END");
            Ok(sql.then(&body.as_block()?))
        })
        .await;
    }

    /// Ends the sessions of all, also of those whose role somebody else has dropped, and
    /// waits until they are gone.
    async fn end_sessions(&mut self, patience: Duration) {
        let mut waited = Duration::ZERO;
        let mut pause = LOOK_AGAIN_MIN;
        let mut chosen = self.those(|target| target.oid.is_some());
        while !chosen.is_empty() {
            let rows = self.each(&chosen, None, |targets| Ok(termination(targets))).await;
            let open: BTreeSet<i64> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
            chosen = self.those(|target| target.oid.is_some_and(|oid| open.contains(&oid)));
            if waited >= patience {
                return self.note(&chosen, &Failure::Survived("a session has not ended"));
            }
            if !chosen.is_empty() {
                tokio::time::sleep(pause).await;
                waited += pause;
                pause = (pause * 2).min(LOOK_AGAIN_MAX);
            }
        }
    }

    async fn drop_roles(&mut self, chosen: &[usize]) {
        self.each(chosen, None, |targets| {
            let mut sql = Sql::new();
            if targets.iter().any(|target| !target.statements.is_empty()) {
                sql = locked(sql);
            }
            for target in targets {
                let values = Values::new(&target.handle, None);
                for statement in &target.statements {
                    sql = statement.render(sql, &values);
                }
            }
            drop_ended(sql, targets)
        })
        .await;
        for at in chosen {
            if let Some(target) = self.targets.get_mut(*at)
                && target.failure.is_none()
            {
                target.exists = false;
            }
        }
    }

    /// Looks, by name and by id. A login that was past its checks when the fence came may have
    /// opened a session since; it is ended, and we look once more.
    async fn verify(&mut self, oids: &Oids, patience: Duration) -> Result<(), Failure> {
        let mut left = self.left().await?;
        let mut late = false;
        for target in &self.targets {
            if target.failure.is_none() && left.contains(target.handle.as_str()) {
                late = true;
            }
        }
        if late {
            self.end_sessions(patience).await;
            left = self.left().await?;
        }
        for target in self.targets.iter_mut().filter(|target| !target.dropped) {
            if !left.contains(target.handle.as_str()) {
                target.failure = None;
                oids.gone(&target.handle);
            } else if target.failure.is_none() {
                target.failure = Some(Failure::Survived("the role or a session of it is left"));
            }
        }
        Ok(())
    }

    async fn left(&self) -> Result<BTreeSet<String>, Failure> {
        let others = self.targets.iter().filter(|target| !target.dropped);
        let handles: Vec<_> = others.map(|target| (&target.handle, target.oid)).collect();
        look(self.server, &handles).await
    }

    fn outcome(self) -> Vec<Revocation> {
        self.targets
            .into_iter()
            .map(|target| target.failure.map_or(Revocation::Gone, failed))
            .collect()
    }

    fn those(&self, chosen: impl Fn(&Target) -> bool) -> Vec<usize> {
        let targets = self.targets.iter().enumerate();
        targets.filter(|(_, target)| chosen(target)).map(|(at, _)| at).collect()
    }

    /// Sends `build`'s message for all `chosen`; in halves when it is refused, down to the
    /// ones that it is refused for. Gives the rows of those that went through.
    async fn each(
        &mut self,
        chosen: &[usize],
        database: Option<&str>,
        build: impl Fn(&[&Target]) -> Result<Sql, Failure>,
    ) -> Vec<PgRow> {
        let mut rows = Vec::new();
        let mut work: Vec<Range<usize>> = std::iter::once(0..chosen.len()).collect();
        while let Some(range) = work.pop() {
            let members = chosen.get(range.clone()).unwrap_or_default();
            let targets: Vec<&Target> =
                members.iter().filter_map(|at| self.targets.get(*at)).collect();
            if targets.is_empty() {
                continue;
            }
            let answer = match (build(&targets), database) {
                (Ok(sql), None) => self.server.run(&sql).await,
                (Ok(sql), Some(database)) => self.server.run_in(database, &sql).await,
                (Err(failure), _) => Err(failure),
            };
            match answer {
                Ok(answered) => rows.extend(answered),
                Err(failure) if failure.is_rolled_back() && range.len() > 1 => {
                    let middle = range.start + range.len() / 2;
                    work.push(middle..range.end);
                    work.push(range.start..middle);
                }
                Err(failure) => self.note(members, &failure.within(database)),
            }
        }
        rows
    }

    fn note(&mut self, members: &[usize], failure: &Failure) {
        for at in members {
            if let Some(target) = self.targets.get_mut(*at) {
                target.failure.get_or_insert_with(|| failure.clone());
            }
        }
    }
}
