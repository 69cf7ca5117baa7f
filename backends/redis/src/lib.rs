//! Redis and Valkey as a backend: ACL users that end with their lease, on every node.
//!
//! ACL users are neither replicated nor, by themselves, written to disk: each node has its own,
//! and one that was deleted and not saved is back after a restart. So minting, ending, looking
//! and listing ask all of the configured nodes, and an end counts when it is saved on each.

mod backend;
mod canary;
mod config;
mod connection;
mod credential;
mod error;
mod marker;
mod mint;
mod revoke;
mod rules;

pub use backend::RedisBackend;
pub use config::{ConfigError, Persist, RedisConfig, Tls};
pub use rules::{RedisTemplate, RuleError};
