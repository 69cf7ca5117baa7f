//! `/api/v1/tasks`.
//!
//! Invariant: a task's token is shown once, in the answer that opened it.

pub(super) mod complete;
pub(super) mod create;
pub(super) mod heartbeat;
pub(super) mod list;
pub(super) mod show;

use dayfly_lease::{Task, TaskId};

use super::problem::Fault;
use crate::broker::Broker;

/// The task that a path names; what cannot be an id names nothing.
async fn named(broker: &Broker, id: &str) -> Result<Task, Fault> {
    let id: TaskId = id.parse().map_err(|_| Fault::not_found())?;
    broker.engine.store().task(id).await?.ok_or_else(Fault::not_found)
}
