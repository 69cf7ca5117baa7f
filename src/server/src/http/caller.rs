//! Who is asking: a federated token or a task token, or the X.509-SVID of the connection.
//!
//! Invariant: a caller exists only for a token or a certificate that was verified, with what it
//! is bound to and with a proof that nobody has shown before; a refusal is written to the audit
//! log and tells the client nothing but that it was refused, and whether a proof was amiss. A
//! certificate speaks only where no token does.

mod form;
mod person;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{Extensions, HeaderMap, header, request::Parts},
};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use dayfly_backend_sdk::{Secret, Timestamp};
use dayfly_lease::{
    Binding, Entropy, Refusal, Replay, Task, TaskId, TaskState, Write, audit::Entry,
};
use rustls::pki_types::CertificateDer;

use super::{
    envelope::request_id,
    possession::{self, Possession, Scheme, Unproven, sha256},
    problem::Fault,
};
use crate::{
    broker::Broker,
    identity::{Principal, Rejection},
    policy::{Allowed, Ask, Circumstances, Denial},
    recheck::Opener,
    tally::Tally,
};

/// Task tokens begin with this, so that secret scanners find them.
const TASK_TOKEN_PREFIX: &str = "dft_";
const TASK_TOKEN_BYTES: usize = 32;

/// The certificates that the client showed in the handshake of this connection, its own
/// first; without any where it showed none.
#[derive(Clone, Debug)]
pub(crate) struct ShownCertificates(pub(crate) Arc<[CertificateDer<'static>]>);

/// A verified caller.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Who it is.
    pub(crate) principal: Principal,
    /// The task whose token it holds.
    pub(crate) task: Option<Task>,
    /// What it proves to have.
    pub(crate) possession: Possession,
    /// On whose behalf it acts, if on anybody's but its own.
    pub(crate) person: Option<Principal>,
    /// What the token of its task is bound to.
    binding: Option<Binding>,
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
        let source_address = source_address(&parts.extensions, broker);
        let shown = possession::shown(&parts.headers);
        let chain = possession::certificates(parts);
        // Whoever sends a bearer that cannot be read means that bearer.
        let says_more = parts.headers.contains_key(header::AUTHORIZATION);
        if shown.is_none() && (says_more || chain.is_empty()) {
            return Err(Fault::unauthenticated());
        }
        let token = shown.map(|shown| shown.token);
        let possession = proven(parts, broker, token, source_address).await?;
        let (principal, person, task) = match shown {
            None => (by_certificate(broker, chain, source_address).await?, None, None),
            Some(shown) if shown.token.starts_with(TASK_TOKEN_PREFIX) => {
                let (opener, task) = by_task(broker, shown.token, source_address).await?;
                (opener.principal, opener.on_behalf_of, Some(task))
            }
            Some(shown) => (by_identity(broker, shown.token, source_address).await?, None, None),
        };
        let holds = match (shown, &task) {
            (None, _) => Ok(()),
            (Some(shown), Some(task)) => possession.holds(task.binding, shown.scheme),
            (Some(shown), None) => possession.confirms(&principal, shown.scheme),
        };
        if let Err(unproven) = holds {
            let of = (principal.token_hash.as_str(), task.as_ref().map(|task| task.id));
            return Err(refused_unproven(broker, unproven, of, source_address).await?);
        }
        if task.is_none() {
            enabled(broker, &principal).await?;
        }
        remember(broker, &possession, source_address).await?;
        let binding = task.as_ref().and_then(|task| task.binding);
        Ok(Self { principal, task, possession, person, binding, source_address })
    }

    /// Writes down that a verified token serves for nothing, for what it is refused, and whose
    /// token was shown beside it.
    pub(crate) async fn refused(&self, broker: &Broker, code: &str) -> Result<Fault, Fault> {
        refuse_verified(broker, &self.principal, self.person.as_ref(), code).await
    }

    /// Where the request comes from, as the rules see it.
    pub(crate) fn source_address(&self) -> Option<IpAddr> {
        self.source_address
    }

    /// Who it is and where from, as a task's row keeps it.
    pub(crate) fn opener(&self) -> Opener {
        Opener {
            principal: self.principal.clone(),
            source_address: self.source_address,
            on_behalf_of: self.person.clone(),
        }
    }
}

/// What a request proves to have besides `token`.
async fn proven(
    parts: &Parts,
    broker: &Broker,
    token: Option<&str>,
    source_address: Option<IpAddr>,
) -> Result<Possession, Fault> {
    match Possession::of(parts, broker, token) {
        Ok(possession) => Ok(possession),
        Err(rejection) => {
            let why = (rejection.code(), rejection.about());
            refuse(broker, why, source_address, None).await?;
            Err(Fault::invalid_proof())
        }
    }
}

/// Writes down that a token, and of which task, was shown without what it is bound to.
async fn refused_unproven(
    broker: &Broker,
    unproven: Unproven,
    (token_hash, task): (&str, Option<TaskId>),
    source_address: Option<IpAddr>,
) -> Result<Fault, Fault> {
    let entry = refusal((unproven.code(), None), source_address).with("token_hash", token_hash);
    let entry = match task {
        Some(task) => entry.task(task),
        None => entry,
    };
    write_refusal(broker, entry).await?;
    Ok(unproven.fault())
}

/// Whose task's token it is.
async fn by_task(
    broker: &Broker,
    token: &str,
    source_address: Option<IpAddr>,
) -> Result<(Opener, Task), Fault> {
    let task = broker.engine.store().task_by_token(token_hash(token)).await?;
    let Some(task) = task else {
        refuse(broker, ("unknown_task_token", None), source_address, None).await?;
        return Err(Fault::unauthenticated());
    };
    if has_long_ended(&task, broker.clock.now()) {
        refuse(broker, ("task_ended", None), source_address, None).await?;
        return Err(Fault::unauthenticated());
    }
    Ok((opener_of(&task)?, task))
}

/// Who opened a task, as its row keeps it.
fn opener_of(task: &Task) -> Result<Opener, Fault> {
    serde_json::from_value(task.identity.clone()).map_err(|error| {
        tracing::error!(task.id = %task.id, %error, "task.identity.unreadable");
        Fault::internal()
    })
}

async fn by_identity(
    broker: &Broker,
    token: &str,
    source_address: Option<IpAddr>,
) -> Result<Principal, Fault> {
    match broker.authenticator.authenticate(token).await {
        Ok(principal) => Ok(principal),
        Err(rejection) => Err(rejected(broker, token.as_bytes(), rejection, source_address).await?),
    }
}

/// Who shows the certificate of this connection, verified anew: a connection outlives
/// certificates, and the bundles that vouched for them.
async fn by_certificate(
    broker: &Broker,
    chain: &[CertificateDer<'static>],
    source_address: Option<IpAddr>,
) -> Result<Principal, Fault> {
    let leaf = chain.first().ok_or_else(Fault::unauthenticated)?;
    match broker.authenticator.authenticate_certificate(chain).await {
        Ok(principal) => Ok(principal),
        Err(rejection) => Err(rejected(broker, leaf, rejection, source_address).await?),
    }
}

/// A proof is too old a minute after it was made, by a replica's own clock; it is remembered for
/// longer, by as much as those may differ.
const PROOF_MARGIN: Duration = Duration::from_mins(10);

/// Remembers a request's proof where all replicas see it. Last of all, so that nobody but who has
/// a token fills the store with them.
async fn remember(
    broker: &Broker,
    possession: &Possession,
    source_address: Option<IpAddr>,
) -> Result<(), Fault> {
    let Some(proof) = possession.proof() else { return Ok(()) };
    let expires_at = proof.ends_at().plus(PROOF_MARGIN);
    let write = Write::Remember(Replay { key: proof.replay_key(), expires_at });
    match broker.engine.store().write(write).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.refusal(), Some(Refusal::Replayed { .. })) => {
            refuse(broker, ("replayed_proof", None), source_address, None).await?;
            Err(Fault::invalid_proof())
        }
        Err(error) => Err(error.into()),
    }
}

/// A disabled identity may ask for nothing, whatever the rules say of it.
async fn enabled(broker: &Broker, principal: &Principal) -> Result<(), Fault> {
    let disabled = broker.store.disabled(&principal.id()).await?;
    if disabled.is_some_and(|row| row.refuses(principal.issued_at())) {
        return Err(refuse_verified(broker, principal, None, "identity_disabled").await?);
    }
    Ok(())
}

async fn refuse_verified(
    broker: &Broker,
    principal: &Principal,
    person: Option<&Principal>,
    code: &str,
) -> Result<Fault, Fault> {
    let mut entry = Entry::new("identity.refused", principal.id())
        .with("code", code)
        .with("token_hash", principal.token_hash.as_str())
        .with("request", request_id());
    if let Some(person) = person {
        entry = entry
            .with("on_behalf_of", person.id())
            .with("person_token_hash", person.token_hash.as_str());
    }
    write_refusal(broker, entry).await?;
    Ok(Fault::unauthenticated())
}

/// Counts in `refused` that a handshake failed over the client's certificate, and writes it
/// down if it is time to. There is nobody to tell if that fails.
pub(crate) async fn note_certificate_refused(
    broker: &Broker,
    refused: &Tally,
    rejection: Rejection,
    address: Option<SocketAddr>,
) {
    let code = rejection.code();
    broker.metrics.identity_refused();
    tracing::debug!(code, %rejection, "tls.certificate.refused");
    let Some(times) = refused.count(code, broker.clock.running()) else { return };
    let source_address = address.and_then(|address| seen_from(address, broker));
    let entry = refusal((code, rejection.about()), source_address).with("times", times);
    if let Err(error) = broker.engine.store().write(Write::Note(entry)).await {
        tracing::error!(code, times, %error, "tls.certificate.unrecorded");
    }
}

/// Where a request comes from.
pub(super) fn source_address(extensions: &Extensions, broker: &Broker) -> Option<IpAddr> {
    let ConnectInfo(address) = extensions.get::<ConnectInfo<SocketAddr>>()?;
    seen_from(*address, broker)
}

/// Where a connection comes from. Behind a proxy every caller has the proxy's address, which
/// says nothing.
fn seen_from(address: SocketAddr, broker: &Broker) -> Option<IpAddr> {
    Some(address.ip()).filter(|_| !broker.limits.behind_proxy)
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

/// A token or a certificate that was not accepted. What was wrong with it is for the audit log
/// alone.
async fn rejected(
    broker: &Broker,
    shown: &[u8],
    rejection: Rejection,
    source_address: Option<IpAddr>,
) -> Result<Fault, Fault> {
    let why = (rejection.code(), rejection.about());
    refuse(broker, why, source_address, Some(shown)).await?;
    if rejection.is_unavailable() {
        return Ok(Fault::unavailable(
            "identity_unavailable",
            "the caller's issuer cannot be asked",
        ));
    }
    Ok(Fault::unauthenticated())
}

/// Writes the refusal down. If that fails the caller hears that the store is down, and learns
/// nothing more.
async fn refuse(
    broker: &Broker,
    why: (&str, Option<&'static str>),
    source_address: Option<IpAddr>,
    shown: Option<&[u8]>,
) -> Result<(), Fault> {
    let mut entry = refusal(why, source_address);
    if let Some(shown) = shown {
        entry = entry.with("token_hash", HEXLOWER.encode(&sha256(shown)));
    }
    write_refusal(broker, entry).await
}

async fn write_refusal(broker: &Broker, entry: Entry) -> Result<(), Fault> {
    broker.metrics.identity_refused();
    broker.engine.store().write(Write::Note(entry)).await?;
    Ok(())
}

/// The record of a refusal. A handshake is of no request, and has no id of one.
fn refusal((code, about): (&str, Option<&'static str>), source_address: Option<IpAddr>) -> Entry {
    let entry = Entry::new("identity.refused", "unknown")
        .with("code", code)
        .with("request", request_id())
        .with("source_address", source_address.map(|address| address.to_string()));
    if let Some(about) = about { entry.with("about", about) } else { entry }
}

/// Whether the token of a request is, or pretends to be, a task's.
pub(super) fn shows_task_token(headers: &HeaderMap) -> bool {
    possession::shown(headers).is_some_and(|shown| shown.token.starts_with(TASK_TOKEN_PREFIX))
}

/// The bearer of a request, if it has exactly one token and shows it as a bearer's.
pub(super) fn only_bearer(headers: &HeaderMap) -> Option<&str> {
    let shown = possession::shown(headers)?;
    (shown.scheme == Scheme::Bearer).then_some(shown.token)
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
    sha256(token.as_bytes())
}

impl Caller {
    /// The same caller, as the owner of a task that he has just opened.
    pub(crate) fn with_task(self, task: Task) -> Self {
        Self { task: Some(task), ..self }
    }

    /// The same caller, who is about to open a task whose token is bound like this.
    pub(crate) fn bound(self, binding: Option<Binding>) -> Self {
        Self { binding, ..self }
    }

    /// What surrounds the question.
    pub(crate) fn circumstances(&self, broker: &Broker) -> Circumstances {
        Circumstances {
            source_address: self.source_address,
            now: broker.clock.now(),
            own_task: self.task.as_ref().map(|task| task.id.to_string()),
            binding: self.binding,
            on_behalf_of: self.person.clone(),
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
        if let Some(person) = &self.person {
            entry = entry.with("on_behalf_of", person.id());
        }
        if let Some(party) = denial.0.denied {
            entry = entry.with("denied", party.as_str());
        }
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
