//! The command line.
//!
//! Invariant: no flag carries a secret; tokens come from files, from the environment or from
//! the CI platform.

mod agent;
mod check;
pub(crate) mod config;
mod credential;
mod deliver;
mod doctor;
mod login;
mod on_behalf;
pub(crate) mod process;
pub(crate) mod profile;
mod renew;
mod tasks;
mod tool;
mod values;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::{
    ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint, builder::NonEmptyStringValueParser,
};
use dayfly_api::Outcome;

pub(crate) use crate::args::{
    agent::AgentArgs,
    check::RoleCheckArgs,
    credential::{CredentialArgs, HelperArgs, Protocol, WantedArgs},
    deliver::{
        DeliverArgs, FieldName, FileFormat, FileSource, FileSpec, OnExpiry, OnRotate, is_word,
        is_word_char,
    },
    doctor::DoctorArgs,
    login::LoginArgs,
    on_behalf::OnBehalfArgs,
    renew::LeaseRenewArgs,
    tasks::TaskListArgs,
    tool::{CompletionArgs, ManArgs, Shell, VersionArgs},
    values::{MappedField, Part, RoleRequest, ServedCredential},
};
use crate::{
    ambient::Ambient,
    args::{
        config::ConfigCommand,
        process::{EnvironmentArgs, ProcessArgs},
        values::{Heartbeat, duration, heartbeat, outcome, role_name, ttl},
    },
    ci::Ci,
    client::{self, BrokerUrl, Client},
    config::Config,
    exec::environment::inherit::{Inheritance, TASK},
    identity::{self, Token},
    login::Login,
    output::{Terminal, When},
    proof::{self, Key},
};

const EXAMPLES: &str = "\
Examples:
  dayfly exec --role pg-migrate -- ./migrate.sh
  dayfly exec --profile migrate -- ./migrate.sh
  dayfly exec --role OLD=pg-read --role NEW=pg-write --ttl 1h -- ./copy.sh
  dayfly exec --file pg_service.conf=pg-read --ttl 24h -- ./server
  dayfly role check pg-migrate --explain
  dayfly lease list --state active
  dayfly lease revoke lse_… --reason 'laptop lost'";

const EXEC_HELP: &str = "\
The identity is the first of: --token-file, --identity or DAYFLY_IDENTITY, DAYFLY_ID_TOKEN, \
GitHub's request variables (`permissions: id-token: write`). `--identity aws` signs a request with \
the AWS credentials of the environment or of the container; they are used by that name alone.

The task's token is bound to a key of this run's. Where the identity token is the same for a whole \
job, the first key binds it: several runs in the job then need one --proof-key-file.

Exit codes: the command's own; 124 if it was stopped by --on-expiry term; 125 if dayfly failed \
before the command started, 126 if the command can't be executed, 127 if it was not found. If a \
signal killed the command, dayfly dies of the same one, which a shell shows as 128+N.";

const ABANDON_ABOUT: &str = "\
Gives up on a lease whose revocation keeps failing. Its credential may still work, and nothing \
will ever prove that it is dead: look at the backend first and end it there if you can.

It takes two people. The first one's wish is recorded and the lease goes on being revoked. When a \
second person runs the same command within 24 hours, the lease is `abandoned`: it is not retried, \
alerted on or waited for any more. The sweep still ends its credential if it ever can.";

const OPEN_ABOUT: &str = "\
Opens a task and leaves its credentials in a new directory, for scripts that can't be run by `exec`.

The directory and its files can be read by this user alone: `env` is to be sourced by a shell, `token` \
and `task` are what completes the task:

  dayfly task open --role pg-migrate --directory D && . D/env
  dayfly task complete \"$(cat D/task)\" --token-file D/token; rm -r D

With --proof-key-file the task's token is bound to the key in that file, and completing the task needs \
the file as well. Without it, whoever has the token may use it.

Nothing renews these credentials and nothing is told when the script dies: they end when the task is \
completed, with --ttl, or when a webhook says that the job is over. Prefer `exec`.";

const READ_HELP: &str = "\
The token is the first of: --token-file, DAYFLY_TOKEN_FILE, DAYFLY_TOKEN, and the identity that \
`exec` would use. The token of a task that was opened with --proof-key-file needs that file.

Exit codes: 0 done; 1 failed; 2 wrong use; 3 not found; 4 denied; 5 not signed in; 6 try again \
later, or not yet verified dead; 7 conflict.";

/// Every state that a lease can have.
const LEASE_STATES: [&str; 5] = ["pending", "active", "revoking", "revoked", "abandoned"];

/// Runs commands with credentials that end with them; looks at leases and revokes them.
#[derive(Debug, Parser)]
#[command(name = "dayfly", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,

    /// Say nothing but warnings and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Whether there is colour in tables and messages
    #[arg(long, global = true, value_enum, default_value_t = When::Auto, value_name = "WHEN")]
    pub(crate) color: When,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the broker is.
#[derive(Debug, Args)]
pub(crate) struct BrokerArgs {
    #[arg(
        long,
        global = true,
        value_name = "URL",
        help = "The broker's address, https or a loopback http [env: DAYFLY_URL]"
    )]
    pub(crate) url: Option<String>,

    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help = "Trust the certificates in this PEM file and no others [env: DAYFLY_CA_FILE]"
    )]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep credentials alive for programs that ask for them
    Agent(AgentArgs),
    /// Print what has a shell complete dayfly's commands and flags
    Completion(CompletionArgs),
    /// Show what configuration is in force; begin a .dayfly.toml
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Give a credential to a program in the words of its protocol
    Credential(CredentialArgs),
    /// Look for what is in the way between here and the broker, and say what to do
    Doctor(DoctorArgs),
    /// Run a command with credentials in its environment, and end them with it
    Exec(Box<ExecArgs>),
    /// Look at leases, renew them, revoke them, give up on them
    Lease {
        #[command(subcommand)]
        command: LeaseCommand,
    },
    /// Sign in as a person, where nothing else says who commands are
    Login(LoginArgs),
    /// Forget who signed in
    Logout,
    /// Print the manual
    Man(ManArgs),
    /// Change what the broker signs in with at its backends
    Backend {
        #[command(subcommand)]
        command: BackendCommand,
    },
    /// Look at roles
    Role {
        #[command(subcommand)]
        command: RoleCommand,
    },
    /// Show what the installation may do at the moment: suspension, brake, backends
    Standing(StandingArgs),
    /// Look at tasks and complete them
    Task {
        #[command(subcommand)]
        command: TaskCommand,
    },
    /// Show which program this is, and which broker answers it
    Version(VersionArgs),
    /// Show who the broker takes the caller for
    Whoami(ReadArgs),
}

impl Command {
    /// Whether it is about the program alone, so that no configuration can stop it.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self, Self::Completion(_) | Self::Man(_))
            || matches!(self, Self::Version(args) if !args.broker)
    }

    /// Whether it asks the broker something and shows the answer.
    pub(crate) fn is_question(&self) -> bool {
        matches!(
            self,
            Self::Backend { .. }
                | Self::Lease { .. }
                | Self::Role { .. }
                | Self::Standing(_)
                | Self::Task { .. }
                | Self::Version(_)
                | Self::Whoami(_)
        )
    }
}

#[derive(Debug, Args)]
#[command(after_help = EXEC_HELP)]
pub(crate) struct ExecArgs {
    /// A role to get a credential for; with NAME= its variables become NAME_…
    #[arg(long = "role", value_name = "[NAME=]ROLE", action = ArgAction::Append)]
    pub(crate) roles: Vec<RoleRequest>,

    #[arg(
        long,
        value_name = "NAME",
        overrides_with = "profile",
        value_parser = NonEmptyStringValueParser::new(),
        help = "Begin with the flags of this profile of .dayfly.toml, or of the user's or the \
                system's configuration; --role, --env and --file add to it, others count instead \
                of it [env: DAYFLY_PROFILE]"
    )]
    pub(crate) profile: Option<String>,

    /// A role whose AWS credentials the command gets from a loopback port, always fresh, instead of
    /// from its environment
    #[arg(long, value_name = "ROLE", value_parser = role_name)]
    pub(crate) aws_endpoint: Option<String>,

    #[command(flatten)]
    pub(crate) deliver: DeliverArgs,

    /// How long the command may take at most
    #[arg(long, default_value = "15m", value_parser = ttl)]
    pub(crate) ttl: Duration,

    /// Why, for those who look at the broker [default: `exec` and the command's name]
    #[arg(long, value_name = "TEXT")]
    pub(crate) purpose: Option<String>,

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

    /// How long to wait for the credentials' end after the command's
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = duration)]
    pub(crate) revoke_timeout: Duration,

    #[command(flatten)]
    pub(crate) process: ProcessArgs,

    /// Only say what would be granted and which variables and files there would be; nothing is
    /// minted and nothing started
    #[arg(long, conflicts_with = "report")]
    pub(crate) dry_run: bool,

    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_hint = ValueHint::CommandWithArguments,
        value_name = "CMD"
    )]
    pub(crate) command: Vec<OsString>,
}

/// The last step of `exec`, which becomes the command. It is no command of the command line: nobody
/// types it, and neither help nor shells offer it.
#[derive(Debug, Parser)]
#[command(name = "dayfly exec-child", disable_help_flag = true)]
pub(crate) struct ExecChildArgs {
    /// The process that must still be our parent
    pub(crate) parent: i32,
    /// The file to execute
    pub(crate) program: PathBuf,
    /// Its arguments, from its own name on
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

/// Whose token to send.
#[derive(Debug, Args)]
pub(crate) struct IdentityArgs {
    /// Read the token from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    #[arg(
        long = "identity",
        value_enum,
        value_name = "WHICH",
        conflicts_with = "token_file",
        help = "Use this identity of the machine's and no other [env: DAYFLY_IDENTITY]"
    )]
    pub(crate) kind: Option<IdentityKind>,

    #[arg(
        long,
        help = "The audience to ask GitHub for, or the server id to sign for AWS \
                [env: DAYFLY_AUDIENCE] [default: the broker's address]"
    )]
    pub(crate) audience: Option<String>,

    #[arg(
        long,
        value_name = "FILE",
        help = "Prove the key in this file, which a task that is opened makes if it is not there \
                [env: DAYFLY_PROOF_KEY_FILE]"
    )]
    pub(crate) proof_key_file: Option<PathBuf>,
}

/// An identity that is used only where it is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum IdentityKind {
    /// Signed with the AWS credentials of the environment or of the container.
    Aws,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// Give up on a lease that cannot be revoked; a second person must agree
    Abandon(LeaseAbandonArgs),
    /// List leases, newest first
    List(LeaseListArgs),
    /// Let a lease live longer
    Renew(LeaseRenewArgs),
    /// End a lease now
    Revoke(LeaseRevokeArgs),
    /// Show one lease
    Show(ShowArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackendCommand {
    /// Give the broker's own account at a backend a new password
    Rotate(RotateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// The backend's name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// Ask whether a role would be granted now, and why; nothing is minted
    Check(RoleCheckArgs),
    /// List the roles that the caller may see
    List(ReadArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum StandingCommand {
    /// Let go of the mass-revocation brake: the store's clock is right
    Release(ReadArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// End a task and its credentials
    Complete(TaskCompleteArgs),
    /// List tasks, newest first
    List(TaskListArgs),
    /// Open a task and leave its credentials in a directory
    Open(TaskOpenArgs),
    /// Show one task
    Show(ShowArgs),
}

/// What commands that read and administer have in common.
#[derive(Debug, Args)]
#[command(after_help = READ_HELP)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    pub(crate) identity: IdentityArgs,

    /// How to show the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct StandingArgs {
    #[command(subcommand)]
    pub(crate) command: Option<StandingCommand>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Its id
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LeaseListArgs {
    /// Only in this state
    #[arg(long, value_parser = LEASE_STATES)]
    pub(crate) state: Option<String>,
    /// Only of this role
    #[arg(long)]
    pub(crate) role: Option<String>,
    /// Only at this backend
    #[arg(long)]
    pub(crate) backend: Option<String>,
    /// Only of this task
    #[arg(long, value_name = "ID")]
    pub(crate) task: Option<String>,
    /// Only of this principal
    #[arg(long)]
    pub(crate) principal: Option<String>,
    /// Only of principals of this issuer
    #[arg(long)]
    pub(crate) issuer: Option<String>,
    /// Only those that end before this RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub(crate) expires_before: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

#[derive(Debug, Args)]
#[command(long_about = ABANDON_ABOUT)]
pub(crate) struct LeaseAbandonArgs {
    /// The lease's id
    pub(crate) id: String,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LeaseRevokeArgs {
    /// The lease's id
    pub(crate) id: String,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// How long to wait until it is verified dead
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = duration)]
    pub(crate) wait: Duration,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TaskCompleteArgs {
    /// The task's id
    pub(crate) id: String,
    /// How it ended: completed, failed or cancelled
    #[arg(long, default_value = "completed", value_parser = outcome)]
    pub(crate) outcome: Outcome,
    /// How long to wait until its credentials are verified dead
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = duration)]
    pub(crate) wait: Duration,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

#[derive(Debug, Args)]
#[command(long_about = OPEN_ABOUT)]
pub(crate) struct TaskOpenArgs {
    /// A role to get a credential for; with NAME= its variables become NAME_…
    #[arg(long = "role", required = true, value_name = "[NAME=]ROLE", action = ArgAction::Append)]
    pub(crate) roles: Vec<RoleRequest>,
    /// The directory to make; it must not be there yet
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// How long the task may take at most
    #[arg(long, default_value = "15m", value_parser = ttl)]
    pub(crate) ttl: Duration,
    /// Why, for those who look at the broker
    #[arg(long, value_name = "TEXT", default_value = "task open")]
    pub(crate) purpose: String,
    #[command(flatten)]
    pub(crate) identity: IdentityArgs,
    #[command(flatten)]
    pub(crate) on_behalf: OnBehalfArgs,
}

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON value.
    Json,
    /// For people.
    Table,
}

/// What every command needs besides its own arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) broker: &'a BrokerArgs,
    /// The environment, and what the configuration says where that is silent.
    pub(crate) ambient: &'a Ambient,
    pub(crate) config: &'a Config,
    pub(crate) terminal: &'a Terminal,
}

impl<'a> Context<'a> {
    /// What a command inherits whose task is opened with this identity.
    pub(crate) fn inheritance(
        &self,
        args: &IdentityArgs,
        environment: &'a EnvironmentArgs,
    ) -> Inheritance<'a> {
        let signing = identity::signing(args.kind, args.token_file.as_deref(), self.ambient);
        Inheritance::new(self.ambient, environment).without(signing)
    }

    /// A client of the broker that flags, environment and configuration name.
    pub(crate) fn client(&self) -> Result<Client, client::Error> {
        let url = self.broker.url.as_deref().or_else(|| self.ambient.text("DAYFLY_URL"));
        let url = BrokerUrl::parse(url)?;
        let ca_file = self.broker.ca_file.clone();
        let ca_file = ca_file.or_else(|| self.ambient.value("DAYFLY_CA_FILE").map(PathBuf::from));
        Client::new(url, ca_file.as_deref())
    }

    /// The audience that a token for this broker should have.
    pub(crate) fn audience(&self, args: &IdentityArgs, client: &Client) -> String {
        let named = args.audience.as_deref().or_else(|| self.ambient.text("DAYFLY_AUDIENCE"));
        named.map_or_else(|| client.url().to_string(), ToOwned::to_owned)
    }

    /// A client and the token for a command that reads or administers.
    pub(crate) async fn signed_in(
        &self,
        args: &IdentityArgs,
    ) -> Result<(Client, Token), identity::Error> {
        let client = self.client()?;
        let source = self.bearer(args, Some(&client))?;
        let token = source.token(&self.audience(args, &client)).await?;
        // An identity token needs no proof but to open tasks.
        let Some(path) = self.proof_key_file(args).filter(|_| token.is_of_a_task()) else {
            return Ok((client, token));
        };
        let key = Arc::new(proof::file::read(path)?);
        Ok((client, token.bound_to(&key)?))
    }

    /// Where the token of a command comes from that reads or administers.
    pub(crate) fn bearer(
        &self,
        args: &IdentityArgs,
        client: Option<&Client>,
    ) -> Result<identity::Source, identity::Error> {
        let found = identity::bearer(args.kind, args.token_file.as_deref(), self.ambient);
        self.or_login(found, client)
    }

    /// Where the token comes from that opens a task.
    pub(crate) fn workload(
        &self,
        args: &IdentityArgs,
        client: &Client,
    ) -> Result<identity::Source, identity::Error> {
        let found = identity::workload(args.kind, args.token_file.as_deref(), self.ambient);
        self.or_login(found, Some(client))
    }

    /// Who signed in at the broker, where nothing was found. A job has an identity of its own: what
    /// somebody left on its machine is none. Nor is a command that was given credentials who gave
    /// them to it.
    fn or_login(
        &self,
        found: Result<identity::Source, identity::Error>,
        client: Option<&Client>,
    ) -> Result<identity::Source, identity::Error> {
        match (found, client) {
            (Err(identity::Error::None { is_github }), Some(client))
                if Ci::of(self.ambient).is_none() && self.ambient.text(TASK).is_none() =>
            {
                let login = Login::find(client, self.ambient)?;
                login.map(identity::Source::Login).ok_or(identity::Error::None { is_github })
            }
            (found, _) => found,
        }
    }

    /// The key of the file that flags and environment name, for opening a task.
    pub(crate) fn kept_key(
        &self,
        args: &IdentityArgs,
    ) -> Result<Option<Arc<Key>>, identity::Error> {
        let key = self.proof_key_file(args).map(proof::file::keep).transpose()?;
        Ok(key.map(Arc::new))
    }

    /// The same for who asks what would be: no file is made for it.
    pub(crate) fn passing_key(&self, args: &IdentityArgs) -> Result<Arc<Key>, identity::Error> {
        let path = self.proof_key_file(args).filter(|path| path.exists());
        let key = match path {
            Some(path) => proof::file::read(path)?,
            None => Key::generate().map_err(proof::file::Error::from)?,
        };
        Ok(Arc::new(key))
    }

    fn proof_key_file<'b>(&'b self, args: &'b IdentityArgs) -> Option<&'b Path> {
        let named = self.ambient.value("DAYFLY_PROOF_KEY_FILE").map(Path::new);
        args.proof_key_file.as_deref().or(named)
    }
}

#[cfg(test)]
mod tests;
