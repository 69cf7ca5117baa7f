//! What a backend is: the trait, its capabilities, its errors, and the words that every
//! crate above shares ([`Secret`], [`Handle`], [`Timestamp`]).
//!
//! The bottom of the graph. Invariant: nothing here knows a particular backend, a store
//! or the network.

mod backend;
mod canary;
mod capability;
mod error;
mod handle;
mod secret;
mod text;
mod timestamp;
mod variable;

#[cfg(feature = "testkit")]
pub mod testkit;

pub use backend::{
    Backend, CanaryReport, CanaryStep, Credential, Doomed, Field, Listed, Listing, Liveness,
    Marker, MintRequest, Name, Plan, RenewRequest, Revocation, Template,
};
pub use canary::{Probe, Unusable, canary};
pub use capability::{Belt, Capabilities, Expiry};
pub use error::{Error, ErrorKind, Retry};
pub use handle::{Handle, HandleError, HandlePrefix};
pub use secret::Secret;
pub use text::percent_encode;
pub use timestamp::Timestamp;
pub use variable::is_variable;
