//! The opening of a task, during which we may be told to stop.
//!
//! Invariant: a task that is there in spite of that is known to who must cancel it.

use std::{cell::Cell, pin::pin, sync::Arc, time::Duration};

use dayfly_api::{CreateTask, OpenedTask};
use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until};

use super::{RETRY_AFTER_MAX, REVOKE_HURRIED, signals::Signals};
use crate::{
    client::{self, Client, jittered},
    identity::{self, Source, Token},
    output::Terminal,
    proof::Key,
};

/// A second signal within this time may be a copy of the first: systemd signals whole groups.
const COPY: Duration = Duration::from_secs(1);

/// What is asked for, of whom, and by whom.
#[derive(Clone, Copy)]
pub(crate) struct Opening<'a> {
    pub(crate) client: &'a Client,
    pub(crate) source: &'a Source,
    pub(crate) audience: &'a str,
    /// Proven with it, if there is one.
    pub(crate) key: Option<&'a Arc<Key>>,
    pub(crate) request: &'a CreateTask,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is an answer to wait for.
    Asked,
    Before,
    /// There was one to wait for when we were told to stop. Nothing more is asked.
    Last,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Outcome {
    Opened(Box<OpenedTask>),
    /// We were told to stop. If there is a task, it came too late, and is to be cancelled.
    Stopped(Signal, Option<Box<OpenedTask>>),
}

impl Opening<'_> {
    /// Opens the task, unless we are told to stop before it is there.
    ///
    /// Whoever closes the connection without an answer has the broker revoke what it could not
    /// deliver; an answer that is on its way counts as delivered. So it is waited for, for a
    /// moment.
    pub(super) async fn unless_stopped(
        self,
        signals: &mut Signals,
        terminal: &Terminal,
    ) -> Result<Outcome, identity::Error> {
        let phase = Cell::new(Phase::Before);
        let mut opening = pin!(self.open(&phase));
        let signal = tokio::select! {
            opened = terminal.waiting("waiting for the broker", &mut opening) => {
                return opened.map(|task| Outcome::Opened(Box::new(task)));
            }
            signal = signals.stopped() => signal,
        };
        // Nothing of it has left, or nothing came of what has.
        if phase.replace(Phase::Last) != Phase::Asked {
            return Ok(Outcome::Stopped(signal, None));
        }
        let told = Instant::now();
        let again = async {
            loop {
                signals.stopped().await;
                if told.elapsed() >= COPY {
                    return;
                }
            }
        };
        let late = tokio::select! {
            opened = opening => opened.ok(),
            () = sleep_until(told + REVOKE_HURRIED) => None,
            () = again => None,
        };
        Ok(Outcome::Stopped(signal, late.map(Box::new)))
    }

    async fn open(self, phase: &Cell<Phase>) -> Result<OpenedTask, identity::Error> {
        let Self { client, source, audience, request, .. } = self;
        let token = self.proven(source.token(audience).await?);
        phase.set(Phase::Asked);
        match client.open_task(&token, request).await {
            // Nothing was minted, but the tokens were seen: only new ones are worth another try,
            // and a person's is the same.
            Err(client::Error::Refused { problem, retry_after: Some(pause), .. })
                if problem.status == 503
                    && pause <= RETRY_AFTER_MAX
                    && source.is_fresh_each_time()
                    && request.on_behalf_of.is_none()
                    && phase.get() != Phase::Last =>
            {
                phase.set(Phase::Before);
                sleep(jittered(pause)).await;
                let token = self.proven(source.token(audience).await?);
                phase.set(Phase::Asked);
                Ok(client.open_task(&token, request).await?)
            }
            answer => Ok(answer?),
        }
    }

    fn proven(self, token: Token) -> Token {
        match self.key {
            Some(key) => token.with_proof_of(key),
            None => token,
        }
    }
}
