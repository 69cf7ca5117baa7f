//! The arguments of `dayfly credential`.
//!
//! Invariant: a helper that is asked by host names those that it answers for; no other host is
//! given a credential.

use std::time::Duration;

use clap::{ArgAction, Args, Subcommand};

use crate::args::{
    IdentityArgs, OnBehalfArgs,
    values::{MappedField, role_name, ttl},
};

const ABOUT: &str = "\
Gives one role's credential to a program in the words of a protocol that it speaks already.

The agent is asked if there is one: the socket that DAYFLY_AGENT_SOCKET names, or \
$XDG_RUNTIME_DIR/dayfly/agent.sock. Otherwise a task is opened for this one credential. Nothing renews \
it and nobody completes the task: it lives as long as its role says, or --ttl.";

const AWS_HELP: &str = "\
In ~/.aws/config:

  [profile deploy]
  credential_process = dayfly credential aws --role aws-deploy";

const GCP_HELP: &str = "\
In the credential configuration, with GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1:

  \"credential_source\": { \"executable\": { \"command\": \"dayfly credential gcp --role gcp-federation\" } }

The token is a subject token, which Google exchanges. Failures are JSON on stdout and the exit code is \
0, as the protocol wants.";

const K8S_HELP: &str = "\
In a kubeconfig:

  users:
  - name: dayfly
    user:
      exec:
        apiVersion: client.authentication.k8s.io/v1
        command: dayfly
        args: [credential, k8s, --role, cluster-reader]
        interactiveMode: Never

kubectl keeps the token until its end or until the cluster answers 401.";

const GIT_HELP: &str = "\
  git config --global credential.https://github.com.helper \\
    '!dayfly credential git --role github --host github.com'

`erase`, which git says when a server did not take the password, revokes the agent's credential, and \
the next `get` has another.";

const DOCKER_HELP: &str = "\
A program `docker-credential-dayfly` on the PATH:

  #!/bin/sh
  exec dayfly credential docker --role registry --host ghcr.io \"$@\"

and in ~/.docker/config.json:

  \"credHelpers\": { \"ghcr.io\": \"dayfly\" }

Failures are on stdout with exit code 1, as the protocol wants.";

const PGPASS_HELP: &str = "\
  umask 077; dayfly credential pgpass --role pg-read >\"$XDG_RUNTIME_DIR/pgpass\"
  PGPASSFILE=$XDG_RUNTIME_DIR/pgpass psql …";

const MYSQL_HELP: &str = "\
  mysql --defaults-extra-file=<(dayfly credential mysql --role shop) -e 'select 1'

It must be the first option.";

/// Which protocol, and what it needs.
#[derive(Debug, Args)]
#[command(long_about = ABOUT)]
pub(crate) struct CredentialArgs {
    #[command(subcommand)]
    pub(crate) protocol: Protocol,
}

/// The protocols.
#[derive(Debug, Subcommand)]
pub(crate) enum Protocol {
    /// For `credential_process` of AWS's SDKs
    #[command(after_help = AWS_HELP)]
    Aws(WantedArgs),
    /// For docker's `credHelpers` and `credsStore`
    #[command(after_help = DOCKER_HELP)]
    Docker(HelperArgs),
    /// For executable-sourced credentials of Google's libraries
    #[command(after_help = GCP_HELP)]
    Gcp(WantedArgs),
    /// For git's `credential.helper`
    #[command(after_help = GIT_HELP)]
    Git(HelperArgs),
    /// For exec plugins of kubectl and of Kubernetes' clients
    #[command(after_help = K8S_HELP)]
    K8s(WantedArgs),
    /// Option file for MySQL's and MariaDB's programs
    #[command(after_help = MYSQL_HELP)]
    Mysql(WantedArgs),
    /// Password file for PostgreSQL's libpq
    #[command(after_help = PGPASS_HELP)]
    Pgpass(WantedArgs),
}

/// Which credential, and where it comes from.
#[derive(Debug, Args)]
pub(crate) struct WantedArgs {
    /// The role
    #[arg(long, value_name = "ROLE", value_parser = role_name)]
    pub(crate) role: String,

    /// Take NAME of the protocol from this field of the credential
    #[arg(long = "field-map", value_name = "NAME=FIELD", action = ArgAction::Append)]
    pub(crate) field_map: Vec<MappedField>,

    /// Do not ask the agent
    #[arg(long)]
    pub(crate) no_agent: bool,

    /// How long it should live, if the role allows it and no agent is asked [default: as its role
    /// says]
    #[arg(long, value_parser = ttl)]
    pub(crate) ttl: Option<Duration>,

    /// Do not bind the task's token to a key of this run, for a broker that is reached by another
    /// address than it calls itself
    #[arg(long, conflicts_with = "proof_key_file")]
    pub(crate) no_proof: bool,

    #[command(flatten)]
    pub(crate) identity: IdentityArgs,

    #[command(flatten)]
    pub(crate) on_behalf: OnBehalfArgs,
}

/// The same for helpers that are asked by host.
#[derive(Debug, Args)]
pub(crate) struct HelperArgs {
    #[command(flatten)]
    pub(crate) wanted: WantedArgs,

    /// A host that the credential is for, with its port if it has one; no other is answered
    #[arg(long = "host", required = true, value_name = "HOST[:PORT]", action = ArgAction::Append)]
    pub(crate) hosts: Vec<String>,

    /// The user's name where the credential has none
    #[arg(long, value_name = "TEXT")]
    pub(crate) username: Option<String>,

    /// Answer for http as well, which shows the password to everybody on the way
    #[arg(long)]
    pub(crate) allow_http: bool,

    /// What the program asks for: get, store, erase, …
    pub(crate) operation: String,
}
