//! What the clients know: every credential that they were ever given, and when it has to be
//! dead.
//!
//! Invariant: nothing in here comes from Dayfly's records, only from answers that a client has
//! really got, and a credential is never taken off.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use sqlx::PgConnection;
use tokio::sync::OwnedSemaphorePermit;

use crate::health::{SECOND, now};

/// How to log in.
#[derive(Clone, Debug)]
pub(crate) enum Secret {
    /// At PostgreSQL, by URL.
    Login(String),
    /// As an API key.
    Key(String),
}

/// A session that is left open, and its place among those that may be.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: PgConnection,
    pub(crate) _place: OwnedSemaphorePermit,
}

/// A credential that a client was given.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) lease: String,
    pub(crate) task: String,
    pub(crate) handle: String,
    pub(crate) secret: Secret,
    /// When it ends by time, as it was last told.
    pub(crate) told: i64,
    /// The longest renewal whose outcome is not known: it may be done late, but not after the
    /// end that it would move.
    pub(crate) unknown_renewal: i64,
    pub(crate) expires_at_most: i64,
    /// Since when it was said to be verified dead.
    pub(crate) dead: Option<i64>,
    /// Since when it was said to have to die.
    pub(crate) doomed: Option<i64>,
    /// When a login was refused after it had to be.
    pub(crate) refused: Option<i64>,
    /// A session that was opened while it was good.
    pub(crate) session: Option<Session>,
    /// What happened, as the client saw it.
    pub(crate) story: Vec<(i64, String)>,
}

impl Credential {
    /// The latest that it may end by time, as far as the client can tell.
    pub(crate) fn expires_at(&self) -> i64 {
        (self.told + self.unknown_renewal).min(self.expires_at_most)
    }

    pub(crate) fn may_be_renewed_for(&mut self, seconds: u64) {
        self.unknown_renewal = self.unknown_renewal.max(seconds.cast_signed() * SECOND);
    }
}

/// What must not be.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) kind: &'static str,
    pub(crate) what: String,
    /// Whose, where a client knows it.
    pub(crate) credential: Option<usize>,
    pub(crate) handle: Option<String>,
    pub(crate) at: i64,
}

/// Two answers to one idempotency key of which at most one may live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rivals {
    pub(crate) one: usize,
    pub(crate) other: usize,
    pub(crate) since: i64,
}

/// All credentials.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) credentials: Vec<Credential>,
    /// Those that have not been seen dead.
    pub(crate) open: BTreeSet<usize>,
    pub(crate) rivals: Vec<Rivals>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// Refusals by their code.
    pub(crate) refusals: BTreeMap<String, u64>,
    by_handle: HashMap<String, usize>,
    by_task: HashMap<String, Vec<usize>>,
}

/// The book, shared by all clients.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Book>);

impl Ledger {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.book().counts.entry(what).or_default() += 1;
    }

    /// An answer other than what was asked for; nothing if there was none.
    pub(crate) fn refused(&self, code: Option<&str>) {
        let code = code.unwrap_or("(no answer)").to_owned();
        *self.book().refusals.entry(code).or_default() += 1;
    }

    /// A client was given one.
    pub(crate) fn add(&self, credential: Credential) -> usize {
        let mut book = self.book();
        let number = book.credentials.len();
        let handle = credential.handle.clone();
        book.by_task.entry(credential.task.clone()).or_default().push(number);
        book.credentials.push(credential);
        book.open.insert(number);
        if let Some(earlier) = book.by_handle.insert(handle, number) {
            let what = format!("it was answered before, as credential {earlier}");
            book.violate("double_delivery", Some(number), what);
        }
        *book.counts.entry("issued").or_default() += 1;
        number
    }

    pub(crate) fn note(&self, number: usize, what: impl Into<String>) {
        self.book().credentials[number].story.push((now(), what.into()));
    }

    /// It was answered that it must die.
    pub(crate) fn doomed(&self, number: usize, what: &str) {
        let credential = &mut self.book().credentials[number];
        credential.doomed.get_or_insert(now());
        credential.story.push((now(), format!("must die: {what}")));
    }

    /// It was answered that it is dead.
    pub(crate) fn dead(&self, number: usize, what: &str) {
        let credential = &mut self.book().credentials[number];
        credential.dead.get_or_insert(now());
        credential.story.push((now(), format!("said to be dead: {what}")));
    }

    pub(crate) fn name(&self, number: usize) -> (String, Secret) {
        let credential = &self.book().credentials[number];
        (credential.handle.clone(), credential.secret.clone())
    }

    pub(crate) fn of_task(&self, task: &str) -> Vec<usize> {
        self.book().by_task.get(task).cloned().unwrap_or_default()
    }

    pub(crate) fn has_rival(&self, number: usize) -> bool {
        let book = self.book();
        book.rivals.iter().any(|rivals| rivals.one == number || rivals.other == number)
    }

    /// At most one of the two may live from now on.
    pub(crate) fn rivals(&self, one: usize, other: usize) {
        self.book().rivals.push(Rivals { one, other, since: now() });
    }
}

impl Book {
    pub(crate) fn violate(&mut self, kind: &'static str, credential: Option<usize>, what: String) {
        let known = |earlier: &Violation| earlier.kind == kind && earlier.credential == credential;
        if credential.is_some() && self.violations.iter().any(known) {
            return;
        }
        let handle = credential.map(|number| self.credentials[number].handle.clone());
        eprintln!("VIOLATION {kind}: {} {what}", handle.as_deref().unwrap_or(""));
        self.violations.push(Violation { kind, what, credential, handle, at: now() });
    }

    /// The same for what no client was given.
    pub(crate) fn violate_unknown(&mut self, kind: &'static str, handle: String, what: String) {
        eprintln!("VIOLATION {kind}: {handle} {what}");
        let credential = self.by_handle.get(&handle).copied();
        let handle = Some(handle);
        self.violations.push(Violation { kind, what, credential, handle, at: now() });
    }

    pub(crate) fn violations_of(&self, kind: &str) -> usize {
        self.violations.iter().filter(|violation| violation.kind == kind).count()
    }

    pub(crate) fn counted(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }
}
