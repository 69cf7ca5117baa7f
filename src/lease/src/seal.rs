//! What must be kept and not be read: sealed before it goes to the store.
//!
//! Invariant: a store sees sealed bytes only, and what was sealed for one purpose opens for no
//! other.

use std::fmt;

use dayfly_backend_sdk::Secret;

/// Bytes that only a [`Seal`] opens.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// As a store has them.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// For a store to keep.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// Authenticated encryption under a key that is not in the store.
pub trait Seal: Send + Sync + fmt::Debug {
    /// Seals `secret` for one `purpose`.
    ///
    /// # Errors
    /// When there is no randomness.
    fn seal(&self, purpose: &str, secret: &Secret) -> Result<Sealed, SealError>;

    /// Opens what was sealed for `purpose`.
    ///
    /// # Errors
    /// When the key is another one, the bytes were changed, or the purpose was another.
    fn open(&self, purpose: &str, sealed: &Sealed) -> Result<Secret, SealError>;
}

/// What went wrong with a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No seal is configured.
    #[error("there is no key to seal with")]
    NoKey,
    /// The system gives no random numbers.
    #[error("the operating system has no random numbers")]
    NoRandom,
    /// It was sealed with another key or for another purpose, or has been changed.
    #[error("it was sealed with another key, or has been changed")]
    Unopened,
}
