//! Keeping secrets out of what the command prints, where a log may be kept.
//!
//! Invariant: this is a second line of defence and never the first: a value can be encoded, split
//! or cut so that nothing recognises it. A terminal is never taken away from the command.

mod filter;
mod needles;
mod platform;
mod pump;
mod reader;

use std::{
    cell::RefCell,
    ffi::OsString,
    fs::File,
    io::{self, IsTerminal as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use dayfly_api::Lease;
use futures_util::future::join_all;
use tokio::{process::Child, time::timeout};

use crate::{
    ambient::Ambient,
    args::process::Mask,
    ci::Ci,
    mask::{
        needles::Matcher,
        pump::{Pump, Shared},
    },
    output::Terminal,
};

/// What the end of the command's output may take after the command's own end: a process that it
/// left behind may hold the pipe for as long as it likes.
const DRAIN: Duration = Duration::from_secs(1);
/// How long nobody may read what is still to go out, before it is given up.
const STILL_MAX: Duration = Duration::from_mins(1);
/// The same once somebody wants us to stop.
const STILL_HURRIED: Duration = Duration::from_secs(2);
/// Shorter values occur by themselves in any output.
const SECRET_BYTES_MIN: usize = 8;

/// Fields that identify and don't authenticate. What is not known is taken for a secret.
const HARMLESS: &[&str] = &[
    "access_key_id",
    "account",
    "account_id",
    "client_id",
    "database",
    "db",
    "expiration",
    "expires_at",
    "host",
    "hostname",
    "id",
    "name",
    "port",
    "region",
    "role",
    "scope",
    "token_type",
    "user",
    "username",
    "vhost",
];

/// One value to be hidden.
struct Secret<'a> {
    /// `ROLE/FIELD`.
    label: String,
    value: &'a str,
}

/// What a stream of ours leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sink {
    /// To the CI platform that we run on, which reads it.
    Platform,
    Other,
    Terminal,
}

/// How secrets are hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Buildkite's agent is told, and hides them.
    Agent,
    /// The output goes through a filter of ours.
    Filter { out: bool, err: bool },
    /// Nothing is hidden.
    Off,
    /// The platform is told by commands in our stderr, and hides them.
    Platform(Ci),
}

/// Secrets, and how they are hidden.
pub(crate) struct Masking<'a> {
    way: RefCell<Way>,
    ambient: &'a Ambient,
    terminal: &'a Terminal,
    /// The program that hides for Buildkite.
    agent: Option<PathBuf>,
    /// What is known of each: its label and its value.
    known: RefCell<Vec<(String, String)>>,
    shared: Arc<Shared>,
}

impl<'a> Masking<'a> {
    /// Decides how; before anything is minted, since it may be that it can't be done.
    /// `agent` is Buildkite's program, if it is there. Who becomes the command `is_gone` by the
    /// time that it prints.
    pub(crate) fn new(
        wish: Mask,
        is_gone: bool,
        agent: Option<PathBuf>,
        ambient: &'a Ambient,
        terminal: &'a Terminal,
    ) -> Result<Self, Error> {
        let ci = Ci::of(ambient);
        let (out, err) = (io::stdout(), io::stderr());
        let mut way =
            decide(wish, ci, agent.is_some(), sink(out.as_fd(), None), sink(err.as_fd(), ci))?;
        if is_gone && matches!(way, Way::Filter { .. }) {
            if wish == Mask::Always {
                return Err(Error::Replaced);
            }
            terminal.warn("nothing masks the command's output: with --replace there is no filter");
            way = Way::Off;
        }
        Ok(Self {
            way: RefCell::new(way),
            ambient,
            terminal,
            agent,
            known: RefCell::default(),
            shared: Arc::new(Shared::new()),
        })
    }

    /// Hides the secrets of `leases` from now on. What was printed before is not touched.
    pub(crate) async fn learn(&self, leases: &[Lease]) {
        let way = *self.way.borrow();
        if way == Way::Off {
            return;
        }
        let secrets = self.news(leases);
        match way {
            Way::Off => return,
            Way::Filter { .. } => {}
            Way::Platform(ci) => {
                self.terminal.command(&platform::commands(ci, &secrets)).await;
            }
            Way::Agent => self.tell_agent(&secrets).await,
        }
        let mut known = self.known.borrow_mut();
        known.extend(secrets.into_iter().map(|secret| (secret.label, secret.value.to_owned())));
        if let Way::Filter { .. } = *self.way.borrow() {
            let pairs = known.iter().map(|(label, value)| (label.as_str(), value.as_str()));
            self.shared.set(Matcher::new(pairs));
        }
    }

    /// The secrets that are not known yet. One that is too short to be hidden is told of.
    fn news<'l>(&self, leases: &'l [Lease]) -> Vec<Secret<'l>> {
        let known = self.known.borrow();
        let (short, news): (Vec<_>, Vec<_>) = secrets(leases)
            .filter(|secret| !known.iter().any(|(_, value)| value == secret.value))
            .partition(|secret| secret.value.len() < SECRET_BYTES_MIN);
        for secret in short {
            self.terminal.warn(&format!("{} is too short to be masked", secret.label));
        }
        news
    }

    /// A filter can do what an agent that does not answer can't.
    async fn tell_agent(&self, secrets: &[Secret<'_>]) {
        let Some(agent) = &self.agent else { return };
        for secret in secrets {
            if let Err(error) = platform::redact(agent, self.ambient, secret.value).await {
                let label = &secret.label;
                self.terminal.warn(&format!("buildkite-agent does not mask {label}: {error}"));
                let (out, err) = (io::stdout(), io::stderr());
                *self.way.borrow_mut() = filtered(sink(out.as_fd(), None), sink(err.as_fd(), None));
                return;
            }
        }
    }

    /// Where the command's stdout and stderr are to go.
    pub(crate) fn streams(&self) -> [Stdio; 2] {
        let stream = |is_filtered| if is_filtered { Stdio::piped() } else { Stdio::inherit() };
        match *self.way.borrow() {
            Way::Filter { out, err } => [stream(out), stream(err)],
            Way::Agent | Way::Off | Way::Platform(_) => [stream(false), stream(false)],
        }
    }

    /// The same for a program beside the command, all of whose output goes to our stderr.
    pub(crate) fn streams_to_stderr(&self) -> [Stdio; 2] {
        match *self.way.borrow() {
            Way::Filter { err: true, .. } => [Stdio::piped(), Stdio::piped()],
            Way::Agent | Way::Filter { .. } | Way::Off | Way::Platform(_) => {
                [io::stderr().into(), Stdio::inherit()]
            }
        }
    }

    /// Takes up the pipes of a child that was started with [`Self::streams`].
    pub(crate) fn attach(&self, child: &mut Child) -> io::Result<Drains> {
        self.attach_to(io::stdout().as_fd(), child)
    }

    /// The same of one that was started with [`Self::streams_to_stderr`].
    pub(crate) fn attach_to_stderr(&self, child: &mut Child) -> io::Result<Drains> {
        self.attach_to(io::stderr().as_fd(), child)
    }

    fn attach_to(&self, stdout: BorrowedFd<'_>, child: &mut Child) -> io::Result<Drains> {
        let mut drains = Drains(Vec::new());
        if let Some(out) = child.stdout.take() {
            drains.0.push(self.pump(out.into_owned_fd()?, stdout)?);
        }
        if let Some(err) = child.stderr.take() {
            drains.0.push(self.pump(err.into_owned_fd()?, io::stderr().as_fd())?);
        }
        Ok(drains)
    }

    fn pump(&self, from: OwnedFd, to: BorrowedFd<'_>) -> io::Result<Pump> {
        let to = File::from(to.try_clone_to_owned()?);
        pump::start(File::from(from), to, Arc::clone(&self.shared))
    }
}

impl std::fmt::Debug for Masking<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Masking").field("way", &self.way).finish_non_exhaustive()
    }
}

/// Output that is still on its way.
#[derive(Debug, Default)]
pub(crate) struct Drains(Vec<Pump>);

impl Drains {
    /// Those of another process, as well.
    pub(crate) fn append(&mut self, mut more: Self) {
        self.0.append(&mut more.0);
    }

    /// Waits until all of it has gone out, as long as somebody reads it; whether it has. One who
    /// `is_hurried` does not wait for long.
    pub(crate) async fn finish(mut self, is_hurried: bool) -> bool {
        let still_max = if is_hurried { STILL_HURRIED } else { STILL_MAX };
        let progress: Vec<_> = self.0.iter().map(|pump| Arc::clone(&pump.progress)).collect();
        let written = || progress.iter().map(|one| one.written()).sum::<u64>();
        let mut all = join_all(self.0.iter_mut().map(|pump| &mut pump.finished));
        let (mut before, mut still) = (written(), Duration::ZERO);
        loop {
            if timeout(DRAIN, &mut all).await.is_ok() {
                return true;
            }
            let now = written();
            let is_writing = progress.iter().any(|one| one.is_writing());
            still = if now == before { still + DRAIN } else { Duration::ZERO };
            match (is_writing, now == before) {
                // There is nothing more to read: something else holds the pipe.
                (false, true) => return true,
                (true, true) if still >= still_max => return false,
                _ => before = now,
            }
        }
    }
}

fn decide(wish: Mask, ci: Option<Ci>, has_agent: bool, out: Sink, err: Sink) -> Result<Way, Error> {
    let always = || match (out, err) {
        (Sink::Terminal, _) | (_, Sink::Terminal) => Err(Error::Terminal),
        (Sink::Platform | Sink::Other, Sink::Platform | Sink::Other) => {
            Ok(Way::Filter { out: true, err: true })
        }
    };
    match (wish, ci) {
        (Mask::Never, _) | (Mask::Auto, None) => Ok(Way::Off),
        (Mask::Always, _) => always(),
        // What is not read by the platform must not be told the secrets.
        (Mask::Auto, Some(ci)) if err == Sink::Platform => Ok(Way::Platform(ci)),
        (Mask::Auto, Some(Ci::Buildkite)) if has_agent => Ok(Way::Agent),
        (Mask::Auto, Some(_)) => Ok(filtered(out, err)),
    }
}

/// A filter on what no terminal is.
fn filtered(out: Sink, err: Sink) -> Way {
    match (out != Sink::Terminal, err != Sink::Terminal) {
        (false, false) => Way::Off,
        (out, err) => Way::Filter { out, err },
    }
}

/// Where `stream` leads to. Some platforms read commands from it, `ci` perhaps.
fn sink(stream: BorrowedFd<'_>, ci: Option<Ci>) -> Sink {
    if stream.is_terminal() {
        return Sink::Terminal;
    }
    match ci.and_then(Ci::runner) {
        Some(runner) if reader::is(runner, stream) => Sink::Platform,
        Some(_) | None => Sink::Other,
    }
}

fn secrets(leases: &[Lease]) -> impl Iterator<Item = Secret<'_>> {
    leases.iter().flat_map(|lease| {
        let fields = lease.credential.iter().flat_map(|credential| &credential.fields);
        let fields = fields.filter(|(name, value)| !is_harmless(name) && !value.is_empty());
        fields.map(move |(name, value)| Secret { label: format!("{}/{name}", lease.role), value })
    })
}

fn is_harmless(field: &str) -> bool {
    HARMLESS.iter().any(|name| field.eq_ignore_ascii_case(name))
}

/// Where Buildkite's program may be found.
pub(crate) fn agent_command() -> [OsString; 1] {
    ["buildkite-agent".into()]
}

/// Why nothing can be masked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "--mask always can't filter the output of a process that we become; leave out --replace"
    )]
    Replaced,
    #[error(
        "--mask always would take the terminal away from the command; leave it out, or send the \
         output through `| cat`"
    )]
    Terminal,
}

#[cfg(test)]
mod tests;
