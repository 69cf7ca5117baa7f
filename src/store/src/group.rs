//! The writer's queue: natural batching.
//!
//! Invariant: a change is answered after the commit that holds it, and never before. The
//! queue is bounded; when it is full, a change waits its turn or is refused as unavailable.

use dayfly_lease::{StoreError, TaskId, Write, Written};
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

/// Where a change stands in its group: heartbeats come after the rest, by their tasks, and what was
/// turned away comes last. Heartbeats are most of what replicas write of the same tasks, and in
/// one order they never wait for each other in a circle.
pub(crate) fn rank(write: &Write) -> (u8, Option<TaskId>) {
    if let Write::Beat { task } = write {
        return (1, Some(*task));
    }
    if matches!(write, Write::TurnedAway) {
        return (2, None);
    }
    (0, None)
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

#[cfg(test)]
mod tests {
    use dayfly_backend_sdk::Timestamp;
    use dayfly_lease::{SystemEntropy, audit::Entry};

    use super::*;

    /// Two replicas that hear the same tasks in different orders lock them in the same one.
    #[test]
    fn heartbeats_are_written_last_and_by_their_tasks() {
        let entropy = SystemEntropy::new();
        let task = |second| TaskId::new(Timestamp::from_seconds(second), &entropy);
        let (early, late) = (task(1), task(2));
        let note = |event| Write::Note(Entry::new(event, "test"));
        let told = |write: &Write| {
            if let Write::Note(entry) = write {
                entry.event.to_owned()
            } else {
                format!("{:?}", rank(write))
            }
        };
        let mut one = [
            Write::Beat { task: late },
            Write::TurnedAway,
            note("first"),
            Write::Beat { task: early },
            note("second"),
        ];
        one.sort_by_key(rank);
        let expected = [
            "first".to_owned(),
            "second".to_owned(),
            format!("{:?}", (1, Some(early))),
            format!("{:?}", (1, Some(late))),
            format!("{:?}", (2, None::<TaskId>)),
        ];
        assert_eq!(one.each_ref().map(told), expected);
    }
}
