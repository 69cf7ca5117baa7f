//! `POST /api/v1/tasks`: a federated token in, a task and its credentials out.
//!
//! Invariant: all roles or none. Until the answer is taken, everything that was minted for it
//! dies when this future is dropped.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use data_encoding::BASE64URL_NOPAD;
use dayfly_api as api;
use dayfly_backend_sdk::Secret;
use dayfly_lease::{
    Binding, FirstKey, JobKey, Minted, NewTask, Person, Refusal, Replay, Task, TaskId, TokenUse,
    Write, Written, audit::Entry,
};
use futures_util::future::try_join_all;
use serde_json::json;

use super::super::{
    caller::{Caller, Refused, task_token},
    envelope::request_id,
    handover::{Handover, TaskGuard, respond},
    json::Body,
    leases::create::{Permitted, Wish, mint, permitted},
    problem::Fault,
    render,
};
use crate::{
    broker::Broker,
    identity::Principal,
    policy::{Allowed, Ask},
};

/// A token is accepted a little after its end, by the issuer's leeway and by how far clocks
/// differ; it is remembered for longer than that.
const REPLAY_MARGIN: Duration = Duration::from_mins(10);
const PURPOSE_CHARS_MAX: usize = 256;
const ROLES_MAX: usize = 16;

/// Opens a task; with `roles`, mints them in the same round trip.
#[utoipa::path(
    post, path = "/api/v1/tasks", tag = "workload", request_body = api::CreateTask,
    security(("federated" = [])),
    params(("DPoP" = Option<String>, Header, description = "a proof of a key (RFC 9449), to which the task's token is bound")),
    responses(
        (status = 201, body = api::OpenedTask),
        (status = 400, body = api::Problem, content_type = "application/problem+json"),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 403, body = api::Problem, content_type = "application/problem+json"),
        (status = 409, body = api::Problem, content_type = "application/problem+json"),
        (status = 413, body = api::Problem, content_type = "application/problem+json"),
        (status = 422, body = api::Problem, content_type = "application/problem+json"),
        (status = 502, body = api::Problem, content_type = "application/problem+json"),
        (status = 503, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Body { value: wanted, .. }: Body<api::CreateTask>,
) -> Result<Response, Fault> {
    // A task token opens no tasks: its right ends with its own.
    if caller.task.is_some() {
        return Err(Fault::unauthenticated());
    }
    let Opened { token, task, minted, guard } = opened(&broker, caller, &wanted).await?;
    let shown = minted.iter().map(|m| render::lease(&m.lease, Some(&m.credential)));
    let body = api::OpenedTask {
        id: task.id.to_string(),
        token: token.expose().to_owned(),
        token_type: token_type(task.binding).to_owned(),
        binding: task.binding.map(|binding| binding.as_str().to_owned()),
        state: "open".to_owned(),
        expires_at: task.expires_at.rfc3339(),
        lost_at: task.heartbeat.map(|heartbeat| heartbeat.lost_at.rfc3339()),
        leases: shown.collect(),
    };
    let deliveries = minted.into_iter().map(|minted| minted.delivery).collect();
    respond(StatusCode::CREATED, &body, Handover { deliveries, task: Some(guard) })
}

/// A task that was opened, with what was minted for it. It ends again if this is dropped.
pub(in crate::http) struct Opened {
    pub(in crate::http) token: Secret,
    pub(in crate::http) task: Task,
    pub(in crate::http) minted: Vec<Minted>,
    pub(in crate::http) guard: TaskGuard,
}

/// Opens what an identity asks for, on whoever's behalf it asks.
pub(in crate::http) async fn opened(
    broker: &Broker,
    caller: Caller,
    wanted: &api::CreateTask,
) -> Result<Opened, Fault> {
    let acceptable = acceptable(broker, wanted)
        .and_then(|(ttl, heartbeat)| Ok((ttl, heartbeat, binding(broker, &caller, wanted.bind)?)));
    let (ttl, heartbeat, binding) = match acceptable {
        Ok(acceptable) => acceptable,
        Err(fault) => {
            caller.note_refusal(broker, fault.code(), None).await?;
            return Err(fault);
        }
    };
    let caller = match &wanted.on_behalf_of {
        Some(api::PersonToken(token)) => caller.on_behalf_of(broker, token).await?,
        None => caller,
    };
    let caller = caller.bound(binding);
    let ask = Ask::OpenTask { purpose: &wanted.purpose, ttl_seconds: wanted.ttl_seconds };
    let allowed = caller.may(broker, &ask).await.map_err(Refused::forbidden)?;
    let id = TaskId::new(broker.clock.now(), broker.entropy.as_ref());
    // Every role is asked for before anything is written: one denial, and nothing happens.
    let permitted = all_permitted(broker, &caller, id, wanted).await?;
    let (token, token_hash) = task_token(broker.entropy.as_ref());
    let new = NewTask {
        id,
        principal: caller.principal.id(),
        issuer: caller.principal.issuer.clone(),
        identity: json!(caller.opener()),
        purpose: wanted.purpose.clone(),
        issued_at: caller.principal.issued_at(),
        token_hash,
        ttl,
        heartbeat,
        keys: broker.job_of(&caller.principal),
        binding,
        on_behalf_of: caller.person.as_ref().map(named),
        person_issued_at: caller.person.as_ref().and_then(Principal::issued_at),
    };
    let mut task = open(broker, &caller, new, &allowed).await?;
    let guard = TaskGuard::new(&broker.engine, task.id);
    let owner = caller.with_task(task.clone());
    let mints = permitted.into_iter().map(|permitted| mint(broker, &owner, id, permitted, None));
    // The first failure drops the others, and what they minted is revoked as undelivered.
    let minted: Vec<Minted> = heard_meanwhile(broker, &mut task, try_join_all(mints)).await?;
    Ok(Opened { token, task, minted, guard })
}

/// A person as the rows of a task and of its leases name them.
fn named(person: &Principal) -> Person {
    Person { principal: person.id(), name: person.display_name() }
}

/// Does `work` for whoever waits for it, who is there, and cannot say so before it has the token:
/// its silence begins with the answer, however long the mints take.
async fn heard_meanwhile<T>(broker: &Broker, task: &mut Task, work: impl Future<Output = T>) -> T {
    let Some(heartbeat) = task.heartbeat else { return work.await };
    // A beat within this of another one changes nothing.
    let quarter = heartbeat.every / 4;
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = beat_after(quarter, broker, task) => {}
        }
    }
}

/// A beat that the store does not take leaves a gap in what the engine has heard.
async fn beat_after(pause: Duration, broker: &Broker, task: &mut Task) {
    broker.clock.sleep(pause).await;
    match broker.engine.store().write(Write::Beat { task: task.id }).await {
        Ok(Written::Task(heard)) => *task = *heard,
        Ok(_) => {}
        // It has ended meanwhile, and so will the mints.
        Err(error) if error.refusal().is_some() => {}
        Err(error) => {
            tracing::warn!(task.id = %task.id, %error, "task.beat.failed");
            broker.engine.missed_a_beat();
        }
    }
}

async fn all_permitted<'a>(
    broker: &'a Broker,
    caller: &Caller,
    task: TaskId,
    wanted: &api::CreateTask,
) -> Result<Vec<Permitted<'a>>, Fault> {
    let mut all = Vec::with_capacity(wanted.roles.len());
    for (index, role) in wanted.roles.iter().enumerate() {
        let pointer = format!("/roles/{index}");
        let purpose = &wanted.purpose;
        let wish = Wish { task, purpose, role, ttl_seconds: None, pointer: &pointer };
        all.push(permitted(broker, caller, &wish).await?);
    }
    Ok(all)
}

/// The task's lifetime and its heartbeat, if all that was asked for can be had.
pub(in crate::http) fn acceptable(
    broker: &Broker,
    wanted: &api::CreateTask,
) -> Result<(Duration, Option<Duration>), Fault> {
    let length = wanted.purpose.chars().count();
    if wanted.purpose.trim().is_empty() || length > PURPOSE_CHARS_MAX {
        let detail = format!("must have 1 to {PURPOSE_CHARS_MAX} characters");
        return Err(Fault::field("invalid_purpose", "/purpose", detail));
    }
    if wanted.purpose.chars().any(char::is_control) {
        return Err(Fault::field("invalid_purpose", "/purpose", "must have no control characters"));
    }
    if wanted.roles.len() > ROLES_MAX {
        let detail = format!("at most {ROLES_MAX} roles in one request");
        return Err(Fault::field("too_many_roles", "/roles", detail));
    }
    let max = broker.limits.task_ttl_max;
    let seconds = u64::try_from(wanted.ttl_seconds).unwrap_or(0);
    if seconds == 0 || Duration::from_secs(seconds) > max {
        let detail = format!("must be 1 to {} s", max.as_secs());
        return Err(Fault::field("invalid_ttl", "/ttl_seconds", detail));
    }
    let heartbeat = wanted.heartbeat_seconds.map(|seconds| heartbeat(broker, seconds));
    Ok((Duration::from_secs(seconds), heartbeat.transpose()?))
}

/// What the task's token will be bound to: what is asked for, and otherwise the key that is
/// proven. A certificate must be asked for, since workloads get new ones while a task goes on.
pub(in crate::http) fn binding(
    broker: &Broker,
    caller: &Caller,
    wanted: Option<api::Bind>,
) -> Result<Option<Binding>, Fault> {
    let key = caller.possession.key().map(Binding::Key);
    let certificate = caller.possession.certificate().map(Binding::Certificate);
    let unproven = |detail| Fault::field("binding_unproven", "/bind", detail);
    match wanted {
        Some(api::Bind::Certificate) if certificate.is_none() => {
            Err(unproven("the connection has no client certificate"))
        }
        Some(api::Bind::Certificate) => Ok(certificate),
        Some(api::Bind::Key) if key.is_none() => {
            Err(unproven("no key is proven by a `DPoP` header, or this broker takes no proofs"))
        }
        None if key.is_none() && broker.limits.binding_required => {
            let detail = "this broker opens no task whose token anybody could use: prove a key by \
                          a `DPoP` header, or ask for `certificate`";
            Err(Fault::field("binding_required", "/bind", detail))
        }
        Some(api::Bind::Key) | None => Ok(key),
    }
}

/// RFC 6749 §7.1, RFC 9449 §5. A token that is bound to a certificate is shown as any other
/// (RFC 8705 §3).
pub(in crate::http) fn token_type(binding: Option<Binding>) -> &'static str {
    match binding {
        Some(Binding::Key(_)) => "DPoP",
        Some(Binding::Certificate(_)) | None => "Bearer",
    }
}

fn heartbeat(broker: &Broker, seconds: i64) -> Result<Duration, Fault> {
    let (min, max) = (broker.limits.heartbeat_min, broker.limits.heartbeat_max);
    let every = u64::try_from(seconds).ok().map(Duration::from_secs);
    every.filter(|every| (min..=max).contains(every)).ok_or_else(|| {
        let detail = format!("must be {} to {} s", min.as_secs(), max.as_secs());
        Fault::field("invalid_heartbeat", "/heartbeat_seconds", detail)
    })
}

/// Writes the task, its decision and the tokens' use in one transaction.
async fn open(
    broker: &Broker,
    caller: &Caller,
    new: NewTask,
    allowed: &Allowed,
) -> Result<Task, Fault> {
    let (principal, person) = (&caller.principal, caller.person.as_ref());
    let (tokens, key) = ([(Some(principal), None), (person, person)], caller.possession.key());
    let used = tokens.into_iter().filter_map(|(of, person)| Some((person, token_use(of?, key)?)));
    let (people, used): (Vec<Option<&Principal>>, Vec<TokenUse>) = used.unzip();
    let decision = allowed.decision();
    let rules: Vec<&str> = decision.rules.iter().map(|rule| rule.id.as_str()).collect();
    let job = new.keys.job.as_ref().or(new.keys.run.as_ref());
    let mut entry = Entry::new("task.opened", principal.id())
        .with("purpose", new.purpose.as_str())
        .with("ttl_seconds", new.ttl.as_secs())
        .with("heartbeat_seconds", new.heartbeat.map(|every| every.as_secs()))
        .with("job", job.map(JobKey::as_str))
        .with("binding", new.binding.map(Binding::as_str))
        .with("bound_to", new.binding.map(|it| BASE64URL_NOPAD.encode(&it.hash())))
        .with("rules", rules)
        .with("policy", decision.policy_hash.as_str())
        .with("token_hash", principal.token_hash.as_str())
        .with("token_id", principal.token_id.as_deref())
        .with("request", request_id());
    if let Some(person) = person {
        entry = entry
            .with("person_token_hash", person.token_hash.as_str())
            .with("person_token_id", person.token_id.as_deref());
    }
    let write = Write::OpenTask { task: Box::new(new), used, decision: entry };
    match broker.engine.store().write(write).await {
        Ok(Written::Task(task)) => Ok(*task),
        Ok(_) => Err(Fault::internal()),
        Err(error) => {
            note_unopened(broker, caller, &people, error.refusal()).await?;
            Err(error.into())
        }
    }
}

/// Writes down why nothing was opened, and of which token that is said. `people` says of each that
/// was to be used which person's it is; it is nobody's but the caller's otherwise.
async fn note_unopened(
    broker: &Broker,
    caller: &Caller,
    people: &[Option<&Principal>],
    refusal: Option<Refusal>,
) -> Result<(), Fault> {
    let whose = |nth: usize| people.get(nth).copied().flatten();
    let (person, code) = match refusal {
        Some(Refusal::AnotherKey { nth }) => (whose(nth), "token_bound_to_another_key"),
        Some(Refusal::IdentityDisabled) => (None, "identity_disabled"),
        Some(Refusal::JobEnded) => return caller.note_refusal(broker, "job_ended", None).await,
        Some(Refusal::PersonDisabled) => (caller.person.as_ref(), "identity_disabled"),
        Some(Refusal::Replayed { nth }) => (whose(nth), "replayed"),
        Some(_) | None => return Ok(()),
    };
    match person {
        Some(person) => caller.refused_person(broker, person, code).await?,
        None => caller.refused(broker, code).await?,
    };
    Ok(())
}

/// How a token may be used; none where its holder may use it as often as they like. The key that it
/// was first proven with is remembered under a name that no token used once has: no issuer's name
/// has a colon.
fn token_use(principal: &Principal, key: Option<[u8; 32]>) -> Option<TokenUse> {
    let expires_at = principal.token_expires_at.plus(REPLAY_MARGIN);
    if principal.single_use {
        return Some(TokenUse::Once(Replay { key: principal.replay_key(), expires_at }));
    }
    if principal.first_key_binds {
        let token = format!("first-key:{}", principal.replay_key());
        return Some(TokenUse::ByFirstKey(FirstKey { token, key, expires_at }));
    }
    None
}
