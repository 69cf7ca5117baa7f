//! What CI platforms tell us: that a job ended.
//!
//! Invariant: nothing of a request is believed before its signature or token held. What it says
//! then concerns the jobs of one issuer, those that its webhook may speak of, and can do nothing
//! but end tasks. A task and an event are joined by what the task's verified claims and the
//! event's body say alike: ids, in one writing.

pub(crate) mod buildkite;
pub(crate) mod github;
pub(crate) mod gitlab;
mod proof;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::HeaderMap;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{JobEnd, JobKey, JobKeys, TaskEnd};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use proof::HookKey;
pub(crate) use proof::{Unproven, proves_something};

use crate::{
    config::{HookKind, PollerConfig, WebhookConfig},
    identity::{ClaimValue, IssuerConfig, Principal},
};

/// Verified events whose ends are being written, or wait for the store to come back.
const EVENTS_MAX: usize = 1_024;
/// Ends of jobs that are remembered at most, of each webhook, poller and cluster: whoever has one
/// secret must not have the ends forgotten that came by another.
pub(crate) const REMEMBERED_MAX: u32 = 100_000;
/// Tasks that are ended in one transaction at most.
pub(crate) const TASKS_LIMIT: u32 = 50;
/// What comes of one webhook again and again is told once in so long.
const NOTE_EVERY: Duration = Duration::from_mins(1);

/// The configured webhooks.
pub struct Hooks {
    by_name: BTreeMap<String, Hook>,
    /// What runs the jobs of each issuer that has a webhook or a poller.
    platforms: BTreeMap<String, HookKind>,
    events: Arc<Semaphore>,
}

impl Default for Hooks {
    fn default() -> Self {
        let (by_name, platforms) = (BTreeMap::new(), BTreeMap::new());
        Self { by_name, platforms, events: Arc::new(Semaphore::new(EVENTS_MAX)) }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl Hooks {
    /// Those of a configuration. What its pollers ask for has the same names.
    pub fn new(
        webhooks: &[WebhookConfig],
        pollers: &[PollerConfig],
        issuers: &[IssuerConfig],
        task_ttl_max: Duration,
    ) -> Self {
        let hook = |config: &WebhookConfig| {
            let hook = Hook {
                name: config.name.clone(),
                kind: config.kind,
                issuer: config.issuer.clone(),
                keys: config.keys.clone(),
                only: config.only.clone(),
                keep: remembered_for(&config.issuer, issuers, task_ttl_max),
                refused: Tally::default(),
                outside: Tally::default(),
                forgotten: Tally::default(),
            };
            (config.name.clone(), hook)
        };
        let told = webhooks.iter().map(|webhook| (webhook.issuer.clone(), webhook.kind));
        let asked = pollers.iter().map(|poller| (poller.issuer.clone(), poller.kind));
        Self {
            by_name: webhooks.iter().map(hook).collect(),
            platforms: told.chain(asked).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Hook> {
        self.by_name.get(name)
    }

    /// Room for one verified event until all of it is done; waits for it. None when there will
    /// never be any.
    pub(crate) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.events).acquire_owned().await.ok()
    }

    /// The job that `principal` is, if a webhook or a poller could tell of its end.
    pub(crate) fn job_of(&self, principal: &Principal) -> JobKeys {
        let kind = self.platforms.get(&principal.issuer);
        kind.map(|kind| job_keys(*kind, principal)).unwrap_or_default()
    }
}

/// For how long the end of a job of `issuer` is remembered: as long as a task of the job could
/// still be opened, and for the longest task.
pub(crate) fn remembered_for(
    issuer: &str,
    issuers: &[IssuerConfig],
    task_ttl_max: Duration,
) -> Duration {
    let issuer = issuers.iter().find(|config| config.name == issuer);
    let age_max = issuer
        .map_or(0, |issuer| issuer.token_age_max_seconds.saturating_add(issuer.leeway_seconds));
    task_ttl_max.max(Duration::from_secs(age_max))
}

/// The end of a job as the engine is told of it.
pub(crate) fn job_end(key: JobKey, end: TaskEnd, actor: String, keep: Duration) -> JobEnd {
    JobEnd { key, end, actor, keep, remembered_max: REMEMBERED_MAX, limit: TASKS_LIMIT }
}

/// The job of a principal whose issuer's jobs run on a platform of this kind.
pub(crate) fn job_keys(kind: HookKind, principal: &Principal) -> JobKeys {
    let (issuer, claims) = (principal.issuer.as_str(), Claims(&principal.claims));
    match kind {
        HookKind::Buildkite => buildkite::keys(issuer, &claims),
        HookKind::Github => github::keys(issuer, &claims),
        HookKind::Gitlab => gitlab::keys(issuer, &claims),
    }
}

/// One webhook.
pub(crate) struct Hook {
    pub(crate) name: String,
    kind: HookKind,
    issuer: String,
    keys: Vec<HookKey>,
    /// What it may speak of; everything of its issuer where nothing is said.
    only: Option<Vec<String>>,
    keep: Duration,
    /// Requests that were refused.
    pub(crate) refused: Tally,
    /// Ends that it told of jobs that it may not speak of.
    pub(crate) outside: Tally,
    /// Ends that were forgotten before their time.
    pub(crate) forgotten: Tally,
}

/// Counts what comes again and again, to be told now and then.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Untold>);

#[derive(Debug, Default)]
struct Untold {
    times: u64,
    told_at: Option<Duration>,
}

impl Tally {
    /// Adds `times`, when the process has been running for so long. With how many there were
    /// since the last time that it was told, if it is time for that again: whoever knocks often
    /// must fill neither the audit log nor the log.
    pub(crate) fn add(&self, times: u64, running: Duration) -> Option<u64> {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        untold.times = untold.times.saturating_add(times);
        let early = |at: Duration| running.saturating_sub(at) < NOTE_EVERY;
        if untold.times == 0 || untold.told_at.is_some_and(early) {
            return None;
        }
        untold.told_at = Some(running);
        Some(std::mem::take(&mut untold.times))
    }
}

/// What a verified event says.
#[derive(Debug)]
pub(crate) struct Told {
    /// The ends of jobs that its webhook may speak of.
    pub(crate) ends: Vec<JobEnd>,
    /// How many others it told.
    pub(crate) outside: usize,
}

/// An event whose body is not what its platform sends.
#[derive(Debug)]
pub(crate) struct Unreadable;

impl From<serde_json::Error> for Unreadable {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

/// A job, or a run of jobs, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    key: JobKey,
    end: TaskEnd,
    /// What it is of, as [`Hook::only`] calls it.
    of: String,
}

impl Hook {
    /// Whether whoever knows the secret sent this, and not long ago where the platform says when.
    pub(crate) fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), Unproven> {
        match self.kind {
            HookKind::Buildkite => proof::buildkite(&self.keys, headers, body, now),
            HookKind::Github => proof::github(&self.keys, headers, body),
            HookKind::Gitlab => proof::gitlab(&self.keys, headers, body, now),
        }
    }

    /// What a verified request says has ended; nothing, where it says something else.
    pub(crate) fn read(&self, headers: &HeaderMap, body: &[u8]) -> Result<Told, Unreadable> {
        // A list would be taken for an event's members in their order.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(Unreadable);
        }
        let ended = match self.kind {
            HookKind::Buildkite => buildkite::ended(&self.issuer, body),
            HookKind::Github => {
                let event = proof::only(headers, "x-github-event").unwrap_or_default();
                github::ended(&self.issuer, event, body)
            }
            HookKind::Gitlab => gitlab::ended(&self.issuer, body),
        }?;
        let all = ended.len();
        let within = ended.into_iter().filter(|ended| self.may_speak_of(&ended.of));
        let ends: Vec<JobEnd> = within.map(|ended| self.job_end(ended)).collect();
        Ok(Told { outside: all - ends.len(), ends })
    }

    /// Whether `of` is what this webhook may speak of, or lies in it.
    fn may_speak_of(&self, of: &str) -> bool {
        let holds = |one: &String| {
            of.strip_prefix(one.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.only.as_ref().is_none_or(|only| only.iter().any(holds))
    }

    fn job_end(&self, Ended { key, end, .. }: Ended) -> JobEnd {
        job_end(key, end, format!("webhook|{}", self.name), self.keep)
    }
}

/// Whether `text` names what a webhook of this kind can be bound to: the id of a repository or of
/// a project, or an organization of Buildkite's, or ORGANIZATION/PIPELINE.
pub(crate) fn is_scope(kind: HookKind, text: &str) -> bool {
    match kind {
        HookKind::Buildkite => buildkite::is_scope(text),
        // In the one writing that there is.
        HookKind::Github | HookKind::Gitlab => {
            text.parse::<u64>().is_ok_and(|id| id.to_string() == text)
        }
    }
}

/// Verified claims, as ids.
pub(crate) struct Claims<'a>(pub(crate) &'a BTreeMap<String, ClaimValue>);

impl Claims<'_> {
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            ClaimValue::Text(text) => Some(text),
            ClaimValue::List(_) => None,
        }
    }

    /// A number, however the platform writes it.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

/// One writing for a job's ids. The parts have no `/`.
fn key(issuer: &str, kind: HookKind, parts: fmt::Arguments<'_>) -> Option<JobKey> {
    JobKey::parse(format!("{issuer}|{}/{parts}", kind.as_str()))
}

#[cfg(test)]
mod tests;
