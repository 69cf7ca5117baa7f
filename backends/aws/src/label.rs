//! Tags and identities that AWS keeps beside a session or a user.
//!
//! Invariant: what comes from a principal has only characters and lengths that AWS takes, so
//! that no principal's name can make a mint fail.

use std::collections::{BTreeMap, BTreeSet};

const TAGS_MAX: usize = 50;
const KEY_LEN_MAX: usize = 128;
const VALUE_LEN_MAX: usize = 256;
const IDENTITY_LEN_MAX: usize = 64;
/// Ours: which lease, and for whom.
const LEASE: &str = "dayfly:lease";
const PRINCIPAL: &str = "dayfly:principal";

/// Checks the tags of a template. Two of AWS's fifty are ours.
pub(crate) fn check(tags: &BTreeMap<String, String>) -> Result<(), String> {
    if tags.len() + 2 > TAGS_MAX {
        return Err(format!("{} tags, and {} are the most", tags.len(), TAGS_MAX - 2));
    }
    for (key, value) in tags {
        // AWS compares keys without regard to their case.
        let lower = key.to_ascii_lowercase();
        if lower.starts_with("aws:") || lower.starts_with("dayfly:") {
            return Err(format!("the tag `{key}` is reserved"));
        }
        let fits = (1..=KEY_LEN_MAX).contains(&key.len()) && value.len() <= VALUE_LEN_MAX;
        if !fits || !key.bytes().chain(value.bytes()).all(is_legal) {
            return Err(format!("the tag `{}` cannot be set", key.escape_debug()));
        }
    }
    let lower: BTreeSet<_> = tags.keys().map(|key| key.to_ascii_lowercase()).collect();
    if lower.len() < tags.len() {
        return Err("two tags differ in case only".to_owned());
    }
    Ok(())
}

/// The template's tags and ours.
pub(crate) fn tags(
    own: &BTreeMap<String, String>,
    lease: &str,
    principal: &str,
) -> Vec<(String, String)> {
    let ours = [(LEASE, lease), (PRINCIPAL, principal)];
    let ours = ours.map(|(key, value)| (key.to_owned(), cut(value, is_legal, VALUE_LEN_MAX)));
    own.iter().map(|(key, value)| (key.clone(), value.clone())).chain(ours).collect()
}

/// A source identity: `[\w+=,.@-]`, 2 to 64 characters, and not with `aws:` before it, which
/// without a colon it cannot have.
pub(crate) fn identity(principal: &str) -> String {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"_+=,.@-".contains(&c);
    let mut identity = cut(principal, legal, IDENTITY_LEN_MAX);
    while identity.len() < 2 {
        identity.push('_');
    }
    identity
}

/// Of what AWS takes in tags, what is ASCII.
fn is_legal(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b" _.:/=+-@".contains(&c)
}

fn cut(text: &str, legal: impl Fn(u8) -> bool, most: usize) -> String {
    let one = |c: char| u8::try_from(c).ok().filter(|c| legal(*c)).map_or('_', char::from);
    text.chars().map(one).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_principal_has_a_name_that_aws_refuses() {
        let hostile = ["", "a", "aws:root", "a\0b\n\"c", "é☃&*", &"x".repeat(999)];
        for principal in hostile {
            let identity = identity(principal);
            assert!((2..=64).contains(&identity.len()), "{identity}");
            assert!(identity.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_'));
            let tags = tags(&BTreeMap::new(), "lse_1", principal);
            assert!(tags.iter().all(|(_, v)| v.len() <= 256 && v.bytes().all(is_legal)));
        }
        let subject = "repo:org/app:ref:refs/heads/main";
        assert_eq!(tags(&BTreeMap::new(), "l", subject)[1].1, subject);
    }

    #[test]
    fn each_rule_has_its_fault() {
        let tags = |pairs: &[(&str, &str)]| {
            let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            check(&pairs.iter().map(own).collect())
        };
        assert!(tags(&[("team", "a b")]).is_ok());
        for bad in [
            [("aws:x", "")],
            [("Dayfly:lease", "")],
            [("", "")],
            [("a", "*")],
            [("a\"", "")],
            [("a", "\n")],
        ] {
            assert!(tags(&bad).is_err(), "{bad:?}");
        }
        assert!(tags(&[("Team", ""), ("team", "")]).is_err());
        let many: BTreeMap<_, _> = (0..49).map(|n| (format!("k{n}"), String::new())).collect();
        assert!(check(&many).is_err());
    }
}
