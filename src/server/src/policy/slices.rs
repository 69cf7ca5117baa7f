//! The rules, in portions: a question is put only to rules that can match it.
//!
//! Invariant: every rule is in the portions of every question that its scope admits and that the
//! first of its conditions does not rule out, and in no portion twice for one question. So what
//! the portions answer together is what the whole set would have answered. Cedar walks a set from
//! end to end, and a thousand rules that are pinned to a thousand roles or repositories would cost
//! each request a thousand evaluations.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::LazyLock,
};

use cedar_policy::{ActionConstraint, EntityUid, Policy, PolicyId, PolicySet, ResourceConstraint};

use serde_json::Value;

use super::{
    ask::{Action, Ask},
    decision::Rule,
    mentions::Mentions,
};
use crate::identity::{ClaimValue, Principal};

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
    /// Rules that are pinned to nothing.
    common: PolicySet,
    /// What all of them can look at.
    mentions: Mentions,
    backends: HashMap<String, PolicySet>,
    roles: HashMap<String, PolicySet>,
    /// By the name of a principal's tag and by its value.
    tags: BTreeMap<String, HashMap<String, PolicySet>>,
}

/// What a rule is pinned to: the resource that its scope names, or else the tag of the principal
/// that its first condition asks for.
enum Pin {
    Backend(String),
    None,
    Role(String),
    Tag(String, String),
}

impl Slices {
    /// Cuts a set. Ids must be unique.
    pub(super) fn cut<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Result<Self, String> {
        let mut slices = Self::default();
        for policy in policies {
            slices.rules.insert(policy.id().clone(), rule(policy));
            let mut pin = pin(&policy.resource_constraint());
            if let (Pin::None, Some(tag)) = (&pin, first_tag(policy)) {
                pin = tag;
            }
            for action in actions(&policy.action_constraint()) {
                let portions = slices.portions.entry(action).or_default();
                portions.mentions.add(policy)?;
                let portion = match &pin {
                    Pin::Backend(name) => portions.backends.entry(name.clone()).or_default(),
                    Pin::None => &mut portions.common,
                    Pin::Role(name) => portions.roles.entry(name.clone()).or_default(),
                    Pin::Tag(name, value) => {
                        let values = portions.tags.entry(name.clone()).or_default();
                        values.entry(value.clone()).or_default()
                    }
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

    /// The portions that a question about `principal` is put to.
    pub(super) fn of(
        &self,
        ask: &Ask<'_>,
        principal: &Principal,
    ) -> impl Iterator<Item = &PolicySet> {
        let portions = self.portions.get(&ask.action());
        let place = ask.place();
        let common = portions.map(|portions| &portions.common);
        let role = portions.zip(place).and_then(|(portions, (role, _))| portions.roles.get(role));
        let backend =
            portions.zip(place).and_then(|(portions, (_, backend))| portions.backends.get(backend));
        let tags = portions.into_iter().flat_map(|portions| &portions.tags);
        let tagged = tags.filter_map(|(name, values)| match principal.claims.get(name) {
            Some(ClaimValue::Text(value)) => values.get(value),
            Some(ClaimValue::List(_)) | None => None,
        });
        let named = [common, backend, role].into_iter().flatten();
        named.filter(|portion| !portion.is_empty()).chain(tagged)
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

/// The tag that the first conditions of a rule ask for: `principal.hasTag("x") &&
/// principal.getTag("x") == "1"`. They are evaluated first and can't fail, so a rule is not met,
/// and whatever comes after them is not evaluated, where the principal has no such tag.
fn first_tag(policy: &Policy) -> Option<Pin> {
    let json = policy.to_json().ok()?;
    let first = json.pointer("/conditions/0").filter(|first| is_when(first))?;
    let mut operands = Vec::new();
    conjuncts(first.get("body")?, &mut operands);
    let [has, is, ..] = operands.as_slice() else { return None };
    let name = tag_of_principal(has.get("hasTag")?)?;
    let (left, right) = (is.pointer("/==/left")?, is.pointer("/==/right")?);
    let value = right.get("Value")?.as_str()?;
    let is_same = tag_of_principal(left.get("getTag")?)? == name;
    is_same.then(|| Pin::Tag(name.to_owned(), value.to_owned()))
}

fn is_when(condition: &Value) -> bool {
    condition.get("kind").and_then(Value::as_str) == Some("when")
}

/// What is joined by `&&`, in the order in which it is evaluated.
fn conjuncts<'a>(condition: &'a Value, operands: &mut Vec<&'a Value>) {
    match (condition.pointer("/&&/left"), condition.pointer("/&&/right")) {
        (Some(left), Some(right)) => {
            conjuncts(left, operands);
            conjuncts(right, operands);
        }
        _ => operands.push(condition),
    }
}

fn tag_of_principal(operator: &Value) -> Option<&str> {
    let is_principal = operator.pointer("/left/Var")?.as_str()? == "principal";
    operator.pointer("/right/Value")?.as_str().filter(|_| is_principal)
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
    pub(super) fn count(&self, ask: &Ask<'_>, principal: &Principal) -> usize {
        self.of(ask, principal).map(PolicySet::num_of_policies).sum()
    }
}
