//! Goal: what is written wrong is refused when the configuration is loaded, not at a mint.

use serde_json::json;

use super::*;

fn sealed(raw: &Value) -> Result<Template, ConfigError> {
    PostgresTemplate::parse(raw)?.sealed("app")
}

#[test]
fn an_empty_template_has_safe_defaults() {
    let template = sealed(&json!({})).unwrap();
    let recipe: &Recipe = template.inner().unwrap();
    assert_eq!(recipe.scram_iterations.get(), 4096);
    assert_eq!(recipe.connection_limit, -1);
    assert_eq!(recipe.database, "app");
    let plan = EndPlan::read(template.plan()).unwrap();
    assert_eq!(plan.owned, Owned::Fail);
}

#[test]
fn wrong_templates_are_refused() {
    for raw in [
        json!({ "member": ["readers"] }),
        json!({ "scram_iterations": 0 }),
        json!({ "scram_iterations": 100_001 }),
        json!({ "connection_limit": -1 }),
        json!({ "member_of": [""] }),
        json!({ "member_of": ["a\0b"] }),
        json!({ "member_of": ["a".repeat(64)] }),
        json!({ "set": { "a b": "c" } }),
        json!({ "set": { "session_authorization": "postgres" } }),
        json!({ "set": { "work_mem": "\0" } }),
        json!({ "set": { "search_path": [] } }),
        json!({ "statements": ["SELECT {{password}}"] }),
        json!({ "statements": ["COMMIT"] }),
        json!({ "revoke_statements": ["SELECT {{expiration}}"] }),
        json!({ "statements": vec!["SELECT 1"; 65] }),
        json!({ "owned": "reassign:" }),
        json!({ "owned": "keep" }),
        json!({ "owned": "group" }),
        json!({ "owned": "group", "member_of": ["a", "b"] }),
        json!({ "database": "" }),
    ] {
        assert!(sealed(&raw).is_err(), "{raw}");
    }
}

#[test]
fn a_plan_goes_there_and_back() {
    let raw = json!({ "owned": "reassign:app_owner", "revoke_statements": ["SELECT {{name}}"] });
    let template = sealed(&raw).unwrap();
    let plan = EndPlan::read(template.plan()).unwrap();
    assert_eq!(plan.owned, Owned::Reassign("app_owner".into()));
    assert_eq!(plan.statements().unwrap().len(), 1);
    let group = sealed(&json!({ "owned": "group", "member_of": ["writers"] })).unwrap();
    let plan = EndPlan::read(group.plan()).unwrap();
    assert_eq!(plan.owned, Owned::Reassign("writers".into()));
    // As leases of before have it.
    let before = json!({ "database": "shop", "owned": "drop", "revoke_statements": [] });
    assert_eq!(EndPlan::read(&Plan(before)).unwrap().owned, Owned::Drop);
    assert_eq!(EndPlan::read(&Plan::default()).unwrap(), EndPlan::default());
    assert!(EndPlan::read(&Plan(json!({ "owner": "x" }))).is_err());
}

#[test]
fn configuration_defaults_to_verified_tls_except_on_a_socket() {
    let config: PostgresConfig = serde_json::from_value(json!({ "host": "db" })).unwrap();
    assert_eq!(config.tls(), Tls::VerifyFull);
    assert_eq!(config.check().unwrap().as_str(), "dayfly_");
    let config: PostgresConfig = serde_json::from_value(json!({ "host": "/run/pg" })).unwrap();
    assert_eq!(config.tls(), Tls::Disable);
    assert!(config.check().is_ok());
}

#[test]
fn wrong_configurations_are_refused() {
    let parse = serde_json::from_value::<PostgresConfig>;
    assert!(parse(json!({ "password": "x" })).is_err(), "the password is a reference");
    assert!(parse(json!({ "hots": "db" })).is_err());
    for raw in [
        json!({ "connections_max": 0 }),
        json!({ "statement_timeout_ms": 0 }),
        json!({ "clock_skew_ms_max": 60_001 }),
        json!({ "host": "" }),
        json!({ "database": "a\0b" }),
        json!({ "host": "/run/pg", "tls": "require" }),
        json!({ "prefix": "Dayfly-" }),
    ] {
        assert!(parse(raw.clone()).unwrap().check().is_err(), "{raw}");
    }
}
