//! What would be decided about a role if it were asked for now.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Bind, PersonToken, Role};

/// Body of `POST /api/v1/roles/{name}/check`. Only the token's own task has a purpose, a lifetime,
/// a binding and a person; with its token these are not asked for again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckRole {
    /// How long the credential should live; the role's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<i64>,
    /// The purpose of the task that would be opened; `role check` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// How long that task could take; long enough for the credential when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_ttl_seconds: Option<i64>,
    /// What that task's token would be bound to, as in `POST /api/v1/tasks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<Bind>,
    /// A token of the person on whose behalf the task would be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub on_behalf_of: Option<PersonToken>,
    /// Also name the rules that permit, the caller's claims and what surrounds the question.
    #[serde(default)]
    pub explain: bool,
}

/// Answer of `POST /api/v1/roles/{name}/check`. Nothing was minted, opened or used up.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoleCheck {
    /// The role's name, as it was asked for.
    pub role: String,
    /// Whether policy would allow it.
    pub allowed: bool,
    /// The rule that denies it, as in a problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_by: Option<String>,
    /// Why it is denied, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How long the credential would live; absent where it is denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// The role as `GET /api/v1/roles` shows it; absent where the caller does not see it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<Role>,
    /// What would end the credential even if the rest failed: `native_expiry`, `session_kill`,
    /// `revoke`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub belts: Vec<String>,
    /// Whether its lease could be renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewable: Option<bool>,
    /// Which environment variable would carry which field; absent where that is not known before
    /// there is a credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<BTreeMap<String, String>>,
    /// What would stop a mint that policy allows, as the replica that answers sees it:
    /// `minting_suspended`, `task_ending`, `backend_down`, `prefix_of_another`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hindered_by: Vec<String>,
    /// Each question that policy was asked: `open_task`, except with a task's token, and `mint`.
    pub decisions: Vec<RoleDecision>,
    /// Who the caller is to policy; there if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<CheckedCaller>,
}

/// One answer of policy's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoleDecision {
    /// `open_task` or `mint`.
    pub action: String,
    /// Yes or no.
    pub allowed: bool,
    /// The rules that decided. Those that permit are named only if it was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<DecidingRule>,
    /// Who of two is denied, `person` or `workload`; absent where one alone was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<String>,
    /// What surrounded the question, by the names of policy; there if it was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context: BTreeMap<String, String>,
}

/// A rule that decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DecidingRule {
    /// Its `@id`.
    pub id: String,
    /// Its `@reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The caller as policy sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckedCaller {
    /// Issuer and subject.
    pub principal: String,
    /// `human` or `workload`.
    pub kind: String,
    /// The claims of the caller's own token, verified, nested ones by dotted path.
    pub claims: BTreeMap<String, Claim>,
    /// The set of rules that was asked, by its hash.
    pub policy: String,
}

/// The value of a claim. Numbers and booleans are text, as they are to rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Claim {
    /// A list of single values.
    List(Vec<String>),
    /// A single value.
    Text(String),
}
