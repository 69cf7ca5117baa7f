//! The seam between the lease engine and whatever mints.
//!
//! Invariant: a backend is called only for a handle whose intent is durable, and it never
//! answers a mint for a name that was there before.

use std::{any::Any, borrow::Cow, collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{Capabilities, Error, ErrorKind, Handle, HandleError, HandlePrefix, Secret, Timestamp};

/// A system that mints credentials.
#[async_trait]
pub trait Backend: Send + Sync + fmt::Debug {
    /// What this backend can do.
    fn capabilities(&self) -> &Capabilities;

    /// What all its handles begin with.
    fn prefix(&self) -> &HandlePrefix;

    /// Checks a role's template, once, when the configuration is loaded.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], with a message for the person who wrote the configuration.
    fn template(&self, raw: &Value) -> Result<Template, Error>;

    /// Whether its mints keep something ([`Credential::keep`]), so that there must be a key to
    /// seal it with.
    fn keeps(&self) -> bool {
        false
    }

    /// How long before its deadline a mint is refused: by as much the clocks may differ. One
    /// that has less time from its beginning can never succeed.
    fn mint_margin(&self) -> Duration {
        Duration::ZERO
    }

    /// The handle of a lease. A function of the lease id alone.
    fn handle(&self, lease: Uuid) -> Result<Handle, HandleError> {
        self.prefix().handle(lease, self.capabilities().handle_len_max)
    }

    /// Creates the credential under `request.handle`. The name exists already: an error
    /// ([`ErrorKind::Conflict`]), never reuse. Where the backend can, the create itself
    /// fails after `request.mint_deadline` (the guard against a delayed request).
    async fn mint(&self, request: &MintRequest<'_>) -> Result<Credential, Error>;

    /// Moves the backend's own expiry to `request.until`, later or earlier.
    async fn renew(&self, request: &RenewRequest<'_>) -> Result<(), Error>;

    /// Ends each credential and its sessions. What is gone already is [`Revocation::Gone`]
    /// (I6); one that fails delays no other. The answer has one entry for each of `doomed`,
    /// in its order.
    async fn revoke(&self, doomed: &[Doomed]) -> Vec<Revocation>;

    /// Asks the backend which of them are still alive or have an open session. The answer
    /// has one entry for each of `doomed`, in its order.
    async fn verify(&self, doomed: &[Doomed]) -> Result<Vec<Liveness>, Error>;

    /// Up to `limit` credentials under our prefix, in the order of their handles, after
    /// `after`.
    async fn list(&self, after: Option<&Handle>, limit: u32) -> Result<Listing, Error>;

    /// Whose prefix this is, as the backend itself has it; none where nobody has claimed it.
    async fn marker(&self) -> Result<Option<Marker>, Error>;

    /// Makes or moves the marker.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when another installation's stands there: it is never replaced.
    async fn mark(&self, marker: &Marker) -> Result<(), Error>;

    /// Which environment variable carries which field of a credential of this template, as
    /// `(variable, field)`; none where that is known only when there is one.
    fn variables(&self, _template: &Template) -> Option<Vec<(Name, Name)>> {
        None
    }

    /// Whether [`Backend::rotate_root`] can do it.
    fn rotates(&self) -> bool {
        false
    }

    /// Gives our own account at the backend the password `new`. What is open goes on; this
    /// value of the backend still signs in with the one before, and is not used after it.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownOutcome`] when it may have been done.
    async fn rotate_root(&self, new: &Secret) -> Result<(), Error> {
        drop(new.clone());
        Err(Error::new(ErrorKind::Invalid, "our password here cannot be changed by us"))
    }

    /// What an administrator should change at the backend or about our account there, each as a
    /// sentence: nothing that stops us.
    async fn advice(&self) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Mints, uses, revokes and verifies under `handle`: a ping proves nothing.
    async fn canary(&self, handle: &Handle, template: &Template) -> CanaryReport;
}

/// A role's template that the backend has checked. Only the backend that made it can read it.
#[derive(Clone)]
pub struct Template {
    plan: Plan,
    inner: Arc<dyn Any + Send + Sync>,
}

impl Template {
    /// For backends: what they keep of the template, and the plan for its leases' end.
    pub fn new<T: Any + Send + Sync>(plan: Plan, inner: T) -> Self {
        Self { plan, inner: Arc::new(inner) }
    }

    /// The revocation plan that each lease copies when it is minted.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The backend's own type.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when another backend made it.
    pub fn inner<T: Any + Send + Sync>(&self) -> Result<&T, Error> {
        self.inner
            .downcast_ref()
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "template of another backend"))
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// All that revoking needs, copied into the lease at mint, so that a role that has since
/// changed or gone strands nothing. Holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Plan(pub Value);

/// What a mint is told.
#[derive(Debug)]
pub struct MintRequest<'a> {
    /// The name to create.
    pub handle: &'a Handle,
    /// The role's template, made by this backend.
    pub template: &'a Template,
    /// When the lease ends; the backend's own expiry is this plus its slack.
    pub expires_at: Timestamp,
    /// After this the create must not take effect.
    pub mint_deadline: Timestamp,
    /// Who it is for, for the backend's own records (a comment on a database role).
    pub principal: &'a str,
    /// Which lease it is for.
    pub lease: &'a str,
}

/// What a renewal is told.
#[derive(Debug)]
pub struct RenewRequest<'a> {
    /// Which credential.
    pub handle: &'a Handle,
    /// The plan that was copied at mint.
    pub plan: &'a Plan,
    /// The lease's new expiry.
    pub until: Timestamp,
}

/// One value of a credential.
#[derive(Clone, Debug)]
pub enum Field {
    /// May be shown: a user name, a host.
    Public(String),
    /// Must not: a password, a key, a URL with a password.
    Secret(Secret),
}

/// A name that a backend's code has, or that its configuration gives.
pub type Name = Cow<'static, str>;

/// The secret handed out, as named fields. Delivered once, never stored.
#[derive(Clone, Debug, Default)]
pub struct Credential {
    fields: BTreeMap<Name, Field>,
    environment: Vec<(Name, Name)>,
    kept: Option<Secret>,
}

impl Credential {
    /// No fields yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field that may be shown.
    #[must_use]
    pub fn public(mut self, name: impl Into<Name>, value: impl Into<String>) -> Self {
        self.fields.insert(name.into(), Field::Public(value.into()));
        self
    }

    /// Adds a field that may not.
    #[must_use]
    pub fn secret(mut self, name: impl Into<Name>, value: Secret) -> Self {
        self.fields.insert(name.into(), Field::Secret(value));
        self
    }

    /// Says which environment variable usually carries a field (`PGPASSWORD`: `password`).
    #[must_use]
    pub fn variable(mut self, variable: impl Into<Name>, field: impl Into<Name>) -> Self {
        self.environment.push((variable.into(), field.into()));
        self
    }

    /// Keeps what only the mint's answer tells and revoking needs: an id that the backend
    /// chose, or the secret itself where nothing else revokes it. The engine has it sealed
    /// until the credential is dead.
    #[must_use]
    pub fn keep(mut self, kept: Secret) -> Self {
        self.kept = Some(kept);
        self
    }

    /// What is to be kept.
    pub fn kept(&self) -> Option<&Secret> {
        self.kept.as_ref()
    }

    /// The fields by name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.fields.iter().map(|(name, field)| (name.as_ref(), field))
    }

    /// One field's text, secret or not.
    pub fn field(&self, name: &str) -> Option<&str> {
        match self.fields.get(name)? {
            Field::Public(text) => Some(text),
            Field::Secret(secret) => Some(secret.expose()),
        }
    }

    /// Which environment variables carry which fields: `(variable, field)`.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().map(|(variable, field)| (variable.as_ref(), field.as_ref()))
    }
}

/// A credential that must die.
#[derive(Clone, Debug)]
pub struct Doomed {
    /// Its name.
    pub handle: Handle,
    /// The plan that was copied at mint.
    pub plan: Plan,
    /// What the mint kept for this. None where it kept nothing, and none as well where its
    /// answer was lost before anybody could keep it.
    pub kept: Option<Secret>,
}

impl Doomed {
    /// One of which nothing was kept.
    pub fn new(handle: Handle, plan: Plan) -> Self {
        Self { handle, plan, kept: None }
    }

    /// With what [`Credential::kept`] said at the mint.
    #[must_use]
    pub fn keeping(mut self, kept: Option<Secret>) -> Self {
        self.kept = kept;
        self
    }
}

/// What became of one of [`Backend::revoke`]'s.
#[derive(Debug)]
pub enum Revocation {
    /// It is not there any more, whoever ended it.
    Gone,
    /// Nothing that we can do ends it before its own expiry: it has no end but that one, or
    /// what would end it was lost with the mint's answer. Not an answer of a backend without
    /// [`Expiry::Native`](crate::Expiry::Native).
    Lingers,
    /// It may still be alive.
    Failed(Error),
}

/// What [`Backend::verify`] found of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// No login works and no session is open.
    Gone,
    /// It exists, or a session of it is open.
    Live,
}

/// Says at the backend which installation owns a prefix. Two that shared one would each end
/// the other's credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The installation's id.
    pub installation: Uuid,
    /// Its last sweep, as the store counted them. A store that has not come as far has lost
    /// commits or was restored from an old copy.
    pub turn: u64,
}

impl Marker {
    /// As text, for backends that keep it in a comment or a description.
    pub fn to_text(&self) -> String {
        format!("dayfly installation={} turn={}", self.installation, self.turn)
    }

    /// The marker that [`Marker::to_text`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("dayfly installation=")?;
        let (installation, turn) = rest.split_once(" turn=")?;
        Some(Self { installation: installation.parse().ok()?, turn: turn.parse().ok()? })
    }
}

/// One credential that a backend has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub handle: Handle,
    /// The lease's expiry that it was last minted or renewed for, where its own expiry tells.
    pub expires_at: Option<Timestamp>,
}

/// A page of [`Backend::list`].
#[derive(Debug, Default)]
pub struct Listing {
    /// In the order of their handles.
    pub credentials: Vec<Listed>,
    /// Whether there may be more after the last of them.
    pub more: bool,
}

/// One step of a canary, in the order they ran.
#[derive(Debug)]
pub struct CanaryStep {
    /// `mint`, `use`, `revoke` or `verify`.
    pub name: &'static str,
    /// Whether it did what it must.
    pub result: Result<(), Error>,
}

/// What a canary saw.
#[derive(Debug, Default)]
pub struct CanaryReport {
    /// The steps that ran; the last one may have failed.
    pub steps: Vec<CanaryStep>,
    /// The backend cannot revoke, so that there were no such steps: the credential ends at its
    /// own expiry.
    pub lingers: bool,
}

impl CanaryReport {
    /// Whether all the steps that the backend is capable of ran and held.
    pub fn passed(&self) -> bool {
        self.steps.len() == if self.lingers { 2 } else { 4 }
            && self.steps.iter().all(|step| step.result.is_ok())
    }
}
