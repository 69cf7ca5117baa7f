//! Patterns of `like`, and what their wildcards let in.
//!
//! Invariant: a wildcard matches any text, `/` and `:` too, as it does in Cedar.

use std::fmt;

use serde_json::Value;

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// The texts between its wildcards; one more than there are wildcards.
    parts: Vec<String>,
}

/// How wide a pattern is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// It has no wildcard.
    Exact,
    /// Whoever may push gives branches and tags their names, and so chooses what it matches.
    Open,
    /// It begins with a wildcard.
    Unanchored,
    /// A wildcard stands where several segments can be.
    Across,
    /// Its wildcard ends a segment that others can begin alike.
    Begun,
}

/// Claims that name what was checked out: whoever may push chooses how it ends.
const REFS: [&str; 8] = [
    "branchName",
    "build_branch",
    "build_tag",
    "head_ref",
    "oidc.circleci.com/vcs-ref",
    "ref",
    "ref_path",
    "rpo_ref",
];
/// Claims with segments, also where a pattern shows none.
const SEGMENTED: [&str; 10] = [
    "arn",
    "job_workflow_ref",
    "namespace_path",
    "oidc.circleci.com/vcs-origin",
    "project_path",
    "repository",
    "sub",
    "workflow_ref",
    "xms_az_rid",
    "xms_mirid",
];
const SEPARATORS: [char; 2] = ['/', ':'];

impl Pattern {
    /// Reads Cedar's JSON form: wildcards, and characters between them.
    pub(super) fn parse(value: &Value) -> Option<Self> {
        let mut parts = Vec::new();
        let mut part = String::new();
        for element in value.as_array()? {
            match element.get("Literal").and_then(Value::as_str) {
                Some(text) => part.push_str(text),
                None => parts.push(std::mem::take(&mut part)),
            }
        }
        parts.push(part);
        Some(Self { parts })
    }

    /// The one text that it matches, if it has no wildcard.
    pub(super) fn exact(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// How wide it is for a claim, or for a part of the principal that is none.
    pub(super) fn width(&self, claim: Option<&str>) -> Option<Width> {
        let [first, middle @ .., last] = self.parts.as_slice() else { return Some(Width::Exact) };
        let is = |names: &[&str]| claim.is_some_and(|claim| names.contains(&claim));
        let segmented = self.parts.iter().any(|part| part.contains(SEPARATORS));
        if !segmented && !is(&SEGMENTED) && !is(&REFS) {
            return None;
        }
        if first.is_empty() {
            return Some(Width::Unanchored);
        }
        if !last.is_empty() || !middle.iter().all(String::is_empty) {
            return Some(Width::Across);
        }
        // `refs/*` has pull requests in it; behind `refs/heads/` only branches are.
        let kinds = ["refs/heads/", "refs/tags/"];
        let of_refs = first.starts_with("refs/") || "refs/".starts_with(first.as_str());
        if is(&REFS) && (!of_refs || kinds.iter().any(|kind| first.starts_with(kind))) {
            return Some(Width::Open);
        }
        Some(if first.ends_with(SEPARATORS) { Width::Across } else { Width::Begun })
    }

    /// Whether `text` matches.
    pub(super) fn matches(&self, text: &str) -> bool {
        let [first, middle @ .., last] = self.parts.as_slice() else {
            return self.exact() == Some(text);
        };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
        for part in middle {
            let Some((_, after)) = rest.split_once(part.as_str()) else { return false };
            rest = after;
        }
        rest.ends_with(last.as_str())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.parts.iter().enumerate() {
            let star = if index == 0 { "" } else { "*" };
            write!(f, "{star}{}", part.escape_debug().to_string().replace('*', "\\*"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern { parts: text.split('*').map(str::to_owned).collect() }
    }

    #[test]
    fn a_pattern_matches_as_cedars_does() {
        for (text, good, bad) in [
            ("abc", "abc", "abcd"),
            ("a*", "a/b:c", "ba"),
            ("*c", "a/b:c", "cb"),
            ("a*b*c", "a1b2b3c", "a1c2b"),
            ("a*a", "aba", "a"),
            ("*", "", "\u{0}never"),
        ] {
            assert!(pattern(text).matches(good), "{text} {good}");
            assert_eq!(pattern(text).matches(bad), text == "*", "{text} {bad}");
        }
    }

    #[test]
    fn a_pattern_is_as_wide_as_what_strangers_can_choose() {
        for (claim, text, width) in [
            ("sub", "repo:a/b:ref:refs/heads/main", Some(Width::Exact)),
            ("sub", "*", Some(Width::Unanchored)),
            ("sub", "*:environment:production", Some(Width::Unanchored)),
            ("sub", "repo:a/*:environment:production", Some(Width::Across)),
            ("sub", "repo:a/*", Some(Width::Across)),
            ("sub", "repo:a*", Some(Width::Begun)),
            ("repository", "a*", Some(Width::Begun)),
            ("ref", "refs/heads/*", Some(Width::Open)),
            ("ref", "refs/heads/release*", Some(Width::Open)),
            ("ref", "release-*", Some(Width::Open)),
            ("ref", "refs/*", Some(Width::Across)),
            ("ref", "re*", Some(Width::Begun)),
            ("ref", "*/main", Some(Width::Unanchored)),
            ("ref", "refs/heads/*/main", Some(Width::Across)),
            ("environment", "prod*", None),
            ("environment", "prod/*", Some(Width::Across)),
        ] {
            assert_eq!(pattern(text).width(Some(claim)), width, "{claim} {text}");
        }
    }

    #[test]
    fn a_pattern_is_shown_as_it_is_written() {
        assert_eq!(pattern("a*b").to_string(), "a*b");
        let star = Pattern { parts: vec!["a*".to_owned(), "\"".to_owned()] };
        assert_eq!(star.to_string(), "a\\**\\\"");
        let value = serde_json::json!([{ "Literal": "a" }, { "Literal": "b" }, "Wildcard"]);
        assert_eq!(Pattern::parse(&value), Some(pattern("ab*")));
    }
}
