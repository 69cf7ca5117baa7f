use dayfly_backend_sdk::{Backend, Secret};
use serde_json::{Value, json};

use super::*;
use crate::HttpBackend;

/// An API of the usual kind, with some of its settings exchanged; null takes one away.
fn config(changes: &Value) -> Result<HttpConfig, String> {
    let mut raw = json!({
        "url": "https://api.example/v1",
        "headers": { "authorization": "Bearer {password}" },
        "create": { "path": "/keys", "body": { "name": "{handle}", "ttl": "{ttl_seconds}" } },
        "answer": { "secret": "/key", "id": "/id" },
        "revoke": { "path": "/keys/{id}" },
        "list": { "path": "/keys" },
        "items": { "name": "/name", "id": "/id" },
        "expiry": { "slack_s": 5 },
    });
    let table = raw.as_object_mut().unwrap();
    for (key, value) in changes.as_object().unwrap() {
        if value.is_null() {
            table.remove(key);
        } else {
            table.insert(key.clone(), value.clone());
        }
    }
    let mut config: HttpConfig = serde_json::from_value(raw).map_err(|error| error.to_string())?;
    "df_".clone_into(&mut config.prefix);
    config.password = Some(Secret::new("hunter2"));
    Ok(config)
}

fn backend(changes: &Value) -> Result<HttpBackend, String> {
    HttpBackend::new(&config(changes)?).map_err(|error| chain(&error))
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[test]
fn each_rule_has_its_fault() {
    let create =
        |key: &str, value: Value| json!({ "create": { "path": "/keys/{handle}", key: value }});
    for (changes, text) in [
        (json!({ "url": "http://api.example" }), "is no `https://` address"),
        (json!({ "url": "https://u:p@api.example" }), "is no `https://` address"),
        (json!({ "url": "https://api.example?a=b" }), "is no `https://` address"),
        (json!({ "timeout_ms": 1 }), "`timeout_ms` is 1, and 10 to"),
        (json!({ "name_len_max": 28 }), "longer than 28"),
        (json!({ "password": "x" }), "unknown field `password`"),
        (
            json!({ "headers": { "x": "{password} {handle}" } }),
            "{handle} cannot stand in its headers",
        ),
        (json!({ "headers": { "host": "{password}" } }), "`host` is no name of a header"),
        (json!({ "headers": { "a b": "{password}" } }), "`a b` is no name of a header"),
        (json!({ "headers": {} }), "`password` is used nowhere"),
        (json!({ "github_app": { "app_id": "1" } }), "no RSA private key"),
        (create("path", json!("/keys/{secret}")), "{secret} cannot stand in its URL"),
        (create("path", json!("/keys/{password}")), "{password} cannot stand in its URL"),
        (create("path", json!("keys")), "path must begin with `/`"),
        (create("path", json!("/a/../b")), "path must begin with `/`"),
        (create("path", json!("/a/%2E%2e/b")), "path must begin with `/`"),
        (create("path", json!("/a?b")), "path must begin with `/`"),
        (create("body", json!(["{password}"])), "{password} cannot stand in its headers and body"),
        (create("body", json!({ "a": "{handel}" })), "`{handel}` is no placeholder"),
        (create("body", json!({ "a": "{" })), "stands alone"),
        (create("method", json!("TRACE")), "`TRACE` is no method"),
        (create("gone", json!([404])), "it has no `gone`"),
        (create("ok", json!([99])), "the status 99 is none"),
        (create("ok", json!([409])), "stands in two lists"),
        (create("body", json!("x")), "`create` must tell it when"),
        (json!({ "create": { "path": "/k", "body": "{ttl_seconds}" } }), "must send {handle}"),
        (json!({ "revoke": { "path": "/keys", "conflict": [409] } }), "it has no `conflict`"),
        (json!({ "revoke": { "path": "/keys" } }), "must name the credential"),
        (json!({ "revoke": { "path": "/keys", "query": { "t": "{secret}" } } }), "in its URL"),
        (json!({ "answer": { "secret": "key" } }), "`key` is no JSON Pointer"),
        (json!({ "answer": { "secret": "/key" } }), "say where `answer` has it"),
        (json!({ "items": { "name": "/name" } }), "say where `items` have it"),
        (json!({ "items": null }), "`list` and `items` go together"),
        (json!({ "list": null, "items": null, "unique_names": false }), "needs `list`"),
        (json!({ "revoke": null, "expiry": null }), "nothing would end a credential"),
        (json!({ "expiry": { "slack_s": 1, "fixed": true } }), "needs the life"),
        (
            json!({ "expiry": null, "answer": { "secret": "/k", "id": "/i", "expires_at": "/e" } }),
            "say `expiry`",
        ),
        (json!({ "use": { "path": "/me" } }), "`use` must be made with {secret}"),
    ] {
        let error = backend(&changes).map(drop).unwrap_err();
        assert!(error.contains(text), "{changes}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn what_the_requests_cannot_do_is_not_declared() {
    let can = |changes: Value| {
        let backend = backend(&changes).unwrap();
        let can = backend.capabilities().clone();
        (can.revoke, can.verify, can.list, backend.keeps())
    };
    assert_eq!(can(json!({})), (true, true, false, true), "nobody owns the prefix");
    assert_eq!(can(json!({ "exclusive": true })), (true, true, true, true));
    let marker = json!({ "read": { "path": "/m" }, "text": "/t",
        "write": { "path": "/m", "body": { "t": "{marker}" } } });
    assert_eq!(can(json!({ "marker": marker })), (true, true, true, true));
    let by_name = json!({ "exclusive": true, "revoke": { "path": "/keys/{handle}" } });
    assert_eq!(can(by_name), (true, true, true, false));
    let of_a_role = json!({ "exclusive": true, "list": { "path": "/{role.team}/keys" } });
    assert_eq!(can(of_a_role), (true, true, false, true), "a name does not say its role");
    let by_secret = json!({ "exclusive": true,
        "revoke": { "path": "/key", "headers": { "authorization": "Bearer {secret}" } } });
    assert_eq!(can(by_secret), (true, true, false, true), "a name does not say its secret");
    assert!(!can(json!({ "revoke": null, "list": null, "items": null })).0);
}

#[test]
fn a_role_gives_what_is_asked_for_and_fits() {
    let changes = json!({
        "create": { "path": "/teams/{role.team}/keys", "headers": { "x-note": "{role.note}" },
            "body": { "name": "{handle}", "ttl": "{ttl_seconds}", "scopes": "{role.scopes}" } },
        "revoke": { "path": "/teams/{role.team}/keys/{id}" },
    });
    let backend = backend(&changes).unwrap();
    let good = json!({ "team": "a/b", "note": "x", "scopes": ["read"] });
    let with = |key: &str, value: Value| {
        let mut set = good.clone();
        set.as_object_mut().unwrap().insert(key.to_owned(), value);
        json!({ "set": set })
    };
    let template = |raw: Value| backend.template(&raw).map(drop).map_err(|error| chain(&error));
    assert_eq!(template(json!({ "set": good })), Ok(()));
    for (raw, text) in [
        (json!({}), "`set` lacks `note`, `scopes`, `team`"),
        (with("extra", json!(1)), "`set` has `extra`"),
        (with("team", json!("..")), "`create` cannot be made of it: a value makes a segment"),
        (with("team", json!("")), "a value makes a segment of the path empty"),
        (with("team", json!(["a"])), "{role.team} is a list or a table"),
        (with("note", json!("a\r\nx-admin: 1")), "a value cannot stand in a header"),
        (with("note", json!("é")), "a value cannot stand in a header"),
        (with("note", json!("x".repeat(20_000))), "bytes long as JSON"),
        (json!({ "set": good, "fields": { "token": "x" } }), "must not have `token`"),
        (json!({ "set": good, "variables": { "A": "none" } }), "the variable `A`"),
        (json!({ "set": good, "variables": { "a": "token" } }), "the variable `a`"),
        (json!({ "sett": good }), "unknown field `sett`"),
    ] {
        let error = template(raw.clone()).unwrap_err();
        assert!(error.contains(text), "{raw}: {error}");
    }
}
