//! Where a job is at its platform's API, and what the answer there says.
//!
//! Invariant: a path is made of a task's verified claims, and of nothing that could lead out of its
//! place; an answer is read into the keys that its own ids make, so that another job's answer is
//! never taken for this one's.

use dayfly_lease::{JobKey, TaskEnd};
use url::Url;

use super::{buildkite, github, gitlab};
use crate::{config::HookKind, webhook::Claims};

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A build of Buildkite, with its jobs.
    Build(buildkite::Build),
    /// A job of GitHub.
    GithubJob(github::Run, u64),
    /// An attempt of a run of GitHub.
    GithubRun(github::Run),
    /// A job of GitLab.
    GitlabJob(gitlab::Job),
}

/// What an answer says of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Which one, by the ids in the answer.
    pub(super) key: JobKey,
    /// How it ended; none while it goes on.
    pub(super) end: Option<TaskEnd>,
}

impl Place {
    /// Of a token's claims, if they name all of it.
    pub(super) fn of(kind: HookKind, claims: &Claims<'_>) -> Option<Self> {
        match kind {
            HookKind::Buildkite => buildkite::Build::of(claims).map(Self::Build),
            HookKind::Github => {
                let run = github::Run::of(claims)?;
                Some(match claims.number("check_run_id") {
                    // The id of a job and of its check run are one number.
                    Some(job) => Self::GithubJob(run, job),
                    None => Self::GithubRun(run),
                })
            }
            HookKind::Gitlab => gitlab::Job::of(claims).map(Self::GitlabJob),
        }
    }

    /// Its address below `api`.
    pub(super) fn url(&self, api: &Url) -> Option<Url> {
        let (path, query) = match self {
            // Without it, a job that was tried again is left out, and its task would go on.
            Self::Build(build) => (build.path(), Some("include_retried_jobs=true")),
            Self::GithubJob(run, job) => (run.job_path(*job), None),
            Self::GithubRun(run) => (run.path(), None),
            Self::GitlabJob(job) => (job.path(), None),
        };
        let mut url = api.clone();
        url.path_segments_mut().ok()?.pop_if_empty().extend(path.split('/'));
        url.set_query(query);
        Some(url)
    }

    /// What the answer says, of the jobs of `issuer`.
    ///
    /// # Errors
    /// It is not what the platform answers.
    pub(super) fn read(&self, issuer: &str, body: &[u8]) -> Result<Vec<Told>, serde_json::Error> {
        match self {
            Self::Build(_) => buildkite::jobs(issuer, body),
            Self::GithubJob(run, _) => run.job(issuer, body),
            Self::GithubRun(_) => github::run(issuer, body),
            Self::GitlabJob(_) => gitlab::job(issuer, body),
        }
    }

    /// What must say the same key besides, before an end is believed: an answer about a job of
    /// GitHub does not say in which repository it is, and a repository's name may have gone to
    /// another one.
    pub(super) fn proof(&self, issuer: &str) -> Option<(Self, JobKey)> {
        match self {
            Self::GithubJob(run, _) => Some((Self::GithubRun(run.clone()), run.key(issuer)?)),
            Self::Build(_) | Self::GithubRun(_) | Self::GitlabJob(_) => None,
        }
    }
}

impl Told {
    /// A job whose ids make a key; of any other there is nothing to tell.
    pub(super) fn of(key: Option<JobKey>, end: Option<TaskEnd>) -> Option<Self> {
        key.map(|key| Self { key, end })
    }
}

/// Whether `text` is one segment of a path wherever it is put: of a name's characters, and none of
/// those that mean a directory.
pub(super) fn is_segment(text: &str) -> bool {
    const LEN_MAX: usize = 128;
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    (1..=LEN_MAX).contains(&text.len()) && text.bytes().all(legal) && !matches!(text, "." | "..")
}
