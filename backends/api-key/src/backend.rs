//! The backend: mints keys, and tells a good key from a bad one.
//!
//! Invariant: checking a key costs the same work whether it is known, unknown, expired or
//! not a key at all: one hash, one look at the clock, one look-up. And no signed key that
//! works without us is said to be gone because its row is.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use dayfly_backend_sdk::{
    Backend, CanaryReport, Capabilities, Credential, Doomed, Error, ErrorKind, Expiry, Handle,
    HandlePrefix, Listing, Liveness, Marker, MintRequest, Name, Probe, RenewRequest, Revocation,
    Secret, Template, Timestamp, Unusable,
};
use serde_json::Value;

use crate::{
    ApiKeyConfig, ApiKeyError, ApiKeyTemplate, Insertion, KeyRecord, KeyStore,
    jwt::{Issuer, JwtTemplate, Verified, is_token},
    key::{hash_of, key_of, well_formed},
};

/// The one field of a credential, and the variable that carries it.
const FIELD: &str = "key";
const VARIABLE: &str = "DAYFLY_API_KEY";

/// Fills a slice with random bytes from the operating system.
pub type Random = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Keys that Dayfly itself verifies, or that it signs.
pub struct ApiKeyBackend {
    prefix: HandlePrefix,
    capabilities: Capabilities,
    keys: Arc<dyn KeyStore>,
    random: Random,
    issuer: Option<Issuer>,
}

impl ApiKeyBackend {
    /// A backend over `keys`, whose handles begin with `prefix` and whose keys are random.
    pub fn new(prefix: HandlePrefix, keys: Arc<dyn KeyStore>, random: Random) -> Self {
        let capabilities = Capabilities {
            kind: "api_key",
            expiry: Expiry::Native { slack: Duration::ZERO, life_min: Duration::ZERO },
            revoke: true,
            session_kill: false,
            verify: true,
            list: true,
            renew: true,
            deadline_guard: true,
            ttl_min: Duration::from_secs(1),
            ttl_max: None,
            handle_len_max: 63,
        };
        Self { prefix, capabilities, keys, random, issuer: None }
    }

    /// The same as `config` says.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], with a message for the person who wrote the configuration.
    pub fn configured(
        prefix: HandlePrefix,
        config: &ApiKeyConfig,
        keys: Arc<dyn KeyStore>,
        random: Random,
    ) -> Result<Self, Error> {
        let backend = Self::new(prefix, keys, random);
        let Some(jwt) = &config.jwt else { return Ok(backend) };
        let issuer = Issuer::new(jwt)?;
        Ok(Self { capabilities: issuer.capabilities(), issuer: Some(issuer), ..backend })
    }

    /// The public keys (RFC 7517) by which others verify what is minted here; none where keys
    /// are random.
    pub fn jwks(&self) -> Vec<Value> {
        self.issuer.as_ref().map(Issuer::jwks).unwrap_or_default()
    }

    /// The record of `presented`, if it is a key of ours that is good now.
    ///
    /// # Errors
    /// The store could not be asked: then nobody knows, and the key must be refused.
    pub async fn verify_key(&self, presented: &str) -> Result<Option<KeyRecord>, Error> {
        // Nothing here returns early, so that the time of the answer tells a stranger nothing
        // about which keys exist. The look-up goes by hash, which a stranger cannot steer.
        // Either form is good wherever it was minted: the configuration may have changed since.
        let hash = hash_of(presented);
        let (random, signed) = (well_formed(presented), is_token(presented));
        let now = self.keys.now().await?;
        let found = self.keys.find(&hash).await?;
        Ok(found.filter(|record| (random || signed) && now < record.expires_at))
    }

    /// A new key and what it is good for. Nothing knows it yet.
    async fn key(&self, request: &MintRequest<'_>) -> Result<(Secret, Vec<String>), Error> {
        let Some(issuer) = &self.issuer else {
            let template: &ApiKeyTemplate = request.template.inner()?;
            let mut random = [0; 32];
            (self.random)(&mut random);
            return Ok((key_of(&random), template.scopes.clone()));
        };
        let template: &JwtTemplate = request.template.inner()?;
        let now = self.keys.now().await?;
        Ok((issuer.sign(template, request, now)?, template.scopes.clone()))
    }
}

/// What became of a key whose row is gone.
fn ended(one: &Doomed) -> Revocation {
    match Verified::of(&one.plan) {
        // Introspection refuses it from now on; who never asks accepts it until its end.
        Some(Verified::Anywhere) => Revocation::Lingers,
        Some(Verified::Here) | None => Revocation::Gone,
    }
}

impl fmt::Debug for ApiKeyBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyBackend").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for ApiKeyBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prefix(&self) -> &HandlePrefix {
        &self.prefix
    }

    fn template(&self, raw: &Value) -> Result<Template, Error> {
        match &self.issuer {
            Some(issuer) => Ok(issuer.template(raw)?),
            None => Ok(ApiKeyTemplate::parse(raw)?.sealed()),
        }
    }

    fn variables(&self, _: &Template) -> Option<Vec<(Name, Name)>> {
        Some(vec![(VARIABLE.into(), FIELD.into())])
    }

    async fn mint(&self, request: &MintRequest<'_>) -> Result<Credential, Error> {
        let (key, scopes) = self.key(request).await?;
        let record = KeyRecord {
            handle: request.handle.clone(),
            hash: hash_of(key.expose()),
            scopes,
            principal: request.principal.to_owned(),
            lease: request.lease.to_owned(),
            expires_at: request.expires_at,
        };
        match self.keys.insert(&record, request.mint_deadline).await? {
            Insertion::Late => Err(ApiKeyError::Late.into()),
            Insertion::Stored => Ok(Credential::new().secret(FIELD, key).variable(VARIABLE, FIELD)),
            Insertion::Taken => Err(ApiKeyError::Taken(request.handle.to_string()).into()),
        }
    }

    async fn renew(&self, request: &RenewRequest<'_>) -> Result<(), Error> {
        if Verified::of(request.plan).is_some() {
            return Err(ApiKeyError::Signed.into());
        }
        if self.keys.extend(request.handle, request.until).await? {
            return Ok(());
        }
        Err(ApiKeyError::Missing(request.handle.to_string()).into())
    }

    async fn revoke(&self, doomed: &[Doomed]) -> Vec<Revocation> {
        let handles: Vec<Handle> = doomed.iter().map(|one| one.handle.clone()).collect();
        if self.keys.remove(&handles).await.is_ok() {
            return doomed.iter().map(ended).collect();
        }
        // One by one, so that each has its own answer.
        let mut outcome = Vec::with_capacity(doomed.len());
        for one in doomed {
            outcome.push(match self.keys.remove(std::slice::from_ref(&one.handle)).await {
                Ok(()) => ended(one),
                Err(error) => Revocation::Failed(error),
            });
        }
        outcome
    }

    async fn verify(&self, doomed: &[Doomed]) -> Result<Vec<Liveness>, Error> {
        let handles: Vec<Handle> = doomed.iter().map(|one| one.handle.clone()).collect();
        let live = self.keys.live(&handles).await?;
        let state = |one: &Doomed| match Verified::of(&one.plan) {
            // Nobody knows whether its end has come, so it has not.
            Some(Verified::Anywhere) => Liveness::Live,
            Some(Verified::Here) | None if live.contains(&one.handle) => Liveness::Live,
            Some(Verified::Here) | None => Liveness::Gone,
        };
        Ok(doomed.iter().map(state).collect())
    }

    async fn list(&self, after: Option<&Handle>, limit: u32) -> Result<Listing, Error> {
        let mut credentials = self.keys.list(&self.prefix, after, limit.saturating_add(1)).await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = credentials.len() > limit;
        credentials.truncate(limit);
        Ok(Listing { credentials, more })
    }

    /// The keys are in the installation's own store, so the prefix there is nobody else's, and
    /// the store cannot be behind itself.
    async fn marker(&self) -> Result<Option<Marker>, Error> {
        Ok(Some(Marker { installation: self.keys.installation().await?, turn: 0 }))
    }

    async fn mark(&self, marker: &Marker) -> Result<(), Error> {
        if self.keys.installation().await? == marker.installation {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, "the keys are another installation's"))
    }

    async fn canary(&self, handle: &Handle, template: &Template) -> CanaryReport {
        dayfly_backend_sdk::canary(self, handle, template).await
    }
}

#[async_trait]
impl Probe for ApiKeyBackend {
    async fn clock(&self) -> Result<Timestamp, Error> {
        self.keys.now().await
    }

    async fn try_use(&self, credential: &Credential) -> Result<(), Unusable> {
        let key = credential.field("key").unwrap_or_default();
        match self.verify_key(key).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                Err(Unusable::Refused(Error::new(ErrorKind::Invalid, "the key is refused")))
            }
            Err(error) => Err(Unusable::Unknown(error)),
        }
    }
}
