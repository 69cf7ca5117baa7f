//! `POST /api/v1/webhooks/{name}`: a CI platform tells that a job ended.
//!
//! Invariant: whoever does not know the secret gets the same answer whether or not there is such a
//! webhook, and changes nothing but a record now and then that somebody tried. An end that was
//! taken is not given up because the store is away for a while: nobody tells it again.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::{
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    http::StatusCode,
    routing::{self, MethodRouter},
};
use dayfly_api as api;
use dayfly_lease::{JobClosure, JobEnd, StoreError, Write, audit::Entry};
use tokio::sync::OwnedSemaphorePermit;

use super::{caller::source_address, envelope::request_id, gate::Heard, json::Id, problem::Fault};
use crate::{
    broker::Broker,
    webhook::{Hook, Told, Unproven, proves_something},
};

/// The longest event. GitHub's may be 25 MB, but not those about jobs.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Platforms wait ten seconds; what has begun goes on without them.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// For how long the store is asked again to write an end. It may restart or fail over meanwhile;
/// the tasks have their deadline in any case.
const RETRY_FOR: Duration = Duration::from_mins(10);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(15);

/// The route, with a bound of its own on the body.
pub(super) fn post() -> MethodRouter<Arc<Broker>> {
    routing::post(handler).layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// Takes an event of a CI platform, as its signature or token proves it. What says that a job
/// ended ends the job's tasks; everything else is taken and does nothing.
#[utoipa::path(
    post, path = "/api/v1/webhooks/{name}", tag = "operations",
    params(("name" = String, Path, description = "the webhook's name in the configuration")),
    request_body(content = String, content_type = "application/json"),
    responses(
        (status = 202, description = "taken"),
        (status = 400, body = api::Problem, content_type = "application/problem+json"),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 413, body = api::Problem, content_type = "application/problem+json"),
        (status = 503, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    Id(name): Id,
    request: Request,
) -> Result<StatusCode, Fault> {
    let source = source_address(request.extensions(), &broker).map(|source| source.to_string());
    let headers = request.headers().clone();
    let hook = broker.hooks.named(&name);
    // Up to the signature nothing depends on whether there is such a webhook.
    let heard = if proves_something(&headers) {
        Some(Heard::from_request(request, &broker).await?)
    } else {
        None
    };
    let hook = hook.ok_or_else(Fault::unauthenticated)?;
    let proved = heard
        .ok_or(Unproven::Missing)
        .and_then(|heard| hook.verify(&headers, &heard.body, broker.clock.now()).map(|()| heard));
    let Heard { body, place: _place } = match proved {
        Ok(heard) => heard,
        Err(unproven) => {
            note_refusal(&broker, hook, unproven, source).await;
            return Err(Fault::unauthenticated());
        }
    };
    let Ok(Told { ends, outside }) = hook.read(&headers, &body) else {
        broker.metrics.webhook(&name, "unreadable");
        tracing::warn!(webhook = name, "webhook.unreadable");
        let detail = "this is not an event as the platform sends it, in JSON";
        return Err(Fault::invalid("invalid_event", detail));
    };
    drop(body);
    if outside > 0 {
        broker.metrics.webhook(&name, "outside");
        if let Some(ends) = hook.outside.add(outside as u64, broker.clock.running()) {
            tracing::warn!(webhook = name, ends, "webhook.outside");
        }
    } else if ends.is_empty() {
        broker.metrics.webhook(&name, "ignored");
    }
    if ends.is_empty() {
        return Ok(StatusCode::ACCEPTED);
    }
    let room = tokio::select! {
        room = broker.hooks.room() => room,
        () = broker.clock.sleep(ANSWER_WITHIN) => None,
    };
    let room = room.ok_or_else(Fault::busy)?;
    let work = end_all(Arc::clone(&broker), name, ends, room);
    tokio::select! {
        done = broker.engine.detach(work) => done.map_err(|_| Fault::internal())?,
        () = broker.clock.sleep(ANSWER_WITHIN) => {}
    }
    Ok(StatusCode::ACCEPTED)
}

/// Ends the jobs, each as soon as the store can. GitHub tells nobody twice, and GitLab only at
/// its pipeline's end: what is lost here is lost.
async fn end_all(broker: Arc<Broker>, name: String, ends: Vec<JobEnd>, room: OwnedSemaphorePermit) {
    let until = broker.clock.running() + RETRY_FOR;
    let (mut owed, mut wait) = (VecDeque::from(ends), RETRY_FIRST);
    let mut closures = Vec::new();
    while let Some(job) = owed.pop_front() {
        match broker.engine.close_job(&job).await {
            Ok(closure) => {
                note_end(&broker, &name, &job, &closure);
                closures.push(closure);
                wait = RETRY_FIRST;
            }
            Err(error) if may_pass(&error) && broker.clock.running() < until => {
                tracing::debug!(webhook = name, job = job.key.as_str(), %error, "webhook.delayed");
                // The others have their turn first: it may be this one alone that fails.
                owed.push_back(job);
                broker.clock.sleep(wait).await;
                wait = (wait * 2).min(RETRY_MOST);
            }
            Err(error) => {
                broker.metrics.webhook(&name, "failed");
                tracing::error!(webhook = name, job = job.key.as_str(), %error, "webhook.failed");
            }
        }
    }
    let result = if closures.iter().any(|closure| !closure.tasks.is_empty()) {
        Some("ended")
    } else if closures.iter().any(|closure| closure.known) {
        Some("repeated")
    } else {
        (!closures.is_empty()).then_some("unknown_job")
    };
    if let Some(result) = result {
        broker.metrics.webhook(&name, result);
    }
    drop(room);
}

/// Whether the same may be written a little later.
fn may_pass(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_) | StoreError::Unknown(_))
}

fn note_end(broker: &Broker, name: &str, job: &JobEnd, closure: &JobClosure) {
    let (end, tasks) = (job.end.as_str(), closure.tasks.len());
    tracing::info!(webhook = name, job = job.key.as_str(), end, tasks, "webhook.told");
    let hook = broker.hooks.named(name);
    let running = broker.clock.running();
    if let Some(ends) = hook.and_then(|hook| hook.forgotten.add(closure.forgotten, running)) {
        tracing::warn!(webhook = name, ends, "webhook.forgotten");
    }
}

/// Whoever tried hears the same whether or not this can be written.
async fn note_refusal(broker: &Broker, hook: &Hook, unproven: Unproven, source: Option<String>) {
    broker.metrics.webhook(&hook.name, "refused");
    let Some(times) = hook.refused.add(1, broker.clock.running()) else { return };
    let code = unproven.code();
    tracing::warn!(webhook = hook.name, code, times, "webhook.refused");
    let entry = Entry::new("webhook.refused", "unknown")
        .with("webhook", hook.name.as_str())
        .with("code", code)
        .with("times", times)
        .with("source_address", source)
        .with("request", request_id());
    if let Err(error) = broker.engine.store().write(Write::Note(entry)).await {
        tracing::error!(webhook = hook.name, %error, "webhook.refused.unrecorded");
    }
}
