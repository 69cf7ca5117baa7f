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

/// One of the two who are asked about where a workload acts on a person's behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// For whom it is.
    Person,
    /// Who acts.
    Workload,
}

impl Party {
    /// Its name in the audit log and in cases.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Workload => "workload",
        }
    }
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
    /// Who of two is denied; none where one alone was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<Party>,
}

/// A yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed(Decision);

impl Allowed {
    pub(super) fn new(decision: Decision) -> Self {
        Self(decision)
    }

    /// That both are permitted, by the rules of both.
    fn and(self, other: Self) -> Self {
        let mut decision = self.0;
        decision.rules.extend(other.0.rules);
        decision.rules.sort();
        decision.rules.dedup();
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
    /// where none permits it to the caller, nor to the person if it acts `on_behalf` of one: names
    /// are not to be guessed.
    pub fn by_default(policy_hash: &str, on_behalf: bool) -> Self {
        let reason = Some("no rule permits it".to_owned());
        Self(Decision {
            allowed: false,
            rules: vec![Rule { id: DEFAULT_DENY.to_owned(), reason }],
            policy_hash: policy_hash.to_owned(),
            evaluation_error: None,
            denied: on_behalf.then_some(Party::Workload),
        })
    }

    fn of(self, party: Party) -> Self {
        Self(Decision { denied: Some(party), ..self.0 })
    }

    /// Why, and of whom that is said where two were asked about.
    pub fn explanation(&self) -> String {
        let reason = self.reason();
        match self.0.denied {
            None => reason.to_owned(),
            Some(Party::Person) => format!("the person on whose behalf it is asked: {reason}"),
            Some(Party::Workload) => format!("the workload that asks: {reason}"),
        }
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

/// What is answered about a workload and the person on whose behalf it acts: yes, if both may.
/// Where neither may, whom a rule denies is named before whose rules could not be evaluated, and
/// the workload before the person; what could not be evaluated is told in any case.
pub(super) fn intersected(
    workload: Result<Allowed, Denial>,
    person: Result<Allowed, Denial>,
) -> Result<Allowed, Denial> {
    match (workload, person) {
        (Ok(workload), Ok(person)) => Ok(workload.and(person)),
        (Err(denial), Ok(_)) => Err(denial.of(Party::Workload)),
        (Ok(_), Err(denial)) => Err(denial.of(Party::Person)),
        (Err(workload), Err(person)) => {
            let faulty = |denial: &Denial| denial.denied_by() == EVALUATION_ERROR;
            let errors = [&workload, &person].map(|denial| denial.0.evaluation_error.clone());
            let mut denial = if faulty(&workload) && !faulty(&person) {
                person.of(Party::Person)
            } else {
                workload.of(Party::Workload)
            };
            denial.0.evaluation_error = errors.into_iter().flatten().next();
            Err(denial)
        }
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
