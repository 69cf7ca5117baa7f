//! Named points at the engine's awaits where a test may abort, delay or fail.
//!
//! Invariant: without the feature `failpoints` this is nothing: no table, no branch.

/// What a failpoint does when it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process dies on the spot, as with `kill -9`.
    Abort,
    /// The step waits this many milliseconds.
    DelayMs(u64),
    /// The step fails.
    Error,
}

/// A failpoint made its step fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// Every point, so that suites can enumerate them.
pub const POINTS: &[&str] = &[
    "mint.before_intent",
    "mint.after_intent",
    "mint.after_backend",
    "mint.after_activate",
    "deliver.before_mark",
    "renew.after_row",
    "complete.after_close",
    "revoke.after_claim",
    "revoke.after_backend",
    "revoke.before_bury",
];

/// Reached `name`.
#[cfg(not(feature = "failpoints"))]
#[expect(clippy::unused_async, reason = "the same signature with the feature on")]
pub(crate) async fn reached(_name: &'static str) -> Result<(), Failed> {
    Ok(())
}

#[cfg(feature = "failpoints")]
pub(crate) use on::reached;
#[cfg(feature = "failpoints")]
pub use on::set;

#[cfg(feature = "failpoints")]
mod on {
    use std::{
        collections::BTreeMap,
        sync::{Mutex, PoisonError},
        time::Duration,
    };

    use super::{Action, Failed, POINTS};

    static TABLE: Mutex<BTreeMap<&'static str, Action>> = Mutex::new(BTreeMap::new());

    /// Sets points from `name=action` pairs separated by `;`, with `abort`, `error` or
    /// `delay:MS` for the action; says which pair it could not read.
    pub fn set(text: &str) -> Result<(), String> {
        for pair in text.split(';').filter(|pair| !pair.trim().is_empty()) {
            let parsed = pair.trim().split_once('=').and_then(|(name, action)| {
                let name = POINTS.iter().find(|point| **point == name)?;
                let action = match action.split_once(':') {
                    None if action == "abort" => Action::Abort,
                    None if action == "error" => Action::Error,
                    Some(("delay", ms)) => Action::DelayMs(ms.parse().ok()?),
                    _ => return None,
                };
                Some((*name, action))
            });
            let (name, action) = parsed.ok_or_else(|| format!("failpoint `{pair}`"))?;
            TABLE.lock().unwrap_or_else(PoisonError::into_inner).insert(name, action);
        }
        Ok(())
    }

    pub(crate) async fn reached(name: &'static str) -> Result<(), Failed> {
        debug_assert!(POINTS.contains(&name), "unlisted failpoint {name}");
        let action = TABLE.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        match action {
            None => Ok(()),
            Some(Action::Abort) => std::process::abort(),
            Some(Action::DelayMs(ms)) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Ok(())
            }
            Some(Action::Error) => Err(Failed),
        }
    }
}
