//! What happens by the calendar: checkpoints of the audit log, forgetting what has ended.
//!
//! Invariant: a run that fails is logged and the next one comes all the same.

use std::{sync::Arc, time::Duration};

use dayfly_lease::{StoreError, Write, Written};
use tokio_cron_scheduler::{Job, JobScheduler};

use super::ServeError;
use crate::{
    broker::Broker,
    config::Config,
    root::{Roots, RotateError},
};

/// How often the issuers' keys are looked at.
pub(super) const KEY_REFRESH: Duration = Duration::from_secs(30);
/// Replayed tokens and proofs that have ended themselves are forgotten once a minute: each
/// request with a proof leaves a row.
const FORGET: &str = "17 * * * * *";

/// What ended long ago is forgotten once an hour, and rows that were put aside are looked at
/// again: a newer program may be able to read them.
const TIDY: &str = "0 37 * * * *";
/// What an interrupted disabling left open is ended once a minute.
const DISABLE: &str = "23 * * * * *";
/// Rows that are forgotten in one transaction, which others' changes share and wait for.
const PRUNE_BATCH: u32 = 1_000;
/// Between two such transactions.
const PRUNE_PAUSE: Duration = Duration::from_millis(200);

/// Starts the schedules.
pub(super) async fn start(
    broker: &Arc<Broker>,
    config: &Config,
) -> Result<JobScheduler, ServeError> {
    let (checkpoint, keep_ended) = (config.audit.checkpoint.as_str(), config.keep_ended);
    let scheduler = JobScheduler::new().await.map_err(ServeError::Schedule)?;
    let checkpointing = Arc::clone(broker);
    let job = Job::new_async(checkpoint, move |_, _| {
        let broker = Arc::clone(&checkpointing);
        Box::pin(async move { write_checkpoint(&broker).await })
    });
    scheduler.add(job.map_err(ServeError::Schedule)?).await.map_err(ServeError::Schedule)?;
    let forgetting = Arc::clone(broker);
    let job = Job::new_async(FORGET, move |_, _| {
        let broker = Arc::clone(&forgetting);
        Box::pin(async move {
            match broker.store.forget_replayed().await {
                Ok(forgotten) => tracing::debug!(forgotten, "replay.forgotten"),
                Err(error) => tracing::error!(%error, "replay.forget.failed"),
            }
        })
    });
    scheduler.add(job.map_err(ServeError::Schedule)?).await.map_err(ServeError::Schedule)?;
    let ending = Arc::clone(broker);
    let job = Job::new_async(DISABLE, move |_, _| {
        let broker = Arc::clone(&ending);
        Box::pin(async move { end_disabled(&broker).await })
    });
    scheduler.add(job.map_err(ServeError::Schedule)?).await.map_err(ServeError::Schedule)?;
    let tidying = Arc::clone(broker);
    let job = Job::new_async(TIDY, move |_, _| {
        let broker = Arc::clone(&tidying);
        Box::pin(async move {
            look_again(&broker).await;
            match prune(&broker, keep_ended).await {
                Ok(pruned) => tracing::info!(pruned, "store.pruned"),
                Err(error) => tracing::error!(%error, "store.prune.failed"),
            }
        })
    });
    scheduler.add(job.map_err(ServeError::Schedule)?).await.map_err(ServeError::Schedule)?;
    for backend in &config.backends {
        let (Some(when), Some(roots)) = (&backend.rotate, &broker.roots) else { continue };
        let (roots, name) = (Arc::clone(roots), backend.name.clone());
        let job = Job::new_async(when.as_str(), move |_, _| {
            let (roots, name) = (Arc::clone(&roots), name.clone());
            Box::pin(async move { rotate(&roots, &name).await })
        });
        scheduler.add(job.map_err(ServeError::Schedule)?).await.map_err(ServeError::Schedule)?;
    }
    scheduler.start().await.map_err(ServeError::Schedule)?;
    Ok(scheduler)
}

/// All replicas come at the same instant: the first one changes the password, and the others are
/// told that it was changed just now.
async fn rotate(roots: &Roots, backend: &str) {
    match roots.rotate_unless_fresh(backend, "schedule").await {
        Ok(Some(_)) => tracing::info!(backend, "root.rotated"),
        Ok(None) => tracing::debug!(backend, "root.fresh"),
        Err(RotateError::Store(error)) if error.refusal().is_some() => {
            tracing::debug!(backend, %error, "root.elsewhere");
        }
        Err(error) => tracing::error!(backend, error = ?error, "root.rotate.failed"),
    }
}

/// Has the reapers look again at rows that could not be read.
pub(super) async fn look_again(broker: &Broker) {
    match broker.store.look_again().await {
        Ok(0) => {}
        Ok(rows) => tracing::warn!(rows, "lease.quarantine.looked_at_again"),
        Err(error) => tracing::error!(%error, "lease.quarantine.failed"),
    }
}

/// Ends the open tasks of disabled identities that whoever disabled them did not get to.
pub(super) async fn end_disabled(broker: &Broker) {
    match broker.engine.end_disabled().await {
        Ok(tasks) if tasks.is_empty() => {}
        Ok(tasks) => tracing::warn!(tasks = tasks.len(), "identity.disabled.finished"),
        Err(error) => tracing::error!(%error, "identity.disabled.unfinished"),
    }
}

/// Forgets what ended longer than `keep` ago, a batch at a time, until nothing is left.
async fn prune(broker: &Broker, keep: Duration) -> Result<u64, StoreError> {
    let mut pruned = 0;
    loop {
        let write = Write::Prune { keep, limit: PRUNE_BATCH };
        let Written::Count(count) = broker.engine.store().write(write).await? else {
            return Ok(pruned);
        };
        if count == 0 {
            return Ok(pruned);
        }
        pruned += count;
        broker.clock.sleep(PRUNE_PAUSE).await;
    }
}

/// A signed record of where every chain ends. The same goes to the log, where it is out of
/// reach of whoever can write the store.
async fn write_checkpoint(broker: &Broker) {
    let written = async {
        let heads = broker.store.heads().await?;
        for head in &heads {
            let hash = data_encoding::HEXLOWER.encode(&head.hash);
            tracing::debug!(chain = %head.chain, seq = head.seq, hash, "audit.head");
        }
        let entry = dayfly_store::checkpoint(&heads);
        broker.engine.store().write(Write::Note(entry)).await
    };
    if let Err(error) = written.await {
        tracing::error!(%error, "audit.checkpoint.failed");
    }
}
