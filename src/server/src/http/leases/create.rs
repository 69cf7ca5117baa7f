//! `POST /api/v1/leases`: a task token and a role in, a credential out, once.
//!
//! Invariant: policy is asked for every mint, also within a task that was allowed.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use dayfly_api as api;
use dayfly_lease::{IdempotencyKey, Minted, Task};

use super::super::{
    caller::Caller,
    handover::{Handover, respond},
    json::Body,
    problem::Fault,
    render,
};
use crate::{
    broker::Broker,
    grant::{grant, lifetime},
    policy::{DEFAULT_DENY, Decision, Denial, Rule},
};

/// Mints a credential under a lease of the caller's task.
#[utoipa::path(
    post, path = "/api/v1/leases", tag = "workload", request_body = api::CreateLease,
    security(("task" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "at most one live credential per key and task")),
    responses(
        (status = 201, body = api::Lease),
        (status = 400, body = api::Problem, content_type = "application/problem+json"),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 403, body = api::Problem, content_type = "application/problem+json"),
        (status = 409, body = api::Problem, content_type = "application/problem+json"),
        (status = 413, body = api::Problem, content_type = "application/problem+json"),
        (status = 422, body = api::Problem, content_type = "application/problem+json"),
        (status = 503, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    headers: HeaderMap,
    Body { value: wanted, hash }: Body<api::CreateLease>,
) -> Result<Response, Fault> {
    let Some(task) = caller.task.clone() else {
        let detail = "the bearer must be a task token; open a task first";
        return Err(Fault::field("task_token_needed", "", detail));
    };
    let key = idempotency_key(&headers, hash)?;
    let pointer = "/role".to_owned();
    let asked = wanted.ttl_seconds;
    let minted = mint(&broker, &caller, &task, &wanted.role, asked, key, pointer).await?;
    let body = render::lease(&minted.lease, Some(&minted.credential));
    let handover = Handover { deliveries: vec![minted.delivery], task: None };
    respond(StatusCode::CREATED, &body, handover)
}

fn idempotency_key(
    headers: &HeaderMap,
    request: [u8; 32],
) -> Result<Option<IdempotencyKey>, Fault> {
    const LEN_MAX: usize = 255;
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= LEN_MAX);
    let detail = "`Idempotency-Key` must have 1 to 255 printable characters";
    let key = key.ok_or_else(|| Fault::invalid("invalid_idempotency_key", detail))?;
    Ok(Some(IdempotencyKey { key: key.to_owned(), request }))
}

/// One role for one task: policy, lifetime, grant. `pointer` says where the request names it.
pub(in crate::http) async fn mint(
    broker: &Broker,
    caller: &Caller,
    task: &Task,
    role_name: &str,
    asked: Option<i64>,
    key: Option<IdempotencyKey>,
    pointer: String,
) -> Result<Minted, Fault> {
    let minted = try_mint(broker, caller, task, role_name, asked, key, &pointer).await;
    let backend = broker.roles.find(role_name).map_or("(none)", |role| &role.facts.backend);
    broker.metrics.grant(backend, minted.as_ref().map_or_else(Fault::code, |_| "granted"));
    minted
}

async fn try_mint(
    broker: &Broker,
    caller: &Caller,
    task: &Task,
    role_name: &str,
    asked: Option<i64>,
    key: Option<IdempotencyKey>,
    pointer: &str,
) -> Result<Minted, Fault> {
    let policies = broker.policies.load();
    let Some(role) = broker.roles.find(role_name) else {
        // The same answer as for a role that no rule permits: names are not to be guessed.
        let denial = no_such_role(policies.hash());
        caller.note_denial(broker, "mint", &denial, None).await?;
        return Err(Fault::denied("role_denied", &denial).at(pointer));
    };
    let ttl = lifetime(role, asked);
    let seconds = ttl.map_or(asked.unwrap_or(0), |ttl| ttl.as_secs().cast_signed());
    let permit = policies.permit_mint(
        &caller.principal,
        &role.facts,
        &task.purpose,
        seconds,
        &task.id.to_string(),
        &caller.circumstances(broker),
    );
    let permit = match permit {
        Ok(permit) => permit,
        Err(denial) => {
            caller.note_denial(broker, "mint", &denial, Some(role_name)).await?;
            return Err(Fault::denied("role_denied", &denial).at(pointer));
        }
    };
    let ttl = match ttl {
        Ok(ttl) => ttl,
        // Only who may have the role hears what its bounds are.
        Err(error) => {
            caller.note_refusal(broker, "invalid_ttl", role_name).await?;
            return Err(Fault::field("invalid_ttl", "/ttl_seconds", error.to_string()));
        }
    };
    Ok(grant(&broker.engine, permit, role, task.id, ttl, key).await?)
}

fn no_such_role(policy_hash: &str) -> Denial {
    let reason = Some("no rule permits it".to_owned());
    Denial(Decision {
        allowed: false,
        rules: vec![Rule { id: DEFAULT_DENY.to_owned(), reason }],
        policy_hash: policy_hash.to_owned(),
        evaluation_error: None,
    })
}
