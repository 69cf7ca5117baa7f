//! Named points at the engine's and the stores' awaits where a test may abort, delay or fail.
//!
//! Invariant: without the feature `failpoints` this is nothing: no table, no branch.

#[cfg(not(feature = "failpoints"))]
use std::sync::Arc;

#[cfg(not(feature = "failpoints"))]
use dayfly_backend_sdk::Backend;

#[cfg(not(feature = "failpoints"))]
use crate::Store;

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
    // Around every write that the engine asks for, and every call of a backend.
    "store.open_task.before",
    "store.open_task.after",
    "store.note.before",
    "store.note.after",
    "store.intend.before",
    "store.intend.after",
    "store.activate.before",
    "store.activate.after",
    "store.deliver.before",
    "store.deliver.after",
    "store.condemn.before",
    "store.condemn.after",
    "store.settle.before",
    "store.settle.after",
    "store.renew.before",
    "store.renew.after",
    "store.shorten.before",
    "store.shorten.after",
    "store.close_task.before",
    "store.close_task.after",
    "store.expire_tasks.before",
    "store.expire_tasks.after",
    "store.claim.before",
    "store.claim.after",
    "store.bury.before",
    "store.bury.after",
    "store.postpone.before",
    "store.postpone.after",
    "store.hand_back.before",
    "store.hand_back.after",
    "store.take_turn.before",
    "store.take_turn.after",
    "backend.mint.before",
    "backend.mint.after",
    "backend.renew.before",
    "backend.renew.after",
    "backend.revoke.before",
    "backend.revoke.after",
    "backend.verify.before",
    "backend.verify.after",
    "backend.list.before",
    "backend.list.after",
    "backend.mark.before",
    "backend.mark.after",
    // Within the stores' writers, where many writes and their audit records are one commit.
    "commit.before",
    "commit.after",
];

/// Those of a change of our own password at a backend, which happens only when it is asked for.
pub const ROOT_POINTS: &[&str] = &["root.staged", "root.set", "root.settled"];

/// Reached `name`.
///
/// # Errors
/// [`Failed`] when the point is armed to fail.
#[cfg(not(feature = "failpoints"))]
#[expect(clippy::unused_async, reason = "the same signature with the feature on")]
pub async fn reached(_name: &'static str) -> Result<(), Failed> {
    Ok(())
}

/// Reached `name` on a thread that may block.
///
/// # Errors
/// [`Failed`] when the point is armed to fail.
#[cfg(not(feature = "failpoints"))]
pub fn reached_blocking(_name: &'static str) -> Result<(), Failed> {
    Ok(())
}

#[cfg(feature = "failpoints")]
mod around;
#[cfg(feature = "failpoints")]
pub(crate) use around::{around_backend, around_store};

/// The store itself.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn around_store(store: Arc<dyn Store>) -> Arc<dyn Store> {
    store
}

/// The backend itself.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn around_backend(backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
    backend
}

#[cfg(feature = "failpoints")]
pub use on::{reached, reached_blocking, set};

#[cfg(feature = "failpoints")]
mod on {
    use std::{
        collections::BTreeMap,
        sync::{Mutex, MutexGuard, PoisonError},
        time::Duration,
    };

    use super::{Action, Failed, POINTS, ROOT_POINTS};

    /// An armed point.
    #[derive(Clone, Copy)]
    struct Armed {
        action: Action,
        /// How often it is passed before it acts.
        passes: u32,
    }

    static TABLE: Mutex<BTreeMap<&'static str, Armed>> = Mutex::new(BTreeMap::new());

    /// Sets points from `name=action` pairs separated by `;`, with `abort`, `error` or
    /// `delay:MS` for the action, after `N*off->` for one that lets the first N pass; says
    /// which pair it could not read.
    pub fn set(text: &str) -> Result<(), String> {
        for pair in text.split(';').filter(|pair| !pair.trim().is_empty()) {
            let parsed = pair.trim().split_once('=').and_then(|(name, armed)| {
                let name = POINTS.iter().chain(ROOT_POINTS).find(|point| **point == name)?;
                Some((*name, parse(armed)?))
            });
            let (name, armed) = parsed.ok_or_else(|| format!("failpoint `{pair}`"))?;
            table().insert(name, armed);
        }
        Ok(())
    }

    fn parse(armed: &str) -> Option<Armed> {
        let (passes, action) = match armed.split_once("*off->") {
            None => (0, armed),
            Some((passes, action)) => (passes.parse().ok()?, action),
        };
        let action = match action.split_once(':') {
            None if action == "abort" => Action::Abort,
            None if action == "error" => Action::Error,
            Some(("delay", ms)) => Action::DelayMs(ms.parse().ok()?),
            _ => return None,
        };
        Some(Armed { action, passes })
    }

    fn table() -> MutexGuard<'static, BTreeMap<&'static str, Armed>> {
        TABLE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the point does this time; the log says that it was reached.
    fn due(name: &'static str) -> Option<Action> {
        debug_assert!(
            POINTS.contains(&name) || ROOT_POINTS.contains(&name),
            "unlisted failpoint {name}"
        );
        let action = {
            let mut table = table();
            let armed = table.get_mut(name)?;
            if armed.passes > 0 {
                armed.passes -= 1;
                return None;
            }
            armed.action
        };
        tracing::warn!(failpoint = name, ?action, "failpoint.reached");
        if action == Action::Abort {
            std::process::abort();
        }
        Some(action)
    }

    /// Reached `name`.
    ///
    /// # Errors
    /// [`Failed`] when the point is armed to fail.
    pub async fn reached(name: &'static str) -> Result<(), Failed> {
        match due(name) {
            Some(Action::DelayMs(ms)) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Some(Action::Error) => return Err(Failed),
            Some(Action::Abort) | None => {}
        }
        Ok(())
    }

    /// The same on a thread that may block.
    ///
    /// # Errors
    /// [`Failed`] when the point is armed to fail.
    pub fn reached_blocking(name: &'static str) -> Result<(), Failed> {
        match due(name) {
            Some(Action::DelayMs(ms)) => std::thread::sleep(Duration::from_millis(ms)),
            Some(Action::Error) => return Err(Failed),
            Some(Action::Abort) | None => {}
        }
        Ok(())
    }
}
