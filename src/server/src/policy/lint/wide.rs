//! Patterns on claims: `wide-pattern` and `open-pattern`.
//!
//! Invariant: only patterns that let somebody in are looked at: those that must match for a
//! `permit` to apply, and those that must not match for a `forbid` to apply. A `forbid` cannot
//! be too wide.

use super::{
    Finding,
    code::Code,
    expr::{Fact, Term},
    pattern::Width,
    rule::Rule,
};

pub(super) fn check(rule: &Rule, found: &mut Vec<Finding>) {
    for (holds, atom) in rule.atoms() {
        let Fact::Like(term, pattern) = &atom.fact else { continue };
        if holds != rule.permits {
            continue;
        }
        let claim = match term {
            Term::Claim(_) | Term::Subject => term.claim(),
            Term::Id => None,
            Term::Field(_) | Term::Issuer | Term::Label(_) | Term::Resource => continue,
        };
        let Some(width) = pattern.width(claim) else { continue };
        let (code, why, mend) = match width {
            Width::Exact => continue,
            Width::Open => (
                Code::OpenPattern,
                "whoever may push gives branches and tags their names",
                "see that what it matches is protected, or ask for the one name with `==`",
            ),
            Width::Unanchored => (
                Code::WidePattern,
                "`*` takes everything before what follows it, so the beginning, which says whose it \
                 is, may be anybody's",
                "compare the whole with `==`, or ask for each part by a claim of its own",
            ),
            Width::Across => (
                Code::WidePattern,
                "`*` matches `/` and `:` too, so it takes as many segments as it likes, those behind \
                 which another says something else among them",
                "compare with `==`, or ask for each segment by a claim of its own",
            ),
            Width::Begun => (
                Code::WidePattern,
                "`*` ends a name that others can begin alike: `acme*` is `acme-evil` too",
                "compare with `==`",
            ),
        };
        found.push(rule.finding(code, atom.text.clone(), why, mend));
    }
}
