//! Kubernetes clusters that are asked about their tokens (`TokenReview`).
//!
//! Where a cluster's keys cannot be had, or a token is to end with its pod, its API server
//! decides. Whose token it is to be asked about is told by `iss` and `aud`, byte for byte: many
//! clusters have one `iss`, the default of their installer, and differ by audience.
//!
//! Invariant: a token is sent to one cluster and to no other, and only if it says that it is for
//! us. No answer is kept: each token was confirmed for this very request. What the token says
//! itself is believed only after that, and only of its times.

mod api;
mod config;
mod review;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use data_encoding::HEXLOWER;
use dayfly_backend_sdk::Timestamp;
use ring::digest;
use tokio::sync::Semaphore;

pub use config::{ClusterConfig, ClusterTokens, PodWatch};

pub(crate) use api::{ApiError, ClusterApi, read, read_any};

use super::{
    Kind, Platform, Principal, Rejection, SetupError, claims::UnverifiedClaims, json::Json,
    preparse::Compact,
};
use review::Reviewed;

const TIMEOUT: Duration = Duration::from_secs(5);
/// How far a cluster's clock may be off.
const LEEWAY: Duration = Duration::from_secs(30);
/// Questions to one cluster at a time. The next one is refused and not queued: a slow cluster
/// must not hold the places of callers that have nothing to do with it.
const CALLS_MAX: usize = 64;

/// Every `[[cluster]]` that is asked about its tokens.
#[derive(Debug, Default)]
pub(super) struct Reviewers(Vec<Reviewer>);

#[derive(Debug)]
struct Reviewer {
    name: String,
    /// `iss`, byte for byte.
    issuer: String,
    audiences: Vec<String>,
    age_max: Duration,
    api: ClusterApi,
    calls: Semaphore,
    timeout: Duration,
}

impl Reviewers {
    /// Sets them up; asks nobody yet. `taken` are the names that issuers have; `issuers` says of
    /// an `iss` whether one has it.
    pub(super) fn new(
        configs: Vec<ClusterConfig>,
        mut taken: BTreeSet<String>,
        issuers: impl Fn(&str) -> bool,
    ) -> Result<Self, SetupError> {
        let mut all: Vec<Reviewer> = Vec::new();
        for config in configs {
            let faults = config.faults();
            if !faults.is_empty() {
                return Err(SetupError::Faults { name: config.name, faults });
            }
            if !taken.insert(config.name.clone()) {
                return Err(SetupError::Duplicate(config.name));
            }
            let api = ClusterApi::new(&config)?;
            let ClusterTokens::Reviewed { issuer, audiences, age_max } = config.tokens else {
                continue;
            };
            let same = |other: &Reviewer| other.answers_for(&issuer, &audiences);
            if issuers(&issuer) || all.iter().any(same) {
                return Err(SetupError::Duplicate(issuer));
            }
            let calls = Semaphore::new(CALLS_MAX);
            let (name, timeout) = (config.name, TIMEOUT);
            all.push(Reviewer { name, issuer, audiences, age_max, api, calls, timeout });
        }
        Ok(Self(all))
    }

    /// Whether tokens with this `iss` are for a cluster to judge.
    pub(super) fn are_meant(&self, issuer: &str) -> bool {
        self.0.iter().any(|reviewer| reviewer.issuer == issuer)
    }

    /// The longest that a token is accepted after it was issued, by cluster.
    pub(super) fn ages(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.0.iter().map(|one| (one.name.as_str(), one.age_max.saturating_add(LEEWAY)))
    }

    /// Decides who sends a token of a cluster.
    pub(super) async fn authenticate(
        &self,
        (token, compact): (&str, &Compact<'_>),
        members: BTreeMap<String, Json>,
        now: Timestamp,
    ) -> Result<Principal, Rejection> {
        // Nobody has verified any of this: it is good for finding the cluster, and for refusing.
        let claims = UnverifiedClaims::parse(members)?;
        let meant = |reviewer: &&Reviewer| reviewer.answers_for(&claims.issuer, &claims.audiences);
        let reviewer = self.0.iter().find(meant).ok_or(Rejection::WrongAudience)?;
        // A token of the old kind, which never expires, has none of the cluster's own claims.
        Platform::Kubernetes.preset().check(&claims.all, &[])?;
        let reviewed = reviewer.ask(token).await?;
        claims.check_times(now, LEEWAY, reviewer.age_max)?;
        reviewer.principal(reviewed, &claims, compact.message)
    }
}

impl Reviewer {
    fn answers_for(&self, issuer: &str, audiences: &[String]) -> bool {
        self.issuer == issuer && self.audiences.iter().any(|one| audiences.contains(one))
    }

    /// What the cluster says of `token`.
    async fn ask(&self, token: &str) -> Result<Reviewed, Rejection> {
        let Ok(_slot) = self.calls.try_acquire() else {
            tracing::warn!(cluster = self.name, calls = CALLS_MAX, "identity.review.busy");
            return Err(Rejection::ClusterUnavailable);
        };
        let exchange = tokio::time::timeout(self.timeout, self.exchange(token));
        let answer = exchange.await.unwrap_or(Err(ApiError::Timeout)).map_err(|error| {
            tracing::warn!(
                cluster = self.name,
                error = &error as &dyn std::error::Error,
                "identity.review.failed"
            );
            rejection(&error)
        })?;
        review::parse(&answer, &self.audiences)
    }

    async fn exchange(&self, token: &str) -> Result<Vec<u8>, ApiError> {
        let answer = self.api.post(review::PATH, review::request(token, &self.audiences)).await?;
        read(answer, review::ANSWER_LEN_MAX).await
    }

    fn principal(
        &self,
        reviewed: Reviewed,
        token: &UnverifiedClaims,
        message: &str,
    ) -> Result<Principal, Rejection> {
        let hash = digest::digest(&digest::SHA256, message.as_bytes());
        Ok(Principal {
            kind: Kind::Workload,
            issuer: self.name.clone(),
            subject: reviewed.username.clone(),
            claims: reviewed.claims(token)?,
            token_hash: HEXLOWER.encode(hash.as_ref()),
            token_id: token.token_id.clone(),
            token_expires_at: token.expires_at,
            // A pod's token is kept, and replaced before it ends. All that runs in the pod has it.
            single_use: false,
            first_key_binds: false,
        })
    }
}

/// What it means for the caller that a cluster gave no answer. One that came from something else
/// than an API server is refused; that our own token is not good there is not the caller's fault.
fn rejection(error: &ApiError) -> Rejection {
    let why = match error {
        ApiError::NotJson => "it is not JSON",
        ApiError::Redirect => "it is a redirect",
        ApiError::TooLarge => "it is too large",
        ApiError::Status(_)
        | ApiError::Timeout
        | ApiError::TokenFile(_)
        | ApiError::TokenForm
        | ApiError::Transport(_) => return Rejection::ClusterUnavailable,
    };
    Rejection::AnswerRefused { why }
}

#[cfg(test)]
mod tests;
