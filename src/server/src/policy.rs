//! The decision: may this principal do this, here and now.
//!
//! Invariant: the answer is yes only if a rule permits it, no rule forbids it, and every rule
//! that was asked could be evaluated. Nothing else in the server makes a [`Permit`].

mod ask;
pub mod cases;
mod decision;
pub mod lint;
mod load;
mod mentions;
mod request;
mod slices;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, error::Error, path::Path};

use cedar_policy::{Authorizer, Decision as Verdict};

pub use self::{
    ask::{Ask, Circumstances, LeaseFacts, RoleFacts},
    decision::{Allowed, DEFAULT_DENY, Decision, Denial, EVALUATION_ERROR, Party, Permit, Rule},
    load::{FILE_BYTES_MAX, PolicyFault, RULE_ID_LEN_MAX, RULES_MAX},
    request::CLAIMS_MAX,
};
use self::{
    decision::intersected,
    request::{Asker, Beside, Vocabulary},
    slices::Slices,
};
use crate::identity::Principal;

/// A set of rules that was checked as a whole. It never changes; a reload makes a new one,
/// and if that fails the old one stays.
#[derive(Debug)]
pub struct Policies {
    vocabulary: &'static Vocabulary,
    slices: Slices,
    ids: Vec<String>,
    hash: String,
}

impl Policies {
    /// Loads all `*.cedar` files of a directory.
    ///
    /// # Errors
    /// Everything that is wrong in them, in the order of files and lines.
    pub fn load(dir: &Path, roles: &[RoleFacts]) -> Result<Self, Vec<PolicyFault>> {
        Self::from_texts(&load::read(dir)?, roles)
    }

    /// Takes rules from memory: pairs of file name and text.
    ///
    /// # Errors
    /// As [`Policies::load`].
    pub fn from_texts(
        files: &[(String, String)],
        roles: &[RoleFacts],
    ) -> Result<Self, Vec<PolicyFault>> {
        let broken = |message: String| vec![PolicyFault::new("(built in)", None, message)];
        let vocabulary = Vocabulary::built_in().map_err(broken)?;
        let checked = load::check(files, Some(roles), vocabulary)?;
        let slices = Slices::cut(&checked.policies).map_err(broken)?;
        let ids = checked.policies.iter().map(|policy| policy.id().to_string()).collect();
        Ok(Self { vocabulary, slices, ids, hash: checked.hash })
    }

    /// SHA-256 of the schema, the built-in rules and the files, in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The ids of all rules, the built-in ones first.
    pub fn rule_ids(&self) -> impl Iterator<Item = &str> {
        self.ids.iter().map(String::as_str)
    }

    /// Whether there is any rule besides the built-in ones.
    pub fn has_own_rules(&self) -> bool {
        self.rule_ids().any(|id| !id.starts_with(load::BASE_PREFIX))
    }

    /// Asks the rules. Where the principal acts on a person's behalf and asks for something that
    /// it may have only if that person may have it too, they are asked about both: each with the
    /// other one in the context.
    ///
    /// # Errors
    /// The denial, with the rule that decided it.
    pub fn authorize(
        &self,
        principal: &Principal,
        ask: &Ask<'_>,
        circumstances: &Circumstances,
    ) -> Result<Allowed, Denial> {
        let action = ask.action();
        let person = circumstances.on_behalf_of.as_ref().filter(|_| action.names_the_person());
        let workload = self.judge(principal, ask, circumstances, person.map(Beside::Person));
        let Some(person) = person.filter(|_| action.takes_both()) else { return workload };
        let beside = Some(Beside::Actor(principal));
        intersected(workload, self.judge(person, ask, circumstances, beside))
    }

    fn judge(
        &self,
        principal: &Principal,
        ask: &Ask<'_>,
        circumstances: &Circumstances,
        beside: Option<Beside<'_>>,
    ) -> Result<Allowed, Denial> {
        let asker = Asker { vocabulary: self.vocabulary, mentions: self.slices.mentions(ask) };
        let question = asker.question(principal, ask, circumstances, beside);
        let answer = match question {
            Ok((request, entities)) => {
                let mut answer = Answer::default();
                let authorizer = Authorizer::new();
                for portion in self.slices.of(ask, principal) {
                    let response = authorizer.is_authorized(&request, portion, &entities);
                    answer.add(&self.slices, &response);
                }
                answer
            }
            Err(error) => Answer { errors: vec![chain(&error)], ..Answer::default() },
        };
        let decision = answer.decision(&self.hash);
        if decision.allowed { Ok(Allowed::new(decision)) } else { Err(Denial(decision)) }
    }

    /// What rules hear besides principal and resource when this is asked, by the names in the
    /// schema, for whoever asks it.
    pub fn context(ask: &Ask<'_>, circumstances: &Circumstances) -> BTreeMap<String, String> {
        request::told(ask, circumstances)
    }

    /// Asks for one mint; the permit is what minting takes.
    ///
    /// # Errors
    /// The denial, with the rule that decided it.
    pub fn permit_mint(
        &self,
        principal: &Principal,
        role: &RoleFacts,
        purpose: &str,
        ttl_seconds: i64,
        task: &str,
        circumstances: &Circumstances,
    ) -> Result<Permit, Denial> {
        let ask = Ask::Mint { role, purpose, ttl_seconds, task };
        let allowed = self.authorize(principal, &ask, circumstances)?;
        Ok(Permit::new(&role.name, principal.id(), task, ttl_seconds, allowed))
    }
}

/// The most failed rules that one decision names.
const ERRORS_SHOWN_MAX: usize = 5;

/// What the portions of a set said, together.
#[derive(Debug, Default)]
struct Answer {
    permits: Vec<Rule>,
    forbids: Vec<Rule>,
    errors: Vec<String>,
}

impl Answer {
    fn add(&mut self, slices: &Slices, response: &cedar_policy::Response) {
        let rules = response.diagnostics().reason().map(|id| slices.rule(id));
        match response.decision() {
            Verdict::Allow => self.permits.extend(rules),
            Verdict::Deny => self.forbids.extend(rules),
        }
        self.errors.extend(response.diagnostics().errors().map(ToString::to_string));
    }

    fn decision(mut self, hash: &str) -> Decision {
        self.errors.sort();
        self.errors.truncate(ERRORS_SHOWN_MAX);
        let evaluation_error = (!self.errors.is_empty()).then(|| self.errors.join("; "));
        let own =
            |id: &str, reason: &str| Rule { id: id.to_owned(), reason: Some(reason.to_owned()) };
        let allowed =
            self.forbids.is_empty() && evaluation_error.is_none() && !self.permits.is_empty();
        let mut rules = if !self.forbids.is_empty() {
            self.forbids
        } else if evaluation_error.is_some() {
            vec![own(EVALUATION_ERROR, "a rule could not be evaluated")]
        } else if self.permits.is_empty() {
            vec![own(DEFAULT_DENY, "no rule permits it")]
        } else {
            self.permits
        };
        rules.sort();
        let policy_hash = hash.to_owned();
        Decision { allowed, rules, policy_hash, evaluation_error, denied: None }
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
