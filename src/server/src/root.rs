//! Our own passwords at backends, and their change.
//!
//! Invariant: a new password is sealed in the store before the backend is told of it, and the one
//! before is forgotten only when the backend has accepted the new one or certainly has not.
//! Whatever crashes in between, one of the two that the store has works.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use data_encoding::BASE32_NOPAD;
use dayfly_backend_api_key::{KeyStore, MemoryKeyStore};
use dayfly_backend_sdk::{
    Backend, CanaryReport, Capabilities, Credential, Doomed, Error, ErrorKind, Handle, HandleError,
    HandlePrefix, Listing, Liveness, Marker, MintRequest, Name, RenewRequest, Revocation, Secret,
    Template, Timestamp,
};
use dayfly_lease::{
    Clock, Entropy, Refusal, Root, Seal, SealError, Sealed, Store, StoreError, Write, Written,
    failpoint,
};
use futures_util::future::join_all;
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
/// How long a backend may take to change a password.
const SET_WITHIN: Duration = Duration::from_secs(30);
/// How long after it was staged a change that nobody has settled is settled by whoever looks.
/// One that takes effect later still is undone by setting the one before again, which comes
/// after it.
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
    inner: RwLock<(Arc<dyn Backend>, Option<Secret>)>,
    make: Make,
    configured: Option<Secret>,
    /// Whether it has refused us since somebody looked, and who is told.
    was_refused: AtomicBool,
    refused: Arc<Notify>,
}

impl Rotating {
    /// Around a backend that signs in with what is configured.
    ///
    /// # Errors
    /// What making it fails with.
    pub fn new(
        make: Make,
        configured: Option<Secret>,
        refused: Arc<Notify>,
    ) -> Result<Self, Error> {
        let inner = make(None)?;
        Ok(Self {
            capabilities: inner.capabilities().clone(),
            prefix: inner.prefix().clone(),
            inner: RwLock::new((inner, None)),
            make,
            configured,
            was_refused: AtomicBool::new(false),
            refused,
        })
    }

    fn inner(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Signs in with `password` from now on, none: with the configured one. Where it does so
    /// already the value stays, with what it has in memory.
    fn set(&self, inner: Arc<dyn Backend>, password: Option<Secret>) {
        let mut used = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if used.1 != password {
            *used = (inner, password);
        }
    }

    fn note_refusal(&self) {
        self.was_refused.store(true, Ordering::Relaxed);
        self.refused.notify_one();
    }

    /// Whoever is refused may have a password that another replica has changed.
    fn noted<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Denied) {
            self.note_refusal();
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

    fn variables(&self, template: &Template) -> Option<Vec<(Name, Name)>> {
        self.inner().variables(template)
    }

    fn mint_margin(&self) -> Duration {
        self.inner().mint_margin()
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
            self.note_refusal();
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
        let followed = Arc::new(Rotating::new(make, one.password.clone(), Arc::clone(&refused))?);
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
            let rung = tokio::select! {
                () = self.refused.notified() => true,
                () = self.clock.sleep(LOOK_EVERY) => false,
            };
            // Side by side: one that does not answer holds up no other.
            join_all(self.by_name.iter().map(async |(name, backend)| {
                let refused = backend.was_refused.swap(false, Ordering::Relaxed);
                if let Err(error) = self.adopt_one(name, backend, refused).await {
                    tracing::warn!(backend = name, %error, "root.unreadable");
                }
            }))
            .await;
            if rung {
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
        let (staged, new) = self.stage(&root, name, actor).await?;
        self.take(name, actor, backend, &staged, new).await
    }

    /// Writes a new password down, if nobody has changed `root` since it was read.
    async fn stage(
        &self,
        root: &Root,
        name: &str,
        actor: &str,
    ) -> Result<(Root, Secret), RotateError> {
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
        Ok((self.write(stage).await.map_err(RotateError::Store)?, new))
    }

    /// Has the backend take the password that was staged.
    async fn take(
        &self,
        name: &str,
        actor: &str,
        backend: &Rotating,
        staged: &Root,
        new: Secret,
    ) -> Result<Root, RotateError> {
        failpoint::reached("root.staged").await.map_err(|_| interrupted())?;
        let set = self.change(backend.inner().as_ref(), &new).await;
        failpoint::reached("root.set").await.map_err(|_| interrupted())?;
        match self.accepts(backend, Some(new.clone())).await {
            Accepted::Unknown(error) => Err(RotateError::Open(error)),
            Accepted::Yes(inner) => {
                if set.is_err() {
                    // It lets us in, and may not have it everywhere, or not on its disk.
                    let again = self.change(inner.as_ref(), &new).await;
                    again.map_err(RotateError::Open)?;
                }
                let used = (Arc::clone(&inner), Some(new.clone()));
                match self.settled(staged, true, actor, backend, used).await {
                    Err(RotateError::Store(error)) if error.refusal().is_some() => {
                        self.give_way(name, backend, inner.as_ref(), &new, error).await
                    }
                    settled => settled,
                }
            }
            Accepted::No => match set {
                // It may be on its way: nobody forgets it before that is impossible.
                Ok(()) => Err(RotateError::Open(refused_both())),
                Err(error) if is_certain(&error) => {
                    let used = backend.inner.read().unwrap_or_else(PoisonError::into_inner).clone();
                    self.settled(staged, false, actor, backend, used).await?;
                    Err(RotateError::Backend(error))
                }
                Err(error) => Err(RotateError::Open(error)),
            },
        }
    }

    /// Somebody else has settled what we had staged, while we took our time. What the store says
    /// counts; if that is not the new one, the backend is told to go back.
    async fn give_way(
        &self,
        name: &str,
        backend: &Rotating,
        inner: &dyn Backend,
        new: &Secret,
        error: StoreError,
    ) -> Result<Root, RotateError> {
        let root = self.read(name).await.map_err(RotateError::Store)?;
        let current = root.current.as_ref().and_then(|current| self.opened(name, current));
        if current.as_ref() == Some(new) {
            return Ok(root);
        }
        if let Some(before) = current.or_else(|| backend.configured.clone()) {
            let back = self.change(inner, &before).await;
            tracing::error!(backend = name, ?back, "root.put_back");
        }
        Err(RotateError::Store(error))
    }

    /// Has a backend change our password, and waits for so long.
    async fn change(&self, backend: &dyn Backend, password: &Secret) -> Result<(), Error> {
        tokio::select! {
            changed = backend.rotate_root(password) => changed,
            () = self.clock.sleep(SET_WITHIN) => {
                Err(Error::new(ErrorKind::UnknownOutcome, "the backend did not answer in time"))
            }
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
        let backend = self.by_name.get(name).ok_or(RotateError::Unknown)?;
        self.adopt_one(name, backend, false).await.map_err(RotateError::Store)?;
        let root = self.read(name).await.map_err(RotateError::Store)?;
        let now = self.store.now().await.map_err(RotateError::Store)?;
        if root.rotated_at.is_some_and(|at| now.since(at) < FRESH) {
            return Ok(None);
        }
        match self.stage(&root, name, actor).await {
            Ok((staged, new)) => self.take(name, actor, backend, &staged, new).await.map(Some),
            // Another replica has come between.
            Err(RotateError::Store(error)) if error.refusal() == Some(Refusal::RootChanged) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn settled(
        &self,
        staged: &Root,
        taken: bool,
        actor: &str,
        backend: &Rotating,
        (inner, password): (Arc<dyn Backend>, Option<Secret>),
    ) -> Result<Root, RotateError> {
        let settle = Write::SettleRoot {
            backend: staged.backend.clone(),
            epoch: staged.epoch,
            taken,
            actor: actor.to_owned(),
        };
        let root = self.write(settle).await.map_err(RotateError::Store)?;
        failpoint::reached("root.settled").await.map_err(|_| interrupted())?;
        backend.set(inner, password);
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
            self.adopt_current(&root, backend).await;
            return Ok(());
        };
        let overdue = self.settles && since.plus(SETTLES_AFTER) <= self.store.now().await?;
        if !(refused || overdue || !known) {
            return Ok(());
        }
        self.adopt_staged(&root, backend, (staged, overdue)).await
    }

    /// Signs in with what the store calls the one in use, or with the configured one; gives
    /// which of them works.
    async fn adopt_current(&self, root: &Root, backend: &Rotating) -> Option<Secret> {
        let name = root.backend.as_str();
        let current = root.current.as_ref().and_then(|current| self.opened(name, current));
        // The configured one last: who restores a store, or loses the key, sets the backend's
        // password back to it.
        for candidate in current.map(Some).into_iter().chain([None]) {
            match self.accepts(backend, candidate.clone()).await {
                Accepted::Yes(inner) => {
                    if candidate.is_none() && root.current.is_some() {
                        tracing::warn!(backend = name, "root.configured");
                    }
                    backend.set(inner, candidate.clone());
                    self.seen.lock().await.insert(name.to_owned(), root.epoch);
                    return candidate.or_else(|| backend.configured.clone());
                }
                Accepted::No => {}
                Accepted::Unknown(error) => {
                    tracing::warn!(backend = name, %error, "root.unknown");
                    return None;
                }
            }
        }
        tracing::error!(backend = name, "root.refused");
        None
    }

    async fn adopt_staged(
        &self,
        root: &Root,
        backend: &Rotating,
        (staged, overdue): (&Sealed, bool),
    ) -> Result<(), StoreError> {
        let name = root.backend.as_str();
        let next = self.opened(name, staged);
        let seen = match &next {
            Some(next) => self.accepts(backend, Some(next.clone())).await,
            None => Accepted::No,
        };
        match (seen, next) {
            (Accepted::Unknown(error), _) => {
                tracing::warn!(backend = name, %error, "root.unknown");
                Ok(())
            }
            (Accepted::Yes(inner), Some(next)) if overdue => {
                // Once more, so that it is everywhere and on every disk.
                match self.change(inner.as_ref(), &next).await {
                    Ok(()) => self.settle_for(root, true, backend, (inner, Some(next))).await,
                    Err(error) => {
                        tracing::warn!(backend = name, %error, "root.open");
                        Ok(())
                    }
                }
            }
            (Accepted::Yes(inner), next) => {
                backend.set(inner, next);
                self.seen.lock().await.insert(name.to_owned(), root.epoch);
                Ok(())
            }
            (Accepted::No, next) => {
                let Some(before) = self.adopt_current(root, backend).await else { return Ok(()) };
                if !overdue {
                    return Ok(());
                }
                // What may be on its way yet takes effect before this does.
                let used = backend.inner.read().unwrap_or_else(PoisonError::into_inner).clone();
                match self.change(used.0.as_ref(), &before).await {
                    Ok(()) => self.settle_for(root, false, backend, used).await,
                    Err(error) if is_certain(&error) => {
                        // Refused because the new one has come into force just now, it is kept.
                        let still = match next {
                            Some(next) => self.accepts(backend, Some(next)).await,
                            None => Accepted::No,
                        };
                        match still {
                            Accepted::Yes(_) | Accepted::Unknown(_) => Ok(()),
                            Accepted::No => self.settle_for(root, false, backend, used).await,
                        }
                    }
                    Err(error) => {
                        tracing::warn!(backend = name, %error, "root.open");
                        Ok(())
                    }
                }
            }
        }
    }

    async fn settle_for(
        &self,
        root: &Root,
        taken: bool,
        backend: &Rotating,
        used: (Arc<dyn Backend>, Option<Secret>),
    ) -> Result<(), StoreError> {
        match self.settled(root, taken, "engine", backend, used).await {
            Ok(_) => Ok(()),
            // Another replica was faster; what it found is read the next time.
            Err(RotateError::Store(error)) if error.refusal().is_some() => Ok(()),
            Err(RotateError::Store(error)) => Err(error),
            Err(error) => Err(StoreError::unavailable(error)),
        }
    }
}

/// Whether the backend has refused to change a password, so that nothing was changed.
fn is_certain(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Denied | ErrorKind::Invalid)
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
