//! The backend: the trait's methods, each some of the configured requests.
//!
//! Invariant: a credential is gone only when the API says so of itself; what was lost with a
//! mint's answer is looked for by its name, and where that cannot be it lingers or is owed, never
//! called gone.

use std::{collections::BTreeMap, fmt, sync::Mutex};

use async_trait::async_trait;
use dayfly_backend_sdk::{
    Backend, CanaryReport, Capabilities, Credential, Doomed, Error, ErrorKind, Expiry, Handle,
    HandlePrefix, Listed, Listing, Liveness, Marker, MintRequest, Name, RenewRequest, Revocation,
    Template,
};
use serde_json::Value;

use crate::{
    api::Api,
    check::Requests,
    config::{ConfigError, ExpiryConfig, HttpConfig},
    error::Failure,
    list::{Item, Rolls},
    mint::Kept,
    request::Request,
    role::{HttpTemplate, Recipe, of_plan},
    text::Hole,
    values::Values,
};

const ENDING: &str = "the credential could not be ended";

/// Credentials of any HTTP API that makes and deletes keys.
pub struct HttpBackend {
    prefix: HandlePrefix,
    capabilities: Capabilities,
    pub(crate) api: Api,
    pub(crate) requests: Requests,
    pub(crate) expiry: Option<ExpiryConfig>,
    pub(crate) looks_first: bool,
    /// The marker, where the API has no place for it.
    pub(crate) remembered: Mutex<Option<Marker>>,
}

impl HttpBackend {
    /// Checks the configuration. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub fn new(config: &HttpConfig) -> Result<Self, Error> {
        let (prefix, url) = config.check()?;
        let requests = config.requests()?;
        Ok(Self {
            prefix,
            capabilities: config.capabilities(&requests),
            api: Api::new(config, &url)?,
            requests,
            expiry: config.expiry,
            looks_first: !config.unique_names,
            remembered: Mutex::default(),
        })
    }

    /// Whether what ends a credential, or asks whether it has ended, needs this of it.
    pub(crate) fn asks(&self, hole: &Hole) -> bool {
        self.requests.of_a_death().any(|request| request.has(hole))
    }

    /// Lists for one call; none where the API has no list.
    pub(crate) fn rolls(&self) -> Option<Rolls<'_>> {
        let list = self.requests.list.as_ref()?;
        Some(Rolls::new(&self.api, list, &self.prefix))
    }

    /// Ends one: by what was kept of it, or by what the list says of its name.
    pub(crate) async fn try_end(
        &self,
        one: &Doomed,
        rolls: &mut Option<Rolls<'_>>,
    ) -> Result<(), Failure> {
        let Some(revoke) = &self.requests.revoke else {
            return Err(Failure::Lost("the API has no request that ends it"));
        };
        let kept = Kept::read(one.kept.as_ref());
        if is_enough(&kept, revoke) {
            return self.send_end(revoke, one, &kept).await;
        }
        let Some(rolls) = rolls else {
            return Err(Failure::Lost(
                "what ends it was lost with the answer to its mint: with a `list` it would be \
                 found by its name",
            ));
        };
        let found = rolls.find(of_plan(&one.plan), &one.handle).await?;
        if !found.is_empty() && revoke.has(&Hole::Secret) {
            return Err(Failure::Lost(
                "it is there, and the secret that ends it was lost with the answer to its mint",
            ));
        }
        for Item { id, .. } in found {
            self.send_end(revoke, one, &Kept { id, secret: None }).await?;
        }
        Ok(())
    }

    async fn send_end(&self, revoke: &Request, one: &Doomed, kept: &Kept) -> Result<(), Failure> {
        let ready = revoke.ready(self.api.base(), &of(one, kept))?;
        let answer = self.api.ask(ready).await?;
        if revoke.is_gone(&answer) { Ok(()) } else { revoke.good(answer).map(drop) }
    }

    async fn liveness(
        &self,
        one: &Doomed,
        rolls: &mut Option<Rolls<'_>>,
    ) -> Result<Liveness, Failure> {
        let kept = Kept::read(one.kept.as_ref());
        if let Some(verify) = self.requests.verify.as_ref().filter(|one| is_enough(&kept, one)) {
            let answer = self.api.ask(verify.ready(self.api.base(), &of(one, &kept))?).await?;
            if !verify.is_gone(&answer) {
                return verify.good(answer).map(|_| Liveness::Live);
            }
            // An API that has taken our rights away may say so of everything: where there is a
            // list, that has the last word.
            if rolls.is_none() {
                return Ok(Liveness::Gone);
            }
        }
        // What cannot be asked about is alive.
        let Some(rolls) = rolls else { return Ok(Liveness::Live) };
        let found = rolls.find(of_plan(&one.plan), &one.handle).await?;
        Ok(if found.is_empty() { Liveness::Gone } else { Liveness::Live })
    }
}

/// Whether what was kept fills a request.
fn is_enough(kept: &Kept, request: &Request) -> bool {
    (kept.id.is_some() || !request.has(&Hole::Id))
        && (kept.secret.is_some() || !request.has(&Hole::Secret))
}

fn of<'a>(one: &'a Doomed, kept: &'a Kept) -> Values<'a> {
    Values {
        handle: Some(one.handle.as_str()),
        id: kept.id.as_ref(),
        role: of_plan(&one.plan),
        secret: kept.secret.as_ref(),
        ..Values::default()
    }
}

impl fmt::Debug for HttpBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBackend")
            .field("prefix", &self.prefix)
            .field("url", &self.api.base().as_str())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for HttpBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prefix(&self) -> &HandlePrefix {
        &self.prefix
    }

    fn template(&self, raw: &Value) -> Result<Template, Error> {
        let template = HttpTemplate::parse(raw).map_err(ConfigError::Role)?;
        Ok(template.sealed(&self.requests, self.api.base()).map_err(ConfigError::Role)?)
    }

    fn keeps(&self) -> bool {
        self.asks(&Hole::Id) || self.asks(&Hole::Secret)
    }

    fn variables(&self, template: &Template) -> Option<Vec<(Name, Name)>> {
        let recipe: &Recipe = template.inner().ok()?;
        let pairs = recipe.variables.iter();
        Some(pairs.map(|(name, field)| (name.clone().into(), field.clone().into())).collect())
    }

    async fn mint(&self, request: &MintRequest<'_>) -> Result<Credential, Error> {
        let recipe: &Recipe = request.template.inner()?;
        self.create(request, recipe).await.map_err(|failure| {
            let error = failure.into_error("the credential could not be made");
            if error.kind() != ErrorKind::NotFound {
                return error;
            }
            // What is not there at a mint is something that the template names.
            Error::new(ErrorKind::Invalid, "the template names what is not there")
                .with_source(error)
        })
    }

    async fn renew(&self, _: &RenewRequest<'_>) -> Result<(), Error> {
        Err(Error::new(ErrorKind::Invalid, "the API's credentials cannot be renewed"))
    }

    async fn revoke(&self, doomed: &[Doomed]) -> Vec<Revocation> {
        let lingers = matches!(self.capabilities.expiry, Expiry::Native { .. });
        let mut rolls = self.rolls();
        let mut outcome = Vec::with_capacity(doomed.len());
        for one in doomed {
            outcome.push(match self.try_end(one, &mut rolls).await {
                Ok(()) => Revocation::Gone,
                Err(Failure::Lost(_)) if lingers => Revocation::Lingers,
                Err(failure) => Revocation::Failed(failure.into_error(ENDING)),
            });
        }
        outcome
    }

    async fn verify(&self, doomed: &[Doomed]) -> Result<Vec<Liveness>, Error> {
        let failed = |failure: Failure| failure.into_error("it could not be looked for");
        let mut rolls = self.rolls();
        let mut seen = Vec::with_capacity(doomed.len());
        for one in doomed {
            seen.push(self.liveness(one, &mut rolls).await.map_err(failed)?);
        }
        Ok(seen)
    }

    /// Empty where it is not declared: a name alone would not say what to do with it.
    async fn list(&self, after: Option<&Handle>, limit: u32) -> Result<Listing, Error> {
        let Some(list) = self.requests.list.as_ref().filter(|_| self.capabilities.list) else {
            return Ok(Listing::default());
        };
        let read = list.read(&self.api, &self.prefix, None).await;
        let failed = |failure: Failure| failure.into_error("the credentials could not be listed");
        let slack = match self.capabilities.expiry {
            Expiry::None => std::time::Duration::ZERO,
            Expiry::Native { slack, .. } => slack,
        };
        // Never later than the lease's own: what the API adds is within the slack.
        let ends = |item: Item| (item.handle, item.expires_at.map(|at| at.minus(slack)));
        let all: BTreeMap<_, _> = read.map_err(failed)?.into_iter().map(ends).collect();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let listed = |(handle, expires_at)| Listed { handle, expires_at };
        let all = all.into_iter().map(listed);
        let mut rest = all.filter(|one| after.is_none_or(|after| one.handle > *after));
        let credentials = rest.by_ref().take(limit).collect();
        Ok(Listing { credentials, more: rest.next().is_some() })
    }

    async fn marker(&self) -> Result<Option<Marker>, Error> {
        self.read_marker().await
    }

    async fn mark(&self, marker: &Marker) -> Result<(), Error> {
        self.write_marker(marker).await
    }

    async fn advice(&self) -> Result<Vec<String>, Error> {
        let listless = self.requests.list.is_none();
        let swept = self.requests.can_be_swept();
        let all = [
            (
                listless && self.expiry.is_none() && self.keeps(),
                "a mint whose answer is lost leaves a credential that nothing ends: configure \
                 `list`",
            ),
            (
                !listless && swept && !self.capabilities.list,
                "nothing is swept, since another installation may have the prefix: configure \
                 `marker`, or say `exclusive = true`",
            ),
            (
                !listless && !swept,
                "nothing is swept, since a name alone does not say the role or the secret that \
                 `list`, `verify` and `revoke` ask for",
            ),
            (
                listless
                    && self.requests.revoke.as_ref().is_some_and(|one| !one.has(&Hole::Secret)),
                "that something is not there (404) is taken for its death, and an API that has \
                 taken our rights away may say so of everything: configure `list`",
            ),
            (
                self.requests.try_use.is_none(),
                "a canary cannot use its credential: configure `use`",
            ),
        ];
        let due = all.into_iter().filter(|(is, _)| *is).map(|(_, what)| what.to_owned());
        Ok(due.collect())
    }

    async fn canary(&self, handle: &Handle, template: &Template) -> CanaryReport {
        dayfly_backend_sdk::canary(self, handle, template).await
    }
}
