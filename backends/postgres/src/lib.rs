#![doc = include_str!("../README.md")]
//!
//! Invariant: a role is gone when neither the role nor a session of it is left, by its numeric
//! id; a name that was dropped proves nothing.

mod advice;
mod backend;
mod canary;
mod config;
mod connection;
mod credential;
mod error;
mod group;
mod marker;
mod mint;
mod oids;
mod owned;
mod queue;
mod quote;
mod revoke;
mod scram;
mod statement;
mod stock;

pub use backend::PostgresBackend;
pub use config::{ConfigError, Owned, PostgresConfig, PostgresTemplate, Setting, Tls};
pub use quote::QuoteError;
pub use statement::StatementError;
