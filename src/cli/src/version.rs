//! `dayfly version`: which program this is, and which broker answers it.
//!
//! Invariant: without --broker it needs neither configuration nor broker.

use std::env::consts::{ARCH, OS};

use serde::Serialize;

use crate::{
    args::{Context, VersionArgs},
    failure::{self, Failure},
    output::record,
};

/// Which commit it was built from, where the build said so.
const COMMIT: Option<&str> = option_env!("DAYFLY_COMMIT");

#[derive(Serialize)]
struct Shown {
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'static str>,
    target: String,
    /// The versions of the API that it speaks.
    api: [&'static str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<ShownBroker>,
}

#[derive(Serialize)]
struct ShownBroker {
    url: String,
    version: String,
}

/// `dayfly version`.
pub(crate) async fn show(args: &VersionArgs, context: Context<'_>) -> Result<u8, Failure> {
    let broker = if args.broker {
        let client = context.client()?;
        Some(ShownBroker { url: client.url().to_string(), version: client.version().await? })
    } else {
        None
    };
    let shown = Shown {
        version: env!("CARGO_PKG_VERSION"),
        commit: COMMIT.filter(|commit| !commit.is_empty()),
        target: target(),
        api: ["v1"],
        broker,
    };
    context.terminal.show(args.output, &shown, |shown| {
        let broker = shown.broker.as_ref();
        let broker = broker.map(|broker| format!("{} at {}", broker.version, broker.url));
        record([
            ("dayfly", shown.version),
            ("commit", shown.commit.unwrap_or_default()),
            ("target", &shown.target),
            ("broker", &broker.unwrap_or_default()),
        ])
    })?;
    Ok(failure::OK)
}

fn target() -> String {
    let libc = if cfg!(target_env = "musl") {
        "-musl"
    } else if cfg!(target_env = "gnu") {
        "-gnu"
    } else {
        ""
    };
    format!("{ARCH}-{OS}{libc}")
}
