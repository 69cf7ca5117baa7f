//! `GET /api/v1/tasks`.
//!
//! Invariant: who may not list everybody's lists his own.

use std::sync::Arc;

use axum::{Json, extract::State};
use dayfly_api as api;
use dayfly_store::TaskFilter;
use serde::Deserialize;

use super::super::{
    caller::Caller,
    json::Parameters,
    leases::{list::Scope, page_limit, state},
    problem::Fault,
    render,
};
use crate::{broker::Broker, policy::Ask};

const STATES: &[&str] = &["open", "cancelled", "completed", "expired", "failed", "lost", "revoked"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    state: Option<String>,
    principal: Option<String>,
    issuer: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// Lists tasks, newest first.
#[utoipa::path(
    get, path = "/api/v1/tasks", tag = "administrator",
    security(("task" = []), ("federated" = [])),
    params(
        ("state" = Option<String>, Query), ("principal" = Option<String>, Query),
        ("issuer" = Option<String>, Query), ("limit" = Option<u32>, Query),
        ("cursor" = Option<String>, Query),
    ),
    responses(
        (status = 200, body = api::TaskPage),
        (status = 400, body = api::Problem, content_type = "application/problem+json"),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 403, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Parameters(query): Parameters<Query>,
) -> Result<Json<api::TaskPage>, Fault> {
    let scope = Scope::of(&broker, &caller, &Ask::ListTasks).await?;
    let cursor = query.cursor.map(|cursor| cursor.parse()).transpose();
    let filter = TaskFilter {
        state: state(query.state, STATES)?,
        principal: scope.principal(query.principal),
        issuer: query.issuer,
        id: scope.task(),
        before: cursor.map_err(|_| Fault::invalid("invalid_cursor", "the cursor is not ours"))?,
        limit: page_limit(query.limit)?,
    };
    let page = broker.store.tasks(&filter).await?;
    let next_cursor = page.rows.last().filter(|_| page.more).map(|task| task.id.to_string());
    let mut data = Vec::with_capacity(page.rows.len());
    for task in &page.rows {
        // Listing never shows what showing would hide.
        let name = task.id.to_string();
        let ask = Ask::ReadTask { task: &name, owner: &task.principal };
        if caller.may_see(&broker, &ask) {
            let counts = broker.engine.store().counts(task.id).await?;
            data.push(render::task(task, counts));
        }
    }
    Ok(Json(api::TaskPage { data, next_cursor }))
}
