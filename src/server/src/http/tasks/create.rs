//! `POST /api/v1/tasks`: a federated token in, a task and its credentials out.
//!
//! Invariant: all roles or none. Until the answer is taken, everything that was minted for it
//! dies when this future is dropped.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use dayfly_api as api;
use dayfly_lease::{Minted, NewTask, Replay, Task, TaskId, Write, Written, audit::Entry};
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
    responses(
        (status = 201, body = api::OpenedTask),
        (status = 400, body = api::Problem, content_type = "application/problem+json"),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 403, body = api::Problem, content_type = "application/problem+json"),
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
    let (ttl, heartbeat) = match acceptable(&broker, &wanted) {
        Ok(acceptable) => acceptable,
        Err(fault) => {
            caller.note_refusal(&broker, fault.code(), None).await?;
            return Err(fault);
        }
    };
    let ask = Ask::OpenTask { purpose: &wanted.purpose, ttl_seconds: wanted.ttl_seconds };
    let allowed = caller.may(&broker, &ask).await.map_err(Refused::forbidden)?;
    let id = TaskId::new(broker.clock.now(), broker.entropy.as_ref());
    // Every role is asked for before anything is written: one denial, and nothing happens.
    let permitted = all_permitted(&broker, &caller, id, &wanted).await?;
    let (token, token_hash) = task_token(broker.entropy.as_ref());
    let new = NewTask {
        id,
        principal: caller.principal.id(),
        issuer: caller.principal.issuer.clone(),
        identity: json!(caller.principal),
        purpose: wanted.purpose.clone(),
        token_hash,
        ttl,
        heartbeat,
    };
    let task = open(&broker, &caller, new, &allowed).await?;
    let guard = TaskGuard::new(&broker.engine, task.id);
    let owner = caller.with_task(task.clone());
    let mints =
        permitted.into_iter().map(|permitted| mint(&broker, &owner, task.id, permitted, None));
    // The first failure drops the others, and what they minted is revoked as undelivered.
    let minted: Vec<Minted> = try_join_all(mints).await?;
    let shown = minted.iter().map(|m| render::lease(&m.lease, Some(&m.credential)));
    let body = api::OpenedTask {
        id: task.id.to_string(),
        token: token.expose().to_owned(),
        state: "open".to_owned(),
        expires_at: task.expires_at.rfc3339(),
        lost_at: task.heartbeat.map(|heartbeat| heartbeat.lost_at.rfc3339()),
        leases: shown.collect(),
    };
    let deliveries = minted.into_iter().map(|minted| minted.delivery).collect();
    respond(StatusCode::CREATED, &body, Handover { deliveries, task: Some(guard) })
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
fn acceptable(
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

fn heartbeat(broker: &Broker, seconds: i64) -> Result<Duration, Fault> {
    let (min, max) = (broker.limits.heartbeat_min, broker.limits.heartbeat_max);
    let every = u64::try_from(seconds).ok().map(Duration::from_secs);
    every.filter(|every| (min..=max).contains(every)).ok_or_else(|| {
        let detail = format!("must be {} to {} s", min.as_secs(), max.as_secs());
        Fault::field("invalid_heartbeat", "/heartbeat_seconds", detail)
    })
}

/// Writes the task, its decision and the token's use in one transaction.
async fn open(
    broker: &Broker,
    caller: &Caller,
    new: NewTask,
    allowed: &Allowed,
) -> Result<Task, Fault> {
    let principal = &caller.principal;
    let replay = principal.single_use.then(|| Replay {
        key: principal.replay_key(),
        expires_at: principal.token_expires_at.plus(REPLAY_MARGIN),
    });
    let decision = allowed.decision();
    let rules: Vec<&str> = decision.rules.iter().map(|rule| rule.id.as_str()).collect();
    let entry = Entry::new("task.opened", principal.id())
        .with("purpose", new.purpose.as_str())
        .with("ttl_seconds", new.ttl.as_secs())
        .with("heartbeat_seconds", new.heartbeat.map(|every| every.as_secs()))
        .with("rules", rules)
        .with("policy", decision.policy_hash.as_str())
        .with("token_hash", principal.token_hash.as_str())
        .with("token_id", principal.token_id.as_deref())
        .with("request", request_id());
    let write = Write::OpenTask { task: Box::new(new), replay, decision: entry };
    match broker.engine.store().write(write).await {
        Ok(Written::Task(task)) => Ok(*task),
        Ok(_) => Err(Fault::internal()),
        Err(error) => {
            if error.refusal() == Some(dayfly_lease::Refusal::Replayed) {
                let entry = Entry::new("identity.refused", principal.id())
                    .with("code", "replayed")
                    .with("token_hash", principal.token_hash.as_str())
                    .with("request", request_id());
                broker.metrics.identity_refused();
                broker.engine.store().write(Write::Note(entry)).await?;
            }
            Err(error.into())
        }
    }
}
