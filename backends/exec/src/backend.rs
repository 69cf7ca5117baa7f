//! The backend: each of the trait's methods is one call.
//!
//! Invariant: what the program does not say of a credential is not known, and what is not known
//! is alive.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use dayfly_backend_sdk::{
    Backend, CanaryReport, Capabilities, Credential, Doomed, Error, ErrorKind, Handle,
    HandlePrefix, Listed, Listing, Liveness, Marker, MintRequest, Plan, RenewRequest, Revocation,
    Secret, Template, Timestamp, is_variable,
};
use ring::rand::{SecureRandom, SystemRandom};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    call::Runner,
    config::{ConfigError, ExecConfig},
    error::Failure,
    protocol::{self, Call, Named},
};

const TEMPLATE_BYTES_MAX: usize = 16_384;
/// How many pages without any of ours are asked for.
const STRANGE_PAGES_MAX: u32 = 1_000;

/// Credentials that an external program makes and ends.
pub struct ExecBackend {
    prefix: HandlePrefix,
    capabilities: Capabilities,
    runner: Runner,
    random: SystemRandom,
}

/// A role's template: the program's own.
struct Recipe(Value);

impl ExecBackend {
    /// Checks the configuration. The program is not run yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub fn new(config: &ExecConfig) -> Result<Self, Error> {
        let prefix = config.check()?;
        Ok(Self {
            prefix,
            capabilities: config.capabilities(),
            runner: Runner::new(config.clone()),
            random: SystemRandom::new(),
        })
    }

    /// One call, with a number that no earlier answer can have.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, Failure> {
        let mut id = [0; 16];
        let unlucky = |_| Failure::NotStarted(std::io::Error::other("no random numbers"));
        self.random.fill(&mut id).map_err(unlucky)?;
        self.runner.ask(&HEXLOWER.encode(&id), call).await
    }

    fn marker_name(&self) -> String {
        format!("{}marker", self.prefix.as_str())
    }

    fn listed(&self, item: &protocol::Item) -> Result<Option<Listed>, Error> {
        // Exactly the shape of our handles: somebody else's must not be swept away.
        if self.prefix.lease_of(&item.handle).is_none() {
            return Ok(None);
        }
        let Ok(handle) = Handle::parse(item.handle.clone()) else { return Ok(None) };
        let expires_at = match &item.expires_at {
            None => None,
            Some(text) => Some(Timestamp::parse_rfc3339(text).ok_or_else(|| {
                Error::new(ErrorKind::Invalid, "a listed expiry is no time of RFC 3339")
            })?),
        };
        Ok(Some(Listed { handle, expires_at }))
    }
}

impl fmt::Debug for ExecBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecBackend").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn named<'a>(doomed: &'a [Doomed]) -> Vec<Named<'a>> {
    let name = |one: &'a Doomed| Named { handle: one.handle.as_str(), template: &one.plan.0 };
    doomed.iter().map(name).collect()
}

#[async_trait]
impl Backend for ExecBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prefix(&self) -> &HandlePrefix {
        &self.prefix
    }

    /// Whatever it holds is the program's. It goes into the plan as well: what ends a
    /// credential may need it, also when the role has gone.
    fn template(&self, raw: &Value) -> Result<Template, Error> {
        let length = raw.to_string().len();
        if length > TEMPLATE_BYTES_MAX {
            return Err(ConfigError::Template(length).into());
        }
        Ok(Template::new(Plan(raw.clone()), Recipe(raw.clone())))
    }

    async fn mint(&self, request: &MintRequest<'_>) -> Result<Credential, Error> {
        let recipe: &Recipe = request.template.inner()?;
        let call = Call::Mint {
            handle: request.handle.as_str(),
            template: &recipe.0,
            expires_at: request.expires_at.rfc3339(),
            mint_deadline: request.mint_deadline.rfc3339(),
            principal: request.principal,
            lease: request.lease,
        };
        let failed = |failure: Failure| failure.into_error("the credential could not be made");
        let minted: protocol::Minted = self.ask(&call).await.map_err(failed)?;
        let known = |field: &String| {
            minted.secrets.contains_key(field) || minted.fields.contains_key(field)
        };
        let wrong = if minted.secrets.is_empty() {
            Some("the program's answer has no secret")
        } else if !minted.environment.values().all(known) {
            Some("the program's answer has a variable for a field that it does not have")
        } else if !minted.environment.keys().all(|name| is_variable(name)) {
            Some(
                "the program's answer has a variable that is none (A-Z, 0-9 and _), or one that \
                 steers programs",
            )
        } else {
            None
        };
        if let Some(what) = wrong {
            return Err(failed(Failure::Unclear(what.to_owned())));
        }
        let mut credential = Credential::new();
        for (name, value) in minted.fields {
            credential = credential.public(name, value);
        }
        for (name, value) in minted.secrets {
            credential = credential.secret(name, Secret::new(value));
        }
        for (variable, field) in minted.environment {
            credential = credential.variable(variable, field);
        }
        Ok(credential)
    }

    async fn renew(&self, request: &RenewRequest<'_>) -> Result<(), Error> {
        let call = Call::Renew {
            handle: request.handle.as_str(),
            template: &request.plan.0,
            until: request.until.rfc3339(),
        };
        let renewed: Result<protocol::Nothing, _> = self.ask(&call).await;
        renewed.map(drop).map_err(|failure| failure.into_error("the expiry could not be moved"))
    }

    async fn revoke(&self, doomed: &[Doomed]) -> Vec<Revocation> {
        const DOING: &str = "the credential could not be revoked";
        if doomed.is_empty() {
            return Vec::new();
        }
        let revoked: Result<protocol::Revoked, _> =
            self.ask(&Call::Revoke { credentials: named(doomed) }).await;
        let revoked = match revoked {
            Ok(revoked) => revoked,
            Err(failure) => {
                let text = failure.to_string();
                let mut error = Some(failure.into_error(DOING));
                let again = || Failure::Unclear(text.clone()).into_error(DOING);
                let failed = |_| Revocation::Failed(error.take().unwrap_or_else(again));
                return doomed.iter().map(failed).collect();
            }
        };
        let mut failed: BTreeMap<String, protocol::Complaint> =
            revoked.failed.into_iter().map(|one| (one.handle, one.error)).collect();
        let outcome = |one: &Doomed| {
            let handle = one.handle.as_str();
            match failed.remove(handle) {
                Some(complaint) => {
                    let failure = complaint.into_failure(self.runner.secret(), true);
                    Revocation::Failed(failure.into_error(DOING))
                }
                None if revoked.gone.iter().any(|gone| gone == handle) => Revocation::Gone,
                None => {
                    let what = "the program did not say what became of it".to_owned();
                    Revocation::Failed(Failure::Unclear(what).into_error(DOING))
                }
            }
        };
        doomed.iter().map(outcome).collect()
    }

    async fn verify(&self, doomed: &[Doomed]) -> Result<Vec<Liveness>, Error> {
        let failed = |failure: Failure| failure.into_error("it could not be looked for");
        let verified: protocol::Verified =
            self.ask(&Call::Verify { credentials: named(doomed) }).await.map_err(failed)?;
        let state = |one: &Doomed| {
            let is_in = |list: &[String]| list.iter().any(|handle| handle == one.handle.as_str());
            match (is_in(&verified.live), is_in(&verified.gone)) {
                (true, false) => Ok(Liveness::Live),
                (false, true) => Ok(Liveness::Gone),
                (true, true) | (false, false) => {
                    let what = format!("the program did not say whether {} is alive", one.handle);
                    Err(failed(Failure::Unclear(what)))
                }
            }
        };
        doomed.iter().map(state).collect()
    }

    async fn list(&self, after: Option<&Handle>, limit: u32) -> Result<Listing, Error> {
        let failed = |failure: Failure| failure.into_error("the credentials could not be listed");
        let unclear = |what: &str| failed(Failure::Unclear(what.to_owned()));
        let mut last = after.map(|after| after.as_str().to_owned());
        for _ in 0..STRANGE_PAGES_MAX {
            let call = Call::List {
                after: last.as_deref(),
                limit: limit.min(self.runner.page_max()),
                prefix: self.prefix.as_str(),
            };
            let page: protocol::Page = self.ask(&call).await.map_err(failed)?;
            let names = page.credentials.iter().map(|item| item.handle.as_str());
            if !last.as_deref().into_iter().chain(names).is_sorted_by(|a, b| a < b) {
                return Err(unclear("the program's list is not in order, or does not go on"));
            }
            let mut credentials = Vec::new();
            for item in &page.credentials {
                credentials.extend(self.listed(item)?);
            }
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let more = page.more || credentials.len() > limit;
            credentials.truncate(limit);
            if !credentials.is_empty() || !page.more {
                return Ok(Listing { credentials, more });
            }
            // Strangers only: ours may come after them.
            last = page.credentials.last().map(|item| item.handle.clone());
            if last.is_none() {
                return Err(unclear("the program's list has an empty page before its end"));
            }
        }
        Err(unclear("the program lists too many names of another shape under our prefix"))
    }

    async fn marker(&self) -> Result<Option<Marker>, Error> {
        let failed = |failure: Failure| failure.into_error("the marker could not be read");
        let call = Call::Marker { name: self.marker_name() };
        let found: protocol::Found = self.ask(&call).await.map_err(failed)?;
        let Some(text) = found.text else { return Ok(None) };
        let marker = Marker::parse(&text);
        marker.map(Some).ok_or_else(|| {
            let message = format!("`{}` is there and is no marker of Dayfly", self.marker_name());
            Error::new(ErrorKind::Conflict, message)
        })
    }

    async fn mark(&self, marker: &Marker) -> Result<(), Error> {
        if let Some(found) = self.marker().await?
            && found.installation != marker.installation
        {
            let message = format!("the prefix belongs to installation {}", found.installation);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let call = Call::Mark {
            name: self.marker_name(),
            text: marker.to_text(),
            installation: marker.installation.to_string(),
        };
        let marked: Result<protocol::Nothing, _> = self.ask(&call).await;
        marked.map(drop).map_err(|failure| failure.into_error("the marker could not be written"))
    }

    async fn canary(&self, handle: &Handle, template: &Template) -> CanaryReport {
        dayfly_backend_sdk::canary(self, handle, template).await
    }
}
