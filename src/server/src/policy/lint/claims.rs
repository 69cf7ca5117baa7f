//! What a `permit` asks of its caller's claims: whether they are of the issuer that is meant, of
//! somebody, of one who stays the same, and of one of their places.
//!
//! Invariant: a `permit` is judged by each way in which it applies. An id beside a name helps
//! only where both must hold.

use std::collections::BTreeSet;

use super::{
    super::ask::Action,
    Finding, Ground, IssuerFacts,
    code::Code,
    expr::{Fact, Var},
    paths::Path,
    rule::Rule,
    source::{Traits, values_have_ids},
};
use crate::identity::{self, Kind};

/// Actions that show nobody more than themselves.
const HARMLESS: [Action; 2] = [Action::ListOwn, Action::Whoami];

pub(super) fn check(rule: &Rule, ground: &Ground<'_>, found: &mut Vec<Finding>) {
    if !rule.permits {
        return;
    }
    for path in rule.open_paths() {
        humans_mint(rule, ground, path, found);
        match path.issuers() {
            None => any_issuer(rule, path, found),
            Some(issuers) => {
                for issuer in issuers {
                    let traits = ground.source(&issuer, path).traits();
                    names(rule, &traits, path, found);
                    places(rule, &traits, path, found);
                }
            }
        }
        for issuer in ground.facts.map(|facts| facts.issuers.as_slice()).unwrap_or_default() {
            open_traps(rule, ground, (issuer, path), found);
        }
    }
}

fn any_issuer(rule: &Rule, path: &Path, found: &mut Vec<Finding>) {
    let harmless = rule.actions.iter().all(|action| HARMLESS.contains(action));
    if path.names_principal() || (harmless && path.claims().is_empty()) {
        return;
    }
    let asked: Vec<_> = path.claims().into_iter().collect();
    let about = if asked.is_empty() { "principal".to_owned() } else { asked.join(", ") };
    let why = "every issuer that is trusted, now or later, can say the same of its own callers";
    let mend = "name the issuer: `principal is Dayfly::Workload in Dayfly::Issuer::\"…\"`";
    found.push(rule.finding(Code::AnyIssuer, about, why, mend));
}

/// Names without the ids that stay.
fn names(rule: &Rule, traits: &Traits, path: &Path, found: &mut Vec<Finding>) {
    for (claim, atom) in path.of_claims() {
        let Some(naming) = traits.naming(claim) else { continue };
        let trap = traits.trap("recycled-names");
        let why = trap.unwrap_or("a name can be another's later").to_owned();
        let Some(pin) = naming.pins.first() else {
            let mend = "see that nobody else can get this name, since there is no id to pin";
            found.push(rule.finding(Code::OnlyNames, atom.text.clone(), why, mend));
            continue;
        };
        let pinned = naming.pins.iter().any(|pin| pin.iter().all(|id| path.pins(id)));
        if pinned || values_have_ids(naming, atom) {
            continue;
        }
        let first = pin.first().copied().unwrap_or_default();
        let ids: Vec<String> = pin.iter().map(|id| format!("`{id}`")).collect();
        let mend = format!(
            "ask beside it for {}: `principal.hasTag(\"{first}\") && \
             principal.getTag(\"{first}\") == \"…\"`",
            ids.join(" and ")
        );
        found.push(rule.finding(Code::UnpinnedName, atom.text.clone(), why, mend));
    }
}

/// Whose it is, and from where.
fn places(rule: &Rule, traits: &Traits, path: &Path, found: &mut Vec<Finding>) {
    let named = traits.names.iter().map(|naming| naming.claim);
    let mut whose = traits.ids.iter().copied().chain(named).chain(["sub"]);
    let is_somebodys = path.names_principal() || whose.any(|claim| path.fixes(claim));
    if let (Some(anybody), false) = (traits.trap("anybody"), is_somebodys) {
        let mend = match traits.ids.first() {
            Some(id) => format!("ask for `{id}`"),
            None => "ask for the subject".to_owned(),
        };
        found.push(rule.finding(Code::Anybody, "principal", anybody, mend));
        return;
    }
    let placed = path.names_principal() || traits.places.iter().any(|claim| path.fixes(claim));
    if placed || traits.places.is_empty() || !rule.permits(Action::Mint) {
        return;
    }
    let places: Vec<String> = traits.places.iter().map(|claim| format!("`{claim}`")).collect();
    let why = format!(
        "it fixes nothing of {} that says which branch, environment or account it is: every one of \
         them may mint",
        traits.title
    );
    let mend = format!("ask for one of {}", places.join(", "));
    found.push(rule.finding(Code::MissingEnvironment, "principal", why, mend));
}

/// Minting by whoever comes, a person or a program.
fn humans_mint(rule: &Rule, ground: &Ground<'_>, path: &Path, found: &mut Vec<Finding>) {
    let says = path.held().any(|atom| matches!(atom.fact, Fact::Kind(Var::Principal, _)));
    let programs = |issuers: BTreeSet<String>| {
        let kind = |name: &String| ground.issuer(name).map(|issuer| issuer.kind);
        issuers.iter().all(|name| kind(name) == Some(Kind::Workload))
    };
    let known = says || path.names_principal() || path.issuers().is_some_and(programs);
    if known || !rule.permits(Action::Mint) {
        return;
    }
    let why = "people who sign in can mint by it as well, and their credentials end with no job";
    let mend = "say `principal is Dayfly::Workload`, or `Dayfly::Human` if people are meant";
    found.push(rule.finding(Code::HumansMint, "principal", why, mend));
}

/// Traps whose tokens an issuer lets in, and at which nobody looks.
fn open_traps(
    rule: &Rule,
    ground: &Ground<'_>,
    (issuer, path): (&IssuerFacts, &Path),
    found: &mut Vec<Finding>,
) {
    let admitted = path.issuers().is_none_or(|issuers| issuers.contains(&issuer.name));
    // A token opens a task before it can mint.
    let opens = [Action::Mint, Action::OpenTask].into_iter().find(|action| rule.permits(*action));
    let (true, Some(action)) = (admitted, opens) else { return };
    let traits = issuer.source.traits();
    let let_in = |trap: &&identity::Trap| issuer.allow_traps.iter().any(|name| name == trap.name);
    for trap in traits.traps.iter().filter(let_in) {
        let claims = trap.rule.map(identity::Rule::claims).unwrap_or_default();
        let looks = |path: &Path| claims.iter().any(|claim| path.mentions(claim));
        let guards = |other: &Rule| {
            let asked = other.forbids(action) || other.forbids(Action::OpenTask);
            let of_issuer = |path: &Path| {
                let issuers = path.issuers();
                issuers.is_none_or(|issuers| issuers.contains(&issuer.name))
            };
            asked && other.open_paths().any(|path| of_issuer(path) && looks(path))
        };
        if claims.is_empty() || looks(path) || ground.rules.iter().any(guards) {
            continue;
        }
        let why = format!("issuer `{}` lets its tokens in: {}", issuer.name, trap.text);
        let mend = format!(
            "ask for `{}` here or in a `forbid`, or take `{}` out of `allow_traps`",
            claims.join("` and `"),
            trap.name
        );
        found.push(rule.finding(Code::OpenTrap, trap.name, why, mend));
    }
}
