//! The document of a deny policy: the sessions that are denied everything, and until when each
//! has to stand there.
//!
//! Invariant: a name leaves it only when its session has ended by itself, and a document that
//! we did not write is never read as an empty one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Characters of a managed policy's document. Ours has no blanks, which do not count.
pub(crate) const DOCUMENT_MAX: usize = 6_144;
const HOUR: i64 = 3_600;
const VERSION: &str = "2012-10-17";
/// One statement for each hour in which names may go; AWS lets `[A-Za-z0-9]` into its id.
const ID: &str = "Dayfly";
/// The user id of a session is `ROLE-ID:SESSION-NAME`, that of a federated user
/// `ACCOUNT:NAME`; a user's own has no colon.
const PATTERN: &str = "*:";
/// A policy must have a statement. No session has a name of one character.
const NOBODY: &str = "*:-";

/// Names, each with the hour since 1970 after which it may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roll(BTreeMap<String, i64>);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Document {
    version: String,
    statement: Vec<Statement>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    sid: String,
    effect: String,
    action: String,
    resource: String,
    condition: Condition,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Condition {
    string_like: Users,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Users {
    #[serde(rename = "aws:userid")]
    patterns: Vec<String>,
}

impl Roll {
    /// Reads what [`Roll::text`] wrote; nothing else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let document: Document = serde_json::from_str(text).ok()?;
        let mut roll = Self::default();
        for statement in document.statement {
            let hour = statement.sid.strip_prefix(ID)?.parse().ok()?;
            let denies = (statement.effect.as_str(), statement.action.as_str()) == ("Deny", "*");
            if !denies || statement.resource != "*" {
                return None;
            }
            for pattern in statement.condition.string_like.patterns {
                if pattern != NOBODY {
                    roll.put(pattern.strip_prefix(PATTERN)?, hour);
                }
            }
        }
        Some(roll)
    }

    /// As a policy has it.
    pub(crate) fn text(&self) -> String {
        let mut hours: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for (name, hour) in &self.0 {
            hours.entry(*hour).or_default().push(format!("{PATTERN}{name}"));
        }
        if hours.is_empty() {
            hours.insert(0, vec![NOBODY.to_owned()]);
        }
        let statement = |(hour, patterns): (i64, Vec<String>)| Statement {
            sid: format!("{ID}{hour}"),
            effect: "Deny".to_owned(),
            action: "*".to_owned(),
            resource: "*".to_owned(),
            condition: Condition { string_like: Users { patterns } },
        };
        let document = Document {
            version: VERSION.to_owned(),
            statement: hours.into_iter().map(statement).collect(),
        };
        // Texts in lists: nothing that JSON could not hold.
        serde_json::to_string(&document).unwrap_or_default()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn fits(&self) -> bool {
        self.text().len() <= DOCUMENT_MAX
    }

    /// Adds a name until `end` (seconds since 1970). Without room nothing is changed.
    pub(crate) fn add(&mut self, name: &str, end: i64) -> bool {
        let before = self.0.get(name).copied();
        self.put(name, end.div_euclid(HOUR) + 1);
        let fits = self.fits();
        if !fits {
            match before {
                Some(hour) => self.0.insert(name.to_owned(), hour),
                None => self.0.remove(name),
            };
        }
        fits
    }

    /// Takes in what another document has.
    pub(crate) fn absorb(&mut self, other: Self) {
        for (name, hour) in other.0 {
            self.put(&name, hour);
        }
    }

    /// Takes out what was just added and found no room beside another's.
    pub(crate) fn take_back(&mut self, names: &BTreeSet<String>) {
        self.0.retain(|name, _| !names.contains(name));
    }

    /// Forgets those that have ended by `now`.
    pub(crate) fn prune(&mut self, now: i64) {
        self.0.retain(|_, hour| hour.saturating_mul(HOUR) > now);
    }

    fn put(&mut self, name: &str, hour: i64) {
        let latest = self.0.entry(name.to_owned()).or_insert(hour);
        *latest = hour.max(*latest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = r#"{"Version":"2012-10-17","Statement":[{"Sid":"Dayfly0","Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringLike":{"aws:userid":["*:-"]}}}]}"#;

    #[test]
    fn it_goes_there_and_back() {
        let mut roll = Roll::default();
        assert_eq!(roll.text(), EMPTY);
        assert!(roll.add("df_a", 3_599) && roll.add("df_b", 3_600) && roll.add("df_c", 3_600));
        let text = roll.text();
        assert!(text.contains(r#""Sid":"Dayfly1""#) && text.contains(r#"["*:df_b","*:df_c"]"#));
        assert_eq!(Roll::parse(&text), Some(roll));
        assert_eq!(Roll::parse(EMPTY), Some(Roll::default()));
    }

    #[test]
    fn what_we_did_not_write_is_not_empty() {
        for (from, to) in [
            ("Deny", "Allow"),
            ("Dayfly0", "Other"),
            (r#""Resource":"*""#, r#""Resource":"arn:aws:s3:::a""#),
            (r#""Action":"*""#, r#""Action":["*"]"#),
            ("StringLike", "StringEquals"),
            ("aws:userid", "aws:username"),
            ("*:-", "a"),
            ("[{", "{"),
        ] {
            assert_eq!(Roll::parse(&EMPTY.replacen(from, to, 1)), None, "{to}");
        }
        assert_eq!(Roll::parse(""), None);
    }

    #[test]
    fn a_name_goes_when_its_session_has_ended_and_not_before() {
        let mut roll = Roll::default();
        roll.add("a", 3_600);
        roll.prune(3_601);
        assert!(roll.has("a"));
        roll.prune(7_200);
        assert!(!roll.has("a"));
    }

    #[test]
    fn it_is_full_and_says_so() {
        let mut roll = Roll::default();
        let name = |n: usize| format!("df_{n:026}");
        let room = (0..1_000).take_while(|n| roll.add(&name(*n), 0)).count();
        assert!((150..200).contains(&room), "{room}");
        assert!(roll.fits() && !roll.has(&name(room)));
        roll.take_back(&BTreeSet::from([name(0)]));
        assert!(roll.add(&name(room), 0));
    }
}
