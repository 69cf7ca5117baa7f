//! `POST /oauth2/revoke`: a token is given back (RFC 7009).
//!
//! Invariant: 200 means that what was given back is worth nothing any more: of a task's token, that
//! every credential of the task is verified dead; of an API key, that the key is. Where that cannot
//! be said yet it is 503, and asking again is no error. A token that nobody knows is 200 as well,
//! so that nothing is learnt by asking.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use dayfly_api as api;
use dayfly_backend_api_key::KeyRecord;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{Cause, LeaseId, State as LeaseState, Task, TaskEnd};

use super::{
    super::{
        caller::{Caller, Refused},
        gate::Heard,
        introspect::find,
        problem::Fault,
    },
    OauthFault, read_form, uncached,
};
use crate::{broker::Broker, policy::Ask};

/// The longest that an answer waits for the credentials' deaths.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// When to ask again about what goes on being revoked.
const RETRY_AFTER_SECONDS: u32 = 5;
/// The longest that anybody is told to wait.
const RETRY_AFTER_SECONDS_MAX: u32 = 3_600;
/// Who ends a key's lease, in the audit log: whoever had the key. Nobody else is known to have
/// shown it, and who has it may at any rate give it up.
const HOLDER: &str = "holder";

/// Takes back a task's token, by completing the task, or an API key, by revoking its lease.
#[utoipa::path(
    post, path = "/oauth2/revoke", tag = "workload",
    request_body(
        content = String, content_type = "application/x-www-form-urlencoded",
        description = "token=…; `token_type_hint` is not needed"
    ),
    params(("DPoP" = Option<String>, Header, description = "a proof of the key (RFC 9449) that the token is bound to")),
    responses(
        (status = 200, description = "it is worth nothing (any more)"),
        (status = 400, body = api::OauthError),
        (status = 401, body = api::OauthError),
        (status = 413, body = api::OauthError),
        (status = 503, body = api::OauthError),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    parts: Parts,
    heard: Result<Heard, Fault>,
) -> Result<Response, OauthFault> {
    let Heard { body, place: _place } = heard?;
    // The hint is for who must look in several places, one after the other.
    let token = read_form(&parts.headers, &body)?.required("token")?;
    if let Some(caller) = Caller::of_task(&parts, &broker, &token).await? {
        end_task(&broker, &caller).await?;
    } else if let Some(record) = find(&broker, &token).await? {
        end_key(&broker, &record).await?;
    }
    let mut response = StatusCode::OK.into_response();
    uncached(&mut response);
    Ok(response)
}

async fn end_task(broker: &Broker, caller: &Caller) -> Result<(), OauthFault> {
    let Some(Task { id, principal, .. }) = &caller.task else { return Ok(()) };
    let name = id.to_string();
    let ask = Ask::CompleteTask { task: &name, owner: principal };
    caller.may(broker, &ask).await.map_err(Refused::forbidden)?;
    let actor = caller.principal.id();
    let done = broker.engine.complete(*id, TaskEnd::Completed, &actor, wait(broker)).await;
    let counts = done.map_err(Fault::from)?.counts;
    if counts.owed() == 0 && counts.abandoned == 0 {
        return Ok(());
    }
    let description = "the task has ended, and not all of its credentials are verified dead yet";
    Err(not_yet(broker, description, counts.residual_until))
}

async fn end_key(broker: &Broker, record: &KeyRecord) -> Result<(), OauthFault> {
    let lease: LeaseId = record.lease.parse().map_err(|error| {
        tracing::error!(lease = record.lease, %error, "api_key.lease.unreadable");
        Fault::internal()
    })?;
    let reason = Some("given back".to_owned());
    let ended = broker.engine.revoke(lease, Cause::Requested, HOLDER, reason, wait(broker)).await;
    let row = ended.map_err(Fault::from)?;
    match row.state {
        LeaseState::Revoked { .. } => Ok(()),
        LeaseState::Pending
        | LeaseState::Active { .. }
        | LeaseState::Revoking { .. }
        | LeaseState::Abandoned { .. } => {
            let description = "the key is being revoked, and is not verified dead yet";
            Err(not_yet(broker, description, row.residual_until()))
        }
    }
}

/// Below the request's own time-out, so that a long wait still gets its answer.
fn wait(broker: &Broker) -> Duration {
    let timeout = broker.limits.request_timeout;
    WAIT_MAX.min(timeout.saturating_sub(timeout / 5))
}

/// It goes on by itself. What nothing ends before its native expiry is not asked about sooner.
fn not_yet(broker: &Broker, description: &str, until: Option<Timestamp>) -> OauthFault {
    let left = until.map(|until| until.since(broker.clock.now()).as_secs());
    let left = left.map_or(0, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
    let seconds = left.clamp(RETRY_AFTER_SECONDS, RETRY_AFTER_SECONDS_MAX);
    OauthFault::unavailable(description, seconds)
}
