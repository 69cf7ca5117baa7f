//! The backend: the trait's methods, each a message or a few.
//!
//! Invariant: whatever is minted here has a name that begins with the prefix, and nothing else
//! is ever listed, changed or dropped.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use dayfly_backend_sdk::{
    Backend, CanaryReport, Capabilities, Credential, Doomed, Error, ErrorKind, Expiry, Handle,
    HandlePrefix, Listed, Listing, Liveness, Marker, MintRequest, Name, RenewRequest, Revocation,
    Secret, Template,
};
use serde_json::Value;

use crate::{
    advice,
    authentication::Authentication,
    config::{ConfigError, HANDLE_LEN_MAX, MysqlConfig, Server},
    connection::Link,
    credential::{Address, variables},
    error::Failure,
    marker,
    mint::{self, Order},
    password::Passwords,
    quote::{Literal, QuoteError, Sql},
    revoke::{self, column, text},
    template::{MysqlTemplate, Recipe},
};

/// MySQL and MariaDB accounts with a lifetime.
pub struct MysqlBackend {
    prefix: HandlePrefix,
    capabilities: Capabilities,
    link: Link,
    /// The same server over connections of their own for revocations and their proof.
    deaths: Link,
    server: Server,
    account_host: Literal,
    address: Address,
    early: Duration,
    patience: Duration,
    passwords: Passwords,
}

impl MysqlBackend {
    /// Checks the configuration. Nothing is connected yet; must be called within a tokio
    /// runtime, since the pool's upkeep runs there.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub fn new(config: &MysqlConfig) -> Result<Self, Error> {
        let prefix = config.check()?;
        let skew = Duration::from_millis(u64::from(config.clock_skew_ms_max));
        // After it has looked at its clock the server may wait for a lock so long.
        let early = skew + Duration::from_secs(u64::from(config.lock_wait_timeout_s));
        let capabilities = Capabilities {
            kind: "mysql",
            // PASSWORD EXPIRE counts days, and its holder may set a new password then.
            expiry: Expiry::None,
            revoke: true,
            session_kill: true,
            verify: true,
            list: true,
            renew: true,
            deadline_guard: true,
            ttl_min: early + Duration::from_secs(1),
            ttl_max: None,
            handle_len_max: HANDLE_LEN_MAX,
        };
        Ok(Self {
            prefix,
            capabilities,
            link: Link::new(config),
            deaths: Link::for_deaths(config),
            server: config.server,
            account_host: Literal::new(&config.account_host).map_err(ConfigError::Quote)?,
            address: Address::of(config),
            early,
            patience: Duration::from_millis(u64::from(config.session_end_timeout_ms)),
            passwords: Passwords::new(),
        })
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Accounts of ours, and those that are gone and have a session: a login that had begun
    /// before its account was dropped.
    fn listing(&self, after: Option<&Handle>, limit: u32) -> Result<Sql, QuoteError> {
        // Exactly the shape of our handles: an account of somebody's that happens to begin like
        // them must not be swept away. A prefix has no special characters.
        let shape = Literal::new(&format!("^{}[a-z2-7]{{26}}$", self.prefix.as_str()))?;
        let after = Literal::new(after.map_or("", Handle::as_str))?;
        Ok(Sql::new()
            .text("SELECT name FROM (")
            .text("SELECT CONVERT(User USING utf8mb4) COLLATE utf8mb4_bin AS name FROM mysql.user")
            .text(" UNION SELECT CONVERT(USER USING utf8mb4) COLLATE utf8mb4_bin")
            .text(" FROM information_schema.PROCESSLIST WHERE COMMAND <> 'Connect')")
            .text(" AS names WHERE name > ")
            .literal(&after)
            .text(" AND name REGEXP ")
            .literal(&shape)
            .text(" ORDER BY name LIMIT ")
            .number(u64::from(limit) + 1))
    }
}

/// Why there is no account. 1524: a plugin that `IDENTIFIED VIA` names is not loaded; of those
/// that we name, only this one can be missing.
fn uncreated(failure: Failure) -> Error {
    let doing = if matches!(failure, Failure::Server { number: 1524, .. }) {
        "the account could not be created: the server has no plugin `ed25519` until it is told \
         `INSTALL SONAME 'auth_ed25519'`"
    } else {
        "the account could not be created"
    };
    failure.into_error(doing)
}

impl fmt::Debug for MysqlBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlBackend")
            .field("prefix", &self.prefix)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for MysqlBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prefix(&self) -> &HandlePrefix {
        &self.prefix
    }

    fn template(&self, raw: &Value) -> Result<Template, Error> {
        let template = MysqlTemplate::parse(raw).map_err(ConfigError::Template)?;
        Ok(template.sealed(self.server)?)
    }

    fn variables(&self, template: &Template) -> Option<Vec<(Name, Name)>> {
        let recipe: &Recipe = template.inner().ok()?;
        Some(variables(recipe.database.is_some()))
    }

    async fn mint(&self, request: &MintRequest<'_>) -> Result<Credential, Error> {
        let recipe: &Recipe = request.template.inner()?;
        let (password, hash) = self.passwords.make(&self.link, recipe.authentication).await?;
        let order = Order {
            recipe,
            hash: &hash,
            account_host: &self.account_host,
            server: self.server,
            early: self.early,
        };
        let sql = mint::message(request, &order).map_err(|error| uncreated(error.into()))?;
        let rows = self.link.run(&sql).await.map_err(uncreated)?;
        let row = rows.last().ok_or_else(|| uncreated(Failure::Late))?;
        let said = |index| column::<Option<i64>>(row, index).map_err(uncreated);
        if said(0)? != Some(1) {
            return Err(uncreated(Failure::Minting));
        }
        if said(1)? != Some(1) {
            return Err(uncreated(Failure::Late));
        }
        Ok(self.address.credential(request.handle, password, recipe.database.as_deref()))
    }

    /// There is no expiry to move: only that it is still there is looked at.
    async fn renew(&self, request: &RenewRequest<'_>) -> Result<(), Error> {
        let doing = "the account could not be looked for";
        let handle = Literal::handle(request.handle);
        let sql = Sql::new().text("SELECT 1 FROM mysql.user WHERE User = ").literal(&handle);
        let rows = self.link.run(&sql).await.map_err(|failure| failure.into_error(doing))?;
        if rows.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "the account is not there"));
        }
        Ok(())
    }

    async fn revoke(&self, doomed: &[Doomed]) -> Vec<Revocation> {
        revoke::revoke(&self.deaths, doomed, self.patience).await
    }

    async fn verify(&self, doomed: &[Doomed]) -> Result<Vec<Liveness>, Error> {
        let handles: Vec<&Handle> = doomed.iter().map(|one| &one.handle).collect();
        let left = revoke::alive(&self.deaths, &handles).await;
        let left =
            left.map_err(|failure| failure.into_error("the accounts could not be looked for"))?;
        let state = |one: &Doomed| {
            if left.contains(one.handle.as_str()) { Liveness::Live } else { Liveness::Gone }
        };
        Ok(doomed.iter().map(state).collect())
    }

    async fn list(&self, after: Option<&Handle>, limit: u32) -> Result<Listing, Error> {
        let failed = |failure: Failure| failure.into_error("the accounts could not be listed");
        let sql = self.listing(after, limit).map_err(|error| failed(error.into()))?;
        let rows = self.link.run(&sql).await.map_err(failed)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        let mut credentials = Vec::with_capacity(rows.len());
        for row in rows.iter().take(limit) {
            let name = text(row, 0).map_err(failed)?;
            // The expression cannot say which letters a lease's name can end with.
            let ours = self.prefix.lease_of(&name).and_then(|_| Handle::parse(name).ok());
            credentials.extend(ours.map(|handle| Listed { handle, expires_at: None }));
        }
        // A page of strangers only has nothing after which the next could begin.
        let more = more && !credentials.is_empty();
        Ok(Listing { credentials, more })
    }

    async fn marker(&self) -> Result<Option<Marker>, Error> {
        marker::read(&self.link, &self.prefix).await
    }

    async fn mark(&self, marker: &Marker) -> Result<(), Error> {
        marker::write(&self.link, &self.prefix, marker).await
    }

    fn mint_margin(&self) -> Duration {
        self.early
    }

    fn rotates(&self) -> bool {
        true
    }

    /// On MySQL the account then has the plugin that minted ones have, whichever it had before.
    async fn rotate_root(&self, new: &Secret) -> Result<(), Error> {
        let failed = |failure: Failure| failure.into_error("our password could not be changed");
        let usual = Authentication::usual(self.server);
        let hash = self.passwords.hash(&self.link, new, usual).await?;
        let hash = Literal::new(&hash).map_err(|error| failed(error.into()))?;
        let change = match self.server {
            Server::Mysql => "ALTER USER CURRENT_USER() IDENTIFIED WITH caching_sha2_password AS ",
            // Of `CURRENT_USER()`, MariaDB takes the hash in `ALTER USER` for a password.
            Server::Mariadb => "SET PASSWORD = ",
        };
        let sql = Sql::new().text(change).literal(&hash);
        self.link.run(&sql).await.map(drop).map_err(failed)
    }

    async fn advice(&self) -> Result<Vec<String>, Error> {
        advice::advice(&self.link, &self.account_host).await
    }

    async fn canary(&self, handle: &Handle, template: &Template) -> CanaryReport {
        dayfly_backend_sdk::canary(self, handle, template).await
    }
}
