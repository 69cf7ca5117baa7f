//! What a token says, and the rules it must hold.
//!
//! Invariant: a claim that is there and malformed is a refusal, never treated as absent. The
//! required ones are `iss`, `sub`, `aud`, `exp` and `iat`.

use std::{collections::BTreeMap, time::Duration};

use dayfly_backend_sdk::Timestamp;
use serde::{Deserialize, Serialize};

use super::{IssuerConfig, Platform, Rejection, json::Json};

const PATH_LEN_MAX: usize = 512;
const PATHS_MAX: usize = 512;
const JTI_LEN_MAX: usize = 256;
/// 9999-12-31T23:59:59Z, the last second that we can write down.
const SECONDS_MAX: i64 = 253_402_300_799;

/// The value of a claim: whole numbers and booleans become text, so that a rule compares one
/// way however the platform writes its ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ClaimValue {
    /// A single value.
    Text(String),
    /// A list of single values.
    List(Vec<String>),
}

/// Claims that nobody has verified: good for finding the issuer, and nothing else.
#[derive(Debug)]
pub(crate) struct UnverifiedClaims {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) expires_at: Timestamp,
    issued_at: Timestamp,
    not_before: Option<Timestamp>,
    pub(crate) token_id: Option<String>,
    pub(crate) all: BTreeMap<String, ClaimValue>,
}

impl UnverifiedClaims {
    pub(crate) fn parse(members: BTreeMap<String, Json>) -> Result<Self, Rejection> {
        let claims = Self {
            issuer: text(&members, "iss", "`iss` is not a string")?,
            subject: text(&members, "sub", "`sub` is not a string")?,
            audiences: audiences(members.get("aud"))?,
            expires_at: time(members.get("exp"), "`exp` is not a time")?,
            issued_at: time(members.get("iat"), "`iat` is not a time")?,
            not_before: match members.get("nbf") {
                None => None,
                some => Some(time(some, "`nbf` is not a time")?),
            },
            token_id: token_id(members.get("jti"))?,
            all: BTreeMap::new(),
        };
        let mut all = BTreeMap::new();
        for (name, value) in members {
            flatten(&mut all, name, value)?;
        }
        Ok(Self { all, ..claims })
    }

    /// Holds the claims against the issuer's rules. Call it after the signature held, so that
    /// a forged token is reported as forged, not as expired.
    pub(crate) fn check(&self, rules: &IssuerConfig, now: Timestamp) -> Result<(), Rejection> {
        let ours = self.audiences.contains(&rules.audience);
        if !ours {
            return Err(Rejection::WrongAudience);
        }
        if self.audiences.len() > 1 && !rules.multiple_audiences {
            return Err(Rejection::ManyAudiences);
        }
        let leeway = Duration::from_secs(rules.leeway_seconds);
        self.check_times(now, leeway, Duration::from_secs(rules.token_age_max_seconds))?;
        let preset = rules.preset.map(Platform::preset);
        preset.map_or(Ok(()), |preset| preset.check(&self.all, &rules.allow_traps))
    }

    /// Holds the times against a clock that may differ by `leeway`, and the token's life against
    /// `age_max`. Call it after the signature held.
    pub(crate) fn check_times(
        &self,
        now: Timestamp,
        leeway: Duration,
        age_max: Duration,
    ) -> Result<(), Rejection> {
        if now >= self.expires_at.plus(leeway) {
            return Err(Rejection::Expired);
        }
        if self.not_before.is_some_and(|from| from > now.plus(leeway)) {
            return Err(Rejection::NotYetValid);
        }
        if self.issued_at > now.plus(leeway) {
            return Err(Rejection::IssuedInFuture);
        }
        if self.expires_at < self.issued_at {
            return Err(Rejection::TimesOutOfOrder);
        }
        // Both, so that neither a far `exp` nor a token that was kept for long gets through.
        let (age, longest) = (now.since(self.issued_at), age_max.saturating_add(leeway));
        if self.expires_at > now.plus(longest) || age > longest {
            return Err(Rejection::TooLongLived);
        }
        Ok(())
    }
}

pub(super) fn text(
    members: &BTreeMap<String, Json>,
    name: &str,
    why: &'static str,
) -> Result<String, Rejection> {
    let text = members.get(name).and_then(Json::text).filter(|text| !text.is_empty());
    text.map(str::to_owned).ok_or(Rejection::malformed(why))
}

pub(super) fn time(value: Option<&Json>, why: &'static str) -> Result<Timestamp, Rejection> {
    match value {
        Some(Json::Integer(seconds)) if (0..=SECONDS_MAX).contains(seconds) => {
            Ok(Timestamp::from_seconds(*seconds))
        }
        None | Some(_) => Err(Rejection::malformed(why)),
    }
}

pub(super) fn token_id(value: Option<&Json>) -> Result<Option<String>, Rejection> {
    match value {
        None => Ok(None),
        Some(Json::Text(id)) if !id.is_empty() && id.len() <= JTI_LEN_MAX => Ok(Some(id.clone())),
        Some(_) => Err(Rejection::malformed("`jti` is not a short string")),
    }
}

pub(super) fn audiences(value: Option<&Json>) -> Result<Vec<String>, Rejection> {
    let malformed = Rejection::malformed("`aud` is not a string or a list of strings");
    let audiences: Vec<String> = match value {
        Some(Json::Text(one)) => vec![one.clone()],
        Some(Json::List(many)) => many
            .iter()
            .map(|one| one.text().map(str::to_owned).ok_or(malformed))
            .collect::<Result<_, _>>()?,
        None | Some(_) => return Err(malformed),
    };
    if audiences.is_empty() || audiences.iter().any(String::is_empty) {
        return Err(malformed);
    }
    Ok(audiences)
}

/// Nested objects by dotted path, lists of lists and of objects by index. Two claims that
/// come to one path are a refusal: a token with `{"a.b":1,"a":{"b":2}}` could otherwise
/// choose which of them a rule sees. `null` says nothing and is left out.
pub(super) fn flatten(
    all: &mut BTreeMap<String, ClaimValue>,
    path: String,
    value: Json,
) -> Result<(), Rejection> {
    let value = match value {
        Json::Null => return Ok(()),
        Json::Object(members) => {
            for (name, value) in members {
                flatten(all, joined(&path, &name), value)?;
            }
            return Ok(());
        }
        Json::List(elements) if elements.iter().any(is_compound) => {
            for (index, value) in elements.into_iter().enumerate() {
                flatten(all, joined(&path, &index.to_string()), value)?;
            }
            return Ok(());
        }
        Json::List(elements) => {
            ClaimValue::List(elements.into_iter().map(scalar).collect::<Result<_, _>>()?)
        }
        scalar_value @ (Json::Bool(_) | Json::Integer(_) | Json::Inexact | Json::Text(_)) => {
            ClaimValue::Text(scalar(scalar_value)?)
        }
    };
    if path.len() > PATH_LEN_MAX || all.len() >= PATHS_MAX {
        return Err(Rejection::malformed("too many claims, or one is nested too far"));
    }
    if all.insert(path, value).is_some() {
        return Err(Rejection::malformed("two claims have the same path"));
    }
    Ok(())
}

fn joined(path: &str, name: &str) -> String {
    format!("{path}.{name}")
}

fn is_compound(value: &Json) -> bool {
    matches!(value, Json::Object(_) | Json::List(_))
}

fn scalar(value: Json) -> Result<String, Rejection> {
    match value {
        Json::Text(text) => Ok(text),
        Json::Integer(number) => Ok(number.to_string()),
        Json::Bool(value) => Ok(value.to_string()),
        Json::Null | Json::Inexact | Json::List(_) | Json::Object(_) => {
            Err(Rejection::malformed("a claim is neither text, a whole number nor a boolean"))
        }
    }
}
