//! The arguments of `dayfly task list`.

use clap::Args;

use crate::args::ReadArgs;

/// Every state that a task can have.
const STATES: [&str; 7] =
    ["open", "cancelled", "completed", "expired", "failed", "lost", "revoked"];

#[derive(Debug, Args)]
pub(crate) struct TaskListArgs {
    /// Only in this state
    #[arg(long, value_parser = STATES)]
    pub(crate) state: Option<String>,
    /// Only of this principal
    #[arg(long)]
    pub(crate) principal: Option<String>,
    /// Only of principals of this issuer
    #[arg(long)]
    pub(crate) issuer: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}
