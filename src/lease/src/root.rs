//! Our own password at a backend, and its change.
//!
//! Invariant: a new one is durable, sealed, before the backend is told of it, and the one before
//! is kept until it is certain which of the two the backend accepts.

use dayfly_backend_sdk::Timestamp;

use crate::Sealed;

/// What the store knows of our password at one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The backend's name.
    pub backend: String,
    /// One more at every change; the fence.
    pub epoch: i64,
    /// The one in use; none while it is the configured one.
    pub current: Option<Sealed>,
    /// One that the backend may have been told of, and since when.
    pub staged: Option<(Sealed, Timestamp)>,
    /// When the one in use was taken.
    pub rotated_at: Option<Timestamp>,
}

impl Root {
    /// Of a backend whose password was never changed.
    pub fn configured(backend: &str) -> Self {
        let backend = backend.to_owned();
        Self { backend, epoch: 0, current: None, staged: None, rotated_at: None }
    }

    /// A new password is about to be set. None while another may be.
    #[must_use]
    pub fn stage(&self, now: Timestamp, next: Sealed) -> Option<Self> {
        let staged = Some((next, now));
        self.staged.is_none().then(|| Self { epoch: self.epoch + 1, staged, ..self.clone() })
    }

    /// It is certain whether the backend took it. None where nothing was staged.
    #[must_use]
    pub fn settle(&self, now: Timestamp, taken: bool) -> Option<Self> {
        let (next, _) = self.staged.clone()?;
        let settled = Self { epoch: self.epoch + 1, staged: None, ..self.clone() };
        Some(if taken {
            Self { current: Some(next), rotated_at: Some(now), ..settled }
        } else {
            settled
        })
    }
}
