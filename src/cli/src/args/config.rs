//! The arguments of `dayfly config`.

use clap::{Args, Subcommand};

use crate::args::{Format, IdentityArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write a .dayfly.toml with comments into the working directory
    Init,
    /// Show what is in force, and where it comes from
    Show(ConfigShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigShowArgs {
    #[command(flatten)]
    pub(crate) identity: IdentityArgs,

    /// How to show the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}
