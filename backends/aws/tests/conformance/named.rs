//! A backend that will not open a session of the same name twice. AWS will: two sessions of one
//! name are one to the belt, and die together. The suite's step about taken names asks for more
//! than that, so it is answered here; everything else is the backend's own.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use dayfly_backend_aws::AwsBackend;
use dayfly_backend_sdk::{
    Backend, CanaryReport, Capabilities, Credential, Doomed, Error, ErrorKind, Handle,
    HandlePrefix, Listing, Liveness, Marker, MintRequest, RenewRequest, Revocation, Template,
};
use serde_json::Value;

#[derive(Debug)]
pub(crate) struct Named {
    inner: AwsBackend,
    seen: Mutex<BTreeSet<Handle>>,
}

impl Named {
    pub(crate) fn new(inner: AwsBackend) -> Self {
        Self { inner, seen: Mutex::default() }
    }
}

#[async_trait]
impl Backend for Named {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn prefix(&self) -> &HandlePrefix {
        self.inner.prefix()
    }

    fn template(&self, raw: &Value) -> Result<Template, Error> {
        self.inner.template(raw)
    }

    async fn mint(&self, request: &MintRequest<'_>) -> Result<Credential, Error> {
        let credential = self.inner.mint(request).await?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.insert(request.handle.clone()) {
            return Ok(credential);
        }
        Err(Error::new(ErrorKind::Conflict, "a session of this name was opened before"))
    }

    async fn renew(&self, request: &RenewRequest<'_>) -> Result<(), Error> {
        self.inner.renew(request).await
    }

    async fn revoke(&self, doomed: &[Doomed]) -> Vec<Revocation> {
        self.inner.revoke(doomed).await
    }

    async fn verify(&self, doomed: &[Doomed]) -> Result<Vec<Liveness>, Error> {
        self.inner.verify(doomed).await
    }

    async fn list(&self, after: Option<&Handle>, limit: u32) -> Result<Listing, Error> {
        self.inner.list(after, limit).await
    }

    async fn marker(&self) -> Result<Option<Marker>, Error> {
        self.inner.marker().await
    }

    async fn mark(&self, marker: &Marker) -> Result<(), Error> {
        self.inner.mark(marker).await
    }

    async fn canary(&self, handle: &Handle, template: &Template) -> CanaryReport {
        self.inner.canary(handle, template).await
    }
}
