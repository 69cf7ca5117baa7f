//! A condition in disjunctive form: the ways in which it can be true.
//!
//! Invariant: the ways are all of them, or there is no answer. Past the bound nothing is guessed
//! from a part of them.

use std::collections::BTreeSet;

use super::expr::{Atom, Expr, Fact, Term};

/// The most ways that are looked at.
pub(super) const PATHS_MAX: usize = 256;
/// The most conditions in all of them together.
const LITERALS_MAX: usize = 20_000;

/// An atom that must hold, or must not.
#[derive(Clone, Debug)]
pub(super) struct Literal {
    pub(super) holds: bool,
    pub(super) atom: Atom,
}

/// One way to be true: all of these together.
#[derive(Clone, Debug, Default)]
pub(super) struct Path(Vec<Literal>);

/// All ways in which `expr` can be true, also those that contradict themselves; `None` past the
/// bound.
pub(super) fn paths(expr: &Expr) -> Option<Vec<Path>> {
    ways(expr, true)
}

fn ways(expr: &Expr, holds: bool) -> Option<Vec<Path>> {
    match (expr, holds) {
        (Expr::Is(atom), _) => Some(vec![Path(vec![Literal { holds, atom: atom.clone() }])]),
        (Expr::Not(inner), _) => ways(inner, !holds),
        (Expr::All(parts), true) | (Expr::Any(parts), false) => product(parts, holds),
        (Expr::All(parts), false) | (Expr::Any(parts), true) => sum(parts, holds),
    }
}

fn sum(parts: &[Expr], holds: bool) -> Option<Vec<Path>> {
    let mut all = Vec::new();
    for part in parts {
        all.extend(ways(part, holds)?);
        if !within_bounds(&all) {
            return None;
        }
    }
    Some(all)
}

fn product(parts: &[Expr], holds: bool) -> Option<Vec<Path>> {
    let mut all = vec![Path::default()];
    for part in parts {
        let ways = ways(part, holds)?;
        if let [only] = ways.as_slice() {
            for path in &mut all {
                path.0.extend_from_slice(&only.0);
            }
        } else {
            if all.len().saturating_mul(ways.len()) > PATHS_MAX {
                return None;
            }
            let both = |one: &Path, two: &Path| Path([one.0.as_slice(), two.0.as_slice()].concat());
            all = all.iter().flat_map(|one| ways.iter().map(move |two| both(one, two))).collect();
        }
        if !within_bounds(&all) {
            return None;
        }
    }
    Some(all)
}

fn within_bounds(paths: &[Path]) -> bool {
    let literals: usize = paths.iter().map(|path| path.0.len()).sum();
    paths.len() <= PATHS_MAX && literals <= LITERALS_MAX
}

impl Path {
    /// Its conditions.
    pub(super) fn literals(&self) -> &[Literal] {
        &self.0
    }

    /// What must hold of what a claim says.
    pub(super) fn of_claims(&self) -> impl Iterator<Item = (&str, &Atom)> {
        self.held().filter_map(|atom| match &atom.fact {
            Fact::Like(term, _) | Fact::OneOf(term, _) => Some((term.claim()?, atom)),
            Fact::Constant(_)
            | Fact::Equal(..)
            | Fact::Has(_)
            | Fact::In(_)
            | Fact::Kind(..)
            | Fact::Member(_)
            | Fact::Other => None,
        })
    }

    /// The claims that it speaks of, whatever it says of them.
    pub(super) fn claims(&self) -> BTreeSet<&str> {
        self.0.iter().flat_map(|literal| literal.atom.fact.claims()).collect()
    }

    /// Whether it fixes a claim to values that are written out.
    pub(super) fn pins(&self, claim: &str) -> bool {
        self.of_claims().filter(|(name, _)| *name == claim).any(|(_, atom)| atom.fact.is_exact())
    }

    /// Whether it asks a claim for a value, a pattern or an entry.
    pub(super) fn fixes(&self, claim: &str) -> bool {
        let entry = |entry: &String| entry.split_once('=').is_some_and(|(name, _)| name == claim);
        let entries = self
            .held()
            .any(|atom| matches!(&atom.fact, Fact::Member(entries) if entries.iter().all(entry)));
        entries || self.of_claims().any(|(name, _)| name == claim)
    }

    /// Whether it speaks of a claim, whatever it says.
    pub(super) fn mentions(&self, claim: &str) -> bool {
        self.claims().contains(claim)
    }

    /// The issuers that it admits; `None` if it admits all.
    pub(super) fn issuers(&self) -> Option<BTreeSet<String>> {
        let sets = self.held().filter_map(|atom| match &atom.fact {
            Fact::OneOf(Term::Issuer, names) => Some(names.clone()),
            // A principal's id begins with its issuer.
            Fact::OneOf(Term::Id, ids) => {
                let issuer = |id: &String| id.split_once('|').map(|(issuer, _)| issuer.to_owned());
                ids.iter().map(issuer).collect()
            }
            Fact::Constant(_)
            | Fact::Equal(..)
            | Fact::Has(_)
            | Fact::In(_)
            | Fact::Kind(..)
            | Fact::Like(..)
            | Fact::Member(_)
            | Fact::OneOf(..)
            | Fact::Other => None,
        });
        sets.reduce(|one, two| one.intersection(&two).cloned().collect())
    }

    /// Whether it names the principal itself, or asks it to be the one that something else
    /// names (the owner of a lease).
    pub(super) fn names_principal(&self) -> bool {
        self.held().any(|atom| match &atom.fact {
            Fact::OneOf(term, _) => *term == Term::Id,
            Fact::Equal(one, two) => *one == Term::Id || *two == Term::Id,
            Fact::Constant(_)
            | Fact::Has(_)
            | Fact::In(_)
            | Fact::Kind(..)
            | Fact::Like(..)
            | Fact::Member(_)
            | Fact::Other => false,
        })
    }

    /// The atoms that must hold.
    pub(super) fn held(&self) -> impl Iterator<Item = &Atom> {
        self.0.iter().filter(|literal| literal.holds).map(|literal| &literal.atom)
    }

    /// Conditions of it that never hold together, if it has such.
    pub(super) fn contradiction(&self) -> Option<String> {
        self.never().or_else(|| self.apart()).or_else(|| self.opposed())
    }

    /// Values of one term that are asked for together and cannot be. Other contradictions may
    /// come of taking a rule apart: `a unless { a && b }` has the alternative `a && !a`.
    pub(super) fn clash(&self) -> Option<String> {
        let mut asked = self.terms().into_iter().filter_map(|term| self.asked(term));
        asked.find(|(left, _)| left.is_empty()).map(|(_, texts)| texts.join(" && "))
    }

    /// A constant that is the wrong one.
    fn never(&self) -> Option<String> {
        let wrong =
            |one: &&Literal| matches!(one.atom.fact, Fact::Constant(value) if value != one.holds);
        self.0.iter().find(wrong).map(Literal::text)
    }

    /// A condition and its opposite.
    fn opposed(&self) -> Option<String> {
        let texts = |holds: bool| {
            let such = self.0.iter().filter(move |one| one.holds == holds);
            such.map(|one| one.atom.text.as_str()).collect::<BTreeSet<_>>()
        };
        let (yes, no) = (texts(true), texts(false));
        yes.intersection(&no).next().map(|text| format!("{text} && !({text})"))
    }

    /// Conditions on one term that no value fulfils.
    pub(super) fn apart(&self) -> Option<String> {
        self.terms().into_iter().find_map(|term| {
            let (mut left, mut texts) = self.asked(term)?;
            for literal in &self.0 {
                let before = left.len();
                left.retain(|value| literal.admits(term, value));
                if left.len() < before {
                    texts.push(literal.text());
                }
            }
            left.is_empty().then(|| texts.join(" && "))
        })
    }

    /// The terms that are asked for values.
    fn terms(&self) -> BTreeSet<&Term> {
        self.held().filter_map(|atom| atom.fact.valued()).collect()
    }

    /// The values that all of its conditions on `term` name, and the conditions.
    fn asked(&self, term: &Term) -> Option<(BTreeSet<&str>, Vec<String>)> {
        let mut left: Option<BTreeSet<&str>> = None;
        let mut texts = Vec::new();
        for atom in self.held() {
            let Fact::OneOf(of, values) = &atom.fact else { continue };
            if of != term {
                continue;
            }
            let values = values.iter().map(String::as_str);
            left = Some(match left {
                None => values.collect(),
                Some(left) => values.filter(|value| left.contains(value)).collect(),
            });
            texts.push(atom.text.clone());
        }
        left.map(|left| (left, texts))
    }
}

impl Literal {
    fn text(&self) -> String {
        let text = &self.atom.text;
        if self.holds { text.clone() } else { format!("!({text})") }
    }

    /// Whether `term` may have `value` if this holds.
    fn admits(&self, term: &Term, value: &str) -> bool {
        match &self.atom.fact {
            Fact::OneOf(of, values) if of == term => values.contains(value) == self.holds,
            Fact::Like(of, pattern) if of == term => pattern.matches(value) == self.holds,
            Fact::Constant(_)
            | Fact::Equal(..)
            | Fact::Has(_)
            | Fact::In(_)
            | Fact::Kind(..)
            | Fact::Like(..)
            | Fact::Member(_)
            | Fact::OneOf(..)
            | Fact::Other => true,
        }
    }
}

impl Fact {
    /// The term whose values are written out, if that is what it says.
    fn valued(&self) -> Option<&Term> {
        match self {
            Self::OneOf(term, _) => Some(term),
            Self::Constant(_)
            | Self::Equal(..)
            | Self::Has(_)
            | Self::In(_)
            | Self::Kind(..)
            | Self::Like(..)
            | Self::Member(_)
            | Self::Other => None,
        }
    }

    /// Whether it leaves no wildcard open.
    fn is_exact(&self) -> bool {
        match self {
            Self::OneOf(..) => true,
            Self::Like(_, pattern) => pattern.exact().is_some(),
            Self::Constant(_)
            | Self::Equal(..)
            | Self::Has(_)
            | Self::In(_)
            | Self::Kind(..)
            | Self::Member(_)
            | Self::Other => false,
        }
    }

    /// The claims that it speaks of.
    pub(super) fn claims(&self) -> Vec<&str> {
        match self {
            Self::Equal(one, two) => [one, two].into_iter().filter_map(Term::claim).collect(),
            Self::Has(term) | Self::Like(term, _) | Self::OneOf(term, _) => {
                term.claim().into_iter().collect()
            }
            Self::Member(entries) => {
                entries.iter().filter_map(|entry| Some(entry.split_once('=')?.0)).collect()
            }
            Self::Constant(_) | Self::In(_) | Self::Kind(..) | Self::Other => Vec::new(),
        }
    }
}
