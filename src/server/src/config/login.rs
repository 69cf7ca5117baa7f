//! `[login]`: how people sign in at the command line.
//!
//! Invariant: it names an issuer of people that is trusted, and is no secret: everybody may read
//! it, before anybody has signed in.

use super::{
    fault::Wrong,
    section::{Section, list, one_of, text},
};
use crate::identity::{IssuerConfig, Kind};

/// Which of an OpenID provider's tokens is shown to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoginToken {
    /// The access token, where the provider issues JWTs for our audience (RFC 9068).
    Access,
    /// The ID token (OpenID Connect Core 1.0 §2).
    #[default]
    Id,
}

/// `[login]`.
#[derive(Clone, Debug)]
pub struct LoginConfig {
    /// The issuer's URL, byte for byte.
    pub issuer: String,
    /// A client that is registered there without a secret.
    pub client_id: String,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// Which token is shown to us.
    pub token: LoginToken,
}

impl LoginToken {
    const WORDS: [(&str, Self); 2] = [("access_token", Self::Access), ("id_token", Self::Id)];

    /// Its word in the configuration and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access_token",
            Self::Id => "id_token",
        }
    }
}

/// Reads it in a configuration with issuers of these names, of which `issuers` are whole.
pub(super) fn read(
    section: &Section<'_>,
    names: &[&str],
    issuers: &[IssuerConfig],
) -> Option<LoginConfig> {
    let issuer = section.required("issuer", text);
    let client_id = section.required("client_id", text);
    let scopes = section.optional("scopes", list);
    let token = section.optional("token", one_of(&LoginToken::WORDS)).unwrap_or_default();
    let issuer = issuer?;
    if !names.contains(&issuer.as_str()) {
        let unknown = Wrong::unknown("issuer", &issuer, names);
        let message = format!("no issuer has the name `{issuer}`");
        section.fault_absent("issuer", Wrong { message, ..unknown });
    }
    let scopes = scopes.unwrap_or_else(|| vec!["openid".to_owned()]);
    let is_scope = |scope: &String| !scope.is_empty() && !scope.contains(char::is_whitespace);
    if !scopes.iter().all(is_scope) {
        section.fault("scopes", "a scope is one word");
    }
    if token == LoginToken::Id && !scopes.iter().any(|scope| scope == "openid") {
        section.fault("scopes", "there is an ID token only if `openid` is among them");
    }
    // One with faults of its own is told of there.
    let found = issuers.iter().find(|known| known.name == issuer)?;
    if found.kind != Kind::Human {
        section.fault("issuer", format!("the subjects of `{issuer}` are no people"));
    }
    let client_id = client_id?;
    if token == LoginToken::Id && found.audience != client_id {
        section.fault(
            "client_id",
            format!(
                "an ID token's audience is its client, and `{issuer}` takes tokens for `{}`",
                found.audience
            ),
        );
    }
    Some(LoginConfig { issuer: found.issuer.clone(), client_id, scopes, token })
}
