//! `dayfly exec`: opens a task, runs a command with its credentials, completes the task.
//!
//! Invariant: the command never starts unless every role was granted, and the task is completed
//! on every way out once it is open.

pub(crate) mod attended;
mod child;
mod endpoint;
pub(crate) mod environment;
mod heartbeat;
mod renew;
mod signals;
mod stop;

use std::{collections::BTreeMap, ffi::OsString, io, pin::pin, sync::Arc, time::Duration};

use dayfly_api::{CreateTask, OpenedTask, Outcome, Problem};
use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub(crate) use crate::exec::child::become_child;
use crate::{
    agent::{hold, place},
    args::{Context, ExecArgs, IdentityArgs},
    client::{self, Client, jittered},
    exec::{
        child::Spawned,
        endpoint::Planned,
        signals::Signals,
        stop::{Action, Stop},
    },
    identity::{self, Source, Token},
    output::Terminal,
    proof::{self, Key},
};

/// A failure of ours before the command started, as `env` and `timeout` say it.
pub(crate) const FAILED: u8 = 125;
/// A broker that asks for a longer pause than this is down for the caller.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);
/// What is left for completion once somebody is impatient.
const REVOKE_HURRIED: Duration = Duration::from_secs(2);
/// Characters of a purpose that a broker accepts.
const PURPOSE_CHARS_MAX: usize = 256;

/// Runs the command; the result is its exit code.
pub(crate) async fn run(args: &ExecArgs, context: Context<'_>) -> Result<u8, Error> {
    environment::check(&args.roles)?;
    let program = child::resolve(&args.command, context.ambient)?;
    let planned = Planned::of(args).await?;
    let client = context.client()?;
    let IdentityArgs { kind, token_file, .. } = &args.identity;
    let source = identity::workload(*kind, token_file.as_deref(), context.ambient)?;
    let audience = context.audience(&args.identity, &client);
    let request = CreateTask {
        purpose: purpose(args),
        ttl_seconds: i64::try_from(args.ttl.as_secs()).unwrap_or(i64::MAX),
        heartbeat_seconds: args
            .heartbeat
            .0
            .map(|every| i64::try_from(every.as_secs()).unwrap_or(i64::MAX)),
        // The key that is proven binds it; a broker of an older version knows no such field.
        bind: None,
        roles: roles(args, planned.as_ref()),
    };
    child::hide_memory();
    let key = key(args.no_proof, &args.identity, context)?;
    let mut signals = Signals::install().map_err(Error::Signals)?;
    // Dropping the call closes its connection; the broker then revokes what was not delivered.
    let opened = tokio::select! {
        opened = open(&client, (&source, audience.as_str()), key.as_ref(), &request) => opened,
        signal = signals.stopped() => return Ok(stopped(signal, context.terminal)),
    };
    let mut opened = opened.map_err(|error| explain(error.into(), &request.roles))?;
    let served = planned.map(|planned| planned.with_lease(&mut opened)).transpose();
    let session = Session {
        token: Token::of_task(&opened, key.as_ref())?,
        task: opened,
        opened_at: Instant::now(),
        client: &client,
        terminal: context.terminal,
    };
    let result = session.run_served(served, &program, args, context, &mut signals).await;
    let (outcome, budget) = match &result {
        Ok(ended) if ended.hurried => (ended.outcome, args.revoke_timeout.min(REVOKE_HURRIED)),
        Ok(ended) => (ended.outcome, args.revoke_timeout),
        Err(_) => (Outcome::Cancelled, args.revoke_timeout),
    };
    session.complete(outcome, budget, &mut signals).await;
    result.map(|ended| ended.code)
}

/// How the command ended.
#[derive(Debug)]
struct Ended {
    code: u8,
    outcome: Outcome,
    /// Somebody asked twice.
    hurried: bool,
}

/// An open task and all that belongs to it.
pub(crate) struct Session<'a> {
    client: &'a Client,
    terminal: &'a Terminal,
    token: Token,
    task: OpenedTask,
    opened_at: Instant,
}

impl Session<'_> {
    async fn run(
        &self,
        program: &std::path::Path,
        args: &ExecArgs,
        served: BTreeMap<String, String>,
        context: Context<'_>,
        signals: &mut Signals,
    ) -> Result<Ended, Error> {
        let injected = environment::injected(&args.roles, &self.task.leases)?;
        let injected = environment::with_endpoint(injected, served)?;
        let environment = environment::compose(context.ambient.iter(), injected);
        self.announce(&environment);
        if let Some(signal) = signals.pending_stop() {
            let code = stopped(signal, self.terminal);
            return Ok(Ended { code, outcome: Outcome::Cancelled, hurried: false });
        }
        let mut child = child::spawn(program, &args.command, environment.variables)?;
        self.supervise(&mut child, signals, args).await
    }

    fn announce(&self, environment: &environment::ChildEnvironment) {
        for lease in &self.task.leases {
            self.terminal.note(&format!(
                "task {}: role `{}` → lease {} ({}, until {})",
                self.task.id, lease.role, lease.id, lease.backend, lease.expires_at
            ));
        }
        if !environment.replaced.is_empty() {
            self.terminal.note(&format!(
                "replacing from the environment: {}",
                environment.replaced.join(", ")
            ));
        }
    }

    /// Waits for the command, passes signals on, keeps its leases and its task alive.
    async fn supervise(
        &self,
        child: &mut Spawned,
        signals: &mut Signals,
        args: &ExecArgs,
    ) -> Result<Ended, Error> {
        let mut stop = Stop::new(args.stop_timeout);
        let mut beats = pin!(async {
            if let Some(every) = args.heartbeat.0 {
                heartbeat::beat(self, every).await;
                self.terminal.warn("the command goes on, and its credentials end");
            }
        });
        let mut beating = true;
        let mut renewals = pin!(renew::keep_alive(self));
        let mut renewing = true;
        let status = loop {
            let deadline = stop.deadline();
            let event = tokio::select! {
                status = child.wait() => break status?,
                arrived = signals.next() => stop.on(arrived, Instant::now()),
                () = at(deadline), if deadline.is_some() => {
                    self.terminal.warn("the command did not stop in time; killing it");
                    stop.overdue()
                }
                () = &mut renewals, if renewing => {
                    renewing = false;
                    continue;
                }
                () = &mut beats, if beating => {
                    beating = false;
                    continue;
                }
            };
            match event {
                Action::Forward(signal) => child.signal(signal),
                Action::Kill => child.signal(Signal::KILL),
                Action::Nothing => {}
            }
        };
        // What told the command to stop told us at the same time, and may only now be seen.
        while let Some(arrived) = signals.arrived() {
            stop.on(arrived, Instant::now());
        }
        let code = child::exit_code(status);
        let outcome = match code {
            _ if stop.was_told() => Outcome::Cancelled,
            0 => Outcome::Completed,
            _ if stop.was_interrupted() => Outcome::Cancelled,
            _ => Outcome::Failed,
        };
        Ok(Ended { code, outcome, hurried: stop.is_hurried() })
    }

    /// Completes the task within `budget`. A failure is told and changes nothing: the broker
    /// ends the credentials at their time, and the command's exit code is what counts here.
    async fn complete(&self, outcome: Outcome, budget: Duration, signals: &mut Signals) {
        let call = self.client.complete_task(&self.token, &self.task.id, outcome, budget);
        // The broker answers after `budget`; its answer needs a moment more to arrive.
        let mut call = pin!(timeout(budget + Duration::from_secs(1), call));
        let result = tokio::select! {
            result = &mut call => result,
            _ = signals.stopped() => match timeout(REVOKE_HURRIED, call).await {
                Ok(result) => result,
                Err(elapsed) => Err(elapsed),
            },
        };
        let id = &self.task.id;
        match result {
            Ok(Ok(done)) if done.leases.owed() == 0 => self.terminal.note(&format!(
                "task {id} {}: {} verified dead",
                done.state,
                credentials(done.leases.revoked)
            )),
            Ok(Ok(done)) => self.terminal.warn(&format!(
                "task {id}: {} not yet verified dead; the broker goes on revoking",
                credentials(done.leases.owed())
            )),
            Ok(Err(error)) => self.warn_incomplete(&crate::failure::Failure::from(error).to_line()),
            Err(_) => self.warn_incomplete("the broker did not answer in time"),
        }
    }

    fn warn_incomplete(&self, reason: &str) {
        let last = self.task.leases.iter().map(|lease| lease.expires_at.as_str()).max();
        self.terminal.warn(&format!(
            "could not complete task {}: {reason}; its credentials end by themselves, the last at {}",
            self.task.id,
            last.unwrap_or(&self.task.expires_at)
        ));
    }
}

/// The key that the run proves: its own, unless a file for several runs is named.
pub(crate) fn key(
    no_proof: bool,
    identity: &IdentityArgs,
    context: Context<'_>,
) -> Result<Option<Arc<Key>>, identity::Error> {
    if no_proof {
        return Ok(None);
    }
    match context.kept_key(identity)? {
        Some(key) => Ok(Some(key)),
        None => Ok(Some(Arc::new(Key::generate().map_err(proof::file::Error::from)?))),
    }
}

/// Opens a task, with a proof of `key` if there is one.
pub(crate) async fn open(
    client: &Client,
    (source, audience): (&Source, &str),
    key: Option<&Arc<Key>>,
    request: &CreateTask,
) -> Result<OpenedTask, identity::Error> {
    let proven = |token: Token| match key {
        Some(key) => token.with_proof_of(key),
        None => token,
    };
    let token = proven(source.token(audience).await?);
    match client.open_task(&token, request).await {
        // Nothing was minted, but the token was seen: only a new one is worth another try.
        Err(client::Error::Refused { problem, retry_after: Some(pause), .. })
            if problem.status == 503 && pause <= RETRY_AFTER_MAX && source.is_fresh_each_time() =>
        {
            sleep(jittered(pause)).await;
            let token = proven(source.token(audience).await?);
            Ok(client.open_task(&token, request).await?)
        }
        answer => Ok(answer?),
    }
}

async fn at(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        sleep_until(deadline).await;
    }
}

fn stopped(signal: Signal, terminal: &Terminal) -> u8 {
    terminal.note("stopped before the command started");
    child::signal_code(signal.as_raw())
}

fn credentials(count: u64) -> String {
    if count == 1 { "1 credential".to_owned() } else { format!("{count} credentials") }
}

/// The roles to ask for, that of the endpoint as well.
fn roles(args: &ExecArgs, planned: Option<&Planned>) -> Vec<String> {
    let mut roles = environment::roles(&args.roles);
    roles.extend(planned.map(|planned| planned.role().to_owned()));
    roles
}

fn purpose(args: &ExecArgs) -> String {
    let purpose = args.purpose.clone().unwrap_or_else(|| {
        // The arguments may hold what the broker's readers should not see.
        let command = args.command.first().map(OsString::as_os_str).unwrap_or_default();
        let name = std::path::Path::new(command).file_name().unwrap_or(command);
        format!("exec {}", name.to_string_lossy())
    });
    purpose.chars().take(PURPOSE_CHARS_MAX).collect()
}

/// A denial, with the role's name in front; and what helps where a key is amiss.
fn explain(error: Error, roles: &[String]) -> Error {
    let Error::Identity(identity::Error::Client(client::Error::Refused { problem, .. })) = &error
    else {
        return error;
    };
    let id = &problem.request_id;
    match problem.code.as_str() {
        "role_denied" => Error::Denied(denial(problem, roles)),
        "token_bound" => Error::Denied(format!(
            "the identity token belongs to another key, as after another `dayfly exec` with it; \
             name one file for all of them by --proof-key-file, or give each one a token of its \
             own (request {id})"
        )),
        "invalid_dpop_proof" => Error::Denied(format!(
            "the broker does not accept the proof of our key; is the address the one that it has \
             as `public_url`? --no-proof goes without (request {id})"
        )),
        _ => error,
    }
}

fn denial(problem: &Problem, roles: &[String]) -> String {
    let pointed = problem
        .errors
        .iter()
        .find_map(|fault| roles.get(fault.pointer.strip_prefix("/roles/")?.parse::<usize>().ok()?));
    let role = match (pointed, roles) {
        (Some(role), _) | (None, [role]) => Some(role),
        (None, _) => None,
    };
    let subject = match role {
        Some(role) => format!("role `{role}` was denied"),
        None => "a role was denied".to_owned(),
    };
    let rule = match &problem.denied_by {
        Some(rule) => format!(" by rule `{rule}`"),
        None => String::new(),
    };
    let detail = problem.detail.trim_end_matches('.');
    format!("{subject}{rule}: {detail} (request {})", problem.request_id)
}

/// Why the command was not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Child(#[from] child::Error),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("{0}")]
    Denied(String),
    #[error(transparent)]
    Environment(#[from] environment::Error),
    #[error(transparent)]
    Hold(#[from] hold::Error),
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error(transparent)]
    Place(#[from] place::Error),
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
}

impl Error {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Child(error) => error.exit_code(),
            Self::Client(_)
            | Self::Denied(_)
            | Self::Environment(_)
            | Self::Hold(_)
            | Self::Identity(_)
            | Self::Place(_)
            | Self::Signals(_) => FAILED,
        }
    }
}

#[cfg(test)]
mod tests;
