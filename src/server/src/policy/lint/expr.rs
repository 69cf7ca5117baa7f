//! A rule's conditions as the lints look at them, read from Cedar's own JSON form of its tree.
//!
//! Invariant: what is not understood stays in it as text ([`Fact::Other`]), and no lint takes it
//! for anything but a condition that may hold or not.

mod render;

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use super::pattern::Pattern;
use render::render;

/// A condition.
#[derive(Clone, Debug)]
pub(super) enum Expr {
    All(Vec<Self>),
    Any(Vec<Self>),
    Is(Atom),
    Not(Box<Self>),
}

/// A condition without `&&`, `||` and `!` in it.
#[derive(Clone, Debug)]
pub(super) struct Atom {
    pub(super) fact: Fact,
    /// As it is written.
    pub(super) text: String,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// `true` or `false`.
    Constant(bool),
    /// Two terms are equal.
    Equal(Term, Term),
    /// The term is there.
    Has(Term),
    /// The resource stands under one of these.
    In(Vec<Entity>),
    /// The variable is of this type.
    Kind(Var, String),
    /// The term matches.
    Like(Term, Pattern),
    /// The principal has one of these entries of lists: `groups=admins`.
    Member(Vec<String>),
    /// The term is one of these.
    OneOf(Term, BTreeSet<String>),
    /// Something else.
    Other,
}

/// What a condition speaks of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Term {
    /// A claim of the principal.
    Claim(String),
    /// An attribute of the resource.
    Field(String),
    /// `principal.id`, or the principal itself.
    Id,
    /// `principal.issuer`, or the issuer that the principal is in.
    Issuer,
    /// A label of the resource.
    Label(String),
    /// The resource itself.
    Resource,
    /// `principal.subject`.
    Subject,
}

/// A variable that lints look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Var {
    Principal,
    Resource,
}

/// `Dayfly::Role::"reader"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entity {
    pub(super) kind: String,
    pub(super) id: String,
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::\"{}\"", self.kind, self.id.escape_debug())
    }
}

impl Term {
    /// The claim that it is, the subject being `sub`.
    pub(super) fn claim(&self) -> Option<&str> {
        match self {
            Self::Claim(name) => Some(name),
            Self::Subject => Some("sub"),
            Self::Field(_) | Self::Id | Self::Issuer | Self::Label(_) | Self::Resource => None,
        }
    }
}

impl Expr {
    /// Reads one condition.
    pub(super) fn parse(value: &Value) -> Self {
        let Some((op, body)) = only(value) else { return other(value) };
        let read = match op {
            "&&" => Some(Self::All(operands(op, value).into_iter().map(Self::parse).collect())),
            "||" => Some(Self::Any(operands(op, value).into_iter().map(Self::parse).collect())),
            "!" => body.get("arg").map(|arg| Self::parse(arg).negated()),
            "!=" => pair(body).map(|(one, two)| {
                let fact = equal(one, two).unwrap_or(Fact::Other);
                // The text of the positive form, so that both are known for one another.
                let text = format!("{} == {}", render(one), render(two));
                Self::Is(Atom { fact, text }).negated()
            }),
            "if-then-else" => choice(body),
            "is" => kind(body),
            _ => None,
        };
        read.unwrap_or_else(|| {
            Self::Is(Atom { fact: fact(op, body).unwrap_or(Fact::Other), text: render(value) })
        })
    }

    /// The opposite.
    pub(super) fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// That `var` is `entity`.
    pub(super) fn equals(var: Var, entity: Entity) -> Self {
        let text = format!("{} == {entity}", var.name());
        Self::Is(Atom { fact: identical(var, entity), text })
    }

    /// That `var` stands under `entity`.
    pub(super) fn within(var: Var, entity: Entity) -> Self {
        let text = format!("{} in {entity}", var.name());
        Self::Is(Atom { fact: membership(var, vec![entity]), text })
    }

    /// That `var` is of a type.
    pub(super) fn of_kind(var: Var, kind: String) -> Self {
        let text = format!("{} is {kind}", var.name());
        Self::Is(Atom { fact: Fact::Kind(var, kind), text })
    }

    /// Every atom, and whether it must hold for the whole to hold.
    pub(super) fn atoms(&self) -> Vec<(bool, &Atom)> {
        let mut found = Vec::new();
        self.collect(true, &mut found);
        found
    }

    fn collect<'a>(&'a self, holds: bool, found: &mut Vec<(bool, &'a Atom)>) {
        match self {
            Self::All(parts) | Self::Any(parts) => {
                for part in parts {
                    part.collect(holds, found);
                }
            }
            Self::Is(atom) => found.push((holds, atom)),
            Self::Not(inner) => inner.collect(!holds, found),
        }
    }
}

impl Var {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Resource => "resource",
        }
    }
}

fn other(value: &Value) -> Expr {
    Expr::Is(Atom { fact: Fact::Other, text: render(value) })
}

/// The operator of an expression and what it is applied to.
fn only(value: &Value) -> Option<(&str, &Value)> {
    let mut members = value.as_object()?.iter();
    let (op, body) = members.next()?;
    members.next().is_none().then_some((op.as_str(), body))
}

fn pair(body: &Value) -> Option<(&Value, &Value)> {
    Some((body.get("left")?, body.get("right")?))
}

/// The operands of a chain of one operator, first to last. Cedar nests them to the left, one
/// level for each, so this goes down without calling itself.
fn operands<'a>(op: &str, value: &'a Value) -> Vec<&'a Value> {
    let mut found = Vec::new();
    let mut rest = value;
    while let Some((left, right)) =
        only(rest).filter(|(here, _)| *here == op).and_then(|(_, body)| pair(body))
    {
        found.push(right);
        rest = left;
    }
    found.push(rest);
    found.reverse();
    found
}

/// `if a then b else c` is `a && b || !a && c`.
fn choice(body: &Value) -> Option<Expr> {
    let (asked, yes, no) = (body.get("if")?, body.get("then")?, body.get("else")?);
    let (asked, yes, no) = (Expr::parse(asked), Expr::parse(yes), Expr::parse(no));
    let otherwise = Expr::All(vec![asked.clone().negated(), no]);
    Some(Expr::Any(vec![Expr::All(vec![asked, yes]), otherwise]))
}

/// `principal is Type in Parent` is two conditions.
fn kind(body: &Value) -> Option<Expr> {
    let var = variable(body.get("left")?)?;
    let of_kind = Expr::of_kind(var, body.get("entity_type")?.as_str()?.to_owned());
    let Some(parent) = body.get("in") else { return Some(of_kind) };
    let fact = entities(parent).map_or(Fact::Other, |parents| membership(var, parents));
    let text = format!("{} in {}", var.name(), render(parent));
    Some(Expr::All(vec![of_kind, Expr::Is(Atom { fact, text })]))
}

fn fact(op: &str, body: &Value) -> Option<Fact> {
    match op {
        "Value" => body.as_bool().map(Fact::Constant),
        "==" => pair(body).and_then(|(one, two)| equal(one, two)),
        "contains" => {
            let (set, one) = pair(body)?;
            Some(Fact::OneOf(term(one)?, texts(set)?))
        }
        "has" => attribute(body.get("left")?, body.get("attr")?.as_str()?).map(Fact::Has),
        "hasTag" => {
            let (left, right) = pair(body)?;
            tag(left, right).map(Fact::Has)
        }
        "in" => {
            let (left, right) = pair(body)?;
            Some(membership(variable(left)?, entities(right)?))
        }
        "like" => {
            let pattern = Pattern::parse(body.get("pattern")?)?;
            Some(Fact::Like(term(body.get("left")?)?, pattern))
        }
        _ => None,
    }
}

fn equal(one: &Value, two: &Value) -> Option<Fact> {
    if let (Some(var), Some(entity)) = (variable(one), entity(two)) {
        return Some(identical(var, entity));
    }
    if let (Some(entity), Some(var)) = (entity(one), variable(two)) {
        return Some(identical(var, entity));
    }
    match (term(one), text(one), term(two), text(two)) {
        (Some(term), _, _, Some(text)) | (_, Some(text), Some(term), _) => {
            Some(Fact::OneOf(term, BTreeSet::from([text])))
        }
        (Some(one), _, Some(two), _) => Some(Fact::Equal(one, two)),
        _ => None,
    }
}

fn identical(var: Var, entity: Entity) -> Fact {
    match var {
        // The principal's entity has the principal's id for its name.
        Var::Principal => Fact::OneOf(Term::Id, BTreeSet::from([entity.id])),
        Var::Resource => Fact::OneOf(Term::Resource, BTreeSet::from([entity.to_string()])),
    }
}

fn membership(var: Var, entities: Vec<Entity>) -> Fact {
    let all = |kind: &str| entities.iter().all(|entity| entity.kind == kind);
    match var {
        Var::Resource => Fact::In(entities),
        Var::Principal if all("Dayfly::Issuer") => {
            Fact::OneOf(Term::Issuer, entities.into_iter().map(|entity| entity.id).collect())
        }
        Var::Principal if all("Dayfly::Claim") => {
            Fact::Member(entities.into_iter().map(|entity| entity.id).collect())
        }
        Var::Principal if all("Dayfly::Workload") || all("Dayfly::Human") => {
            Fact::OneOf(Term::Id, entities.into_iter().map(|entity| entity.id).collect())
        }
        Var::Principal => Fact::Other,
    }
}

fn variable(value: &Value) -> Option<Var> {
    match only(value)? {
        ("Var", name) if name == "principal" => Some(Var::Principal),
        ("Var", name) if name == "resource" => Some(Var::Resource),
        _ => None,
    }
}

fn term(value: &Value) -> Option<Term> {
    match only(value)? {
        (".", body) => attribute(body.get("left")?, body.get("attr")?.as_str()?),
        ("getTag", body) => pair(body).and_then(|(left, right)| tag(left, right)),
        _ => None,
    }
}

fn attribute(of: &Value, name: &str) -> Option<Term> {
    match (variable(of)?, name) {
        (Var::Principal, "id") => Some(Term::Id),
        (Var::Principal, "issuer") => Some(Term::Issuer),
        (Var::Principal, "subject") => Some(Term::Subject),
        (Var::Principal, _) => None,
        (Var::Resource, name) => Some(Term::Field(name.to_owned())),
    }
}

fn tag(of: &Value, name: &Value) -> Option<Term> {
    Some(match variable(of)? {
        Var::Principal => Term::Claim(text(name)?),
        Var::Resource => Term::Label(text(name)?),
    })
}

fn text(value: &Value) -> Option<String> {
    match only(value)? {
        ("Value", Value::String(text)) => Some(text.clone()),
        _ => None,
    }
}

fn texts(value: &Value) -> Option<BTreeSet<String>> {
    match only(value)? {
        ("Set", Value::Array(entries)) => entries.iter().map(text).collect(),
        _ => None,
    }
}

fn entity(value: &Value) -> Option<Entity> {
    let ("Value", literal) = only(value)? else { return None };
    let named = literal.get("__entity")?;
    let part = |key: &str| Some(named.get(key)?.as_str()?.to_owned());
    Some(Entity { kind: part("type")?, id: part("id")? })
}

fn entities(value: &Value) -> Option<Vec<Entity>> {
    match only(value)? {
        ("Set", Value::Array(entries)) => entries.iter().map(entity).collect(),
        _ => entity(value).map(|entity| vec![entity]),
    }
}
