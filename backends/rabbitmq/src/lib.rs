//! RabbitMQ as a backend: users that end with their lease, by the management API.
//!
//! A user's connections go on after the user is deleted, with the rights that their channels
//! have looked up; so they are closed, and looked for.

mod backend;
mod config;
mod credential;
mod error;
mod management;
mod rights;

pub use backend::RabbitmqBackend;
pub use config::{ConfigError, RabbitmqConfig};
pub use rights::{RabbitmqTemplate, RightsError, Topic};
