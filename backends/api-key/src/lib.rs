#![doc = include_str!("../README.md")]
//!
//! Invariant: a key exists once, in the answer that delivers it; what is kept is its SHA-256.

mod backend;
mod config;
mod error;
mod key;
mod memory;
mod store;

pub use backend::{ApiKeyBackend, Random};
pub use config::ApiKeyTemplate;
pub use error::ApiKeyError;
pub use memory::MemoryKeyStore;
pub use store::{Insertion, KeyRecord, KeyStore};
