//! `dayfly whoami`: who the broker takes the caller for.
//!
//! Invariant: it shows the broker's answer, not what the token claims.

use crate::{
    args::{Context, ReadArgs},
    failure::{self, Failure},
    output::record,
};

/// `dayfly whoami`.
pub(crate) async fn show(args: &ReadArgs, context: Context<'_>) -> Result<u8, Failure> {
    let (client, token) = context.signed_in(&args.identity).await?;
    let me = client.whoami(&token).await?;
    context.terminal.show(args.output, &me, |me| {
        record([
            ("principal", &me.principal),
            ("kind", &me.kind),
            ("issuer", &me.issuer),
            ("subject", &me.subject),
            ("task", me.task.as_deref().unwrap_or_default()),
        ])
    })?;
    Ok(failure::OK)
}
