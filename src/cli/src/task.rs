//! `dayfly task`: units of work, from their beginning to their end.
//!
//! Invariant: a task is called ended only when every credential of it is verified dead.

mod open;

use dayfly_api::{Completed, LeaseCounts, OnBehalfOf, Task, TaskPage};

pub(crate) use crate::task::open::{lengthened, open};
use crate::{
    args::{Context, ShowArgs, TaskCompleteArgs, TaskListArgs},
    client::Filter,
    failure::{self, Failure},
    lease,
    output::{Column, Table, record},
};

/// How many tasks are asked for at a time.
const PAGE: usize = 100;

const COLUMNS: &[Column] = &[
    Column::whole("ID"),
    Column::whole("STATE"),
    Column::cut("PURPOSE", 8),
    Column::whole("EXPIRES"),
    Column::cut("PRINCIPAL", 12),
    Column::cut("LEASES", 8),
];

/// `dayfly task list`.
pub(crate) async fn list(args: &TaskListArgs, context: Context<'_>) -> Result<u8, Failure> {
    let (client, token) = context.signed_in(&args.read.identity).await?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let filter = filter(args, limit.min(PAGE));
    let mut all = client.tasks(&token, &filter, None).await?;
    while all.data.len() < limit
        && let Some(cursor) = all.next_cursor.take()
    {
        let page = client.tasks(&token, &filter, Some(&cursor)).await?;
        // What the caller may not see is left out of a page; the next one may still have some.
        all.data.extend(page.data);
        all.next_cursor = page.next_cursor.filter(|next| *next != cursor);
    }
    let more = all.next_cursor.is_some() || all.data.len() > limit;
    all.data.truncate(limit);
    context.terminal.show(args.read.output, &all, table)?;
    if more {
        context.terminal.note(&format!("there are more than {limit}; see --limit"));
    }
    Ok(failure::OK)
}

fn filter(args: &TaskListArgs, page: usize) -> Filter {
    let named = [("state", &args.state), ("principal", &args.principal), ("issuer", &args.issuer)];
    let set = named.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    Filter(set.chain([("limit", page.to_string())]).collect())
}

fn table(page: &TaskPage) -> Table {
    let mut table = Table::new(COLUMNS);
    for task in &page.data {
        table.row([
            &task.id,
            &task.state,
            &task.purpose,
            &task.expires_at,
            &task.principal,
            &counted(&task.leases),
        ]);
    }
    table
}

/// `dayfly task show`.
pub(crate) async fn show(args: &ShowArgs, context: Context<'_>) -> Result<u8, Failure> {
    let (client, token) = context.signed_in(&args.read.identity).await?;
    let task = client.task(&token, &args.id).await?;
    context.terminal.show(args.read.output, &task, one)?;
    Ok(failure::OK)
}

fn one(task: &Task) -> Table {
    let on_behalf_of = task.on_behalf_of.as_ref().map(OnBehalfOf::shown).unwrap_or_default();
    record([
        ("id", &task.id),
        ("state", &task.state),
        ("purpose", &task.purpose),
        ("principal", &task.principal),
        ("on behalf of", &on_behalf_of),
        ("issuer", &task.issuer),
        ("opened", &task.opened_at),
        ("expires", &task.expires_at),
        ("closed", task.closed_at.as_deref().unwrap_or_default()),
        ("bound to", task.binding.as_deref().unwrap_or_default()),
        ("leases", &counted(&task.leases)),
    ])
}

/// `dayfly task complete`.
pub(crate) async fn complete(args: &TaskCompleteArgs, context: Context<'_>) -> Result<u8, Failure> {
    let (client, token) = context.signed_in(&args.read.identity).await?;
    if !args.wait.is_zero() {
        let what = format!("the credentials of task {} are", args.id);
        context.terminal.waits(&lease::until(&what, args.wait));
    }
    let completed = client.complete_task(&token, &args.id, args.outcome, args.wait).await?;
    context.terminal.show(args.read.output, &completed, ended)?;
    let Some(unproven) = unproven(&completed) else { return Ok(failure::OK) };
    context.terminal.warn(&unproven);
    Ok(failure::UNAVAILABLE)
}

/// What cannot be said of the credentials of a task that was completed: that all are verified dead.
pub(crate) fn unproven(completed: &Completed) -> Option<String> {
    let counts = &completed.leases;
    let owed = counts.owed();
    match completed.residual_until.as_deref() {
        Some(until) if owed > 0 && owed == counts.lingering => Some(format!(
            "{} can be used until {until}: the backend ends none before",
            credentials(owed)
        )),
        _ if owed > 0 => Some(format!(
            "{} not yet verified dead; the broker goes on revoking",
            credentials(owed)
        )),
        _ if counts.abandoned > 0 => Some(format!(
            "{} given up by two people, and nothing proves the end",
            credentials(counts.abandoned)
        )),
        _ => None,
    }
}

/// So many of them, in words.
pub(crate) fn credentials(count: u64) -> String {
    if count == 1 { "1 credential".to_owned() } else { format!("{count} credentials") }
}

fn ended(completed: &Completed) -> Table {
    record([
        ("id", &completed.id),
        ("state", &completed.state),
        ("leases", &counted(&completed.leases)),
        ("residual until", completed.residual_until.as_deref().unwrap_or_default()),
    ])
}

fn counted(leases: &LeaseCounts) -> String {
    let counts = [
        (leases.pending, "pending"),
        (leases.active, "active"),
        (leases.revoking, "revoking"),
        (leases.revoked, "revoked"),
    ];
    let some = counts.iter().filter(|(count, _)| *count > 0);
    let text: Vec<String> = some.map(|(count, state)| format!("{count} {state}")).collect();
    if text.is_empty() { "none".to_owned() } else { text.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_states_that_occur_are_counted() {
        assert_eq!(counted(&LeaseCounts::default()), "none");
        let leases = LeaseCounts { active: 2, revoked: 1, ..LeaseCounts::default() };
        assert_eq!(counted(&leases), "2 active, 1 revoked");
    }
}
