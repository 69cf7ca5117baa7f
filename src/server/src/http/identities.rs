//! `POST /api/v1/identities/disable`, `…/enable`, `GET /api/v1/identities/disabled`.
//!
//! Invariant: disabling answers when no task of the identity is open any more, and no other can be
//! opened. Nothing is said of an identity that it exists: one may be disabled before it ever came.

use std::sync::Arc;

use axum::{Json, extract::State};
use dayfly_api as api;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{Disabled, Disabling, Write, Written};
use serde::Deserialize;

use super::{
    caller::{Caller, Refused},
    json::{Body, Parameters},
    leases::{checked_reason, page_limit},
    problem::Fault,
};
use crate::{broker::Broker, identity::Principal, policy::Ask};

/// Ends an identity's open tasks, and lets it open no more.
#[utoipa::path(
    post, path = "/api/v1/identities/disable", tag = "administrator",
    request_body = api::DisableIdentity, security(("federated" = [])),
    responses(
        (status = 200, body = api::IdentityDisabled),
        (status = 400, body = api::Problem, content_type = "application/problem+json"),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 403, body = api::Problem, content_type = "application/problem+json"),
        (status = 422, body = api::Problem, content_type = "application/problem+json"),
        (status = 503, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn disable(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Body { value: wanted, .. }: Body<api::DisableIdentity>,
) -> Result<Json<api::IdentityDisabled>, Fault> {
    caller.may(&broker, &Ask::DisableIdentity).await.map_err(Refused::forbidden)?;
    let principal = principal(&broker, &wanted.issuer, &wanted.subject)?;
    let cut_off = wanted.cut_off.as_deref().map(|text| {
        Timestamp::parse_rfc3339(text).ok_or_else(|| {
            Fault::field("invalid_cut_off", "/cut_off", "must be a time as RFC 3339 writes it")
        })
    });
    let disabling = Disabling {
        principal: principal.clone(),
        cut_off: cut_off.transpose()?,
        actor: caller.principal.id(),
        reason: Some(checked_reason(wanted.reason)?),
        keep: broker.authenticator.token_age_max(),
        delivery: None,
    };
    // To its end, also when the administrator's connection breaks.
    let engine = Arc::clone(&broker.engine);
    let work = broker.engine.detach(async move { engine.disable(disabling).await });
    let tasks = work.await.map_err(|_| Fault::internal())??.unwrap_or_default();
    let tasks = tasks.iter().map(ToString::to_string).collect();
    Ok(Json(api::IdentityDisabled { principal, tasks }))
}

/// Lets an identity open tasks again. Enabling what was not disabled is no error.
#[utoipa::path(
    post, path = "/api/v1/identities/enable", tag = "administrator",
    request_body = api::EnableIdentity, security(("federated" = [])),
    responses(
        (status = 200, body = api::IdentityEnabled),
        (status = 400, body = api::Problem, content_type = "application/problem+json"),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 403, body = api::Problem, content_type = "application/problem+json"),
        (status = 422, body = api::Problem, content_type = "application/problem+json"),
        (status = 503, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn enable(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Body { value: wanted, .. }: Body<api::EnableIdentity>,
) -> Result<Json<api::IdentityEnabled>, Fault> {
    caller.may(&broker, &Ask::EnableIdentity).await.map_err(Refused::forbidden)?;
    let principal = principal(&broker, &wanted.issuer, &wanted.subject)?;
    let reason = Some(checked_reason(wanted.reason)?);
    let actor = caller.principal.id();
    let write = Write::Enable { principal: principal.clone(), actor, reason };
    let written = broker.engine.store().write(write).await?;
    let was_disabled = matches!(written, Written::Count(1));
    Ok(Json(api::IdentityEnabled { principal, was_disabled }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    limit: Option<u32>,
    cursor: Option<String>,
}

/// Lists the disabled identities, in the order of their names.
#[utoipa::path(
    get, path = "/api/v1/identities/disabled", tag = "administrator",
    security(("federated" = [])),
    params(("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses(
        (status = 200, body = api::DisabledPage),
        (status = 400, body = api::Problem, content_type = "application/problem+json"),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 403, body = api::Problem, content_type = "application/problem+json"),
        (status = 503, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Parameters(query): Parameters<Query>,
) -> Result<Json<api::DisabledPage>, Fault> {
    caller.may(&broker, &Ask::ListDisabled).await.map_err(Refused::forbidden)?;
    caller.note_reading(&broker, "list_disabled").await?;
    let limit = page_limit(query.limit)?;
    let page = broker.store.all_disabled(query.cursor.unwrap_or_default(), limit).await?;
    let next_cursor = page.rows.last().filter(|_| page.more).map(|row| row.principal.clone());
    Ok(Json(api::DisabledPage { data: page.rows.into_iter().map(shown).collect(), next_cursor }))
}

fn shown(row: Disabled) -> api::DisabledIdentity {
    api::DisabledIdentity {
        principal: row.principal,
        cut_off: row.cut_off.map(Timestamp::rfc3339),
        disabled_at: row.at.rfc3339(),
        disabled_by: row.by,
        reason: row.reason,
    }
}

/// A misspelt issuer would disable nobody, and that would look like success.
fn principal(broker: &Broker, issuer: &str, subject: &str) -> Result<String, Fault> {
    if !broker.authenticator.knows(issuer) {
        return Err(Fault::field("unknown_issuer", "/issuer", "no issuer has this name"));
    }
    Principal::id_of(issuer, subject).ok_or_else(|| {
        let detail = "must have 1 to 2048 bytes, and no control character";
        Fault::field("invalid_subject", "/subject", detail)
    })
}
