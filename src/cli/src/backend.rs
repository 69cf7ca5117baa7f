//! `dayfly backend`: what the broker signs in with.

use dayfly_api::Rotated;

use crate::{
    args::{Context, RotateArgs},
    failure::{self, Failure},
    output::{Table, record},
};

/// `dayfly backend rotate`.
pub(crate) async fn rotate(args: &RotateArgs, context: Context<'_>) -> Result<u8, Failure> {
    let (client, token) = context.signed_in(&args.read.identity).await?;
    let rotated = client.rotate(&token, &args.name).await?;
    context.terminal.show(args.read.output, &rotated, one)?;
    Ok(failure::OK)
}

fn one(rotated: &Rotated) -> Table {
    record([("backend", &rotated.backend), ("rotated", &rotated.rotated_at)])
}
