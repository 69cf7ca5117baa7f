//! Buildkite: `GET /organizations/SLUG/pipelines/SLUG/builds/NUMBER`, which lists the build's jobs.
//!
//! Invariant: the answer's own slugs and number say whose build it is. A job that is tried again is
//! another, with an id of its own.

use dayfly_lease::TaskEnd;
use serde::Deserialize;

use super::place::{Told, is_segment};
use crate::webhook::{
    Claims,
    buildkite::{job_key, organization},
};

/// A build.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Build {
    organization: String,
    pipeline: String,
    number: u64,
}

#[derive(Deserialize)]
struct Answer {
    number: u64,
    pipeline: Pipeline,
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Pipeline {
    slug: String,
    url: String,
}

/// A step that runs nothing, such as one that waits, may have neither.
#[derive(Deserialize)]
struct Job {
    id: Option<String>,
    state: Option<String>,
}

impl Build {
    /// Of a token's claims.
    pub(super) fn of(claims: &Claims<'_>) -> Option<Self> {
        let slug = |name| claims.text(name).filter(|slug| is_segment(slug)).map(str::to_owned);
        Some(Self {
            organization: slug("organization_slug")?,
            pipeline: slug("pipeline_slug")?,
            number: claims.number("build_number")?,
        })
    }

    pub(super) fn path(&self) -> String {
        let Self { organization, pipeline, number } = self;
        format!("organizations/{organization}/pipelines/{pipeline}/builds/{number}")
    }
}

/// What an answer about a build says of its jobs.
pub(super) fn jobs(issuer: &str, body: &[u8]) -> Result<Vec<Told>, serde_json::Error> {
    let build: Answer = serde_json::from_slice(body)?;
    let Some(organization) = organization(&build.pipeline.url) else { return Ok(Vec::new()) };
    let slugs = [organization, build.pipeline.slug.as_str()];
    let told = |job: &Job| {
        let key = job_key(issuer, slugs, build.number, job.id.as_deref()?);
        Told::of(key, job.state.as_deref().and_then(end))
    };
    Ok(build.jobs.iter().filter_map(told).collect())
}

/// What is being cancelled, or runs out of its time, still runs.
fn end(state: &str) -> Option<TaskEnd> {
    match state {
        "canceled" => Some(TaskEnd::Cancelled),
        "passed" => Some(TaskEnd::Completed),
        "expired" | "failed" | "timed_out" => Some(TaskEnd::Failed),
        _ => None,
    }
}
