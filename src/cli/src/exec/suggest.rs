//! Which role was probably meant.
//!
//! Invariant: only roles that the broker shows the caller are suggested, and whatever becomes of the
//! question, the failure is the one that there was.

use std::time::Duration;

use dayfly_api::Problem;
use tokio::time::timeout;

use super::{Error, denial, denied, explain, opening::Opening};
use crate::{client, config::fault::nearest, identity};

/// The rule that denies a role which no rule permits, and one that is not there: it does not tell
/// the two apart.
const DEFAULT_DENY: &str = "default-deny";
/// How long the question may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Why no task was opened, and what the user may have meant instead.
pub(super) async fn explained(error: identity::Error, opening: Opening<'_>) -> Error {
    let roles = &opening.request.roles;
    if let Some((problem, role)) = unknown(&error, roles)
        && let Ok(Some(meant)) = timeout(TIMEOUT, meant(role, opening)).await
    {
        let text = format!("{}; did you mean `{meant}`?", denial(problem, roles));
        return Error::Denied { code: problem.code.clone(), text };
    }
    explain(error.into(), roles)
}

/// The role that there may not be.
fn unknown<'a>(
    error: &'a identity::Error,
    roles: &'a [String],
) -> Option<(&'a Problem, &'a String)> {
    let identity::Error::Client(client::Error::Refused { problem, .. }) = error else {
        return None;
    };
    let is_by_default =
        problem.code == "role_denied" && problem.denied_by.as_deref() == Some(DEFAULT_DENY);
    denied(problem, roles).filter(|_| is_by_default).map(|role| (&**problem, role))
}

async fn meant(role: &str, opening: Opening<'_>) -> Option<String> {
    let Opening { client, source, audience, .. } = opening;
    // The token that asked for the task may be used up; where it is the only one, it may still read.
    let token = source.token(audience).await.ok()?;
    let known = client.roles(&token).await.ok()?;
    // One that is there was denied for another reason.
    let is_known = known.data.iter().any(|known| known.name == role);
    let names = known.data.iter().map(|known| known.name.as_str());
    nearest(role, names).filter(|_| !is_known).map(ToOwned::to_owned)
}
