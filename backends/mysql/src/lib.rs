//! MySQL and MariaDB as a backend: accounts that end with their lease.
//!
//! A credential is an account of its own. The server is given a hash of its random password,
//! computed here, and never the password.

mod advice;
mod authentication;
mod backend;
mod canary;
mod config;
mod connection;
mod credential;
mod error;
mod hash;
mod marker;
mod mint;
mod password;
mod quote;
mod revoke;
mod template;

pub use authentication::Authentication;
pub use backend::MysqlBackend;
pub use config::{ConfigError, MysqlConfig, Server, Tls};
pub use quote::QuoteError;
pub use template::{Grant, MysqlTemplate, TemplateError};
