//! Our own passwords at backends, and their change.
//!
//! Invariant: a new password is sealed in the store before the backend is told of it, and the one
//! before is forgotten only when the backend has accepted the new one or certainly has not.
//! Whatever crashes in between, one of the two that the store has works.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use data_encoding::BASE32_NOPAD;
use dayfly_backend_api_key::{KeyStore, MemoryKeyStore};
use dayfly_backend_sdk::{
    Backend, CanaryReport, Capabilities, Credential, Doomed, Error, ErrorKind, Handle, HandleError,
    HandlePrefix, Listing, Liveness, Marker, MintRequest, RenewRequest, Revocation, Secret,
    Template, Timestamp,
};
use dayfly_lease::{
    Clock, Entropy, Root, Seal, SealError, Sealed, Store, StoreError, Write, Written, failpoint,
};
use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    config::{BackendConfig, Config, Faults},
    preflight,
    seal::AesSeal,
};

/// How often a replica looks whether another one has changed a password.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long after it was staged a change that nobody has settled could still take effect: longer
/// than any backend's request may take.
const SETTLES_AFTER: Duration = Duration::from_mins(1);
/// A schedule comes to all replicas at once; their clocks differ by less.
const FRESH: Duration = Duration::from_secs(30);
const PASSWORD_BYTES: usize = 32;

/// Makes a backend that signs in with a password; none: with the configured one.
pub type Make = Box<dyn Fn(Option<Secret>) -> Result<Arc<dyn Backend>, Error> + Send + Sync>;

/// A backend whose password changes: each password has a value of the backend of its own.
pub struct Rotating {
    capabilities: Capabilities,
    prefix: HandlePrefix,
    inner: RwLock<Arc<dyn Backend>>,
    make: Make,
    refused: Arc<Notify>,
}

impl Rotating {
    /// Around a backend that signs in with what is configured.
    ///
    /// # Errors
    /// What making it fails with.
    pub fn new(make: Make, refused: Arc<Notify>) -> Result<Self, Error> {
        let inner = make(None)?;
        let capabilities = inner.capabilities().clone();
        let prefix = inner.prefix().clone();
        Ok(Self { capabilities, prefix, inner: RwLock::new(inner), make, refused })
    }

    fn inner(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, inner: Arc<dyn Backend>) {
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = inner;
    }

    /// Whoever is refused may have a password that another replica has changed.
    fn noted<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Denied) {
            self.refused.notify_one();
        }
        result
    }
}

impl fmt::Debug for Rotating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotating").field("inner", &self.inner()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for Rotating {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prefix(&self) -> &HandlePrefix {
        &self.prefix
    }

    fn template(&self, raw: &Value) -> Result<Template, Error> {
        self.inner().template(raw)
    }

    fn keeps(&self) -> bool {
        self.inner().keeps()
    }

    fn handle(&self, lease: Uuid) -> Result<Handle, HandleError> {
        self.inner().handle(lease)
    }

    async fn mint(&self, request: &MintRequest<'_>) -> Result<Credential, Error> {
        self.noted(self.inner().mint(request).await)
    }

    async fn renew(&self, request: &RenewRequest<'_>) -> Result<(), Error> {
        self.noted(self.inner().renew(request).await)
    }

    async fn revoke(&self, doomed: &[Doomed]) -> Vec<Revocation> {
        let revoked = self.inner().revoke(doomed).await;
        let denied = |one: &Revocation| matches!(one, Revocation::Failed(error) if error.kind() == ErrorKind::Denied);
        if revoked.iter().any(denied) {
            self.refused.notify_one();
        }
        revoked
    }

    async fn verify(&self, doomed: &[Doomed]) -> Result<Vec<Liveness>, Error> {
        self.noted(self.inner().verify(doomed).await)
    }

    async fn list(&self, after: Option<&Handle>, limit: u32) -> Result<Listing, Error> {
        self.noted(self.inner().list(after, limit).await)
    }

    async fn marker(&self) -> Result<Option<Marker>, Error> {
        self.noted(self.inner().marker().await)
    }

    async fn mark(&self, marker: &Marker) -> Result<(), Error> {
        self.noted(self.inner().mark(marker).await)
    }

    fn rotates(&self) -> bool {
        true
    }

    async fn rotate_root(&self, new: &Secret) -> Result<(), Error> {
        self.inner().rotate_root(new).await
    }

    async fn advice(&self) -> Result<Vec<String>, Error> {
        self.inner().advice().await
    }

    async fn canary(&self, handle: &Handle, template: &Template) -> CanaryReport {
        self.inner().canary(handle, template).await
    }
}

/// Why a password was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The backend refused or failed.
    #[error("the backend could not change it")]
    Backend(#[source] Error),
    /// It is not known whether the backend took it: both are kept, and it is looked at again.
    #[error("whether the backend took it is not known yet")]
    Open(#[source] Error),
    /// Nothing could be sealed.
    #[error("the new password could not be sealed")]
    Seal(#[source] SealError),
    /// The store failed or refused.
    #[error("the new password could not be recorded")]
    Store(#[source] StoreError),
    /// There is no such backend, or its password is not ours to change.
    #[error("there is no backend of this name whose password Dayfly can change")]
    Unknown,
}

/// What signing in with a password came to.
enum Accepted {
    Yes(Arc<dyn Backend>),
    No,
    Unknown(Error),
}

/// Puts those of `by_name` that can change our password behind values that follow it; none where
/// nothing can be sealed.
///
/// # Errors
/// What making a backend fails with.
pub fn follow(
    config: &Config,
    by_name: &mut BTreeMap<String, Arc<dyn Backend>>,
    store: Arc<dyn Store>,
    (clock, entropy): (&Arc<dyn Clock>, &Arc<dyn Entropy>),
) -> Result<Option<Roots>, Error> {
    let Some(seal) = &config.seal else { return Ok(None) };
    let seal = AesSeal::new(seal, Arc::clone(entropy)).map_err(|error| {
        Error::new(ErrorKind::Invalid, "the key to seal with cannot be used").with_source(error)
    })?;
    let refused = Arc::new(Notify::new());
    let mut rotating = BTreeMap::new();
    for one in &config.backends {
        let Some(backend) = by_name.get_mut(&one.name).filter(|backend| backend.rotates()) else {
            continue;
        };
        let (like, entropy) = (one.clone(), Arc::clone(entropy));
        let make: Make = Box::new(move |password| remade(&like, password, &entropy));
        let followed = Arc::new(Rotating::new(make, Arc::clone(&refused))?);
        *backend = Arc::clone(&followed) as Arc<dyn Backend>;
        rotating.insert(one.name.clone(), followed);
    }
    let outside = (Arc::clone(clock), Arc::clone(entropy));
    Ok(Some(Roots::new(store, Arc::new(seal), outside, (rotating, refused))))
}

/// A configured backend that signs in with `password`.
fn remade(
    config: &BackendConfig,
    password: Option<Secret>,
    entropy: &Arc<dyn Entropy>,
) -> Result<Arc<dyn Backend>, Error> {
    let mut config = config.clone();
    config.password = password.or(config.password);
    let name = config.name.clone();
    // It has no table of keys: API keys have no password of ours.
    let keys: Arc<dyn KeyStore> = Arc::new(MemoryKeyStore::new(Timestamp::EPOCH));
    let built = preflight::backends(&[config], &keys, entropy);
    let built =
        built.map_err(|faults| Error::new(ErrorKind::Invalid, Faults(faults).to_string()))?;
    built.by_name.get(&name).cloned().ok_or_else(|| Error::new(ErrorKind::Invalid, "no backend"))
}

/// All backends whose passwords we change.
#[derive(Debug)]
pub struct Roots {
    store: Arc<dyn Store>,
    seal: Arc<dyn Seal>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    refused: Arc<Notify>,
    by_name: BTreeMap<String, Arc<Rotating>>,
    /// Whether it may settle what another has left open.
    settles: bool,
    /// Which change of each this replica signs in with.
    seen: tokio::sync::Mutex<BTreeMap<String, i64>>,
}

impl Roots {
    /// Over `backends`; nothing is asked yet. `refused` is what they ring.
    pub fn new(
        store: Arc<dyn Store>,
        seal: Arc<dyn Seal>,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
        (by_name, refused): (BTreeMap<String, Arc<Rotating>>, Arc<Notify>),
    ) -> Self {
        let seen = tokio::sync::Mutex::default();
        Self { store, seal, clock, entropy, refused, by_name, settles: true, seen }
    }

    /// Only signs in, and changes nothing: the store is open for reading.
    #[must_use]
    pub fn reading(self) -> Self {
        Self { settles: false, ..self }
    }

    /// The backends' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Signs in with what the store has, at every backend.
    ///
    /// # Errors
    /// The store's. A backend that cannot be asked is none: it is tried again.
    pub async fn adopt(&self) -> Result<(), StoreError> {
        for (name, backend) in &self.by_name {
            self.adopt_one(name, backend, false).await?;
        }
        Ok(())
    }

    /// Looks for ever whether a password was changed elsewhere, and at once when a backend has
    /// refused us.
    pub async fn watch(&self) {
        loop {
            let refused = tokio::select! {
                () = self.refused.notified() => true,
                () = self.clock.sleep(LOOK_EVERY) => false,
            };
            for (name, backend) in &self.by_name {
                if let Err(error) = self.adopt_one(name, backend, refused).await {
                    tracing::warn!(backend = name, %error, "root.unreadable");
                }
            }
            if refused {
                // Who is refused for another reason rings all the time.
                self.clock.sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Gives our account at a backend a new password.
    ///
    /// # Errors
    /// See [`RotateError`]; but for [`RotateError::Open`] the one before is still in use.
    pub async fn rotate(&self, name: &str, actor: &str) -> Result<Root, RotateError> {
        let backend = self.by_name.get(name).ok_or(RotateError::Unknown)?;
        self.adopt_one(name, backend, false).await.map_err(RotateError::Store)?;
        let root = self.read(name).await.map_err(RotateError::Store)?;
        let mut bytes = [0; PASSWORD_BYTES];
        self.entropy.fill(&mut bytes);
        let new = Secret::new(BASE32_NOPAD.encode(&bytes));
        let next = self.seal.seal(&purpose(name), &new).map_err(RotateError::Seal)?;
        let stage = Write::StageRoot {
            backend: name.to_owned(),
            epoch: root.epoch,
            next,
            actor: actor.to_owned(),
        };
        let staged = self.write(stage).await.map_err(RotateError::Store)?;
        failpoint::reached("root.staged").await.map_err(|_| interrupted())?;
        let set = backend.rotate_root(&new).await;
        failpoint::reached("root.set").await.map_err(|_| interrupted())?;
        match self.accepts(backend, Some(new)).await {
            Accepted::Yes(inner) => self.settled(&staged, true, actor, backend, inner).await,
            Accepted::Unknown(error) => Err(RotateError::Open(error)),
            Accepted::No => match set {
                // It may be on its way: nobody forgets it before that is impossible.
                Ok(()) => Err(RotateError::Open(refused_both())),
                Err(error) if error.kind() == ErrorKind::UnknownOutcome => {
                    Err(RotateError::Open(error))
                }
                Err(error) => {
                    self.settled(&staged, false, actor, backend, backend.inner()).await?;
                    Err(RotateError::Backend(error))
                }
            },
        }
    }

    /// The same, unless another replica has done so within the last half minute.
    ///
    /// # Errors
    /// As [`Roots::rotate`].
    pub async fn rotate_unless_fresh(
        &self,
        name: &str,
        actor: &str,
    ) -> Result<Option<Root>, RotateError> {
        let root = self.read(name).await.map_err(RotateError::Store)?;
        let now = self.store.now().await.map_err(RotateError::Store)?;
        if root.rotated_at.is_some_and(|at| now.since(at) < FRESH) {
            return Ok(None);
        }
        self.rotate(name, actor).await.map(Some)
    }

    async fn settled(
        &self,
        staged: &Root,
        taken: bool,
        actor: &str,
        backend: &Rotating,
        inner: Arc<dyn Backend>,
    ) -> Result<Root, RotateError> {
        let settle = Write::SettleRoot {
            backend: staged.backend.clone(),
            epoch: staged.epoch,
            taken,
            actor: actor.to_owned(),
        };
        let root = self.write(settle).await.map_err(RotateError::Store)?;
        failpoint::reached("root.settled").await.map_err(|_| interrupted())?;
        backend.set(inner);
        self.seen.lock().await.insert(root.backend.clone(), root.epoch);
        tracing::info!(backend = root.backend, taken, "root.settled");
        Ok(root)
    }

    async fn read(&self, name: &str) -> Result<Root, StoreError> {
        Ok(self.store.root(name).await?.unwrap_or_else(|| Root::configured(name)))
    }

    async fn write(&self, write: Write) -> Result<Root, StoreError> {
        let written = self.store.write(write).await?;
        if let Written::Root(root) = written { Ok(*root) } else { Err(not_a_root()) }
    }

    async fn accepts(&self, backend: &Rotating, password: Option<Secret>) -> Accepted {
        let inner = match (backend.make)(password) {
            Ok(inner) => inner,
            Err(error) => return Accepted::Unknown(error),
        };
        match inner.marker().await {
            Ok(_) => Accepted::Yes(inner),
            // It is about the marker, so we were let in.
            Err(error) if error.kind() == ErrorKind::Conflict => Accepted::Yes(inner),
            Err(error) if error.kind() == ErrorKind::Denied => Accepted::No,
            Err(error) => Accepted::Unknown(error),
        }
    }

    fn opened(&self, name: &str, sealed: &Sealed) -> Option<Secret> {
        let opened = self.seal.open(&purpose(name), sealed);
        let unreadable = |error: &SealError| {
            tracing::error!(backend = name, %error, "root.unreadable");
        };
        opened.inspect_err(unreadable).ok()
    }

    /// Signs in as the store says, unless that is what this replica does already. What was staged
    /// and never settled is settled once it is certain; until then whichever works is used.
    async fn adopt_one(
        &self,
        name: &str,
        backend: &Rotating,
        refused: bool,
    ) -> Result<(), StoreError> {
        let root = self.read(name).await?;
        let known = self.seen.lock().await.get(name).copied().unwrap_or(0) == root.epoch;
        let Some((staged, since)) = &root.staged else {
            if known && !refused {
                return Ok(());
            }
            let current = root.current.as_ref().and_then(|current| self.opened(name, current));
            return self.adopt_current(&root, backend, current).await;
        };
        let overdue = self.settles && since.plus(SETTLES_AFTER) <= self.store.now().await?;
        if !(refused || overdue || !known) {
            return Ok(());
        }
        self.adopt_staged(&root, backend, (staged, overdue)).await
    }

    async fn adopt_current(
        &self,
        root: &Root,
        backend: &Rotating,
        current: Option<Secret>,
    ) -> Result<(), StoreError> {
        let name = root.backend.as_str();
        // The configured one last: who restores a store, or loses the key, sets the backend's
        // password back to it.
        for candidate in current.map(Some).into_iter().chain([None]) {
            let configured = candidate.is_none();
            match self.accepts(backend, candidate).await {
                Accepted::Yes(inner) => {
                    if configured && root.current.is_some() {
                        tracing::warn!(backend = name, "root.configured");
                    }
                    backend.set(inner);
                    self.seen.lock().await.insert(name.to_owned(), root.epoch);
                    return Ok(());
                }
                Accepted::No => {}
                Accepted::Unknown(error) => {
                    tracing::warn!(backend = name, %error, "root.unknown");
                    return Ok(());
                }
            }
        }
        tracing::error!(backend = name, "root.refused");
        Ok(())
    }

    async fn adopt_staged(
        &self,
        root: &Root,
        backend: &Rotating,
        (staged, overdue): (&Sealed, bool),
    ) -> Result<(), StoreError> {
        let name = root.backend.as_str();
        let Some(next) = self.opened(name, staged) else { return Ok(()) };
        match self.accepts(backend, Some(next)).await {
            Accepted::Yes(inner) => {
                // Not before its own replica had the time to say so.
                if overdue {
                    return self.settle_for(root, true, backend, inner).await;
                }
                backend.set(inner);
                self.seen.lock().await.insert(name.to_owned(), root.epoch);
                Ok(())
            }
            Accepted::No if overdue => {
                self.settle_for(root, false, backend, backend.inner()).await?;
                let current = root.current.as_ref().and_then(|one| self.opened(name, one));
                let settled = self.read(name).await?;
                self.adopt_current(&settled, backend, current).await
            }
            Accepted::No => {
                let current = root.current.as_ref().and_then(|one| self.opened(name, one));
                self.adopt_current(root, backend, current).await
            }
            Accepted::Unknown(error) => {
                tracing::warn!(backend = name, %error, "root.unknown");
                Ok(())
            }
        }
    }

    async fn settle_for(
        &self,
        root: &Root,
        taken: bool,
        backend: &Rotating,
        inner: Arc<dyn Backend>,
    ) -> Result<(), StoreError> {
        match self.settled(root, taken, "engine", backend, inner).await {
            Ok(_) => Ok(()),
            // Another replica was faster; what it found is read the next time.
            Err(RotateError::Store(error)) if error.refusal().is_some() => Ok(()),
            Err(RotateError::Store(error)) => Err(error),
            Err(error) => Err(StoreError::unavailable(error)),
        }
    }
}

fn purpose(backend: &str) -> String {
    format!("root/{backend}")
}

fn not_a_root() -> StoreError {
    StoreError::unavailable("the store answered something else")
}

fn interrupted() -> RotateError {
    RotateError::Open(Error::new(ErrorKind::UnknownOutcome, "failpoint"))
}

fn refused_both() -> Error {
    Error::new(ErrorKind::UnknownOutcome, "the backend said that it did, and refuses the new one")
}
