//! An external program as a backend: one process a call, JSON on its standard input and output.
//!
//! For systems that nobody foresaw. The program is pinned by its SHA-256, runs with an empty
//! environment, has a deadline and a bound on what it says, and ends with its process group.

mod backend;
mod call;
mod canary;
mod config;
mod error;
mod program;
mod protocol;

pub use backend::ExecBackend;
pub use config::{Can, ConfigError, ExecConfig, NativeExpiry};
