//! A task that is kept for something else than one command's environment: the agent's.
//!
//! Invariant: as with `exec`, the task is completed on every way out once it is open, and nothing
//! that happens to it stops the command.

use std::{
    collections::BTreeMap, ffi::OsString, path::PathBuf, pin::pin, process::Stdio, rc::Rc,
    time::Duration,
};

use dayfly_api::{CreateTask, OpenedTask, Outcome};
use rustix::process::Signal;
use tokio::time::Instant;

use super::{
    Ended, Error, REVOKE_HURRIED, Session, at,
    child::{self, Exit},
    environment::inherit::{ChildEnvironment, Inheritance},
    explain, heartbeat, key,
    opening::{self, Opening},
    signals::Signals,
    stop::Stop,
    stopped,
};
use crate::{
    agent::hold::Minter,
    ambient::Ambient,
    args::{Context, IdentityArgs, process::SignalTarget},
    client::Client,
    failure::{self, Failure},
    output::Terminal,
};

/// Signals that end us, from before the task is asked for.
#[derive(Debug)]
pub(crate) struct Caught(Signals);

/// What became of the wish for a task.
pub(crate) enum Begun<'a> {
    Open(Box<Session<'a>>),
    /// We were told to stop before it was there.
    Stopped(Stopped),
}

/// A command that runs beside, found before anything is minted.
#[derive(Debug)]
pub(crate) struct Beside<'a> {
    program: PathBuf,
    command: &'a [OsString],
}

impl<'a> Beside<'a> {
    /// `None` without a command.
    pub(crate) fn find(command: &'a [OsString], ambient: &Ambient) -> Result<Option<Self>, Error> {
        if command.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { program: child::resolve(command, ambient)?, command }))
    }
}

/// How long what may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) stop_timeout: Duration,
    pub(crate) revoke_timeout: Duration,
}

/// Why there is no more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Nobody has asked for a while.
    Idle,
    /// The task has ended before us.
    TaskEnded,
}

impl Caught {
    /// From here on signals no longer have their default actions, and our memory is hidden.
    pub(crate) fn install() -> Result<Self, Error> {
        child::hide_memory();
        Signals::install(None).map(Self).map_err(Error::Signals)
    }

    /// Waits until we are told to stop.
    pub(crate) async fn stopped(&mut self) -> Stopped {
        Stopped(self.0.stopped().await)
    }

    /// Whether we have been told to stop.
    pub(crate) fn pending(&mut self) -> Option<Stopped> {
        self.0.pending_stop().map(Stopped)
    }

    /// Opens a task that nobody stays for. If we were told to stop before it was there, it is to be
    /// cancelled.
    pub(crate) async fn open(
        &mut self,
        opening: Opening<'_>,
        terminal: &Terminal,
    ) -> Result<(OpenedTask, Option<Stopped>), Failure> {
        match opening.unless_stopped(&mut self.0, terminal).await? {
            opening::Outcome::Opened(task) => Ok((*task, None)),
            opening::Outcome::Stopped(signal, Some(task)) => Ok((*task, Some(Stopped(signal)))),
            opening::Outcome::Stopped(signal, None) => Err(Stopped(signal).into()),
        }
    }

    /// Opens a task, unless we are told to stop before.
    pub(crate) async fn begin<'a>(
        &mut self,
        client: &'a Client,
        (args, no_proof): (&IdentityArgs, bool),
        request: &CreateTask,
        context: Context<'a>,
    ) -> Result<Begun<'a>, Failure> {
        let source = context.workload(args, client)?;
        let audience = context.audience(args, client);
        let key = key(no_proof, args, context)?;
        let (client, record) = (client, Rc::default());
        let opening =
            Opening { client, source: &source, audience: &audience, key: key.as_ref(), request };
        let session = |task| Session::of(client, task, key.as_ref(), (context.terminal, &record));
        match opening.unless_stopped(&mut self.0, context.terminal).await {
            Ok(opening::Outcome::Opened(task)) => Ok(Begun::Open(Box::new(session(*task)?))),
            Ok(opening::Outcome::Stopped(signal, late)) => {
                if let Some(task) = late {
                    let session = session(*task)?;
                    session.complete(Outcome::Cancelled, REVOKE_HURRIED, &mut self.0).await;
                }
                Ok(Begun::Stopped(Stopped(signal)))
            }
            Err(error) => Err(plain(explain(error.into(), &request.roles))),
        }
    }
}

/// That we were told to stop.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("stopped before it was done")]
pub(crate) struct Stopped(Signal);

impl Stopped {
    pub(crate) fn exit_code(self) -> u8 {
        child::signal_code(self.0.as_raw())
    }
}

/// The failure in the words, and with the exit code, of commands that are not `exec`.
fn plain(error: Error) -> Failure {
    if let Error::Identity(error) = error {
        return error.into();
    }
    Failure::Exec(error)
}

impl Session<'_> {
    /// In whose name credentials are minted.
    pub(crate) fn minter(&self) -> Minter<'_> {
        Minter {
            client: self.client,
            token: &self.token,
            terminal: self.terminal,
            task_ends: &self.task.expires_at,
            heard: None,
        }
    }

    pub(crate) fn task_id(&self) -> &str {
        &self.task.id
    }

    /// Lets `work` go on as long as the command runs that was found, or as long as nobody tells us
    /// to stop where there is none, and completes the task. The result is how we end.
    pub(crate) async fn attend(
        &self,
        caught: &mut Caught,
        beside: Option<(Beside<'_>, BTreeMap<String, String>)>,
        limits: Limits,
        work: impl Future<Output = Over>,
        inherited: Inheritance<'_>,
    ) -> Result<Exit, Error> {
        let signals = &mut caught.0;
        let result = match beside {
            Some((beside, variables)) => {
                let environment = inherited.compose(variables);
                self.run_beside(&beside, environment, signals, limits, work).await
            }
            None => Ok(self.wait(signals, limits, work).await),
        };
        let outcome = result.as_ref().map_or(Outcome::Cancelled, |ended| ended.outcome);
        let budget = match &result {
            Ok(ended) if ended.hurried => limits.revoke_timeout.min(REVOKE_HURRIED),
            Ok(_) | Err(_) => limits.revoke_timeout,
        };
        self.complete(outcome, budget, signals).await;
        result.map(|ended| ended.exit)
    }

    /// Ends a task that came to nothing.
    pub(crate) async fn give_up(&self, caught: &mut Caught, limits: Limits) {
        self.complete(Outcome::Cancelled, limits.revoke_timeout, &mut caught.0).await;
    }

    async fn wait(
        &self,
        signals: &mut Signals,
        limits: Limits,
        work: impl Future<Output = Over>,
    ) -> Ended {
        let ended = |code, outcome| Ended { exit: Exit::Code(code), outcome, hurried: false };
        tokio::select! {
            _ = signals.stopped() => ended(failure::OK, Outcome::Completed),
            () = self.beats(limits.heartbeat) => {
                self.terminal.warn("the task and its credentials end, and so does the agent");
                ended(failure::UNAVAILABLE, Outcome::Completed)
            }
            over = work => match over {
                Over::Idle => ended(failure::OK, Outcome::Completed),
                Over::TaskEnded => ended(failure::UNAVAILABLE, Outcome::Completed),
            },
        }
    }

    async fn run_beside(
        &self,
        beside: &Beside<'_>,
        environment: ChildEnvironment,
        signals: &mut Signals,
        limits: Limits,
        work: impl Future<Output = Over>,
    ) -> Result<Ended, Error> {
        if let Some(signal) = signals.pending_stop() {
            let exit = stopped(signal, self.terminal);
            return Ok(Ended { exit, outcome: Outcome::Cancelled, hurried: false });
        }
        self.terminal.settle().await;
        let (variables, streams) = (environment.variables, [Stdio::inherit(), Stdio::inherit()]);
        let target = SignalTarget::Auto;
        let mut child = child::spawn(&beside.program, beside.command, variables, streams, target)?;
        let mut stop = Stop::new(limits.stop_timeout);
        let mut beats = pin!(self.beats(limits.heartbeat));
        let mut beating = true;
        let mut work = pin!(work);
        let mut working = true;
        let status = loop {
            let deadline = stop.deadline();
            let action = tokio::select! {
                status = child.wait() => break status?,
                arrived = signals.next() => stop.on(arrived, Instant::now()),
                () = at(deadline), if deadline.is_some() => {
                    // First: a log that nobody reads may be what keeps it, and us.
                    child.act(stop.overdue());
                    self.terminal.warn("the command did not stop in time, and was killed");
                    continue;
                }
                () = &mut beats, if beating => {
                    beating = false;
                    self.terminal.warn("the command goes on, and its credentials end");
                    continue;
                }
                _ = &mut work, if working => {
                    working = false;
                    continue;
                }
            };
            child.act(action);
        };
        while let Some(arrived) = signals.arrived() {
            stop.on(arrived, Instant::now());
        }
        Ok(stop.ended(Exit::of(status)))
    }

    /// Says that we are here, until the broker has said that it will not hear it any more.
    async fn beats(&self, every: Option<Duration>) {
        match every {
            Some(every) => heartbeat::beat(self, every).await,
            None => std::future::pending().await,
        }
    }
}
