//! The end of users: deleted, saved and looked for, on every node.
//!
//! Deleting one takes the rights of its connections and closes them in one step of the server.
//! What is not saved would be back after a restart (Redis, ACL: external ACL files).
//!
//! Invariant: a user is gone when every node says so; a node that does not answer leaves all
//! of them alive.

use std::{collections::BTreeSet, time::Duration};

use dayfly_backend_sdk::{Doomed, Handle, Liveness, Revocation};
use redis::Value;

use crate::{
    connection::{Node, Open},
    error::Failure,
};

/// A connection that was ended may be listed a moment longer.
const LOOKS: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Ends all of `doomed`, and says of each whether it is gone.
pub(crate) async fn revoke(nodes: &[Node], doomed: &[Doomed]) -> Vec<Revocation> {
    const DOING: &str = "the user could not be deleted";
    if doomed.is_empty() {
        return Vec::new();
    }
    let handles: Vec<&Handle> = doomed.iter().map(|one| &one.handle).collect();
    let mut failed: Option<Failure> = None;
    let mut left = BTreeSet::new();
    // All of them, also after one has failed: a dead replica keeps nobody alive at the others.
    for node in nodes {
        match end_at(node, &handles).await {
            Ok(alive) => left.extend(alive.into_iter().map(|name| (name, node.name.clone()))),
            Err(failure) => failed = Some(failure),
        }
    }
    let outcome = |handle: &&Handle| {
        if let Some(failure) = &failed {
            return Revocation::Failed(failure.clone().into_error(DOING));
        }
        match left.iter().find(|(name, _)| name == handle.as_str()) {
            Some((_, node)) => {
                let failure = Failure::Survived { node: node.clone() };
                Revocation::Failed(failure.into_error(DOING))
            }
            None => Revocation::Gone,
        }
    };
    handles.iter().map(outcome).collect()
}

/// Which of `doomed` are there, or have a connection, at any node.
pub(crate) async fn verify(nodes: &[Node], doomed: &[Doomed]) -> Result<Vec<Liveness>, Failure> {
    let handles: Vec<&Handle> = doomed.iter().map(|one| &one.handle).collect();
    let mut left = BTreeSet::new();
    for node in nodes {
        left.extend(alive(&mut node.open().await?, &handles).await?);
    }
    let state = |handle: &&Handle| {
        if left.contains(handle.as_str()) { Liveness::Live } else { Liveness::Gone }
    };
    Ok(handles.iter().map(state).collect())
}

async fn end_at(node: &Node, handles: &[&Handle]) -> Result<BTreeSet<String>, Failure> {
    let mut open = node.open().await?;
    let mut message = redis::pipe();
    message.cmd("ACL").arg("DELUSER");
    for handle in handles {
        message.arg(handle.as_str());
    }
    open.ask::<()>(message.ignore()).await?;
    // Also when nothing was deleted: the attempt before may have ended in between.
    open.save().await?;
    let mut looks = 1;
    loop {
        let left = alive(&mut open, handles).await?;
        if left.is_empty() || looks == LOOKS {
            return Ok(left);
        }
        looks += 1;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Which of them are there, or have a connection.
async fn alive(open: &mut Open<'_>, handles: &[&Handle]) -> Result<BTreeSet<String>, Failure> {
    let mut message = redis::pipe();
    for handle in handles {
        message.cmd("ACL").arg("GETUSER").arg(handle.as_str());
    }
    let users: Vec<Value> = open.ask(&message).await?;
    let mut list = redis::pipe();
    list.cmd("CLIENT").arg("LIST");
    let (clients,): (String,) = open.ask(&list).await?;
    let connected: BTreeSet<&str> =
        clients.split_ascii_whitespace().filter_map(|field| field.strip_prefix("user=")).collect();
    let there = handles
        .iter()
        .zip(users)
        .filter(|(handle, user)| *user != Value::Nil || connected.contains(handle.as_str()));
    Ok(there.map(|(handle, _)| handle.as_str().to_owned()).collect())
}
