//! `dayfly role`: what can be asked for.
//!
//! Invariant: it shows what the broker lets the caller see, and adds nothing.

pub(crate) mod check;

use dayfly_api::RoleList;

use crate::{
    args::{Context, ReadArgs},
    failure::{self, Failure},
    output::{Align, Column, Table},
};

const COLUMNS: &[Column] = &[
    Column::cut("ROLE", 12),
    Column::whole("KIND"),
    Column::cut("BACKEND", 6),
    Column { name: "TTL", align: Align::Right, width_min: None },
    Column { name: "MAX", align: Align::Right, width_min: None },
    Column::cut("OWNER", 6),
    Column::cut("LABELS", 8),
];

/// `dayfly role list`.
pub(crate) async fn list(args: &ReadArgs, context: Context<'_>) -> Result<u8, Failure> {
    let (client, token) = context.signed_in(&args.identity).await?;
    let roles = client.roles(&token).await?;
    context.terminal.show(args.output, &roles, table)?;
    Ok(failure::OK)
}

fn table(roles: &RoleList) -> Table {
    let mut table = Table::new(COLUMNS);
    for role in &roles.data {
        let labels: Vec<String> =
            role.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        table.row([
            &role.name,
            &role.kind,
            &role.backend,
            &short(role.ttl_seconds),
            &short(role.ttl_max_seconds),
            &role.owner,
            &labels.join(" "),
        ]);
    }
    table
}

/// Seconds as `--ttl` takes them.
pub(crate) fn short(seconds: u64) -> String {
    let parts = [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let some = parts.iter().filter(|(count, _)| *count > 0);
    let text: Vec<String> = some.map(|(count, unit)| format!("{count}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text.concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_read_as_they_are_written() {
        assert_eq!([0, 2, 900, 5400, 86_401].map(short), ["0s", "2s", "15m", "1h30m", "24h1s"]);
    }
}
