//! The end of a task: its credentials are to be dead before we are gone.
//!
//! Invariant: it takes no longer than it may, and a failure changes nothing but what is said; the
//! broker ends the credentials all the same.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use dayfly_api::{Completed, Outcome};
use tokio::time::{Instant, sleep, timeout};

use super::{REVOKE_HURRIED, Session, signals::Signals};
use crate::{
    client::{self, Client, Filter},
    failure::Failure,
    task,
};

/// What is waited for when the command has ended.
const ENDING: &str = "waiting until the credentials are verified dead";
/// After what part of the budget without an answer, and between attempts that fail, another is made.
const AGAIN: u32 = 3;
/// How long the question may take which of them are dead.
const WHICH: Duration = Duration::from_secs(1);

impl Session<'_> {
    /// Completes the task within `budget`. A failure is told and changes nothing: the broker
    /// ends the credentials at their time, and the command's exit code is what counts here.
    /// Whether every credential was verified dead.
    pub(super) async fn complete(
        &self,
        outcome: Outcome,
        budget: Duration,
        signals: &mut Signals,
    ) -> bool {
        let call = self.completion(outcome, budget);
        // The broker answers after `budget`; its answer needs a moment more to arrive.
        let mut call = pin!(timeout(budget + Duration::from_secs(1), call));
        let result = tokio::select! {
            result = self.terminal.waiting(ENDING, &mut call) => result,
            _ = signals.stopped() => match timeout(REVOKE_HURRIED, call).await {
                Ok(result) => result,
                Err(elapsed) => Err(elapsed),
            },
        };
        match result {
            Ok(Ok(done)) => return self.completed(&done).await,
            Ok(Err(error)) => self.warn_incomplete(&Failure::from(error).to_line()),
            Err(_) => self.warn_incomplete("the broker did not answer in time"),
        }
        false
    }

    /// Asks for the end, and asks again over another connection: ours may be dead without anybody
    /// having told us, and so may be the replica at its other end. Who is told twice has been told.
    async fn completion(
        &self,
        outcome: Outcome,
        budget: Duration,
    ) -> Result<Completed, client::Error> {
        let (ends, again) = (Instant::now() + budget, budget / AGAIN);
        let mut first = pin!(self.completed_by(self.client, outcome, budget));
        let mut others = pin!(async {
            loop {
                sleep(again).await;
                let left = ends.saturating_duration_since(Instant::now());
                let result = match self.client.apart() {
                    Ok(client) => self.completed_by(&client, outcome, left).await,
                    Err(error) => Err(error),
                };
                match result {
                    Err(error) if error.is_temporary() && left > again => {}
                    result => return result,
                }
            }
        });
        tokio::select! {
            result = &mut first => match result {
                Err(error) if error.is_temporary() => others.await,
                result => result,
            },
            result = &mut others => match result {
                Err(_) => first.await,
                result => result,
            },
        }
    }

    async fn completed_by(
        &self,
        client: &Client,
        outcome: Outcome,
        wait: Duration,
    ) -> Result<Completed, client::Error> {
        client.complete_task(&self.token, &self.task.id, outcome, wait).await
    }

    async fn completed(&self, done: &Completed) -> bool {
        let id = &self.task.id;
        let dead = done.leases.revoked;
        let Some(unproven) = task::unproven(done) else {
            self.record.revoked(|_| true);
            let dead = task::credentials(dead);
            self.terminal.note(&format!("task {id} {}: {dead} verified dead", done.state));
            return true;
        };
        self.terminal.warn(&format!("task {id}: {unproven}"));
        if dead > 0
            && let Ok(known) = timeout(WHICH, self.dead()).await
        {
            self.record.revoked(|lease| known.contains(lease));
        }
        false
    }

    /// Those that are verified dead, as far as the broker can be asked.
    async fn dead(&self) -> BTreeSet<String> {
        let filter = Filter(vec![("task", self.task.id.clone()), ("state", "revoked".to_owned())]);
        let page = self.client.leases(&self.token, &filter, None).await;
        page.map(|page| page.data.into_iter().map(|lease| lease.id).collect()).unwrap_or_default()
    }

    fn warn_incomplete(&self, reason: &str) {
        let last = self.record.last_expiry();
        self.terminal.warn(&format!(
            "could not complete task {}: {reason}; its credentials end by themselves, the last at {}",
            self.task.id,
            last.as_deref().unwrap_or(&self.task.expires_at)
        ));
    }
}
