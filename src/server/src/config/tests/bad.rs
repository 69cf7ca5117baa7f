//! Bad configurations, one for each rule.
//!
//! `bad.txt` holds what is added to a good configuration. Behind `#!` in a line stands the
//! fault that this line must have, to the letter; no other line may have any. `KINDS` stands
//! for the kinds of backends.

use super::*;

const CASES: &str = include_str!("bad.txt");

/// What `=== name` stands for: the good configuration that the cases below it are added to.
fn base(name: &str) -> String {
    match name {
        "good" => GOOD.to_owned(),
        "issuer" => format!("{GOOD}{ISSUER}"),
        "backend" => format!("{GOOD}{BACKEND}"),
        "role" => format!("{GOOD}{BACKEND}{ROLE}"),
        "policies" => "[policies]\ndir = \".\"\n".to_owned(),
        "store" => "[store]\nkind = \"sqlite\"\npath = \"a\"\n".to_owned(),
        name => panic!("no base is called {name}"),
    }
}

#[test]
fn each_rule_has_its_fault_on_its_line() {
    let dir = TempDir::new().unwrap();
    let mut count = 0;
    for group in CASES.split("=== ").filter(|group| !group.is_empty()) {
        let (name, cases) = group.split_once('\n').unwrap();
        let base = base(name);
        let whole = !["policies", "store"].contains(&name);
        assert_eq!(parse_in(dir.path(), &base).is_ok(), whole, "{name}");
        for case in cases.split("---\n") {
            let text = format!("{base}{case}");
            let expected: Vec<_> = text
                .lines()
                .enumerate()
                .filter_map(|(index, line)| {
                    Some((index + 1, line.split_once("#! ")?.1.replace("KINDS", &kinds())))
                })
                .collect();
            assert!(!expected.is_empty(), "nothing is expected of {case}");
            let Err(Faults(faults)) = parse_in(dir.path(), &text) else { panic!("good: {case}") };
            let found: Vec<_> = faults
                .iter()
                .map(|fault| {
                    let text = fault.to_string().replace(&dir.path().display().to_string(), "DIR");
                    (fault.line, text.splitn(4, ':').nth(3).unwrap().trim_start().to_owned())
                })
                .collect();
            assert_eq!(found, expected, "{case}");
            count += 1;
        }
    }
    assert!(count > 80, "only {count} cases");
}

fn kinds() -> String {
    BackendKind::ALL.map(|kind| format!("\"{}\"", kind.as_str())).join(" or ")
}

#[test]
fn sections_that_must_be_there() {
    for (text, key) in [(base("policies"), "store"), (base("store"), "policies")] {
        let faults = faults_of(&text);
        let found: Vec<_> = faults.iter().map(|fault| (fault.line, fault.key.as_str())).collect();
        assert_eq!(found, [(1, key)]);
    }
}

#[test]
fn names_have_a_length() {
    let before = format!("{GOOD}{BACKEND}");
    let with = |length| ROLE.replace("reader", &"r".repeat(length));
    let dir = TempDir::new().unwrap();
    assert!(parse_in(dir.path(), &format!("{before}{}", with(63))).is_ok());
    assert_eq!(faults_of(&format!("{before}{}", with(64))).len(), 1);
}

/// Ten faults of ten kinds are ten faults.
#[test]
fn all_faults_are_reported_at_once() {
    let text = r#"[server]
listen = "0.0.0.0:8420"
tsl = { cert_file = "a" }
[store]
kind = "sqlite"
path = ""
path = "b"
[policies]
dir = "none"
[audit]
signing_key = "literal"
[[issuer]]
name = "github"
issuer = "https://token.actions.githubusercontent.com"
[[backend]]
name = "orders"
kind = "postgress"
prefix = "dayfly_"
[[backend]]
name = "more"
kind = "api-key"
prefix = "dayfly_"
[[role]]
name = "reader"
backend = "odrers"
owner = "a"
ttl = 900
ttl_max = "1h"
"#;
    let dir = TempDir::new().unwrap();
    let faults = parse_in(dir.path(), text).unwrap_err().to_string();
    let faults = faults.replace(&dir.path().display().to_string(), "DIR");
    let found: Vec<_> = faults.lines().collect();
    let kind = format!(
        "dayfly.toml:17:8: backend.orders.kind: expected {} (did you mean `postgres`?)",
        kinds()
    );
    assert_eq!(
        found,
        [
            "dayfly.toml:2:10: server.listen: outside loopback TLS is needed: set `tls`, or \
             `behind_tls_proxy = true` if a proxy in front ends it",
            "dayfly.toml:3:1: server.tsl: unknown key (did you mean `tls`?)",
            "dayfly.toml:6:8: store.path: must not be empty",
            "dayfly.toml:7:1: store.path: duplicate key",
            "dayfly.toml:9:7: policies.dir: `DIR/none` is not a directory",
            "dayfly.toml:11:15: audit.signing_key: a secret must not stand here; write a \
             reference to a secret, { file = \"…\" } or { env = \"NAME\" }",
            "dayfly.toml:12:1: issuer.github.audience: the key `audience` is missing",
            kind.as_str(),
            "dayfly.toml:22:10: backend.more.prefix: it is the prefix at dayfly.toml:18; \
             each backend would kill the other's credentials",
            "dayfly.toml:25:11: role.reader.backend: no backend has the name `odrers` (did you \
             mean `orders`?)",
            "dayfly.toml:27:7: role.reader.ttl: expected a duration with its unit, for example \
             \"15m\", found a whole number (did you mean `\"900s\"`?)",
        ]
    );
}

#[test]
fn a_quota_that_means_nothing_is_a_fault() {
    let dir = TempDir::new().unwrap();
    let quotas = "quotas = { leases = 0, lease_per_principal = 3 }\n";
    let text = format!("{GOOD}{BACKEND}quotas = {{ mints_per_minute = 5 }}\n{ROLE}{quotas}");
    let faults = parse_in(dir.path(), &text).unwrap_err().to_string();
    let found: Vec<_> = faults.lines().collect();
    assert_eq!(
        found,
        [
            "dayfly.toml:21:21: role.reader.quotas.leases: must be between 1 and 100000",
            "dayfly.toml:21:24: role.reader.quotas.lease_per_principal: unknown key (did you \
             mean `leases_per_principal`?)",
        ]
    );
}
