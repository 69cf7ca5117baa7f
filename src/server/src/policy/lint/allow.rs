//! `@allow("lint")` and `@allow_reason("why")` on a rule.
//!
//! Invariant: what is allowed is allowed for one rule and one lint, with a reason, and no longer
//! than it is found. What speaks of `@allow` itself cannot be allowed.

use super::{Finding, Ground, code::Code, rule::Rule};

/// Takes out what is allowed, and adds what is wrong with the allowing.
pub(super) fn apply(ground: &Ground<'_>, found: &mut Vec<Finding>) {
    let mut wrong = Vec::new();
    for rule in ground.rules.iter().filter(|rule| !rule.allows.is_empty()) {
        if !rule.has_reason {
            wrong.push(rule.finding(
                Code::AllowWithoutReason,
                "@allow",
                "nobody can tell later whether it may go",
                "say in `@allow_reason(\"…\")` why it is meant",
            ));
        }
        for name in &rule.allows {
            wrong.extend(one(ground, rule, name, found));
        }
    }
    found.extend(wrong);
}

/// One name of an `@allow`.
fn one(ground: &Ground<'_>, rule: &Rule, name: &str, found: &mut Vec<Finding>) -> Option<Finding> {
    let about = format!("@allow(\"{}\")", name.escape_debug());
    let Some(code) = Code::named(name) else {
        let why = "no lint has this name";
        let mend = "take one of those in docs/policies.md";
        return Some(rule.finding(Code::AllowWithoutReason, about, why, mend));
    };
    let before = found.len();
    found.retain(|finding| finding.code != code || finding.rule.as_ref() != Some(&rule.id));
    // What was not looked for is not known to be gone.
    let gone = found.len() == before && ground.has(code.needs()) && rule.paths.is_some();
    gone.then(|| {
        let why = "it is not found in this rule any more";
        rule.finding(Code::UnusedAllow, about, why, "take it out, before it hides something else")
    })
}
