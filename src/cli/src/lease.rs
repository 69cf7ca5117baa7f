//! `dayfly lease`: what credentials there are, and their end.
//!
//! Invariant: a lease is called ended only when the broker has verified it, and one that was
//! given up is never called so.

use std::time::Duration;

use dayfly_api::{Lease, LeasePage, OnBehalfOf, Renewed};

use crate::{
    args::{Context, LeaseAbandonArgs, LeaseListArgs, LeaseRenewArgs, LeaseRevokeArgs, ShowArgs},
    client::Filter,
    failure::{self, Failure},
    output::{Column, Table, record},
    role,
};

/// How many leases are asked for at a time.
const PAGE: usize = 100;

const COLUMNS: &[Column] = &[
    Column::whole("ID"),
    Column::cut("ROLE", 8),
    Column::whole("STATE"),
    Column::whole("EXPIRES"),
    Column::cut("PRINCIPAL", 12),
    Column::cut("BACKEND", 6),
    Column::cut("CAUSE", 9),
    Column::whole("TASK"),
];

/// `dayfly lease list`.
pub(crate) async fn list(args: &LeaseListArgs, context: Context<'_>) -> Result<u8, Failure> {
    let (client, token) = context.signed_in(&args.read.identity).await?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let filter = filter(args, limit.min(PAGE));
    let mut all = client.leases(&token, &filter, None).await?;
    while all.data.len() < limit
        && let Some(cursor) = all.next_cursor.take()
    {
        let page = client.leases(&token, &filter, Some(&cursor)).await?;
        if page.data.is_empty() {
            break;
        }
        all.data.extend(page.data);
        all.next_cursor = page.next_cursor;
    }
    let more = all.next_cursor.is_some() || all.data.len() > limit;
    all.data.truncate(limit);
    context.terminal.show(args.read.output, &all, table)?;
    if more {
        context.terminal.note(&format!("there are more than {limit}; see --limit"));
    }
    Ok(failure::OK)
}

fn filter(args: &LeaseListArgs, page: usize) -> Filter {
    let named = [
        ("state", &args.state),
        ("role", &args.role),
        ("backend", &args.backend),
        ("task", &args.task),
        ("principal", &args.principal),
        ("issuer", &args.issuer),
        ("expires_before", &args.expires_before),
    ];
    let set = named.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    Filter(set.chain([("limit", page.to_string())]).collect())
}

fn table(page: &LeasePage) -> Table {
    let mut table = Table::new(COLUMNS);
    for lease in &page.data {
        table.row([
            &lease.id,
            &lease.role,
            &lease.state,
            &lease.expires_at,
            &lease.principal,
            &lease.backend,
            lease.cause.as_deref().unwrap_or("-"),
            &lease.task,
        ]);
    }
    table
}

/// `dayfly lease show`.
pub(crate) async fn show(args: &ShowArgs, context: Context<'_>) -> Result<u8, Failure> {
    let (client, token) = context.signed_in(&args.read.identity).await?;
    let lease = client.lease(&token, &args.id).await?;
    context.terminal.show(args.read.output, &lease, one)?;
    Ok(failure::OK)
}

fn one(lease: &Lease) -> Table {
    let exposure = match lease.exposure_seconds {
        Some(seconds) => format!("{seconds} s after its end, if the broker died now"),
        None => "without end, if the broker died now".to_owned(),
    };
    let abandoning = abandoning(lease);
    let on_behalf_of = lease.on_behalf_of.as_ref().map(OnBehalfOf::shown).unwrap_or_default();
    let attempts = if lease.attempts == 0 { String::new() } else { lease.attempts.to_string() };
    record([
        ("id", &lease.id),
        ("state", &lease.state),
        ("cause", lease.cause.as_deref().unwrap_or_default()),
        ("role", &lease.role),
        ("backend", &lease.backend),
        ("handle", &lease.handle),
        ("principal", &lease.principal),
        ("on behalf of", &on_behalf_of),
        ("task", &lease.task),
        ("issued", &lease.issued_at),
        ("expires", &lease.expires_at),
        ("at the latest", &lease.max_expires_at),
        ("verified dead", lease.revoked_at.as_deref().unwrap_or_default()),
        ("renewable", if lease.renewable { "yes" } else { "no" }),
        ("ended by", &lease.belts.join(", ")),
        ("could live", &exposure),
        ("works until", lease.residual_until.as_deref().unwrap_or_default()),
        ("failed attempts", &attempts),
        ("last error", lease.last_error.as_deref().unwrap_or_default()),
        ("giving up", &abandoning),
    ])
}

fn abandoning(lease: &Lease) -> String {
    let Some(wish) = &lease.abandonment else { return String::new() };
    let asked = format!("{} asked for it at {}: {}", wish.by, wish.at, wish.reason);
    match &wish.agreed_at {
        Some(at) => format!("{asked}; a second person agreed at {at}"),
        None => format!("{asked}; a second person must agree within 24 hours"),
    }
}

/// `dayfly lease abandon`.
pub(crate) async fn abandon(args: &LeaseAbandonArgs, context: Context<'_>) -> Result<u8, Failure> {
    let (client, token) = context.signed_in(&args.read.identity).await?;
    let lease = client.abandon_lease(&token, &args.id, &args.reason).await?;
    context.terminal.show(args.read.output, &lease, one)?;
    if lease.state == "abandoned" {
        context.terminal.warn(&format!(
            "lease {} is given up: `{}` at backend `{}` may still work, and nothing but the sweep \
             tries to end it",
            lease.id, lease.handle, lease.backend
        ));
    } else {
        context.terminal.note(&format!(
            "noted, and nothing is given up yet: lease {} goes on being revoked. A second person \
             must run the same command within 24 hours. After that its credential may live on \
             unseen, so end `{}` at backend `{}` by hand if you can",
            lease.id, lease.handle, lease.backend
        ));
    }
    Ok(failure::OK)
}

/// `dayfly lease renew`.
pub(crate) async fn renew(args: &LeaseRenewArgs, context: Context<'_>) -> Result<u8, Failure> {
    let (client, token) = context.signed_in(&args.read.identity).await?;
    let asked = i64::try_from(args.ttl.as_secs()).unwrap_or(i64::MAX);
    let renewed = client.renew_lease(&token, &args.id, asked).await?;
    context.terminal.show(args.read.output, &renewed, |renewed| {
        // A moment of it has passed already.
        let granted = seconds(if renewed.truncated { renewed.ttl_seconds } else { asked });
        record([
            ("id", &renewed.id),
            ("granted", &granted),
            ("expires", &renewed.expires_at),
            ("at the latest", &renewed.max_expires_at),
        ])
    })?;
    if let Some(limit) = limit(&renewed, asked) {
        context.terminal.warn(&limit);
    }
    Ok(failure::OK)
}

/// What a renewal did not give, and what none will give.
fn limit(renewed: &Renewed, asked: i64) -> Option<String> {
    let Renewed { id, expires_at, max_expires_at, .. } = renewed;
    let (granted, wanted) = (seconds(renewed.ttl_seconds), seconds(asked));
    let less = format!("lease {id} was given {granted} of the {wanted} that were asked for");
    match (renewed.truncated, expires_at == max_expires_at) {
        (false, false) => None,
        (false, true) => Some(format!(
            "lease {id} ends for good at {max_expires_at}: no renewal moves that, so get another one \
             before"
        )),
        (true, false) => Some(format!(
            "{less}; renew it again before {expires_at}, until {max_expires_at} at the latest"
        )),
        (true, true) => {
            Some(format!("{less}: it ends for good at {max_expires_at}, so get another one before"))
        }
    }
}

fn seconds(count: i64) -> String {
    role::short(u64::try_from(count).unwrap_or(0))
}

/// What is waited for, and how long at most.
pub(crate) fn until(what: &str, wait: Duration) -> String {
    format!("waiting until {what} verified dead, {} at most", role::short(wait.as_secs()))
}

/// `dayfly lease revoke`.
pub(crate) async fn revoke(args: &LeaseRevokeArgs, context: Context<'_>) -> Result<u8, Failure> {
    let (client, token) = context.signed_in(&args.read.identity).await?;
    if !args.wait.is_zero() {
        context.terminal.waits(&until(&format!("lease {} is", args.id), args.wait));
    }
    let revoked = client.revoke_lease(&token, &args.id, &args.reason, args.wait).await?;
    context.terminal.show(args.read.output, &revoked, |revoked| {
        record([
            ("id", &revoked.id),
            ("state", &revoked.state),
            ("cause", revoked.cause.as_deref().unwrap_or_default()),
            ("verified dead", revoked.revoked_at.as_deref().unwrap_or_default()),
        ])
    })?;
    if revoked.state == "revoking" {
        context.terminal.warn(&format!(
            "lease {} is not yet verified dead; see `dayfly lease show {}`",
            revoked.id, revoked.id
        ));
        return Ok(failure::UNAVAILABLE);
    }
    Ok(failure::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renewed(ttl_seconds: i64, expires_at: &str, truncated: bool) -> Renewed {
        Renewed {
            id: "lse_1".into(),
            ttl_seconds,
            expires_at: expires_at.into(),
            max_expires_at: "2026-01-01T01:00:00Z".into(),
            truncated,
        }
    }

    #[test]
    fn less_than_was_asked_for_is_told_and_so_is_the_last_of_it() {
        assert_eq!(limit(&renewed(900, "2026-01-01T00:15:00Z", false), 900), None);
        let less = limit(&renewed(900, "2026-01-01T00:15:00Z", true), 3600).unwrap();
        assert!(less.starts_with("lease lse_1 was given 15m of the 1h that were asked for; "));
        assert!(less.contains("again before 2026-01-01T00:15:00Z"), "{less}");
        let last = limit(&renewed(900, "2026-01-01T01:00:00Z", true), 7200).unwrap();
        assert!(last.starts_with("lease lse_1 was given 15m of the 2h"), "{last}");
        assert!(last.contains("ends for good at 2026-01-01T01:00:00Z"), "{last}");
        let whole = limit(&renewed(900, "2026-01-01T01:00:00Z", false), 900).unwrap();
        assert!(whole.starts_with("lease lse_1 ends for good at 2026-01-01T01:00:00Z"), "{whole}");
    }

    #[test]
    fn what_is_waited_for_has_its_bound() {
        assert_eq!(
            until("lease lse_1 is", Duration::from_secs(90)),
            "waiting until lease lse_1 is verified dead, 1m30s at most"
        );
    }
}
