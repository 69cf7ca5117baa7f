//! Renewal: the row first, the backend's own expiry after it.
//!
//! Invariant: there is no instant without a scheduled death. If the backend refuses the
//! later expiry, the row goes back to the earlier one.

use std::{sync::Arc, time::Duration};

use dayfly_backend_sdk::{RenewRequest, Timestamp};

use super::{Engine, mint::timeout};
use crate::{
    Lease, LeaseId, Refusal, StoreError, Write, Written, failpoint,
    planted::{self, Bug},
};

/// What was granted.
#[derive(Debug)]
pub struct Renewal {
    /// The lease with its new expiry.
    pub lease: Lease,
    /// From now.
    pub granted: Duration,
    /// Whether less was granted than was asked for.
    pub truncated: bool,
}

/// Why the lease keeps its expiry.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The backend refused or failed.
    #[error("the backend could not extend the credential")]
    Backend(#[source] dayfly_backend_sdk::Error),
    /// The store failed or refused.
    #[error("the renewal could not be recorded")]
    Store(#[from] StoreError),
    /// The backend took too long.
    #[error("the backend did not answer in time")]
    Timeout,
}

impl Engine {
    /// Lets `lease` live for `ttl` from now, within its maximum. The work goes on to its end
    /// even if the caller is dropped, so that the row and the backend agree.
    pub async fn renew(
        self: &Arc<Self>,
        lease: LeaseId,
        ttl: Duration,
        actor: &str,
    ) -> Result<Renewal, RenewError> {
        let (engine, actor) = (Arc::clone(self), actor.to_owned());
        let work = self.detach(async move { engine.renew_to_the_end(lease, ttl, actor).await });
        work.await.unwrap_or(Err(RenewError::Timeout))
    }

    async fn renew_to_the_end(
        &self,
        lease: LeaseId,
        ttl: Duration,
        actor: String,
    ) -> Result<Renewal, RenewError> {
        let Written::Renewed { lease: renewed, before } =
            self.store.write(Write::Renew { lease, ttl, actor }).await?
        else {
            return Err(StoreError::from(Refusal::LeaseChanged).into());
        };
        let injected = failpoint::reached("renew.after_row").await.is_err();
        // A shorter life may be due before the reaper meant to look.
        self.wake(&renewed.backend);
        let extended = self.extend_at_backend(&renewed, renewed.expires_at).await;
        let failure = match extended {
            Ok(()) if !injected => None,
            Ok(()) => Some(RenewError::Timeout),
            Err(error) => Some(error),
        };
        if let Some(error) = failure {
            self.take_back(&renewed, before).await;
            return Err(error);
        }
        self.agree(&renewed).await;
        let now = self.store.now().await?;
        let granted = renewed.expires_at.since(now);
        let capped = renewed.expires_at == renewed.max_expires_at;
        let truncated = capped && renewed.expires_at < now.plus(ttl);
        Ok(Renewal { lease: *renewed, granted, truncated })
    }

    async fn extend_at_backend(&self, lease: &Lease, until: Timestamp) -> Result<(), RenewError> {
        let line = self.lines.get(&lease.backend).ok_or(Refusal::NotRenewable);
        let line = line.map_err(StoreError::from)?;
        let request = RenewRequest { handle: &lease.handle, plan: &lease.plan, until };
        let within = self.settings.mint_within;
        match timeout(self.clock.as_ref(), within, line.backend.renew(&request)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(RenewError::Backend(error)),
            None => Err(RenewError::Timeout),
        }
    }

    /// Two renewals may have crossed on their way to the backend: what the row says now is
    /// what the backend must hold.
    async fn agree(&self, renewed: &Lease) {
        let Ok(Some(row)) = self.store.lease(renewed.id).await else { return };
        let crossed = row.epoch != renewed.epoch && row.expires_at != renewed.expires_at;
        if crossed
            && row.state.cause().is_none()
            && let Err(error) = self.extend_at_backend(&row, row.expires_at).await
        {
            tracing::warn!(lease.id = %row.id, %error, "lease.native_expiry.apart");
        }
    }

    /// The backend refused, or its answer was lost: the row goes back, and the backend's own
    /// expiry with it. If the row has moved on meanwhile, somebody else answers for both.
    async fn take_back(&self, renewed: &Lease, before: Timestamp) {
        if before > renewed.expires_at || planted::is(Bug::RenewUnmatched) {
            return;
        }
        let (lease, epoch) = (renewed.id, renewed.epoch);
        let write = Write::Shorten { lease, epoch, expires_at: before };
        if let Err(error) = self.store.write(write).await {
            tracing::warn!(lease.id = %lease, %error, "lease.renewal.not_taken_back");
            return;
        }
        self.wake(&renewed.backend);
        if let Err(error) = self.extend_at_backend(renewed, before).await {
            tracing::warn!(lease.id = %lease, %error, "lease.native_expiry.not_taken_back");
        }
    }
}
