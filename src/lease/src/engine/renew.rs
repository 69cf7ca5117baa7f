//! Renewal: the row first, the backend's own expiry after it.
//!
//! Invariant: there is no instant without a scheduled death. If the backend refuses the
//! later expiry, the row goes back to the earlier one.

use std::time::Duration;

use dayfly_backend_sdk::RenewRequest;

use super::{Engine, mint::timeout};
use crate::{Lease, LeaseId, Refusal, StoreError, Write, Written, failpoint};

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
    /// Lets `lease` live for `ttl` from now, within its maximum.
    pub async fn renew(
        &self,
        lease: &Lease,
        ttl: Duration,
        actor: &str,
    ) -> Result<Renewal, RenewError> {
        let before = lease.expires_at;
        let write = Write::Renew { lease: lease.id, ttl, actor: actor.to_owned() };
        let renewed = lease_of(self.store.write(write).await?)?;
        let injected = failpoint::reached("renew.after_row").await.is_err();
        let line = self.lines.get(&renewed.backend).ok_or(Refusal::NotRenewable);
        let line = line.map_err(StoreError::from)?;
        // A shorter life may be due before the reaper meant to look.
        line.wake();
        let request = RenewRequest {
            handle: &renewed.handle,
            plan: &renewed.plan,
            until: renewed.expires_at,
        };
        let within = self.settings.mint_within;
        let result = timeout(self.clock.as_ref(), within, line.backend.renew(&request)).await;
        match result {
            Some(Ok(())) if !injected => {}
            Some(Ok(())) | None => {
                self.take_back(&renewed, before).await;
                return Err(RenewError::Timeout);
            }
            Some(Err(error)) => {
                self.take_back(&renewed, before).await;
                return Err(RenewError::Backend(error));
            }
        }
        let now = self.store.now().await?;
        let granted = renewed.expires_at.since(now);
        let truncated =
            renewed.expires_at < now.plus(ttl) && renewed.expires_at == renewed.max_expires_at;
        Ok(Renewal { lease: renewed, granted, truncated })
    }

    async fn take_back(&self, renewed: &Lease, before: dayfly_backend_sdk::Timestamp) {
        if before > renewed.expires_at {
            return;
        }
        let (lease, epoch): (LeaseId, i64) = (renewed.id, renewed.epoch);
        let write = Write::Shorten { lease, epoch, expires_at: before };
        if let Err(error) = self.store.write(write).await {
            tracing::warn!(lease.id = %lease, %error, "lease.renewal.not_taken_back");
        }
        self.wake(&renewed.backend);
        // The answer may only have been lost: the backend's own expiry goes back as well.
        if let Some(line) = self.lines.get(&renewed.backend) {
            let request =
                RenewRequest { handle: &renewed.handle, plan: &renewed.plan, until: before };
            let within = self.settings.mint_within;
            let result = timeout(self.clock.as_ref(), within, line.backend.renew(&request)).await;
            if !matches!(result, Some(Ok(()))) {
                tracing::warn!(lease.id = %lease, "lease.native_expiry.not_taken_back");
            }
        }
    }
}

fn lease_of(written: Written) -> Result<Lease, StoreError> {
    match written {
        Written::Lease(lease) => Ok(*lease),
        Written::Superseding { .. }
        | Written::Task(_)
        | Written::Leases(_)
        | Written::Closed(_)
        | Written::Done => Err(Refusal::LeaseChanged.into()),
    }
}
