//! `dayfly whoami`: who the broker takes the caller for.
//!
//! Invariant: it shows the broker's answer, not what the token claims.

use dayfly_api::OnBehalfOf;

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
        let on_behalf_of = me.on_behalf_of.as_ref().map(OnBehalfOf::shown).unwrap_or_default();
        record([
            ("principal", &me.principal),
            ("kind", &me.kind),
            ("issuer", &me.issuer),
            ("subject", &me.subject),
            ("task", me.task.as_deref().unwrap_or_default()),
            ("on behalf of", &on_behalf_of),
        ])
    })?;
    Ok(failure::OK)
}
