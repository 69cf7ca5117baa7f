//! A role that is really minted, used, revoked and looked for.
//!
//! Invariant: whatever step fails, the revocation runs, so that a canary leaves nothing.

use std::time::Duration;

use dayfly_backend_sdk::{
    Backend, CanaryReport, CanaryStep, Credential, Doomed, Error, ErrorKind, Handle, Liveness,
    MintRequest, Revocation, Template, Timestamp,
};

use crate::{backend::PostgresBackend, quote::Sql, revoke::column};

/// How long the canary's role would live if its revocation failed.
const CANARY_TTL: Duration = Duration::from_mins(1);

pub(crate) async fn run(
    backend: &PostgresBackend,
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
        None => Err(Error::new(ErrorKind::Invalid, "no answer for the role")),
    };
    report.steps.push(CanaryStep { name: "revoke", result: revoked });
    let verified = refused(backend, &credential, &doomed).await;
    report.steps.push(CanaryStep { name: "verify", result: verified });
    report
}

async fn mint(
    backend: &PostgresBackend,
    handle: &Handle,
    template: &Template,
) -> Result<Credential, Error> {
    // The server's own clock: a canary asks about the server, not about the store.
    let sql = Sql::new()
        .text("SELECT (extract(epoch from pg_catalog.clock_timestamp())")
        .text(" * 1000000)::pg_catalog.int8");
    let doing = "the server's clock could not be read";
    let rows = backend.server().run(&sql).await.map_err(|failure| failure.into_error(doing))?;
    let row = rows.first().ok_or_else(|| Error::new(ErrorKind::Invalid, doing))?;
    let micros = column::<i64>(row, 0).map_err(|failure| failure.into_error(doing))?;
    let until = Timestamp::from_micros(micros).plus(CANARY_TTL);
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

async fn login(backend: &PostgresBackend, credential: &Credential) -> Result<(), Error> {
    let field = |name| credential.field(name).unwrap_or_default();
    backend
        .server()
        .try_login(field("username"), field("password"), field("database"))
        .await
        .map_err(|failure| failure.into_error("the credential cannot log in"))
}

async fn refused(
    backend: &PostgresBackend,
    credential: &Credential,
    doomed: &[Doomed],
) -> Result<(), Error> {
    let field = |name| credential.field(name).unwrap_or_default();
    let tried =
        backend.server().try_login(field("username"), field("password"), field("database")).await;
    match tried {
        Ok(()) => return Err(Error::new(ErrorKind::Invalid, "a revoked credential can log in")),
        Err(failure) if failure.is_login_refused() => {}
        Err(failure) => return Err(failure.into_error("whether it can log in is not known")),
    }
    match backend.verify(doomed).await?.as_slice() {
        [Liveness::Gone] => Ok(()),
        _ => Err(Error::new(ErrorKind::Invalid, "a revoked role is still there")),
    }
}
