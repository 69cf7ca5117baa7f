//! The clients: open tasks, mint, log in, renew, revoke, complete, and now and then behave
//! badly.
//!
//! Invariant: a client writes down what it was answered before it does anything else, and does
//! not believe that a request without an answer did nothing.

mod mint;

use std::{sync::Arc, time::Duration};

use dayfly_integration::{Answer, Client, Issuer};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::{
    ledger::{Ledger, Session},
    login::{Door, Login, leave},
    plant::Gardener,
    rng::Rng,
};

/// Longer than the longest that a broker lets anybody wait.
pub(super) const PATIENT: Duration = Duration::from_secs(25);
/// How often a request is tried again that must be answered.
const TRIES: usize = 6;
const SESSIONS_MAX: usize = 40;

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) door: Door,
    pub(crate) issuer: Issuer,
    pub(crate) gardener: Gardener,
    /// Sessions that are kept open, so that the server has room for others.
    sessions: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn new(ledger: Arc<Ledger>, door: Door, issuer: Issuer, gardener: Gardener) -> Self {
        Self { ledger, door, issuer, gardener, sessions: Arc::new(Semaphore::new(SESSIONS_MAX)) }
    }
}

/// One client.
pub(crate) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) rng: Rng,
    name: String,
}

/// A task that a client holds.
pub(super) struct Held {
    pub(super) id: String,
    pub(super) token: String,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, seed: u64, number: u64) -> Self {
        Self { shared, rng: Rng::new(seed, 1_000 + number), name: format!("job-{number}") }
    }

    /// Works until the future is dropped, or between two tasks when `stop` says so.
    pub(crate) async fn work(mut self, stop: tokio::sync::watch::Receiver<bool>) {
        while !*stop.borrow() {
            match self.open().await {
                Some(task) => self.live(&task).await,
                None => tokio::time::sleep(self.rng.millis(200, 1_500)).await,
            }
        }
    }

    /// Any replica.
    pub(super) fn replica(&mut self, token: &str) -> Client {
        let replicas = &self.shared.door.0;
        replicas[self.rng.index(replicas.len())].with(token)
    }

    pub(super) async fn think(&mut self) {
        tokio::time::sleep(self.rng.millis(200, 1_500)).await;
    }

    async fn open(&mut self) -> Option<Held> {
        let token = self.shared.issuer.token(&self.name);
        let ttl = self.rng.range(20, 60);
        let roles: &[&str] = if self.rng.percent(15) { &["reader", "greeter"] } else { &[] };
        let body = json!({ "purpose": "chaos", "ttl_seconds": ttl, "roles": roles });
        let request = self.replica(&token).request(Method::POST, "/api/v1/tasks").json(&body);
        let answer = self.ask(request.timeout(PATIENT), 201).await?;
        let task = Held { id: answer.text("/id"), token: answer.text("/token") };
        for lease in answer.body["leases"].as_array().unwrap() {
            let number = self.given(&task, lease, "with the task");
            self.use_it(number).await;
        }
        Some(task)
    }

    async fn live(&mut self, task: &Held) {
        for _ in 0..self.rng.range(1, 4) {
            self.think().await;
            let given = self.mint(task).await;
            for number in given {
                self.use_it(number).await;
                self.think().await;
                self.change(task, number).await;
            }
        }
        if self.rng.percent(5) {
            let body = json!({ "role": "forbidden" });
            let request = self.replica(&task.token).request(Method::POST, "/api/v1/leases");
            self.ask(request.json(&body).timeout(PATIENT), 201).await;
        }
        if self.rng.percent(65) {
            self.complete(task).await;
        }
    }

    /// Sends; gives the answer if it has the status that was hoped for.
    pub(super) async fn ask(&self, request: reqwest::RequestBuilder, hoped: u16) -> Option<Answer> {
        let answer = Client::send(request).await;
        if let Some(answer) = &answer
            && answer.status == hoped
        {
            return Some(answer.clone());
        }
        let code = answer.as_ref().and_then(|answer| answer.body["code"].as_str());
        self.shared.ledger.refused(code);
        None
    }

    async fn use_it(&mut self, number: usize) {
        let secret = self.shared.ledger.book().credentials[number].secret.clone();
        let session = match self.shared.door.login(&secret).await {
            Login::Works(session) => session,
            Login::Refused => {
                // Of two for one key the first is dead as soon as the second was given.
                if !self.shared.ledger.has_rival(number) {
                    self.shared.ledger.count("dead_on_arrival");
                }
                return self.shared.ledger.note(number, "its first login was refused");
            }
            Login::Unknown(why) => {
                return self.shared.ledger.note(number, format!("its first login: {why}"));
            }
        };
        self.shared.ledger.count("used");
        if let Some(connection) = session {
            if !self.rng.percent(30) {
                return leave(Some(connection)).await;
            }
            let Ok(place) = Arc::clone(&self.shared.sessions).try_acquire_owned() else {
                return leave(Some(connection)).await;
            };
            self.shared.ledger.note(number, "a session of it is left open");
            let session = Session { connection, _place: place };
            self.shared.ledger.book().credentials[number].session = Some(session);
        }
    }

    /// Renews or revokes it, or leaves it alone.
    async fn change(&mut self, task: &Held, number: usize) {
        match self.rng.range(1, 100) {
            1..=35 => self.renew(task, number).await,
            36..=55 => self.revoke(task, number).await,
            _ => {}
        }
    }

    async fn renew(&mut self, task: &Held, number: usize) {
        let lease = self.shared.ledger.book().credentials[number].lease.clone();
        let ttl = self.rng.range(3, 30);
        let path = format!("/api/v1/leases/{lease}/renew");
        let request = self.replica(&task.token).request(Method::POST, &path);
        let request = request.json(&json!({ "ttl_seconds": ttl })).timeout(self.patience());
        let answer = Client::send(request).await;
        let status = answer.as_ref().map(|answer| answer.status);
        self.shared.ledger.note(number, format!("renewal for {ttl} s: {status:?}"));
        match &answer {
            Some(answer) if answer.status == 200 => {
                let until = time(&answer.body["expires_at"]);
                self.shared.ledger.book().credentials[number].told = until;
                return self.shared.ledger.count("renewed");
            }
            Some(answer) if answer.status < 500 => {}
            Some(_) | None => {
                self.shared.ledger.book().credentials[number].may_be_renewed_for(ttl);
            }
        }
        let code = answer.as_ref().and_then(|answer| answer.body["code"].as_str());
        self.shared.ledger.refused(code);
    }

    async fn revoke(&mut self, task: &Held, number: usize) {
        let lease = self.shared.ledger.book().credentials[number].lease.clone();
        let path = format!("/api/v1/leases/{lease}/revoke?wait=10s");
        let request = self.replica(&task.token).request(Method::POST, &path);
        let request = request.json(&json!({ "reason": "chaos" })).timeout(self.patience());
        let answer = Client::send(request).await;
        match answer.as_ref().map(|answer| answer.status) {
            Some(200) => {
                self.shared.ledger.dead(number, "revocation answered 200");
                self.shared.ledger.count("revoked");
            }
            Some(202) => self.shared.ledger.doomed(number, "revocation answered 202"),
            Some(_) | None => {
                let code = answer.as_ref().and_then(|answer| answer.body["code"].as_str());
                self.shared.ledger.note(number, format!("revocation: {code:?}"));
                self.shared.ledger.refused(code);
            }
        }
    }

    /// Completes until it is answered that everything is dead, as a careful client would.
    async fn complete(&mut self, task: &Held) {
        for _ in 0..TRIES {
            let path = format!("/api/v1/tasks/{}/complete?wait=10s", task.id);
            let request = self.replica(&task.token).request(Method::POST, &path);
            let request = request.json(&json!({ "outcome": "completed" }));
            let answer = Client::send(request.timeout(self.patience())).await;
            let numbers = self.shared.ledger.of_task(&task.id);
            match answer.as_ref().map(|answer| answer.status) {
                Some(200) => {
                    for number in numbers {
                        let (handle, secret) = self.shared.ledger.name(number);
                        self.shared.gardener.bring_back(&handle, &secret);
                        self.shared.ledger.dead(number, "completion answered 200");
                    }
                    return self.shared.ledger.count("completed");
                }
                Some(202) => {
                    for number in numbers {
                        self.shared.ledger.doomed(number, "completion answered 202");
                    }
                }
                // Its time is up.
                Some(401) => return self.shared.ledger.refused(Some("unauthenticated")),
                Some(_) | None => {
                    let code = answer.as_ref().and_then(|answer| answer.body["code"].as_str());
                    self.shared.ledger.refused(code);
                }
            }
            tokio::time::sleep(self.rng.millis(200, 2_000)).await;
        }
    }

    /// How long this request is waited for: a few clients hang up in the middle of it.
    pub(super) fn patience(&mut self) -> Duration {
        if self.rng.percent(12) { self.rng.millis(1, 120) } else { PATIENT }
    }
}

/// A time in an answer, in microseconds since 1970.
pub(super) fn time(value: &Value) -> i64 {
    let text = value.as_str().unwrap();
    let format = &time::format_description::well_known::Rfc3339;
    let nanos = time::OffsetDateTime::parse(text, format).unwrap().unix_timestamp_nanos();
    i64::try_from(nanos / 1_000).unwrap()
}
