//! Who is asking: a bearer that is a federated token or a task token.
//!
//! Invariant: a caller exists only for a token that was verified; a refusal is written to the
//! audit log and tells the client nothing but that it was refused.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{header, request::Parts},
};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use dayfly_backend_sdk::{Secret, Timestamp};
use dayfly_lease::{Entropy, Task, TaskId, TaskState, Write, audit::Entry};

use super::{envelope::request_id, problem::Fault};
use crate::{
    broker::Broker,
    identity::{Principal, Rejection},
    policy::{Allowed, Ask, Circumstances, Denial},
};

/// Task tokens begin with this, so that secret scanners find them.
const TASK_TOKEN_PREFIX: &str = "dft_";
const TASK_TOKEN_BYTES: usize = 32;

/// A verified caller.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Who it is.
    pub(crate) principal: Principal,
    /// The task whose token it holds.
    pub(crate) task: Option<Task>,
    source_address: Option<IpAddr>,
}

/// What a request says of its caller to whatever refuses it before its handler runs.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    principal: String,
    task: Option<TaskId>,
}

impl FromRequestParts<Arc<Broker>> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, broker: &Arc<Broker>) -> Result<Self, Fault> {
        let caller = Self::verified(parts, broker).await?;
        parts.extensions.insert(caller.known());
        Ok(caller)
    }
}

impl Caller {
    async fn verified(parts: &Parts, broker: &Broker) -> Result<Self, Fault> {
        let bearer = bearer(parts).ok_or_else(Fault::unauthenticated)?;
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        // Behind a proxy every caller has the proxy's address, which says nothing.
        let source_address = address
            .filter(|_| !broker.limits.behind_proxy)
            .map(|ConnectInfo(address)| address.ip());
        if bearer.starts_with(TASK_TOKEN_PREFIX) {
            let store = broker.engine.store();
            let task = store.task_by_token(token_hash(bearer)).await?;
            let Some(task) = task else {
                refuse(broker, ("unknown_task_token", None), source_address, None).await?;
                return Err(Fault::unauthenticated());
            };
            if has_long_ended(&task, broker.clock.now()) {
                refuse(broker, ("task_ended", None), source_address, None).await?;
                return Err(Fault::unauthenticated());
            }
            let principal = serde_json::from_value(task.identity.clone()).map_err(|error| {
                tracing::error!(task.id = %task.id, %error, "task.identity.unreadable");
                Fault::internal()
            })?;
            return Ok(Self { principal, task: Some(task), source_address });
        }
        match broker.authenticator.authenticate(bearer).await {
            Ok(principal) => Ok(Self { principal, task: None, source_address }),
            Err(rejection) => Err(rejected(broker, bearer, rejection, source_address).await?),
        }
    }
}

/// How long a task's token still serves to look at what became of the task.
const ENDED_GRACE: Duration = Duration::from_hours(1);

fn has_long_ended(task: &Task, now: Timestamp) -> bool {
    let ended_at = match task.state {
        TaskState::Open => task.expires_at,
        TaskState::Closed { at, .. } => at,
    };
    now > ended_at.plus(ENDED_GRACE)
}

/// A token that was not accepted. What was wrong with it is for the audit log alone.
async fn rejected(
    broker: &Broker,
    bearer: &str,
    rejection: Rejection,
    source_address: Option<IpAddr>,
) -> Result<Fault, Fault> {
    let why = (rejection.code(), rejection.about());
    refuse(broker, why, source_address, Some(bearer)).await?;
    if rejection.is_unavailable() {
        return Ok(Fault::unavailable("identity_unavailable", "the issuer's keys are unavailable"));
    }
    Ok(Fault::unauthenticated())
}

/// Writes the refusal down. If that fails the caller hears that the store is down, and learns
/// nothing more.
async fn refuse(
    broker: &Broker,
    (code, about): (&str, Option<&'static str>),
    source_address: Option<IpAddr>,
    bearer: Option<&str>,
) -> Result<(), Fault> {
    broker.metrics.identity_refused();
    let mut entry = Entry::new("identity.refused", "unknown")
        .with("code", code)
        .with("request", request_id())
        .with("source_address", source_address.map(|address| address.to_string()));
    if let Some(about) = about {
        entry = entry.with("about", about);
    }
    if let Some(bearer) = bearer {
        entry = entry.with("token_hash", HEXLOWER.encode(&token_hash(bearer)));
    }
    broker.engine.store().write(Write::Note(entry)).await?;
    Ok(())
}

fn bearer(parts: &Parts) -> Option<&str> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    // Two of them: which one another party looked at is anybody's guess.
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// A fresh task token and what is kept of it.
pub(crate) fn task_token(entropy: &dyn Entropy) -> (Secret, [u8; 32]) {
    let mut random = [0; TASK_TOKEN_BYTES];
    entropy.fill(&mut random);
    let token = format!("{TASK_TOKEN_PREFIX}{}", BASE64URL_NOPAD.encode(&random));
    let hash = token_hash(&token);
    (Secret::new(token), hash)
}

fn token_hash(token: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

impl Caller {
    /// The same caller, as the owner of a task that he has just opened.
    pub(crate) fn with_task(self, task: Task) -> Self {
        Self { task: Some(task), ..self }
    }

    /// What surrounds the question.
    pub(crate) fn circumstances(&self, broker: &Broker) -> Circumstances {
        Circumstances {
            source_address: self.source_address,
            now: broker.clock.now(),
            own_task: self.task.as_ref().map(|task| task.id.to_string()),
        }
    }

    /// The same for a task that is about to be opened.
    pub(crate) fn circumstances_of(&self, broker: &Broker, task: TaskId) -> Circumstances {
        Circumstances { own_task: Some(task.to_string()), ..self.circumstances(broker) }
    }

    /// May this caller do that? A denial is written to the audit log.
    pub(crate) async fn may(&self, broker: &Broker, ask: &Ask<'_>) -> Result<Allowed, Refused> {
        let policies = broker.policies.load();
        match policies.authorize(&self.principal, ask, &self.circumstances(broker)) {
            Ok(allowed) => Ok(allowed),
            Err(denial) => {
                self.note_denial(broker, ask.name(), &denial, None).await?;
                Err(Refused::Denied(denial))
            }
        }
    }

    /// The same without a record, for the rows of a listing that is recorded as a whole.
    pub(crate) fn may_see(&self, broker: &Broker, ask: &Ask<'_>) -> bool {
        let circumstances = self.circumstances(broker);
        broker.policies.load().authorize(&self.principal, ask, &circumstances).is_ok()
    }

    /// Writes a denial down.
    pub(crate) async fn note_denial(
        &self,
        broker: &Broker,
        action: &str,
        denial: &Denial,
        role: Option<&str>,
    ) -> Result<(), Fault> {
        if let Some(error) = &denial.0.evaluation_error {
            tracing::error!(action, error, "policy.evaluation.failed");
        }
        let rules: Vec<&str> = denial.0.rules.iter().map(|rule| rule.id.as_str()).collect();
        let mut entry = Entry::new("decision.denied", self.principal.id())
            .with("action", action)
            .with("rules", rules)
            .with("role", role)
            .with("policy", denial.0.policy_hash.as_str())
            .with("request", request_id())
            .with("token_hash", self.principal.token_hash.as_str());
        if let Some(task) = &self.task {
            entry = entry.task(task.id);
        }
        broker.engine.store().write(Write::Note(entry)).await?;
        Ok(())
    }
}

impl Caller {
    /// Writes down that somebody looked at what is not his.
    pub(crate) async fn note_reading(&self, broker: &Broker, what: &str) -> Result<(), Fault> {
        let entry = Entry::new("admin.read", self.principal.id())
            .with("what", what)
            .with("request", request_id());
        broker.engine.store().write(Write::Note(entry)).await?;
        Ok(())
    }

    /// Writes down a request that was refused for what it asks, not for who asks.
    pub(crate) async fn note_refusal(
        &self,
        broker: &Broker,
        code: &str,
        role: Option<&str>,
    ) -> Result<(), Fault> {
        self.known().note_refusal(broker, code, role).await
    }

    fn known(&self) -> Known {
        let task = self.task.as_ref().map(|task| task.id);
        Known { principal: self.principal.id(), task }
    }
}

impl Known {
    /// Writes down a request that was refused for what it asks, not for who asks.
    pub(crate) async fn note_refusal(
        self,
        broker: &Broker,
        code: &str,
        role: Option<&str>,
    ) -> Result<(), Fault> {
        let mut entry = Entry::new("request.refused", self.principal)
            .with("code", code)
            .with("role", role)
            .with("request", request_id());
        if let Some(task) = self.task {
            entry = entry.task(task);
        }
        broker.engine.store().write(Write::Note(entry)).await?;
        Ok(())
    }
}

/// Why a caller may not.
pub(crate) enum Refused {
    /// Policy says no.
    Denied(Denial),
    /// It could not be written down, so the answer is no as well.
    Unwritten(Fault),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Unwritten(fault)
    }
}

impl Refused {
    /// For things whose existence is nobody else's business.
    pub(crate) fn hidden(self) -> Fault {
        match self {
            Self::Denied(_) => Fault::not_found(),
            Self::Unwritten(fault) => fault,
        }
    }

    /// For what everybody knows is there.
    pub(crate) fn forbidden(self) -> Fault {
        match self {
            Self::Denied(denial) => Fault::denied("denied", &denial),
            Self::Unwritten(fault) => fault,
        }
    }
}
