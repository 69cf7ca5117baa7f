//! The arguments of `dayfly lease renew`.

use std::time::Duration;

use clap::Args;

use crate::args::{ReadArgs, values::ttl};

#[derive(Debug, Args)]
pub(crate) struct LeaseRenewArgs {
    /// The lease's id
    pub(crate) id: String,
    /// How long it is to live from now on
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    pub(crate) ttl: Duration,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}
