//! GitHub Actions: `GET /repos/OWNER/NAME/actions/jobs/ID` and `…/actions/runs/ID/attempts/N`.
//!
//! Invariant: a run is known by its repository's id, which is never given twice, and by its
//! attempt. The path needs the repository's name, so the answer must say the id.

use dayfly_lease::{JobKey, TaskEnd};
use serde::Deserialize;

use super::place::{Told, is_segment};
use crate::webhook::{
    Claims,
    github::{end, job_key, last_number, run_key},
};

/// An attempt of a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run {
    /// `OWNER/NAME`.
    repository: String,
    repository_id: u64,
    id: u64,
    attempt: u64,
}

#[derive(Deserialize)]
struct JobAnswer {
    id: u64,
    run_id: u64,
    run_attempt: Option<u64>,
    status: String,
    conclusion: Option<String>,
    check_run_url: Option<String>,
}

#[derive(Deserialize)]
struct RunAnswer {
    id: u64,
    run_attempt: u64,
    status: Option<String>,
    conclusion: Option<String>,
    repository: Repository,
}

#[derive(Deserialize)]
struct Repository {
    id: u64,
}

impl Run {
    /// Of a token's claims.
    pub(super) fn of(claims: &Claims<'_>) -> Option<Self> {
        let repository = claims.text("repository")?;
        let (owner, name) = repository.split_once('/')?;
        if !is_segment(owner) || !is_segment(name) {
            return None;
        }
        Some(Self {
            repository: repository.to_owned(),
            repository_id: claims.number("repository_id")?,
            id: claims.number("run_id")?,
            attempt: claims.number("run_attempt")?,
        })
    }

    pub(super) fn path(&self) -> String {
        let Self { repository, id, attempt, .. } = self;
        format!("repos/{repository}/actions/runs/{id}/attempts/{attempt}")
    }

    pub(super) fn job_path(&self, job: u64) -> String {
        format!("repos/{}/actions/jobs/{job}", self.repository)
    }

    pub(super) fn key(&self, issuer: &str) -> Option<JobKey> {
        run_key(issuer, self.repository_id, self.id, self.attempt)
    }

    /// What an answer about a job of this run says. The repository is taken to be the run's.
    pub(super) fn job(&self, issuer: &str, body: &[u8]) -> Result<Vec<Told>, serde_json::Error> {
        let job: JobAnswer = serde_json::from_slice(body)?;
        let check_run = job.check_run_url.as_deref().and_then(last_number).unwrap_or(job.id);
        // The attempt is not always there; the id of a job is of one attempt alone.
        let attempt = job.run_attempt.unwrap_or(self.attempt);
        let key = job_key(issuer, [self.repository_id, job.run_id, attempt, check_run]);
        let end = ended(Some(&job.status), job.conclusion.as_deref());
        Ok(Told::of(key, end).into_iter().collect())
    }
}

/// What an answer about an attempt of a run says.
pub(super) fn run(issuer: &str, body: &[u8]) -> Result<Vec<Told>, serde_json::Error> {
    let run: RunAnswer = serde_json::from_slice(body)?;
    let key = run_key(issuer, run.repository.id, run.id, run.run_attempt);
    let end = ended(run.status.as_deref(), run.conclusion.as_deref());
    Ok(Told::of(key, end).into_iter().collect())
}

fn ended(status: Option<&str>, conclusion: Option<&str>) -> Option<TaskEnd> {
    conclusion.filter(|_| status == Some("completed")).and_then(end)
}
