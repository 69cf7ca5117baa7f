//! Ends that come from outside the task: its identity was disabled, or policy has changed.
//!
//! Invariant: nothing here waits for the credentials' deaths. What was ended stays so, whatever
//! fails after it, and asking again ends the rest.

use super::Engine;
use crate::{Closed, Disabling, Refusal, StoreError, TaskId, Withdrawal, Write, Written};

/// Tasks that are ended in one transaction at most.
const TASKS_LIMIT: u32 = 50;

impl Engine {
    /// Disables an identity and ends its open tasks; answers with those. `None` if this delivery
    /// was told before.
    ///
    /// # Errors
    /// The store's. Where the identity is disabled already, its tasks are left to
    /// [`Engine::end_disabled`].
    pub async fn disable(&self, disabling: Disabling) -> Result<Option<Vec<TaskId>>, StoreError> {
        let principal = disabling.principal.clone();
        let write = Write::Disable(Box::new(disabling));
        let written = self.store.write(write).await?;
        // Whoever told it the first time may not have come to the end.
        let tasks = self.end_tasks_of_disabled(Some(&principal)).await?;
        Ok(matches!(written, Written::Count(1)).then_some(tasks))
    }

    /// Ends what a disabling left open that was interrupted.
    ///
    /// # Errors
    /// The store's.
    pub async fn end_disabled(&self) -> Result<Vec<TaskId>, StoreError> {
        self.end_tasks_of_disabled(None).await
    }

    async fn end_tasks_of_disabled(
        &self,
        principal: Option<&str>,
    ) -> Result<Vec<TaskId>, StoreError> {
        let mut tasks = Vec::new();
        loop {
            let principal = principal.map(str::to_owned);
            let write = Write::EndDisabled { principal, limit: TASKS_LIMIT };
            let Written::Closed(closed) = self.store.write(write).await? else {
                return Err(Refusal::TaskUnknown.into());
            };
            if closed.is_empty() {
                return Ok(tasks);
            }
            self.wake_for(&closed);
            tasks.extend(closed.into_iter().map(|one| one.task.id));
        }
    }

    /// Ends what policy would deny now; false if it had ended by itself.
    ///
    /// # Errors
    /// The store's.
    pub async fn withdraw(&self, withdrawal: Withdrawal) -> Result<bool, StoreError> {
        let written = self.store.write(Write::Withdraw(Box::new(withdrawal))).await?;
        if let Written::Lease(lease) = written {
            self.wake(&lease.backend);
            return Ok(true);
        }
        let Written::Closed(closed) = written else { return Ok(false) };
        self.wake_for(&closed);
        Ok(!closed.is_empty())
    }

    fn wake_for(&self, closed: &[Closed]) {
        for backend in closed.iter().flat_map(|Closed { backends, .. }| backends) {
            self.wake(backend);
        }
    }
}
