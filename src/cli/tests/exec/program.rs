//! Starts the program and looks at it from outside.

use std::{
    fs::Permissions,
    io::{BufRead as _, BufReader, Lines, Read as _},
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub(crate) const ID_TOKEN: &str = "jwt-secret";

/// A directory that this user alone can enter.
pub(crate) fn private_place() -> TempDir {
    let mode = Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().unwrap()
}

/// The program that was built for these tests, or the one that `integration/release` has made.
#[expect(clippy::disallowed_methods, reason = "a test may be told which program it looks at")]
pub(crate) fn program() -> String {
    let named = std::env::var("DAYFLY_TEST_PROGRAM");
    named.unwrap_or_else(|_| env!("CARGO_BIN_EXE_dayfly").to_owned())
}

/// `dayfly` with an environment of its own and the identity in it.
pub(crate) fn dayfly(url: &str, words: &[&str]) -> Command {
    with_environment(Command::new(program()), url, words)
}

/// The same without a controlling terminal, whatever the tests are started from.
pub(crate) fn detached(url: &str, words: &[&str]) -> Command {
    let mut command = Command::new("setsid");
    command.arg(program());
    with_environment(command, url, words)
}

fn with_environment(mut command: Command, url: &str, words: &[&str]) -> Command {
    command.args(words).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.env("DAYFLY_URL", url).env("DAYFLY_ID_TOKEN", ID_TOKEN);
    command.stdin(Stdio::null());
    command
}

/// What a finished program left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    /// What it died of, if it did.
    pub(crate) signal: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            signal: output.status.signal(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub(crate) fn run(mut command: Command) -> Finished {
    command.output().unwrap().into()
}

/// A program that runs while the test goes on.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line of stdout.
    pub(crate) fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end; `out` is what was not read before.
    pub(crate) fn finish(mut self) -> Finished {
        let out = self.lines.map(|line| line.unwrap() + "\n").collect();
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let status = self.child.wait().unwrap();
        Finished { code: status.code(), signal: status.signal(), out, err }
    }
}
