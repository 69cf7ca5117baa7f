//! The arguments of `dayfly login` and `dayfly logout`.
//!
//! Invariant: where to sign in is what the broker says; nothing here can send somebody elsewhere.

use clap::Args;

const ABOUT: &str = "\
Signs a person in at the identity provider that the broker names, and keeps the token for this broker \
and this user. Commands use it where nothing else says who they are, and never in CI.

A browser is opened if there is one here. Otherwise, as on a machine that is reached by ssh, a code is \
shown that is typed in at another one.";

#[derive(Debug, Args)]
#[command(long_about = ABOUT)]
pub(crate) struct LoginArgs {
    /// Show a code to type in at another device
    #[arg(long, conflicts_with = "no_browser")]
    pub(crate) device: bool,

    /// Open no browser: show the address, to be opened on this machine
    #[arg(long)]
    pub(crate) no_browser: bool,
}
