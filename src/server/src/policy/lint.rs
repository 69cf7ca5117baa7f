//! `policy lint`: rules that are valid, and say something else than was meant.
//!
//! Cedar's validator refuses what cannot be evaluated, and the cases of `policy test` show what
//! somebody thought of. The lints look for what nobody thought of: a name that another can have
//! later, a pattern that takes in more than it shows, a role that nobody reaches.
//!
//! Invariant: a lint concludes only from what it understands. What it does not (other
//! expressions, more alternatives than are looked at) is taken as a condition that may hold or
//! not, and where that leaves a lint out, a finding says so.

mod allow;
mod claims;
mod code;
mod expr;
mod finding;
mod logic;
mod paths;
mod pattern;
mod reach;
mod rule;
mod source;
mod used;
mod wide;

#[cfg(test)]
mod tests;

use std::path::Path;

use self::{code::Needs, paths::PATHS_MAX, rule::Rule};
pub use self::{
    code::{Code, Severity},
    finding::{Finding, Report},
    source::{IssuerFacts, Source},
    used::{Span, UsedError, Uses},
};
use super::{PolicyFault, RoleFacts, load, request::Vocabulary};

/// What the configuration says. Without it, rules are looked at by themselves.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The configuration, as findings in it name it.
    pub file: String,
    /// Every issuer, trust domain and set of AWS accounts.
    pub issuers: Vec<IssuerFacts>,
    /// Every role.
    pub roles: Vec<RoleFacts>,
}

/// What every lint is given.
#[derive(Clone, Copy, Debug)]
struct Ground<'a> {
    rules: &'a [Rule],
    facts: Option<&'a Facts>,
    uses: Option<&'a Uses>,
}

/// Looks at all `*.cedar` files of a directory.
///
/// # Errors
/// Everything because of which the rules would not be loaded.
pub fn lint(
    dir: &Path,
    facts: Option<&Facts>,
    uses: Option<&Uses>,
) -> Result<Report, Vec<PolicyFault>> {
    lint_texts(&load::read(dir)?, facts, uses)
}

/// Looks at rules from memory: pairs of file name and text.
///
/// # Errors
/// As [`lint`].
pub fn lint_texts(
    files: &[(String, String)],
    facts: Option<&Facts>,
    uses: Option<&Uses>,
) -> Result<Report, Vec<PolicyFault>> {
    let broken = |message: String| vec![PolicyFault::new("(built in)", None, message)];
    let vocabulary = Vocabulary::built_in().map_err(broken)?;
    let roles = facts.map(|facts| facts.roles.as_slice());
    let checked = load::check(files, roles, vocabulary)?;
    let placed = checked.policies.iter().zip(&checked.places);
    let own = placed.filter(|(_, (file, _))| file != load::BASE_FILE);
    let rules: Vec<Rule> = own.map(|(policy, place)| Rule::read(policy, place)).collect();
    let ground = Ground { rules: &rules, facts, uses };
    let mut found = Vec::new();
    for rule in &rules {
        too_complex(rule, &mut found);
        claims::check(rule, &ground, &mut found);
        wide::check(rule, &mut found);
        logic::never_true(rule, &mut found);
    }
    logic::shadowed(&rules, &mut found);
    reach::check(&ground, &mut found);
    used::check(&ground, &mut found);
    // One thing may be found on several paths.
    found.sort();
    found.dedup_by(|one, two| {
        (&one.rule, one.code, &one.about) == (&two.rule, two.code, &two.about)
    });
    allow::apply(&ground, &mut found);
    found.sort();
    let used = uses.map(|uses| uses.span);
    Ok(Report { findings: found, rules: rules.len(), policy_hash: checked.hash, used })
}

/// In Markdown: the lints, and what is known of names and places on each platform.
pub fn table() -> String {
    format!("{}\n{}", code::table(), source::table())
}

fn too_complex(rule: &Rule, found: &mut Vec<Finding>) {
    if rule.paths.is_none() {
        found.push(rule.finding(
            Code::TooComplex,
            "the whole rule",
            format!("it has more than {PATHS_MAX} alternatives, or is very long"),
            "make several rules of it",
        ));
    }
}

impl Ground<'_> {
    /// Whether what a lint asks for was given.
    fn has(&self, needs: Needs) -> bool {
        match needs {
            Needs::Config => self.facts.is_some(),
            Needs::Rules => true,
            Needs::Used => self.uses.is_some(),
        }
    }

    /// An issuer of the configuration.
    fn issuer(&self, name: &str) -> Option<&IssuerFacts> {
        self.facts?.issuers.iter().find(|issuer| issuer.name == name)
    }

    /// Whose callers those of an issuer are, on this path of a rule.
    fn source(&self, issuer: &str, path: &paths::Path) -> Source {
        match self.facts {
            Some(_) => self.issuer(issuer).map_or(Source::Other, |issuer| issuer.source),
            None => Source::guess(issuer, path),
        }
    }
}
