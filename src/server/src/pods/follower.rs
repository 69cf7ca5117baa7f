//! What following a cluster's pods needs, in whichever way.
//!
//! Invariant: that a pod ended is told to the store before it counts as told. What the store did
//! not take is found again in the next list.

use std::{sync::Arc, time::Duration};

use dayfly_lease::{JobEnd, StoreError, TaskEnd};

use super::{Cluster, PodId, lines::TooLong, pod::Unreadable};
use crate::{
    broker::Broker,
    identity::ApiError,
    webhook::{REMEMBERED_MAX, TASKS_LIMIT},
};

/// Keys of open tasks that are read at a time.
const JOBS_LIMIT: u32 = 1_000;
/// Pods with open tasks that one follower looks after at most.
const OPEN_MAX: usize = 200_000;

/// Why the pods are not followed at the moment.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error("the API server gave no answer that can be used")]
    Api(#[from] ApiError),
    #[error("the API server ended the watch with code {0}")]
    Ended(u16),
    #[error("the version that was last heard of is too old")]
    Expired,
    #[error("nothing was heard in time")]
    Silent,
    #[error("the store does not work")]
    Store(#[from] StoreError),
    #[error("what the API server sends cannot be kept")]
    TooLong(#[from] TooLong),
    #[error("there are more pods than can be looked after")]
    TooMany,
    #[error("what the API server sent cannot be read")]
    Unreadable(#[from] Unreadable),
}

impl FollowError {
    /// Whether a watch may go on after it from where it was. Otherwise something may have been
    /// missed, and only a list tells what.
    pub(super) fn lost_nothing(&self) -> bool {
        match self {
            Self::Api(_) | Self::Silent => true,
            Self::Ended(_)
            | Self::Expired
            | Self::Store(_)
            | Self::TooLong(_)
            | Self::TooMany
            | Self::Unreadable(_) => false,
        }
    }

    /// Whether the API server as a whole does not answer.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Api(ApiError::Timeout | ApiError::Transport(_)) | Self::Silent)
    }
}

/// One that follows.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) broker: Arc<Broker>,
    pub(super) cluster: Arc<Cluster>,
    /// The namespace, or all that the cluster has for us.
    pub(super) scope: Option<String>,
}

impl Follower {
    pub(super) fn new(broker: Arc<Broker>, cluster: Arc<Cluster>, scope: Option<String>) -> Self {
        Self { broker, cluster, scope }
    }

    /// The pods here that have open tasks.
    ///
    /// # Errors
    /// The store's; and that there are too many.
    pub(super) async fn open(&self) -> Result<Vec<PodId>, FollowError> {
        let issuer = &self.cluster.issuer;
        let (mut open, mut after) = (Vec::new(), String::new());
        loop {
            let store = &self.broker.store;
            let keys = store.open_jobs(issuer.clone(), after, JOBS_LIMIT).await?;
            let pods = keys.iter().filter_map(|key| PodId::of_key(issuer, key));
            open.extend(pods.filter(|pod| self.has(&pod.namespace)));
            if open.len() > OPEN_MAX {
                return Err(FollowError::TooMany);
            }
            let Some(last) = keys.last() else { return Ok(open) };
            after = String::from(last.as_str());
        }
    }

    fn has(&self, namespace: &str) -> bool {
        match &self.scope {
            Some(scope) => scope == namespace,
            None => self.cluster.has(namespace),
        }
    }

    /// Ends the tasks of a pod that ended, and lets no further one be opened.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn tell(&self, pod: &PodId, end: TaskEnd) -> Result<(), StoreError> {
        let Some(key) = pod.key(&self.cluster.issuer) else { return Ok(()) };
        let (name, keep) = (&self.cluster.name, self.cluster.keep);
        let ended = JobEnd {
            key,
            end,
            actor: format!("cluster|{name}"),
            keep,
            remembered_max: REMEMBERED_MAX,
            limit: TASKS_LIMIT,
        };
        let closure = self.broker.engine.close_job(&ended).await?;
        let tasks = closure.tasks.len();
        if tasks > 0 {
            let (job, end) = (ended.key.as_str(), end.as_str());
            tracing::info!(cluster = name, job, end, tasks, "pods.ended");
            self.broker.metrics.pod_ended(name, tasks);
        }
        Ok(())
    }

    /// Says whether the pods here are followed at the moment.
    pub(super) fn note_followed(&self, is: bool) {
        let scope = self.scope.as_deref().unwrap_or_default();
        self.broker.metrics.pods_followed(&self.cluster.name, scope, is);
    }

    pub(super) fn failed(&self, error: &FollowError) {
        self.note_followed(false);
        tracing::warn!(
            cluster = self.cluster.name,
            namespace = self.scope,
            error = error as &dyn std::error::Error,
            "pods.failed"
        );
    }

    pub(super) fn running(&self) -> Duration {
        self.broker.clock.running()
    }

    pub(super) fn random(&self) -> u8 {
        let mut random = [0_u8; 1];
        self.broker.entropy.fill(&mut random);
        let [random] = random;
        random
    }

    pub(super) async fn sleep(&self, length: Duration) {
        self.broker.clock.sleep(length).await;
    }
}
