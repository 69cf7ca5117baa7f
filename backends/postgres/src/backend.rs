//! The backend: the trait's methods, each a message or a few.
//!
//! Invariant: whatever is minted here has a name that begins with the prefix, and nothing
//! else is ever listed, changed or dropped.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use async_trait::async_trait;
use dayfly_backend_sdk::{
    Backend, CanaryReport, Capabilities, Credential, Doomed, Error, ErrorKind, Expiry, Handle,
    HandlePrefix, Listed, Listing, Liveness, Marker, MintRequest, Name, RenewRequest, Revocation,
    Secret, Template, Timestamp,
};
use ring::rand::SystemRandom;
use serde_json::Value;
use sqlx::postgres::PgRow;

use crate::{
    advice,
    config::{PostgresConfig, PostgresTemplate, Recipe},
    connection::Server,
    credential::{Address, no_random_numbers, random_password, variables},
    error::Failure,
    group::Groups,
    marker,
    mint::{self, Part},
    oids::Oids,
    quote::{Literal, Sql},
    revoke::{self, column},
    scram,
    stock::Stock,
};

/// As many as the server's own verifiers have.
const ROOT_ITERATIONS: NonZeroU32 = NonZeroU32::new(4_096).unwrap();

/// PostgreSQL login roles with a lifetime.
pub struct PostgresBackend {
    prefix: HandlePrefix,
    capabilities: Capabilities,
    server: Arc<Server>,
    groups: Groups,
    stock: Stock,
    /// The same server over connections of their own for revocations and their proof.
    deaths: Server,
    address: Address,
    database: String,
    skew: Duration,
    patience: Duration,
    random: SystemRandom,
    oids: Oids,
}

impl PostgresBackend {
    /// Checks the configuration. Nothing is connected yet; must be called within a tokio
    /// runtime, since the pool's upkeep runs there.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub fn new(config: &PostgresConfig) -> Result<Self, Error> {
        let prefix = config.check()?;
        let skew = Duration::from_millis(u64::from(config.clock_skew_ms_max));
        let capabilities = Capabilities {
            kind: "postgres",
            // Once because VALID UNTIL is set later by it, once because the server's clock may
            // be behind by it.
            expiry: Expiry::Native { slack: skew * 2, life_min: Duration::ZERO },
            revoke: true,
            session_kill: true,
            verify: true,
            list: true,
            renew: true,
            deadline_guard: true,
            // The guard ends a mint one skew early, so that a shorter life could never begin.
            ttl_min: skew + Duration::from_secs(1),
            ttl_max: None,
            handle_len_max: 63,
        };
        let server = Arc::new(Server::new(config));
        let groups = Groups::new(&server, config.connections_max);
        Ok(Self {
            prefix,
            capabilities,
            server,
            groups,
            stock: Stock::default(),
            deaths: Server::for_deaths(config),
            address: Address::of(config),
            database: config.database.clone(),
            skew,
            patience: Duration::from_millis(u64::from(config.session_end_timeout_ms)),
            random: SystemRandom::new(),
            oids: Oids::default(),
        })
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// The verifier of a password with a salt of its own.
    async fn verifier(&self, password: &Secret, iterations: NonZeroU32) -> Result<String, Error> {
        let failed = |what| Error::new(ErrorKind::Unavailable, what);
        let (_, salt) = random_password(&self.random).map_err(no_random_numbers)?;
        let text = password.clone();
        // Some milliseconds of arithmetic: not on a thread that others wait for.
        let verifier =
            tokio::task::spawn_blocking(move || scram::verifier(text.expose(), &salt, iterations));
        verifier.await.map_err(|_| failed("the verifier was not computed"))
    }

    fn listed(&self, row: &PgRow) -> Result<Option<Listed>, Failure> {
        let name: String = column(row, 0)?;
        let until: Option<i64> = column(row, 1)?;
        // VALID UNTIL is one skew later than the lease's expiry.
        let expires_at = until.map(|micros| Timestamp::from_micros(micros).minus(self.skew));
        Ok(Handle::parse(name).ok().map(|handle| Listed { handle, expires_at }))
    }

    fn listing(&self, after: Option<&Handle>, limit: u32) -> Result<Sql, Failure> {
        // Exactly the shape of our handles: an account or a group of somebody's that happens
        // to begin like them must not be swept away. A prefix has no special characters.
        let shape = Literal::new(&format!("^{}[a-z2-7]{{26}}$", self.prefix.as_str()))?;
        // A page costs what is on it, however many roles there are: the bounds are those of the
        // index on the names, which is ordered by bytes. The server thinks that hardly any name
        // is of our shape, and would rather read and sort all. `~` comes after whatever a handle
        // can have.
        let after = Literal::new(after.map_or(self.prefix.as_str(), Handle::as_str))?;
        let end = Literal::new(&format!("{}~", self.prefix.as_str()))?;
        Ok(Sql::new()
            .text("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off;\n")
            .text("SELECT rolname::pg_catalog.text, CASE WHEN pg_catalog.isfinite(rolvaliduntil)")
            .text(" THEN (EXTRACT(epoch FROM rolvaliduntil) * 1000000)::pg_catalog.int8 END")
            .text(" FROM pg_catalog.pg_roles WHERE rolname > ")
            .literal(&after)
            .text("::pg_catalog.name AND rolname < ")
            .literal(&end)
            .text("::pg_catalog.name AND rolname::pg_catalog.text ~ ")
            .literal(&shape)
            .text(" ORDER BY pg_roles.rolname LIMIT ")
            .number(i64::from(limit) + 1))
    }
}

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBackend")
            .field("prefix", &self.prefix)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for PostgresBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prefix(&self) -> &HandlePrefix {
        &self.prefix
    }

    fn template(&self, raw: &Value) -> Result<Template, Error> {
        Ok(PostgresTemplate::parse(raw)?.sealed(&self.database)?)
    }

    fn variables(&self, _: &Template) -> Option<Vec<(Name, Name)>> {
        Some(variables())
    }

    async fn mint(&self, request: &MintRequest<'_>) -> Result<Credential, Error> {
        let recipe: &Recipe = request.template.inner()?;
        let (password, verifier) = self.stock.take(recipe.scram_iterations).await?;
        let doing = "the role could not be created";
        let part = Part::new(request, recipe, &verifier, self.skew)
            .map_err(|error| Failure::from(error).into_error(doing))?;
        let oid = self.groups.create(part).await.map_err(|failure| {
            let error = failure.into_error(doing);
            // What is not there at a mint is something that the template names.
            if error.kind() == ErrorKind::NotFound { invalid(error) } else { error }
        })?;
        self.oids.remember(request.handle, oid);
        Ok(self.address.credential(request.handle, password, &recipe.database))
    }

    async fn renew(&self, request: &RenewRequest<'_>) -> Result<(), Error> {
        let doing = "the role's expiry could not be moved";
        let sql = mint::renewal(request.handle, request.until, self.skew)
            .map_err(|error| Failure::from(error).into_error(doing))?;
        self.server.run(&sql).await.map(drop).map_err(|failure| failure.into_error(doing))
    }

    async fn revoke(&self, doomed: &[Doomed]) -> Vec<Revocation> {
        revoke::revoke(&self.deaths, &self.oids, doomed, self.patience).await
    }

    async fn verify(&self, doomed: &[Doomed]) -> Result<Vec<Liveness>, Error> {
        let handles: Vec<&Handle> = doomed.iter().map(|one| &one.handle).collect();
        let left = revoke::alive(&self.deaths, &self.oids, &handles)
            .await
            .map_err(|failure| failure.into_error("the roles could not be looked for"))?;
        let state = |one: &Doomed| {
            if left.contains(one.handle.as_str()) { Liveness::Live } else { Liveness::Gone }
        };
        Ok(doomed.iter().map(state).collect())
    }

    async fn list(&self, after: Option<&Handle>, limit: u32) -> Result<Listing, Error> {
        let doing = "the roles could not be listed";
        let sql = self.listing(after, limit).map_err(|failure| failure.into_error(doing))?;
        let rows = self.server.run(&sql).await.map_err(|failure| failure.into_error(doing))?;
        let mut credentials = Vec::with_capacity(rows.len());
        for row in &rows {
            let listed = self.listed(row).map_err(|failure| failure.into_error(doing))?;
            credentials.extend(listed);
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = credentials.len() > limit;
        credentials.truncate(limit);
        Ok(Listing { credentials, more })
    }

    async fn marker(&self) -> Result<Option<Marker>, Error> {
        marker::read(&self.server, &self.prefix).await
    }

    async fn mark(&self, marker: &Marker) -> Result<(), Error> {
        marker::write(&self.server, &self.prefix, marker).await
    }

    fn mint_margin(&self) -> Duration {
        self.skew
    }

    fn rotates(&self) -> bool {
        true
    }

    /// The server is given the verifier, so that no log has the password.
    async fn rotate_root(&self, new: &Secret) -> Result<(), Error> {
        let failed = |failure: Failure| failure.into_error("our password could not be changed");
        let verifier = self.verifier(new, ROOT_ITERATIONS).await?;
        let verifier = Literal::new(&verifier).map_err(|error| failed(error.into()))?;
        let sql = Sql::new().text("ALTER ROLE CURRENT_USER PASSWORD ").literal(&verifier);
        self.server.run(&sql).await.map(drop).map_err(failed)
    }

    async fn advice(&self) -> Result<Vec<String>, Error> {
        advice::advice(&self.server).await
    }

    async fn canary(&self, handle: &Handle, template: &Template) -> CanaryReport {
        dayfly_backend_sdk::canary(self, handle, template).await
    }
}

fn invalid(error: Error) -> Error {
    Error::new(ErrorKind::Invalid, "the template names what is not there").with_source(error)
}
