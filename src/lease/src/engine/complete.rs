//! Ends that are asked for: a task completed, a lease revoked, a job over.
//!
//! Invariant: the answer says "dead" only when every credential was verified dead (I5); until
//! then it says what is still owed.

use std::time::Duration;

use super::Engine;
use crate::{
    Cause, Closed, Counts, JobEnd, Lease, LeaseId, Refusal, StoreError, Task, TaskEnd, TaskId,
    Write, Written, failpoint,
    planted::{self, Bug},
};

/// What became of a task's leases within the time that the caller would wait.
#[derive(Debug)]
pub struct Completion {
    /// The task as it ended; an earlier end stands.
    pub task: Task,
    /// Its leases by state.
    pub counts: Counts,
}

/// What the end of a job came to.
#[derive(Debug, Default)]
pub struct JobClosure {
    /// The tasks that it ended.
    pub tasks: Vec<TaskId>,
    /// Whether the end was known before.
    pub known: bool,
    /// How many other ends were forgotten for it before their time.
    pub forgotten: u64,
}

/// Another replica may be the one that revokes, and its deaths do not wake us.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Engine {
    /// Ends `task` and waits up to `wait` for its credentials' deaths. Completing twice is
    /// no error.
    pub async fn complete(
        &self,
        task: TaskId,
        end: TaskEnd,
        actor: &str,
        wait: Duration,
    ) -> Result<Completion, StoreError> {
        let write = Write::CloseTask { task, end, actor: actor.to_owned() };
        let Written::Closed(closed) = self.store.write(write).await? else {
            return Err(Refusal::TaskUnknown.into());
        };
        let closed = closed.into_iter().next().ok_or(Refusal::TaskUnknown)?;
        if failpoint::reached("complete.after_close").await.is_err() {
            return Err(StoreError::unavailable("failpoint"));
        }
        for backend in &closed.backends {
            self.wake(backend);
        }
        let mut deaths = self.deaths.count();
        let until = self.clock.now().plus(wait);
        loop {
            let mut counts = self.store.counts(task).await?;
            if planted::is(Bug::CompleteEarly) {
                counts = Counts::default();
            }
            if counts.is_settled() || !self.wait_for_death(&mut deaths, until).await {
                return Ok(Completion { task: closed.task, counts });
            }
        }
    }

    /// Ends every open task of a job, as far as they can be read, and remembers that the job is
    /// over; does not wait for the credentials' deaths. Ending it twice is no error.
    ///
    /// # Errors
    /// The store's. What was ended until then stays so, and asking again ends the rest.
    pub async fn close_job(&self, ended: &JobEnd) -> Result<JobClosure, StoreError> {
        let mut closure = JobClosure::default();
        let mut from = None;
        loop {
            let write = Write::CloseJob { ended: Box::new(ended.clone()), after: from };
            let written = self.store.write(write).await?;
            let Written::JobClosed { closed, after, known, forgotten } = written else {
                return Err(Refusal::TaskUnknown.into());
            };
            for backend in closed.iter().flat_map(|Closed { backends, .. }| backends) {
                self.wake(backend);
            }
            if from.is_none() {
                // Behind the first portion it is known from that one.
                closure.known = known;
            }
            closure.forgotten += forgotten;
            closure.tasks.extend(closed.into_iter().map(|one| one.task.id));
            from = after;
            if from.is_none() || planted::is(Bug::JobEndStopsShort) {
                return Ok(closure);
            }
        }
    }

    /// Tells `lease` to die and waits up to `wait` for it. Asking twice is no error, and the
    /// first cause stands.
    pub async fn revoke(
        &self,
        lease: LeaseId,
        cause: Cause,
        actor: &str,
        reason: Option<String>,
        wait: Duration,
    ) -> Result<Lease, StoreError> {
        let mut deaths = self.deaths.count();
        let write = Write::Condemn { lease, cause, actor: actor.to_owned(), reason };
        let Written::Lease(mut row) = self.store.write(write).await? else {
            return Err(Refusal::LeaseUnknown.into());
        };
        self.wake(&row.backend);
        let until = self.clock.now().plus(wait);
        while row.may_live() && !row.lingers() && self.wait_for_death(&mut deaths, until).await {
            *row = self.store.lease(lease).await?.ok_or(Refusal::LeaseUnknown)?;
        }
        Ok(*row)
    }

    /// Waits for any death, or a little; false once `until` has passed.
    async fn wait_for_death(&self, deaths: &mut u64, until: dayfly_backend_sdk::Timestamp) -> bool {
        let left = until.since(self.clock.now());
        if left.is_zero() {
            return false;
        }
        // In order, because a simulated run must take the same turn each time.
        tokio::select! {
            biased;
            () = self.deaths.since(deaths) => {}
            () = self.clock.sleep(left.min(LOOK_AGAIN)) => {}
        }
        true
    }
}
