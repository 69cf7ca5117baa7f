//! `/api/v1/leases`.
//!
//! Invariant: another's lease is indistinguishable from none, whatever is asked of it.

pub(super) mod abandon;
pub(super) mod create;
pub(super) mod list;
pub(super) mod renew;
pub(super) mod revoke;
pub(super) mod show;

use std::time::Duration;

use dayfly_lease::{Lease, LeaseId};
use serde::Deserialize;

use super::problem::Fault;
use crate::{broker::Broker, policy::LeaseFacts};

/// The lease that a path names; what cannot be an id names nothing.
async fn named(broker: &Broker, id: &str) -> Result<Lease, Fault> {
    let id: LeaseId = id.parse().map_err(|_| Fault::not_found())?;
    broker.engine.store().lease(id).await?.ok_or_else(Fault::not_found)
}

/// What policy is told of a lease.
struct Named {
    lease: String,
    task: String,
    row: Lease,
}

impl Named {
    fn new(row: Lease) -> Self {
        Self { lease: row.id.to_string(), task: row.task.to_string(), row }
    }

    fn facts(&self) -> LeaseFacts<'_> {
        LeaseFacts {
            lease: &self.lease,
            owner: &self.row.principal,
            task: &self.task,
            role: &self.row.role,
            backend: &self.row.backend,
        }
    }
}

const REASON_CHARS_MAX: usize = 256;

/// A person's reason, short enough for the audit log and on one line.
pub(super) fn checked_reason(reason: String) -> Result<String, Fault> {
    if reason.chars().count() > REASON_CHARS_MAX || reason.chars().any(char::is_control) {
        let detail = format!("must have at most {REASON_CHARS_MAX} characters, none of control");
        return Err(Fault::field("invalid_reason", "/reason", detail));
    }
    Ok(reason)
}

/// `?wait=5s`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    wait: Option<String>,
}

const WAIT_MAX: Duration = Duration::from_secs(20);

impl Wait {
    /// How long; below the request's own time-out, so that a long wait still gets its 202.
    pub(super) fn duration(&self, broker: &Broker) -> Result<Duration, Fault> {
        let Some(text) = self.wait.as_deref().filter(|text| *text != "0s") else {
            return Ok(Duration::ZERO);
        };
        let wait = crate::config::parse_duration(text).map_err(|_| {
            Fault::invalid("invalid_query", "`wait` must be a duration such as `5s`")
        })?;
        let timeout = broker.limits.request_timeout;
        Ok(wait.min(WAIT_MAX).min(timeout.saturating_sub(timeout / 5)))
    }
}

/// A filter by state, which must be one that there is: a misspelt one would match nothing, and
/// that would look like an answer.
pub(super) fn state(asked: Option<String>, known: &[&str]) -> Result<Option<String>, Fault> {
    match asked {
        Some(state) if !known.contains(&state.as_str()) => {
            let detail = format!("`state` must be one of: {}", known.join(", "));
            Err(Fault::invalid("invalid_query", detail))
        }
        asked => Ok(asked),
    }
}

const PAGE_DEFAULT: u32 = 50;
const PAGE_MAX: u32 = 500;

pub(super) fn page_limit(limit: Option<u32>) -> Result<u32, Fault> {
    match limit.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        _ => Err(Fault::invalid("invalid_query", "`limit` must be 1 to 500")),
    }
}
