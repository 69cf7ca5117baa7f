//! Faults of a configuration, each with its place, collected until all are known.
//!
//! Invariant: a fault never repeats a value that may be a secret; it names the place, the
//! key and the rule.

use std::{cell::RefCell, collections::BTreeSet, fmt, sync::Arc};

/// How many faults are kept; a file of noise must not make a report without end.
const FAULTS_MAX: usize = 500;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file as it was given, or the directory when no single file is at fault.
    pub file: String,
    /// The line, from 1; 0 when the file could not be read at all.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The dotted path of the key; entries of a list by their name (`role.reader.ttl`).
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " (did you mean `{suggestion}`?)"),
            None => Ok(()),
        }
    }
}

/// All that is wrong, by file and line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) file: Arc<str>,
    pub(super) line: usize,
    pub(super) column: usize,
}

impl At {
    /// The file as a whole.
    pub(super) fn file(name: &str) -> Self {
        Self { file: name.into(), line: 0, column: 0 }
    }

    /// A fault here.
    pub(super) fn fault(&self, key: impl Into<String>, wrong: impl Into<Wrong>) -> Fault {
        let Wrong { message, suggestion } = wrong.into();
        // A report goes to terminals and logs: no key or value may break its line.
        let clean = |text: String| text.replace(char::is_control, "\u{fffd}");
        Fault {
            file: self.file.to_string(),
            line: self.line,
            column: self.column,
            key: clean(key.into()),
            message: clean(message),
            suggestion: suggestion.map(clean),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Why a value is refused, before its place is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) suggestion: Option<String>,
}

impl Wrong {
    /// `word` is none of `known`.
    pub(super) fn unknown(what: &str, word: &str, known: &[&str]) -> Self {
        Self { message: format!("unknown {what}"), suggestion: nearest(word, known) }
    }

    /// `word` is none of `known`, which are few enough to be listed.
    pub(super) fn not_one_of(word: &str, known: &[&str]) -> Self {
        let listed: Vec<_> = known.iter().map(|known| format!("\"{known}\"")).collect();
        let message = format!("expected {}", listed.join(" or "));
        Self { message, suggestion: nearest(word, known) }
    }

    /// Adds what was probably meant.
    pub(super) fn meant(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}

impl From<String> for Wrong {
    fn from(message: String) -> Self {
        Self { message, suggestion: None }
    }
}

impl From<&str> for Wrong {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

/// Where faults are collected while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    faults: RefCell<Vec<Fault>>,
    damaged: RefCell<BTreeSet<(String, usize)>>,
    /// Files with a broken header: nobody can know which section their keys belong to.
    lost: RefCell<BTreeSet<String>>,
}

impl Report {
    /// Notes a fault, except on a line whose syntax is broken: what was recovered from it is
    /// not what its author wrote.
    pub(super) fn note(&self, fault: Fault) {
        let mut faults = self.faults.borrow_mut();
        let damaged = self.damaged.borrow().contains(&(fault.file.clone(), fault.line))
            || self.lost.borrow().contains(&fault.file);
        if !damaged && faults.len() < FAULTS_MAX {
            faults.push(fault);
        }
    }

    /// Notes that something is not there. With broken syntax anywhere nobody can know.
    pub(super) fn note_absent(&self, fault: Fault) {
        if !self.is_damaged() {
            self.note(fault);
        }
    }

    /// Whether the syntax is broken somewhere.
    pub(super) fn is_damaged(&self) -> bool {
        !self.damaged.borrow().is_empty()
    }

    /// Notes broken syntax.
    pub(super) fn note_damage(&self, fault: Fault) {
        let place = (fault.file.clone(), fault.line);
        self.note(fault);
        self.damaged.borrow_mut().insert(place);
    }

    /// From now on, nothing more of this file is noted.
    pub(super) fn give_up(&self, file: &str) {
        self.lost.borrow_mut().insert(file.to_owned());
    }

    /// Everything noted, by file and line.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        let mut faults = self.faults.into_inner();
        faults.sort();
        faults.dedup();
        faults
    }
}

/// The known word that `word` was probably meant to be.
pub(super) fn nearest(word: &str, known: &[&str]) -> Option<String> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    let distance_max = (word.chars().count() / 3).max(1);
    let close = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&word, &plain(known)), *known))
        .filter(|(distance, _)| *distance <= distance_max && *distance < word.chars().count())
        .min();
    // `ttl_seconds` for `ttl`, `listen` for `listen_address`.
    let extends = |long: &str, short: &str| long.starts_with(&format!("{short}_"));
    close
        .map(|(_, known)| known)
        .or_else(|| {
            let mut known = known.iter().copied();
            known.find(|known| extends(&word, &plain(known)) || extends(&plain(known), &word))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_near() {
        let known = ["ttl", "ttl_max", "backend", "api-key"];
        for (word, meant) in [
            ("tll", Some("ttl")),
            ("ttl_mx", Some("ttl_max")),
            ("Backend", Some("backend")),
            ("bakcend", Some("backend")),
            ("api_key", Some("api-key")),
            ("ttl_seconds", Some("ttl")),
            ("password", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &known).as_deref(), meant, "{word}");
        }
    }

    #[test]
    fn a_fault_is_one_line_that_editors_can_follow() {
        let at = At { file: "dayfly.toml".into(), line: 12, column: 1 };
        let fault = at.fault("role.reader.tll", Wrong::from("unknown key").meant("ttl"));
        assert_eq!(
            fault.to_string(),
            "dayfly.toml:12:1: role.reader.tll: unknown key (did you mean `ttl`?)"
        );
        assert_eq!(At::file("a.toml").fault("", "not there").to_string(), "a.toml: not there");
    }

    #[test]
    fn a_fault_stays_on_its_line() {
        let fault = At::file("a").fault("x\n\u{1b}[31m", "bad\r\nnews");
        assert!(!fault.to_string().contains(char::is_control), "{fault}");
    }

    #[test]
    fn a_damaged_line_has_one_fault() {
        let report = Report::default();
        let at = At { file: "a".into(), line: 3, column: 1 };
        report.note_damage(at.fault("", "broken"));
        report.note(at.fault("x", "must not be empty"));
        report.note_absent(At { line: 9, ..at.clone() }.fault("y", "missing"));
        report.note(At { line: 4, ..at }.fault("z", "unknown key"));
        let kept: Vec<_> = report.into_faults().into_iter().map(|fault| fault.line).collect();
        assert_eq!(kept, [3, 4]);
    }
}
