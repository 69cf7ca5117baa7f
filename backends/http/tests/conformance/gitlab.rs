//! GitLab's project access tokens.

use std::time::Duration;

use axum::http::{HeaderValue, Method};
use dayfly_backend_sdk::Timestamp;
use serde_json::{Value, json};

use super::{Asked, PAGE, ROOT, Stage, Token, Told, told};

/// The path of a project, as a segment.
const PROJECT: &str = "web%2Fsite";

pub(super) fn answer(stage: &mut Stage, asked: &Asked<'_>) -> Told {
    let token = asked.header("private-token");
    if let ["personal_access_tokens", "self"] = asked.segments {
        return match stage.bearer("gitlab", token) {
            Some(_) => told(200, json!({ "active": true })),
            None => told(401, json!({ "message": "401 Unauthorized" })),
        };
    }
    if *asked.method == Method::HEAD {
        return told(404, Value::Null);
    }
    if token != ROOT {
        return told(401, json!({ "message": "401 Unauthorized" }));
    }
    let ["projects", project, "access_tokens", rest @ ..] = asked.segments else {
        return told(404, json!({ "error": "404 Not Found" }));
    };
    if *project != PROJECT {
        return told(404, json!({ "message": "404 Project Not Found" }));
    }
    match (asked.method, rest) {
        (&Method::POST, []) => make(stage, asked, project),
        (&Method::GET, []) => list(stage, asked),
        (&Method::DELETE, [id]) if stage.end("gitlab", project, id) => told(204, Value::Null),
        _ => told(404, json!({ "message": "404 project Access Token Not Found" })),
    }
}

/// A name that is there is no matter to it.
fn make(stage: &mut Stage, asked: &Asked<'_>, project: &str) -> Told {
    let text = |key: &str| asked.body[key].as_str().unwrap_or_default().to_owned();
    let midnight = |date: &str| Timestamp::parse_rfc3339(&format!("{date}T00:00:00Z"));
    let Some(expires) = midnight(&text("expires_at")) else {
        return told(400, json!({ "error": "expires_at is invalid" }));
    };
    let expires = expires.plus(Duration::from_hours(24 * stage.days_more));
    let (id, secret) = stage.make("gitlab", project, &text("name"), expires);
    let date: String = expires.rfc3339().chars().take(10).collect();
    told(
        201,
        json!({ "id": id, "name": text("name"), "token": secret, "expires_at": date,
        "active": true, "revoked": false, "scopes": asked.body["scopes"],
        "access_level": asked.body["access_level"] }),
    )
}

fn list(stage: &Stage, asked: &Asked<'_>) -> Told {
    let now = stage.now();
    let active = asked.parameter("state") == Some("active");
    let shown = |one: &&Token| one.api == "gitlab" && (!active || one.is_live(now));
    let all: Vec<_> = stage.tokens.iter().filter(shown).collect();
    let page: usize = asked.parameter("page").map_or(1, |page| page.parse().unwrap());
    let item = |one: &&Token| {
        json!({ "id": one.id, "name": one.name, "active": one.is_live(now),
            "revoked": one.revoked, "expires_at": one.expires.rfc3339().split_once('T').unwrap().0 })
    };
    let items: Vec<Value> = all.iter().skip((page - 1) * PAGE).take(PAGE).map(item).collect();
    let mut answer = told(200, json!(items));
    let at = |page: usize| {
        format!(
            "http://127.0.0.1:{}/gitlab/projects/web%2Fsite/access_tokens?state=active&page={page}",
            asked.port
        )
    };
    let mut links = format!("<{}>; rel=\"first\"", at(1));
    if all.len() > page * PAGE {
        links = format!("<{}>; rel=\"next\", {links}", at(page + 1));
    }
    answer.1.insert("link", HeaderValue::from_str(&links).unwrap());
    answer
}
