//! The arguments of `dayfly agent`.
//!
//! Invariant: what a client of the agent can get is named here, and nothing else is served.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgAction, Args};

use crate::args::{
    IdentityArgs, OnBehalfArgs,
    values::{Heartbeat, ServedCredential, duration, heartbeat, role_name, ttl},
};

const ABOUT: &str = "\
Keeps credentials alive for programs that ask for them: opens one task, has one credential for each \
role, renews it, gets another before it can't be renewed any more, and completes the task when it \
ends itself.

Programs ask by `dayfly credential`, which finds the agent by its socket; systemd by `LoadCredential=` \
(--systemd); AWS's SDKs by the container endpoint (--aws-endpoint). Only this user's processes are \
answered, and on the socket for systemd root's as well.

With a command, it runs that command, tells it by DAYFLY_AGENT_SOCKET where to ask, and ends with it. \
Without one it runs until TERM or INT, until --idle, or until the task's deadline.";

const HELP: &str = "\
For systemd, in the unit that wants the credential:

  LoadCredential=db-password:/run/dayfly/systemd.sock

and for the agent:

  dayfly agent --listen /run/dayfly/agent.sock \\
    --systemd /run/dayfly/systemd.sock --credential db-password=pg-app/password

For AWS's SDKs, `aws.env` beside the socket has the two variables that they need; a command finds them \
in its environment.

A credential that was replaced is left alone until the end that was told with it, since its user was \
promised so much; one that was given to systemd, which is told no end, is revoked after --overlap.

Exit codes: the command's own, as with `exec`; without one 0 when it was stopped or idle, 6 when the \
task has ended before (start it again), and those of the other commands when it could not begin.";

/// What the agent serves, to whom, and for how long.
#[derive(Debug, Args)]
#[command(long_about = ABOUT, after_help = HELP)]
pub(crate) struct AgentArgs {
    /// A role that `dayfly credential` may ask for
    #[arg(long = "role", value_name = "ROLE", value_parser = role_name, action = ArgAction::Append,
        required_unless_present_any = ["aws_endpoint", "credentials"])]
    pub(crate) roles: Vec<String>,

    #[arg(
        long,
        value_name = "PATH",
        help = "The socket to listen on, in a directory of this user's alone [default: \
                $XDG_RUNTIME_DIR/dayfly/agent.sock; for a command, one of its own]"
    )]
    pub(crate) listen: Option<PathBuf>,

    /// Serve AWS credentials of this role as a container's endpoint, on a loopback port
    #[arg(long, value_name = "ROLE", value_parser = role_name)]
    pub(crate) aws_endpoint: Option<String>,

    /// Another socket, for `LoadCredential=` of systemd
    #[arg(long, value_name = "PATH", requires = "credentials")]
    pub(crate) systemd: Option<PathBuf>,

    /// What systemd gets by this name: a field of a role's credential, or all of it as a file of
    /// `pgpass` or `mysql`
    #[arg(long = "credential", value_name = "NAME=ROLE/FIELD|ROLE:FORMAT", requires = "systemd",
        action = ArgAction::Append)]
    pub(crate) credentials: Vec<ServedCredential>,

    /// Get all credentials at the start, and always have one; otherwise each at its first use
    #[arg(long)]
    pub(crate) eager: bool,

    /// How long the task may take at most
    #[arg(long, default_value = "6h", value_parser = ttl)]
    pub(crate) ttl: Duration,

    /// End when nobody has asked for so long
    #[arg(long, value_name = "TIME", value_parser = ttl, conflicts_with = "command")]
    pub(crate) idle: Option<Duration>,

    /// How long a replaced credential is left to somebody who was not told its end
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = duration)]
    pub(crate) overlap: Duration,

    /// Why, for those who look at the broker
    #[arg(long, value_name = "TEXT", default_value = "agent")]
    pub(crate) purpose: String,

    #[command(flatten)]
    pub(crate) identity: IdentityArgs,

    #[command(flatten)]
    pub(crate) on_behalf: OnBehalfArgs,

    /// How long we may be silent before the credentials end: when we were killed, or the machine
    /// is gone; `none`: until the deadline
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = heartbeat)]
    pub(crate) heartbeat: Heartbeat,

    /// Do not bind the task's token to a key of this run, for a broker that is reached by another
    /// address than it calls itself
    #[arg(long, conflicts_with = "proof_key_file")]
    pub(crate) no_proof: bool,

    /// How long the command has to stop after a signal before it is killed
    #[arg(long, default_value = "20s", value_name = "TIME", value_parser = duration)]
    pub(crate) stop_timeout: Duration,

    /// How long to wait for the credentials' end
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = duration)]
    pub(crate) revoke_timeout: Duration,

    /// A command to run beside, and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}
