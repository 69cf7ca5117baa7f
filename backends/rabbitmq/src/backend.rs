//! The backend: the trait's methods, each some requests.
//!
//! Invariant: whatever is minted here has a name that begins with the prefix, and nothing else
//! is ever listed, changed or deleted.

use std::{collections::BTreeSet, fmt, time::Duration};

use async_trait::async_trait;
use dayfly_backend_sdk::{
    Backend, CanaryReport, Capabilities, Credential, Doomed, Error, ErrorKind, Expiry, Handle,
    HandlePrefix, Listed, Listing, Liveness, Marker, MintRequest, Name, Probe, RenewRequest,
    Revocation, Secret, Template, Timestamp, Unusable,
};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use crate::{
    config::{ConfigError, RabbitmqConfig},
    credential::{Address, random_password, salted, variables},
    error::Failure,
    management::Management,
    rights::{RabbitmqTemplate, Recipe},
};

/// How soon closed connections are looked for again, and how the wait grows.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(200);
/// Users that are ended at a time: one with connections takes a while, and delays no other.
const SIDE_BY_SIDE: usize = 8;

/// RabbitMQ users with a lifetime.
pub struct RabbitmqBackend {
    prefix: HandlePrefix,
    capabilities: Capabilities,
    management: Management,
    address: Address,
    patience: Duration,
    random: SystemRandom,
}

impl RabbitmqBackend {
    /// Checks the configuration. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub fn new(config: &RabbitmqConfig) -> Result<Self, Error> {
        let (prefix, url) = config.check()?;
        let capabilities = Capabilities {
            kind: "rabbitmq",
            expiry: Expiry::None,
            revoke: true,
            session_kill: true,
            verify: true,
            list: true,
            renew: true,
            // An HTTP API has no way to refuse what comes late.
            deadline_guard: false,
            ttl_min: Duration::from_secs(1),
            ttl_max: None,
            handle_len_max: 63,
        };
        Ok(Self {
            prefix,
            capabilities,
            management: Management::new(config, &url)?,
            address: Address::of(config, &url),
            patience: Duration::from_millis(u64::from(config.session_end_timeout_ms)),
            random: SystemRandom::new(),
        })
    }

    async fn exists(&self, handle: &Handle) -> Result<bool, Failure> {
        let user = self.management.ask(Method::GET, &["users", handle.as_str()], None).await?;
        Ok(user.found()?.is_some())
    }

    /// Connections of a user, also of one that is gone.
    async fn connected(&self, handle: &Handle) -> Result<bool, Failure> {
        let path = ["connections", "username", handle.as_str()];
        let connections = self.management.ask(Method::GET, &path, None).await?.found()?;
        match connections {
            None => Ok(false),
            Some(Value::Array(list)) => Ok(!list.is_empty()),
            Some(_) => Err(Failure::Strange),
        }
    }

    async fn create(&self, handle: &Handle, recipe: &Recipe, hash: &str) -> Result<(), Failure> {
        let name = handle.as_str();
        // PUT would take the place of a user that is there.
        if self.exists(handle).await? {
            return Err(Failure::Taken);
        }
        let user = json!({ "password_hash": hash, "tags": recipe.tags,
            "hashing_algorithm": "rabbit_password_hashing_sha256" });
        let made = self.management.ask(Method::PUT, &["users", name], Some(&user)).await?;
        if !made.status.is_success() {
            return Err(made.bad_unquoted());
        }
        let rights = json!({ "configure": recipe.configure, "write": recipe.write,
            "read": recipe.read });
        self.put(&["permissions", &recipe.vhost, name], &rights).await?;
        for (exchange, write, read) in &recipe.topics {
            let rights = json!({ "exchange": exchange, "write": write, "read": read });
            self.put(&["topic-permissions", &recipe.vhost, name], &rights).await?;
        }
        if let Some(limit) = recipe.connection_limit {
            let limit = json!({ "value": limit });
            self.put(&["user-limits", name, "max-connections"], &limit).await?;
        }
        Ok(())
    }

    async fn put(&self, path: &[&str], body: &Value) -> Result<(), Failure> {
        self.management.ask(Method::PUT, path, Some(body)).await?.good().map(drop)
    }

    /// Deleted, so that nobody logs in; then its connections are closed until there is none.
    async fn end(&self, handle: &Handle) -> Result<(), Failure> {
        let name = handle.as_str();
        let gone = self.management.ask(Method::DELETE, &["users", name], None).await?;
        gone.found()?;
        let mut wait = LOOK_AGAIN;
        let mut waited = Duration::ZERO;
        while self.connected(handle).await? {
            if waited > self.patience {
                return Err(Failure::Survived("a connection of it is still open"));
            }
            let path = ["connections", "username", name];
            self.management.ask(Method::DELETE, &path, None).await?.found()?;
            tokio::time::sleep(wait).await;
            waited += wait;
            wait = (wait * 2).min(LOOK_AGAIN_MAX);
        }
        if self.exists(handle).await? {
            return Err(Failure::Survived("it is there again"));
        }
        Ok(())
    }

    fn marker_name(&self) -> String {
        format!("{}marker", self.prefix.as_str())
    }

    /// Users of ours, in order.
    async fn ours(&self) -> Result<BTreeSet<Handle>, Failure> {
        let users = self.management.ask(Method::GET, &["users"], None).await?.good()?;
        let users = users.as_array().ok_or(Failure::Strange)?;
        let names = users.iter().filter_map(|user| user.get("name").and_then(Value::as_str));
        // Exactly the shape of our handles: somebody's user that happens to begin like them must
        // not be swept away.
        let ours = names.filter(|name| self.prefix.lease_of(name).is_some());
        Ok(ours.filter_map(|name| Handle::parse(name).ok()).collect())
    }
}

impl fmt::Debug for RabbitmqBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitmqBackend")
            .field("prefix", &self.prefix)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for RabbitmqBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prefix(&self) -> &HandlePrefix {
        &self.prefix
    }

    fn template(&self, raw: &Value) -> Result<Template, Error> {
        let template = RabbitmqTemplate::parse(raw).map_err(ConfigError::Rights)?;
        Ok(template.sealed().map_err(ConfigError::Rights)?)
    }

    fn variables(&self, _: &Template) -> Option<Vec<(Name, Name)>> {
        Some(variables())
    }

    async fn mint(&self, request: &MintRequest<'_>) -> Result<Credential, Error> {
        let recipe: &Recipe = request.template.inner()?;
        let (password, hash) = random_password(&self.random).map_err(|_| {
            let what = "the operating system has no random numbers";
            Error::new(ErrorKind::Unavailable, what)
        })?;
        let created = self.create(request.handle, recipe, &hash).await;
        created.map_err(|failure| {
            let error = failure.into_error("the user could not be created");
            if error.kind() != ErrorKind::NotFound {
                return error;
            }
            // What is not there at a mint is something that the template names.
            Error::new(ErrorKind::Invalid, "the template names what is not there")
                .with_source(error)
        })?;
        Ok(self.address.credential(request.handle, password, &recipe.vhost))
    }

    /// There is no expiry to move: only that it is still there is looked at.
    async fn renew(&self, request: &RenewRequest<'_>) -> Result<(), Error> {
        let exists = self.exists(request.handle).await;
        let exists =
            exists.map_err(|failure| failure.into_error("the user could not be looked for"))?;
        if !exists {
            return Err(Error::new(ErrorKind::NotFound, "the user is not there"));
        }
        Ok(())
    }

    async fn revoke(&self, doomed: &[Doomed]) -> Vec<Revocation> {
        let mut outcome = Vec::with_capacity(doomed.len());
        for some in doomed.chunks(SIDE_BY_SIDE) {
            let mut ends = Vec::with_capacity(SIDE_BY_SIDE);
            for one in some {
                ends.push(self.end(&one.handle));
            }
            for end in join_all(ends).await {
                outcome.push(match end {
                    Ok(()) => Revocation::Gone,
                    Err(failure) => {
                        Revocation::Failed(failure.into_error("the user could not be ended"))
                    }
                });
            }
        }
        outcome
    }

    async fn verify(&self, doomed: &[Doomed]) -> Result<Vec<Liveness>, Error> {
        let failed = |failure: Failure| failure.into_error("the users could not be looked for");
        let mut seen = Vec::with_capacity(doomed.len());
        for one in doomed {
            let alive = self.exists(&one.handle).await.map_err(failed)?
                || self.connected(&one.handle).await.map_err(failed)?;
            seen.push(if alive { Liveness::Live } else { Liveness::Gone });
        }
        Ok(seen)
    }

    async fn list(&self, after: Option<&Handle>, limit: u32) -> Result<Listing, Error> {
        let ours = self.ours().await;
        let ours = ours.map_err(|failure| failure.into_error("the users could not be listed"))?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut rest = ours.into_iter().filter(|handle| after.is_none_or(|after| handle > after));
        let listed = |handle| Listed { handle, expires_at: None };
        let credentials = rest.by_ref().take(limit).map(listed).collect();
        Ok(Listing { credentials, more: rest.next().is_some() })
    }

    async fn marker(&self) -> Result<Option<Marker>, Error> {
        let failed = |failure: Failure| failure.into_error("the marker could not be read");
        let path = ["global-parameters", &self.marker_name()];
        let found = self.management.ask(Method::GET, &path, None).await.map_err(failed)?;
        let Some(found) = found.found().map_err(failed)? else { return Ok(None) };
        let text = found.get("value").and_then(Value::as_str).unwrap_or_default();
        Marker::parse(text).map(Some).ok_or_else(|| {
            let name = self.marker_name();
            let message = format!("the global parameter `{name}` is no marker of Dayfly");
            Error::new(ErrorKind::Conflict, message)
        })
    }

    /// The API has no compare-and-set: two installations that begin with one prefix in the same
    /// instant both write, and the one that is overwritten learns it at its next sweep.
    async fn mark(&self, marker: &Marker) -> Result<(), Error> {
        if let Some(found) = self.marker().await?
            && found.installation != marker.installation
        {
            let message = format!("the prefix belongs to installation {}", found.installation);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let value = json!({ "value": marker.to_text() });
        let written = self.put(&["global-parameters", &self.marker_name()], &value).await;
        written.map_err(|failure| failure.into_error("the marker could not be written"))
    }

    fn rotates(&self) -> bool {
        true
    }

    /// A user is written whole: what it may do is read before.
    async fn rotate_root(&self, new: &Secret) -> Result<(), Error> {
        let failed = |failure: Failure| failure.into_error("our password could not be changed");
        let hash = salted(&self.random, new).map_err(|_| {
            Error::new(ErrorKind::Unavailable, "the operating system has no random numbers")
        })?;
        let path = ["users", self.management.username()];
        let own = self.management.ask(Method::GET, &path, None).await.map_err(failed)?;
        let own = own.good().map_err(failed)?;
        let tags = own.get("tags").cloned().unwrap_or_default();
        let user = json!({ "password_hash": hash, "tags": tags,
            "hashing_algorithm": "rabbit_password_hashing_sha256" });
        let put = self.management.ask(Method::PUT, &path, Some(&user)).await.map_err(failed)?;
        if put.status.is_success() { Ok(()) } else { Err(failed(put.bad_unquoted())) }
    }

    async fn canary(&self, handle: &Handle, template: &Template) -> CanaryReport {
        dayfly_backend_sdk::canary(self, handle, template).await
    }
}

#[async_trait]
impl Probe for RabbitmqBackend {
    /// From the `Date` of an answer would do to the second; nothing here is judged by a clock.
    async fn clock(&self) -> Result<Timestamp, Error> {
        Ok(Timestamp::from_seconds(0))
    }

    /// The management API knows a user that may not use it from one that it does not know.
    async fn try_use(&self, credential: &Credential) -> Result<(), Unusable> {
        let field = |name| credential.field(name).unwrap_or_default();
        let login = (field("username"), field("password"));
        let doing = "whether the credential can log in is not known";
        let asked = self.management.ask_as(login, Method::GET, &["whoami"], None).await;
        let answer = asked.map_err(|failure| Unusable::Unknown(failure.into_error(doing)))?;
        let reason = answer.body.get("reason").and_then(Value::as_str).unwrap_or_default();
        if answer.status.is_success() || reason == "Not management user" {
            return Ok(());
        }
        if answer.status == StatusCode::UNAUTHORIZED {
            let refused = answer.bad().into_error("the credential cannot log in");
            return Err(Unusable::Refused(refused));
        }
        Err(Unusable::Unknown(answer.bad().into_error(doing)))
    }
}
