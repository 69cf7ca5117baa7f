//! The conformance suite that every backend's `tests/conformance.rs` runs.
//!
//! Invariant: a step is left out only because the backend does not declare the capability,
//! and [`run`] says which steps ran, so that a test can insist on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use uuid::Uuid;

use crate::{
    Backend, Credential, Doomed, ErrorKind, Expiry, Handle, Liveness, Marker, MintRequest, Plan,
    RenewRequest, Revocation, Secret, Template, Timestamp,
};

mod certificates;
mod disk;
mod hop;
mod port;
mod rotation;
mod steps;

pub use certificates::certify;
pub use disk::Disk;
pub use hop::Hop;
pub use port::free_port;
pub use rotation::rotation;

/// How long [`eventually`] waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `done` gives something.
///
/// # Panics
/// When it does not within twenty seconds.
#[expect(clippy::panic, reason = "a test says by panicking what does not hold")]
pub async fn eventually<T>(what: &str, done: impl AsyncFn() -> Option<T>) -> T {
    let mut waited = Duration::ZERO;
    let step = Duration::from_millis(20);
    while waited < PATIENCE {
        if let Some(value) = done().await {
            return value;
        }
        tokio::time::sleep(step).await;
        waited += step;
    }
    panic!("{what}: not within {PATIENCE:?}");
}

/// The steps of the suite, in their order.
pub const STEPS: [&str; 11] = [
    "lifecycle",
    "taken_name",
    "foreign_template",
    "late_mint",
    "native_expiry",
    "renew",
    "list",
    "marker",
    "batch",
    "session_kill",
    "canary",
];

/// The side of the one who uses a credential, and the backend's clock.
#[async_trait]
pub trait Login: Send + Sync {
    /// The clock by which the backend judges expiry.
    async fn now(&self) -> Timestamp;

    /// Lets that clock run on.
    async fn wait(&self, duration: Duration);

    /// Whether the credential is accepted now, by a fresh login.
    async fn works(&self, credential: &Credential) -> bool;

    /// Opens a session and keeps it open; `None` where the backend knows no sessions.
    async fn open(&self, credential: &Credential) -> Option<Box<dyn Session>>;
}

/// A session that was opened with a credential.
#[async_trait]
pub trait Session: Send {
    /// Whether it can still do what it could.
    async fn alive(&mut self) -> bool;
}

/// A backend under test. Nothing else may mint at it while the suite runs.
pub struct Subject<'a> {
    backend: &'a dyn Backend,
    template: &'a Template,
    login: &'a dyn Login,
    leases: AtomicU64,
    kept: Mutex<BTreeMap<Handle, Secret>>,
}

impl<'a> Subject<'a> {
    /// A backend, a template whose credentials can log in, and who logs in.
    pub fn new(backend: &'a dyn Backend, template: &'a Template, login: &'a dyn Login) -> Self {
        Self { backend, template, login, leases: AtomicU64::new(1), kept: Mutex::default() }
    }

    fn handle(&self) -> Result<Handle, Failure> {
        let lease = Uuid::from_u64_pair(
            0x0192_f0c1_7e2a_7000,
            0x8000_0000_0000_0000 | self.leases.fetch_add(1, Ordering::Relaxed),
        );
        self.backend.handle(lease).map_err(|error| Failure::new(format!("handle: {error}")))
    }

    /// Mints under `handle` with `ttl`, and a deadline that is far enough away.
    async fn mint(&self, handle: &Handle, ttl: Duration) -> Result<Credential, Failure> {
        self.mint_with(handle, self.template, ttl)
            .await
            .map_err(|error| Failure::new(format!("mint of {handle}: {}", chain(&error))))
    }

    async fn mint_with(
        &self,
        handle: &Handle,
        template: &Template,
        ttl: Duration,
    ) -> Result<Credential, crate::Error> {
        let now = self.login.now().await;
        let request = MintRequest {
            handle,
            template,
            expires_at: now.plus(ttl),
            mint_deadline: now.plus(Duration::from_secs(30)),
            principal: "testkit:subject",
            lease: "lse_testkit",
        };
        let credential = self.backend.mint(&request).await?;
        if let Some(kept) = credential.kept() {
            let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(handle.clone(), kept.clone());
        }
        Ok(credential)
    }

    fn doomed(&self, handles: &[&Handle]) -> Vec<Doomed> {
        let plan = self.template.plan();
        let doom = |handle: &&Handle| {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            Doomed::new((*handle).clone(), plan.clone()).keeping(kept.get(*handle).cloned())
        };
        handles.iter().map(doom).collect()
    }

    /// Revokes all of `handles` and insists that each is gone.
    async fn revoke(&self, handles: &[&Handle]) -> Result<(), Failure> {
        let outcome = self.backend.revoke(&self.doomed(handles)).await;
        ensure(outcome.len() == handles.len(), "revoke answers once for each")?;
        for (handle, revocation) in handles.iter().zip(outcome) {
            match revocation {
                Revocation::Gone => {}
                Revocation::Lingers => {
                    return Err(Failure::new(format!("revoke of {handle}: it lingers")));
                }
                Revocation::Failed(error) => {
                    return Err(Failure::new(format!("revoke of {handle}: {}", chain(&error))));
                }
            }
        }
        Ok(())
    }

    /// What verify says of one; `None` where the backend cannot be asked.
    async fn liveness(&self, handle: &Handle) -> Result<Option<Liveness>, Failure> {
        if !self.backend.capabilities().verify {
            return Ok(None);
        }
        let answer = self.backend.verify(&self.doomed(&[handle])).await;
        let answer = answer.map_err(|error| Failure::new(format!("verify: {}", chain(&error))))?;
        match answer.as_slice() {
            [one] => Ok(Some(*one)),
            _ => Err(Failure::new("verify answers once for each")),
        }
    }
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("backend", &self.backend).finish_non_exhaustive()
    }
}

/// What a backend did not hold.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// Runs every step that the backend's capabilities ask for and names those that ran.
///
/// # Errors
/// The first thing that did not hold, with its step.
pub async fn run(subject: &Subject<'_>) -> Result<Vec<&'static str>, Failure> {
    let mut ran = Vec::new();
    for step in STEPS {
        if !asked_for(subject.backend, step) {
            continue;
        }
        let outcome = match step {
            "lifecycle" => steps::lifecycle(subject).await,
            "taken_name" => steps::taken_name(subject).await,
            "foreign_template" => steps::foreign_template(subject).await,
            "late_mint" => steps::late_mint(subject).await,
            "native_expiry" => steps::native_expiry(subject).await,
            "renew" => steps::renew(subject).await,
            "list" => steps::list(subject).await,
            "marker" => steps::marker(subject).await,
            "batch" => steps::batch(subject).await,
            "session_kill" => steps::session_kill(subject).await,
            "canary" => steps::canary(subject).await,
            other => Err(Failure::new(format!("no step `{other}`"))),
        };
        outcome.map_err(|failure| Failure::new(format!("{step}: {failure}")))?;
        ran.push(step);
    }
    Ok(ran)
}

fn asked_for(backend: &dyn Backend, step: &str) -> bool {
    let can = backend.capabilities();
    match step {
        "late_mint" => can.deadline_guard,
        "native_expiry" => can.expiry != Expiry::None,
        "renew" => can.renew,
        "list" => can.list,
        "batch" => can.revoke,
        "session_kill" => can.session_kill,
        _ => true,
    }
}

fn ensure(held: bool, what: &str) -> Result<(), Failure> {
    if held { Ok(()) } else { Err(Failure::new(format!("does not hold: {what}"))) }
}

/// An error with its sources on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
