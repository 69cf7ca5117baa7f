//! Signed API keys, as a service takes them that has the published keys and asks nobody: `jose`
//! verifies what a real broker has minted.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use dayfly_integration::{Answer, Broker, BrokerConfig, Client, Store, eventually, root};
use reqwest::Method;
use serde_json::{Value, json};

const ISSUER: &str = "https://dayfly.example.test";
const AUDIENCE: &str = "https://orders.example.test";

/// A backend whose keys are signed with the file `name`, while `published` are published too.
fn jwt(name: &str, published: &[String]) -> String {
    format!(
        "[backend.jwt]\nissuer = \"{ISSUER}\"\nsigning_key = {{ file = \"{name}\" }}\n\
         published_keys = {published:?}\nleeway_s = 0\n"
    )
}

fn config(jwt: &str) -> BrokerConfig {
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    write!(
        config.more,
        "[[backend]]\nname = \"signed\"\nkind = \"api-key\"\nprefix = \"s_\"\n{jwt}\
         [[role]]\nname = \"orders\"\nbackend = \"signed\"\nowner = \"test\"\nttl = \"5m\"\n\
         ttl_max = \"15m\"\n[role.template]\naudience = \"{AUDIENCE}\"\n\
         scopes = [\"orders:read\", \"orders:list\"]\nclaims = {{ tier = \"gold\" }}\n"
    )
    .unwrap();
    config
}

/// A new private key in the broker's directory, as an administrator makes one; gives its public
/// half.
fn new_key(directory: &Path, name: &str, kind: &[&str]) -> String {
    let path = directory.join(name);
    let mut make = Command::new("openssl");
    let made = make.arg("genpkey").args(kind).arg("-out").arg(&path).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut show = Command::new("openssl");
    let shown = show.args(["pkey", "-pubout", "-in"]).arg(&path).output().unwrap();
    assert!(shown.status.success(), "{shown:?}");
    String::from_utf8(shown.stdout).unwrap()
}

const P256: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const ED25519: [&str; 2] = ["-algorithm", "ed25519"];

/// What a service for `audience` makes of `token`, with the broker's published keys.
fn verified(broker: &Broker, token: &str, audience: &str) -> Value {
    let peers = root().join("integration/.peers");
    let module = peers.join("node_modules/jose");
    assert!(module.exists(), "jose is not installed; run integration/test once");
    let jwks = format!("{}/.well-known/jwks.json", broker.client().url());
    let mut node = Command::new("node");
    node.arg(root().join("integration/peers/verify-jwt.mjs")).args([
        jwks.as_str(),
        ISSUER,
        audience,
    ]);
    node.env("PEERS", &peers).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = node.spawn().expect("node is installed (Debian: nodejs)");
    child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(broker: &Broker, token: &str, audience: &str) -> String {
    let answer = verified(broker, token, audience);
    answer["refused"].as_str().unwrap_or_else(|| panic!("accepted: {answer}")).to_owned()
}

async fn introspect(client: &Client, token: &str) -> Answer {
    let request = client.request(Method::POST, "/oauth2/introspect");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    Client::send(request.body(format!("token={token}"))).await.unwrap().expect(200)
}

/// `token` with another signature under it.
fn tampered(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (first, rest) = signature.split_at(1);
    format!("{message}.{}{rest}", if first == "A" { "B" } else { "A" })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_key_is_verified_by_who_never_asks_and_lives_to_its_end() {
    let mut broker = Broker::configure(config(&jwt("jwt-key", &[])));
    new_key(broker.path(), "jwt-key", &P256);
    let canary = broker.command(&["check", "--canary"]);
    assert!(canary.status.success(), "{canary:?}");
    broker.resume().await;

    let published = broker.client().get("/.well-known/jwks.json").await.unwrap().expect(200);
    assert_eq!(published.header("cache-control"), "public, max-age=300");
    assert_eq!(published.header("content-type"), "application/jwk-set+json");
    assert_eq!(published.body["keys"].as_array().unwrap().len(), 1);
    assert!(!published.text.contains("\"d\""), "{}", published.text);

    let (_, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let lease = owner.mint("orders").await.expect(201);
    let (id, token) = (lease.text("/id"), lease.text("/credential/key"));
    assert_eq!(lease.body["belts"], json!(["native_expiry"]));
    assert_eq!(lease.body["renewable"], json!(false));
    let said = verified(&broker, &token, AUDIENCE);
    let header = json!({
        "alg": "ES256", "typ": "at+jwt", "kid": published.text("/keys/0/kid"),
    });
    assert_eq!(said["header"], header);
    let claims = &said["claims"];
    let expected = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": lease.text("/principal"),
        "client_id": lease.text("/principal"), "jti": id, "scope": "orders:read orders:list",
        "tier": "gold", "iat": claims["iat"], "exp": claims["exp"],
    });
    assert_eq!(claims, &expected);
    let other = refused(&broker, &token, "https://invoices.example.test");
    assert_eq!(other, "ERR_JWT_CLAIM_VALIDATION_FAILED");
    let tampered = tampered(&token);
    let forged = refused(&broker, &tampered, AUDIENCE);
    assert_eq!(forged, "ERR_JWS_SIGNATURE_VERIFICATION_FAILED");

    // Who asks is told the same, and the proxy for whom it is.
    let known = introspect(&owner, &token).await.body;
    for (name, value) in
        [("active", json!(true)), ("aud", json!([AUDIENCE])), ("token_type", json!("Bearer"))]
    {
        assert_eq!(known[name], value, "{known}");
    }
    for name in ["iss", "sub", "client_id", "jti", "scope", "iat", "exp"] {
        assert_eq!(known[name], claims[name], "{name}: {known}");
    }
    assert_eq!(introspect(&owner, &tampered).await.body, json!({ "active": false }));
    let passed = broker.client().with(&token).get("/verify").await.unwrap().expect(200);
    assert_eq!(passed.header("x-dayfly-audience"), AUDIENCE);

    let renew = format!("/api/v1/leases/{id}/renew");
    owner.post(&renew, json!({ "ttl_seconds": 60 })).await.problem(409, "not_renewable");

    // Revoked: who asks hears it at once, and it is not called dead, because it is not.
    let revoke = format!("/api/v1/leases/{id}/revoke?wait=10s");
    let revoked = owner.post(&revoke, json!({ "reason": "test" })).await.expect(202);
    assert_eq!(revoked.text("/state"), "revoking");
    assert_eq!(introspect(&owner, &token).await.body, json!({ "active": false }));
    broker.client().with(&token).get("/verify").await.unwrap().problem(401, "unauthenticated");
    assert_eq!(verified(&broker, &token, AUDIENCE)["claims"], expected);
    let owed = owner.lease(&id).await;
    assert_eq!(owed.text("/last_error"), "lingers");
    assert!(owed.text("/residual_until") > owed.text("/expires_at"), "{}", owed.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_receipt_comes_after_its_end_and_says_so() {
    let mut broker = Broker::configure(config(&jwt("jwt-key", &[])));
    new_key(broker.path(), "jwt-key", &ED25519);
    broker.resume().await;
    let (_, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let body = json!({ "role": "orders", "ttl_seconds": 2 });
    let lease = owner.post("/api/v1/leases", body).await.expect(201);
    let (id, token) = (lease.text("/id"), lease.text("/credential/key"));
    let dead = eventually("it is dead", Duration::from_secs(30), async || {
        let lease = owner.lease(&id).await;
        (lease.text("/state") == "revoked").then_some(lease)
    })
    .await;
    assert!(dead.text("/revoked_at") >= lease.text("/residual_until"), "{}", dead.text);
    assert_eq!(refused(&broker, &token, AUDIENCE), "ERR_JWT_EXPIRED");
    let records = broker.audit().await;
    let of = |event: &str| {
        let mut found = records.iter().filter(|r| r["event"] == event && r["lease"] == id.as_str());
        found.next().unwrap_or_else(|| panic!("no {event}: {records:?}"))
    };
    assert_eq!(of("lease.lingers")["detail"]["class"], "lingers");
    assert_eq!(of("lease.revoked")["detail"]["proof"], "native_expiry");
}

/// Publish the next key, switch to it, drop the one before: no token that is alive is refused.
#[tokio::test(flavor = "multi_thread")]
async fn keys_roll_over_and_old_tokens_stay_good_as_long_as_theirs_is_published() {
    let mut broker = Broker::configure(config("JWT\n"));
    let first = new_key(broker.path(), "first", &P256);
    let second = new_key(broker.path(), "second", &ED25519);
    let template = fs::read_to_string(broker.config_file()).unwrap();
    let configure = |broker: &Broker, name: &str, published: &[String]| {
        let text = template.replace("JWT\n", &jwt(name, published));
        fs::write(broker.config_file(), text).unwrap();
    };
    configure(&broker, "first", std::slice::from_ref(&second));
    broker.resume().await;
    let (_, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let old = owner.mint("orders").await.expect(201).text("/credential/key");
    assert_eq!(verified(&broker, &old, AUDIENCE)["header"]["alg"], "ES256");

    broker.kill();
    configure(&broker, "second", std::slice::from_ref(&first));
    broker.resume().await;
    let new = owner.mint("orders").await.expect(201).text("/credential/key");
    assert_eq!(verified(&broker, &new, AUDIENCE)["header"]["alg"], "EdDSA");
    assert_eq!(verified(&broker, &old, AUDIENCE)["header"]["alg"], "ES256");
    assert_eq!(introspect(&owner, &old).await.body["active"], json!(true));

    broker.kill();
    configure(&broker, "second", &[]);
    broker.resume().await;
    assert_eq!(verified(&broker, &new, AUDIENCE)["header"]["alg"], "EdDSA");
    assert_eq!(refused(&broker, &old, AUDIENCE), "ERR_JWKS_NO_MATCHING_KEY");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_refuses_what_would_live_too_long_or_is_for_nobody() {
    let good = config(&jwt("jwt-key", &[])).more;
    for (from, to, fault) in [
        ("leeway_s = 0", "leeway_s = 0\nttl_max_s = 7200", "`jwt.ttl_max_s` is 7200"),
        ("ttl_max = \"15m\"", "ttl_max = \"16m\"", "more than the backend's maximum of 900 s"),
        ("audience = ", "# audience = ", "missing field `audience`"),
        ("tier = ", "sub = ", "`sub` cannot be a claim of a role"),
        (ISSUER, "http://dayfly.example.test", "is no `https://` address"),
        ("leeway_s = 0", "leeway = 0", "backend.signed.jwt.leeway: unknown key"),
    ] {
        assert!(good.contains(from), "{from}");
        let mut config = BrokerConfig::new(Store::Sqlite, None);
        config.more = good.replace(from, to);
        let broker = Broker::configure(config);
        new_key(broker.path(), "jwt-key", &P256);
        let checked = broker.command(&["check"]);
        let text = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(!checked.status.success() && text.contains(fault), "{to}: {text}");
    }
}
