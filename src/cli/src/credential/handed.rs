//! A credential on its way to a program, and what of it a protocol takes.
//!
//! Invariant: an error names fields and never a value.

use std::fmt;

use dayfly_api::Credential;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use crate::args::MappedField;

/// A credential and its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Handed {
    pub(crate) role: String,
    pub(crate) lease: String,
    /// RFC 3339, by the broker's clock.
    pub(crate) expires_at: String,
    pub(crate) credential: Credential,
}

impl Handed {
    /// Its end in whole seconds, the form that every reader of RFC 3339 takes, and never later than
    /// it is.
    pub(crate) fn end(&self) -> Result<String, Fault> {
        self.end_time()?.format(&Rfc3339).map_err(|_| self.no_end())
    }

    /// The same in seconds since 1970.
    pub(crate) fn end_unix(&self) -> Result<i64, Fault> {
        Ok(self.end_time()?.unix_timestamp())
    }

    /// The lease's end, or the credential's own where that is earlier.
    fn end_time(&self) -> Result<OffsetDateTime, Fault> {
        let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).map_err(|_| self.no_end());
        let mut end = parse(&self.expires_at)?;
        if let Some(own) = self.credential.fields.get("expiration") {
            end = end.min(parse(own)?);
        }
        let end = end.to_offset(UtcOffset::UTC);
        end.replace_nanosecond(0).map_err(|_| self.no_end())
    }

    fn no_end(&self) -> Fault {
        Fault::new(format!("the credential of role `{}` has no readable end", self.role))
    }
}

/// Where a protocol finds what it needs.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    handed: &'a Handed,
    named: &'a [MappedField],
}

impl<'a> Fields<'a> {
    /// `known` are the protocol's own names; one that is none of them is a mistake.
    pub(crate) fn of(
        handed: &'a Handed,
        named: &'a [MappedField],
        known: &[&str],
    ) -> Result<Self, Fault> {
        if let Some(wrong) = named.iter().find(|one| !known.contains(&one.name.as_str())) {
            return Err(Fault::new(format!(
                "--field-map: `{}` is nothing that this protocol has; it has {}",
                wrong.name,
                listed(known.iter().copied())
            )));
        }
        Ok(Self { handed, named })
    }

    /// What the protocol calls `name`: the field that was named for it, or the first of `usual`.
    pub(crate) fn wanted(&self, name: &str, usual: &[&str]) -> Result<&'a str, Fault> {
        self.found(name, usual)?.ok_or_else(|| {
            self.fault(&format!("has no field for `{name}`; name one by --field-map {name}=FIELD"))
        })
    }

    /// The same where the protocol can do without.
    pub(crate) fn found(&self, name: &str, usual: &[&str]) -> Result<Option<&'a str>, Fault> {
        let fields = &self.handed.credential.fields;
        if let Some(named) = self.named.iter().rev().find(|one| one.name == name) {
            let value = fields.get(&named.field).ok_or_else(|| {
                self.fault(&format!("has no field `{}`, which --field-map names", named.field))
            })?;
            return Ok(Some(value));
        }
        Ok(usual.iter().find_map(|field| fields.get(*field)).map(String::as_str))
    }

    fn fault(&self, what: &str) -> Fault {
        let Handed { role, credential, .. } = self.handed;
        let fields = listed(credential.fields.keys().map(String::as_str));
        Fault::new(format!("the credential of role `{role}` {what} (it has {fields})"))
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// `value`, unless a reader that goes line by line would take it for more than one.
pub(crate) fn one_line<'a>(name: &str, value: &'a str) -> Result<&'a str, Fault> {
    if value.contains(['\n', '\r', '\0']) {
        return Err(Fault::new(format!("the credential's `{name}` has a line break or a NUL")));
    }
    Ok(value)
}

/// Why a credential can't be said in a protocol's words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault(String);

impl Fault {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
pub(super) fn handed(fields: &[(&str, &str)]) -> Handed {
    let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Handed {
        role: "r".into(),
        lease: "lse_1".into(),
        expires_at: "2026-01-01T00:15:00.987654Z".into(),
        credential: Credential { fields, environment: std::collections::BTreeMap::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pairs: &[(&str, &str)]) -> Vec<MappedField> {
        let one = |(name, field): &(&str, &str)| MappedField {
            name: (*name).to_owned(),
            field: (*field).to_owned(),
        };
        pairs.iter().map(one).collect()
    }

    #[test]
    fn a_named_field_comes_before_the_usual_ones() {
        let one = handed(&[("token", "hunter2"), ("key", "k"), ("login", "l")]);
        let names = named(&[("username", "login")]);
        let fields = Fields::of(&one, &names, &["username", "password"]).unwrap();
        assert_eq!(fields.wanted("username", &["key"]), Ok("l"));
        assert_eq!(fields.wanted("password", &["password", "token"]), Ok("hunter2"));
        assert_eq!(fields.found("password", &["password"]), Ok(None));
    }

    #[test]
    fn what_is_not_there_is_named_without_a_value() {
        let one = handed(&[("token", "hunter2")]);
        let fields = Fields::of(&one, &[], &["username"]).unwrap();
        let fault = fields.wanted("username", &["username"]).unwrap_err().to_string();
        assert_eq!(
            fault,
            "the credential of role `r` has no field for `username`; name one by --field-map \
             username=FIELD (it has `token`)"
        );
        let names = named(&[("username", "login")]);
        let fields = Fields::of(&one, &names, &["username"]).unwrap();
        let fault = fields.found("username", &["token"]).unwrap_err().to_string();
        assert!(fault.contains("`login`") && !fault.contains("hunter2"), "{fault}");
        let names = named(&[("user", "token")]);
        let fault = Fields::of(&one, &names, &["username"]).unwrap_err().to_string();
        assert!(fault.contains("`user` is nothing") && fault.contains("`username`"), "{fault}");
    }

    #[test]
    fn the_end_is_the_earlier_one_in_whole_seconds() {
        let end = |fields: &[(&str, &str)]| handed(fields).end();
        assert_eq!(end(&[]), Ok("2026-01-01T00:15:00Z".into()));
        assert_eq!(handed(&[]).end_unix(), Ok(1_767_226_500));
        let own = [("expiration", "2026-01-01T01:10:00+01:00")];
        assert_eq!(end(&own), Ok("2026-01-01T00:10:00Z".into()));
        let later = [("expiration", "2026-01-01T09:00:00Z")];
        assert_eq!(end(&later), Ok("2026-01-01T00:15:00Z".into()));
        assert!(end(&[("expiration", "never")]).is_err());
    }

    #[test]
    fn a_value_of_two_lines_is_not_one() {
        assert_eq!(one_line("x", "a b:\\"), Ok("a b:\\"));
        for bad in ["a\nb", "a\r", "\0"] {
            let fault = one_line("password", bad).unwrap_err().to_string();
            assert!(fault.contains("`password`") && !fault.contains(bad), "{fault}");
        }
    }
}
