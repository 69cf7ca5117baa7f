//! The writer's queue: natural batching.
//!
//! Invariant: a change is answered after the commit that holds it, and never before. The
//! queue is bounded; when it is full, a change waits its turn or is refused as unavailable.

use dayfly_lease::{StoreError, Write, Written};
use tokio::sync::{mpsc, oneshot};

/// The most changes in one transaction.
pub(crate) const GROUP_MAX: usize = 128;
/// The most changes that wait.
pub(crate) const QUEUE_MAX: usize = 4_096;

/// A change and who waits for it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) write: Write,
    pub(crate) answer: oneshot::Sender<Result<Written, StoreError>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the store's writer has stopped")]
struct Stopped;

/// Whether the change is a request for something new, which nobody misses if nobody waits,
/// and which can be refused when there is no room.
pub(crate) fn is_a_wish(write: &Write) -> bool {
    matches!(write, Write::OpenTask { .. } | Write::Intend(_) | Write::Probe)
}

/// Hands `write` to the writer and waits for its commit.
pub(crate) async fn submit(queue: &mpsc::Sender<Job>, write: Write) -> Result<Written, StoreError> {
    let (answer, result) = oneshot::channel();
    queue.send(Job { write, answer }).await.map_err(|_| StoreError::unavailable(Stopped))?;
    // The writer went away with the change in hand: nobody knows.
    result.await.unwrap_or_else(|_| Err(StoreError::Unknown(Box::new(Stopped))))
}

/// Answers every job of a group that did not commit.
pub(crate) fn fail_all(jobs: Vec<Job>, error: impl Fn() -> StoreError) {
    for job in jobs {
        // Whoever waited may be gone; then there is nobody to tell.
        drop(job.answer.send(Err(error())));
    }
}
