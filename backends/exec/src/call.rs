//! One call: a process, what it is told, and what it says before it ends.
//!
//! Invariant: no call is longer than its deadline or says more than its bound, and when it is
//! over, so is every process of its group.

use std::{
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use dayfly_backend_sdk::Secret;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::{OnceCell, Semaphore},
    time::{Instant, sleep_until},
};

use crate::{
    config::ExecConfig,
    error::{Failure, tidy},
    program::Pinned,
    protocol::{self, Call},
};

/// How long what a program has written is waited for after it ended. One that left a process
/// behind, with its output open, would keep us waiting for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// More than one credential of a list takes: a name of 63, a time, and what stands around them.
const LISTED_BYTES: u32 = 192;
/// How much of its standard error is kept.
const COMPLAINTS_MAX: usize = 4_096;
/// How many run for what must die, besides those that the configuration gives: it never waits
/// behind what is minted (I10).
const DEATHS: usize = 4;
/// A program that makes processes as fast as we end them is ended so often.
const KILLS: u32 = 16;

/// Runs the program.
pub(crate) struct Runner {
    config: ExecConfig,
    pinned: OnceCell<Arc<Pinned>>,
    running: Semaphore,
    ending: Semaphore,
}

impl Runner {
    pub(crate) fn new(config: ExecConfig) -> Self {
        let running = usize::try_from(config.concurrency_max).unwrap_or(usize::MAX);
        Self {
            config,
            pinned: OnceCell::new(),
            running: Semaphore::new(running),
            ending: Semaphore::new(DEATHS),
        }
    }

    /// What the program is given to sign in with.
    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.config.password.as_ref()
    }

    /// How many credentials of a list it can say within its bound.
    pub(crate) fn page_max(&self) -> u32 {
        (self.config.output_bytes_max / LISTED_BYTES).max(1)
    }

    /// Asks one thing. `id` is the call's own number.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        id: &str,
        call: &Call<'_>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + Duration::from_millis(u64::from(self.config.timeout_ms));
        let busy = || std::io::Error::other("as many of it as may run are running");
        let dies = matches!(call, Call::Revoke { .. } | Call::Verify { .. });
        let places = if dies { &self.ending } else { &self.running };
        let permit = tokio::time::timeout_at(deadline, places.acquire()).await;
        let _permit = permit
            .map_err(|_| Failure::NotStarted(busy()))?
            .map_err(|_| Failure::NotStarted(busy()))?;
        let late = |_| Failure::NotStarted(std::io::Error::other("it could not be read in time"));
        let pinned = tokio::time::timeout_at(deadline, self.pinned()).await.map_err(late)??;
        let secret = self.secret();
        let mut process = Process::start(&self.config, &pinned)?;
        let request = protocol::request(id, secret, call);
        let bound = usize::try_from(self.config.output_bytes_max).unwrap_or(usize::MAX);
        let over = process.converse(&request, bound, deadline).await;
        drop(process);
        let said = over.and_then(Said::output);
        // What goes to the standard error at a mint may hold the new secret.
        let quotes = !matches!(call, Call::Mint { .. } | Call::Use { .. });
        match said {
            Ok(output) => protocol::response(id, &output, secret, quotes),
            Err(Silent { what, complaints }) if quotes && !complaints.is_empty() => {
                let complaints = tidy(&String::from_utf8_lossy(&complaints), secret);
                Err(Failure::Unclear(format!("{what}; its standard error: {complaints}")))
            }
            Err(Silent { what, .. }) => Err(Failure::Unclear(what)),
        }
    }

    async fn pinned(&self) -> Result<Arc<Pinned>, Failure> {
        let read = async || {
            let (path, sha256) = (self.config.command.clone(), self.config.sha256.clone());
            let read = tokio::task::spawn_blocking(move || Pinned::read(&path, &sha256)).await;
            let stopped = |_| Failure::NotStarted(std::io::Error::other("it was not read"));
            read.map_err(stopped)?.map(Arc::new)
        };
        self.pinned.get_or_try_init(read).await.map(Arc::clone)
    }
}

struct Process {
    child: Child,
    /// Ended when this is dropped.
    _group: Group,
    input: Option<ChildStdin>,
    output: ChildStdout,
    complaints: ChildStderr,
}

/// What it said, and how it ended.
struct Said {
    output: Vec<u8>,
    complaints: Vec<u8>,
    status: ExitStatus,
}

/// It said nothing that counts.
struct Silent {
    what: String,
    complaints: Vec<u8>,
}

impl Said {
    /// What it said, if it ended as one ends that has said all.
    fn output(self) -> Result<Vec<u8>, Silent> {
        let silent = |what| Silent { what, complaints: Vec::new() };
        if !self.status.success() {
            let what = format!("the program ended with {}", self.status);
            return Err(Silent { what, complaints: self.complaints });
        }
        if self.output.is_empty() {
            let what = "the program said nothing".to_owned();
            return Err(Silent { complaints: self.complaints, ..silent(what) });
        }
        Ok(self.output)
    }
}

impl Process {
    fn start(config: &ExecConfig, pinned: &Pinned) -> Result<Self, Failure> {
        let mut command = Command::new(pinned.path());
        command.arg0(&config.command);
        command.args(&config.args).env_clear().current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().map_err(Failure::NotStarted)?;
        let lost = || Failure::NotStarted(std::io::Error::other("it has no standard streams"));
        let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or_else(lost)?;
        let complaints = child.stderr.take().ok_or_else(lost)?;
        Ok(Self { child, _group: group, input, output, complaints })
    }

    /// Writes, reads and waits at the same time: one that answers before it has read all, or
    /// writes to its standard error first, stops nobody.
    async fn converse(
        &mut self,
        mut request: &[u8],
        bound: usize,
        deadline: Instant,
    ) -> Result<Said, Silent> {
        let (mut output, mut complaints) = (Vec::new(), Vec::new());
        let (mut chunk, mut noise) = (vec![0; 16_384], vec![0; 4_096]);
        let (mut heard, mut quiet) = (false, false);
        let mut status = None;
        let mut until = deadline;
        loop {
            if let (Some(status), true) = (status, heard) {
                return Ok(Said { output, complaints, status });
            }
            tokio::select! {
                biased;
                () = sleep_until(until) => {
                    let what = "the program did not end in time".to_owned();
                    let Some(status) = status else { return Err(Silent { what, complaints }) };
                    return Ok(Said { output, complaints, status });
                }
                read = self.output.read(&mut chunk), if !heard => {
                    let count = read.unwrap_or(0);
                    heard = count == 0;
                    output.extend(chunk.iter().take(count));
                    if output.len() > bound {
                        let what = format!("the program said more than {bound} bytes");
                        return Err(Silent { what, complaints });
                    }
                }
                read = self.complaints.read(&mut noise), if !quiet => {
                    let count = read.unwrap_or(0);
                    quiet = count == 0;
                    let room = COMPLAINTS_MAX.saturating_sub(complaints.len());
                    complaints.extend(noise.iter().take(count.min(room)));
                }
                ended = self.child.wait(), if status.is_none() => {
                    let ended = ended.map_err(|error| Silent {
                        what: format!("how the program ended is not known: {error}"),
                        complaints: Vec::new(),
                    })?;
                    status = Some(ended);
                    until = deadline.min(Instant::now() + LAST_WORDS);
                }
                wrote = write(self.input.as_mut(), request), if self.input.is_some() => {
                    request = request.get(wrote.unwrap_or(request.len())..).unwrap_or_default();
                    // It closed its input, or has all of it.
                    if request.is_empty() {
                        self.input = None;
                    }
                }
            }
        }
    }
}

async fn write(input: Option<&mut ChildStdin>, bytes: &[u8]) -> std::io::Result<usize> {
    match input {
        Some(input) => input.write(bytes).await,
        None => Ok(0),
    }
}

/// The processes of a call. Dropped after it, also when nobody waits for it any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        let Some(group) = self.0 else { return };
        for _ in 0..KILLS {
            if kill_process_group(group, Signal::KILL).is_err() {
                return;
            }
        }
    }
}
