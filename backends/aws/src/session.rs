//! Sessions: how they are made, and what their end needs.
//!
//! Invariant: a session's name is its lease's handle, so that a deny by name meets this session
//! alone; and a request that reaches AWS before the mint's deadline gives none that outlives its
//! lease, but for AWS's fifteen minutes.

use aws_sdk_sts::{
    primitives::DateTimeFormat,
    types::{Credentials, PolicyDescriptorType, Tag},
};
use dayfly_backend_sdk::{Doomed, HandlePrefix, MintRequest, Secret};

use crate::{
    account::Account,
    belt::{Target, Wanted},
    config::SESSION_MIN,
    credential::Keys,
    error::Failure,
    label,
    template::{FEDERATED_MAX, SessionPlan, SessionRecipe, Source, SourceIdentity},
};

/// How much later than its lease a session may begin: AWS takes a request that was signed five
/// minutes ago, and clocks differ.
const LATE: i64 = 1_800;
/// An `Expiration` is AWS's own; the rest is rounding.
const EXACT: i64 = 60;

/// A session, and when AWS ends it.
pub(crate) struct Session {
    pub(crate) keys: Keys,
    /// Seconds since 1970.
    pub(crate) end: i64,
}

pub(crate) async fn mint(
    account: &Account,
    recipe: &SessionRecipe,
    request: &MintRequest<'_>,
) -> Result<Session, Failure> {
    let seconds = seconds(request, recipe.duration_max)?;
    let name = request.handle.as_str();
    let arns = || {
        let arn = |arn: &String| PolicyDescriptorType::builder().arn(arn).build();
        let arns: Vec<_> = recipe.policy_arns.iter().map(arn).collect();
        (!arns.is_empty()).then_some(arns)
    };
    let tags = tags(recipe, request)?;
    let made = match &recipe.source {
        Source::Federation => {
            let asked = account.sts.get_federation_token().name(name).duration_seconds(seconds);
            let asked = asked.set_policy(recipe.policy.clone()).set_policy_arns(arns());
            asked.set_tags(tags).send().await?.credentials
        }
        Source::Role { arn, external_id, identity } => {
            let identity = match identity {
                SourceIdentity::Handle => Some(name.to_owned()),
                SourceIdentity::None => None,
                SourceIdentity::Principal => Some(label::identity(request.principal)),
            };
            // No tag is transitive: a session that this one opens is somebody else's.
            let asked = account.sts.assume_role().role_arn(arn).role_session_name(name);
            let asked = asked.set_policy(recipe.policy.clone()).set_policy_arns(arns());
            let asked = asked.set_external_id(external_id.clone()).set_source_identity(identity);
            asked.set_tags(tags).duration_seconds(seconds).send().await?.credentials
        }
        Source::WebIdentity { arn, token_file } => {
            let token = tokio::fs::read_to_string(token_file).await;
            let token = token.map_err(|error| Failure::Token(error.to_string()))?;
            let asked = account.sts.assume_role_with_web_identity().role_arn(arn);
            let asked = asked.role_session_name(name).web_identity_token(token.trim());
            let asked = asked.set_policy(recipe.policy.clone()).set_policy_arns(arns());
            asked.duration_seconds(seconds).send().await?.credentials
        }
    };
    opened(made.ok_or(Failure::Strange("credentials"))?)
}

/// What is left of the lease at the mint's deadline. By the store's clock alone: a session that
/// is asked for before it ends some seconds early, and never late.
fn seconds(request: &MintRequest<'_>, most: i64) -> Result<i32, Failure> {
    let life = request.expires_at.since(request.mint_deadline).max(SESSION_MIN);
    let seconds = i32::try_from(life.as_secs()).unwrap_or(i32::MAX);
    if i64::from(seconds) > most {
        return Err(Failure::Long { asked: i64::from(seconds), most });
    }
    Ok(seconds)
}

fn tags(recipe: &SessionRecipe, request: &MintRequest<'_>) -> Result<Option<Vec<Tag>>, Failure> {
    let Some(own) = &recipe.tags else { return Ok(None) };
    let tag = |(key, value)| Tag::builder().key(key).value(value).build();
    let tags = label::tags(own, request.lease, request.principal).into_iter().map(tag);
    tags.collect::<Result<Vec<_>, _>>().map(Some).map_err(|_| Failure::Strange("tag"))
}

fn opened(made: Credentials) -> Result<Session, Failure> {
    let expiration = made.expiration.fmt(DateTimeFormat::DateTime);
    Ok(Session {
        end: made.expiration.secs(),
        keys: Keys {
            access_key_id: made.access_key_id,
            secret_access_key: Secret::new(made.secret_access_key),
            session_token: Some(Secret::new(made.session_token)),
            expiration: Some(expiration.map_err(|_| Failure::Strange("expiration"))?),
        },
    })
}

impl Session {
    /// What the lease keeps until its end: when AWS ends the session, so that one that has
    /// ended needs no place in the belt.
    pub(crate) fn kept(&self) -> Secret {
        Secret::new(self.end.to_string())
    }
}

/// What the belt must know of a session. Where the mint's answer was lost, its end is the
/// latest that it can have: the handle tells when the lease began.
pub(crate) fn wanted(prefix: &HandlePrefix, doomed: &Doomed, user: Option<&str>) -> Wanted {
    let plan: Option<SessionPlan> = serde_json::from_value(doomed.plan.0.clone()).ok();
    let plan = plan.unwrap_or(SessionPlan { longest_s: FEDERATED_MAX, ..SessionPlan::default() });
    let kept = doomed.kept.as_ref().and_then(|kept| kept.expose().parse::<i64>().ok());
    let end = match kept {
        Some(end) => end.saturating_add(EXACT),
        None => begun(prefix, doomed.handle.as_str())
            .saturating_add(i64::from(plan.longest_s))
            .saturating_add(LATE),
    };
    let target = match (plan.role, user) {
        (Some(role), _) => Target::Role(role),
        (None, Some(user)) if plan.federated => Target::User(user.to_owned()),
        (None, _) => Target::Anything,
    };
    Wanted { name: doomed.handle.as_str().to_owned(), end, target }
}

/// When a lease began, in seconds since 1970: its id is a `UUIDv7`, whose first 48 bits are
/// milliseconds. What is no name of ours has not begun yet, and is never taken for over.
fn begun(prefix: &HandlePrefix, handle: &str) -> i64 {
    let lease = prefix.lease_of(handle);
    let millis = lease.and_then(|lease| i64::try_from(lease.as_u128() >> 80).ok());
    millis.map_or(i64::MAX, |millis| millis / 1_000)
}

/// Whether any of them is a federated user's, so that our own user's name counts.
pub(crate) fn is_federated(doomed: &[Doomed]) -> bool {
    let federated = |one: &Doomed| one.plan.0.get("federated").and_then(serde_json::Value::as_bool);
    doomed.iter().any(|one| federated(one) == Some(true))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dayfly_backend_sdk::{Handle, Plan, Template, Timestamp};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_session_ends_with_its_lease_and_no_later() {
        let (handle, template) =
            (Handle::parse("df_a").unwrap(), Template::new(Plan::default(), ()));
        let now = Timestamp::from_seconds(1_790_000_000);
        let of = |ttl: u64| {
            let request = MintRequest {
                handle: &handle,
                template: &template,
                expires_at: now.plus(Duration::from_secs(ttl)),
                mint_deadline: now.plus(Duration::from_secs(ttl.min(15))),
                principal: "p",
                lease: "l",
            };
            seconds(&request, 3_600)
        };
        assert_eq!(of(3_600).unwrap(), 3_585);
        assert_eq!(of(3_615).unwrap(), 3_600);
        assert_eq!(of(5).unwrap(), 900);
        assert_eq!(of(915).unwrap(), 900);
        assert!(matches!(of(3_616), Err(Failure::Long { asked: 3_601, most: 3_600 })));
    }

    #[test]
    fn an_end_that_nobody_kept_is_the_latest_there_can_be() {
        let prefix = HandlePrefix::parse("df_").unwrap();
        let began = 1_790_000_000_i64;
        let lease = u128::try_from(began * 1_000).unwrap() << 80 | 0x7000 << 64 | 0x8 << 60;
        let handle = prefix.handle(uuid::Uuid::from_u128(lease), 63).unwrap();
        let plan = Plan(json!({ "role": "deploy", "longest_s": 3_600 }));
        let doomed = Doomed::new(handle, plan);
        let lost = wanted(&prefix, &doomed, None);
        assert_eq!(lost.end, began + 3_600 + LATE);
        assert_eq!(lost.target, Target::Role("deploy".to_owned()));
        let kept = doomed.clone().keeping(Some(Secret::new("1790000900")));
        assert_eq!(wanted(&prefix, &kept, None).end, began + 900 + EXACT);
        let unplanned = Doomed::new(doomed.handle, Plan::default());
        let unplanned = wanted(&prefix, &unplanned, None);
        assert_eq!(unplanned.end, began + 129_600 + LATE);
        assert_eq!(unplanned.target, Target::Anything);
    }
}
