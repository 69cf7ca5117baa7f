//! A template, checked: what AWS is told, and what the end of a lease needs to know.
//!
//! Invariant: what AWS would refuse is refused when the configuration is loaded, and not at a
//! mint: its own checks, and not those of whatever stands in for it.

use std::{collections::BTreeMap, path::PathBuf};

use dayfly_backend_sdk::{Plan, Template};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    AssumeRole, AwsTemplate, FederationToken, IamUser, SourceIdentity, TemplateError, WebIdentity,
};
use crate::{
    arn,
    config::{AwsConfig, Mode},
    label,
};

/// Characters of a session policy, and as many for the inline policy of a user.
const POLICY_LEN_MAX: usize = 2_048;
const POLICY_ARNS_MAX: usize = 10;
/// The name of a federated user.
const FEDERATED_LEN_MAX: usize = 32;
/// A lease's part of a name.
const LEASE_LEN: usize = 26;
/// The longest sessions, in seconds: of a role, and of a federated user.
const ROLE_MAX: u32 = 43_200;
pub(crate) const FEDERATED_MAX: u32 = 129_600;

/// What is minted.
#[derive(Debug)]
pub(crate) enum Recipe {
    Session(SessionRecipe),
    User(UserRecipe),
}

#[derive(Debug)]
pub(crate) struct SessionRecipe {
    pub(crate) source: Source,
    pub(crate) policy: Option<String>,
    pub(crate) policy_arns: Vec<String>,
    /// None: no tags at all.
    pub(crate) tags: Option<BTreeMap<String, String>>,
    pub(crate) duration_max: i64,
}

#[derive(Debug)]
pub(crate) enum Source {
    Federation,
    Role { arn: String, external_id: Option<String>, identity: SourceIdentity },
    WebIdentity { arn: String, token_file: PathBuf },
}

#[derive(Debug)]
pub(crate) struct UserRecipe {
    pub(crate) boundary: Option<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) policy_arns: Vec<String>,
    pub(crate) policy: Option<String>,
    pub(crate) tags: BTreeMap<String, String>,
}

/// What the end of a session needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionPlan {
    /// The role whose policies count for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<String>,
    /// Our own user's count.
    #[serde(default)]
    pub(crate) federated: bool,
    /// The longest that it can last, in seconds.
    #[serde(default)]
    pub(crate) longest_s: u32,
}

impl AwsTemplate {
    /// The template as the engine carries it.
    pub(crate) fn sealed(self, config: &AwsConfig) -> Result<Template, TemplateError> {
        let (mode, plan, recipe) = match self {
            Self::AssumeRole(template) => template.recipe(config)?,
            Self::FederationToken(template) => template.recipe(config)?,
            Self::IamUser(template) => {
                // A name is all that a user's end needs.
                (Mode::User, Plan::default(), Recipe::User(template.recipe()?))
            }
            Self::WebIdentity(template) => template.recipe(config)?,
        };
        match config.mode {
            found if found == mode => Ok(Template::new(plan, recipe)),
            Mode::Session => Err(TemplateError::Mode("session")),
            Mode::User => Err(TemplateError::Mode("user")),
        }
    }
}

impl AssumeRole {
    fn recipe(self, config: &AwsConfig) -> Result<(Mode, Plan, Recipe), TemplateError> {
        let role = role(&self.role_arn, config)?;
        if let Some(id) = &self.external_id {
            let legal = |c: u8| c.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&c);
            if !(2..=1_224).contains(&id.len()) || !id.bytes().all(legal) {
                return Err(TemplateError::ExternalId(id.clone()));
            }
        }
        label::check(&self.tags).map_err(TemplateError::Tags)?;
        let recipe = SessionRecipe {
            policy: policy(self.policy.as_ref())?,
            policy_arns: policy_arns(self.policy_arns)?,
            tags: self.session_tags.then_some(self.tags),
            duration_max: duration(self.duration_max_s, ROLE_MAX)?,
            source: Source::Role {
                arn: self.role_arn,
                external_id: self.external_id,
                identity: self.source_identity,
            },
        };
        let plan = SessionPlan { role: Some(role), longest_s: self.duration_max_s, ..no_plan() };
        Ok(session(&plan, recipe))
    }
}

impl WebIdentity {
    fn recipe(self, config: &AwsConfig) -> Result<(Mode, Plan, Recipe), TemplateError> {
        let role = role(&self.role_arn, config)?;
        let recipe = SessionRecipe {
            policy: policy(self.policy.as_ref())?,
            policy_arns: policy_arns(self.policy_arns)?,
            // They are in the token, and whoever signed it set them.
            tags: None,
            duration_max: duration(self.duration_max_s, ROLE_MAX)?,
            source: Source::WebIdentity { arn: self.role_arn, token_file: self.token_file },
        };
        let plan = SessionPlan { role: Some(role), longest_s: self.duration_max_s, ..no_plan() };
        Ok(session(&plan, recipe))
    }
}

impl FederationToken {
    fn recipe(self, config: &AwsConfig) -> Result<(Mode, Plan, Recipe), TemplateError> {
        if config.prefix.len() + LEASE_LEN > FEDERATED_LEN_MAX {
            return Err(TemplateError::Prefix);
        }
        label::check(&self.tags).map_err(TemplateError::Tags)?;
        let recipe = SessionRecipe {
            source: Source::Federation,
            policy: policy(self.policy.as_ref())?,
            policy_arns: policy_arns(self.policy_arns)?,
            tags: self.session_tags.then_some(self.tags),
            duration_max: duration(self.duration_max_s, FEDERATED_MAX)?,
        };
        if recipe.policy.is_none() && recipe.policy_arns.is_empty() {
            return Err(TemplateError::Nothing("a federated user has the rights of its policies"));
        }
        let plan = SessionPlan { federated: true, longest_s: self.duration_max_s, ..no_plan() };
        Ok(session(&plan, recipe))
    }
}

impl IamUser {
    fn recipe(self) -> Result<UserRecipe, TemplateError> {
        if let Some(boundary) = &self.permissions_boundary
            && arn::parse(boundary, "policy").is_none()
        {
            return Err(TemplateError::Arn(boundary.clone(), "managed policy"));
        }
        if let Some(group) = self.groups.iter().find(|group| !arn::is_name(group)) {
            return Err(TemplateError::Name(group.clone()));
        }
        if self.groups.len() > POLICY_ARNS_MAX {
            return Err(TemplateError::TooMany("groups", POLICY_ARNS_MAX));
        }
        if self.groups.is_empty() && self.policy_arns.is_empty() && self.policy.is_none() {
            return Err(TemplateError::Nothing("a user has the rights of its groups and policies"));
        }
        label::check(&self.tags).map_err(TemplateError::Tags)?;
        Ok(UserRecipe {
            boundary: self.permissions_boundary,
            groups: self.groups,
            policy_arns: policy_arns(self.policy_arns)?,
            policy: policy(self.policy.as_ref())?,
            tags: self.tags,
        })
    }
}

fn no_plan() -> SessionPlan {
    SessionPlan::default()
}

fn session(plan: &SessionPlan, recipe: SessionRecipe) -> (Mode, Plan, Recipe) {
    // Texts and numbers: nothing that JSON could not hold.
    let plan = Plan(serde_json::to_value(plan).unwrap_or_default());
    (Mode::Session, plan, Recipe::Session(recipe))
}

/// The name of a role that the belt can reach, if there is a belt.
fn role(text: &str, config: &AwsConfig) -> Result<String, TemplateError> {
    let role = arn::parse(text, "role").filter(|role| role.account != "aws");
    let role = role.ok_or_else(|| TemplateError::Arn(text.to_owned(), "role"))?;
    let belt = config.deny_policies.first().and_then(|policy| arn::parse(policy, "policy"));
    if belt.is_some_and(|policy| policy.account != role.account) {
        return Err(TemplateError::BeltElsewhere(text.to_owned()));
    }
    Ok(role.name.to_owned())
}

fn duration(seconds: u32, most: u32) -> Result<i64, TemplateError> {
    if !(900..=most).contains(&seconds) {
        return Err(TemplateError::Duration(seconds, most));
    }
    Ok(i64::from(seconds))
}

fn policy_arns(arns: Vec<String>) -> Result<Vec<String>, TemplateError> {
    if arns.len() > POLICY_ARNS_MAX {
        return Err(TemplateError::TooMany("policies", POLICY_ARNS_MAX));
    }
    match arns.iter().find(|text| arn::parse(text, "policy").is_none()) {
        Some(bad) => Err(TemplateError::Arn(bad.clone(), "managed policy")),
        None => Ok(arns),
    }
}

/// A policy without blanks, since they count.
fn policy(raw: Option<&Value>) -> Result<Option<String>, TemplateError> {
    let Some(raw) = raw else { return Ok(None) };
    let read = match raw {
        Value::String(text) => {
            serde_json::from_str(text).map_err(|_| TemplateError::Policy("is no JSON"))?
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            raw.clone()
        }
    };
    if read.get("Statement").is_none() {
        return Err(TemplateError::Policy("is no object with a `Statement`"));
    }
    let text = read.to_string();
    if text.chars().any(|c| !(' '..='\u{ff}').contains(&c)) {
        return Err(TemplateError::Policy("has characters beyond Latin-1"));
    }
    if text.chars().count() > POLICY_LEN_MAX {
        return Err(TemplateError::Policy("is longer than 2048 characters"));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests;
