//! An issuer by key file, for suites in which the identity is not what is tested.
//!
//! Invariant: it signs whatever claims a test wants, right or wrong.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use dayfly_lease::SystemEntropy;
use dayfly_server::identity::LocalIssuer;
use serde_json::{Value, json};
use uuid::Uuid;

/// Signs tokens of `https://ci.example.test`.
#[derive(Debug)]
pub struct Issuer(LocalIssuer);

impl Issuer {
    /// What it calls itself.
    pub const URL: &str = "https://ci.example.test";
    /// Whom its tokens are for.
    pub const AUDIENCE: &str = "https://dayfly.example.test";

    /// With a fresh key, whose public half is written to `jwks`.
    pub fn new(jwks: &Path) -> Self {
        let issuer = LocalIssuer::new(&SystemEntropy::new()).unwrap();
        std::fs::write(jwks, issuer.jwks().to_string()).unwrap();
        Self(issuer)
    }

    /// Seconds since 1970, as its tokens have them.
    pub fn now() -> u64 {
        now()
    }

    /// A good token of `subject`, with a `jti` of its own.
    pub fn token(&self, subject: &str) -> String {
        self.token_with(subject, json!({}))
    }

    /// A security event token with these claims, and no others.
    pub fn security_event(&self, claims: &Value) -> String {
        self.0.sign_as("secevent+jwt", claims)
    }

    /// The same as [`Self::token`] with other claims on top.
    pub fn token_with(&self, subject: &str, more: Value) -> String {
        let now = now();
        let mut random = [0; 16];
        dayfly_lease::Entropy::fill(&SystemEntropy::new(), &mut random);
        let mut claims = json!({
            "iss": Self::URL, "aud": Self::AUDIENCE, "sub": subject,
            "iat": now, "nbf": now, "exp": now + 300,
            "jti": Uuid::from_bytes(random).to_string(),
        });
        let Value::Object(more) = more else { panic!("claims are an object") };
        claims.as_object_mut().unwrap().extend(more);
        self.0.sign(&claims)
    }
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a test's own clock, not the broker's")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
