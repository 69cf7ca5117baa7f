//! One role's credential, for as long as somebody may ask for it: minted at its first use, renewed,
//! replaced before it can't be renewed any more.
//!
//! Invariant: what is given out lives on for a while, if the role allows it; a credential is revoked
//! only when its successor is there, and not before the end that somebody was told. Only
//! [`Holder::keep`] asks the broker: who asked and went away, as AWS's SDKs do after a second or two,
//! takes no mint with him, and finds the credential when he asks again.

mod schedule;

use std::{
    cell::RefCell, convert::Infallible, fmt, mem::take, pin::Pin, sync::Arc, time::Duration,
};

use dayfly_api::Lease;
use tokio::sync::{Notify, oneshot};

use crate::{
    agent::{
        clock::{sleep_until, uptime},
        hold::schedule::{Held, Step, Use, next},
    },
    client::{self, Client, jittered},
    credential::Handed,
    failure::Failure,
    identity::Token,
    output::Terminal,
};

/// Shorter pauses between attempts would only load a broker in trouble.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// What is shown to those who look at the broker.
const REVOKED: &str = "not given out any more by the agent";

/// The open task in whose name credentials are minted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Minter<'a> {
    pub(crate) client: &'a Client,
    pub(crate) token: &'a Token,
    pub(crate) terminal: &'a Terminal,
    /// When the task ends, as the broker writes it.
    pub(crate) task_ends: &'a str,
    pub(crate) heard: Option<&'a dyn Heard>,
}

/// Who hears of each lease, before anybody gets its credential.
pub(crate) trait Heard: fmt::Debug {
    /// There is one.
    fn minted<'f>(&'f self, lease: &'f Lease) -> Pin<Box<dyn Future<Output = ()> + 'f>>;
    /// It lives longer than was known.
    fn renewed(&self, lease: &str, expires_at: &str);
}

/// What is kept for one role.
#[derive(Debug)]
pub(crate) struct Holder<'a> {
    minter: Minter<'a>,
    role: String,
    /// Whether there is always one, asked for or not.
    eager: bool,
    /// How long a replaced one is left to who was not told its end.
    overlap: Duration,
    state: RefCell<State>,
    /// Something is different from what [`Holder::keep`] waits for.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Held>,
    /// What is to be revoked, and when.
    retired: Vec<(String, Duration)>,
    /// Who wants one; all get the same.
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
    /// Its trouble was told.
    warned: bool,
}

impl<'a> Holder<'a> {
    pub(crate) fn new(minter: Minter<'a>, role: &str, eager: bool, overlap: Duration) -> Self {
        Self {
            minter,
            role: role.to_owned(),
            eager,
            overlap,
            state: RefCell::default(),
            changed: Notify::new(),
        }
    }

    /// One that has its first credential already, which came with the task that was asked for at
    /// `from`. It is replaced while somebody uses it.
    pub(crate) fn holding(
        minter: Minter<'a>,
        lease: Lease,
        from: Duration,
        overlap: Duration,
    ) -> Result<Self, Error> {
        let holder = Self::new(minter, &lease.role, false, overlap);
        let held = holder.read(lease, from)?;
        holder.state.borrow_mut().current = Some(held);
        Ok(holder)
    }

    pub(crate) fn role(&self) -> &str {
        &self.role
    }

    /// A credential that lives on for a while, and its end, which is told to who gets it.
    pub(crate) async fn told(&self) -> Result<Handed, Error> {
        self.given(Use::Told).await
    }

    /// The same for somebody who can't be told when it ends.
    pub(crate) async fn untold(&self) -> Result<Handed, Error> {
        self.given(Use::Untold).await
    }

    /// Gets the first credential without giving it out.
    pub(crate) async fn fill(&self) -> Result<(), Error> {
        self.mint().await
    }

    /// What is held, without giving it out.
    pub(crate) fn held(&self) -> Option<Handed> {
        let state = self.state.borrow();
        let alive = state.current.as_ref().filter(|held| held.is_alive(uptime()));
        alive.map(|held| held.handed.clone())
    }

    async fn given(&self, how: Use) -> Result<Handed, Error> {
        if let Some(handed) = self.fresh(how) {
            return Ok(handed);
        }
        let (sender, minted) = oneshot::channel();
        self.state.borrow_mut().waiting.push(sender);
        self.changed.notify_one();
        let nothing = || Error::Unreadable { role: self.role.clone() };
        let minted = minted.await.unwrap_or_else(|_| Err(nothing()));
        let mut state = self.state.borrow_mut();
        match state.current.as_mut().filter(|held| held.is_alive(uptime())) {
            // What there is still works, and is better than nothing.
            Some(held) => Ok(self.give(held, how)),
            None => Err(minted.err().unwrap_or_else(nothing)),
        }
    }

    fn fresh(&self, how: Use) -> Option<Handed> {
        let mut state = self.state.borrow_mut();
        let held = state.current.as_mut()?;
        held.is_fresh(uptime()).then(|| self.give(held, how))
    }

    /// What somebody has is replaced in time, and what nobody has is not.
    fn give(&self, held: &mut Held, how: Use) -> Handed {
        self.changed.notify_one();
        held.give(how)
    }

    /// Gets another one and retires the one there was.
    async fn mint(&self) -> Result<(), Error> {
        let Minter { client, token, terminal, heard, .. } = self.minter;
        let from = uptime();
        let lease = client.create_lease(token, &self.role).await?;
        if let Some(heard) = heard {
            heard.minted(&lease).await;
        }
        terminal.note(&format!(
            "task {}: role `{}` → lease {} ({}, until {})",
            lease.task, lease.role, lease.id, lease.backend, lease.expires_at
        ));
        let held = self.read(lease, from)?;
        let mut state = self.state.borrow_mut();
        state.warned = false;
        if let Some(old) = state.current.replace(held)
            && let Some(at) = old.retire(uptime(), self.overlap)
        {
            state.retired.push((old.handed.lease, at));
        }
        Ok(())
    }

    fn read(&self, lease: Lease, from: Duration) -> Result<Held, Error> {
        let unreadable = || Error::Unreadable { role: self.role.clone() };
        Held::read(lease, from, self.minter.task_ends).ok_or_else(unreadable)
    }

    /// Mints when somebody asks; renews, replaces and revokes as the time comes.
    pub(crate) async fn keep(&self) -> Infallible {
        loop {
            let waiting = take(&mut self.state.borrow_mut().waiting);
            if !waiting.is_empty() {
                self.serve(waiting).await;
                continue;
            }
            let step = {
                let state = self.state.borrow();
                next(state.current.as_ref(), &state.retired, self.eager)
            };
            let Some((mut at, step)) = step else {
                self.changed.notified().await;
                continue;
            };
            if let Step::Renew { .. } = step {
                // Agents that started together need not come back together.
                let now = uptime();
                at = now + jittered(at.saturating_sub(now));
            }
            tokio::select! {
                () = sleep_until(at) => {}
                () = self.changed.notified() => continue,
            }
            match step {
                Step::Lapse => self.state.borrow_mut().current = None,
                Step::Renew { lease, asked } => self.renew(&lease, asked).await,
                Step::Replace => self.replace().await,
                Step::Revoke(lease) => self.revoke(&lease).await,
            }
        }
    }

    async fn serve(&self, mut waiting: Vec<oneshot::Sender<Result<(), Error>>>) {
        let is_fresh = self.is_fresh();
        let minted = if is_fresh { Ok(()) } else { self.mint().await };
        if let Err(error) = &minted
            && self.held().is_some()
        {
            // Those who asked get what there is.
            self.warn("get another credential", error.clone());
        }
        waiting.append(&mut self.state.borrow_mut().waiting);
        for one in waiting {
            // Who has gone finds it when he asks again.
            let _ = one.send(minted.clone());
        }
    }

    fn is_fresh(&self) -> bool {
        self.state.borrow().current.as_ref().is_some_and(|held| held.is_fresh(uptime()))
    }

    async fn renew(&self, lease: &str, asked: Duration) {
        let from = uptime();
        let seconds = i64::try_from(asked.as_secs().max(1)).unwrap_or(i64::MAX);
        let renewed = self.minter.client.renew_lease(self.minter.token, lease, seconds).await;
        let fault = {
            let mut state = self.state.borrow_mut();
            // It may have been replaced while the broker was asked.
            let Some(held) = state.current.as_mut().filter(|held| held.handed.lease == lease)
            else {
                return;
            };
            match renewed {
                Ok(renewed) => {
                    if let Some(heard) = self.minter.heard {
                        heard.renewed(lease, &renewed.expires_at);
                    }
                    held.renewed(&renewed, from, self.minter.task_ends);
                    state.warned = false;
                    return;
                }
                Err(error) => {
                    let again = error.is_temporary().then(|| later(held.left(uptime())));
                    held.not_renewed(again);
                    error
                }
            }
        };
        self.warn("renew its credential", fault.into());
    }

    async fn replace(&self) {
        if self.is_fresh() {
            return;
        }
        if let Err(error) = self.mint().await {
            if let Some(held) = self.state.borrow_mut().current.as_mut() {
                held.not_replaced(later(held.left(uptime())));
            }
            self.warn("get another credential", error);
        }
    }

    async fn revoke(&self, lease: &str) {
        self.state.borrow_mut().retired.retain(|(retired, _)| retired != lease);
        let Minter { client, token, .. } = self.minter;
        let revoked = client.revoke_lease(token, lease, REVOKED, Duration::ZERO).await;
        if let Err(error) = revoked {
            self.warn("revoke a credential, which ends by itself", error.into());
        }
    }

    /// Lets go of `lease` and has it revoked, if it is what is held: somebody found that it is not
    /// accepted any more. Says whether it was.
    pub(crate) fn erase(&self, lease: &str) -> bool {
        let mut state = self.state.borrow_mut();
        if state.current.as_ref().is_none_or(|held| held.handed.lease != lease) {
            return false;
        }
        state.current = None;
        state.retired.push((lease.to_owned(), uptime()));
        self.changed.notify_one();
        true
    }

    /// Tells of trouble once, until something goes well again.
    fn warn(&self, what: &str, error: Error) {
        if std::mem::replace(&mut self.state.borrow_mut().warned, true) {
            return;
        }
        self.minter.terminal.warn(&format!(
            "role `{}`: cannot {what}: {}",
            self.role,
            Failure::from(error).to_line()
        ));
    }
}

/// When to try again with so much left.
fn later(left: Duration) -> Duration {
    uptime() + jittered(left / 4).max(PAUSE_MIN)
}

/// Why there is no credential. Several may hear it.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Client(Arc<client::Error>),
    #[error(
        "the broker gave no credential for role `{role}` that is alive; look for its lease in \
         the broker's log"
    )]
    Unreadable { role: String },
}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Self {
        Self::Client(Arc::new(error))
    }
}
