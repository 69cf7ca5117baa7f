//! The ends of Kubernetes pods, which are the ends of their tasks.
//!
//! A task whose verified claims name a pod (`kubernetes.io.pod.uid`) has the pod as its job. That
//! the pod ended is told by the cluster's API server: in a watch of all pods, or where none is
//! allowed, by asking for the pods of open tasks one by one. To ask again about their tokens is
//! no other way: we do not keep them.
//!
//! Invariant: nobody is ended because nothing was heard. A pod is gone only if an API server
//! says so of it, or leaves it out of a whole list that was asked for after its task was open.

mod follower;
mod lines;
mod pod;
mod poll;
mod stream;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dayfly_lease::{JobKeys, spawn};

use crate::{
    broker::Broker,
    identity::{
        ClusterApi, ClusterConfig, ClusterTokens, IssuerConfig, PodWatch, Principal, SetupError,
    },
};
use follower::Follower;
use pod::PodId;

/// The first wait after a failure; doubled at each one.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How far a cluster's clock may be off, where no issuer says it.
const LEEWAY: Duration = Duration::from_secs(30);

/// The clusters whose pods are followed.
#[derive(Debug, Default)]
pub struct Clusters {
    /// By the issuer's name in the principals of their tokens.
    by_issuer: BTreeMap<String, Arc<Cluster>>,
}

#[derive(Debug)]
struct Cluster {
    name: String,
    /// The issuer's name in the principals of its tokens.
    issuer: String,
    watch: PodWatch,
    /// All of them, if there are none.
    namespaces: Vec<String>,
    /// For how long an end is remembered.
    keep: Duration,
    api: ClusterApi,
}

impl Clusters {
    /// Those of a configuration whose pods are to be followed; connects to nothing. An end is
    /// remembered for as long as a task of the pod could still be opened, and for the longest
    /// task.
    ///
    /// # Errors
    /// The URL or the CA file of one cannot be used, or two of them have one issuer.
    pub fn new(
        clusters: &[ClusterConfig],
        issuers: &[IssuerConfig],
        task_ttl_max: Duration,
    ) -> Result<Self, SetupError> {
        let mut by_issuer = BTreeMap::new();
        for config in clusters.iter().filter(|cluster| cluster.watch != PodWatch::Off) {
            let age_max = match &config.tokens {
                ClusterTokens::Reviewed { age_max, .. } => age_max.saturating_add(LEEWAY),
                ClusterTokens::Verified { issuer } => {
                    let issuer = issuers.iter().find(|one| one.name == *issuer);
                    let seconds = issuer.map_or(0, |issuer| {
                        issuer.token_age_max_seconds.saturating_add(issuer.leeway_seconds)
                    });
                    Duration::from_secs(seconds)
                }
            };
            let issuer = config.issuer_name().to_owned();
            let cluster = Cluster {
                name: config.name.clone(),
                issuer: issuer.clone(),
                watch: config.watch,
                namespaces: config.namespaces.clone(),
                keep: task_ttl_max.max(age_max),
                api: ClusterApi::new(config)?,
            };
            if by_issuer.insert(issuer.clone(), Arc::new(cluster)).is_some() {
                return Err(SetupError::Duplicate(issuer));
            }
        }
        Ok(Self { by_issuer })
    }

    /// The job that `principal` is, if it is a pod that is followed.
    pub(crate) fn job_of(&self, principal: &Principal) -> Option<JobKeys> {
        let cluster = self.by_issuer.get(&principal.issuer)?;
        let pod = PodId::of_claims(&principal.claims).filter(|pod| cluster.has(&pod.namespace))?;
        Some(JobKeys { run: None, job: Some(pod.key(&cluster.issuer)?) })
    }
}

impl Cluster {
    fn has(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|own| own == namespace)
    }

    /// What is followed on its own: a namespace, or all that there is.
    fn scopes(&self) -> Vec<Option<String>> {
        match self.watch {
            PodWatch::Off => Vec::new(),
            PodWatch::Stream if !self.namespaces.is_empty() => {
                self.namespaces.iter().cloned().map(Some).collect()
            }
            PodWatch::Poll | PodWatch::Stream => vec![None],
        }
    }
}

/// Begins to follow the pods of all clusters.
pub(crate) fn follow(broker: &Arc<Broker>) {
    for cluster in broker.clusters.by_issuer.values() {
        for scope in cluster.scopes() {
            drop(spawn(supervise(Arc::clone(broker), Arc::clone(cluster), scope)));
        }
    }
}

/// A panic (a defect of ours) must not end the watch unseen.
async fn supervise(broker: Arc<Broker>, cluster: Arc<Cluster>, scope: Option<String>) {
    loop {
        let follower = Follower::new(Arc::clone(&broker), Arc::clone(&cluster), scope.clone());
        let work = match cluster.watch {
            PodWatch::Off => return,
            PodWatch::Poll => spawn(poll::run(follower)),
            PodWatch::Stream => spawn(stream::run(follower)),
        };
        if let Err(error) = work.await {
            tracing::error!(cluster = cluster.name, %error, "pods.died");
        }
        broker.clock.sleep(PAUSE_MAX).await;
    }
}

/// How long to wait after so many failures in a row, between four fifths and six fifths of it by
/// `random`, so that replicas that failed together do not come back together.
fn pause(failures: u32, random: u8) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let pause = PAUSE_FIRST.saturating_mul(doubled).min(PAUSE_MAX);
    about(pause, random)
}

/// Between four fifths and six fifths of `length`.
fn about(length: Duration, random: u8) -> Duration {
    length.saturating_mul(80 + u32::from(random) * 40 / 255) / 100
}

#[cfg(test)]
mod tests;
