//! The lints by name, and how grave each is.
//!
//! Invariant: a name is never given to another lint, since `@allow` and other programs speak of
//! it. docs/policies.md has the table, held against this by a test.

use std::fmt;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It lets strangers in, or does nothing.
    Error,
    /// To know, not to change.
    Note,
    /// Something that is rarely meant, or worth a second look.
    Warning,
}

impl Severity {
    /// Its name in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Note => "note",
            Self::Warning => "warning",
        }
    }
}

/// What a lint needs to be asked at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    Config,
    Rules,
    Used,
}

/// What there is to know of a lint.
#[derive(Clone, Copy, Debug)]
struct About {
    name: &'static str,
    severity: Severity,
    needs: Needs,
    what: &'static str,
}

macro_rules! codes {
    ($($code:ident, $name:literal, $severity:ident, $needs:ident, $what:literal;)*) => {
        /// A lint.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $what] $code,)*
        }

        impl Code {
            /// All of them, by name.
            pub const ALL: &'static [Self] = &[$(Self::$code,)*];

            fn about(self) -> About {
                match self {
                    $(Self::$code => About {
                        name: $name,
                        severity: Severity::$severity,
                        needs: Needs::$needs,
                        what: $what,
                    },)*
                }
            }
        }
    };
}

codes! {
    AllowWithoutReason, "allow-without-reason", Warning, Rules,
        "an `@allow` that has no `@allow_reason`, or that names no lint";
    AnyIssuer, "any-issuer", Error, Rules,
        "a `permit` that does not say of which issuer the caller must be: any issuer that is \
         trusted now or later can say the same of its own callers";
    Anybody, "anybody", Error, Rules,
        "a `permit` for a platform whose issuer signs for everybody, without a claim that says \
         whose job it is";
    HumansMint, "humans-mint", Warning, Rules,
        "a `permit` to mint that does not say whether the caller is a `Dayfly::Workload` or a \
         `Dayfly::Human`";
    MissingAudience, "missing-audience", Warning, Config,
        "an issuer whose `audience` is not ours alone: another service's, the platform's default, \
         the issuer's own URL";
    MissingEnvironment, "missing-environment", Warning, Rules,
        "a `permit` to mint that says whose job it is, and not from which branch, environment or \
         account: any branch of the project may";
    NeverTrue, "never-true", Error, Rules,
        "a rule, or one of its alternatives, whose conditions never hold together";
    OnlyNames, "only-names", Note, Rules,
        "a name for which the platform gives no id";
    OpenPattern, "open-pattern", Note, Rules,
        "a pattern that ends in the name of a branch or tag: whoever may push chooses it";
    OpenTrap, "open-trap", Error, Config,
        "a `permit` for an issuer with `allow_traps`, where neither it nor a `forbid` looks at the \
         trap's claim";
    ShadowedRule, "shadowed-rule", Warning, Rules,
        "a rule that never decides by itself: another one of the same effect has the same \
         conditions, or fewer of them";
    TooComplex, "too-complex", Warning, Rules,
        "a rule with more alternatives than are looked at: the lints that need them all were left \
         out for it";
    UnknownName, "unknown-name", Error, Config,
        "an issuer, or the name of a role or a backend in a comparison, that is not configured";
    UnpinnedName, "unpinned-name", Error, Rules,
        "a `permit` that compares a name that others can have later, and not the id that stays";
    UnreachableRole, "unreachable-role", Warning, Config,
        "a role that no `permit` to mint reaches, or that a `forbid` always refuses";
    UnusedAllow, "unused-allow", Warning, Rules,
        "an `@allow` for what was not found";
    UnusedRule, "unused-rule", Warning, Used,
        "a rule that no record of the audit log names";
    WidePattern, "wide-pattern", Error, Rules,
        "a pattern whose `*` can match across `/` or `:`, or has nothing before it, or ends what \
         others can begin alike";
}

impl Code {
    /// Its name in output and in `@allow`.
    pub fn as_str(self) -> &'static str {
        self.about().name
    }

    /// How grave its findings are.
    pub fn severity(self) -> Severity {
        self.about().severity
    }

    pub(super) fn needs(self) -> Needs {
        self.about().needs
    }

    /// The lint of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The lints, as a table in Markdown.
pub(super) fn table() -> String {
    let mut text = String::from("| lint | severity | asks for | what it finds |\n");
    text.push_str("| --- | --- | --- | --- |\n");
    for code in Code::ALL {
        let About { severity, needs, what, .. } = code.about();
        let needs = match needs {
            Needs::Config => "`--config`",
            Needs::Rules => "nothing",
            Needs::Used => "`--used`",
        };
        let severity = severity.as_str();
        let line = format!("| `{code}` | {severity} | {needs} | {what} |\n");
        text.push_str(&line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lint_has_a_name_of_its_own() {
        let names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(names.is_sorted_by(|one, two| one < two), "{names:?}");
        for name in names {
            assert_eq!(Code::named(name).map(Code::as_str), Some(name));
        }
    }
}
