//! AWS as a backend: sessions of a role, of a federated user or of a web identity, and IAM
//! users.
//!
//! AWS ends a session at its own expiry and never before, and gives none of less than fifteen
//! minutes. What ends one earlier is the deny belt: managed policies of ours that deny
//! everything to the sessions that are named in them.

mod account;
mod advice;
mod arn;
mod backend;
mod belt;
mod canary;
mod clock;
mod config;
mod credential;
mod end;
mod error;
mod label;
mod marker;
mod session;
mod template;
mod user;

pub use backend::AwsBackend;
pub use config::{AwsConfig, ConfigError, Mode};
pub use template::{
    AssumeRole, AwsTemplate, FederationToken, IamUser, SourceIdentity, TemplateError, WebIdentity,
};
