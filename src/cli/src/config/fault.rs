//! What is wrong in a configuration file, and where.
//!
//! Invariant: a fault names the place, the key and the rule, and never a value: a secret may stand
//! where it should not.

use std::{fmt, sync::Arc};

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(super) file: Arc<str>,
    pub(super) line: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Placed<T> {
    pub(crate) at: At,
    pub(crate) value: T,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault {
    at: At,
    /// The dotted path of the key; empty where the file is no TOML.
    key: String,
    message: String,
    suggestion: Option<String>,
}

impl Fault {
    pub(crate) fn new(at: At, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { at, key: key.into(), message: message.into(), suggestion: None }
    }

    /// `word`, the last part of `key`, is none of `known`.
    pub(super) fn unknown(at: At, key: String, word: &str, known: &[&str]) -> Self {
        let suggestion = nearest(word, known.iter().copied()).map(ToOwned::to_owned);
        Self { at, key, message: "unknown key".to_owned(), suggestion }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " (did you mean `{suggestion}`?)"),
            None => Ok(()),
        }
    }
}

/// The word among `known` that `word` was probably meant to be.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    let length = word.chars().count();
    let distance_max = (length / 3).max(1);
    known
        .map(|known| (strsim::damerau_levenshtein(&word, &plain(known)), known))
        .filter(|(distance, _)| *distance <= distance_max && *distance < length)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_one_line_that_editors_can_follow() {
        let at = At { file: ".dayfly.toml".into(), line: 4 };
        let fault = Fault::unknown(at.clone(), "profile.m.tll".into(), "tll", &["roles", "ttl"]);
        assert_eq!(
            fault.to_string(),
            ".dayfly.toml:4: profile.m.tll: unknown key (did you mean `ttl`?)"
        );
        assert_eq!(Fault::new(at, "", "no TOML").to_string(), ".dayfly.toml:4: no TOML");
    }

    #[test]
    fn what_is_near_to_nothing_has_no_suggestion() {
        for (word, meant) in [
            ("role", Some("roles")),
            ("Stop-Timeout", Some("stop_timeout")),
            ("password", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, ["roles", "stop_timeout"].into_iter()), meant, "{word}");
        }
    }
}
