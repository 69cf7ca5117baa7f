//! Which CI platform runs us.
//!
//! Invariant: it is told by what the platform itself sets, and a variable that says `false` does
//! not say yes.

use crate::ambient::Ambient;

/// A CI platform, as far as it matters to us which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ci {
    Azure,
    Buildkite,
    GitHub,
    Other,
}

/// In the order in which they are asked: most of them set `CI` as well.
const SIGNS: &[(&str, Ci)] = &[
    ("GITHUB_ACTIONS", Ci::GitHub),
    ("BUILDKITE", Ci::Buildkite),
    ("TF_BUILD", Ci::Azure),
    ("GITLAB_CI", Ci::Other),
    ("CIRCLECI", Ci::Other),
    ("JENKINS_URL", Ci::Other),
    ("CI", Ci::Other),
];

impl Ci {
    /// The platform whose job this is; none outside of one.
    pub(crate) fn of(ambient: &Ambient) -> Option<Self> {
        let is_set = |name: &str| {
            ambient.text(name).is_some_and(|value| {
                !["0", "false", "no"].iter().any(|no| value.eq_ignore_ascii_case(no))
            })
        };
        SIGNS.iter().find(|(name, _)| is_set(name)).map(|(_, platform)| *platform)
    }

    /// The name of the process that reads what a job's steps print, where it takes commands from
    /// that.
    pub(crate) fn runner(self) -> Option<&'static str> {
        match self {
            Self::Azure => Some("Agent.Worker"),
            Self::GitHub => Some("Runner.Worker"),
            Self::Buildkite | Self::Other => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_known_by_its_own_variable() {
        let of = |pairs: [(&str, &str); 2]| Ci::of(&Ambient::from(pairs));
        assert_eq!(of([("CI", "true"), ("GITHUB_ACTIONS", "true")]), Some(Ci::GitHub));
        assert_eq!(of([("CI", "true"), ("BUILDKITE", "true")]), Some(Ci::Buildkite));
        assert_eq!(of([("CI", ""), ("TF_BUILD", "True")]), Some(Ci::Azure));
        assert_eq!(of([("CI", "1"), ("JENKINS_URL", "https://j")]), Some(Ci::Other));
        assert_eq!(of([("CI", "false"), ("GITLAB_CI", "")]), None);
    }
}
