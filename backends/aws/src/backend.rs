//! The backend: the trait's methods, each some requests.
//!
//! Invariant: whatever is minted here has a name that begins with the prefix, and nothing else
//! is ever listed, changed, denied or deleted.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use dayfly_backend_sdk::{
    Backend, CanaryReport, Capabilities, Credential, Doomed, Error, ErrorKind, Handle,
    HandlePrefix, Listed, Listing, Liveness, Marker, MintRequest, RenewRequest, Revocation,
    Template, Unusable,
};
use serde_json::Value;

use crate::{
    account::{Account, whoami},
    advice,
    belt::{Belt, Target, Wanted},
    config::{AwsConfig, ConfigError, Mode},
    error::Failure,
    marker::{self, Place},
    session,
    template::{AwsTemplate, Recipe, SessionPlan, SessionRecipe, UserRecipe},
    user,
};

/// How often a new key is tried until AWS knows it everywhere.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// AWS sessions, or IAM users, with a lifetime.
pub struct AwsBackend {
    prefix: HandlePrefix,
    capabilities: Capabilities,
    config: AwsConfig,
    account: Account,
    belt: Option<Belt>,
    /// Roles of the templates that were checked.
    roles: Mutex<BTreeSet<String>>,
}

impl AwsBackend {
    /// Checks the configuration. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub fn new(config: &AwsConfig) -> Result<Self, Error> {
        let prefix = config.check()?;
        let account = Account::new(config)?;
        let belt = (!config.deny_policies.is_empty()).then(|| {
            let arns = config.deny_policies.clone();
            Belt::new(account.iam.clone(), arns, account.clock.clone())
        });
        Ok(Self {
            prefix,
            capabilities: config.capabilities(),
            config: config.clone(),
            account,
            belt,
            roles: Mutex::default(),
        })
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    pub(crate) fn belt(&self) -> Option<&Belt> {
        self.belt.as_ref()
    }

    /// Usable as long as the belt does not name it.
    pub(crate) async fn unnamed(&self, name: &str) -> Result<(), Unusable> {
        let Some(belt) = &self.belt else { return Ok(()) };
        let target = Target::Anything;
        let asked = Wanted { name: name.to_owned(), end: i64::MAX, target };
        match belt.denies(&[asked]).await.as_deref() {
            Ok([false]) => Ok(()),
            Ok(_) => {
                let what = "the deny belt names the federated user";
                Err(Unusable::Refused(Error::new(ErrorKind::Denied, what)))
            }
            Err(failure) => {
                let doing = "the deny belt could not be read";
                Err(Unusable::Unknown(failure.clone().into_error(doing)))
            }
        }
    }

    async fn mint_session(
        &self,
        recipe: &SessionRecipe,
        request: &MintRequest<'_>,
    ) -> Result<Credential, Failure> {
        let session = session::mint(&self.account, recipe, request).await?;
        let kept = session.kept();
        let credential = session.keys.credential(&self.config.region);
        // Without a belt nothing ends it, and there is nothing to know.
        Ok(if self.belt.is_some() { credential.keep(kept) } else { credential })
    }

    async fn mint_user(
        &self,
        recipe: &UserRecipe,
        request: &MintRequest<'_>,
    ) -> Result<Credential, Failure> {
        let path = self.config.user_path();
        let keys = user::mint(&self.account.iam, &path, recipe, request).await?;
        let credential = keys.credential(&self.config.region);
        // A key that AWS made is refused for some seconds, until all of it knows the key.
        let (sts, _) = self.account.with(&credential);
        let mut waited = Duration::ZERO;
        while waited < self.propagation() && whoami(&sts).await.is_err() {
            tokio::time::sleep(LOOK_AGAIN).await;
            waited += LOOK_AGAIN;
        }
        Ok(credential)
    }

    pub(crate) fn propagation(&self) -> Duration {
        Duration::from_millis(u64::from(self.config.propagation_ms))
    }
}

impl fmt::Debug for AwsBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsBackend")
            .field("prefix", &self.prefix)
            .field("region", &self.config.region)
            .field("mode", &self.config.mode)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for AwsBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prefix(&self) -> &HandlePrefix {
        &self.prefix
    }

    fn template(&self, raw: &Value) -> Result<Template, Error> {
        let template = AwsTemplate::parse(raw).map_err(ConfigError::Template)?;
        let template = template.sealed(&self.config).map_err(ConfigError::Template)?;
        let plan: Option<SessionPlan> = serde_json::from_value(template.plan().0.clone()).ok();
        if let Some(role) = plan.and_then(|plan| plan.role) {
            self.roles.lock().unwrap_or_else(PoisonError::into_inner).insert(role);
        }
        Ok(template)
    }

    fn keeps(&self) -> bool {
        self.belt.is_some()
    }

    async fn mint(&self, request: &MintRequest<'_>) -> Result<Credential, Error> {
        let recipe: &Recipe = request.template.inner()?;
        if self.config.account_id.is_some() {
            let identity = self.account.identity().await;
            identity.map_err(|failure| failure.into_error("our account could not be checked"))?;
        }
        match recipe {
            Recipe::Session(recipe) => {
                let minted = self.mint_session(recipe, request).await;
                minted.map_err(|failure| failure.into_error("the session could not be opened"))
            }
            Recipe::User(recipe) => self.mint_user(recipe, request).await.map_err(|failure| {
                let error = failure.into_error("the user could not be created");
                if error.kind() != ErrorKind::NotFound {
                    return error;
                }
                // What is not there at a mint is something that the template names.
                Error::new(ErrorKind::Invalid, "the template names what is not there")
                    .with_source(error)
            }),
        }
    }

    /// A session's end cannot be moved. A user has none: only that it is still there is looked
    /// at.
    async fn renew(&self, request: &RenewRequest<'_>) -> Result<(), Error> {
        if self.config.mode == Mode::Session {
            return Err(Error::new(ErrorKind::Invalid, "a session's expiry cannot be moved"));
        }
        let exists = user::exists(&self.account.iam, request.handle).await;
        let exists =
            exists.map_err(|failure| failure.into_error("the user could not be looked for"))?;
        if !exists {
            return Err(Error::new(ErrorKind::NotFound, "the user is not there"));
        }
        Ok(())
    }

    async fn revoke(&self, doomed: &[Doomed]) -> Vec<Revocation> {
        match (self.config.mode, &self.belt) {
            (Mode::Session, Some(belt)) => self.deny(belt, doomed).await,
            (Mode::Session, None) => doomed.iter().map(|_| Revocation::Lingers).collect(),
            (Mode::User, _) => self.end_users(doomed).await,
        }
    }

    async fn verify(&self, doomed: &[Doomed]) -> Result<Vec<Liveness>, Error> {
        let alive = match (self.config.mode, &self.belt) {
            (Mode::Session, Some(belt)) => self.sessions_alive(belt, doomed).await,
            // Nobody knows, so they are.
            (Mode::Session, None) => Ok(vec![true; doomed.len()]),
            (Mode::User, _) => self.users_alive(doomed).await,
        };
        let alive = alive.map_err(|failure| failure.into_error("they could not be looked for"))?;
        let state = |alive| if alive { Liveness::Live } else { Liveness::Gone };
        Ok(alive.into_iter().map(state).collect())
    }

    /// AWS keeps no list of sessions.
    async fn list(&self, after: Option<&Handle>, limit: u32) -> Result<Listing, Error> {
        if self.config.mode == Mode::Session {
            return Ok(Listing::default());
        }
        let ours = user::list(&self.account.iam, &self.config.user_path(), &self.prefix).await;
        let ours = ours.map_err(|failure| failure.into_error("the users could not be listed"))?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut rest = ours.into_iter().filter(|handle| after.is_none_or(|after| handle > after));
        let listed = |handle| Listed { handle, expires_at: None };
        let credentials = rest.by_ref().take(limit).map(listed).collect();
        Ok(Listing { credentials, more: rest.next().is_some() })
    }

    async fn marker(&self) -> Result<Option<Marker>, Error> {
        let path = self.config.user_path();
        marker::read(&self.account.iam, &self.prefix, self.place(&path)).await
    }

    async fn mark(&self, marker: &Marker) -> Result<(), Error> {
        let path = self.config.user_path();
        marker::write(&self.account.iam, &self.prefix, self.place(&path), marker).await
    }

    async fn advice(&self) -> Result<Vec<String>, Error> {
        let mut advice = advice::of_configuration(&self.config);
        let roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let doing = "the deny belt could not be looked at";
        let belt = advice::of_belt(self, &roles).await;
        advice.extend(belt.map_err(|failure| failure.into_error(doing))?);
        Ok(advice)
    }

    async fn canary(&self, handle: &Handle, template: &Template) -> CanaryReport {
        dayfly_backend_sdk::canary(self, handle, template).await
    }
}

impl AwsBackend {
    fn place<'a>(&'a self, path: &'a str) -> Place<'a> {
        match (self.config.mode, self.belt.as_ref().and_then(Belt::first)) {
            (Mode::User, _) => Place::User(path),
            (Mode::Session, Some(arn)) => Place::Policy(arn),
            (Mode::Session, None) => Place::Nowhere,
        }
    }
}
