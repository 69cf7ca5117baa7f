//! A task that is kept for something else than one command's environment: the agent's.
//!
//! Invariant: as with `exec`, the task is completed on every way out once it is open, and nothing
//! that happens to it stops the command.

use std::{
    collections::BTreeMap, ffi::OsString, path::PathBuf, pin::pin, process::Stdio, rc::Rc,
    time::Duration,
};

use dayfly_api::{CreateTask, Outcome};
use tokio::time::Instant;

use super::{
    Ended, Error, REVOKE_HURRIED, Session, at,
    child::{self, Exit},
    environment::inherit::{ChildEnvironment, Inheritance},
    explain, heartbeat, key, open,
    signals::Signals,
    stop::Stop,
    stopped,
};
use crate::{
    agent::hold::Minter,
    ambient::Ambient,
    args::{
        Context, IdentityArgs,
        process::{EnvironmentArgs, SignalTarget},
    },
    client::Client,
    failure::{self, Failure},
    identity::Token,
    output::Terminal,
};

/// Signals that end us, from before the task is asked for.
#[derive(Debug)]
pub(crate) struct Caught(Signals);

/// What became of the wish for a task.
pub(crate) enum Begun<'a> {
    Open(Box<Session<'a>>),
    /// We were told to stop before it was there.
    Stopped(u8),
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

    /// Waits until we are told to stop; the result is the exit code that says so.
    pub(crate) async fn stopped(&mut self, terminal: &Terminal) -> u8 {
        stopped(self.0.stopped().await, terminal).leave()
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
        let opened_at = Instant::now();
        let opened = tokio::select! {
            opened = open(client, (&source, audience.as_str()), key.as_ref(), request) => opened,
            signal = self.0.stopped() => {
                return Ok(Begun::Stopped(stopped(signal, context.terminal).leave()));
            }
        };
        let task = opened.map_err(|error| plain(explain(error.into(), &request.roles)))?;
        let token = Token::of_task(&task, key.as_ref())?;
        let terminal = context.terminal;
        let record = Rc::default();
        Ok(Begun::Open(Box::new(Session { client, terminal, token, task, opened_at, record })))
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
        }
    }

    pub(crate) fn task_id(&self) -> &str {
        &self.task.id
    }

    /// Lets `work` go on as long as the command runs that was found, or as long as nobody tells us
    /// to stop where there is none, and completes the task. The result is our exit code.
    pub(crate) async fn attend(
        &self,
        caught: &mut Caught,
        beside: Option<(Beside<'_>, BTreeMap<String, String>)>,
        limits: Limits,
        work: impl Future<Output = Over>,
        ambient: &Ambient,
    ) -> Result<u8, Error> {
        let signals = &mut caught.0;
        let result = match beside {
            Some((beside, variables)) => {
                let environment = EnvironmentArgs::default();
                let environment = Inheritance::new(ambient, &environment).compose(variables);
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
        result.map(|ended| ended.exit.leave())
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
