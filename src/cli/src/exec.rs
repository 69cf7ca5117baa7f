//! `dayfly exec`: opens a task, runs a command with its credentials, completes the task.
//!
//! Invariant: the command never starts unless every role was granted, and the task is completed
//! on every way out once it is open.

mod asleep;
pub(crate) mod attended;
mod child;
mod complete;
mod deliver;
mod dry;
mod endpoint;
pub(crate) mod environment;
mod heartbeat;
mod hold;
pub(crate) mod opening;
mod parent;
mod reap;
mod renew;
mod report;
mod restart;
mod run;
mod signals;
mod stop;
mod suggest;

use std::{
    cell::RefCell, ffi::OsString, io, mem::take, path::Path, pin::pin, rc::Rc, sync::Arc,
    time::Duration,
};

use dayfly_api::{CreateTask, Credential, Lease, OpenedTask, Outcome, Problem};
use rustix::process::{Pid, Signal, getpid};
use tokio::time::{Instant, sleep_until};

pub(crate) use crate::exec::{
    child::{Exit, become_child},
    deliver::place_of_files,
};
use crate::{
    agent::{hold as agent_hold, place},
    ambient::Ambient,
    args::{
        Context, ExecArgs, IdentityArgs,
        process::{ProcessArgs, RevokeFailure},
    },
    ci::Ci,
    client::{self, Client},
    exec::{
        deliver::{Delivered, Plan},
        endpoint::Planned,
        environment::inherit::TASK,
        opening::Opening,
        parent::Parent,
        report::Record,
        run::Run,
        signals::Signals,
    },
    identity::{self, Token},
    mask::{self, Drains, Masking},
    output::Terminal,
    proof::{self, Key},
};

/// A failure of ours before the command started, as `env` and `timeout` say it.
pub(crate) const FAILED: u8 = 125;
/// As what the command's first process knows itself, before it is the command.
pub(crate) const CHILD: &str = "exec-child";
/// A broker that asks for a longer pause than this is down for the caller.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);
/// What is left for completion once somebody is impatient.
const REVOKE_HURRIED: Duration = Duration::from_secs(2);
/// The longest that credentials live which nobody renews and nobody ends with their command.
const REPLACE_TTL_MAX: Duration = Duration::from_hours(1);
/// What is said when the filter has given up on its reader.
const CUT: &str = "the end of the command's output is lost: nobody read it";
/// Characters of a purpose that a broker accepts.
const PURPOSE_CHARS_MAX: usize = 256;

/// Runs the command; the result is its exit code. If a signal ended the command, so it does us.
pub(crate) async fn run(args: &ExecArgs, context: Context<'_>) -> Result<u8, Error> {
    if args.dry_run {
        return dry::run(args, context).await;
    }
    let parent = Parent::at_start();
    context.terminal.stand_apart();
    let record = Rc::new(Record::default());
    let report = args.process.report.as_deref();
    if let Some(path) = report {
        report::check(path).map_err(|source| Error::report(path, source))?;
    }
    let result = attempt(args, context, parent, &record).await;
    if let Some(path) = report
        && let Err(source) = record.write(path)
    {
        let failure = crate::failure::Failure::Exec(Error::report(path, source));
        context.terminal.warn(&failure.to_line());
    }
    context.terminal.finish();
    // Everything that is to be cleaned up has been.
    result.map(Exit::leave)
}

async fn attempt(
    args: &ExecArgs,
    context: Context<'_>,
    parent: Parent,
    record: &Rc<Record>,
) -> Result<Exit, Error> {
    let plan = Plan::new(args, context.ambient)?;
    let program = child::resolve(&args.command, context.ambient)?;
    tell_unresolved(&plan, context.terminal);
    let masking = masking(args, context)?;
    let planned = Planned::of(args, &plan).await?;
    let client = context.client()?;
    let source = context
        .workload(&args.identity, &client)
        .map_err(|error| nested(error, context.ambient))?;
    let audience = context.audience(&args.identity, &client);
    let mut request = request(args, &plan, planned.as_ref());
    request.on_behalf_of = args.on_behalf.token(context.ambient)?;
    child::hide_memory();
    let key = key(args.no_proof, &args.identity, context)?;
    let inheritance = context.inheritance(&args.identity, &args.process.environment);
    let file_dir = args.deliver.file_dir.as_deref();
    let delivered = Delivered::prepare(&plan, file_dir, inheritance, context.terminal)?;
    let delivered = delivered.of(&args.command);
    let parent = dies_with_parent(&args.process, context.ambient).then_some(parent);
    let mut signals = Signals::install(parent).map_err(Error::Signals)?;
    // It may have ended before the kernel was asked to tell of it.
    if parent.is_some_and(Parent::is_gone) {
        return Ok(stopped(Signal::TERM, context.terminal));
    }
    let opening = Opening {
        client: &client,
        source: &source,
        audience: &audience,
        key: key.as_ref(),
        request: &request,
    };
    let mut session = match begin(opening, &mut signals, (context.terminal, record)).await? {
        Ok(session) => session,
        Err(exit) => return Ok(exit),
    };
    if let Some(exit) = session.masked(&masking, &mut signals).await {
        return Ok(exit);
    }
    let served = planned.map(|planned| planned.with_lease(&mut session.task)).transpose();
    let (leases, credentials) = apart(take(&mut session.task.leases));
    let run = Run {
        session: &session,
        args,
        program: &program,
        masking: &masking,
        leases: RefCell::new(leases),
        delivered: RefCell::new(delivered),
    };
    let mut drains = Drains::default();
    let result = run.run_served(served, credentials, &mut signals, &mut drains).await;
    let (outcome, budget) = match &result {
        Ok(ended) if ended.hurried => (ended.outcome, args.revoke_timeout.min(REVOKE_HURRIED)),
        Ok(ended) => (ended.outcome, args.revoke_timeout),
        Err(_) => (Outcome::Cancelled, args.revoke_timeout),
    };
    let is_verified = session.end((outcome, budget), drains, &mut signals).await;
    if let Err(error) = run.delivered.borrow_mut().remove() {
        context.terminal.warn(&crate::failure::Failure::Exec(error.into()).to_line());
    }
    let is_failure = !is_verified && args.process.revoke_failure == RevokeFailure::Fail;
    let failed = |exit: Exit| if is_failure { exit.or_failed() } else { exit };
    result.map(|ended| failed(ended.exit))
}

/// Says which variables keep their references, so that nobody wonders.
fn tell_unresolved(plan: &Plan, terminal: &Terminal) {
    if !plan.unresolved().is_empty() {
        let names = plan.unresolved().join(",");
        terminal.note(&format!(
            "left as they are, with dayfly:// in them: {names}; --resolve-env={names} replaces it"
        ));
    }
}

/// The task; or how we end, if we are told to stop before there is one.
async fn begin<'a>(
    opening: Opening<'a>,
    signals: &mut Signals,
    (terminal, record): (&'a Terminal, &Rc<Record>),
) -> Result<Result<Session<'a>, Exit>, Error> {
    let session = |task| Session::of(opening.client, task, opening.key, (terminal, record));
    match opening.unless_stopped(signals, terminal).await {
        Ok(opening::Outcome::Opened(task)) => Ok(Ok(session(*task)?)),
        Ok(opening::Outcome::Stopped(signal, late)) => {
            if let Some(task) = late {
                let session = session(*task)?;
                session.complete(Outcome::Cancelled, REVOKE_HURRIED, signals).await;
            }
            Ok(Err(stopped(signal, terminal)))
        }
        Err(error) => Err(suggest::explained(error, opening).await),
    }
}

/// Leases without their credentials, and those with their roles.
fn apart(mut leases: Vec<Lease>) -> (Vec<Lease>, Vec<(String, Credential)>) {
    let taken = leases.iter_mut().filter_map(|lease| {
        let credential = lease.credential.take()?;
        Some((lease.role.clone(), credential))
    });
    let credentials = taken.collect();
    (leases, credentials)
}

fn request(args: &ExecArgs, plan: &Plan, planned: Option<&Planned>) -> CreateTask {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let is_replaced = args.process.replace;
    let mut roles = plan.roles().to_vec();
    roles.extend(planned.map(|planned| planned.role().to_owned()));
    CreateTask {
        purpose: purpose(args),
        ttl_seconds: seconds(ttl(args)),
        // Nobody stays who could be heard if we become the command.
        heartbeat_seconds: args.heartbeat.0.filter(|_| !is_replaced).map(seconds),
        // The key that is proven binds it; a broker of an older version knows no such field.
        bind: None,
        roles,
        on_behalf_of: None,
    }
}

/// How long the task may take.
fn ttl(args: &ExecArgs) -> Duration {
    if args.process.replace { args.ttl.min(REPLACE_TTL_MAX) } else { args.ttl }
}

fn masking<'a>(args: &ExecArgs, context: Context<'a>) -> Result<Masking<'a>, mask::Error> {
    let ProcessArgs { mask, replace, .. } = &args.process;
    let agent = child::resolve(&mask::agent_command(), context.ambient).ok();
    Masking::new(*mask, *replace, agent, context.ambient, context.terminal)
}

/// Whether the end of the process that started us is a request to stop. The first process of a
/// container has none that it could see.
fn dies_with_parent(args: &ProcessArgs, ambient: &Ambient) -> bool {
    let is_wanted = args.die_with_parent || (!args.no_die_with_parent && Ci::of(ambient).is_some());
    is_wanted && !args.replace && getpid() != Pid::INIT
}

/// How the command ended.
#[derive(Debug)]
struct Ended {
    exit: Exit,
    outcome: Outcome,
    /// Somebody asked twice.
    hurried: bool,
}

/// An open task. Its leases are with whoever keeps them.
pub(crate) struct Session<'a> {
    client: &'a Client,
    terminal: &'a Terminal,
    token: Token,
    task: OpenedTask,
    opened_at: Instant,
    record: Rc<Record>,
}

impl<'a> Session<'a> {
    /// Of a task that was opened with `key`.
    fn of(
        client: &'a Client,
        task: OpenedTask,
        key: Option<&Arc<Key>>,
        (terminal, record): (&'a Terminal, &Rc<Record>),
    ) -> Result<Self, identity::Error> {
        record.opened(&task);
        let (token, record) = (Token::of_task(&task, key)?, Rc::clone(record));
        Ok(Self { client, terminal, token, task, opened_at: Instant::now(), record })
    }
}

impl Session<'_> {
    /// Has what was granted masked; how we end if we are told to stop before it is.
    async fn masked(&self, masking: &Masking<'_>, signals: &mut Signals) -> Option<Exit> {
        let signal = tokio::select! {
            () = masking.learn(&self.task.leases) => return None,
            signal = signals.stopped() => signal,
        };
        self.complete(Outcome::Cancelled, REVOKE_HURRIED, signals).await;
        Some(stopped(signal, self.terminal))
    }

    /// Completes the task, and waits for what the command has printed. Whether every credential was
    /// verified dead.
    async fn end(
        &self,
        (outcome, budget): (Outcome, Duration),
        drains: Drains,
        signals: &mut Signals,
    ) -> bool {
        let mut drained = pin!(drains.finish(outcome == Outcome::Cancelled));
        let mut is_whole = None;
        let is_verified = {
            let mut completion = pin!(self.complete(outcome, budget, signals));
            loop {
                tokio::select! {
                    is_verified = &mut completion => break is_verified,
                    whole = &mut drained, if is_whole.is_none() => is_whole = Some(whole),
                }
            }
        };
        if is_whole.is_none() && !signals.have_stopped_us() {
            is_whole = tokio::select! {
                whole = drained => Some(whole),
                _ = signals.stopped() => None,
            };
        }
        if is_whole != Some(true) {
            self.terminal.warn(CUT);
        }
        is_verified
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

async fn at(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        sleep_until(deadline).await;
    }
}

fn stopped(signal: Signal, terminal: &Terminal) -> Exit {
    terminal.note("stopped before the command started");
    Exit::Code(child::signal_code(signal.as_raw()))
}

/// Why there is no identity inside of another `exec`.
fn nested(error: identity::Error, ambient: &Ambient) -> Error {
    if matches!(error, identity::Error::None { .. }) && ambient.text(TASK).is_some() {
        return Error::Nested;
    }
    error.into()
}

fn purpose(args: &ExecArgs) -> String {
    let purpose = args.purpose.clone().unwrap_or_else(|| {
        // The arguments may hold what the broker's readers should not see.
        let command = args.command.first().map(OsString::as_os_str).unwrap_or_default();
        let name = Path::new(command).file_name().unwrap_or(command);
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
    let denied_by = |text| Error::Denied { code: problem.code.clone(), text };
    match problem.code.as_str() {
        "role_denied" => {
            let more = denied(problem, roles).map(|role| format!("; {}", advice(role)));
            denied_by(denial(problem, roles) + &more.unwrap_or_default())
        }
        // No task may be opened, whatever role it is for.
        "denied" => match roles.first() {
            Some(role) => denied_by(format!("{error}; {}", advice(role))),
            None => error,
        },
        "token_bound" => denied_by(format!(
            "the identity token belongs to another key, as after another `dayfly exec` with it; \
             name one file for all of them by --proof-key-file, or give each one a token of its \
             own (request {id})"
        )),
        "invalid_dpop_proof" => denied_by(format!(
            "the broker does not accept the proof of our key; is the address the one that it has \
             as `public_url`? --no-proof goes without (request {id})"
        )),
        _ => error,
    }
}

/// The one of `roles` that was denied, if that is known.
fn denied<'a>(problem: &Problem, roles: &'a [String]) -> Option<&'a String> {
    let pointed = problem
        .errors
        .iter()
        .find_map(|fault| roles.get(fault.pointer.strip_prefix("/roles/")?.parse::<usize>().ok()?));
    match (pointed, roles) {
        (Some(role), _) | (None, [role]) => Some(role),
        (None, _) => None,
    }
}

fn denial(problem: &Problem, roles: &[String]) -> String {
    let subject = match denied(problem, roles) {
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

/// How to find out more about a denial.
fn advice(role: &str) -> String {
    format!("run `dayfly role check {role} --explain`")
}

/// Why the command was not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Child(#[from] child::Error),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Deliver(#[from] deliver::Error),
    #[error("{text}")]
    Denied {
        /// What the broker calls the reason.
        code: String,
        text: String,
    },
    #[error(transparent)]
    Environment(#[from] environment::Error),
    #[error(transparent)]
    Hold(#[from] agent_hold::Error),
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error(transparent)]
    Mask(#[from] mask::Error),
    #[error(
        "no identity found: this is inside of another `dayfly exec`, which withholds it; give this \
         one --token-file, or the other one --keep-ci-identity"
    )]
    Nested,
    #[error("cannot write to stdout")]
    Output(#[source] io::Error),
    #[error(transparent)]
    Place(#[from] place::Error),
    #[error("cannot leave a report at `{path}`; name another file by --report")]
    Report {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    #[error("cannot take up the command's output")]
    Streams(#[source] io::Error),
}

impl Error {
    fn report(path: &Path, source: io::Error) -> Self {
        Self::Report { path: path.display().to_string(), source }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Child(error) => error.exit_code(),
            Self::Client(_)
            | Self::Deliver(_)
            | Self::Denied { .. }
            | Self::Environment(_)
            | Self::Hold(_)
            | Self::Identity(_)
            | Self::Mask(_)
            | Self::Nested
            | Self::Output(_)
            | Self::Place(_)
            | Self::Report { .. }
            | Self::Signals(_)
            | Self::Streams(_) => FAILED,
        }
    }
}

#[cfg(test)]
mod tests;
