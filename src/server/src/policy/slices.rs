//! The rules, in portions: a question is put only to rules whose scope can match it.
//!
//! Invariant: every rule is in the portions of every question that its scope admits, and in
//! no portion twice for one question. So what the portions answer together is what the whole
//! set would have answered. Cedar walks a set from end to end, and a thousand rules that are
//! pinned to a thousand roles would cost each request a thousand evaluations.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::LazyLock,
};

use cedar_policy::{ActionConstraint, EntityUid, Policy, PolicyId, PolicySet, ResourceConstraint};

use super::{
    ask::{Action, Ask},
    decision::Rule,
    mentions::Mentions,
};

/// The portions of each action.
#[derive(Default)]
pub(super) struct Slices {
    portions: HashMap<Action, Portions>,
    /// How each rule is named where it decides. Cedar reads the name of an annotation as it reads
    /// rules each time that it is asked for one, which costs more than the rule.
    rules: HashMap<PolicyId, Rule>,
}

#[derive(Default)]
struct Portions {
    /// Rules that are pinned to no role and no backend.
    common: PolicySet,
    /// What all of them can look at.
    mentions: Mentions,
    backends: HashMap<String, PolicySet>,
    roles: HashMap<String, PolicySet>,
}

/// What a rule's scope says of the resource.
enum Pin {
    Backend(String),
    None,
    Role(String),
}

impl Slices {
    /// Cuts a set. Ids must be unique.
    pub(super) fn cut<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Result<Self, String> {
        let mut slices = Self::default();
        for policy in policies {
            slices.rules.insert(policy.id().clone(), rule(policy));
            let pin = pin(&policy.resource_constraint());
            for action in actions(&policy.action_constraint()) {
                let portions = slices.portions.entry(action).or_default();
                portions.mentions.add(policy)?;
                let portion = match &pin {
                    Pin::Backend(name) => portions.backends.entry(name.clone()).or_default(),
                    Pin::None => &mut portions.common,
                    Pin::Role(name) => portions.roles.entry(name.clone()).or_default(),
                };
                portion.add(policy.clone()).map_err(|error| error.to_string())?;
            }
        }
        Ok(slices)
    }

    /// What the rules that a question is put to can look at.
    pub(super) fn mentions(&self, ask: &Ask<'_>) -> &Mentions {
        static NOTHING: LazyLock<Mentions> = LazyLock::new(Mentions::default);
        self.portions.get(&ask.action()).map_or(&NOTHING, |portions| &portions.mentions)
    }

    /// How the rule is named that decided.
    pub(super) fn rule(&self, id: &PolicyId) -> Rule {
        let rule = self.rules.get(id).cloned();
        rule.unwrap_or_else(|| Rule { id: id.to_string(), reason: None })
    }

    /// The portions that a question is put to.
    pub(super) fn of(&self, ask: &Ask<'_>) -> impl Iterator<Item = &PolicySet> {
        let portions = self.portions.get(&ask.action());
        let place = ask.place();
        let common = portions.map(|portions| &portions.common);
        let role = portions.zip(place).and_then(|(portions, (role, _))| portions.roles.get(role));
        let backend =
            portions.zip(place).and_then(|(portions, (_, backend))| portions.backends.get(backend));
        [common, backend, role].into_iter().flatten().filter(|portion| !portion.is_empty())
    }
}

impl fmt::Debug for Slices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slices").field("actions", &self.portions.len()).finish_non_exhaustive()
    }
}

fn rule(policy: &Policy) -> Rule {
    let reason = policy.annotation("reason").map(ToOwned::to_owned);
    Rule { id: policy.id().to_string(), reason }
}

/// The actions that a scope admits.
pub(super) fn actions(constraint: &ActionConstraint) -> BTreeSet<Action> {
    let named: Vec<&EntityUid> = match constraint {
        ActionConstraint::Any => return Action::ALL.into_iter().collect(),
        ActionConstraint::Eq(uid) => vec![uid],
        ActionConstraint::In(uids) => uids.iter().collect(),
    };
    let known = |uid: &EntityUid| {
        Action::ALL.into_iter().find(|action| action.as_str() == uid.id().unescaped())
    };
    // The schema has no groups of actions. Should it get some, a rule on a group must not
    // fall through here, so it goes to all.
    let found: Option<BTreeSet<Action>> = named.into_iter().map(known).collect();
    found.unwrap_or_else(|| Action::ALL.into_iter().collect())
}

fn pin(constraint: &ResourceConstraint) -> Pin {
    match constraint {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => Pin::None,
        ResourceConstraint::Eq(uid)
        | ResourceConstraint::In(uid)
        | ResourceConstraint::IsIn(_, uid) => {
            let name = uid.id().unescaped().to_owned();
            match uid.type_name().to_string().as_str() {
                "Dayfly::Backend" => Pin::Backend(name),
                "Dayfly::Role" => Pin::Role(name),
                _ => Pin::None,
            }
        }
    }
}

#[cfg(test)]
impl Slices {
    /// Everything in one portion, and nothing left out, for comparison.
    pub(super) fn whole<'a>(
        policies: impl IntoIterator<Item = &'a Policy>,
    ) -> Result<Self, String> {
        let (mut common, mut rules) = (PolicySet::new(), HashMap::new());
        for policy in policies {
            rules.insert(policy.id().clone(), rule(policy));
            common.add(policy.clone()).map_err(|error| error.to_string())?;
        }
        let all = Action::ALL.into_iter();
        let portions = |action| {
            let mentions = Mentions::everything();
            (action, Portions { common: common.clone(), mentions, ..Portions::default() })
        };
        Ok(Self { portions: all.map(portions).collect(), rules })
    }

    /// How many rules a question is put to.
    pub(super) fn count(&self, ask: &Ask<'_>) -> usize {
        self.of(ask).map(PolicySet::num_of_policies).sum()
    }
}
