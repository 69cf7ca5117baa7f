//! The example file.

use super::*;

const EXAMPLE: &str = include_str!("../../../../../config/dayfly.example.toml");

/// The files that the example refers to.
fn files(dir: &Path) {
    let private = [
        ("secrets/store-url", "postgres://dayfly:hunter2@db.example.com/dayfly\n".to_owned()),
        ("secrets/audit-key", "5f".repeat(32)),
        ("secrets/seal-key", "VVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVU=\n".to_owned()),
        ("secrets/orders-password", "hunter2\n".to_owned()),
        ("secrets/cluster-eu-token", "token".to_owned()),
        ("secrets/cluster-us-token", "token".to_owned()),
        ("secrets/github-webhook", "5f".repeat(32)),
        ("secrets/github-webhook-before", "5e".repeat(32)),
        ("secrets/github-api-token", "ghs_1\n".to_owned()),
        ("tls/key.pem", "key".to_owned()),
        ("tls/chain.pem", "chain".to_owned()),
        ("issuers/gitlab.json", "{}".to_owned()),
        ("issuers/cluster-eu.pem", "ca".to_owned()),
        ("issuers/spire.pem", "ca".to_owned()),
        ("policies/a.cedar", String::new()),
    ];
    for (name, text) in private {
        files::write(&dir.join(name), text.as_bytes(), 0o600);
    }
}

#[test]
fn the_example_loads() {
    let dir = TempDir::new().unwrap();
    files(dir.path());
    let file = dir.path().join("dayfly.toml");
    fs::write(&file, EXAMPLE).unwrap();
    let config = load(&file, &no_env).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!((config.issuers.len(), config.trust_domains.len()), (4, 1));
    assert_eq!(config.issuers.len(), 4);
    assert_eq!(config.aws_identities.len(), 1);
    let clusters: Vec<_> = config.clusters.iter().map(ClusterConfig::issuer_name).collect();
    assert_eq!(clusters, ["cluster-eu", "cluster-us"]);
    assert_eq!(config.backends.len(), 2);
    let roles: Vec<_> = config.roles.iter().map(|role| role.name.as_str()).collect();
    assert_eq!(roles, ["orders-read", "orders-migrate", "build-cache"]);
    let StoreConfig::Postgres { url, .. } = &config.store else { panic!("not the store") };
    assert_eq!(url.expose(), "postgres://dayfly:hunter2@db.example.com/dayfly");
}

/// What the example shows in comments is as right as the rest: with every comment that looks
/// like a key taken for one, it still loads, and with the values that it calls defaults.
#[test]
fn the_commented_keys_of_the_example_load() {
    let dir = TempDir::new().unwrap();
    files(dir.path());
    let file = dir.path().join("dayfly.toml");
    let is_key = |line: &str| {
        let key = line.strip_prefix("# ").and_then(|line| line.split_once(" = "));
        key.is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let shown = EXAMPLE.lines().filter(|line| is_key(line)).count();
    assert!(shown > 25, "only {shown} keys in comments");
    let text: Vec<_> = EXAMPLE
        .lines()
        .map(|line| if is_key(line) { line.trim_start_matches("# ") } else { line })
        .collect();
    fs::write(&file, text.join("\n")).unwrap();
    let config = load(&file, &no_env).unwrap_or_else(|faults| panic!("{faults}"));
    let limits = format!("{:?}", config.server.limits);
    assert_eq!(limits, format!("{:?}", LimitsConfig::default()));
    let tasks = format!("{:?}", config.tasks);
    assert_eq!(tasks, format!("{:?}", TaskConfig::default()));
    assert_eq!(config.audit.checkpoint, AuditConfig::default().checkpoint);
    assert_eq!(config.keep_ended.as_secs(), 35 * 86_400);
    let engine = format!("{:?}", config.engine);
    assert_eq!(engine, format!("{:?}", EngineConfig::default()));
    let tls = config.server.tls.unwrap();
    assert_eq!(tls.key_file, dir.path().join("tls/key.pem"));
    assert_eq!(tls.client_certificates, ClientCertificates::Spiffe);
    let [domain] = config.trust_domains.as_slice() else { panic!("not one trust domain") };
    let mut default = TrustDomainConfig::new(&*domain.name, domain.bundle.clone());
    default.audiences.clone_from(&domain.audiences);
    assert_eq!(*domain, default);
    let gitlab = config.issuers.iter().find(|issuer| issuer.name == "gitlab").unwrap();
    assert_eq!(gitlab.jwks_file, Some(dir.path().join("issuers/gitlab.json")));
    let cluster = config.clusters.first().unwrap();
    assert_eq!(cluster.ca_file, Some(dir.path().join("issuers/cluster-eu.pem")));
    let webhook = config.webhooks.first().unwrap();
    assert_eq!((webhook.issuer.as_str(), webhook.keys.len()), ("github", 2));
    let [poller] = config.pollers.as_slice() else { panic!("not one poller") };
    assert_eq!(poller.api_url.as_str(), "https://api.github.com/");
    assert_eq!(poller.interval, Duration::from_mins(1));
}
