//! The Dayfly broker.
//!
//! Invariant: `http → grant → policy → identity`, never back. Nothing mints without a
//! [`policy::Permit`], and only `serve` and `demo` put the parts together.

pub mod broker;
pub mod config;
pub mod demo;
pub mod fsck;
pub mod grant;
pub mod http;
pub mod identity;
mod keys;
pub mod policy;
pub mod preflight;
pub mod recover;
mod roles;
pub mod root;
pub mod seal;
pub mod serve;
pub mod telemetry;

pub use keys::StoredKeys;
pub use roles::{Role, Roles};
