//! The transactions of our own passwords.
//!
//! Invariant: whoever settles has seen what was staged: the epoch decides.

use super::Tx;
use crate::{Refusal, Root, Sealed, StoreError, Written, audit::Entry};

pub(super) async fn stage<T: Tx + ?Sized>(
    tx: &mut T,
    backend: &str,
    epoch: i64,
    next: &Sealed,
    actor: &str,
) -> Result<Written, StoreError> {
    let root = known(tx, backend, epoch).await?;
    let staged = root.stage(tx.now(), next.clone()).ok_or(Refusal::RootStaged)?;
    save(tx, &staged).await?;
    tx.append(Entry::new("root.staged", actor).with("backend", backend));
    Ok(Written::Root(Box::new(staged)))
}

pub(super) async fn settle<T: Tx + ?Sized>(
    tx: &mut T,
    backend: &str,
    epoch: i64,
    taken: bool,
    actor: &str,
) -> Result<Written, StoreError> {
    let root = known(tx, backend, epoch).await?;
    let settled = root.settle(tx.now(), taken).ok_or(Refusal::RootChanged)?;
    save(tx, &settled).await?;
    let event = if taken { "root.rotated" } else { "root.kept" };
    tx.append(Entry::new(event, actor).with("backend", backend));
    Ok(Written::Root(Box::new(settled)))
}

async fn known<T: Tx + ?Sized>(tx: &mut T, backend: &str, epoch: i64) -> Result<Root, StoreError> {
    let root = tx.root(backend).await?.unwrap_or_else(|| Root::configured(backend));
    if root.epoch == epoch { Ok(root) } else { Err(Refusal::RootChanged.into()) }
}

async fn save<T: Tx + ?Sized>(tx: &mut T, root: &Root) -> Result<(), StoreError> {
    if tx.set_root(root).await? { Ok(()) } else { Err(Refusal::RootChanged.into()) }
}
