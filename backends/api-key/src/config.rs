//! The template of a role at this backend.
//!
//! Invariant: scopes are what RFC 6749 allows, so that introspection can join them with
//! spaces.

use dayfly_backend_sdk::{Plan, Template};
use serde::Deserialize;
use serde_json::Value;

use crate::ApiKeyError;

const SCOPES_MAX: usize = 64;
const SCOPE_LEN_MAX: usize = 128;

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
        if parsed.scopes.len() > SCOPES_MAX {
            return Err(ApiKeyError::Scopes { count: parsed.scopes.len(), count_max: SCOPES_MAX });
        }
        match parsed.scopes.iter().find(|scope| !is_scope(scope)) {
            Some(bad) => Err(ApiKeyError::Scope(bad.clone())),
            None => Ok(parsed),
        }
    }

    /// The template as the engine carries it. The plan is empty: a key's handle is all that
    /// its end needs.
    pub(crate) fn sealed(self) -> Template {
        Template::new(Plan::default(), self)
    }
}

/// `scope-token` of RFC 6749, section 3.3: printable ASCII without space, `"` and `\`.
fn is_scope(scope: &str) -> bool {
    let legal = |c: u8| c.is_ascii_graphic() && c != b'"' && c != b'\\';
    !scope.is_empty() && scope.len() <= SCOPE_LEN_MAX && scope.bytes().all(legal)
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
        assert!(ApiKeyTemplate::parse(&json!({ "scope": ["a"] })).is_err());
    }
}
