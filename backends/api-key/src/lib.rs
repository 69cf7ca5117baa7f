#![doc = include_str!("../README.md")]
//!
//! Invariant: a key exists once, in the answer that delivers it; what is kept is its SHA-256.

mod backend;
mod config;
mod error;
mod jwt;
mod key;
mod memory;
mod store;

pub use backend::{ApiKeyBackend, Random};
pub use config::{ApiKeyConfig, ApiKeyTemplate};
pub use error::ApiKeyError;
pub use jwt::{JwtClaims, JwtConfig};
pub use memory::MemoryKeyStore;
pub use store::{Insertion, KeyRecord, KeyStore};
