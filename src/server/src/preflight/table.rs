//! What each backend can, as a table for people.

use std::time::Duration;

use dayfly_backend_sdk::{Capabilities, Expiry};

const HEAD: &str = "\
| backend | kind | ends by itself | revoke | ends sessions | looks | lists | renew | refuses a late mint | shortest life | longest life |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

/// In Markdown, one line for each of `backends`, by its name.
pub fn table<'a>(backends: impl IntoIterator<Item = (&'a str, &'a Capabilities)>) -> String {
    let mut text = HEAD.to_owned();
    for (name, can) in backends {
        let expiry = match can.expiry {
            Expiry::None => "no".to_owned(),
            Expiry::Native { slack, .. } if slack.is_zero() => "at its end".to_owned(),
            Expiry::Native { slack, life_min } if life_min.is_zero() => {
                format!("within {}", seconds(slack))
            }
            Expiry::Native { slack, life_min } => {
                format!("within {}, after {} at least", seconds(slack), seconds(life_min))
            }
        };
        let facts =
            [can.revoke, can.session_kill, can.verify, can.list, can.renew, can.deadline_guard];
        let facts = facts.map(|fact| if fact { "yes" } else { "no" }).join(" | ");
        let shortest = seconds(can.ttl_min);
        let longest = can.ttl_max.map_or_else(|| "any".to_owned(), seconds);
        let lives = format!("{shortest} | {longest}");
        let line = format!("| {name} | {} | {expiry} | {facts} | {lives} |\n", can.kind);
        text.push_str(&line);
    }
    text
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use dayfly_backend_api_key::{KeyStore, MemoryKeyStore};
    use dayfly_backend_sdk::Timestamp;
    use dayfly_lease::{Entropy, SystemEntropy};

    use super::*;
    use crate::{config, preflight};

    /// One of each kind, with the least that it asks for.
    const EACH: &str = r#"
store = { kind = "sqlite", path = "dayfly.db" }
policies = { dir = "." }
[[backend]]
name = "keys"
kind = "api-key"
prefix = "a_"
[[backend]]
name = "program"
kind = "exec"
prefix = "b_"
command = "/usr/local/lib/dayfly/program"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
[[backend]]
name = "api"
kind = "http"
prefix = "h_"
url = "https://api.example"
exclusive = true
create = { path = "/keys", body = { name = "{handle}" } }
answer = { secret = "/key" }
revoke = { path = "/keys/{handle}" }
list = { path = "/keys" }
items = { name = "/name" }
[[backend]]
name = "api-token"
kind = "http"
prefix = "i_"
url = "https://api.example"
expiry = { slack_s = 60, life_min_s = 3600, fixed = true }
create = { path = "/tokens" }
answer = { secret = "/token" }
revoke = { path = "/token", headers = { authorization = "Bearer {secret}" }, gone = [401] }
verify = { path = "/me", headers = { authorization = "Bearer {secret}" }, gone = [401] }
[[backend]]
name = "aws"
kind = "aws"
prefix = "j_"
region = "eu-central-1"
[[backend]]
name = "aws-belt"
kind = "aws"
prefix = "k_"
region = "eu-central-1"
deny_policies = ["arn:aws:iam::123456789012:policy/dayfly-deny"]
[[backend]]
name = "aws-users"
kind = "aws"
prefix = "l_"
region = "eu-central-1"
mode = "user"
[[backend]]
name = "mysql"
kind = "mysql"
prefix = "c_"
[[backend]]
name = "postgres"
kind = "postgres"
prefix = "d_"
[[backend]]
name = "rabbitmq"
kind = "rabbitmq"
prefix = "g_"
url = "https://rabbit.example:15671"
[[backend]]
name = "redis"
kind = "redis"
prefix = "e_"
nodes = ["localhost"]
[[backend]]
name = "redis-pair"
kind = "redis"
prefix = "f_"
nodes = ["one.example", "two.example"]
[[backend]]
name = "signed"
kind = "api-key"
prefix = "m_"
[backend.jwt]
issuer = "https://dayfly.example"
signing_key = { env = "SIGNING_KEY" }
[[backend]]
name = "signed-asked"
kind = "api-key"
prefix = "n_"
[backend.jwt]
issuer = "https://dayfly.example"
signing_key = { env = "SIGNING_KEY" }
introspected = true
"#;

    /// A fresh key, as `openssl genpkey -algorithm ed25519` writes one.
    fn signing_key() -> String {
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let body = data_encoding::BASE64.encode(pkcs8.as_ref());
        format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
    }

    #[tokio::test]
    async fn the_document_has_what_the_backends_declare() {
        let directory = tempfile::TempDir::new().unwrap();
        let env = |name: &str| (name == "SIGNING_KEY").then(signing_key);
        let parsed = config::parse(EACH, "dayfly.toml", directory.path(), &env);
        let config = parsed.unwrap_or_else(|faults| panic!("{faults}"));
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
        let keys: Arc<dyn KeyStore> = Arc::new(MemoryKeyStore::new(Timestamp::EPOCH));
        let built = preflight::backends(&config.backends, &keys, &entropy).unwrap();
        let kinds: std::collections::BTreeSet<_> =
            config.backends.iter().map(|backend| backend.kind.as_str()).collect();
        assert_eq!(kinds.len(), config::BackendKind::ALL.len(), "one of each kind is here");
        let named = built.by_name.iter().map(|(name, one)| (name.as_str(), one.capabilities()));
        let table = table(named);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/backends.md");
        let document = std::fs::read_to_string(path).unwrap();
        assert!(document.contains(&table), "docs/backends.md must have this table:\n{table}");
    }
}
