//! The template of a role whose keys are signed.
//!
//! Invariant: a role sets no claim that a token has from us, nor one that changes what a
//! verifier takes the token for.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::{
    ApiKeyError,
    config::{check_scopes, is_word},
};

const AUDIENCES_MAX: usize = 16;
const AUDIENCE_LEN_MAX: usize = 256;
const CLAIM_NAME_LEN_MAX: usize = 64;
/// With base64 and what we add, such a token is some 7 KB: many servers take headers of 8.
const BYTES_MAX: usize = 4_096;

/// What we say ourselves (RFC 9068), and what says who acts for whom, with which proof, and how
/// somebody was authenticated (RFC 8693, RFC 7800, RFC 9396, OpenID Connect). In any case of their
/// letters, since there are verifiers that do not tell.
const RESERVED: [&str; 20] = [
    "acr",
    "act",
    "amr",
    "aud",
    "auth_time",
    "authorization_details",
    "azp",
    "client_id",
    "cnf",
    "events",
    "exp",
    "iat",
    "iss",
    "jti",
    "may_act",
    "nbf",
    "nonce",
    "scope",
    "sid",
    "sub",
];

/// What a signed key of a role says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JwtTemplate {
    /// `aud`.
    #[serde(deserialize_with = "one_or_several")]
    pub(crate) audience: Vec<String>,
    /// `scope`.
    #[serde(default)]
    pub(crate) scopes: Vec<String>,
    /// What else it says, the same for every key of the role.
    #[serde(default)]
    pub(crate) claims: Map<String, Value>,
}

impl JwtTemplate {
    pub(crate) fn parse(raw: &Value) -> Result<Self, ApiKeyError> {
        let parsed: Self = serde_json::from_value(raw.clone()).map_err(ApiKeyError::Template)?;
        check_scopes(&parsed.scopes)?;
        parsed.check_audience()?;
        for (name, value) in &parsed.claims {
            check_claim(name, value)?;
        }
        let bytes = raw.to_string().len();
        if bytes > BYTES_MAX {
            return Err(ApiKeyError::TooLarge { bytes, bytes_max: BYTES_MAX });
        }
        Ok(parsed)
    }

    fn check_audience(&self) -> Result<(), ApiKeyError> {
        if let Some(bad) = self.audience.iter().find(|one| !is_word(one, AUDIENCE_LEN_MAX)) {
            return Err(ApiKeyError::Audience(bad.clone()));
        }
        let count = self.audience.len();
        let mut different = self.audience.clone();
        different.sort();
        different.dedup();
        if different.len() < count || !(1..=AUDIENCES_MAX).contains(&count) {
            return Err(ApiKeyError::Audiences);
        }
        Ok(())
    }
}

fn check_claim(name: &str, value: &Value) -> Result<(), ApiKeyError> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"_-.:/".contains(&c);
    if name.is_empty() || name.len() > CLAIM_NAME_LEN_MAX || !name.bytes().all(legal) {
        return Err(ApiKeyError::ClaimName(name.to_owned()));
    }
    if RESERVED.iter().any(|ours| ours.eq_ignore_ascii_case(name)) {
        return Err(ApiKeyError::ClaimReserved(name.to_owned()));
    }
    match value {
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        Value::Array(_) | Value::Null | Value::Object(_) => {
            Err(ApiKeyError::ClaimValue(name.to_owned()))
        }
    }
}

/// A text, or a list of them, as `aud` is written.
pub(super) fn one_or_several<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a text or a list of texts")]
    enum Written {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::One(one) => vec![one],
        Written::Several(several) => several,
    })
}
