//! The arguments of `dayfly role check`.

use std::time::Duration;

use clap::Args;

use crate::args::{
    OnBehalfArgs, ReadArgs,
    values::{role_name, ttl},
};

const ABOUT: &str = "\
Asks the broker what it would decide if this role were asked for now, and why

It is the decision of `exec`, for the identity that would be used. Nothing is minted, no task is \
opened, and a token that may be used once may still be used. Whoever may not list all roles can't \
tell one that they may not have from one that is not there.";

const HELP: &str = "\
With the token of a task it is asked for that task; otherwise for one that would be opened first.

Exit codes: 0 allowed; 3 there is no such role; 4 denied; 5 not signed in; 6 try again later.";

#[derive(Debug, Args)]
#[command(long_about = ABOUT, after_help = HELP)]
pub(crate) struct RoleCheckArgs {
    /// The role's name
    #[arg(value_parser = role_name)]
    pub(crate) role: String,

    /// How long the credential should live [default: as the role says]
    #[arg(long, value_parser = ttl)]
    pub(crate) ttl: Option<Duration>,

    /// The purpose that the task would be opened with, where rules look at it
    #[arg(long, value_name = "TEXT")]
    pub(crate) purpose: Option<String>,

    /// Also name the rules that permit, what they were told, and your own claims
    #[arg(long)]
    pub(crate) explain: bool,

    /// Ask as `exec --no-proof` would: for a task whose token is bound to no key
    #[arg(long, conflicts_with = "proof_key_file")]
    pub(crate) no_proof: bool,

    #[command(flatten)]
    pub(crate) on_behalf: OnBehalfArgs,

    #[command(flatten)]
    pub(crate) read: ReadArgs,
}
