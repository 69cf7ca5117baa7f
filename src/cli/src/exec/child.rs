//! The command: where it is, how it starts, how signals reach it.
//!
//! Invariant: without a terminal the command leads a group of its own, gets signals with its
//! whole group, and is told to stop when we are killed.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::OnceLock,
};

use rustix::{
    fs::{Access, AtFlags, CWD, accessat},
    process::{
        Pid, Resource, Rlimit, Signal, getpgrp, getpid, getppid, getrlimit, kill_process,
        kill_process_group, setrlimit,
    },
};
use tokio::process::{Child, Command};

#[cfg(target_os = "linux")]
use {
    rustix::process::{WaitId, WaitIdOptions, waitid},
    std::ffi::CStr,
    tokio::signal::unix::{Signal as Stream, SignalKind, signal},
};

use crate::{
    ambient::Ambient,
    args::{ExecChildArgs, process::SignalTarget},
    exec::{FAILED, stop::Action},
    output::Terminal,
};

/// The command can't be executed.
const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
const NOT_FOUND: u8 = 127;
/// Where commands are when nothing says it.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";
/// How a process is called that is to become the command, until it does.
#[cfg(target_os = "linux")]
const IN_ITS_STEAD: &CStr = c"dayfly:starting";
/// Ourselves, even after the file was replaced by an upgrade.
const OURSELVES: &str = "/proc/self/exe";

/// The file that the command's first word means, as `execvp` would find it.
pub(super) fn resolve(command: &[OsString], ambient: &Ambient) -> Result<PathBuf, Error> {
    let word = command.first().map(OsString::as_os_str).unwrap_or_default();
    let name = || word.to_string_lossy().into_owned();
    if word.as_bytes().contains(&b'/') {
        let path = PathBuf::from(word);
        return match fs::metadata(&path) {
            Ok(_) if is_executable(&path) => Ok(path),
            Ok(_) => Err(Error::NotExecutable { name: name() }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Error::NotExecutable { name: name() })
            }
            Err(_) => Err(Error::NotFound { name: name() }),
        };
    }
    let mut found = None;
    if !word.is_empty() {
        let path = ambient.value("PATH").unwrap_or(OsStr::new(PATH_DEFAULT));
        for directory in std::env::split_paths(path) {
            // An empty entry is the working directory.
            let directory = if directory.as_os_str().is_empty() { ".".into() } else { directory };
            let candidate = directory.join(word);
            if is_executable(&candidate) {
                return Ok(candidate);
            }
            found = found.or_else(|| candidate.is_file().then_some(()));
        }
    }
    match found {
        Some(()) => Err(Error::NotExecutable { name: name() }),
        None => Err(Error::NotFound { name: name() }),
    }
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

/// The running command.
#[derive(Debug)]
pub(super) struct Spawned {
    child: Child,
    leads_group: bool,
    target: SignalTarget,
    /// Tells that somebody may have ended, before anybody has waited for him.
    #[cfg(target_os = "linux")]
    deaths: Option<Stream>,
    /// Whether it has ended as what we have started in its stead: it could not be executed.
    never_ran: bool,
}

/// Starts `program` with `variables` for its whole environment, and its stdout and stderr at
/// `streams`.
pub(super) fn spawn(
    program: &Path,
    command: &[OsString],
    variables: Vec<(OsString, OsString)>,
    streams: [Stdio; 2],
    target: SignalTarget,
) -> Result<Spawned, Error> {
    let leads_group = !has_terminal();
    let mut child = if leads_group && Path::new(OURSELVES).exists() {
        // A process can ask only for itself to be told of its parent's death, so a copy of this
        // program does it and then becomes the command. The kernel takes the end of the thread
        // that starts it for that death; it is our first one, which lives as long as we do.
        let mut child = Command::new(OURSELVES);
        child.arg0("dayfly").args([super::CHILD, "--"]);
        child.arg(getpid().as_raw_nonzero().to_string()).arg(program).args(command);
        child
    } else {
        let mut child = Command::new(program);
        if let Some((name, rest)) = command.split_first() {
            child.arg0(name).args(rest);
        }
        child
    };
    if leads_group {
        child.process_group(0);
    }
    let [out, err] = streams;
    child.stdout(out).stderr(err).env_clear().envs(variables);
    limit_cores(false);
    let child = child.spawn();
    limit_cores(true);
    let child = child.map_err(|source| Error::Spawn { name: name_of(command), source })?;
    Ok(Spawned {
        #[cfg(target_os = "linux")]
        deaths: signal(SignalKind::child()).ok(),
        child,
        leads_group,
        target,
        never_ran: false,
    })
}

/// Whether a process that has ended still has the name of what stands in for the command: a
/// program that is executed has its own.
#[cfg(target_os = "linux")]
fn is_in_its_stead(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| {
        let name = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
        name.is_some_and(|(name, _)| name.as_bytes() == IN_ITS_STEAD.to_bytes())
    })
}

/// Becomes `program` with `variables` for its whole environment; comes back only if that fails.
pub(super) fn become_program(
    program: &Path,
    command: &[OsString],
    variables: Vec<(OsString, OsString)>,
) -> Error {
    let mut process = std::process::Command::new(program);
    if let Some((name, rest)) = command.split_first() {
        process.arg0(name).args(rest);
    }
    limit_cores(false);
    let source = process.env_clear().envs(variables).exec();
    limit_cores(true);
    Error::Spawn { name: name_of(command), source }
}

fn name_of(command: &[OsString]) -> String {
    command.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Keeps other processes of this user from reading tokens and credentials out of our memory, and
/// core dumps from holding them. The command itself is not affected. Where this can't be had,
/// the rest still stands.
pub(super) fn hide_memory() {
    limit_cores(true);
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Sets the size of our core dumps to nothing, or to what it was at the start: the command has
/// that one.
fn limit_cores(to_nothing: bool) {
    static AT_START: OnceLock<Rlimit> = OnceLock::new();
    let at_start = *AT_START.get_or_init(|| getrlimit(Resource::Core));
    let current = if to_nothing { Some(0) } else { at_start.current };
    let _ = setrlimit(Resource::Core, Rlimit { current, ..at_start });
}

/// With a terminal the command stays in our group: job control, prompts and ^C work as without
/// us.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

impl Spawned {
    /// Waits for the command itself, not for what it left behind.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus, Error> {
        #[cfg(target_os = "linux")]
        if let (Some(pid), Some(deaths)) = (self.pid(), &mut self.deaths) {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(pid), options), Ok(None)) {
                deaths.recv().await;
            }
            self.never_ran = is_in_its_stead(pid);
        }
        self.child.wait().await.map_err(Error::Wait)
    }

    /// Whether it has ended without ever having been executed. Why was told.
    pub(super) fn never_ran(&self) -> bool {
        self.never_ran
    }

    /// For what takes up its pipes.
    pub(super) fn inner(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its id, until it was waited for.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }

    /// Does what follows from a signal.
    pub(super) fn act(&self, action: Action) {
        match action {
            Action::Forward(signal) => self.signal(signal),
            Action::Kill => self.signal(Signal::KILL),
            Action::Nothing => {}
        }
    }

    /// Sends `signal`. A command that is gone already needs none.
    pub(super) fn signal(&self, signal: Signal) {
        let Some(pid) = self.pid() else { return };
        // In a job with us, it got these from the shell or the terminal as we did.
        if !self.leads_group && [Signal::CONT, Signal::WINCH].contains(&signal) {
            return;
        }
        let _ = match self.target {
            SignalTarget::Auto | SignalTarget::Group if self.leads_group => {
                kill_process_group(pid, signal)
            }
            // A group that we are in ourselves must not be killed before the credentials are.
            SignalTarget::Group if signal != Signal::KILL => kill_process_group(getpgrp(), signal),
            SignalTarget::Auto | SignalTarget::Child | SignalTarget::Group => {
                kill_process(pid, signal)
            }
        };
    }
}

/// How the command ended, and how we are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(u8),
    Signal(i32),
}

impl Exit {
    /// Our own failure, where the command itself succeeded.
    pub(super) fn or_failed(self) -> Self {
        if self == Self::Code(0) { Self::Code(FAILED) } else { self }
    }

    pub(super) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(u8::try_from(code & 0xff).unwrap_or(FAILED)),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Code(FAILED),
        }
    }

    /// Ends us by the signal that ended the command, so that who started us sees what happened.
    /// Comes back with the exit code where there was no signal or it does not end us: the first
    /// process of a container can't die of its own ones.
    pub(crate) fn leave(self) -> u8 {
        let signal = match self {
            Self::Code(code) => return code,
            Self::Signal(signal) => signal,
        };
        if getpid() != Pid::INIT {
            limit_cores(true);
            // It fails for signals without a name, such as the real-time ones.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
        signal_code(signal)
    }
}

pub(super) fn signal_code(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// Replaces this process by the command; comes back only if that fails.
pub(crate) fn become_child(args: &ExecChildArgs, terminal: &Terminal) -> u8 {
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::thread::set_name(IN_ITS_STEAD);
        if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
            terminal.warn(&format!("the command will not notice if dayfly is killed: {error}"));
        }
    }
    // It may have died before we asked.
    if getppid().map(Pid::as_raw_nonzero).map(i32::from) != Some(args.parent) {
        return signal_code(Signal::TERM.as_raw());
    }
    let Some((name, rest)) = args.command.split_first() else { return FAILED };
    let source = std::process::Command::new(&args.program).arg0(name).args(rest).exec();
    let error = Error::Spawn { name: name.to_string_lossy().into_owned(), source };
    let code = error.exit_code();
    terminal.error(&crate::failure::Failure::Exec(error.into()).to_line());
    code
}

/// Why the command does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("`{name}` can't be executed; is it a program, and has it the mode of one (chmod +x)?")]
    NotExecutable { name: String },
    #[error("`{name}` was not found; is it installed, and PATH right?")]
    NotFound { name: String },
    #[error("cannot start `{name}`")]
    Spawn {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot wait for the command")]
    Wait(#[source] io::Error),
}

impl Error {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => NOT_FOUND,
            Self::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound => NOT_FOUND,
            Self::NotExecutable { .. } | Self::Spawn { .. } => NOT_EXECUTABLE,
            Self::Wait(_) => FAILED,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn place(directory: &Path, name: &str, mode: u32) {
        let path = directory.join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn code(word: &str, path: &str) -> Result<PathBuf, u8> {
        resolve(&[word.into()], &Ambient::from([("PATH", path)])).map_err(|e| e.exit_code())
    }

    #[test]
    fn the_first_executable_file_on_the_path_wins() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        place(one.path(), "tool", 0o644);
        place(two.path(), "tool", 0o755);
        fs::create_dir(one.path().join("folder")).unwrap();
        place(two.path(), "folder", 0o755);
        let path = format!("{}:{}", one.path().display(), two.path().display());
        assert_eq!(code("tool", &path), Ok(two.path().join("tool")));
        assert_eq!(code("folder", &path), Ok(two.path().join("folder")));
        let only = one.path().to_str().unwrap();
        assert_eq!(code("tool", only), Err(NOT_EXECUTABLE));
        assert_eq!(code("folder", only), Err(NOT_FOUND));
        assert_eq!(code("missing", &path), Err(NOT_FOUND));
        assert_eq!(code("", &path), Err(NOT_FOUND));
    }

    #[test]
    fn a_word_with_a_slash_is_a_path() {
        let home = tempfile::tempdir().unwrap();
        place(home.path(), "tool", 0o755);
        place(home.path(), "notes", 0o644);
        let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
        assert_eq!(code(&at("tool"), ""), Ok(home.path().join("tool")));
        assert_eq!(code(&at("notes"), ""), Err(NOT_EXECUTABLE));
        assert_eq!(code(&at(""), ""), Err(NOT_EXECUTABLE));
        assert_eq!(code(&at("missing"), ""), Err(NOT_FOUND));
    }

    #[test]
    fn without_a_path_the_usual_places_are_searched() {
        assert!(resolve(&["sh".into()], &Ambient::default()).is_ok());
    }

    #[test]
    fn an_exit_is_told_from_a_death() {
        assert_eq!(Exit::of(ExitStatus::from_raw(0)), Exit::Code(0));
        assert_eq!(Exit::of(ExitStatus::from_raw(255 << 8)), Exit::Code(255));
        assert_eq!(Exit::of(ExitStatus::from_raw(Signal::KILL.as_raw())), Exit::Signal(9));
        assert_eq!(Exit::Code(7).leave(), 7);
    }
}
