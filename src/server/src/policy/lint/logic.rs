//! What is wrong with a rule by logic alone: `never-true` and `shadowed-rule`.
//!
//! Invariant: two conditions are the same only if their texts are. That finds less than there
//! is, and nothing that is not.

use std::collections::{BTreeSet, HashMap};

use super::{Finding, code::Code, paths::Path, rule::Rule};

/// Conditions that contradict each other.
pub(super) fn never_true(rule: &Rule, found: &mut Vec<Finding>) {
    let Some(paths) = &rule.paths else { return };
    let mend = "take out what was not meant";
    if paths.iter().all(|path| path.contradiction().is_some()) {
        let clash = paths.iter().find_map(Path::clash);
        let clash = clash.or_else(|| paths.iter().find_map(Path::apart));
        let clash = clash.or_else(|| paths.iter().find_map(Path::contradiction));
        let nothing = if rule.permits { "it permits nothing" } else { "it forbids nothing" };
        let why = format!("these never hold together, so {nothing}");
        found.push(rule.finding(Code::NeverTrue, clash.unwrap_or_default(), why, mend));
        return;
    }
    for clash in paths.iter().filter_map(Path::clash) {
        let why = "these never hold together, so one of its alternatives does nothing";
        found.push(rule.finding(Code::NeverTrue, clash, why, mend));
    }
}

/// Rules that another one of their effect says already.
pub(super) fn shadowed(rules: &[Rule], found: &mut Vec<Finding>) {
    let texts: Vec<BTreeSet<String>> = rules
        .iter()
        .map(|rule| rule.conditions.iter().map(|condition| format!("{condition:?}")).collect())
        .collect();
    let mut counts: HashMap<&String, usize> = HashMap::new();
    for text in texts.iter().flatten() {
        let count = counts.entry(text).or_default();
        *count = count.saturating_add(1);
    }
    // Each rule under its rarest condition: whoever is shadowed by it has that one too, so that
    // not every rule is held against every other.
    let mut by_rarest: HashMap<Option<&String>, Vec<usize>> = HashMap::new();
    for (index, own) in texts.iter().enumerate() {
        let rarest = own.iter().min_by_key(|text| counts.get(*text));
        by_rarest.entry(rarest).or_default().push(index);
    }
    for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.paths.is_some()) {
        let Some(own) = texts.get(index) else { continue };
        let keys = own.iter().map(Some).chain([None]);
        let near = keys.filter_map(|key| by_rarest.get(&key)).flatten().copied();
        let broader = near.filter(|other| *other != index).find_map(|other| {
            let (wide, theirs) = (rules.get(other)?, texts.get(other)?);
            let alike = wide.paths.is_some()
                && wide.permits == rule.permits
                && theirs.is_subset(own)
                && wide.actions.is_superset(&rule.actions);
            // Of two that say the same, the later one is too many.
            let same = theirs.len() == own.len() && wide.actions == rule.actions;
            (alike && (!same || other < index)).then_some(wide)
        });
        if let Some(broader) = broader {
            let why = format!("`{}` has no condition that this has not", broader.id);
            let mend = "take one of the two out";
            found.push(rule.finding(Code::ShadowedRule, "the whole rule", why, mend));
        }
    }
}
