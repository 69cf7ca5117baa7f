//! Keys that are signed tokens (RFC 9068): whoever has the published keys can verify one
//! without asking us.
//!
//! Invariant: a token names its issuer, its audience and its end, and none is signed for longer
//! than the configuration's longest life: nothing ends one earlier for somebody who never asks.

mod config;
mod key;
mod template;

pub use config::JwtConfig;
pub(crate) use template::JwtTemplate;

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use dayfly_backend_sdk::{Capabilities, Expiry, MintRequest, Plan, Secret, Template, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use self::key::{PublicKey, SigningKey};
use crate::ApiKeyError;

/// `exp` is whole seconds and rounded up, so that no token ends before its lease.
const ROUNDING: Duration = Duration::from_secs(1);

/// Who decides about a token each time it is used. A lease's plan remembers it, so that a
/// changed configuration changes nothing of what is out already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verified {
    /// Whoever has the published keys: it works until its `exp`, whatever we do.
    Anywhere,
    /// We, by introspection: it works until we say that it does not.
    Here,
}

impl Verified {
    /// The plan of a lease. It has what revoking must know and nothing of the token.
    pub(crate) fn plan(self) -> Plan {
        let verified = match self {
            Self::Anywhere => "anywhere",
            Self::Here => "here",
        };
        Plan(json!({ "jwt": verified }))
    }

    /// What a lease's plan remembers; none of a key that is not signed.
    pub(crate) fn of(plan: &Plan) -> Option<Self> {
        let said = plan.0.get("jwt")?;
        // What we do not know is not taken for dead.
        Some(if said.as_str() == Some("here") { Self::Here } else { Self::Anywhere })
    }
}

/// Signs tokens under one name.
#[derive(Debug)]
pub(crate) struct Issuer {
    name: String,
    key: SigningKey,
    published: Vec<PublicKey>,
    ttl_max: Duration,
    leeway: Duration,
    verified: Verified,
}

impl Issuer {
    pub(crate) fn new(config: &JwtConfig) -> Result<Self, ApiKeyError> {
        config.check()?;
        let pem = config.signing_key.as_ref().ok_or(ApiKeyError::SigningKeyMissing)?;
        let key = SigningKey::from_pem(pem).ok_or(ApiKeyError::SigningKey)?;
        let published =
            config.published_keys.iter().enumerate().map(|(index, pem)| {
                PublicKey::from_pem(pem).ok_or(ApiKeyError::PublishedKey(index))
            });
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        Ok(Self {
            name: config.issuer.clone().ok_or(ApiKeyError::IssuerMissing)?,
            key,
            published: published.collect::<Result<_, _>>()?,
            ttl_max: seconds(config.ttl_max_s),
            leeway: seconds(config.leeway_s),
            verified: if config.introspected { Verified::Here } else { Verified::Anywhere },
        })
    }

    /// What follows from who verifies.
    pub(crate) fn capabilities(&self) -> Capabilities {
        let asked = self.verified == Verified::Here;
        let slack = if asked { Duration::ZERO } else { self.leeway + ROUNDING };
        Capabilities {
            kind: "api_key",
            expiry: Expiry::Native { slack, life_min: Duration::ZERO },
            revoke: asked,
            session_kill: false,
            // The table has what introspection knows. Of a token that works without it, that
            // is neither a proof of its death nor a list of what is alive.
            verify: asked,
            list: asked,
            renew: false,
            deadline_guard: true,
            ttl_min: Duration::from_secs(1),
            ttl_max: Some(self.ttl_max),
            handle_len_max: 63,
        }
    }

    pub(crate) fn template(&self, raw: &Value) -> Result<Template, ApiKeyError> {
        Ok(Template::new(self.verified.plan(), JwtTemplate::parse(raw)?))
    }

    /// The token of `request`, signed at `now` by the store's clock.
    pub(crate) fn sign(
        &self,
        template: &JwtTemplate,
        request: &MintRequest<'_>,
        now: Timestamp,
    ) -> Result<Secret, ApiKeyError> {
        let (asked_s, most_s) = (request.expires_at.since(now).as_secs(), self.ttl_max.as_secs());
        if asked_s > most_s {
            return Err(ApiKeyError::Long { asked_s, most_s });
        }
        self.key.token(&self.claims(template, request, now)).ok_or(ApiKeyError::Unsigned)
    }

    fn claims(
        &self,
        template: &JwtTemplate,
        request: &MintRequest<'_>,
        now: Timestamp,
    ) -> Map<String, Value> {
        let mut claims = template.claims.clone();
        let audience = match template.audience.as_slice() {
            [one] => json!(one),
            several => json!(several),
        };
        let end = request.expires_at.plus(ROUNDING).minus(Duration::from_micros(1));
        let ours = [
            ("iss", json!(self.name)),
            ("sub", json!(request.principal)),
            ("client_id", json!(request.principal)),
            ("aud", audience),
            ("iat", json!(now.seconds())),
            ("exp", json!(end.seconds())),
            ("jti", json!(request.lease)),
        ];
        claims.extend(ours.map(|(name, value)| (name.to_owned(), value)));
        if !template.scopes.is_empty() {
            claims.insert("scope".to_owned(), json!(template.scopes.join(" ")));
        }
        claims
    }

    /// What is published (RFC 7517): the key that signs, then the others.
    pub(crate) fn jwks(&self) -> Vec<Value> {
        let mut keys = vec![self.key.public().jwk()];
        for key in &self.published {
            let key = key.jwk();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }
}

/// What a token says of itself, as far as introspection repeats it. Nothing is verified here:
/// it is as true as whoever showed the token, until [`ApiKeyBackend::verify_key`] has found it.
///
/// [`ApiKeyBackend::verify_key`]: crate::ApiKeyBackend::verify_key
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct JwtClaims {
    /// Who signed it.
    pub iss: String,
    /// Whom it is for.
    #[serde(deserialize_with = "template::one_or_several")]
    pub aud: Vec<String>,
    /// Who it was minted for.
    pub client_id: String,
    /// When it was signed, in seconds since 1970.
    pub iat: i64,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
}

impl JwtClaims {
    /// What `token` says; none if it is not one of ours by its form.
    pub fn of(token: &str) -> Option<Self> {
        let [_, claims, _] = parts(token)?;
        serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?).ok()
    }
}

/// Whether `text` looks like a signed token. Says nothing about whether it is one.
pub(crate) fn is_token(text: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    parts(text)
        .is_some_and(|parts| parts.iter().all(|part| !part.is_empty() && part.bytes().all(legal)))
}

/// Header, claims and signature.
fn parts(token: &str) -> Option<[&str; 3]> {
    let (header, rest) = token.split_once('.')?;
    let (claims, signature) = rest.split_once('.')?;
    Some([header, claims, signature])
}

#[cfg(test)]
mod tests;
