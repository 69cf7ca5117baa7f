//! The judge: tries each credential when it has to be dead, and all of them in the end.
//!
//! Invariant: a credential is let off only by a login that its server refused after the moment
//! at which it had to be dead, and by the end of the session that was left open on it.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::{
    health::{Health, SECOND, now, seconds},
    ledger::{Credential, Ledger, Rivals},
    login::{Door, Login, goes_on, leave},
};

/// Past a lease's end its backend refuses logins by itself, whatever else is broken: its own
/// expiry is a second or two later.
const NATIVE: i64 = 3 * SECOND;
/// Logins at a time.
const AT_A_TIME: usize = 8;

/// What is needed to judge.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) health: Arc<Health>,
    pub(crate) door: Door,
}

impl Judge {
    /// Judges what is due, until the future is dropped.
    pub(crate) async fn sit(self) {
        loop {
            self.round().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn round(&self) {
        let due = self.due();
        self.try_all(due).await;
        let (due, later): (Vec<Rivals>, Vec<Rivals>) = {
            let mut book = self.ledger.book();
            std::mem::take(&mut book.rivals)
                .into_iter()
                .partition(|r| self.health.bound(r.since).is_some_and(|bound| bound <= now()))
        };
        self.ledger.book().rivals.extend(later);
        for rivals in due {
            self.compare(rivals).await;
        }
    }

    /// The open ones that have to be dead now.
    fn due(&self) -> Vec<usize> {
        let book = self.ledger.book();
        let is_due = |number: &usize| {
            let credential = &book.credentials[*number];
            match credential.refused {
                None => self.no_login_after(credential) <= now(),
                Some(_) => self.no_session_after(credential).is_some_and(|at| at <= now()),
            }
        };
        book.open.iter().copied().filter(is_due).collect()
    }

    fn no_login_after(&self, credential: &Credential) -> i64 {
        let asked = credential.doomed.and_then(|at| self.health.bound(at));
        let native = credential.expires_at() + NATIVE;
        [credential.dead, asked].into_iter().flatten().fold(native, i64::min)
    }

    fn no_session_after(&self, credential: &Credential) -> Option<i64> {
        let asked = credential.doomed.and_then(|at| self.health.bound(at));
        let expired = self.health.bound(credential.expires_at());
        [credential.dead, asked, expired].into_iter().flatten().min()
    }

    async fn try_all(&self, numbers: Vec<usize>) {
        let mut trying = JoinSet::new();
        for number in numbers {
            while trying.len() >= AT_A_TIME {
                trying.join_next().await;
            }
            let judge = self.clone();
            trying.spawn(async move { judge.try_one(number).await });
        }
        trying.join_all().await;
    }

    async fn try_one(&self, number: usize) {
        let (secret, refused) = {
            let book = self.ledger.book();
            let credential = &book.credentials[number];
            (credential.secret.clone(), credential.refused)
        };
        if refused.is_none() {
            match self.door.login(&secret).await {
                Login::Refused => self.ledger.book().credentials[number].refused = Some(now()),
                // Asked again in the next round.
                Login::Unknown(_) => return,
                Login::Works(session) => {
                    leave(session).await;
                    self.alive(number, "a login works");
                    self.ledger.book().open.remove(&number);
                    return;
                }
            }
        }
        self.end_of_session(number).await;
    }

    /// A session has to be over when its credential is: at once if it was said to be dead.
    async fn end_of_session(&self, number: usize) {
        let session = {
            let mut book = self.ledger.book();
            let over = self.no_session_after(&book.credentials[number]);
            if book.credentials[number].session.is_some() && over.is_none_or(|at| at > now()) {
                return;
            }
            book.open.remove(&number);
            book.credentials[number].session.take()
        };
        if let Some(mut session) = session
            && goes_on(&mut session.connection).await
        {
            self.alive(number, "a session of it goes on");
        }
    }

    fn alive(&self, number: usize, what: &str) {
        let mut book = self.ledger.book();
        let credential = &book.credentials[number];
        let late = |at: i64, why| format!("{what} {:.2} s after {why}", seconds(now() - at));
        let what = match (credential.dead, credential.doomed) {
            (Some(at), _) => late(at, "it was said to be dead"),
            (None, Some(at)) if at < credential.expires_at() => late(at, "it was told to die"),
            (None, Some(_) | None) => late(credential.expires_at(), "its end"),
        };
        book.violate("usable_after_death", Some(number), what);
    }

    async fn compare(&self, rivals: Rivals) {
        let pair = {
            let book = self.ledger.book();
            [rivals.one, rivals.other].map(|number| book.credentials[number].secret.clone())
        };
        let mut works = 0;
        for secret in &pair {
            if let Login::Works(session) = self.door.login(secret).await {
                leave(session).await;
                works += 1;
            }
        }
        if works == 2 {
            let what = format!("it and credential {} live under one key", rivals.other);
            self.ledger.book().violate("double_delivery", Some(rivals.one), what);
        }
    }

    /// The last judgement: every credential ever issued, also those that were seen dead.
    pub(crate) async fn all(&self) -> usize {
        let count = self.ledger.book().credentials.len();
        let mut trying = JoinSet::new();
        for number in 0..count {
            while trying.len() >= AT_A_TIME {
                trying.join_next().await;
            }
            let judge = self.clone();
            trying.spawn(async move { judge.finally(number).await });
        }
        trying.join_all().await;
        count
    }

    async fn finally(&self, number: usize) {
        let (secret, session) = {
            let mut book = self.ledger.book();
            let credential = &mut book.credentials[number];
            (credential.secret.clone(), credential.session.take())
        };
        let mut answer = self.door.login(&secret).await;
        for _ in 0..5 {
            if !matches!(answer, Login::Unknown(_)) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            answer = self.door.login(&secret).await;
        }
        match answer {
            Login::Refused => {}
            Login::Works(open) => {
                leave(open).await;
                self.alive(number, "a login works");
            }
            Login::Unknown(why) => {
                let what = format!("nobody can say whether it lives: {why}");
                self.ledger.book().violate("unjudged", Some(number), what);
            }
        }
        if let Some(mut session) = session
            && goes_on(&mut session.connection).await
        {
            self.alive(number, "a session of it goes on");
        }
        self.ledger.book().open.remove(&number);
    }
}
