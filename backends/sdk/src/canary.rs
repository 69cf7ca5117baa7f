//! The canary: a credential that is really minted, used, revoked and looked for.
//!
//! Invariant: whatever step fails, the revocation runs, so that a canary leaves nothing.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    Backend, CanaryReport, CanaryStep, Credential, Doomed, Error, ErrorKind, Handle, Liveness,
    MintRequest, Revocation, Template, Timestamp,
};

/// How long a canary's credential would live if its revocation failed, unless the backend gives
/// no life as short.
const CANARY_TTL: Duration = Duration::from_mins(1);

/// The side of the one who uses a credential.
#[async_trait]
pub trait Probe: Backend {
    /// The clock by which the backend judges a deadline: a canary asks about the backend, not
    /// about the store.
    async fn clock(&self) -> Result<Timestamp, Error>;

    /// Uses the credential as its holder would.
    async fn try_use(&self, credential: &Credential) -> Result<(), Unusable>;
}

/// Why a credential could not be used.
#[derive(Debug)]
pub enum Unusable {
    /// The backend refuses it.
    Refused(Error),
    /// Nobody knows: the backend could not be asked.
    Unknown(Error),
}

/// Mints, uses, revokes and verifies under `handle`.
pub async fn canary(probe: &dyn Probe, handle: &Handle, template: &Template) -> CanaryReport {
    let mut report = CanaryReport::default();
    let mut step = |name, result| report.steps.push(CanaryStep { name, result });
    let doomed = [Doomed::new(handle.clone(), template.plan().clone())];
    let credential = match mint(probe, handle, template).await {
        Ok(credential) => credential,
        Err(error) => {
            // It may be there all the same, unless the name was another's.
            if error.kind() != ErrorKind::Conflict {
                probe.revoke(&doomed).await;
            }
            step("mint", Err(error));
            return report;
        }
    };
    step("mint", Ok(()));
    let doomed = doomed.map(|one| one.keeping(credential.kept().cloned()));
    let used = probe.try_use(&credential).await.map_err(|unusable| match unusable {
        Unusable::Refused(error) | Unusable::Unknown(error) => error,
    });
    step("use", used);
    let revoked = match probe.revoke(&doomed).await.pop() {
        Some(Revocation::Gone) => Ok(()),
        Some(Revocation::Failed(error)) => Err(error),
        // As its backend declares: there is no death to look for yet.
        Some(Revocation::Lingers) if !probe.capabilities().revoke => {
            report.lingers = true;
            return report;
        }
        Some(Revocation::Lingers) => {
            Err(Error::new(ErrorKind::Invalid, "nothing ends the credential before its expiry"))
        }
        None => Err(Error::new(ErrorKind::Invalid, "no answer for the credential")),
    };
    step("revoke", revoked);
    step("verify", refused(probe, &credential, &doomed).await);
    report
}

async fn mint(
    probe: &dyn Probe,
    handle: &Handle,
    template: &Template,
) -> Result<Credential, Error> {
    let ttl = CANARY_TTL.max(probe.capabilities().ttl_min);
    let now = probe.clock().await?;
    let request = MintRequest {
        handle,
        template,
        expires_at: now.plus(ttl),
        mint_deadline: now.plus(CANARY_TTL),
        principal: "canary",
        lease: "canary",
    };
    probe.mint(&request).await
}

async fn refused(
    probe: &dyn Probe,
    credential: &Credential,
    doomed: &[Doomed],
) -> Result<(), Error> {
    match probe.try_use(credential).await {
        Ok(()) => return Err(Error::new(ErrorKind::Invalid, "a revoked credential is accepted")),
        Err(Unusable::Refused(_)) => {}
        Err(Unusable::Unknown(error)) => return Err(error),
    }
    if !probe.capabilities().verify {
        return Ok(());
    }
    match probe.verify(doomed).await?.as_slice() {
        [Liveness::Gone] => Ok(()),
        _ => Err(Error::new(ErrorKind::Invalid, "a revoked credential is still there")),
    }
}
