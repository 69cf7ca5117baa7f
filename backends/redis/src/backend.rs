//! The backend: the trait's methods, each a message or a few to every node.
//!
//! Invariant: whatever is minted here has a name that begins with the prefix, and nothing else
//! is ever listed, changed or deleted.

use std::{collections::BTreeSet, fmt, time::Duration};

use async_trait::async_trait;
use dayfly_backend_sdk::{
    Backend, CanaryReport, Capabilities, Credential, Doomed, Error, ErrorKind, Expiry, Handle,
    HandlePrefix, Listed, Listing, Liveness, Marker, MintRequest, Name, RenewRequest, Revocation,
    Secret, Template,
};
use ring::rand::SystemRandom;
use serde_json::Value;

use crate::{
    config::{ConfigError, RedisConfig},
    connection::Node,
    credential::{Address, hash, random_password, variables},
    error::Failure,
    marker,
    mint::{self, Order},
    revoke,
    rules::{Recipe, RedisTemplate},
};

/// ACL users with a lifetime, on all of a set of nodes.
pub struct RedisBackend {
    prefix: HandlePrefix,
    capabilities: Capabilities,
    nodes: Vec<Node>,
    username: String,
    address: Address,
    skew: Duration,
    random: SystemRandom,
}

impl RedisBackend {
    /// Checks the configuration. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub fn new(config: &RedisConfig) -> Result<Self, Error> {
        let (prefix, places) = config.check()?;
        let nodes =
            places.iter().map(|place| Node::new(config, place)).collect::<Result<Vec<_>, _>>()?;
        let first = places.first().ok_or(ConfigError::Nodes(0))?;
        let skew = Duration::from_millis(u64::from(config.clock_skew_ms_max));
        let capabilities = Capabilities {
            kind: "redis",
            expiry: Expiry::None,
            revoke: true,
            session_kill: true,
            verify: true,
            list: true,
            renew: true,
            // Where the guard is a key, and a key is at one node.
            deadline_guard: nodes.len() == 1,
            // The guard ends a mint one skew early.
            ttl_min: skew + Duration::from_secs(1),
            ttl_max: None,
            handle_len_max: 63,
        };
        let address = Address::of(config, first);
        let (username, random) = (config.username.clone(), SystemRandom::new());
        Ok(Self { prefix, capabilities, nodes, username, address, skew, random })
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Says something of our own account at every node, and has each keep it.
    async fn set_own(&self, rules: &[&str]) -> Result<(), Failure> {
        let mut message = redis::pipe();
        message.cmd("ACL").arg("SETUSER").arg(&self.username).arg(rules).ignore();
        for node in &self.nodes {
            let mut open = node.open().await?;
            open.ask::<()>(&message).await?;
            open.save().await?;
        }
        Ok(())
    }

    /// Users of ours at any node, in order.
    async fn ours(&self) -> Result<BTreeSet<Handle>, Failure> {
        let mut ours = BTreeSet::new();
        let mut message = redis::pipe();
        message.cmd("ACL").arg("USERS");
        for node in &self.nodes {
            let (users,): (Vec<String>,) = node.open().await?.ask(&message).await?;
            // Exactly the shape of our handles: somebody's user that happens to begin like them
            // must not be swept away.
            let handles = users.into_iter().filter(|name| self.prefix.lease_of(name).is_some());
            ours.extend(handles.filter_map(|name| Handle::parse(name).ok()));
        }
        Ok(ours)
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("prefix", &self.prefix)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for RedisBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prefix(&self) -> &HandlePrefix {
        &self.prefix
    }

    fn template(&self, raw: &Value) -> Result<Template, Error> {
        Ok(RedisTemplate::parse(raw)?.sealed().map_err(ConfigError::Rule)?)
    }

    fn variables(&self, _: &Template) -> Option<Vec<(Name, Name)>> {
        Some(variables())
    }

    async fn mint(&self, request: &MintRequest<'_>) -> Result<Credential, Error> {
        let recipe: &Recipe = request.template.inner()?;
        let (password, hash) = random_password(&self.random)?;
        let order = Order { request, recipe, hash: &hash, skew: self.skew };
        let created = mint::create(&self.nodes, &order).await;
        created.map_err(|failure| failure.into_error("the user could not be created"))?;
        Ok(self.address.credential(request.handle, password, recipe.database))
    }

    /// There is no expiry to move: only that it is still there is looked at.
    async fn renew(&self, request: &RenewRequest<'_>) -> Result<(), Error> {
        let failed = |failure: Failure| failure.into_error("the user could not be looked for");
        for node in &self.nodes {
            let mut open = node.open().await.map_err(failed)?;
            if !mint::exists(&mut open, request.handle).await.map_err(failed)? {
                let message = format!("the user is not there at {}", node.name);
                return Err(Error::new(ErrorKind::NotFound, message));
            }
        }
        Ok(())
    }

    async fn revoke(&self, doomed: &[Doomed]) -> Vec<Revocation> {
        revoke::revoke(&self.nodes, doomed).await
    }

    async fn verify(&self, doomed: &[Doomed]) -> Result<Vec<Liveness>, Error> {
        let verified = revoke::verify(&self.nodes, doomed).await;
        verified.map_err(|failure| failure.into_error("the users could not be looked for"))
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
        marker::read(&self.nodes, &self.prefix).await
    }

    async fn mark(&self, marker: &Marker) -> Result<(), Error> {
        marker::write(&self.nodes, &self.prefix, marker).await
    }

    fn mint_margin(&self) -> Duration {
        self.skew
    }

    fn rotates(&self) -> bool {
        true
    }

    /// First every node accepts both, then the new one alone, so that a node that fails in
    /// between leaves one that all of them accept.
    async fn rotate_root(&self, new: &Secret) -> Result<(), Error> {
        let failed = |failure: Failure| failure.into_error("our password could not be changed");
        let hash = hash(new);
        self.set_own(&[&hash]).await.map_err(failed)?;
        self.set_own(&["resetpass", &hash]).await.map_err(failed)
    }

    async fn canary(&self, handle: &Handle, template: &Template) -> CanaryReport {
        dayfly_backend_sdk::canary(self, handle, template).await
    }
}
