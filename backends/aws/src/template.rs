//! What a credential may do: the template of a role.
//!
//! Invariant: it has no setting that AWS would not understand as it stands here, and a key that
//! we do not know is an error.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;

pub(crate) use recipe::{FEDERATED_MAX, Recipe, SessionPlan, SessionRecipe, Source, UserRecipe};

mod recipe;

/// What is minted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AwsTemplate {
    /// A session of a role.
    AssumeRole(AssumeRole),
    /// A session with some of the rights of our own user.
    FederationToken(FederationToken),
    /// A user with an access key.
    IamUser(IamUser),
    /// A session of a role for whomever a token names.
    WebIdentity(WebIdentity),
}

/// By `AssumeRole`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssumeRole {
    /// The role.
    pub role_arn: String,
    /// What of the role's rights: a policy, as an object or as text.
    #[serde(default)]
    pub policy: Option<Value>,
    /// The same by managed policies of the role's account.
    #[serde(default)]
    pub policy_arns: Vec<String>,
    /// What the role's trust policy may insist on.
    #[serde(default)]
    pub external_id: Option<String>,
    /// Session tags besides those of the lease and its principal.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Whether there are any: a trust policy must allow `sts:TagSession`.
    #[serde(default = "yes")]
    pub session_tags: bool,
    /// The source identity; a trust policy must allow `sts:SetSourceIdentity`.
    #[serde(default)]
    pub source_identity: SourceIdentity,
    /// The longest session, in seconds: the role's own setting, and an hour where we are in a
    /// role ourselves.
    #[serde(default = "hour")]
    pub duration_max_s: u32,
}

/// What `CloudTrail` has as the source identity, in the session and in all that come of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceIdentity {
    /// The name of the lease.
    #[default]
    Handle,
    /// None is set.
    None,
    /// Whom the lease is for.
    Principal,
}

/// By `GetFederationToken`, with the key of a user of ours.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FederationToken {
    /// What of our own rights: a policy, as an object or as text.
    #[serde(default)]
    pub policy: Option<Value>,
    /// The same by managed policies of the account.
    #[serde(default)]
    pub policy_arns: Vec<String>,
    /// Session tags besides those of the lease and its principal.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Whether there are any: our user must be allowed `sts:TagSession`.
    #[serde(default = "yes")]
    pub session_tags: bool,
    /// The longest session, in seconds.
    #[serde(default = "half_a_day")]
    pub duration_max_s: u32,
}

/// By `CreateUser` and `CreateAccessKey`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IamUser {
    /// The most that the user may ever be allowed: the ARN of a managed policy.
    #[serde(default)]
    pub permissions_boundary: Option<String>,
    /// Groups that it is in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Managed policies that it has.
    #[serde(default)]
    pub policy_arns: Vec<String>,
    /// A policy of its own, as an object or as text.
    #[serde(default)]
    pub policy: Option<Value>,
    /// Tags besides those of the lease and its principal.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// By `AssumeRoleWithWebIdentity`, with a token that something else keeps fresh in a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebIdentity {
    /// The role.
    pub role_arn: String,
    /// The token's file, read at each mint.
    pub token_file: PathBuf,
    /// What of the role's rights: a policy, as an object or as text.
    #[serde(default)]
    pub policy: Option<Value>,
    /// The same by managed policies of the role's account.
    #[serde(default)]
    pub policy_arns: Vec<String>,
    /// The longest session, in seconds: the role's own setting.
    #[serde(default = "hour")]
    pub duration_max_s: u32,
}

const fn yes() -> bool {
    true
}

const fn hour() -> u32 {
    3_600
}

const fn half_a_day() -> u32 {
    43_200
}

impl AwsTemplate {
    /// Reads the template of a role.
    pub fn parse(raw: &Value) -> Result<Self, TemplateError> {
        serde_json::from_value(raw.clone()).map_err(TemplateError::Shape)
    }
}

/// A template that cannot be granted.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// Not the ARN of what it should be.
    #[error("`{0}` is no ARN of a {1}")]
    Arn(String, &'static str),
    /// The belt's policies can be attached within their account only.
    #[error("`{0}` is in another account than `deny_policies`, which cannot reach it")]
    BeltElsewhere(String),
    /// Not a duration that AWS gives.
    #[error("`duration_max_s` is {0}, and 900 to {1} are allowed")]
    Duration(u32, u32),
    /// Not an external id.
    #[error("the external id `{0}` is not 2 to 1224 of A-Z, a-z, 0-9 and _+=,.@:/-")]
    ExternalId(String),
    /// Users and sessions need different backends: they end in different ways.
    #[error("a backend with `mode = \"{0}\"` mints none of these")]
    Mode(&'static str),
    /// Not a group.
    #[error("`{0}` is no name of a group")]
    Name(String),
    /// Nothing would be allowed.
    #[error("it allows nothing: {0}")]
    Nothing(&'static str),
    /// Not a policy that AWS would take.
    #[error("the policy {0}")]
    Policy(&'static str),
    /// A federated user's name is short.
    #[error("with a lease's 26 characters a prefix of at most 6 fits a federated user's name")]
    Prefix,
    /// It does not have the form of a template.
    #[error("it cannot be read")]
    Shape(#[source] serde_json::Error),
    /// Tags that AWS would not take.
    #[error("{0}")]
    Tags(String),
    /// More than AWS takes.
    #[error("more than {1} {0}")]
    TooMany(&'static str, usize),
}
