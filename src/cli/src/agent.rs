//! `dayfly agent`: keeps credentials alive for programs that ask for them.
//!
//! Invariant: it serves the roles that it was started with to this user's processes, and to systemd;
//! everything that it got ends with it, by the task's completion or, if it was killed, by its silence.

mod answer;
pub(crate) mod aws;
pub(crate) mod client;
mod clock;
pub(crate) mod hold;
pub(crate) mod http;
mod local;
mod peer;
pub(crate) mod place;
mod ready;
mod systemd;

use std::{
    cell::Cell,
    collections::BTreeMap,
    convert::Infallible,
    future::pending,
    path::{Path, PathBuf},
    time::Duration,
};

use dayfly_api::CreateTask;
use futures_util::future::join_all;

pub(crate) use crate::agent::clock::uptime;
use crate::{
    agent::{
        aws::Endpoint,
        clock::sleep_until,
        hold::Holder,
        http::accept_all,
        place::{Directory, Error as PlaceError, Owned, Socket},
    },
    args::{AgentArgs, Context, ServedCredential, process::EnvironmentArgs},
    exec::{
        Exit,
        attended::{Begun, Beside, Caught, Limits, Over},
    },
    failure::Failure,
    output::Terminal,
};

/// Where a command finds the agent that runs it.
const SOCKET: &str = "DAYFLY_AGENT_SOCKET";

/// Runs the agent; the result is its exit code. If a signal ended its command, so it does us.
pub(crate) async fn run(args: &AgentArgs, context: Context<'_>) -> Result<u8, Failure> {
    context.terminal.stand_apart();
    let result = attempt(args, context).await;
    context.terminal.finish();
    // What is to be cleaned up has gone with the attempt.
    result.map(Exit::leave)
}

async fn attempt(args: &AgentArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let beside = Beside::find(&args.command, context.ambient)?;
    let client = context.client()?;
    let places = Places::make(args, context).await?;
    let request = CreateTask {
        purpose: args.purpose.clone(),
        ttl_seconds: seconds(args.ttl),
        heartbeat_seconds: args.heartbeat.0.map(seconds),
        // The key that is proven binds it; a broker of an older version knows no such field.
        bind: None,
        roles: Vec::new(),
        on_behalf_of: args.on_behalf.token(context.ambient)?,
    };
    let limits = Limits {
        heartbeat: args.heartbeat.0,
        stop_timeout: args.stop_timeout,
        revoke_timeout: args.revoke_timeout,
    };
    let mut caught = Caught::install()?;
    let ends = uptime() + args.ttl;
    let identity = (&args.identity, args.no_proof);
    let session = match caught.begin(&client, identity, &request, context).await? {
        Begun::Open(session) => session,
        Begun::Stopped(stopped) => return Err(stopped.into()),
    };
    let minter = session.minter();
    let hold = |role: &String| Holder::new(minter, role, args.eager, args.overlap);
    let holders: Vec<Holder<'_>> = roles(args).iter().map(hold).collect();
    let served =
        Served { holders: &holders, terminal: context.terminal, last: Cell::new(uptime()) };
    if args.eager {
        let filled = tokio::select! {
            filled = served.fill() => filled.map(|()| None),
            stopped = caught.stopped() => Ok(Some(stopped)),
        };
        if !matches!(filled, Ok(None)) {
            session.give_up(&mut caught, limits).await;
        }
        if let Some(stopped) = filled? {
            return Err(stopped.into());
        }
    }
    context.terminal.note(&format!(
        "task {}: listening on `{}`",
        session.task_id(),
        places.path.display()
    ));
    if beside.is_none() {
        ready::tell(context.ambient);
    }
    let beside = beside.map(|beside| (beside, places.variables(&served)));
    let work = async {
        tokio::select! {
            never = places.serve(&args.credentials, &served) => match never {},
            never = served.keep() => match never {},
            over = served.over(args.idle, ends) => over,
        }
    };
    let environment = EnvironmentArgs::default();
    let inherited = context.inheritance(&args.identity, &environment);
    Ok(session.attend(&mut caught, beside, limits, work, inherited).await?)
}

/// All that is served, each once.
fn roles(args: &AgentArgs) -> Vec<String> {
    let systemd = args.credentials.iter().map(|credential| &credential.role);
    let mut roles = Vec::new();
    for role in args.roles.iter().chain(&args.aws_endpoint).chain(systemd) {
        if !roles.contains(role) {
            roles.push(role.clone());
        }
    }
    roles
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// What can be asked for.
#[derive(Debug)]
struct Served<'a> {
    holders: &'a [Holder<'a>],
    terminal: &'a Terminal,
    /// When somebody asked last.
    last: Cell<Duration>,
}

impl<'a> Served<'a> {
    fn role(&self, name: &str) -> Option<&'a Holder<'a>> {
        self.holders.iter().find(|holder| holder.role() == name)
    }

    fn asked(&self) {
        self.last.set(uptime());
    }

    fn turned_away(&self, why: &str) {
        self.terminal.warn(why);
    }

    /// Gets all credentials; the first that can't be had is the end of it.
    async fn fill(&self) -> Result<(), Failure> {
        for holder in self.holders {
            holder.fill().await?;
        }
        Ok(())
    }

    async fn keep(&self) -> Infallible {
        join_all(self.holders.iter().map(Holder::keep)).await;
        // Without holders there is nothing to keep.
        pending().await
    }

    /// When there is no more to do.
    async fn over(&self, idle: Option<Duration>, ends: Duration) -> Over {
        loop {
            let quiet = idle.map(|idle| self.last.get() + idle);
            let next = quiet.map_or(ends, |quiet| quiet.min(ends));
            sleep_until(next).await;
            let now = uptime();
            if now >= ends {
                self.terminal.warn("the task has reached its deadline; its credentials end");
                return Over::TaskEnded;
            }
            if idle.is_some_and(|idle| now >= self.last.get() + idle) {
                return Over::Idle;
            }
        }
    }
}

/// Where it listens. What is in its directories goes with it.
#[derive(Debug)]
struct Places {
    path: PathBuf,
    socket: Socket,
    systemd: Option<Socket>,
    endpoint: Option<(String, Endpoint)>,
    _environment: Option<Owned>,
    /// The last, since it must be empty when it goes.
    _directory: Option<Directory>,
}

impl Places {
    /// Everything is there before the task is opened: who comes early waits.
    async fn make(args: &AgentArgs, context: Context<'_>) -> Result<Self, PlaceError> {
        let (path, directory) = match &args.listen {
            Some(path) => (path.clone(), None),
            None if args.command.is_empty() => {
                (place::usual(context.ambient).ok_or(PlaceError::Nowhere)?, None)
            }
            None => {
                let (path, directory) = place::private(context.ambient)?;
                (path, Some(directory))
            }
        };
        let socket = Socket::listen(&path)?;
        let systemd = args.systemd.as_deref().map(Socket::listen).transpose()?;
        let endpoint = match &args.aws_endpoint {
            Some(role) => Some((role.clone(), Endpoint::bind(role).await?)),
            None => None,
        };
        // A command finds it in its environment.
        let alone = endpoint.as_ref().filter(|_| args.command.is_empty());
        let environment = alone.map(|(_, endpoint)| {
            let mut text = String::new();
            for (name, value) in endpoint.variables() {
                text.extend([name.as_str(), "=", &value, "\n"]);
            }
            place::leave(&path.parent().unwrap_or(Path::new(".")).join("aws.env"), &text)
        });
        Ok(Self {
            path,
            socket,
            systemd,
            endpoint,
            _environment: environment.transpose()?,
            _directory: directory,
        })
    }

    /// What a command gets besides what we have ourselves.
    fn variables(&self, served: &Served<'_>) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        if let Some((role, endpoint)) = &self.endpoint {
            variables.extend(endpoint.variables());
            let held = served.role(role).and_then(Holder::held);
            variables.extend(held.map(|handed| aws::region(&handed)).unwrap_or_default());
        }
        variables.insert(SOCKET.to_owned(), self.path.display().to_string());
        variables
    }

    async fn serve(&self, credentials: &[ServedCredential], served: &Served<'_>) -> Infallible {
        let local = accept_all(
            || self.socket.listener.accept(),
            |(stream, _)| local::answer(stream, served),
        );
        let systemd = async {
            match &self.systemd {
                Some(socket) => {
                    accept_all(
                        || socket.listener.accept(),
                        |(stream, _)| systemd::answer(stream, credentials, served),
                    )
                    .await
                }
                None => pending().await,
            }
        };
        let aws = async {
            let endpoint = self.endpoint.as_ref();
            match endpoint.and_then(|(role, endpoint)| Some((served.role(role)?, endpoint))) {
                Some((holder, endpoint)) => endpoint.serve(holder, || served.asked()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            never = local => never,
            never = systemd => never,
            never = aws => never,
        }
    }
}
