//! `GET /api/v1/roles`.
//!
//! Invariant: a caller sees the roles that he could mint, and all of them only if policy lets
//! him list roles.

pub(crate) mod check;

use std::sync::Arc;

use axum::{Json, extract::State};
use dayfly_api as api;

use super::{caller::Caller, problem::Fault};
use crate::{Role, broker::Broker, policy::Ask};

/// Lists roles by name.
#[utoipa::path(
    get, path = "/api/v1/roles", tag = "workload", security(("task" = []), ("federated" = [])),
    responses(
        (status = 200, body = api::RoleList),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
) -> Result<Json<api::RoleList>, Fault> {
    let policies = broker.policies.load();
    let circumstances = caller.circumstances(&broker);
    let may = |ask: &Ask<'_>| policies.authorize(&caller.principal, ask, &circumstances).is_ok();
    let all = may(&Ask::ListRoles);
    let task = caller.task.as_ref().map(|task| task.id.to_string()).unwrap_or_default();
    let purpose = caller.task.as_ref().map_or("", |task| task.purpose.as_str());
    let mintable = |role: &&Role| {
        let ttl_seconds = role.ttl.as_secs().cast_signed();
        all || may(&Ask::Mint { role: &role.facts, purpose, ttl_seconds, task: &task })
    };
    let data = broker.roles.iter().filter(mintable).map(show).collect();
    Ok(Json(api::RoleList { data }))
}

fn show(role: &Role) -> api::Role {
    api::Role {
        name: role.facts.name.clone(),
        backend: role.facts.backend.clone(),
        kind: role.kind.to_owned(),
        owner: role.facts.owner.clone(),
        labels: role.facts.labels.clone(),
        ttl_seconds: role.ttl.as_secs(),
        ttl_max_seconds: role.ttl_max.as_secs(),
    }
}
