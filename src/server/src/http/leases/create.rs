//! `POST /api/v1/leases`: a task token and a role in, a credential out, once.
//!
//! Invariant: policy is asked for every mint, also within a task that was allowed.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use dayfly_api as api;
use dayfly_lease::{IdempotencyKey, Minted, TaskId};

use super::super::{
    caller::Caller,
    handover::{Handover, respond},
    json::Body,
    problem::Fault,
    render,
};
use crate::{
    Role,
    broker::Broker,
    grant::{TtlError, grant, lifetime},
    policy::{Denial, Permit},
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
        (status = 429, body = api::Problem, content_type = "application/problem+json"),
        (status = 502, body = api::Problem, content_type = "application/problem+json"),
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
    let wish = Wish {
        task: task.id,
        purpose: &task.purpose,
        role: &wanted.role,
        ttl_seconds: wanted.ttl_seconds,
        pointer: "/role",
    };
    let permitted = permitted(&broker, &caller, &wish).await?;
    let minted = mint(&broker, &caller, task.id, permitted, key).await?;
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

/// A role that somebody wants for a task.
pub(in crate::http) struct Wish<'a> {
    pub(in crate::http) task: TaskId,
    pub(in crate::http) purpose: &'a str,
    pub(in crate::http) role: &'a str,
    /// The lifetime that was asked for, in seconds.
    pub(in crate::http) ttl_seconds: Option<i64>,
    /// Where the request names it.
    pub(in crate::http) pointer: &'a str,
}

/// A wish that policy granted.
pub(in crate::http) struct Permitted<'a> {
    role: &'a Role,
    permit: Permit,
    ttl: Duration,
}

/// Asks policy, then looks at the lifetime: only who may have the role hears its bounds.
pub(in crate::http) async fn permitted<'a>(
    broker: &'a Broker,
    caller: &Caller,
    wish: &Wish<'_>,
) -> Result<Permitted<'a>, Fault> {
    let answer = ask(broker, caller, wish).await;
    if let Err(fault) = &answer {
        let backend = broker.roles.find(wish.role).map_or("(none)", |role| &role.facts.backend);
        broker.metrics.grant(backend, fault.code());
    }
    answer
}

async fn ask<'a>(
    broker: &'a Broker,
    caller: &Caller,
    wish: &Wish<'_>,
) -> Result<Permitted<'a>, Fault> {
    let Decided { role, permit, ttl } = match decided(broker, caller, wish) {
        Ok(decided) => decided,
        Err(Denied { role, denial }) => {
            let role = role.map(|role| role.facts.name.as_str());
            caller.note_denial(broker, "mint", &denial, role).await?;
            return Err(Fault::denied("role_denied", &denial).at(wish.pointer));
        }
    };
    match ttl {
        Ok(ttl) => Ok(Permitted { role, permit, ttl }),
        Err(error) => {
            caller.note_refusal(broker, "invalid_ttl", Some(wish.role)).await?;
            Err(Fault::field("invalid_ttl", "/ttl_seconds", error.to_string()))
        }
    }
}

/// What policy says yes to. The lifetime that was asked for may still not be had.
pub(in crate::http) struct Decided<'a> {
    pub(in crate::http) role: &'a Role,
    pub(in crate::http) permit: Permit,
    pub(in crate::http) ttl: Result<Duration, TtlError>,
}

/// What policy says no to: a role, or the name of one that is not there.
pub(in crate::http) struct Denied<'a> {
    pub(in crate::http) role: Option<&'a Role>,
    pub(in crate::http) denial: Denial,
}

/// Asks policy, and writes nothing down: who asks does that, or only wanted to know.
pub(in crate::http) fn decided<'a>(
    broker: &'a Broker,
    caller: &Caller,
    wish: &Wish<'_>,
) -> Result<Decided<'a>, Denied<'a>> {
    let policies = broker.policies.load();
    let Some(role) = broker.roles.find(wish.role) else {
        let denial = Denial::by_default(policies.hash(), caller.person.is_some());
        return Err(Denied { role: None, denial });
    };
    let ttl = lifetime(role, wish.ttl_seconds);
    let asked = wish.ttl_seconds.unwrap_or(0);
    let permit = policies.permit_mint(
        &caller.principal,
        &role.facts,
        wish.purpose,
        ttl.map_or(asked, |ttl| ttl.as_secs().cast_signed()),
        &wish.task.to_string(),
        &caller.circumstances_of(broker, wish.task),
    );
    match permit {
        Ok(permit) => Ok(Decided { role, permit, ttl }),
        Err(denial) => Err(Denied { role: Some(role), denial }),
    }
}

/// Mints what was permitted. A mint that fails after it was allowed is written down as well.
pub(in crate::http) async fn mint(
    broker: &Broker,
    caller: &Caller,
    task: TaskId,
    permitted: Permitted<'_>,
    key: Option<IdempotencyKey>,
) -> Result<Minted, Fault> {
    let Permitted { role, permit, ttl } = permitted;
    let permit = (permit, caller.source_address());
    let minted = grant(&broker.engine, permit, role, task, ttl, key).await;
    let minted = minted.map_err(Fault::from);
    let result = minted.as_ref().map_or_else(Fault::code, |_| "granted");
    broker.metrics.grant(&role.facts.backend, result);
    if let Err(fault) = &minted {
        // If the store is what failed, there is nowhere to write it.
        drop(caller.note_refusal(broker, fault.code(), Some(&role.facts.name)).await);
    }
    minted
}
