//! The backend's own settings, and the template of a role at it.
//!
//! Invariant: scopes are what RFC 6749 allows, so that introspection can join them with
//! spaces.

use dayfly_backend_sdk::{Plan, Template};
use serde::Deserialize;
use serde_json::Value;

use crate::{ApiKeyError, JwtConfig};

const SCOPES_MAX: usize = 64;
const SCOPE_LEN_MAX: usize = 128;

/// What a backend of this kind mints.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiKeyConfig {
    /// Its keys are signed tokens; without it they are random texts.
    pub jwt: Option<JwtConfig>,
}

/// What a key of a role is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiKeyTemplate {
    /// What introspection answers as `scope`.
    pub scopes: Vec<String>,
}

impl ApiKeyTemplate {
    /// Reads and checks the template of a role.
    pub fn parse(raw: &Value) -> Result<Self, ApiKeyError> {
        let parsed: Self = serde_json::from_value(raw.clone()).map_err(ApiKeyError::Template)?;
        check_scopes(&parsed.scopes)?;
        Ok(parsed)
    }

    /// The template as the engine carries it. The plan is empty: a key's handle is all that
    /// its end needs.
    pub(crate) fn sealed(self) -> Template {
        Template::new(Plan::default(), self)
    }
}

/// Whether introspection and a token can say these.
pub(crate) fn check_scopes(scopes: &[String]) -> Result<(), ApiKeyError> {
    if scopes.len() > SCOPES_MAX {
        return Err(ApiKeyError::Scopes { count: scopes.len(), count_max: SCOPES_MAX });
    }
    match scopes.iter().find(|scope| !is_word(scope, SCOPE_LEN_MAX)) {
        Some(bad) => Err(ApiKeyError::Scope(bad.clone())),
        None => Ok(()),
    }
}

/// `scope-token` of RFC 6749, section 3.3, at most so long: printable ASCII without space, `"`
/// and `\`.
pub(crate) fn is_word(text: &str, len_max: usize) -> bool {
    let legal = |c: u8| c.is_ascii_graphic() && c != b'"' && c != b'\\';
    !text.is_empty() && text.len() <= len_max && text.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scopes_are_rfc_6749_tokens() {
        assert!(ApiKeyTemplate::parse(&json!({ "scopes": ["orders:read", "a/b"] })).is_ok());
        for bad in ["", "a b", "a\"b", "a\\b", "é", "a\n"] {
            let parsed = ApiKeyTemplate::parse(&json!({ "scopes": [bad] }));
            assert!(matches!(parsed, Err(ApiKeyError::Scope(_))), "{bad:?}");
        }
        let long = "a".repeat(SCOPE_LEN_MAX + 1);
        assert!(ApiKeyTemplate::parse(&json!({ "scopes": [long] })).is_err());
        let many = vec!["a"; SCOPES_MAX + 1];
        assert!(ApiKeyTemplate::parse(&json!({ "scopes": many })).is_err());
    }

    #[test]
    fn an_unknown_key_is_refused() {
        for raw in [json!({ "scope": ["a"] }), json!({ "audience": "https://orders.example" })] {
            assert!(ApiKeyTemplate::parse(&raw).is_err(), "{raw}");
        }
    }
}
