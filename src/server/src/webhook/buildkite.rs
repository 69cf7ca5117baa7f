//! Buildkite: `job.finished`.
//!
//! Invariant: a job that is tried again is another job, with an id of its own.

use dayfly_lease::{JobKey, JobKeys, TaskEnd};
use serde::Deserialize;
use uuid::Uuid;

use super::{Claims, Ended, Unreadable, key};
use crate::config::HookKind;

const SLUG_LEN_MAX: usize = 128;

#[derive(Deserialize)]
struct Event {
    event: Option<String>,
}

#[derive(Deserialize)]
struct JobEvent {
    job: Job,
    build: Build,
    pipeline: Pipeline,
}

#[derive(Deserialize)]
struct Job {
    id: String,
    state: String,
}

#[derive(Deserialize)]
struct Build {
    number: u64,
}

#[derive(Deserialize)]
struct Pipeline {
    slug: String,
    url: String,
}

/// The job of a token.
pub(super) fn keys(issuer: &str, claims: &Claims<'_>) -> JobKeys {
    let key = || {
        let slugs = [claims.text("organization_slug")?, claims.text("pipeline_slug")?];
        job_key(issuer, slugs, claims.number("build_number")?, claims.text("job_id")?)
    };
    JobKeys { run: None, job: key() }
}

/// What an event says has ended.
pub(super) fn ended(issuer: &str, body: &[u8]) -> Result<Vec<Ended>, Unreadable> {
    let Event { event } = serde_json::from_slice(body)?;
    if event.as_deref() != Some("job.finished") {
        return Ok(Vec::new());
    }
    let JobEvent { job, build, pipeline } = serde_json::from_slice(body)?;
    let organization = organization(&pipeline.url).ok_or(Unreadable)?;
    let key = job_key(issuer, [organization, &pipeline.slug], build.number, &job.id);
    let end = match job.state.as_str() {
        "canceled" | "canceling" => TaskEnd::Cancelled,
        "passed" => TaskEnd::Completed,
        _ => TaskEnd::Failed,
    };
    let of = format!("{organization}/{}", pipeline.slug);
    Ok(key.map(|key| Ended { key, end, of }).into_iter().collect())
}

/// It stands only in URLs: `…/organizations/NAME/pipelines/…`.
pub(crate) fn organization(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("/organizations/")?;
    rest.split('/').next()
}

pub(crate) fn job_key(issuer: &str, slugs: [&str; 2], build: u64, job: &str) -> Option<JobKey> {
    let job = Uuid::parse_str(job).ok().filter(|_| slugs.into_iter().all(is_slug))?;
    let [organization, pipeline] = slugs;
    key(issuer, HookKind::Buildkite, format_args!("{organization}/{pipeline}/{build}/{job}"))
}

/// An organization, or one of its pipelines.
pub(super) fn is_scope(text: &str) -> bool {
    text.split('/').count() <= 2 && text.split('/').all(is_slug)
}

fn is_slug(slug: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    !slug.is_empty() && slug.len() <= SLUG_LEN_MAX && slug.bytes().all(legal)
}
