//! Who we decided the caller is.
//!
//! Invariant: a principal comes from a token or a certificate whose signature and rules held,
//! and holds nothing that could be presented again as that.

use std::collections::BTreeMap;

use dayfly_backend_sdk::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ClaimValue, Rejection};

/// What kind of caller it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A person.
    Human,
    /// A program.
    #[default]
    Workload,
}

impl Kind {
    /// Its name in policies, API and audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Workload => "workload",
        }
    }
}

/// A verified caller. Stored with its task, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Human or workload.
    pub kind: Kind,
    /// The issuer's name in the configuration, or the trust domain.
    pub issuer: String,
    /// `sub`, the SPIFFE ID of a certificate, or at AWS the ARN with the unique id.
    pub subject: String,
    /// Every claim of the token, nested ones by dotted path (`kubernetes.io.pod.uid`).
    pub claims: BTreeMap<String, ClaimValue>,
    /// Hex SHA-256 of the token without its signature: an ECDSA signature can be changed into
    /// another valid one, and a replay key must not change with it. Of a certificate, all of it;
    /// of a signed AWS request its signature, which alone is the same however it is written down.
    pub token_hash: String,
    /// `jti`.
    pub token_id: Option<String>,
    /// `exp`, or when the certificate ends.
    pub token_expires_at: Timestamp,
    /// Whether the token may open one task only.
    pub single_use: bool,
    /// Whether the token, where it may open several, does so with the key alone that was proven
    /// with it first. Not there in what older versions have stored.
    #[serde(default)]
    pub first_key_binds: bool,
}

/// As long as a SPIFFE ID may be. With the name of an issuer, a role and a backend it is within the
/// 2704 bytes that an entry of PostgreSQL's indexes has at most, also if it cannot be compressed.
const SUBJECT_LEN_MAX: usize = 2_048;
/// The claims of `OpenID` that say what somebody is called, the best one first.
const NAMES: [&str; 3] = ["name", "preferred_username", "email"];
/// Longer names are not shown, rather than cut into others.
const NAME_CHARS_MAX: usize = 128;

impl Principal {
    /// The id of a subject that may never have come; none where no subject is like that.
    pub fn id_of(issuer: &str, subject: &str) -> Option<String> {
        let fits = (1..=SUBJECT_LEN_MAX).contains(&subject.len());
        let plain = !subject.chars().any(char::is_control);
        (fits && plain).then(|| format!("{issuer}|{subject}"))
    }

    /// The same principal, if it can be named to those who would disable it: who cannot be is
    /// nobody. PostgreSQL, besides, could not write down a text with a zero in it.
    pub(super) fn nameable(self) -> Result<Self, Rejection> {
        match Self::id_of(&self.issuer, &self.subject) {
            Some(_) => Ok(self),
            None => Err(Rejection::SubjectRefused),
        }
    }

    /// `issuer|subject`. An issuer's name has no `|`, so two principals never share an id.
    pub fn id(&self) -> String {
        format!("{}|{}", self.issuer, self.subject)
    }

    /// What its issuer calls it, for people to read. Whoever may choose their own name there may
    /// choose another's, so nothing is decided by it.
    pub fn display_name(&self) -> Option<String> {
        let name = |claim: &str| match self.claims.get(claim)? {
            ClaimValue::Text(name) => Some(name),
            ClaimValue::List(_) => None,
        };
        let fits = |name: &&String| {
            let length = name.chars().count();
            (1..=NAME_CHARS_MAX).contains(&length) && !name.chars().any(char::is_control)
        };
        let found = NAMES.into_iter().filter_map(name).find(fits);
        found.cloned()
    }

    /// When its token was issued (`iat`), where it says so; of a certificate, from when it is good.
    pub fn issued_at(&self) -> Option<Timestamp> {
        match self.claims.get("iat")? {
            ClaimValue::Text(seconds) => seconds.parse().ok().map(Timestamp::from_seconds),
            ClaimValue::List(_) => None,
        }
    }

    /// What is remembered of a token that may be used once: `issuer|jti`, or the token's hash,
    /// which has no `|`.
    pub fn replay_key(&self) -> String {
        match &self.token_id {
            Some(id) => format!("{}|{id}", self.issuer),
            None => self.token_hash.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(subject: &str) -> Principal {
        Principal {
            kind: Kind::Human,
            issuer: "people".to_owned(),
            subject: subject.to_owned(),
            claims: BTreeMap::new(),
            token_hash: String::new(),
            token_id: None,
            token_expires_at: Timestamp::MAX,
            single_use: true,
            first_key_binds: false,
        }
    }

    fn named(claims: &[(&str, &str)]) -> Option<String> {
        let text = |(name, value): &(&str, &str)| {
            ((*name).to_owned(), ClaimValue::Text((*value).to_owned()))
        };
        Principal { claims: claims.iter().map(text).collect(), ..called("ada") }.display_name()
    }

    #[test]
    fn somebody_is_called_what_can_be_shown_on_one_line() {
        let email = ("email", "ada@example.test");
        assert_eq!(named(&[("name", "Ada"), email]).as_deref(), Some("Ada"));
        assert_eq!(named(&[email]).as_deref(), Some(email.1));
        assert_eq!(named(&[("groups", "admins")]), None);
        for bad in ["", "Ada\n", "\u{1b}[2J", &"a".repeat(129)] {
            assert_eq!(named(&[("name", bad), email]).as_deref(), Some(email.1), "{bad:?}");
            assert_eq!(named(&[("name", bad)]), None, "{bad:?}");
        }
    }

    #[test]
    fn who_can_be_somebody_can_be_named_and_nobody_else() {
        let longest = "x".repeat(SUBJECT_LEN_MAX);
        for good in ["ada", "Ada Lovelace|1", "\u{fc}", longest.as_str()] {
            let principal = called(good).nameable().unwrap();
            assert_eq!(Some(principal.id()), Principal::id_of("people", good));
        }
        let too_long = format!("{longest}x");
        for bad in ["", "a\u{0}", "a\u{1}", "a\u{7f}", "a\u{85}", too_long.as_str()] {
            assert_eq!(called(bad).nameable(), Err(Rejection::SubjectRefused), "{bad:?}");
            assert_eq!(Principal::id_of("people", bad), None, "{bad:?}");
        }
    }
}
