//! `dayfly standing`: what the installation may do at the moment, and letting go of the brake.
//!
//! Invariant: whatever pauses is said first, with what to do about it.

use dayfly_api::Standing;

use crate::{
    args::{Context, ReadArgs},
    failure::{self, Failure},
    output::{Column, Table},
};

const COLUMNS: &[Column] =
    &[Column::whole("WHAT"), Column::whole("IS"), Column::cut("BECAUSE", 20)];

/// `dayfly standing`.
pub(crate) async fn show(args: &ReadArgs, context: Context<'_>) -> Result<u8, Failure> {
    let (client, token) = context.signed_in(&args.identity).await?;
    let standing = client.standing(&token).await?;
    context.terminal.show(args.output, &standing, table)?;
    Ok(failure::OK)
}

/// `dayfly standing release`.
pub(crate) async fn release(args: &ReadArgs, context: Context<'_>) -> Result<u8, Failure> {
    let (client, token) = context.signed_in(&args.identity).await?;
    let standing = client.release_hold(&token).await?;
    context.terminal.show(args.output, &standing, table)?;
    Ok(failure::OK)
}

fn table(standing: &Standing) -> Table {
    let mut table = Table::new(COLUMNS);
    match &standing.suspended {
        None => table.row(["minting", "on", ""]),
        Some(suspended) => {
            let because = format!("{} (since {})", suspended.reason, suspended.since);
            table.row(["minting", "suspended", &because]);
            table.row(["", "", "look at it, then run `dayfly-server recover`"]);
        }
    }
    match &standing.hold {
        None => table.row(["brake", "off", ""]),
        Some(hold) => {
            let because = format!("the store's clock jumped from {} to {}", hold.from, hold.to);
            table.row(["brake", "held", &because]);
            let release = format!(
                "if the clock is right, `dayfly standing release`; it lets go by itself at {}",
                hold.until
            );
            table.row(["", "", &release]);
        }
    }
    for backend in &standing.backends {
        let (is, because) = state(&backend.owner, backend.down);
        let of = backend.owner_installation.as_deref();
        let because = of.map_or_else(|| because.to_owned(), |of| format!("{because} {of}"));
        table.row([&format!("backend {}", backend.name), is, &because]);
    }
    table
}

fn state(owner: &str, down: bool) -> (&'static str, &'static str) {
    match (owner, down) {
        ("another", _) => ("foreign", "its prefix belongs to installation"),
        (_, true) => ("down", "it did not answer; it is probed until it does"),
        ("ours", false) => ("up", ""),
        (_, false) => ("not asked", "whose prefix it has is asked before the first mint"),
    }
}
