//! A user that is really made, used, deleted and looked for.
//!
//! Invariant: whatever step fails, the revocation runs, so that a canary leaves nothing.

use std::time::Duration;

use dayfly_backend_sdk::{
    Backend, CanaryReport, CanaryStep, Credential, Doomed, Error, ErrorKind, Handle, Liveness,
    MintRequest, Revocation, Template, Timestamp,
};

use crate::backend::RedisBackend;

/// How long a canary may take.
const CANARY_WITHIN: Duration = Duration::from_mins(1);

pub(crate) async fn run(
    backend: &RedisBackend,
    handle: &Handle,
    template: &Template,
) -> CanaryReport {
    let mut report = CanaryReport::default();
    let minted = mint(backend, handle, template).await;
    let doomed = [Doomed { handle: handle.clone(), plan: template.plan().clone() }];
    let credential = match minted {
        Ok(credential) => credential,
        Err(error) => {
            // It may be there all the same, unless the name was another's.
            if error.kind() != ErrorKind::Conflict {
                backend.revoke(&doomed).await;
            }
            report.steps.push(CanaryStep { name: "mint", result: Err(error) });
            return report;
        }
    };
    report.steps.push(CanaryStep { name: "mint", result: Ok(()) });
    let used = login(backend, &credential).await;
    report.steps.push(CanaryStep { name: "use", result: used });
    let revoked = match backend.revoke(&doomed).await.pop() {
        Some(Revocation::Gone) => Ok(()),
        Some(Revocation::Failed(error)) => Err(error),
        None => Err(Error::new(ErrorKind::Invalid, "no answer for the user")),
    };
    report.steps.push(CanaryStep { name: "revoke", result: revoked });
    let verified = refused(backend, &credential, &doomed).await;
    report.steps.push(CanaryStep { name: "verify", result: verified });
    report
}

async fn mint(
    backend: &RedisBackend,
    handle: &Handle,
    template: &Template,
) -> Result<Credential, Error> {
    // The server's own clock: a canary asks about the server, not about the store.
    let mut open = match backend.nodes().first() {
        Some(node) => node.open().await.map_err(unknown_time)?,
        None => return Err(Error::new(ErrorKind::Invalid, "there is no node")),
    };
    let mut message = redis::pipe();
    message.cmd("TIME");
    let ((seconds, _micros),): ((i64, i64),) = open.ask(&message).await.map_err(unknown_time)?;
    let until = Timestamp::from_seconds(seconds).plus(CANARY_WITHIN);
    let request = MintRequest {
        handle,
        template,
        expires_at: until,
        mint_deadline: until,
        principal: "canary",
        lease: "canary",
    };
    backend.mint(&request).await
}

fn unknown_time(failure: crate::error::Failure) -> Error {
    failure.into_error("the server's clock could not be read")
}

async fn login(backend: &RedisBackend, credential: &Credential) -> Result<(), Error> {
    let field = |name| credential.field(name).unwrap_or_default();
    for node in backend.nodes() {
        let tried = node.try_login(field("username"), field("password")).await;
        tried.map_err(|failure| failure.into_error("the credential cannot log in"))?;
    }
    Ok(())
}

async fn refused(
    backend: &RedisBackend,
    credential: &Credential,
    doomed: &[Doomed],
) -> Result<(), Error> {
    let field = |name| credential.field(name).unwrap_or_default();
    for node in backend.nodes() {
        match node.try_login(field("username"), field("password")).await {
            Ok(()) => {
                return Err(Error::new(ErrorKind::Invalid, "a revoked credential can log in"));
            }
            Err(failure) if failure.is_login_refused() => {}
            Err(failure) => return Err(failure.into_error("whether it can log in is not known")),
        }
    }
    match backend.verify(doomed).await?.as_slice() {
        [Liveness::Gone] => Ok(()),
        _ => Err(Error::new(ErrorKind::Invalid, "a revoked user is still there")),
    }
}
