//! The Dayfly broker.
//!
//! Invariant: `http → grant → policy → identity`, never back. Nothing mints without a
//! [`policy::Permit`], and only `serve` and `demo` put the parts together.

pub mod broker;
pub mod config;
pub mod demo;
pub mod fsck;
#[cfg(test)]
mod fuzz;
pub mod grant;
pub mod http;
pub mod identity;
mod keys;
pub mod pods;
pub mod policy;
mod poller;
pub mod preflight;
mod recheck;
pub mod recover;
mod roles;
pub mod root;
pub mod seal;
pub mod serve;
pub mod ssf;
mod tally;
pub mod telemetry;
pub mod webhook;

pub use keys::StoredKeys;
pub use roles::{Role, Roles};
