//! What the lints found, and how it is shown.
//!
//! Invariant: every finding says where it is, why it matters and what mends it.

use std::fmt::{self, Write};

use serde_json::{Value, json};

use super::{
    code::{Code, Severity},
    used::Span,
};

/// One thing that a lint found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file: of the rule, or the configuration.
    pub file: String,
    /// The line where the rule begins, counted from 1; none in the configuration.
    pub line: Option<usize>,
    /// The lint.
    pub code: Code,
    /// The `@id` of the rule; none for what is configured.
    pub rule: Option<String>,
    /// What it is about: an expression of the rule, or the name of what is configured.
    pub about: String,
    /// Why it matters, in one sentence.
    pub why: String,
    /// What mends it, in one sentence.
    pub mend: String,
}

impl Finding {
    fn json(&self) -> Value {
        json!({
            "code": self.code.as_str(),
            "severity": self.code.severity().as_str(),
            "file": self.file,
            "line": self.line,
            "rule": self.rule,
            "about": self.about,
            "why": self.why,
            "mend": self.mend,
        })
    }
}

/// Three lines: where and what, why, and what to do.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, code, about, why, mend, .. } = self;
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        let rule = self.rule.as_ref().map(|rule| format!(" {rule}:")).unwrap_or_default();
        let severity = code.severity().as_str();
        write!(f, "{file}{line}: {severity}[{code}]{rule} {about}\n  why: {why}\n  mend: {mend}")
    }
}

/// What all lints found in a set of rules.
#[derive(Clone, Debug)]
pub struct Report {
    /// By file and line.
    pub findings: Vec<Finding>,
    /// How many rules were looked at.
    pub rules: usize,
    /// The set of rules, as decisions name it.
    pub policy_hash: String,
    /// What was read of the audit log, if it was.
    pub used: Option<Span>,
}

impl Report {
    /// How many findings are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.of(severity).count()
    }

    fn of(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.code.severity() == severity)
    }

    /// Whether the rules pass. Notes are for people.
    pub fn passed(&self, deny_warnings: bool) -> bool {
        let warnings = self.count(Severity::Warning);
        self.count(Severity::Error) == 0 && !(deny_warnings && warnings > 0)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            // Writing to a text does not fail.
            writeln!(text, "{finding}").unwrap_or_default();
        }
        let counts = [Severity::Error, Severity::Warning, Severity::Note];
        let counts =
            counts.map(|severity| format!("{} {}(s)", self.count(severity), severity.as_str()));
        let used = self.used.as_ref().map(|span| format!("; {span}")).unwrap_or_default();
        writeln!(text, "{} rule(s): {}{used}", self.rules, counts.join(", ")).unwrap_or_default();
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "findings": self.findings.iter().map(Finding::json).collect::<Vec<_>>(),
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
            "notes": self.count(Severity::Note),
            "rules": self.rules,
            "policy": self.policy_hash,
            "used": self.used.as_ref().map(Span::json),
        })
    }
}
