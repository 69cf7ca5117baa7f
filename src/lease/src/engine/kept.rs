//! What a mint's answer tells and its lease's end needs.
//!
//! Invariant: it is in memory or sealed, and before the credential leaves it is durable.

use dayfly_backend_sdk::{Credential, Doomed};

use super::Engine;
use crate::{Lease, LeaseId, SealError, Sealed};

fn purpose(lease: LeaseId) -> String {
    format!("lease/{lease}")
}

impl Engine {
    /// What is to be kept of the answer, sealed for this lease alone.
    pub(super) fn sealed(
        &self,
        lease: &Lease,
        credential: &Credential,
    ) -> Result<Option<Sealed>, SealError> {
        let Some(kept) = credential.kept() else { return Ok(None) };
        let seal = self.settings.seal.as_ref().ok_or(SealError::NoKey)?;
        seal.seal(&purpose(lease.id), kept).map(Some)
    }

    /// What a backend needs to end a lease's credential.
    pub(super) fn doomed(&self, lease: &Lease) -> Doomed {
        let opened = lease.kept.as_ref().and_then(|kept| {
            let seal = self.settings.seal.as_ref().ok_or(SealError::NoKey);
            let opened = seal.and_then(|seal| seal.open(&purpose(lease.id), kept));
            // The backend is asked all the same: it may find it by its name.
            let unreadable = |error: &SealError| {
                tracing::error!(lease.id = %lease.id, %error, "lease.kept.unreadable");
            };
            opened.inspect_err(unreadable).ok()
        });
        lease.doomed().keeping(opened)
    }
}
