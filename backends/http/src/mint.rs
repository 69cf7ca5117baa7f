//! Making a credential, and what only its answer tells.
//!
//! Invariant: what was made and cannot be handed over is ended at once, while its id and its
//! secret are still known.

use std::time::Duration;

use dayfly_backend_sdk::{Backend, Credential, Doomed, MintRequest, Secret, Timestamp};
use serde_json::{Value, json};

use crate::{
    api::Answer,
    backend::HttpBackend,
    error::Failure,
    list::is_id,
    role::{ID, NAME, Recipe, TOKEN},
    text::Hole,
    values::{Values, instant},
};

/// What revoking needs and only the mint's answer tells.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) id: Option<Value>,
    pub(crate) secret: Option<Secret>,
}

impl Kept {
    /// Of what was kept; nothing of what cannot be read.
    pub(crate) fn read(kept: Option<&Secret>) -> Self {
        let Some(kept) = kept else { return Self::default() };
        let table: Value = serde_json::from_str(kept.expose()).unwrap_or_default();
        let secret = table.get("secret").and_then(Value::as_str).map(Secret::new);
        Self { id: table.get("id").filter(|id| is_id(id)).cloned(), secret }
    }

    /// As text, with what is asked for and no more.
    fn sealed(&self, id: bool, secret: bool) -> Secret {
        let id = self.id.as_ref().filter(|_| id);
        let secret = self.secret.as_ref().filter(|_| secret).map(Secret::expose);
        Secret::new(json!({ "id": id, "secret": secret }).to_string())
    }
}

impl HttpBackend {
    pub(crate) async fn create(
        &self,
        request: &MintRequest<'_>,
        recipe: &Recipe,
    ) -> Result<Credential, Failure> {
        self.not_longer_than_it_lives(request)?;
        if self.looks_first
            && let Some(mut rolls) = self.rolls()
            && !rolls.find(Some(&recipe.role), request.handle).await?.is_empty()
        {
            return Err(Failure::Taken);
        }
        let create = &self.requests.create;
        let timed = create.has(&Hole::TtlSeconds);
        let now = if timed { Some(self.api.now().await?) } else { None };
        let values = Values {
            expires_at: Some(request.expires_at),
            handle: Some(request.handle.as_str()),
            lease: Some(request.lease),
            now,
            principal: Some(request.principal),
            role: Some(&recipe.role),
            ..Values::default()
        };
        let answer = self.api.ask(create.ready(self.api.base(), &values)?).await?;
        if create.is_conflict(&answer) {
            return Err(Failure::Taken);
        }
        let answer = create.good(answer)?;
        let places = &self.requests.answer;
        let secret = answer.at(Some(&places.secret)).and_then(Value::as_str);
        let id = places.id.as_deref().and_then(|place| answer.at(Some(place)));
        let made = Kept {
            id: id.filter(|id| is_id(id)).cloned(),
            secret: secret.filter(|secret| !secret.is_empty()).map(Secret::new),
        };
        match self.handed_over(request, recipe, &answer, &made) {
            Ok(credential) => Ok(credential),
            Err(failure) => {
                let doomed = Doomed::new(request.handle.clone(), request.template.plan().clone());
                let doomed = doomed.keeping(Some(made.sealed(true, true)));
                // The engine revokes as well; but it has not this id.
                match self.try_end(&doomed, &mut self.rolls()).await {
                    Ok(()) => Err(failure),
                    // It is there: no failure that would say that nothing is.
                    Err(left) => Err(Failure::Left(format!("{failure}; and {left}"))),
                }
            }
        }
    }

    /// Where all credentials live equally long, a longer lease would outlive its own.
    fn not_longer_than_it_lives(&self, request: &MintRequest<'_>) -> Result<(), Failure> {
        let Some(expiry) = self.expiry.filter(|expiry| expiry.fixed) else { return Ok(()) };
        // It is not later now than the deadline.
        let most = seconds(expiry.life_min_s) + seconds(expiry.slack_s);
        if request.expires_at.since(request.mint_deadline) <= most {
            return Ok(());
        }
        Err(Failure::Refused(format!(
            "the API gives {} s and no more: lower the role's `ttl_max`",
            expiry.life_min_s
        )))
    }

    fn handed_over(
        &self,
        request: &MintRequest<'_>,
        recipe: &Recipe,
        answer: &Answer,
        made: &Kept,
    ) -> Result<Credential, Failure> {
        let places = &self.requests.answer;
        let secret = made.secret.clone();
        let secret = secret.ok_or(Failure::Strange("has no secret where `answer` says"))?;
        if places.id.is_some() && made.id.is_none() {
            return Err(Failure::Strange("has no id where `answer` says"));
        }
        if let Some(place) = &places.expires_at {
            let told = answer.at(Some(place)).and_then(instant);
            let told = told.ok_or(Failure::Strange("has no expiry where `answer` says"))?;
            self.in_time(request, told)?;
        }
        let mut credential =
            Credential::new().secret(TOKEN, secret).public(NAME, request.handle.as_str());
        if let Some(id) = &made.id {
            let text = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
            credential = credential.public(ID, text);
        }
        for (name, value) in &recipe.fields {
            credential = credential.public(name.clone(), value.clone());
        }
        for (variable, field) in &recipe.variables {
            credential = credential.variable(variable.clone(), field.clone());
        }
        if Backend::keeps(self) {
            let kept = made.sealed(self.asks(&Hole::Id), self.asks(&Hole::Secret));
            credential = credential.keep(kept);
        }
        Ok(credential)
    }

    /// Whether what the API says of the end is what was declared of it.
    fn in_time(&self, request: &MintRequest<'_>, told: Timestamp) -> Result<(), Failure> {
        let Some(expiry) = self.expiry else { return Ok(()) };
        let until = request.expires_at;
        let slack = seconds(expiry.slack_s);
        // It is not later now than the deadline.
        let longest = until.max(request.mint_deadline.plus(seconds(expiry.life_min_s)));
        if told > longest.plus(slack) {
            return Err(Failure::Late { told, until });
        }
        if told.plus(slack) < until {
            return Err(Failure::Early { told, until });
        }
        Ok(())
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}
