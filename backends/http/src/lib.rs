//! Any HTTP API that makes and deletes keys as a backend: its requests are configuration.
//!
//! A request is a template: what fills its placeholders is data, encoded for the place where it
//! stands. What an API's answer alone tells and its end needs (an id, the secret itself) is kept,
//! sealed, until the credential is dead.

mod api;
mod app;
mod backend;
mod body;
mod canary;
mod check;
mod config;
mod error;
mod link;
mod list;
mod marker;
mod mint;
mod request;
mod role;
mod text;
mod values;

pub use backend::HttpBackend;
pub use config::{
    AnswerConfig, AppConfig, ConfigError, ExpiryConfig, HttpConfig, ItemsConfig, MarkerConfig,
    RequestConfig,
};
pub use role::{HttpTemplate, RoleError};
pub use text::TextError;
