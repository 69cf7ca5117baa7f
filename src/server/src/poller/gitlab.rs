//! GitLab: `GET /projects/ID/jobs/ID`.
//!
//! Invariant: the answer's own ids say whose job it is. A job that is tried again is another, with
//! an id of its own.

use serde::Deserialize;

use super::place::Told;
use crate::webhook::{
    Claims,
    gitlab::{end, ids, job_key},
};

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Job {
    project: u64,
    id: u64,
}

#[derive(Deserialize)]
struct Answer {
    id: u64,
    status: String,
    pipeline: Pipeline,
}

#[derive(Deserialize)]
struct Pipeline {
    project_id: u64,
}

impl Job {
    /// Of a token's claims.
    pub(super) fn of(claims: &Claims<'_>) -> Option<Self> {
        ids(claims).map(|(project, id)| Self { project, id })
    }

    pub(super) fn path(&self) -> String {
        format!("projects/{}/jobs/{}", self.project, self.id)
    }
}

/// What an answer about a job says.
pub(super) fn job(issuer: &str, body: &[u8]) -> Result<Vec<Told>, serde_json::Error> {
    let job: Answer = serde_json::from_slice(body)?;
    let key = job_key(issuer, job.pipeline.project_id, job.id);
    Ok(Told::of(key, end(&job.status)).into_iter().collect())
}
