//! Failpoints around every write to the store and every call of a backend.
//!
//! Invariant: everything else goes through unchanged. A failure before a call means that
//! nothing happened, one after it that its answer was lost.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use dayfly_backend_sdk::{
    Backend, CanaryReport, Capabilities, Credential, Doomed, Error, ErrorKind, Handle, HandleError,
    HandlePrefix, Listing, Liveness, Marker, MintRequest, Name, RenewRequest, Revocation, Secret,
    Template, Timestamp,
};
use serde_json::Value;
use uuid::Uuid;

use super::reached;
use crate::{
    Counts, Lease, LeaseId, Root, Sighting, Standing, Store, StoreError, Task, TaskId, Write,
    Written,
};

/// `store` with a point before and after each kind of write.
pub(crate) fn around_store(store: Arc<dyn Store>) -> Arc<dyn Store> {
    Arc::new(Around(store))
}

/// `backend` with a point before and after each call that changes or verifies.
pub(crate) fn around_backend(backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
    Arc::new(Around(backend))
}

struct Around<T>(T);

impl<T: fmt::Debug> fmt::Debug for Around<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The points before and after a write. A probe has none, since it only asks whether there is a
/// way; nor has a heartbeat, heard or turned away, which says the same each time; nor a proof, after
/// which nothing has happened yet; nor a job's end and a right that is taken away, which are only
/// sooner than the deadline and are asked for again; nor what an administrator orders and can order
/// again.
fn points_of(write: &Write) -> Option<(&'static str, &'static str)> {
    Some(match write {
        Write::Probe
        | Write::Beat { .. }
        | Write::Remember(_)
        | Write::TurnedAway
        | Write::CloseJob { .. }
        | Write::Disable(_)
        | Write::Enable { .. }
        | Write::EndDisabled { .. }
        | Write::Withdraw(_)
        | Write::Abandon { .. }
        | Write::Adopt { .. }
        | Write::Prune { .. }
        | Write::ReleaseHold { .. }
        | Write::Resume { .. }
        | Write::SettleRoot { .. }
        | Write::StageRoot { .. }
        | Write::Suspend { .. } => return None,
        Write::OpenTask { .. } => ("store.open_task.before", "store.open_task.after"),
        Write::Note(_) => ("store.note.before", "store.note.after"),
        Write::Intend(_) => ("store.intend.before", "store.intend.after"),
        Write::Activate { .. } => ("store.activate.before", "store.activate.after"),
        Write::Deliver { .. } => ("store.deliver.before", "store.deliver.after"),
        Write::Condemn { .. } => ("store.condemn.before", "store.condemn.after"),
        Write::Settle { .. } => ("store.settle.before", "store.settle.after"),
        Write::Renew { .. } => ("store.renew.before", "store.renew.after"),
        Write::Shorten { .. } => ("store.shorten.before", "store.shorten.after"),
        Write::CloseTask { .. } => ("store.close_task.before", "store.close_task.after"),
        Write::ExpireTasks { .. } => ("store.expire_tasks.before", "store.expire_tasks.after"),
        Write::Claim { .. } => ("store.claim.before", "store.claim.after"),
        Write::HandBack { .. } => ("store.hand_back.before", "store.hand_back.after"),
        Write::TakeTurn { .. } => ("store.take_turn.before", "store.take_turn.after"),
        Write::Bury { .. } => ("store.bury.before", "store.bury.after"),
        Write::Postpone { .. } => ("store.postpone.before", "store.postpone.after"),
    })
}

/// The loops ask all the time; a point after a write that changed nothing would tell nothing.
fn changed_something(written: &Result<Written, StoreError>) -> bool {
    match written {
        Ok(Written::Leases(leases) | Written::Claimed { leases, .. }) => !leases.is_empty(),
        Ok(Written::Turn(turn)) => turn.is_some(),
        Ok(Written::Count(count)) => *count > 0,
        Ok(
            Written::Closed(closed)
            | Written::Ended { closed, .. }
            | Written::JobClosed { closed, .. },
        ) => !closed.is_empty(),
        Ok(
            Written::Task(_)
            | Written::Lease(_)
            | Written::Superseding { .. }
            | Written::Renewed { .. }
            | Written::Root(_)
            | Written::Done,
        ) => true,
        Err(_) => false,
    }
}

#[async_trait]
impl Store for Around<Arc<dyn Store>> {
    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        let Some((before, after)) = points_of(&write) else { return self.0.write(write).await };
        if reached(before).await.is_err() {
            return Err(StoreError::unavailable("failpoint"));
        }
        // Asked once, at the end, and mostly with empty hands.
        let once = matches!(write, Write::HandBack { .. });
        let written = self.0.write(write).await;
        let told = changed_something(&written) || (once && written.is_ok());
        if told && reached(after).await.is_err() {
            return Err(StoreError::Unknown("failpoint".into()));
        }
        written
    }

    async fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        self.0.lease(id).await
    }

    async fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.0.task(id).await
    }

    async fn task_by_token(&self, hash: [u8; 32]) -> Result<Option<Task>, StoreError> {
        self.0.task_by_token(hash).await
    }

    async fn counts(&self, task: TaskId) -> Result<Counts, StoreError> {
        self.0.counts(task).await
    }

    async fn next_due(&self, backend: &str) -> Result<Option<Duration>, StoreError> {
        self.0.next_due(backend).await
    }

    async fn next_task_due(&self) -> Result<Option<Duration>, StoreError> {
        self.0.next_task_due().await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.0.now().await
    }

    async fn installation(&self) -> Result<Uuid, StoreError> {
        self.0.installation().await
    }

    async fn standing(&self) -> Result<Standing, StoreError> {
        self.0.standing().await
    }

    async fn root(&self, backend: &str) -> Result<Option<Root>, StoreError> {
        self.0.root(backend).await
    }

    async fn turn(&self, backend: &str) -> Result<u64, StoreError> {
        self.0.turn(backend).await
    }

    async fn sightings(&self, ids: &[LeaseId]) -> Result<Vec<Sighting>, StoreError> {
        self.0.sightings(ids).await
    }

    async fn living_of(
        &self,
        backend: &str,
        after: Option<LeaseId>,
        limit: u32,
    ) -> Result<Vec<Lease>, StoreError> {
        self.0.living_of(backend, after, limit).await
    }
}

/// Nothing was sent.
async fn before(point: &'static str) -> Result<(), Error> {
    let failed = |_| Error::new(ErrorKind::Unavailable, "failpoint");
    reached(point).await.map_err(failed)
}

/// It was done, and nobody heard of it.
async fn after(point: &'static str) -> Result<(), Error> {
    let failed = |_| Error::new(ErrorKind::UnknownOutcome, "failpoint");
    reached(point).await.map_err(failed)
}

fn all_failed(doomed: &[Doomed], kind: ErrorKind) -> Vec<Revocation> {
    doomed.iter().map(|_| Revocation::Failed(Error::new(kind, "failpoint"))).collect()
}

#[async_trait]
impl Backend for Around<Arc<dyn Backend>> {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    fn prefix(&self) -> &HandlePrefix {
        self.0.prefix()
    }

    fn template(&self, raw: &Value) -> Result<Template, Error> {
        self.0.template(raw)
    }

    fn keeps(&self) -> bool {
        self.0.keeps()
    }

    fn variables(&self, template: &Template) -> Option<Vec<(Name, Name)>> {
        self.0.variables(template)
    }

    fn mint_margin(&self) -> Duration {
        self.0.mint_margin()
    }

    fn rotates(&self) -> bool {
        self.0.rotates()
    }

    async fn rotate_root(&self, new: &Secret) -> Result<(), Error> {
        self.0.rotate_root(new).await
    }

    async fn advice(&self) -> Result<Vec<String>, Error> {
        self.0.advice().await
    }

    fn handle(&self, lease: Uuid) -> Result<Handle, HandleError> {
        self.0.handle(lease)
    }

    async fn mint(&self, request: &MintRequest<'_>) -> Result<Credential, Error> {
        before("backend.mint.before").await?;
        let minted = self.0.mint(request).await?;
        after("backend.mint.after").await.map(|()| minted)
    }

    async fn renew(&self, request: &RenewRequest<'_>) -> Result<(), Error> {
        before("backend.renew.before").await?;
        self.0.renew(request).await?;
        after("backend.renew.after").await
    }

    async fn revoke(&self, doomed: &[Doomed]) -> Vec<Revocation> {
        if reached("backend.revoke.before").await.is_err() {
            return all_failed(doomed, ErrorKind::Unavailable);
        }
        let revoked = self.0.revoke(doomed).await;
        if reached("backend.revoke.after").await.is_err() {
            return all_failed(doomed, ErrorKind::UnknownOutcome);
        }
        revoked
    }

    async fn verify(&self, doomed: &[Doomed]) -> Result<Vec<Liveness>, Error> {
        before("backend.verify.before").await?;
        let verified = self.0.verify(doomed).await?;
        after("backend.verify.after").await.map(|()| verified)
    }

    async fn list(&self, from: Option<&Handle>, limit: u32) -> Result<Listing, Error> {
        before("backend.list.before").await?;
        let listed = self.0.list(from, limit).await?;
        after("backend.list.after").await.map(|()| listed)
    }

    async fn marker(&self) -> Result<Option<Marker>, Error> {
        self.0.marker().await
    }

    async fn mark(&self, marker: &Marker) -> Result<(), Error> {
        before("backend.mark.before").await?;
        self.0.mark(marker).await?;
        after("backend.mark.after").await
    }

    async fn canary(&self, handle: &Handle, template: &Template) -> CanaryReport {
        self.0.canary(handle, template).await
    }
}
