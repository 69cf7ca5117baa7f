//! A CI platform as an issuer: it signs with RS256, and its tokens say what its preset asks for.
//!
//! Invariant: it signs whatever claims a test wants on top, right or wrong.

use std::{path::Path, process::Command};

use data_encoding::BASE64URL_NOPAD;
use dayfly_lease::SystemEntropy;
use ring::{
    rand::SystemRandom,
    rsa::KeyPair,
    signature::{RSA_PKCS1_SHA256, RsaPublicKeyComponents},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Issuer;

/// Signs as GitHub Actions and GitLab CI do.
#[derive(Debug)]
pub struct Platform(KeyPair);

impl Platform {
    /// What its GitLab calls itself; its GitHub is the one that there is.
    pub const GITLAB: &str = "https://gitlab.example.test";

    /// With a fresh key, whose public half is written to `jwks`. ring makes no RSA keys, so
    /// OpenSSL makes it.
    pub fn new(jwks: &Path) -> Self {
        let made = Command::new("openssl")
            .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
            .args(["-outform", "DER"])
            .output()
            .expect("openssl (Debian: openssl)");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let der = &made.stdout;
        let pair = KeyPair::from_pkcs8(der).or_else(|_| KeyPair::from_der(der)).unwrap();
        let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
        let keys = json!({ "keys": [{
            "kty": "RSA", "alg": "RS256", "use": "sig", "kid": "k1",
            "n": BASE64URL_NOPAD.encode(&public.n), "e": BASE64URL_NOPAD.encode(&public.e),
        }] });
        std::fs::write(jwks, keys.to_string()).unwrap();
        Self(pair)
    }

    /// A token of a job of GitHub Actions.
    pub fn github(&self, more: Value) -> String {
        let claims = json!({
            "iss": "https://token.actions.githubusercontent.com",
            "sub": "repo:octo-org@123456/octo-repo@456789:ref:refs/heads/main",
            "event_name": "push", "ref_protected": "true", "repository": "octo-org/octo-repo",
            "repository_id": "456789", "repository_owner_id": "123456",
            "run_id": "17000000001", "run_attempt": "1",
        });
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "k1", "x5t": "eBZ_cn3sXYA" });
        self.sign(&header, claims, more)
    }

    /// A token of a job of GitLab CI.
    pub fn gitlab(&self, more: Value) -> String {
        let claims = json!({
            "iss": Self::GITLAB, "sub": "project_path:grp/app:ref_type:branch:ref:main",
            "namespace_id": "72", "namespace_path": "grp", "project_id": "20",
            "project_path": "grp/app", "job_id": "302", "job_project_id": "20",
            "ref": "main", "ref_type": "branch", "ref_protected": "true",
        });
        self.sign(&json!({ "alg": "RS256", "typ": "JWT", "kid": "k1" }), claims, more)
    }

    fn sign(&self, header: &Value, own: Value, more: Value) -> String {
        let now = Issuer::now();
        let mut random = [0; 16];
        dayfly_lease::Entropy::fill(&SystemEntropy::new(), &mut random);
        let mut claims = json!({
            "aud": Issuer::AUDIENCE, "iat": now, "nbf": now, "exp": now + 300,
            "jti": Uuid::from_bytes(random).to_string(),
        });
        for object in [own, more] {
            let Value::Object(object) = object else { panic!("claims are an object") };
            claims.as_object_mut().unwrap().extend(object);
        }
        let part = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        let message = format!("{}.{}", part(header), part(&claims));
        let mut signature = vec![0; self.0.public().modulus_len()];
        let random = SystemRandom::new();
        self.0.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
        format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}
