//! Making a user, on every node.
//!
//! Invariant: a name that is there is never changed. `ACL SETUSER` alone would add to its rules
//! and keep its password, so it is looked for first, and the rules begin with `reset`.
//!
//! With one node the mint's deadline is a guard at the node itself: a key that expires at the
//! deadline by the node's clock is watched, and a transaction that reaches the node after the
//! key is gone does nothing (Redis, transactions: expired keys abort since 6.0.9). With several
//! nodes there is none: a replica cannot keep such a key, and a cluster's node only some.

use std::time::Duration;

use dayfly_backend_sdk::{Handle, MintRequest};
use redis::{Pipeline, Value};

use crate::{
    connection::{Node, Open},
    error::Failure,
    rules::Recipe,
};

/// What creating a user takes on each node.
pub(crate) struct Order<'a> {
    pub(crate) request: &'a MintRequest<'a>,
    pub(crate) recipe: &'a Recipe,
    pub(crate) hash: &'a str,
    /// By how much the node's clock may be behind the one that the deadline is of.
    pub(crate) skew: Duration,
}

/// Creates the user on all of `nodes`. What was created before one of them failed stays.
pub(crate) async fn create(nodes: &[Node], order: &Order<'_>) -> Result<(), Failure> {
    let guarded = nodes.len() == 1;
    for node in nodes {
        let mut open = node.open().await?;
        if guarded {
            behind_guard(&mut open, order).await?;
        } else {
            if exists(&mut open, order.request.handle).await? {
                return Err(Failure::Taken { node: open.node().to_owned() });
            }
            open.ask::<()>(&setuser(&mut redis::pipe(), order)).await?;
        }
        open.save().await?;
    }
    Ok(())
}

async fn behind_guard(open: &mut Open<'_>, order: &Order<'_>) -> Result<(), Failure> {
    let guard = format!("{}:guard", order.request.handle);
    let deadline = order.request.mint_deadline.minus(order.skew).micros() / 1_000;
    let mut message = redis::pipe();
    // One that is past already is not kept, whatever this answers.
    message.cmd("SET").arg(&guard).arg("").arg("NX").arg("PXAT").arg(deadline);
    message.cmd("WATCH").arg(&guard).ignore();
    message.cmd("EXISTS").arg(&guard);
    let (set, kept): (Option<String>, bool) = open.ask(&message).await?;
    // The guard of a handle is set once: another mint of the same name is under way.
    if set.is_none() || exists(open, order.request.handle).await? {
        return Err(Failure::Taken { node: open.node().to_owned() });
    }
    let late = Failure::Late { node: open.node().to_owned() };
    if !kept {
        return Err(late);
    }
    let done: Value = open.ask(&setuser(redis::pipe().atomic(), order)).await?;
    if done == Value::Nil { Err(late) } else { Ok(()) }
}

fn setuser(message: &mut Pipeline, order: &Order<'_>) -> Pipeline {
    let handle = order.request.handle.as_str();
    message.cmd("ACL").arg("SETUSER").arg(handle).arg("reset").arg("on").arg(order.hash);
    message.arg(&order.recipe.rules).clone()
}

/// Whether a user of this name is there.
pub(crate) async fn exists(open: &mut Open<'_>, handle: &Handle) -> Result<bool, Failure> {
    let mut message = redis::pipe();
    message.cmd("ACL").arg("GETUSER").arg(handle.as_str());
    let (user,): (Value,) = open.ask(&message).await?;
    Ok(user != Value::Nil)
}
