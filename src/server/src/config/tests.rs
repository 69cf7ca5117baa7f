use std::fs;

use tempfile::TempDir;

use super::*;
use crate::identity::Platform;

mod bad;
mod example;
mod files;

/// A configuration without a fault, to which tests add one.
const GOOD: &str = r#"
[store]
kind = "sqlite"
path = "dayfly.db"

[policies]
dir = "."
"#;

const ISSUER: &str = r#"
[[issuer]]
name = "github"
issuer = "https://token.actions.githubusercontent.com"
audience = "https://dayfly.example.com"
"#;

const BACKEND: &str = r#"
[[backend]]
name = "orders"
kind = "postgres"
prefix = "dayfly_"
"#;

const ROLE: &str = r#"
[[role]]
name = "reader"
backend = "orders"
owner = "orders-team"
ttl = "15m"
ttl_max = "1h"
"#;

fn no_env(_: &str) -> Option<String> {
    None
}

fn env(name: &str) -> Option<String> {
    match name {
        "URL" => Some("postgres://dayfly:hunter2@localhost/dayfly".to_owned()),
        "PASSWORD" => Some("hunter2".to_owned()),
        "KEY" => Some("5f".repeat(32)),
        "WORDS" => Some("two words".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn parse_in(dir: &Path, text: &str) -> Result<Config, Faults> {
    parse(text, "dayfly.toml", dir, &env)
}

fn faults_of(text: &str) -> Vec<Fault> {
    let dir = TempDir::new().unwrap();
    parse_in(dir.path(), text).map(|config| format!("{config:?}")).unwrap_err().0
}

#[test]
fn a_small_configuration_has_every_default() {
    let dir = TempDir::new().unwrap();
    let config = parse_in(dir.path(), GOOD).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8420");
    assert_eq!(config.server.limits.body_bytes_max, 65_536);
    assert_eq!(config.tasks.ttl_max.as_secs(), 6 * 3_600);
    let (min, max) = (config.tasks.heartbeat_min, config.tasks.heartbeat_max);
    assert_eq!((min.as_secs(), max.as_secs()), (10, 600));
    assert_eq!(config.keep_ended.as_secs(), 35 * 86_400);
    let settings = dayfly_lease::Settings::default();
    assert_eq!(config.engine.mint_within, settings.mint_within);
    assert_eq!(config.engine.settings().sweep_every, settings.sweep_every);
    assert_eq!(config.telemetry.log_format, LogFormat::Text);
    assert_eq!(config.policies.dir, dir.path().join("."));
    let StoreConfig::Sqlite { path } = config.store else { panic!("not the store") };
    assert_eq!(path, dir.path().join("dayfly.db"));
    assert!(config.roles.is_empty() && config.issuers.is_empty() && config.backends.is_empty());
}

#[test]
fn a_role_is_read_whole() {
    let dir = TempDir::new().unwrap();
    let text = format!(
        "{GOOD}{BACKEND}password = {{ env = \"PASSWORD\" }}\n{ROLE}renewable = false\n\
         labels = {{ environment = \"production\" }}\n\
         template = {{ member_of = [\"a\"], limit = 3, nested = {{ on = true, ratio = 0.5 }} }}\n"
    );
    let config = parse_in(dir.path(), &text).unwrap();
    let role = config.roles.first().unwrap();
    assert_eq!((role.ttl.as_secs(), role.ttl_max.as_secs()), (900, 3_600));
    assert!(!role.renewable);
    assert_eq!(role.labels.get("environment").map(String::as_str), Some("production"));
    assert_eq!(
        role.template,
        serde_json::json!({
            "member_of": ["a"], "limit": 3, "nested": { "on": true, "ratio": 0.5 }
        })
    );
    let password = config.backends.first().unwrap().password.as_ref();
    assert_eq!(password.map(dayfly_backend_sdk::Secret::expose), Some("hunter2"));
}

#[test]
fn a_preset_fills_in_what_is_not_written_and_changes_nothing_that_is() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("keys.json"), "{}").unwrap();
    let text = format!(
        "{GOOD}[[issuer]]\nname = \"github\"\npreset = \"github\"\naudience = \"a\"\n\
         [[issuer]]\nname = \"gitlab\"\npreset = \"gitlab\"\naudience = \"a\"\n\
         issuer = \"https://gitlab.example.com\"\nsingle_use = true\n\
         token_age_max_seconds = 3600\nallow_traps = [\"fork-merge-request\"]\n\
         [[issuer]]\nname = \"google\"\npreset = \"google\"\naudience = \"a\"\n\
         jwks_file = \"keys.json\"\n"
    );
    let config = parse_in(dir.path(), &text).unwrap_or_else(|faults| panic!("{faults}"));
    let [github, gitlab, google] = config.issuers.as_slice() else { panic!("three issuers") };
    let of = |platform, name: &str, issuer: &str| IssuerConfig::of(platform, name, issuer, "a");
    let known = of(Platform::Github, "github", "https://token.actions.githubusercontent.com");
    assert_eq!(*github, known);
    assert!(github.single_use && github.ignore_x5t);
    let mut known = of(Platform::Gitlab, "gitlab", "https://gitlab.example.com");
    assert!(!known.single_use, "one token for the whole job");
    assert!(known.first_key_binds, "and one process that has it");
    known.single_use = true;
    known.first_key_binds = false;
    known.token_age_max_seconds = 3_600;
    known.allow_traps = vec!["fork-merge-request".to_owned()];
    assert_eq!(*gitlab, known);
    assert_eq!(google.issuer, "https://accounts.google.com");
    assert_eq!((&google.jwks_url, google.jwks_file.is_some()), (&None, true));
}

#[test]
fn a_poller_asks_where_its_issuer_says_or_where_it_is_told() {
    let dir = TempDir::new().unwrap();
    let issuer = |name: &str, url: &str| {
        format!("[[issuer]]\nname = \"{name}\"\nissuer = \"{url}\"\naudience = \"a\"\n")
    };
    let asks_at = |issuer_url: &str, kind: &str, more: &str| {
        let text = format!(
            "{GOOD}{}[[poller]]\nname = \"p\"\nkind = \"{kind}\"\nissuer = \"ci\"\n\
             token = {{ env = \"KEY\" }}\n{more}",
            issuer("ci", issuer_url)
        );
        let config = parse_in(dir.path(), &text).unwrap_or_else(|faults| panic!("{faults}"));
        let [poller] = config.pollers.as_slice() else { panic!("one poller") };
        assert_eq!(poller.token.read().unwrap().expose(), "5f".repeat(32));
        (poller.api_url.to_string(), poller.interval.as_secs())
    };
    let github = "https://token.actions.githubusercontent.com";
    for (issuer, kind, more, expected) in [
        (github, "github", "", ("https://api.github.com/", 60)),
        (format!("{github}/octo-ent").as_str(), "github", "", ("https://api.github.com/", 60)),
        ("https://gitlab.com", "gitlab", "", ("https://gitlab.com/api/v4", 60)),
        ("https://git.example/lab/", "gitlab", "", ("https://git.example/lab/api/v4", 60)),
        (
            "https://agent.buildkite.com",
            "buildkite",
            "interval = \"10s\"",
            ("https://api.buildkite.com/v2", 10),
        ),
        (
            "https://git.example/_services/token",
            "github",
            "api_url = \"https://git.example/api/v3\"",
            ("https://git.example/api/v3", 60),
        ),
        (github, "github", "api_url = \"http://127.0.0.1:8080\"", ("http://127.0.0.1:8080/", 60)),
    ] {
        let (url, seconds) = asks_at(issuer, kind, more);
        assert_eq!((url.as_str(), seconds), expected, "{issuer} {kind}");
    }
}

#[test]
fn faults_found_later_have_their_lines() {
    let dir = TempDir::new().unwrap();
    let text = format!("{GOOD}{BACKEND}host = \"db\"\n{ROLE}template = {{ member_of = [] }}\n");
    let config = parse_in(dir.path(), &text).unwrap();
    let (backend, role) = (config.backends.first().unwrap(), config.roles.first().unwrap());
    assert_eq!(
        backend.fault("host", "no such host").to_string(),
        "dayfly.toml:13:8: backend.orders.host: no such host"
    );
    assert_eq!(
        backend.fault("port", "closed").to_string(),
        "dayfly.toml:9:1: backend.orders.port: closed"
    );
    assert_eq!(
        role.fault("template.member_of", "nobody").to_string(),
        "dayfly.toml:21:26: role.reader.template.member_of: nobody"
    );
}

#[test]
fn debug_shows_no_secret() {
    let dir = TempDir::new().unwrap();
    let text = format!(
        "[store]\nkind = \"postgres\"\nurl = {{ env = \"URL\" }}\n[policies]\ndir = \".\"\n\
         [audit]\nsigning_key = {{ env = \"KEY\" }}\n\
         {BACKEND}password = {{ env = \"PASSWORD\" }}\npasword = \"hunter2\"\n{ROLE}"
    );
    let debug = format!("{:#?}", parse_in(dir.path(), &text).unwrap());
    assert!(debug.contains("pasword"), "{debug}");
    for secret in ["hunter2", "5f5f", "95,"] {
        assert!(!debug.contains(secret), "{debug}");
    }
}

#[test]
fn a_fault_shows_no_secret() {
    let text = format!(
        "[store]\nkind = \"postgres\"\nurl = \"postgres://dayfly:hunter2@localhost/dayfly\"\n\
         [policies]\ndir = \".\"\n[audit]\nsigning_key = \"hunter2\"\n\
         {BACKEND}password = \"hunter2\"\n\
         [[role]]\nname = [\"hunter2\"]\nttl = \"hunter2\"\nttl_max = true\n"
    );
    let faults = Faults(faults_of(&text));
    assert!(faults.0.len() >= 6, "{faults}");
    assert!(!format!("{faults} {faults:?}").contains("hunter2"), "{faults}");
}

#[test]
fn backends_are_inspected_even_when_other_sections_are_at_fault() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("dayfly.toml");
    fs::write(&file, format!("{GOOD}{BACKEND}{ROLE}tll = \"1m\"\n")).unwrap();
    let inspect =
        |backends: &[BackendConfig], roles: &[RoleConfig], _: Option<&PolicyConfig>, _: Given| {
            let backends = backends.iter().map(|backend| backend.fault("kind", "not built in"));
            backends.chain(roles.iter().map(|role| role.fault("template", "is needed"))).collect()
        };
    let faults = load_with(&file, &no_env, &inspect).unwrap_err().0;
    let found: Vec<_> = faults.iter().map(|fault| (fault.line, fault.key.as_str())).collect();
    assert_eq!(
        found,
        [(11, "backend.orders.kind"), (14, "role.reader.template"), (20, "role.reader.tll")]
    );
}
