//! The arguments of the commands about the program itself.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use crate::args::Format;

#[derive(Debug, Args)]
#[command(after_help = COMPLETION_HELP)]
pub(crate) struct CompletionArgs {
    /// For which shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

const COMPLETION_HELP: &str = "\
Examples:
  dayfly completion bash > /usr/share/bash-completion/completions/dayfly
  dayfly completion zsh > /usr/share/zsh/site-functions/_dayfly
  dayfly completion fish > ~/.config/fish/completions/dayfly.fish
  source <(dayfly completion bash)";

/// A shell that can be told what may be typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Fish,
    Powershell,
    Zsh,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write a page for each command into this directory, instead of the first one to stdout
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) directory: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Ask the broker for its version too
    #[arg(long)]
    pub(crate) broker: bool,

    /// How to show the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}
