//! The engine's seams in the simulated world: its store and its backends over the network.
//!
//! Invariant: nothing reaches a store or a site but through [`call`], so that every step can
//! be lost, repeated or late.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use dayfly_backend_sdk::{
    Backend, CanaryReport, Capabilities, Credential, Doomed, Error, ErrorKind, Handle,
    HandlePrefix, Listing, Liveness, Marker, MintRequest, Plan, RenewRequest, Revocation, Secret,
    Template, Timestamp,
};
use dayfly_lease::{
    Clock, Counts, Lease, LeaseId, Root, Sighting, Standing, Store, StoreError, Task, TaskId,
    Write, Written,
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    backend::Site,
    coverage::Kind,
    hearing::Look,
    network::{Failure, call},
    process::Process,
    watch,
    world::{Target, World},
};

/// The store as one replica reaches it.
#[derive(Debug)]
pub struct RemoteStore {
    process: Arc<Process>,
    /// What answers at the other end.
    truth: Arc<dyn Store>,
}

impl RemoteStore {
    /// The way from `process` to `truth`.
    pub fn new(process: Arc<Process>, truth: Arc<dyn Store>) -> Self {
        Self { process, truth }
    }

    async fn read<T, F>(
        &self,
        read: impl Fn(Arc<dyn Store>) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>>,
    {
        let truth = Arc::clone(&self.truth);
        let effect = move || at_once(read(Arc::clone(&truth)));
        match call(&self.process, Target::Store, Kind::Read, effect).await {
            Ok(answer) => answer,
            Err(Failure::Refused | Failure::Lost) => Err(StoreError::unavailable("no answer")),
        }
    }
}

/// The stores at the other end never wait.
fn at_once<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    use futures_util::FutureExt;
    work.now_or_never().unwrap_or_else(|| Err(StoreError::unavailable("the store waited")))
}

#[async_trait]
impl Store for RemoteStore {
    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        let kind = Kind::of(&write);
        if let Write::Shorten { lease, .. } = &write
            && let Some(tracked) = self.process.world.model().leases.get_mut(lease)
        {
            tracked.taken_back += 1;
        }
        let (truth, world) = (Arc::clone(&self.truth), Arc::clone(&self.process.world));
        let (replica, looks) = (self.process.id, matches!(write, Write::ExpireTasks { .. }));
        let look = Look { replica, sent: world.elapsed(), running: self.process.running() };
        let effect = move || apply(&world, &truth, &write, look);
        let written = match call(&self.process, Target::Store, kind, effect).await {
            Ok(answer) => answer,
            Err(Failure::Refused) => Err(StoreError::unavailable("connection refused")),
            Err(Failure::Lost) => Err(StoreError::Unknown("no answer".into())),
        };
        if looks && written.is_err() {
            let world = &self.process.world;
            world.model().hearing.missed(replica, world.elapsed());
        }
        written
    }

    async fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        self.read(move |truth| async move { truth.lease(id).await }).await
    }

    async fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.read(move |truth| async move { truth.task(id).await }).await
    }

    async fn task_by_token(&self, hash: [u8; 32]) -> Result<Option<Task>, StoreError> {
        self.read(move |truth| async move { truth.task_by_token(hash).await }).await
    }

    async fn counts(&self, task: TaskId) -> Result<Counts, StoreError> {
        self.read(move |truth| async move { truth.counts(task).await }).await
    }

    async fn next_due(&self, backend: &str) -> Result<Option<Duration>, StoreError> {
        let backend = backend.to_owned();
        self.read(move |truth| {
            let backend = backend.clone();
            async move { truth.next_due(&backend).await }
        })
        .await
    }

    async fn next_task_due(&self) -> Result<Option<Duration>, StoreError> {
        self.read(|truth| async move { truth.next_task_due().await }).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.read(|truth| async move { truth.now().await }).await
    }

    async fn installation(&self) -> Result<Uuid, StoreError> {
        self.read(|truth| async move { truth.installation().await }).await
    }

    async fn standing(&self) -> Result<Standing, StoreError> {
        self.read(|truth| async move { truth.standing().await }).await
    }

    async fn root(&self, backend: &str) -> Result<Option<Root>, StoreError> {
        let backend = backend.to_owned();
        self.read(move |truth| {
            let backend = backend.clone();
            async move { truth.root(&backend).await }
        })
        .await
    }

    async fn turn(&self, backend: &str) -> Result<u64, StoreError> {
        let backend = backend.to_owned();
        self.read(move |truth| {
            let backend = backend.clone();
            async move { truth.turn(&backend).await }
        })
        .await
    }

    async fn sightings(&self, ids: &[LeaseId]) -> Result<Vec<Sighting>, StoreError> {
        let ids = ids.to_vec();
        self.read(move |truth| {
            let ids = ids.clone();
            async move { truth.sightings(&ids).await }
        })
        .await
    }

    async fn living_of(
        &self,
        backend: &str,
        after: Option<LeaseId>,
        limit: u32,
    ) -> Result<Vec<Lease>, StoreError> {
        let backend = backend.to_owned();
        self.read(move |truth| {
            let backend = backend.clone();
            async move { truth.living_of(&backend, after, limit).await }
        })
        .await
    }
}

fn apply(
    world: &World,
    truth: &Arc<dyn Store>,
    write: &Write,
    look: Look,
) -> Result<Written, StoreError> {
    world.truth().before(write);
    let written = at_once(truth.write(write.clone()));
    watch::written(world, write, &written);
    if let Ok(Written::Ended { closed, now }) = &written {
        watch::ended(world, closed, *now, look);
    }
    written
}

/// A backend as one replica reaches it.
#[derive(Debug)]
pub struct RemoteBackend {
    process: Arc<Process>,
    index: usize,
    capabilities: Capabilities,
    prefix: HandlePrefix,
}

impl RemoteBackend {
    /// The way from `process` to the site at `index`.
    pub fn new(process: Arc<Process>, index: usize, site: &Site) -> Self {
        let (capabilities, prefix) = (site.capabilities.clone(), site.prefix.clone());
        Self { process, index, capabilities, prefix }
    }

    async fn at_site<R: Send + 'static>(
        &self,
        kind: Kind,
        mut work: impl FnMut(&World, &Site) -> Result<R, Error> + Send + 'static,
    ) -> Result<R, Error> {
        let (world, index) = (Arc::clone(&self.process.world), self.index);
        let effect = move || match world.sites.get(index) {
            Some(site) => work(&world, site),
            None => Err(Error::new(ErrorKind::Unavailable, "no such backend")),
        };
        match call(&self.process, Target::Backend(self.index), kind, effect).await {
            Ok(answer) => answer,
            Err(Failure::Refused) => Err(Error::new(ErrorKind::Unavailable, "connection refused")),
            Err(Failure::Lost) => Err(Error::new(ErrorKind::UnknownOutcome, "no answer")),
        }
    }
}

#[async_trait]
impl Backend for RemoteBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prefix(&self) -> &HandlePrefix {
        &self.prefix
    }

    fn template(&self, _raw: &Value) -> Result<Template, Error> {
        Ok(Template::new(Plan::default(), ()))
    }

    async fn mint(&self, request: &MintRequest<'_>) -> Result<Credential, Error> {
        let (handle, index) = (request.handle.clone(), self.index);
        let (deadline, expires_at) = (request.mint_deadline, request.expires_at);
        let create = move |world: &World, site: &Site| {
            site.create(world, &handle, deadline, expires_at)?;
            watch::created(world, index, handle.as_str());
            Ok(())
        };
        let secret = format!("{SECRET}{:016x}", self.process.world.dice.number());
        watch::sent(&self.process.world, index, request.handle.as_str());
        self.at_site(Kind::Mint, create).await?;
        Ok(Credential::new().secret("password", Secret::new(secret)))
    }

    async fn renew(&self, request: &RenewRequest<'_>) -> Result<(), Error> {
        let (handle, until) = (request.handle.clone(), request.until);
        let extend = move |_: &World, site: &Site| site.extend(&handle, until);
        self.at_site(Kind::RenewBackend, extend).await
    }

    async fn revoke(&self, doomed: &[Doomed]) -> Vec<Revocation> {
        let handles: Vec<Handle> = doomed.iter().map(|one| one.handle.clone()).collect();
        let index = self.index;
        let end = move |world: &World, site: &Site| {
            let ended = handles.iter().map(|handle| {
                watch::revoked(world, index, handle.as_str());
                site.end(world, handle)
            });
            Ok(ended.collect::<Vec<_>>())
        };
        match self.at_site(Kind::Revoke, end).await {
            Ok(ended) => ended,
            Err(error) => doomed.iter().map(|_| Revocation::Failed(copy(&error))).collect(),
        }
    }

    async fn verify(&self, doomed: &[Doomed]) -> Result<Vec<Liveness>, Error> {
        let handles: Vec<Handle> = doomed.iter().map(|one| one.handle.clone()).collect();
        let look = move |world: &World, site: &Site| {
            Ok(handles.iter().map(|handle| site.look(world, handle)).collect())
        };
        self.at_site(Kind::Verify, look).await
    }

    async fn list(&self, after: Option<&Handle>, limit: u32) -> Result<Listing, Error> {
        let after = after.cloned();
        let list = move |_: &World, site: &Site| Ok(site.list(after.as_ref(), limit));
        self.at_site(Kind::List, list).await
    }

    async fn marker(&self) -> Result<Option<Marker>, Error> {
        self.at_site(Kind::List, |_: &World, site: &Site| Ok(site.marker())).await
    }

    async fn mark(&self, marker: &Marker) -> Result<(), Error> {
        let marker = marker.clone();
        self.at_site(Kind::List, move |_: &World, site: &Site| site.mark(&marker)).await
    }

    async fn canary(&self, _handle: &Handle, _template: &Template) -> CanaryReport {
        CanaryReport::default()
    }
}

/// What every secret begins with, so that one which strays is found.
pub const SECRET: &str = "s3cret-";

fn copy(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string()).with_retry(error.retry())
}
