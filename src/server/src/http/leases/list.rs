//! `GET /api/v1/leases`.
//!
//! Invariant: who may not list everybody's lists his own, and a listing never shows what
//! showing would hide.

use std::sync::Arc;

use axum::{Json, extract::State};
use dayfly_api as api;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::TaskId;
use dayfly_store::LeaseFilter;
use serde::Deserialize;

use super::{
    super::{
        caller::{Caller, Refused},
        json::Parameters,
        problem::Fault,
        render,
    },
    Named, page_limit, state,
};
use crate::{broker::Broker, policy::Ask};

const STATES: &[&str] = &["pending", "active", "revoking", "revoked", "abandoned"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    state: Option<String>,
    role: Option<String>,
    backend: Option<String>,
    task: Option<String>,
    principal: Option<String>,
    issuer: Option<String>,
    expires_before: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// Whose rows a caller may list.
pub(in crate::http) enum Scope {
    /// Everybody's.
    All,
    /// His own; with a task token, that task's.
    Own { principal: String, task: Option<TaskId> },
}

impl Scope {
    pub(in crate::http) async fn of(
        broker: &Broker,
        caller: &Caller,
        everybodys: &Ask<'_>,
    ) -> Result<Self, Fault> {
        let policies = broker.policies.load();
        let circumstances = caller.circumstances(broker);
        if policies.authorize(&caller.principal, everybodys, &circumstances).is_ok() {
            caller.note_reading(broker, everybodys.name()).await?;
            return Ok(Self::All);
        }
        caller.may(broker, &Ask::ListOwn).await.map_err(Refused::forbidden)?;
        let task = caller.task.as_ref().map(|task| task.id);
        Ok(Self::Own { principal: caller.principal.id(), task })
    }

    pub(in crate::http) fn principal(&self, asked: Option<String>) -> Option<String> {
        match self {
            Self::All => asked,
            Self::Own { principal, .. } => Some(principal.clone()),
        }
    }

    pub(in crate::http) fn task(&self) -> Option<TaskId> {
        match self {
            Self::All => None,
            Self::Own { task, .. } => *task,
        }
    }
}

/// Lists leases, newest first.
#[utoipa::path(
    get, path = "/api/v1/leases", tag = "administrator",
    security(("task" = []), ("federated" = [])),
    params(
        ("state" = Option<String>, Query), ("role" = Option<String>, Query),
        ("backend" = Option<String>, Query), ("task" = Option<String>, Query),
        ("principal" = Option<String>, Query), ("issuer" = Option<String>, Query),
        ("expires_before" = Option<String>, Query), ("limit" = Option<u32>, Query),
        ("cursor" = Option<String>, Query),
    ),
    responses(
        (status = 200, body = api::LeasePage),
        (status = 400, body = api::Problem, content_type = "application/problem+json"),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 403, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Parameters(query): Parameters<Query>,
) -> Result<Json<api::LeasePage>, Fault> {
    let scope = Scope::of(&broker, &caller, &Ask::ListLeases).await?;
    let filter = filter(query, &scope)?;
    let page = broker.store.leases(&filter).await?;
    let next_cursor = page.rows.last().filter(|_| page.more).map(|lease| lease.id.to_string());
    let mut data = Vec::with_capacity(page.rows.len());
    for row in page.rows {
        let lease = Named::new(row);
        if caller.may_see(&broker, &Ask::ReadLease { lease: lease.facts() }) {
            data.push(render::lease(&lease.row, None));
        }
    }
    Ok(Json(api::LeasePage { data, next_cursor }))
}

fn filter(query: Query, scope: &Scope) -> Result<LeaseFilter, Fault> {
    let unreadable =
        |what: &str| Fault::invalid("invalid_query", format!("`{what}` cannot be read"));
    let task = query.task.map(|task| task.parse()).transpose().map_err(|_| unreadable("task"))?;
    let before = query.expires_before.map(|at| Timestamp::parse_rfc3339(&at).ok_or(()));
    let cursor = query.cursor.map(|cursor| cursor.parse()).transpose();
    Ok(LeaseFilter {
        state: state(query.state, STATES)?,
        role: query.role,
        backend: query.backend,
        task: scope.task().or(task),
        principal: scope.principal(query.principal),
        issuer: query.issuer,
        expires_before: before.transpose().map_err(|()| unreadable("expires_before"))?,
        before: cursor.map_err(|_| Fault::invalid("invalid_cursor", "the cursor is not ours"))?,
        limit: page_limit(query.limit)?,
    })
}
