//! Minting: intent, backend, activation, delivery, in this order and no other.
//!
//! Invariant: whatever fails or dies after the intent leaves a row that the reaper pays off.
//! The saga runs detached from the connection, because a handler's future is dropped when
//! its client goes away.

use std::{sync::Arc, time::Duration};

use dayfly_backend_sdk::{Credential, ErrorKind, HandleError, MintRequest, Revocation, Template};
use tokio::sync::oneshot;

use super::{Engine, Line, Pass, SweepError, breaker::Probe};
use crate::{
    Cause, Clock, IdempotencyKey, Intent, Lease, LeaseId, Refusal, SealError, StoreError, TaskId,
    Write, Written,
    audit::Entry,
    failpoint,
    planted::{self, Bug},
    quota::Quota,
};

/// What is to be minted. The server makes it from a permit, which it takes by value.
#[derive(Debug)]
pub struct Order {
    /// Whose task.
    pub task: TaskId,
    /// The role's name.
    pub role: String,
    /// The backend's name.
    pub backend: String,
    /// The role's template, checked by the backend.
    pub template: Template,
    /// How long from now.
    pub ttl: Duration,
    /// How long at most, renewals included.
    pub ttl_max: Duration,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// What must have room.
    pub quotas: Vec<Quota>,
    /// The client's idempotency key.
    pub key: Option<IdempotencyKey>,
    /// The decision that allowed it.
    pub decision: Entry,
}

/// A credential under its lease, to be handed over or lost.
#[derive(Debug)]
pub struct Minted {
    /// The lease, active.
    pub lease: Lease,
    /// The secret.
    pub credential: Credential,
    /// The proof of handing it over.
    pub delivery: Delivery,
}

/// Dropped without [`Delivery::handed_over`], the lease is revoked at once: nobody has the
/// credential.
#[derive(Debug)]
pub struct Delivery {
    engine: Option<Arc<Engine>>,
    lease: LeaseId,
    backend: String,
}

impl Delivery {
    /// The answer is with the client's connection.
    pub fn handed_over(mut self) {
        let Some(engine) = self.engine.take() else { return };
        let lease = self.lease;
        let own = Arc::clone(&engine);
        engine.detach(async move {
            let engine = own;
            if failpoint::reached("deliver.before_mark").await.is_err() {
                return;
            }
            // A mark that is lost fails towards revocation: the lease ends as undelivered.
            if let Err(error) = engine.store.write(Write::Deliver { lease }).await {
                tracing::warn!(lease.id = %lease, %error, "lease.delivery.unmarked");
            }
        });
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let Some(engine) = self.engine.take() else { return };
        if planted::is(Bug::UndeliveredKept) {
            return;
        }
        let (lease, backend) = (self.lease, std::mem::take(&mut self.backend));
        let own = Arc::clone(&engine);
        engine.detach(async move {
            let engine = own;
            engine.condemn_or_leave(lease, Cause::Undelivered, None).await;
            engine.wake(&backend);
        });
    }
}

/// Why nothing was minted, or nothing was delivered.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The backend failed.
    #[error("the backend could not mint")]
    Backend(#[source] dayfly_backend_sdk::Error),
    /// The backend is minting as much as it may.
    #[error("too many mints at this backend")]
    Busy,
    /// The backend is taken to be down.
    #[error("the backend is down")]
    Down {
        /// When it is asked again.
        after: Duration,
    },
    /// The lease has no valid name at its backend.
    #[error("the lease has no valid name at its backend")]
    Handle(#[source] HandleError),
    /// The engine stopped in the middle; the reaper takes it from here.
    #[error("the mint was interrupted")]
    Interrupted,
    /// The prefix at the backend is not ours, or nobody knows.
    #[error("whether the prefix at the backend is ours could not be made sure")]
    Owner(#[source] SweepError),
    /// What its end needs could not be sealed.
    #[error("what revoking it needs could not be sealed")]
    Seal(#[source] SealError),
    /// The store failed or refused.
    #[error("the lease could not be recorded")]
    Store(#[source] StoreError),
    /// The backend took too long.
    #[error("the backend did not answer in time")]
    Timeout,
    /// No such backend is configured.
    #[error("no backend of this name")]
    UnknownBackend,
}

impl MintError {
    /// What the store refused, if it did.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Store(error) => error.refusal(),
            Self::Backend(_)
            | Self::Busy
            | Self::Down { .. }
            | Self::Handle(_)
            | Self::Interrupted
            | Self::Owner(_)
            | Self::Seal(_)
            | Self::Timeout
            | Self::UnknownBackend => None,
        }
    }

    /// Whether the backend gave no answer that would show that it is there.
    fn is_silence(&self) -> bool {
        match self {
            Self::Timeout => true,
            Self::Backend(error) => {
                matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::UnknownOutcome)
            }
            Self::Busy
            | Self::Down { .. }
            | Self::Handle(_)
            | Self::Interrupted
            | Self::Owner(_)
            | Self::Seal(_)
            | Self::Store(_)
            | Self::UnknownBackend => false,
        }
    }
}

impl Engine {
    /// Mints under a new lease. The work goes on to its end even if the caller is dropped;
    /// then the lease ends as undelivered.
    pub async fn mint(self: &Arc<Self>, order: Order) -> Result<Minted, MintError> {
        let (answer, result) = oneshot::channel();
        let engine = Arc::clone(self);
        self.detach(async move {
            // If nobody takes it, the `Minted` is dropped and with it the `Delivery`.
            drop(answer.send(engine.saga(order).await));
        });
        result.await.unwrap_or(Err(MintError::Interrupted))
    }

    async fn saga(self: Arc<Self>, order: Order) -> Result<Minted, MintError> {
        let line = self.lines.get(&order.backend).ok_or(MintError::UnknownBackend)?;
        let _permit = line.mints.try_acquire().map_err(|_| MintError::Busy)?;
        let template = order.template.clone();
        let probe = match line.breaker.ask(self.clock.running()) {
            Pass::Closed { .. } => Probe::none(),
            Pass::Probe => Probe::at(line),
            Pass::Wait(after) => return Err(MintError::Down { after }),
        };
        if let Err(error) = self.own(line).await {
            if error.is_silence() {
                probe.used();
                line.breaker.failed(self.clock.running(), self.percent());
            }
            return Err(MintError::Owner(error));
        }
        failpoint::reached("mint.before_intent").await.map_err(|_| MintError::Interrupted)?;
        if planted::is(Bug::CreateFirst) {
            self.create_first(line, &template).await;
        }
        let lease = self.intend(line, order).await?;
        failpoint::reached("mint.after_intent").await.map_err(|_| MintError::Interrupted)?;
        // A reaper may be asleep until a later deadline than this one.
        line.wake();
        probe.used();
        let minted = self.mint_at_backend(line, &lease, &template).await;
        let silent = minted.as_ref().is_err_and(MintError::is_silence);
        if silent {
            line.breaker.failed(self.clock.running(), self.percent());
        } else {
            line.breaker.answered();
        }
        let credential = match minted {
            Ok(credential) => credential,
            Err(error) => {
                self.give_up(&lease, &error).await;
                return Err(error);
            }
        };
        failpoint::reached("mint.after_backend").await.map_err(|_| MintError::Interrupted)?;
        let lease = self.activate(line, &lease, &credential).await?;
        tracing::info!(lease.id = %lease.id, task.id = %lease.task, role.name = lease.role,
            backend = lease.backend, handle = %lease.handle, "lease.active");
        let delivery = Delivery {
            engine: Some(Arc::clone(&self)),
            lease: lease.id,
            backend: lease.backend.clone(),
        };
        failpoint::reached("mint.after_activate").await.map_err(|_| MintError::Interrupted)?;
        Ok(Minted { lease, credential, delivery })
    }

    /// A planted mistake.
    async fn create_first(&self, line: &Line, template: &Template) {
        let now = self.clock.now();
        let id = LeaseId::new(now, self.entropy.as_ref());
        let Ok(handle) = line.backend.handle(id.uuid()) else { return };
        let request = MintRequest {
            handle: &handle,
            template,
            expires_at: now.plus(self.settings.mint_within),
            mint_deadline: now.plus(self.settings.mint_within),
            principal: "",
            lease: "",
        };
        drop(line.backend.mint(&request).await);
    }

    async fn intend(&self, line: &Line, order: Order) -> Result<Lease, MintError> {
        let capabilities = line.backend.capabilities();
        let id = LeaseId::new(self.clock.now(), self.entropy.as_ref());
        let settle_within = if planted::is(Bug::SettleAtOnce) {
            Duration::ZERO
        } else if capabilities.deadline_guard {
            self.settings.settle_guarded
        } else {
            self.settings.settle_unguarded
        };
        let intent = Intent {
            id,
            handle: line.backend.handle(id.uuid()).map_err(MintError::Handle)?,
            task: order.task,
            role: order.role,
            backend: order.backend,
            ttl: order.ttl,
            ttl_max: order.ttl_max,
            ttl_min: capabilities.ttl_min,
            expiry: capabilities.expiry,
            mint_within: self.settings.mint_within,
            settle_within,
            renewable: order.renewable && capabilities.renew,
            belts: capabilities.belts(),
            plan: order.template.plan().clone(),
            quotas: order.quotas,
            key: order.key,
            decision: order.decision,
        };
        match self.store.write(Write::Intend(Box::new(intent))).await.map_err(MintError::Store)? {
            Written::Lease(lease) => Ok(*lease),
            Written::Superseding { lease, old } => {
                self.wake(&old.backend);
                Ok(*lease)
            }
            Written::Task(_)
            | Written::Renewed { .. }
            | Written::Leases(_)
            | Written::Claimed { .. }
            | Written::Turn(_)
            | Written::Count(_)
            | Written::Root(_)
            | Written::Closed(_)
            | Written::Ended { .. }
            | Written::JobClosed { .. }
            | Written::Done => Err(MintError::Interrupted),
        }
    }

    /// Calls the backend for as long as the lease's mint deadline allows.
    async fn mint_at_backend(
        &self,
        line: &Line,
        lease: &Lease,
        template: &Template,
    ) -> Result<Credential, MintError> {
        let id = lease.id.to_string();
        let request = MintRequest {
            handle: &lease.handle,
            template,
            expires_at: lease.expires_at,
            mint_deadline: lease.mint_deadline,
            principal: &lease.principal,
            lease: &id,
        };
        let within = lease.mint_deadline.since(lease.issued_at);
        match timeout(self.clock.as_ref(), within, line.backend.mint(&request)).await {
            Some(Ok(credential)) => Ok(credential),
            Some(Err(error)) => Err(MintError::Backend(error)),
            None => Err(MintError::Timeout),
        }
    }

    /// The backend failed: the lease must die, because an error never means that nothing
    /// happened. Only when the outcome is certain may it be buried at once.
    async fn give_up(&self, lease: &Lease, error: &MintError) {
        let certain = planted::is(Bug::ErrorIsNothing)
            || matches!(error, MintError::Backend(e) if e.kind() != ErrorKind::UnknownOutcome);
        let class = match error {
            MintError::Backend(error) => error.kind().as_str(),
            MintError::Busy
            | MintError::Down { .. }
            | MintError::Handle(_)
            | MintError::Interrupted
            | MintError::Owner(_)
            | MintError::Seal(_)
            | MintError::Store(_)
            | MintError::Timeout
            | MintError::UnknownBackend => "timeout",
        };
        tracing::warn!(lease.id = %lease.id, backend = lease.backend, error.class = class, "lease.mint.failed");
        self.condemn_or_leave(lease.id, Cause::MintFailed, Some(class)).await;
        if certain {
            self.settle_or_leave(lease.id, true).await;
        }
        self.wake(&lease.backend);
    }

    async fn activate(
        &self,
        line: &Line,
        lease: &Lease,
        credential: &Credential,
    ) -> Result<Lease, MintError> {
        let kept = match self.sealed(lease, credential) {
            Ok(kept) => kept,
            Err(error) => {
                self.undo(line, lease, credential).await;
                return Err(MintError::Seal(error));
            }
        };
        let write = Write::Activate { lease: lease.id, epoch: lease.epoch, kept };
        match self.store.write(write).await {
            Ok(Written::Lease(active)) => Ok(*active),
            Err(_) if planted::is(Bug::DeliverUnactivated) => Ok(lease.clone()),
            Ok(_) => Err(MintError::Interrupted),
            Err(error) => {
                // Refused, or not known: it is not delivered, and it dies.
                self.undo(line, lease, credential).await;
                Err(MintError::Store(error))
            }
        }
    }

    /// Ends what was created and will not be handed over.
    async fn undo(&self, line: &Line, lease: &Lease, credential: &Credential) {
        let mut gone = false;
        if credential.kept().is_some() {
            // Nobody after this has what its end may need.
            let doomed = [lease.doomed().keeping(credential.kept().cloned())];
            let within = self.settings.revoke_within;
            let revoked = timeout(self.clock.as_ref(), within, line.backend.revoke(&doomed)).await;
            tracing::warn!(lease.id = %lease.id, backend = lease.backend, ?revoked, "lease.undone");
            gone = matches!(revoked.as_deref(), Some([Revocation::Gone]));
        }
        self.condemn_or_leave(lease.id, Cause::MintFailed, Some("not_activated")).await;
        self.settle_or_leave(lease.id, gone).await;
        self.kill_if_buried(line, lease).await;
        line.wake();
    }

    /// The last resort: the backend has just created what its lease says is dead. That takes a
    /// backend whose guard let a late create through, so it is an alarm as well.
    async fn kill_if_buried(&self, line: &Line, lease: &Lease) {
        match self.store.lease(lease.id).await {
            Ok(Some(row)) if row.may_live() => return,
            Ok(_) => {}
            Err(error) => tracing::warn!(lease.id = %lease.id, %error, "lease.unreadable"),
        }
        let (within, doomed) = (self.settings.revoke_within, [lease.doomed()]);
        let revoked = timeout(self.clock.as_ref(), within, line.backend.revoke(&doomed)).await;
        tracing::error!(lease.id = %lease.id, backend = lease.backend, ?revoked, "lease.created_late");
    }

    /// Tries to bring a death forward; if the store does not answer, the lease's own
    /// deadlines do it later.
    async fn condemn_or_leave(&self, lease: LeaseId, cause: Cause, reason: Option<&str>) {
        let reason = reason.map(str::to_owned);
        let write = Write::Condemn { lease, cause, actor: "engine".into(), reason };
        if let Err(error) = self.store.write(write).await {
            tracing::warn!(lease.id = %lease, %error, "lease.condemn.failed");
        }
    }

    async fn settle_or_leave(&self, lease: LeaseId, nothing: bool) {
        if let Err(error) = self.store.write(Write::Settle { lease, nothing }).await {
            tracing::warn!(lease.id = %lease, %error, "lease.settle.failed");
        }
    }
}

/// `future`, or nothing when `within` has passed by `clock`.
pub(super) async fn timeout<F: Future>(
    clock: &dyn Clock,
    within: Duration,
    future: F,
) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = clock.sleep(within) => None,
    }
}
