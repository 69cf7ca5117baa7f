//! Tokens of a platform that is known: what it would not make, and what falls into its traps,
//! is refused, and the audit log says which claim or trap it was.

use std::{fmt::Write as _, path::Path, process::Command};

use data_encoding::BASE64URL_NOPAD;
use dayfly_integration::{BrokerConfig, Issuer, Store};
use ring::{
    rand::SystemRandom,
    rsa::KeyPair,
    signature::{RSA_PKCS1_SHA256, RsaPublicKeyComponents},
};
use serde_json::{Value, json};

use super::{Scene, identity::opening};

/// Signs as GitHub Actions does.
struct Github(KeyPair);

impl Github {
    /// With a fresh key, whose public half is written to `jwks`. ring makes no RSA keys, so
    /// OpenSSL makes it.
    fn new(jwks: &Path) -> Self {
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

    /// A token of a job, with other claims on top.
    fn token(&self, number: usize, more: Value) -> String {
        let now = Issuer::now();
        let mut claims = json!({
            "iss": "https://token.actions.githubusercontent.com", "aud": Issuer::AUDIENCE,
            "sub": "repo:octo-org@123456/octo-repo@456789:ref:refs/heads/main",
            "jti": format!("j-{number}"), "iat": now, "nbf": now, "exp": now + 300,
            "event_name": "push", "ref_protected": "true", "repository": "octo-org/octo-repo",
            "repository_id": "456789", "repository_owner_id": "123456",
            "run_id": "17000000001", "run_attempt": "1",
        });
        let Value::Object(more) = more else { panic!("claims are an object") };
        claims.as_object_mut().unwrap().extend(more);
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "k1", "x5t": "eBZ_cn3sXYA" });
        let part = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        let message = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.0.public().modulus_len()];
        let random = SystemRandom::new();
        self.0.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
        format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platforms_traps_are_refused_and_named_in_the_audit_log() {
    let directory = tempfile::tempdir().unwrap();
    let jwks = directory.path().join("github.json");
    let github = Github::new(&jwks);
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    write!(
        config.more,
        "[[issuer]]\nname = \"github\"\npreset = \"github\"\naudience = \"{}\"\n\
         jwks_file = \"{}\"\n",
        Issuer::AUDIENCE,
        jwks.display()
    )
    .unwrap();
    let scene = Scene::with(config, None).await;
    let client = scene.broker.client();
    client.with(&github.token(0, json!({}))).open_task().await;
    let cases = [
        (json!({ "event_name": "pull_request_target" }), "trapped", "pull-request-target"),
        (json!({ "event_name": "workflow_run" }), "trapped", "workflow-run"),
        (json!({ "repository_id": null }), "claim_missing", "repository_id"),
        (json!({ "repository_id": "0456789" }), "claim_malformed", "repository_id"),
        (json!({ "ref_protected": "True" }), "claim_malformed", "ref_protected"),
    ];
    for (number, (more, code, about)) in cases.into_iter().enumerate() {
        let request = opening(&client.with(&github.token(number + 1, more)));
        let noted = [("identity.refused", code)];
        scene.refused(request, (401, "unauthenticated"), &noted).await;
        let record = scene.broker.audit().await.pop().unwrap();
        assert_eq!(record["detail"]["about"], about, "{record}");
    }
    // A fresh token for each request: the same one opens no second task.
    let again = opening(&client.with(&github.token(0, json!({}))));
    scene.refused(again, (401, "unauthenticated"), &[("identity.refused", "replayed")]).await;
}
