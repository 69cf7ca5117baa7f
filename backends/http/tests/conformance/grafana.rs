//! Grafana's service account tokens, and a place for a marker.

use std::time::Duration;

use axum::http::Method;
use dayfly_backend_sdk::Timestamp;
use serde_json::{Value, json};

use super::{Asked, ROOT, Stage, Token, Told, told};

pub(super) fn answer(stage: &mut Stage, asked: &Asked<'_>) -> Told {
    let ours = asked.bearer() == ROOT;
    let nobody = || told(401, json!({ "message": "Invalid API key" }));
    match (asked.method, asked.segments) {
        (&Method::HEAD, _) => told(302, Value::Null),
        (_, ["api", "search"]) => match stage.bearer("grafana", asked.bearer()) {
            Some(_) => told(200, json!([])),
            None => nobody(),
        },
        (_, _) if !ours => nobody(),
        (&Method::POST, ["api", "serviceaccounts", "7", "tokens"]) => make(stage, asked),
        (&Method::GET, ["api", "serviceaccounts", "7", "tokens"]) => {
            let shown = |one: &&Token| one.api == "grafana" && !one.revoked;
            let item = |one: &Token| json!({ "id": one.id, "name": one.name, "expiration": one.expires.rfc3339() });
            let items: Vec<_> = stage.tokens.iter().filter(shown).map(item).collect();
            told(200, json!(items))
        }
        (&Method::DELETE, ["api", "serviceaccounts", "7", "tokens", id]) => {
            if stage.end("grafana", "7", id) {
                told(200, json!({ "message": "Service account token deleted" }))
            } else {
                told(404, json!({ "message": "service account token not found" }))
            }
        }
        (&Method::GET, ["marker"]) => match &stage.marker {
            Some(text) => told(200, json!({ "data": { "text": text } })),
            None => told(404, json!({ "message": "not found" })),
        },
        (&Method::PUT, ["marker"]) => {
            stage.marker = asked.body["text"].as_str().map(str::to_owned);
            told(200, json!({}))
        }
        _ => told(404, json!({ "message": "Not found" })),
    }
}

fn make(stage: &mut Stage, asked: &Asked<'_>) -> Told {
    let name = asked.body["name"].as_str().unwrap_or_default();
    let Some(seconds) = asked.body["secondsToLive"].as_u64().filter(|seconds| *seconds > 0) else {
        return told(
            400,
            json!({ "message": "Number of seconds before expiration should be set" }),
        );
    };
    let taken = |one: &Token| one.api == "grafana" && one.name == name && !one.revoked;
    if stage.tokens.iter().any(taken) {
        return told(400, json!({ "messageId": "serviceaccounts.ErrTokenAlreadyExists" }));
    }
    let expires = stage.now().plus(Duration::from_secs(seconds));
    let expires = Timestamp::from_seconds(expires.seconds());
    let (id, key) = stage.make("grafana", "7", name, expires);
    told(200, json!({ "id": id, "name": name, "key": key }))
}
