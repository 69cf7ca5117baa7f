//! `demo` and `dev`: a whole broker with nothing installed.
//!
//! Invariant: everything goes over HTTP to a listener on loopback, as for any client; only
//! the issuer is ours, and its key never leaves the process.

mod local;
mod story;

use std::{io::Write, path::Path};

use anyhow::{Context, bail};
use dayfly_store::verify;
use serde_json::json;

pub use local::Local;
use story::Story;

/// What the demo saw.
#[derive(Debug)]
pub struct Outcome {
    /// The rule that denied the production role.
    pub denied_by: String,
    /// What the API said to the key while its task was open.
    pub status_before: u16,
    /// What it said after the task was completed.
    pub status_after: u16,
    /// The lease's state at the end.
    pub lease_state: String,
    /// Whether the audit log holds.
    pub audit_verified: bool,
}

impl Outcome {
    /// As one JSON object.
    pub fn json(&self) -> serde_json::Value {
        json!({
            "denied_by": self.denied_by,
            "status_before": self.status_before,
            "status_after": self.status_after,
            "lease_state": self.lease_state,
            "audit_verified": self.audit_verified,
        })
    }

    /// Whether it came out as it must.
    pub fn is_as_promised(&self) -> bool {
        self.denied_by == "dev/production-is-off-limits"
            && self.status_before == 200
            && self.status_after == 401
            && self.lease_state == "revoked"
            && self.audit_verified
    }
}

/// Does the main job once and tells `out` about it.
pub async fn demo(out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let directory = tempfile::tempdir().context("no temporary directory")?;
    let local = Local::start(directory.path(), "127.0.0.1:0".parse()?).await?;
    let outcome = tell(&local, out).await;
    local.stop().await;
    let outcome = outcome?;
    if !outcome.is_as_promised() {
        bail!("the demo did not come out as it must: {}", outcome.json());
    }
    Ok(outcome)
}

async fn tell(local: &Local, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let mut story = Story::new(local)?;
    writeln!(out, "Dayfly at {} with an embedded store and its own issuer.\n", local.url())?;

    let (task, opened) = story.open_task().await?;
    writeln!(out, "1. A workload signs in as {} and opens a task.", story.principal(&task).await?)?;
    writeln!(out, "   {} until {}", task.id, opened)?;

    let denied = story.mint_denied("production-deploy").await?;
    let denied_by = denied.denied_by.clone().unwrap_or_default();
    writeln!(out, "2. It asks for `production-deploy` and is refused.")?;
    writeln!(out, "   {} by rule `{denied_by}`: {}", denied.status, denied.detail)?;

    let (lease, key) = story.mint("greeter").await?;
    writeln!(out, "3. It asks for `greeter` and gets an API key under a lease.")?;
    writeln!(out, "   {} at `{}` as {}", lease.id, lease.backend, lease.handle)?;
    writeln!(
        out,
        "   {}… until {}",
        key.expose().chars().take(8).collect::<String>(),
        lease.expires_at
    )?;
    writeln!(
        out,
        "   ended by {}; exposure {} s",
        lease.belts.join(", "),
        lease.exposure_seconds.unwrap_or_default()
    )?;

    let status_before = story.use_key(&key).await?;
    writeln!(out, "4. It uses the key: {status_before}.")?;
    let completed = story.complete(&task).await?;
    writeln!(
        out,
        "5. The task is done: `{}`, {} credential(s) verified dead.",
        completed.state, completed.leases.revoked
    )?;
    let status_after = story.use_key(&key).await?;
    writeln!(out, "6. Somebody uses the key again: {status_after}.")?;

    let lease = story.lease(&lease.id).await?;
    let cause = lease.cause.as_deref().unwrap_or("?");
    writeln!(out, "\nThe lease is `{}/{cause}`. Its life, from the audit log:", lease.state)?;
    for record in story.life(&lease.id).await? {
        let seal = if record.signature.is_some() { "  signed receipt" } else { "" };
        writeln!(
            out,
            "   {}  {:<16} {}…{seal}",
            record.at,
            record.event,
            record.hash.chars().take(12).collect::<String>()
        )?;
    }
    let report = verify(&local.broker().store, local.public_key(), &[]).await?;
    writeln!(
        out,
        "The audit chain {}: {} records, {} receipt(s).",
        if report.holds() { "holds" } else { "does not hold" },
        report.records,
        report.receipts
    )?;
    Ok(Outcome {
        denied_by,
        status_before,
        status_after,
        lease_state: lease.state,
        audit_verified: report.holds() && report.receipts == 1,
    })
}

/// Starts the same in `directory` and keeps serving until told to stop. `out` hears what to
/// try next.
pub async fn dev(
    directory: &Path,
    address: std::net::SocketAddr,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let local = Local::start(directory, address).await?;
    let identity = Local::write_token(directory, "identity-token", &local.workload_token())?;
    let admin = Local::write_token(directory, "admin-token", &local.admin_token())?;
    writeln!(
        out,
        "Dayfly for development at {}, with everything in {}.",
        local.url(),
        directory.display()
    )?;
    writeln!(out, "Anybody who can read that directory is an administrator here.\n\nTry:")?;
    writeln!(out, "  export DAYFLY_URL={}", local.url())?;
    writeln!(
        out,
        "  dayfly exec --token-file {} --role greeter -- sh -c 'curl -i -H \"Authorization: Bearer $DAYFLY_API_KEY\" $0/verify' $DAYFLY_URL",
        identity.display()
    )?;
    writeln!(
        out,
        "  dayfly exec --token-file {} --role production-deploy -- true",
        identity.display()
    )?;
    writeln!(out, "  dayfly lease list --token-file {}", admin.display())?;
    writeln!(
        out,
        "  curl -s $DAYFLY_URL/metrics | grep dayfly_leases\n\nThe tokens last an hour. Stop with ^C."
    )?;
    out.flush()?;
    local.serve_until_stopped().await;
    Ok(())
}
