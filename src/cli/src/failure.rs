//! What makes a command fail, and the exit code that says so.
//!
//! Invariant: every failure is told in one line; the code depends on what the reader can do
//! about it, not on where it happened.

use std::{error::Error as _, io};

use dayfly_api::Problem;

use crate::{
    agent, client, config, credential, exec,
    exec::{attended::Stopped, environment},
    identity, login,
};

/// Success.
pub(crate) const OK: u8 = 0;
/// A failure that has no code of its own.
pub(crate) const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
pub(crate) const USAGE: u8 = 2;
/// There is no such thing, or it is not the caller's to see.
pub(crate) const NOT_FOUND: u8 = 3;
/// Policy said no.
pub(crate) const DENIED: u8 = 4;
/// The broker does not accept the caller's token, or there is none.
pub(crate) const UNAUTHENTICATED: u8 = 5;
/// The same call may succeed later.
pub(crate) const UNAVAILABLE: u8 = 6;
/// The thing is in a state that does not allow this.
pub(crate) const CONFLICT: u8 = 7;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Agent(#[from] agent::client::Error),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Credential(#[from] credential::Fault),
    #[error(
        "cannot leave the credentials in `{path}`; name a directory that can be made and is \
         not there yet"
    )]
    Directory {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Environment(#[from] environment::Error),
    #[error(transparent)]
    Exec(#[from] exec::Error),
    #[error(transparent)]
    Hold(#[from] agent::hold::Error),
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error("cannot read from stdin, where the program that asks says for what")]
    Input(#[source] io::Error),
    #[error("cannot write the result as JSON")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Login(#[from] login::Error),
    #[error("cannot write to stdout")]
    Output(#[from] io::Error),
    #[error(
        "cannot write the manual's pages into `{path}`; name a directory of yours by --directory"
    )]
    Pages {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Place(#[from] agent::place::Error),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl Failure {
    /// The failure and its root cause. What lies between them repeats one or the other.
    pub(crate) fn to_line(&self) -> String {
        let mut root = self.source();
        while let Some(next) = root.and_then(|error| error.source()) {
            root = Some(next);
        }
        match root {
            Some(root) => format!("{self}: {root}"),
            None => self.to_string(),
        }
    }

    /// What the broker calls the reason, for scripts; none where it was not the broker's.
    pub(crate) fn code(&self) -> Option<&str> {
        if let Self::Exec(exec::Error::Denied { code, .. }) = self {
            return legal_code(code);
        }
        let error = if let Self::Client(error)
        | Self::Identity(identity::Error::Client(error))
        | Self::Exec(
            exec::Error::Client(error) | exec::Error::Identity(identity::Error::Client(error)),
        ) = self
        {
            error
        } else if let Self::Hold(agent::hold::Error::Client(error))
        | Self::Exec(exec::Error::Hold(agent::hold::Error::Client(error))) = self
        {
            &**error
        } else {
            return None;
        };
        let client::Error::Refused { problem, .. } = error else { return None };
        legal_code(&problem.code)
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Agent(error) => error.exit_code(),
            Self::Client(error) => client_code(error),
            Self::Config(_) | Self::Credential(_) | Self::Environment(_) | Self::Place(_) => USAGE,
            Self::Exec(error) => error.exit_code(),
            Self::Hold(agent::hold::Error::Client(error)) => client_code(error),
            Self::Identity(error) => identity_code(error),
            Self::Login(error) => error.exit_code(),
            Self::Output(_) if self.is_closed_pipe() => OK,
            Self::Stopped(stopped) => stopped.exit_code(),
            Self::Directory { .. }
            | Self::Hold(agent::hold::Error::Unreadable { .. })
            | Self::Input(_)
            | Self::Json(_)
            | Self::Output(_)
            | Self::Pages { .. } => FAILED,
        }
    }

    /// Whether we were told to stop.
    pub(crate) fn is_stop(&self) -> bool {
        matches!(self, Self::Stopped(_))
    }

    /// Whether the reader of our output, `head` say, has simply had enough.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// A code of the form that codes have.
fn legal_code(code: &str) -> Option<&str> {
    const BYTES_MAX: usize = 64;
    let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    let is_legal = !code.is_empty() && code.len() <= BYTES_MAX && code.bytes().all(legal);
    is_legal.then_some(code)
}

fn client_code(error: &client::Error) -> u8 {
    match error {
        client::Error::CaFile { .. } | client::Error::Url { .. } => USAGE,
        client::Error::Refused { problem, .. } => problem_code(problem),
        client::Error::Unreachable { .. } | client::Error::TimedOut { .. } => UNAVAILABLE,
        client::Error::Foreign { status, .. } if *status >= 500 => UNAVAILABLE,
        client::Error::Body { .. }
        | client::Error::Foreign { .. }
        | client::Error::NoKey(_)
        | client::Error::Redirect { .. }
        | client::Error::Setup(_) => FAILED,
    }
}

fn identity_code(error: &identity::Error) -> u8 {
    match error {
        identity::Error::Client(error) => client_code(error),
        identity::Error::Login(error) => error.exit_code(),
        identity::Error::Aws(_) | identity::Error::GitHub(_) | identity::Error::None { .. } => {
            UNAUTHENTICATED
        }
        identity::Error::File { .. }
        | identity::Error::KeyFile(_)
        | identity::Error::Malformed { .. } => USAGE,
    }
}

fn problem_code(problem: &Problem) -> u8 {
    match problem.status {
        401 => UNAUTHENTICATED,
        403 => DENIED,
        404 | 410 => NOT_FOUND,
        409 | 412 | 428 => CONFLICT,
        400 | 413 | 415 | 422 => USAGE,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ if problem.retryable => UNAVAILABLE,
        _ => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16) -> Failure {
        Failure::Client(client::Error::refused(Problem {
            kind: String::new(),
            title: String::new(),
            status,
            code: "x".to_owned(),
            detail: "no".to_owned(),
            request_id: "req_1".to_owned(),
            retryable: false,
            denied_by: None,
            errors: Vec::new(),
        }))
    }

    #[test]
    fn each_refusal_has_its_code() {
        let codes = [401, 403, 404, 409, 422, 429, 500, 503].map(|s| refused(s).exit_code());
        assert_eq!(codes, [5, 4, 3, 7, 2, 6, 1, 6]);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let closed = Failure::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((closed.exit_code(), closed.is_closed_pipe()), (OK, true));
        let full = Failure::Output(io::ErrorKind::StorageFull.into());
        assert_eq!((full.exit_code(), full.is_closed_pipe()), (FAILED, false));
    }
}
