//! GitLab: job events, and pipeline events, which list the pipeline's jobs.
//!
//! Invariant: only jobs end. A pipeline that has ended begins again when one of its jobs is tried
//! again, and so do the jobs that it had skipped, under the same ids.

use dayfly_lease::{JobKey, JobKeys, TaskEnd};
use serde::Deserialize;

use super::{Claims, Ended, Unreadable, key};
use crate::config::HookKind;

/// Jobs of one pipeline that are ended by one event at most; the others have events of their own.
const JOBS_MAX: usize = 200;

#[derive(Deserialize)]
struct Event {
    /// Events about members and subgroups have none. GitLab takes it amiss if they are refused,
    /// and sends nothing more.
    object_kind: Option<String>,
}

#[derive(Deserialize)]
struct JobEvent {
    build_id: u64,
    build_status: String,
    project_id: u64,
}

#[derive(Deserialize)]
struct PipelineEvent {
    object_attributes: Pipeline,
    project: Project,
    builds: Vec<Build>,
}

#[derive(Deserialize)]
struct Pipeline {
    status: String,
}

#[derive(Deserialize)]
struct Project {
    id: u64,
}

#[derive(Deserialize)]
struct Build {
    id: u64,
    status: String,
}

/// The job of a token.
pub(super) fn keys(issuer: &str, claims: &Claims<'_>) -> JobKeys {
    let job = ids(claims).and_then(|(project, job)| job_key(issuer, project, job));
    JobKeys { run: None, job }
}

/// The project that a token's job runs in, and the job. In a merge request from a fork
/// `project_id` is the fork, and the job runs elsewhere.
pub(crate) fn ids(claims: &Claims<'_>) -> Option<(u64, u64)> {
    let project = claims.number("job_project_id").or_else(|| claims.number("project_id"));
    project.zip(claims.number("job_id"))
}

/// What an event says has ended.
pub(super) fn ended(issuer: &str, body: &[u8]) -> Result<Vec<Ended>, Unreadable> {
    let of = |project: u64, job, status: &str| {
        let key = job_key(issuer, project, job);
        key.zip(end(status)).map(|(key, end)| Ended { key, end, of: project.to_string() })
    };
    let Event { object_kind } = serde_json::from_slice(body)?;
    match object_kind.as_deref() {
        Some("build") => {
            let job: JobEvent = serde_json::from_slice(body)?;
            Ok(of(job.project_id, job.build_id, &job.build_status).into_iter().collect())
        }
        Some("pipeline") => {
            let event: PipelineEvent = serde_json::from_slice(body)?;
            // It comes at each turn; the jobs that end before it tell so themselves.
            if end(&event.object_attributes.status).is_none() {
                return Ok(Vec::new());
            }
            let jobs = event.builds.iter();
            let ended = jobs.filter_map(|job| of(event.project.id, job.id, &job.status));
            Ok(ended.take(JOBS_MAX).collect())
        }
        Some(_) | None => Ok(Vec::new()),
    }
}

pub(crate) fn job_key(issuer: &str, project: u64, job: u64) -> Option<JobKey> {
    key(issuer, HookKind::Gitlab, format_args!("{project}/{job}"))
}

pub(crate) fn end(status: &str) -> Option<TaskEnd> {
    match status {
        "canceled" => Some(TaskEnd::Cancelled),
        "failed" => Some(TaskEnd::Failed),
        "success" => Some(TaskEnd::Completed),
        _ => None,
    }
}
