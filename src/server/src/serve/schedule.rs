//! What happens by the calendar: checkpoints of the audit log, forgetting what has ended.
//!
//! Invariant: a run that fails is logged and the next one comes all the same.

use std::{sync::Arc, time::Duration};

use dayfly_lease::Write;
use tokio_cron_scheduler::{Job, JobScheduler};

use super::ServeError;
use crate::broker::Broker;

/// How often the issuers' keys are looked at.
pub(super) const KEY_REFRESH: Duration = Duration::from_secs(30);
/// Replayed tokens that have ended themselves are forgotten once an hour.
const FORGET: &str = "0 17 * * * *";

/// Starts the schedules.
pub(super) async fn start(
    broker: &Arc<Broker>,
    checkpoint: &str,
) -> Result<JobScheduler, ServeError> {
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
    scheduler.start().await.map_err(ServeError::Schedule)?;
    Ok(scheduler)
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
