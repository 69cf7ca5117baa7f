//! The arguments of `dayfly doctor`.

use clap::Args;

use crate::args::{Format, IdentityArgs};

const ABOUT: &str = "\
Looks at everything between here and a credential, in order, and says what to do about what is amiss

Configuration, the broker's address, the way to it, its certificate and clock, the identity that would \
be used and what the broker makes of it, and where secrets can be kept. It goes on after a failure as \
far as that makes sense, changes nothing, and shows no token.";

const HELP: &str = "\
Exit codes: 0 nothing failed; otherwise the one of the first failure, as other commands have it: 1 \
failed; 2 wrong use or configuration; 4 denied; 5 not signed in; 6 try again later.";

#[derive(Debug, Args)]
#[command(long_about = ABOUT, after_help = HELP)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) identity: IdentityArgs,

    /// How to show the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}
