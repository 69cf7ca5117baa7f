//! `dayfly task`: units of work, from their beginning to their end.
//!
//! Invariant: a task is called ended only when every credential of it is verified dead.

mod open;

use dayfly_api::{Completed, LeaseCounts, OnBehalfOf, Task};

pub(crate) use crate::task::open::{lengthened, open};
use crate::{
    args::{Context, ShowArgs, TaskCompleteArgs},
    failure::{self, Failure},
    output::{Table, record},
};

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
    let completed = client.complete_task(&token, &args.id, args.outcome, args.wait).await?;
    context.terminal.show(args.read.output, &completed, ended)?;
    let owed = completed.leases.owed();
    if let Some(until) = completed.residual_until.as_deref()
        && owed == completed.leases.lingering
    {
        context.terminal.warn(&format!(
            "{owed} of the task's credentials cannot be ended at their backend and work until {until}"
        ));
        return Ok(failure::UNAVAILABLE);
    }
    if owed > 0 {
        context.terminal.warn(&format!(
            "{owed} of the task's credentials not yet verified dead; the broker goes on revoking"
        ));
        return Ok(failure::UNAVAILABLE);
    }
    Ok(failure::OK)
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
