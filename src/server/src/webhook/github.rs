//! GitHub Actions: `workflow_job` and `workflow_run`.
//!
//! Invariant: a run is known by its attempt too, so that a re-run, which has the next one, is
//! another. A token without `check_run_id` does not tell the jobs of a run apart: its task ends
//! with the run.

use dayfly_lease::{JobKey, JobKeys, TaskEnd};
use serde::Deserialize;

use super::{Claims, Ended, Unreadable, key};
use crate::config::HookKind;

#[derive(Deserialize)]
struct Action {
    action: Option<String>,
}

#[derive(Deserialize)]
struct JobEvent {
    workflow_job: Job,
    repository: Repository,
}

#[derive(Deserialize)]
struct Job {
    id: u64,
    run_id: u64,
    run_attempt: u64,
    conclusion: Option<String>,
    check_run_url: Option<String>,
}

#[derive(Deserialize)]
struct RunEvent {
    workflow_run: Run,
    repository: Repository,
}

#[derive(Deserialize)]
struct Run {
    id: u64,
    #[serde(rename = "run_attempt")]
    attempt: u64,
    conclusion: Option<String>,
}

#[derive(Deserialize)]
struct Repository {
    id: u64,
}

/// The job of a token.
pub(super) fn keys(issuer: &str, claims: &Claims<'_>) -> JobKeys {
    let ids = ["repository_id", "run_id", "run_attempt"].map(|name| claims.number(name));
    let [Some(repository), Some(run), Some(attempt)] = ids else { return JobKeys::default() };
    let job = claims.number("check_run_id");
    JobKeys {
        run: run_key(issuer, repository, run, attempt),
        job: job.and_then(|job| job_key(issuer, [repository, run, attempt, job])),
    }
}

/// What `event`, as its header calls it, says has ended. The header is not signed; an event of
/// another name does not have what is looked for.
pub(super) fn ended(issuer: &str, event: &str, body: &[u8]) -> Result<Vec<Ended>, Unreadable> {
    if !["workflow_job", "workflow_run"].contains(&event) {
        return Ok(Vec::new());
    }
    let Action { action } = serde_json::from_slice(body)?;
    if action.as_deref() != Some("completed") {
        return Ok(Vec::new());
    }
    let (key, conclusion, repository) = if event == "workflow_job" {
        let JobEvent { workflow_job: job, repository } = serde_json::from_slice(body)?;
        let check_run = job.check_run_url.as_deref().and_then(last_number).unwrap_or(job.id);
        let ids = [repository.id, job.run_id, job.run_attempt, check_run];
        (job_key(issuer, ids), job.conclusion, repository)
    } else {
        let RunEvent { workflow_run: run, repository } = serde_json::from_slice(body)?;
        (run_key(issuer, repository.id, run.id, run.attempt), run.conclusion, repository)
    };
    let end = conclusion.as_deref().and_then(end);
    let of = repository.id.to_string();
    Ok(key.zip(end).map(|(key, end)| Ended { key, end, of }).into_iter().collect())
}

pub(crate) fn run_key(issuer: &str, repository: u64, run: u64, attempt: u64) -> Option<JobKey> {
    key(issuer, HookKind::Github, format_args!("{repository}/{run}/{attempt}"))
}

pub(crate) fn job_key(issuer: &str, [repository, run, attempt, job]: [u64; 4]) -> Option<JobKey> {
    key(issuer, HookKind::Github, format_args!("{repository}/{run}/{attempt}/{job}"))
}

/// `check_run_id` is the last of the URL's path.
pub(crate) fn last_number(url: &str) -> Option<u64> {
    url.rsplit_once('/')?.1.parse().ok()
}

/// What was skipped had no token, and what needs somebody's action may still begin.
pub(crate) fn end(conclusion: &str) -> Option<TaskEnd> {
    match conclusion {
        "action_required" | "skipped" => None,
        "cancelled" => Some(TaskEnd::Cancelled),
        "neutral" | "success" => Some(TaskEnd::Completed),
        _ => Some(TaskEnd::Failed),
    }
}
