//! What the configuration and the rules say of each other: `unreachable-role`, `unknown-name`
//! and `missing-audience`.
//!
//! Invariant: a role is called unreachable only if no `permit` to mint can apply to it whatever
//! the caller and the circumstances are, or a `forbid` applies to it whatever they are.

use std::collections::BTreeSet;

use super::{
    super::{RoleFacts, ask::Action, load},
    Facts, Finding, Ground, IssuerFacts, Source,
    code::Code,
    expr::{Entity, Fact, Term, Var},
    paths::{Literal, Path},
    rule::Rule,
};

pub(super) fn check(ground: &Ground<'_>, found: &mut Vec<Finding>) {
    let Some(facts) = ground.facts else { return };
    for rule in ground.rules {
        unknown_names(rule, facts, found);
    }
    for role in &facts.roles {
        found.extend(unreachable(ground.rules, facts, role));
    }
    for issuer in &facts.issuers {
        found.extend(audience(issuer, facts));
    }
}

fn finding(facts: &Facts, code: Code, about: String, why: String, mend: &str) -> Finding {
    let (file, mend) = (facts.file.clone(), mend.to_owned());
    Finding { file, line: None, code, rule: None, about, why, mend }
}

/// Names in comparisons. Roles and backends that a rule writes as entities are held against the
/// configuration when the rules are loaded.
fn unknown_names(rule: &Rule, facts: &Facts, found: &mut Vec<Finding>) {
    let issuers: BTreeSet<&str> = facts.issuers.iter().map(|it| it.name.as_str()).collect();
    let roles: BTreeSet<&str> = facts.roles.iter().map(|it| it.name.as_str()).collect();
    let backends: BTreeSet<&str> = facts.roles.iter().map(|it| it.backend.as_str()).collect();
    for (_, atom) in rule.atoms() {
        let Fact::OneOf(term, values) = &atom.fact else { continue };
        let (what, known) = match term {
            Term::Issuer => ("issuer", &issuers),
            Term::Field(name) if name == "backend" => ("backend with a role", &backends),
            Term::Field(name) if name == "role" || is_role_name(rule, name) => ("role", &roles),
            Term::Claim(_)
            | Term::Field(_)
            | Term::Id
            | Term::Label(_)
            | Term::Resource
            | Term::Subject => continue,
        };
        for value in values.iter().filter(|value| !known.contains(value.as_str())) {
            let hint = load::hint(known, value);
            let why = format!("no {what} is named `{}`{hint}", value.escape_debug());
            let mend = "write the name as it is in the configuration";
            found.push(rule.finding(Code::UnknownName, atom.text.clone(), why, mend));
        }
    }
}

/// Only roles have a `name`, and only they are minted.
fn is_role_name(rule: &Rule, attribute: &str) -> bool {
    attribute == "name" && rule.actions.contains(&Action::Mint)
}

fn unreachable(rules: &[Rule], facts: &Facts, role: &RoleFacts) -> Option<Finding> {
    let forbids = rules.iter().filter(|rule| rule.forbids(Action::Mint));
    let mut forbids = forbids.filter(|rule| rule.open_paths().any(|path| must(path, facts, role)));
    // A rule that was not taken apart may permit anything.
    let reaches =
        |rule: &Rule| rule.paths.is_none() || rule.open_paths().any(|path| may(path, facts, role));
    let why = if let Some(rule) = forbids.next() {
        format!("`{}` forbids every mint of it", rule.id)
    } else if rules.iter().filter(|rule| rule.permits(Action::Mint)).any(reaches) {
        return None;
    } else {
        "no `permit` to mint can apply to it".to_owned()
    };
    let mend = "write a rule for it, or take the role out of the configuration";
    Some(finding(facts, Code::UnreachableRole, format!("role `{}`", role.name), why, mend))
}

fn may(path: &Path, facts: &Facts, role: &RoleFacts) -> bool {
    path.literals().iter().all(|literal| holds(literal, facts, role) != Some(false))
}

fn must(path: &Path, facts: &Facts, role: &RoleFacts) -> bool {
    path.literals().iter().all(|literal| holds(literal, facts, role) == Some(true))
}

/// Whether a condition holds when `role` is to be minted; `None` if that depends on the caller
/// or the circumstances.
fn holds(literal: &Literal, facts: &Facts, role: &RoleFacts) -> Option<bool> {
    let is = match &literal.atom.fact {
        Fact::Constant(value) => *value,
        Fact::Has(Term::Field(name)) => value(role, name).is_some(),
        Fact::Has(Term::Label(name)) => role.labels.contains_key(name),
        Fact::In(entities) => entities.iter().any(|entity| is_above(entity, role)),
        Fact::Kind(Var::Resource, kind) => kind == "Dayfly::Role",
        Fact::Like(term, pattern) => pattern.matches(&value_of(role, term)?),
        Fact::OneOf(Term::Issuer, names) => {
            let known = |name: &String| facts.issuers.iter().any(|issuer| issuer.name == *name);
            // Of several issuers nobody knows which one the caller is of.
            return if names.iter().any(known) { None } else { Some(!literal.holds) };
        }
        Fact::OneOf(term, values) => values.contains(&value_of(role, term)?),
        Fact::Equal(..)
        | Fact::Has(_)
        | Fact::Kind(Var::Principal, _)
        | Fact::Member(_)
        | Fact::Other => return None,
    };
    Some(is == literal.holds)
}

fn is_above(entity: &Entity, role: &RoleFacts) -> bool {
    match entity.kind.as_str() {
        "Dayfly::Role" => entity.id == role.name,
        "Dayfly::Backend" => entity.id == role.backend,
        _ => false,
    }
}

/// What a condition on the resource compares; `None` for what is not the role's.
fn value_of(role: &RoleFacts, term: &Term) -> Option<String> {
    match term {
        Term::Field(name) => Some(value(role, name).unwrap_or_default().to_owned()),
        Term::Label(name) => Some(role.labels.get(name).cloned().unwrap_or_default()),
        Term::Resource => {
            let role = Entity { kind: "Dayfly::Role".to_owned(), id: role.name.clone() };
            Some(role.to_string())
        }
        Term::Claim(_) | Term::Id | Term::Issuer | Term::Subject => None,
    }
}

fn value<'a>(role: &'a RoleFacts, attribute: &str) -> Option<&'a str> {
    match attribute {
        "backend" => Some(&role.backend),
        "name" => Some(&role.name),
        "owner" => Some(&role.owner),
        "environment" | "risk" => role.labels.get(attribute).map(String::as_str),
        _ => None,
    }
}

/// An audience that others have as well: whoever is given a token for them can bring it here.
fn audience(issuer: &IssuerFacts, facts: &Facts) -> Option<Finding> {
    let preset = match issuer.source {
        Source::Preset(platform) => Some(platform.preset()),
        Source::Aws | Source::Other | Source::Spiffe => None,
    };
    let shared = |audience: &&String| {
        let own_url = !issuer.url.is_empty()
            && audience.trim_end_matches('/') == issuer.url.trim_end_matches('/');
        own_url || audience.is_empty() || preset.is_some_and(|it| it.shares_audience(audience))
    };
    let audience = issuer.audiences.iter().find(shared)?;
    let about = format!("issuer `{}`: audience `{audience}`", issuer.name);
    let why = "tokens for it are given to other services too, and whoever gets one can use it here";
    let mend = "take an audience that is ours alone, for example our public URL";
    Some(finding(facts, Code::MissingAudience, about, why.to_owned(), mend))
}
