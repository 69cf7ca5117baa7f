//! Whose prefix this is: a user that nobody can log in as, with the owner as its only pattern.
//! It is kept and restored where the users are.
//!
//! Invariant: another installation's marker is never replaced, and the marker's name is not one
//! that a handle can have.

use dayfly_backend_sdk::{Error, ErrorKind, HandlePrefix, Marker, Retry};
use redis::Value;

use crate::{
    connection::{Node, Open},
    error::Failure,
};

/// Whoever writes the marker keeps others out for so long, in milliseconds.
const LOCK_MS: u32 = 10_000;

fn name(prefix: &HandlePrefix) -> String {
    format!("{}marker", prefix.as_str())
}

/// The marker that has come furthest, of those at the nodes.
pub(crate) async fn read(nodes: &[Node], prefix: &HandlePrefix) -> Result<Option<Marker>, Error> {
    let mut furthest: Option<Marker> = None;
    for node in nodes {
        let mut open = node.open().await.map_err(unread)?;
        let Some(found) = read_at(&mut open, prefix).await? else { continue };
        match &furthest {
            Some(before) if before.installation != found.installation => {
                let message = format!("the nodes' markers differ at {}", node.name);
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            Some(before) if before.turn >= found.turn => {}
            Some(_) | None => furthest = Some(found),
        }
    }
    Ok(furthest)
}

/// Makes or moves the marker at each node.
pub(crate) async fn write(
    nodes: &[Node],
    prefix: &HandlePrefix,
    marker: &Marker,
) -> Result<(), Error> {
    let Some(first) = nodes.first() else { return Ok(()) };
    let lock = format!("{}:lock", name(prefix));
    let mut locked = first.open().await.map_err(unwritten)?;
    let mut message = redis::pipe();
    message.cmd("SET").arg(&lock).arg("").arg("NX").arg("PX").arg(LOCK_MS);
    let (set,): (Option<String>,) = locked.ask(&message).await.map_err(unwritten)?;
    if set.is_none() {
        let busy = Error::new(ErrorKind::Unavailable, "somebody else is writing the marker");
        return Err(busy.with_retry(Retry::Temporary));
    }
    let written = write_locked(nodes, prefix, marker).await;
    let mut message = redis::pipe();
    message.cmd("DEL").arg(&lock).ignore();
    // If that is lost the lock goes by itself.
    locked.ask::<()>(&message).await.ok();
    written
}

async fn write_locked(nodes: &[Node], prefix: &HandlePrefix, marker: &Marker) -> Result<(), Error> {
    if let Some(found) = read(nodes, prefix).await?
        && found.installation != marker.installation
    {
        let message = format!("the prefix belongs to installation {}", found.installation);
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let pattern = format!("~{}", marker.to_text().replace(' ', ":"));
    for node in nodes {
        let mut open = node.open().await.map_err(unwritten)?;
        let mut message = redis::pipe();
        message.cmd("ACL").arg("SETUSER").arg(name(prefix)).arg("reset").arg("off");
        open.ask::<()>(message.arg(&pattern).ignore()).await.map_err(unwritten)?;
        open.save().await.map_err(unwritten)?;
    }
    Ok(())
}

async fn read_at(open: &mut Open<'_>, prefix: &HandlePrefix) -> Result<Option<Marker>, Error> {
    let mut message = redis::pipe();
    message.cmd("ACL").arg("GETUSER").arg(name(prefix));
    let (user,): (Value,) = open.ask(&message).await.map_err(unread)?;
    if user == Value::Nil {
        return Ok(None);
    }
    if let Some(marker) = texts(&user).iter().find_map(|text| parse(text)) {
        return Ok(Some(marker));
    }
    let message = format!("the user `{}` is there and is no marker of Dayfly", name(prefix));
    Err(Error::new(ErrorKind::Conflict, message))
}

fn parse(pattern: &str) -> Option<Marker> {
    Marker::parse(&pattern.strip_prefix('~').unwrap_or(pattern).replace(':', " "))
}

/// Every text in an answer: versions differ in where they put a user's patterns.
fn texts(value: &Value) -> Vec<String> {
    if let Value::BulkString(bytes) = value {
        String::from_utf8(bytes.clone()).into_iter().collect()
    } else if let Value::SimpleString(text) = value {
        vec![text.clone()]
    } else if let Value::Array(values) | Value::Set(values) = value {
        values.iter().flat_map(texts).collect()
    } else if let Value::Map(pairs) = value {
        pairs.iter().flat_map(|(_, value)| texts(value)).collect()
    } else {
        Vec::new()
    }
}

fn unread(failure: Failure) -> Error {
    failure.into_error("the marker could not be read")
}

fn unwritten(failure: Failure) -> Error {
    failure.into_error("the marker could not be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_goes_there_and_back() {
        let installation = "0192f0c1-7e2a-7000-8000-000000000001".parse().unwrap();
        let marker = Marker { installation, turn: 7 };
        let pattern = format!("~{}", marker.to_text().replace(' ', ":"));
        assert!(!pattern.contains(char::is_whitespace));
        assert_eq!(parse(&pattern), Some(marker));
        assert_eq!(parse("~app:*"), None);
    }
}
