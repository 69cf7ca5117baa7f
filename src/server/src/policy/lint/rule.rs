//! A rule as the lints look at it.
//!
//! Invariant: its scope is among its conditions, so that a lint need not know in which of the
//! two something is written.

use std::collections::BTreeSet;

use super::{
    super::{ask::Action, slices},
    Finding,
    code::Code,
    expr::{Atom, Entity, Expr, Var},
    paths::{Path, paths},
};
use cedar_policy::{
    Effect, EntityTypeName, EntityUid, Policy, PrincipalConstraint, ResourceConstraint,
};

/// A rule with more operators is not taken apart: each may be a level of Cedar's tree, and
/// walking down takes stack.
const OPERATORS_MAX: usize = 500;

/// A rule that was taken apart.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: String,
    file: String,
    line: usize,
    pub(super) permits: bool,
    pub(super) actions: BTreeSet<Action>,
    /// Its scope but for the action, and its `when` and `unless`; all must hold.
    pub(super) conditions: Vec<Expr>,
    /// The ways in which it applies; none if there are too many.
    pub(super) paths: Option<Vec<Path>>,
    /// What its `@allow` has.
    pub(super) allows: Vec<String>,
    /// Whether its `@allow_reason` says something.
    pub(super) has_reason: bool,
}

impl Rule {
    pub(super) fn read(policy: &Policy, (file, line): &(String, usize)) -> Self {
        let text = policy.to_cedar().unwrap_or_default();
        let read = if is_large(&text) { None } else { conditions(policy) };
        let paths = read.as_ref().and_then(|read| paths(&Expr::All(read.clone())));
        let annotation = |name: &str| policy.annotation(name).unwrap_or_default();
        Self {
            id: policy.id().to_string(),
            file: file.clone(),
            line: *line,
            permits: policy.effect() == Effect::Permit,
            actions: slices::actions(&policy.action_constraint()),
            conditions: read.unwrap_or_default(),
            paths,
            allows: words(annotation("allow")),
            has_reason: !annotation("allow_reason").trim().is_empty(),
        }
    }

    /// Something found in it.
    pub(super) fn finding(
        &self,
        code: Code,
        about: impl Into<String>,
        why: impl Into<String>,
        mend: impl Into<String>,
    ) -> Finding {
        Finding {
            file: self.file.clone(),
            line: Some(self.line),
            code,
            rule: Some(self.id.clone()),
            about: about.into(),
            why: why.into(),
            mend: mend.into(),
        }
    }

    /// Whether it is a `permit` of an action.
    pub(super) fn permits(&self, action: Action) -> bool {
        self.permits && self.actions.contains(&action)
    }

    /// Whether it is a `forbid` of an action.
    pub(super) fn forbids(&self, action: Action) -> bool {
        !self.permits && self.actions.contains(&action)
    }

    /// The ways in which it applies that do not contradict themselves.
    pub(super) fn open_paths(&self) -> impl Iterator<Item = &Path> {
        let paths = self.paths.as_deref().unwrap_or_default();
        paths.iter().filter(|path| path.contradiction().is_none())
    }

    /// Every atom of its conditions, and whether it must hold for the rule to apply.
    pub(super) fn atoms(&self) -> impl Iterator<Item = (bool, &Atom)> {
        self.conditions.iter().flat_map(Expr::atoms)
    }
}

/// `@allow("one, two")`.
fn words(text: &str) -> Vec<String> {
    let words = text.split([',', ' ']).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

fn is_large(text: &str) -> bool {
    let operators = ["&&", "||", "(", "[", "{", "!", "+", "*"];
    let count: usize = operators.iter().map(|operator| text.matches(operator).count()).sum();
    count > OPERATORS_MAX
}

fn conditions(policy: &Policy) -> Option<Vec<Expr>> {
    let is = |var, kind: &EntityTypeName| Expr::of_kind(var, kind.to_string());
    let equals = |var, uid: &EntityUid| Expr::equals(var, entity(uid));
    let within = |var, uid: &EntityUid| Expr::within(var, entity(uid));
    let var = Var::Principal;
    let mut found = match policy.principal_constraint() {
        PrincipalConstraint::Any => Vec::new(),
        PrincipalConstraint::Eq(uid) => vec![equals(var, &uid)],
        PrincipalConstraint::In(uid) => vec![within(var, &uid)],
        PrincipalConstraint::Is(kind) => vec![is(var, &kind)],
        PrincipalConstraint::IsIn(kind, uid) => vec![is(var, &kind), within(var, &uid)],
    };
    let var = Var::Resource;
    found.extend(match policy.resource_constraint() {
        ResourceConstraint::Any => Vec::new(),
        ResourceConstraint::Eq(uid) => vec![equals(var, &uid)],
        ResourceConstraint::In(uid) => vec![within(var, &uid)],
        ResourceConstraint::Is(kind) => vec![is(var, &kind)],
        ResourceConstraint::IsIn(kind, uid) => vec![is(var, &kind), within(var, &uid)],
    });
    let json = policy.to_json().ok()?;
    for clause in json.get("conditions")?.as_array()? {
        let expr = Expr::parse(clause.get("body")?);
        match clause.get("kind")?.as_str()? {
            "when" => flatten(expr, &mut found),
            _ => found.push(expr.negated()),
        }
    }
    Some(found)
}

/// `when { a && b }` is two conditions.
fn flatten(expr: Expr, found: &mut Vec<Expr>) {
    match expr {
        Expr::All(parts) => {
            for part in parts {
                flatten(part, found);
            }
        }
        Expr::Any(_) | Expr::Is(_) | Expr::Not(_) => found.push(expr),
    }
}

fn entity(uid: &EntityUid) -> Entity {
    Entity { kind: uid.type_name().to_string(), id: uid.id().unescaped().to_owned() }
}
