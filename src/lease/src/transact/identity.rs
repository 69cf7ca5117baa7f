//! The transactions of identities: disabled, enabled, their tasks ended.
//!
//! Invariant: opening a task and disabling its identity both lock the identity before they look, so
//! that whoever comes second sees what the first one did: no task of a disabled identity stays
//! open.

use dayfly_backend_sdk::Timestamp;

use super::{OpenTasks, Tx, task};
use crate::{
    Cause, Disabled, Disabling, NewTask, Refusal, Replay, StoreError, TaskEnd, Written,
    audit::Entry,
};

/// Refuses a task of a disabled identity, and one on behalf of a person who is.
pub(super) async fn may_open<T: Tx + ?Sized>(tx: &mut T, new: &NewTask) -> Result<(), StoreError> {
    let disabled = tx.disabled(&new.principal, false).await?;
    if disabled.is_some_and(|disabled| disabled.refuses(new.issued_at)) {
        return Err(Refusal::IdentityDisabled.into());
    }
    let Some(person) = &new.on_behalf_of else { return Ok(()) };
    let disabled = tx.disabled(&person.principal, false).await?;
    if disabled.is_some_and(|disabled| disabled.refuses(new.person_issued_at)) {
        return Err(Refusal::PersonDisabled.into());
    }
    Ok(())
}

pub(super) async fn disable<T: Tx + ?Sized>(
    tx: &mut T,
    disabling: &Disabling,
) -> Result<Written, StoreError> {
    let now = tx.now();
    let before = tx.disabled(&disabling.principal, true).await?;
    if let Some(delivery) = &disabling.delivery {
        let expires_at = now.plus(disabling.keep);
        if tx.remember(&[Replay { key: delivery.clone(), expires_at }]).await?.is_some() {
            return Ok(Written::Count(0));
        }
    }
    tx.set_disabled(&disabling.over(before, now)).await?;
    let entry = Entry::new("identity.disabled", disabling.actor.as_str())
        .with("principal", disabling.principal.as_str())
        .with("cut_off", disabling.cut_off.map(Timestamp::rfc3339))
        .with("reason", disabling.reason.as_deref());
    tx.append(entry);
    Ok(Written::Count(1))
}

pub(super) async fn enable<T: Tx + ?Sized>(
    tx: &mut T,
    principal: &str,
    actor: &str,
    reason: Option<&str>,
) -> Result<Written, StoreError> {
    if tx.disabled(principal, true).await?.is_none() {
        return Ok(Written::Count(0));
    }
    tx.enable(principal).await?;
    let entry = Entry::new("identity.enabled", actor).with("principal", principal);
    tx.append(entry.with("reason", reason));
    Ok(Written::Count(1))
}

pub(super) async fn end_tasks<T: Tx + ?Sized>(
    tx: &mut T,
    principal: Option<&str>,
    limit: u32,
) -> Result<Written, StoreError> {
    let principal = match principal {
        Some(principal) => Some(principal.to_owned()),
        None => tx.ending().await?,
    };
    let Some(principal) = principal else { return Ok(Written::Closed(Vec::new())) };
    // Somebody may have enabled it meanwhile.
    let disabled = tx.disabled(&principal, true).await?;
    let Some(disabled) = disabled.filter(|disabled| disabled.ending) else {
        return Ok(Written::Closed(Vec::new()));
    };
    let OpenTasks { tasks, after } = first_readable(tx, &principal, limit).await?;
    let mut closed = Vec::with_capacity(tasks.len());
    for task in tasks {
        let (end, cause) = (TaskEnd::Revoked, Cause::IdentityDisabled);
        closed.push(task::end_task(tx, task, end, cause, &disabled.by).await?);
    }
    if after.is_none() {
        tx.set_disabled(&Disabled { ending: false, ..disabled }).await?;
    }
    Ok(Written::Closed(closed))
}

/// The first portion of its open tasks with any that can be read. Whoever ended all of a portion
/// that has none would come to the same one again, and whoever stopped there would leave those
/// behind it open (I12).
async fn first_readable<T: Tx + ?Sized>(
    tx: &mut T,
    principal: &str,
    limit: u32,
) -> Result<OpenTasks, StoreError> {
    let mut portion = tx.tasks_of_principal(principal, None, limit).await?;
    while portion.tasks.is_empty() && portion.after.is_some() {
        portion = tx.tasks_of_principal(principal, portion.after, limit).await?;
    }
    Ok(portion)
}
