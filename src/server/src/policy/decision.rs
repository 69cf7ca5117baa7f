//! What the rules answered.
//!
//! Invariant: an [`Allowed`] and a [`Permit`] are made by this module's parent alone, so that
//! holding one proves that the rules said yes.

use serde::{Deserialize, Serialize};

/// The rule that decides when no other does.
pub const DEFAULT_DENY: &str = "default-deny";
/// The rule that decides when one of the others could not be evaluated.
pub const EVALUATION_ERROR: &str = "evaluation-error";

/// A rule that decided.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    /// Its `@id`.
    pub id: String,
    /// Its `@reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An answer, as it stands in the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Yes or no.
    pub allowed: bool,
    /// The rules that decided, in the order of their ids; never empty.
    pub rules: Vec<Rule>,
    /// The set of rules that was asked.
    pub policy_hash: String,
    /// Set when a rule could not be evaluated. Such an answer is always no, and somebody
    /// should look at it: a `forbid` that fails would otherwise be a `forbid` that vanished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation_error: Option<String>,
}

/// A yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed(Decision);

impl Allowed {
    pub(super) fn new(decision: Decision) -> Self {
        Self(decision)
    }

    /// The answer.
    pub fn decision(&self) -> &Decision {
        &self.0
    }

    /// The answer, to keep.
    pub fn into_decision(self) -> Decision {
        self.0
    }
}

/// A no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("denied by `{}`", self.denied_by())]
pub struct Denial(pub Decision);

impl Denial {
    /// The answer to what no rule can permit, because there is no such thing. It is the same as
    /// where none permits it: names are not to be guessed.
    pub fn by_default(policy_hash: &str) -> Self {
        let reason = Some("no rule permits it".to_owned());
        Self(Decision {
            allowed: false,
            rules: vec![Rule { id: DEFAULT_DENY.to_owned(), reason }],
            policy_hash: policy_hash.to_owned(),
            evaluation_error: None,
        })
    }

    /// The id of the rule that denied, the first one if there are several.
    pub fn denied_by(&self) -> &str {
        self.0.rules.first().map_or(DEFAULT_DENY, |rule| &rule.id)
    }

    /// Why, in the words of that rule.
    pub fn reason(&self) -> &str {
        let reason = self.0.rules.first().and_then(|rule| rule.reason.as_deref());
        reason.unwrap_or("a rule forbids it")
    }
}

/// The proof that the rules said yes to one mint. Minting takes it by value, and it cannot be
/// copied: one yes, one credential.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    role: String,
    principal_id: String,
    task: String,
    ttl_seconds: i64,
    decision: Decision,
}

impl Permit {
    pub(super) fn new(
        role: &str,
        principal_id: String,
        task: &str,
        ttl_seconds: i64,
        allowed: Allowed,
    ) -> Self {
        let decision = allowed.into_decision();
        Self { role: role.to_owned(), principal_id, task: task.to_owned(), ttl_seconds, decision }
    }

    /// The role that may be minted.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The id of the principal that may have it.
    pub fn principal_id(&self) -> &str {
        &self.principal_id
    }

    /// The task that it is for.
    pub fn task(&self) -> &str {
        &self.task
    }

    /// The lifetime that was asked for; what is granted is this or shorter.
    pub fn ttl_seconds(&self) -> i64 {
        self.ttl_seconds
    }

    /// The answer that this permit stands on.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }
}
