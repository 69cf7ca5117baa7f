//! Minting as clients do it: with and without a key, again after a lost answer, twice at once.
//!
//! Invariant: the same key goes with the same request, and what was given for it before is
//! held to be condemned as soon as it was given again.

use dayfly_integration::{Answer, Client};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Held, PATIENT, TRIES, Worker, time};
use crate::{
    health::now,
    ledger::{Credential, Secret},
};

/// A mint that may be asked for more than once.
struct Wish {
    body: Value,
    key: Option<String>,
}

impl Worker {
    /// Mints; gives the credentials that are held now.
    pub(super) async fn mint(&mut self, task: &Held) -> Vec<usize> {
        let role = if self.rng.percent(65) { "reader" } else { "greeter" };
        let body = json!({ "role": role, "ttl_seconds": self.rng.range(5, 30) });
        let key = self.rng.percent(40).then(|| format!("key-{:016x}", self.rng.next()));
        let wish = Wish { body, key };
        if wish.key.is_some() && self.rng.percent(15) {
            return self.mint_twice_at_once(task, &wish).await;
        }
        let Some(first) = self.mint_until_given(task, &wish).await else { return Vec::new() };
        if wish.key.is_none() || !self.rng.percent(20) {
            return vec![first];
        }
        // As if its answer had been lost: what was given for the key must die.
        self.think().await;
        let Some(second) = self.mint_until_given(task, &wish).await else { return vec![first] };
        self.shared.ledger.doomed(first, "another was given for its key");
        vec![second]
    }

    /// With a key an answer that was lost is asked for again, without one it is not.
    async fn mint_until_given(&mut self, task: &Held, wish: &Wish) -> Option<usize> {
        let mut patience = self.patience();
        for _ in 0..TRIES {
            let request = self.request(task, wish).timeout(patience);
            let answer = Client::send(request).await;
            if let Some(number) = self.received(task, wish, answer.as_ref()) {
                return Some(number);
            }
            let again = answer.is_none_or(|answer| matches!(answer.status, 409 | 503));
            if wish.key.is_none() || !again {
                return None;
            }
            tokio::time::sleep(self.rng.millis(100, 1_000)).await;
            patience = PATIENT;
        }
        None
    }

    async fn mint_twice_at_once(&mut self, task: &Held, wish: &Wish) -> Vec<usize> {
        let one = self.request(task, wish).timeout(PATIENT);
        let other = self.request(task, wish).timeout(PATIENT);
        let (one, other) = tokio::join!(Client::send(one), Client::send(other));
        let given = [one, other].map(|answer| self.received(task, wish, answer.as_ref()));
        if let [Some(one), Some(other)] = given {
            self.shared.ledger.rivals(one, other);
        }
        given.into_iter().flatten().collect()
    }

    fn request(&mut self, task: &Held, wish: &Wish) -> reqwest::RequestBuilder {
        let request = self.replica(&task.token).request(Method::POST, "/api/v1/leases");
        let request = request.json(&wish.body);
        match &wish.key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        }
    }

    fn received(&self, task: &Held, wish: &Wish, answer: Option<&Answer>) -> Option<usize> {
        match answer {
            Some(answer) if answer.status == 201 => {
                let how = wish.key.as_deref().unwrap_or("without a key");
                Some(self.given(task, &answer.body, how))
            }
            _ => {
                let code = answer.and_then(|answer| answer.body["code"].as_str());
                self.shared.ledger.refused(code);
                None
            }
        }
    }

    /// Writes down what was given.
    pub(super) fn given(&self, task: &Held, lease: &Value, how: &str) -> usize {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let fields = &lease["credential"];
        let secret = if lease["backend"] == "pg" {
            Secret::Login(text(&fields["url"]))
        } else {
            Secret::Key(text(&fields["key"]))
        };
        self.shared.ledger.add(Credential {
            lease: text(&lease["id"]),
            task: task.id.clone(),
            handle: text(&lease["handle"]),
            secret,
            told: time(&lease["expires_at"]),
            unknown_renewal: 0,
            expires_at_most: time(&lease["max_expires_at"]),
            dead: None,
            doomed: None,
            refused: None,
            session: None,
            story: vec![(now(), format!("given, {how}, until {}", text(&lease["expires_at"])))],
        })
    }
}
