//! Callers whose tokens stand in a form, as OAuth clients send them.
//!
//! Invariant: a token in a form is worth what it is worth in the header, and what it is bound to
//! must be proven. A proof that comes with it is made for no token, since none is shown with it.

use axum::http::request::Parts;
use dayfly_lease::Binding;

use super::{
    super::{possession::Scheme, problem::Fault},
    Caller, TASK_TOKEN_PREFIX, by_identity, enabled, opener_of, proven, refused_unproven, remember,
    source_address, token_hash,
};
use crate::broker::Broker;

impl Caller {
    /// Whose identity token it is.
    pub(in crate::http) async fn of_identity(
        parts: &Parts,
        broker: &Broker,
        token: &str,
    ) -> Result<Self, Fault> {
        let source_address = source_address(&parts.extensions, broker);
        let possession = proven(parts, broker, None, source_address).await?;
        let principal = by_identity(broker, token, source_address).await?;
        if let Err(unproven) = possession.confirms_beside(&principal) {
            let hash = principal.token_hash.as_str();
            return Err(refused_unproven(broker, unproven, (hash, None), source_address).await?);
        }
        enabled(broker, &principal).await?;
        remember(broker, &possession, source_address).await?;
        let (task, binding, person) = (None, None, None);
        Ok(Self { principal, task, possession, person, binding, source_address })
    }

    /// Whose task's token it is; nobody's where no task has it.
    pub(in crate::http) async fn of_task(
        parts: &Parts,
        broker: &Broker,
        token: &str,
    ) -> Result<Option<Self>, Fault> {
        if !token.starts_with(TASK_TOKEN_PREFIX) {
            return Ok(None);
        }
        let source_address = source_address(&parts.extensions, broker);
        let task = broker.engine.store().task_by_token(token_hash(token)).await?;
        let Some(task) = task else { return Ok(None) };
        let possession = proven(parts, broker, None, source_address).await?;
        let opener = opener_of(&task)?;
        // In a form nothing says how it is shown but what it is bound to.
        let scheme = match task.binding {
            Some(Binding::Key(_)) => Scheme::Dpop,
            Some(Binding::Certificate(_)) | None => Scheme::Bearer,
        };
        if let Err(unproven) = possession.holds(task.binding, scheme) {
            let of = (opener.principal.token_hash.as_str(), Some(task.id));
            return Err(refused_unproven(broker, unproven, of, source_address).await?);
        }
        remember(broker, &possession, source_address).await?;
        Ok(Some(Self {
            principal: opener.principal,
            binding: task.binding,
            task: Some(task),
            possession,
            source_address,
            person: opener.on_behalf_of,
        }))
    }
}
