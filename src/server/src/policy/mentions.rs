//! What a set of rules can look at: which attributes and tags, and membership in what.
//!
//! Invariant: whatever a rule could read is mentioned. A token has many claims and a rule reads
//! two or three of them; what no rule reads need not be built, and building it costs more than
//! asking the rules. Where a rule's text does not tell what it reads, everything is mentioned.

use std::collections::BTreeSet;

use cedar_policy::Policy;
use serde_json::Value;

const BACKEND: &str = "Dayfly::Backend";
const CLAIM: &str = "Dayfly::Claim";
const ISSUER: &str = "Dayfly::Issuer";
const ROLE: &str = "Dayfly::Role";

/// Names that rules mention, or all that there are.
#[derive(Clone, Debug, PartialEq)]
enum Names {
    All,
    /// Few of them: to look one up costs less than its hash would.
    These(BTreeSet<String>),
}

impl Default for Names {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Names {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(name),
        }
    }

    fn add(&mut self, name: &str) {
        match self {
            Self::All => {}
            Self::These(names) => {
                names.insert(name.to_owned());
            }
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Mentions {
    attributes: Names,
    tags: Names,
    backends: Names,
    claims: Names,
    issuers: Names,
    roles: Names,
}

impl Mentions {
    /// What `policy` mentions as well.
    ///
    /// # Errors
    /// Cedar cannot write it as JSON.
    pub(super) fn add(&mut self, policy: &Policy) -> Result<(), String> {
        self.walk(&policy.to_json().map_err(|error| error.to_string())?);
        Ok(())
    }

    /// An attribute of a principal, a resource or the context.
    pub(super) fn attribute(&self, name: &str) -> bool {
        self.attributes.has(name)
    }

    pub(super) fn tag(&self, name: &str) -> bool {
        self.tags.has(name)
    }

    pub(super) fn backend(&self, name: &str) -> bool {
        self.backends.has(name)
    }

    /// An entry of a list claim, as its entity is called.
    pub(super) fn claim(&self, id: &str) -> bool {
        self.claims.has(id)
    }

    pub(super) fn issuer(&self, name: &str) -> bool {
        self.issuers.has(name)
    }

    pub(super) fn role(&self, name: &str) -> bool {
        self.roles.has(name)
    }

    /// Walks Cedar's JSON of a rule. An operator is an object with one member, a literal is the
    /// member `Value`: <https://docs.cedarpolicy.com/policies/json-format.html>.
    fn walk(&mut self, json: &Value) {
        match json {
            Value::Object(members) => {
                self.entity(members);
                for (name, inner) in members {
                    match name.as_str() {
                        "." | "has" => self.access(inner),
                        "getTag" | "hasTag" => self.tagged(inner),
                        // By itself, and not as what an attribute is taken of: compared as a
                        // whole, say, so that each of its attributes counts.
                        "Var" if inner == "context" => self.attributes = Names::All,
                        _ => self.walk(inner),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// `{"left": …, "attr": "name"}`, and a list of names for `has a.b`.
    fn access(&mut self, operator: &Value) {
        let names = match operator.get("attr") {
            Some(Value::Array(names)) => names.as_slice(),
            Some(name) => std::slice::from_ref(name),
            None => &[Value::Null],
        };
        for name in names {
            match name.as_str() {
                Some(name) => self.attributes.add(name),
                None => self.attributes = Names::All,
            }
        }
        match operator.get("left") {
            Some(left) if left.get("Var").is_some() => {}
            Some(left) => self.walk(left),
            None => self.attributes = Names::All,
        }
    }

    fn tagged(&mut self, operator: &Value) {
        match operator.pointer("/right/Value") {
            Some(Value::String(name)) => self.tags.add(name),
            Some(_) | None => self.tags = Names::All,
        }
        self.walk(operator);
    }

    /// An entity is `{"type": …, "id": …}` in a scope and in a condition.
    fn entity(&mut self, members: &serde_json::Map<String, Value>) {
        let text = |name| members.get(name).and_then(Value::as_str);
        let (Some(kind), Some(id)) = (text("type"), text("id")) else { return };
        match kind {
            BACKEND => self.backends.add(id),
            CLAIM => self.claims.add(id),
            ISSUER => self.issuers.add(id),
            ROLE => self.roles.add(id),
            _ => {}
        }
    }
}

#[cfg(test)]
impl Mentions {
    /// Everything that there is, for comparison.
    pub(super) fn everything() -> Self {
        Self {
            attributes: Names::All,
            tags: Names::All,
            backends: Names::All,
            claims: Names::All,
            issuers: Names::All,
            roles: Names::All,
        }
    }

    /// The names of attributes, of tags, and of what something is in, in order; none where
    /// everything is mentioned.
    pub(super) fn named(&self) -> [Option<Vec<&str>>; 6] {
        let Self { attributes, tags, backends, claims, issuers, roles } = self;
        [attributes, tags, claims, issuers, backends, roles].map(|names| match names {
            Names::All => None,
            Names::These(names) => Some(names.iter().map(String::as_str).collect()),
        })
    }
}
