//! `GET /api/v1/audit`.
//!
//! Invariant: reading the audit log is itself recorded.

use std::sync::Arc;

use axum::{Json, extract::State};
use data_encoding::HEXLOWER;
use dayfly_api as api;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{LeaseId, ReplicaId, TaskId, audit::Record};
use dayfly_store::AuditFilter;
use serde::Deserialize;

use super::{
    caller::{Caller, Refused},
    json::Parameters,
    leases::page_limit,
    problem::Fault,
};
use crate::{broker::Broker, policy::Ask};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    event: Option<String>,
    task: Option<TaskId>,
    lease: Option<LeaseId>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// Reads the audit log, oldest first.
#[utoipa::path(
    get, path = "/api/v1/audit", tag = "administrator", security(("federated" = [])),
    params(
        ("event" = Option<String>, Query), ("task" = Option<String>, Query),
        ("lease" = Option<String>, Query), ("limit" = Option<u32>, Query),
        ("cursor" = Option<String>, Query),
    ),
    responses(
        (status = 200, body = api::AuditPage),
        (status = 400, body = api::Problem, content_type = "application/problem+json"),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 403, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Parameters(query): Parameters<Query>,
) -> Result<Json<api::AuditPage>, Fault> {
    let allowed = caller.may(&broker, &Ask::ReadAudit).await;
    allowed.map_err(Refused::forbidden)?;
    caller.note_reading(&broker, "read_audit").await?;
    let after = query.cursor.map(|text| cursor(&text)).transpose()?;
    let filter = AuditFilter {
        event: query.event,
        task: query.task,
        lease: query.lease,
        after,
        limit: page_limit(query.limit)?,
    };
    let page = broker.store.records(&filter).await?;
    let last = page.rows.last().filter(|_| page.more);
    let next_cursor = last.map(|r| format!("{}.{}.{}", r.at.micros(), r.chain, r.seq));
    let data = page.rows.iter().map(show).collect();
    Ok(Json(api::AuditPage { data, next_cursor }))
}

fn cursor(text: &str) -> Result<(Timestamp, ReplicaId, u64), Fault> {
    let mut parts = text.split('.');
    let mut parsed = || {
        let at = parts.next()?.parse().ok()?;
        let chain = parts.next()?.parse().ok()?;
        let seq = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some((Timestamp::from_micros(at), chain, seq))
    };
    parsed().ok_or_else(|| Fault::invalid("invalid_cursor", "the cursor is not ours"))
}

fn show(record: &Record) -> api::AuditRecord {
    api::AuditRecord {
        chain: record.chain.to_string(),
        seq: record.seq,
        at: record.at.rfc3339(),
        event: record.event.clone(),
        actor: record.actor.clone(),
        task: record.task.map(|id| id.to_string()),
        lease: record.lease.map(|id| id.to_string()),
        detail: serde_json::from_str(&record.detail).unwrap_or_default(),
        hash: HEXLOWER.encode(&record.hash),
        signature: record.signature.as_ref().map(|signature| HEXLOWER.encode(signature)),
    }
}
