//! Asking CI platforms whether the jobs of open tasks are over.
//!
//! Invariant: a task ends here only by a plain answer about the very job that its verified claims
//! name, in a state that no job leaves. Whatever else comes back (a refusal, too much, nothing,
//! another job's answer) ends nobody: the task has its webhook and its deadline all the same.

mod ask;
mod buildkite;
mod github;
mod gitlab;
mod pace;
mod place;
mod plan;
mod round;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dayfly_backend_sdk::{Secret, Timestamp};
use dayfly_lease::{JobKey, StoreError, Task, TaskEnd, TaskId, Write, Written, spawn};
use futures_util::future::join_all;
use serde::Deserialize;

use crate::{
    broker::Broker,
    config::{HookKind, PollerConfig, SecretSource},
    identity::{IssuerConfig, Principal, SetupError},
    webhook::{Claims, Tally, job_end, job_keys, remembered_for},
};

use ask::{Answer, Api, Trouble};
use pace::Pace;
use place::{Place, Told};
use plan::{Plan, Question};
use round::{Memory, Round};

/// Questions at a time.
const ASKED_AT_ONCE: usize = 4;
/// Questions that are planned for at a time; there are as many jobs in memory.
const QUESTIONS_MAX: usize = 1_000;
/// Tasks that are read at a time.
const PAGE: u32 = 500;
/// Between two pages, for those who have something to ask.
const PAUSE: Duration = Duration::from_millis(50);
/// A job is not asked for sooner after its task began: the shortest ones end by themselves.
const YOUNG: Duration = Duration::from_mins(1);

/// One poller.
#[derive(Debug)]
pub(crate) struct Poller {
    name: String,
    kind: HookKind,
    issuer: String,
    api: Api,
    token: SecretSource,
    interval: Duration,
    keep: Duration,
    /// Ends that were forgotten before their time.
    forgotten: Tally,
}

/// Those of a configuration; asks nobody yet.
///
/// # Errors
/// What is wrong with a poller's certificates.
pub(crate) fn all(
    pollers: &[PollerConfig],
    issuers: &[IssuerConfig],
    task_ttl_max: Duration,
) -> Result<Vec<Poller>, SetupError> {
    let poller = |config: &PollerConfig| -> Result<Poller, SetupError> {
        Ok(Poller {
            name: config.name.clone(),
            kind: config.kind,
            issuer: config.issuer.clone(),
            api: Api::new(config)?,
            token: config.token.clone(),
            interval: config.interval,
            keep: remembered_for(&config.issuer, issuers, task_ttl_max),
            forgotten: Tally::default(),
        })
    };
    pollers.iter().map(poller).collect()
}

impl Poller {
    /// Asks in the background, until the process ends.
    pub(crate) fn begin(self, broker: &Arc<Broker>) {
        let (poller, broker) = (Arc::new(self), Arc::clone(broker));
        drop(spawn(async move {
            // A panic (a defect) must not end it unseen.
            loop {
                let (own, asking) = (Arc::clone(&poller), Arc::clone(&broker));
                if let Err(error) = spawn(async move { own.ask_for_ever(&asking).await }).await {
                    tracing::error!(poller = poller.name, %error, "poller.died");
                }
                broker.clock.sleep(poller.interval).await;
            }
        }));
    }

    async fn ask_for_ever(&self, broker: &Broker) {
        let mut memory = Memory::default();
        loop {
            let left = memory.backoff.left(broker.clock.running());
            broker.clock.sleep(self.interval_of_ours(broker).max(left)).await;
            let asked = match self.take_turn(broker).await {
                Ok(true) => self.round(broker, &mut memory).await,
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = asked {
                broker.metrics.poll(&self.name, "failed");
                tracing::error!(poller = self.name, %error, "poller.failed");
            }
        }
    }

    /// A tenth more or less, so that replicas do not come together.
    fn interval_of_ours(&self, broker: &Broker) -> Duration {
        let mut random = [0_u8; 1];
        broker.entropy.fill(&mut random);
        let [random] = random;
        self.interval * (90 + u32::from(random) * 20 / 255) / 100
    }

    /// One replica asks for all: the first that comes.
    async fn take_turn(&self, broker: &Broker) -> Result<bool, StoreError> {
        // No backend has a name with `|`. Less than the shortest wait, so that a replica that is
        // alone never misses its own turn.
        let backend = format!("poller|{}", self.name);
        let take = Write::TakeTurn { backend, every: self.interval * 4 / 5 };
        let taken = broker.engine.store().write(take).await?;
        Ok(matches!(taken, Written::Turn(Some(_))))
    }

    /// Asks for the jobs of open tasks, as many as there is time for until the next round.
    async fn round(&self, broker: &Broker, memory: &mut Memory) -> Result<(), StoreError> {
        let pace = Pace::of(self.kind);
        let max = pace.within(self.interval).min(QUESTIONS_MAX);
        let mut planned = self.questions(broker, memory.after, max).await?;
        if planned.0.is_empty() && memory.after.is_some() {
            planned = self.questions(broker, None, max).await?;
        }
        let (questions, after) = planned;
        if questions.is_empty() {
            memory.after = None;
            return Ok(());
        }
        let token = match self.token.read() {
            Ok(token) => token,
            Err(error) => {
                tracing::debug!(poller = self.name, %error, "poller.token.unreadable");
                self.note(broker, Trouble::TokenUnreadable);
                self.conclude(memory, BTreeSet::from([Trouble::TokenUnreadable]));
                return Ok(());
            }
        };
        let mut round = Round::new(token, pace);
        let asked = self.ask_all(broker, memory, &mut round, &questions).await;
        if asked.is_ok() && !round.stopped {
            memory.after = after;
        }
        self.conclude(memory, round.troubles);
        asked
    }

    /// Asks until the round is stopped, or until all is asked.
    async fn ask_all(
        &self,
        broker: &Broker,
        memory: &mut Memory,
        round: &mut Round,
        questions: &[Question],
    ) -> Result<(), StoreError> {
        for some in questions.chunks(ASKED_AT_ONCE) {
            let mut asking = Vec::with_capacity(some.len());
            for question in some {
                let wait = round.pace.next(broker.clock.running());
                asking.push(self.ask(broker, &question.place, (&round.token, &round.halted), wait));
            }
            let answers = join_all(asking).await;
            for (question, answer) in some.iter().zip(answers) {
                let Some(answer) = answer else { continue };
                memory.after = Some(question.task);
                let told = self.take(broker, memory, round, &question.place, answer);
                if let Some(told) = told {
                    self.settle(broker, memory, round, question, &told).await?;
                }
            }
            if round.stopped {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Asks after `wait`; does not where the API has asked somebody to wait meanwhile.
    async fn ask(
        &self,
        broker: &Broker,
        place: &Place,
        (token, halted): (&Secret, &AtomicBool),
        wait: Duration,
    ) -> Option<Answer> {
        broker.clock.sleep(wait).await;
        if halted.load(Ordering::Relaxed) {
            return None;
        }
        let answer = self.api.ask(place, token, broker.clock.now()).await;
        if answer.wait.is_some() {
            halted.store(true, Ordering::Relaxed);
        }
        Some(answer)
    }

    /// Reads an answer; nothing where it says nothing of a job.
    fn take(
        &self,
        broker: &Broker,
        memory: &mut Memory,
        round: &mut Round,
        place: &Place,
        answer: Answer,
    ) -> Option<Vec<Told>> {
        let running = broker.clock.running();
        if let Some(wait) = answer.wait {
            memory.backoff.asked_to_wait(wait, running);
            round.stopped = true;
        }
        let told = answer.body.and_then(|body| {
            place.read(&self.issuer, &body).map_err(|error| {
                // Where it went wrong, and not what stands there.
                let (line, column) = (error.line(), error.column());
                tracing::debug!(poller = self.name, line, column, "poller.unreadable");
                Trouble::Unreadable
            })
        });
        match told {
            Ok(told) => {
                memory.backoff.answered();
                round.answered();
                Some(told)
            }
            Err(trouble) => {
                self.note(broker, trouble);
                if round.troubled(trouble) {
                    memory.backoff.gave_up(self.interval, running);
                }
                None
            }
        }
    }

    /// Ends what is said to have ended, of the jobs that were asked for.
    async fn settle(
        &self,
        broker: &Broker,
        memory: &mut Memory,
        round: &mut Round,
        question: &Question,
        told: &[Told],
    ) -> Result<(), StoreError> {
        for key in &question.keys {
            let Some(told) = told.iter().find(|told| told.key == *key) else {
                self.note(broker, Trouble::Mismatched);
                round.troubles.insert(Trouble::Mismatched);
                continue;
            };
            let Some(end) = told.end else {
                broker.metrics.poll(&self.name, "goes_on");
                continue;
            };
            if self.is_proven(broker, memory, round, &question.place).await {
                self.end(broker, key, end).await?;
            }
        }
        Ok(())
    }

    /// Whether what has to say it besides does so, where something has to.
    async fn is_proven(
        &self,
        broker: &Broker,
        memory: &mut Memory,
        round: &mut Round,
        place: &Place,
    ) -> bool {
        let Some((proof, key)) = place.proof(&self.issuer) else { return true };
        if round.proven.contains(&proof) {
            return true;
        }
        if round.stopped {
            // The next round sees the same end.
            return false;
        }
        let wait = round.pace.next(broker.clock.running());
        let Some(answer) = self.ask(broker, &proof, (&round.token, &round.halted), wait).await
        else {
            return false;
        };
        let Some(told) = self.take(broker, memory, round, &proof, answer) else { return false };
        let holds = told.iter().any(|told| told.key == key);
        if holds {
            round.proven.insert(proof);
        } else {
            self.note(broker, Trouble::Mismatched);
            round.troubles.insert(Trouble::Mismatched);
        }
        holds
    }

    async fn end(&self, broker: &Broker, key: &JobKey, end: TaskEnd) -> Result<(), StoreError> {
        let actor = format!("poller|{}", self.name);
        let job = job_end(key.clone(), end, actor, self.keep);
        let closure = broker.engine.close_job(&job).await?;
        let (poller, end, tasks) = (self.name.as_str(), end.as_str(), closure.tasks.len());
        tracing::info!(poller, job = key.as_str(), end, tasks, "poller.told");
        if let Some(ends) = self.forgotten.add(closure.forgotten, broker.clock.running()) {
            tracing::warn!(poller, ends, "poller.forgotten");
        }
        broker.metrics.poll(&self.name, "ended");
        Ok(())
    }

    /// What is to be asked, and the task to go on after where that is not all.
    async fn questions(
        &self,
        broker: &Broker,
        mut after: Option<TaskId>,
        max: usize,
    ) -> Result<(Vec<Question>, Option<TaskId>), StoreError> {
        let young = self.interval.min(YOUNG);
        let opened_until = broker.engine.store().now().await?.minus(young);
        let mut plan = Plan::of(max);
        let mut last = after;
        loop {
            let (tasks, next) = broker.store.open_tasks(after, PAGE).await?;
            for task in &tasks {
                if let Some((place, key)) = self.place(task, opened_until)
                    && !plan.add(place, key, task.id)
                {
                    return Ok((plan.into_questions(), last));
                }
                last = Some(task.id);
            }
            after = next;
            if after.is_none() {
                return Ok((plan.into_questions(), None));
            }
            broker.clock.sleep(PAUSE).await;
        }
    }

    /// Where the job of a task is, if it is one of ours and old enough.
    fn place(&self, task: &Task, opened_until: Timestamp) -> Option<(Place, JobKey)> {
        if task.issuer != self.issuer || task.opened_at > opened_until {
            return None;
        }
        let key = task.keys.job.as_ref().or(task.keys.run.as_ref())?;
        let principal = Principal::deserialize(&task.identity).ok()?;
        // The issuer's jobs may have run on another platform when it was opened.
        if job_keys(self.kind, &principal) != task.keys {
            return None;
        }
        Some((Place::of(self.kind, &Claims(&principal.claims))?, key.clone()))
    }

    /// Counts a question that said nothing.
    fn note(&self, broker: &Broker, trouble: Trouble) {
        broker.metrics.poll(&self.name, trouble.code());
    }

    /// Warns of each trouble once, until a round has none.
    fn conclude(&self, memory: &mut Memory, troubles: BTreeSet<Trouble>) {
        let (new, works) = memory.conclude(troubles);
        for trouble in new {
            tracing::warn!(poller = self.name, code = trouble.code(), "poller.trouble");
        }
        if works {
            tracing::info!(poller = self.name, "poller.works");
        }
    }
}

#[cfg(test)]
mod tests;
