//! What the stand-in answers.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{Html, IntoResponse, Response},
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Site, World, tokens};
use crate::Issuer;

/// API servers send one a minute.
const BOOKMARK_EVERY: Duration = Duration::from_millis(200);

type Parameters = Query<HashMap<String, String>>;

/// `POST /apis/authentication.k8s.io/v1/tokenreviews`.
pub(super) async fn review(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
    Json(mut review): Json<Value>,
) -> Response {
    if let Some(refusal) = refusal(&site, "POST", "tokenreviews", &headers) {
        return refusal;
    }
    let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
    let wanted = review["spec"]["audiences"].as_array().cloned().unwrap_or_default();
    review["status"] = judge(&site, &token, &wanted).unwrap_or_else(
        |why| json!({ "user": {}, "error": format!("[invalid bearer token, {why}]") }),
    );
    review["metadata"] = json!({ "creationTimestamp": null });
    (StatusCode::CREATED, Json(review)).into_response()
}

/// What is said of a token that is to be for one of `wanted`.
fn judge(site: &Site, token: &str, wanted: &[Value]) -> Result<Value, &'static str> {
    let claims = site.signer.verified(token).ok_or("the signature does not hold")?;
    if claims["exp"].as_u64().is_none_or(|end| end <= Issuer::now()) {
        return Err("service account token has expired");
    }
    let own = claims["aud"].as_array().cloned().unwrap_or_default();
    let shared: Vec<&Value> = wanted.iter().filter(|audience| own.contains(audience)).collect();
    let world = site.world();
    if shared.is_empty() && !world.ignores_audiences {
        return Err("token audiences is invalid for the target audiences");
    }
    let kubernetes = &claims["kubernetes.io"];
    let text = |pointer: &str| kubernetes.pointer(pointer).and_then(Value::as_str);
    let namespace = text("/namespace").ok_or("Private claims are missing")?;
    let id = format!("JTI={}", claims["jti"].as_str().unwrap_or_default());
    let mut extra = json!({
        "authentication.kubernetes.io/credential-id": [id],
        "authentication.kubernetes.io/node-name": ["n1"],
        "authentication.kubernetes.io/node-uid": [tokens::NODE_UID],
    });
    if let (Some(name), Some(uid)) = (text("/pod/name"), text("/pod/uid")) {
        let there = world.pods.get(&(namespace.to_owned(), name.to_owned()));
        if there.is_none_or(|pod| pod["metadata"]["uid"] != uid) {
            return Err("service account token has been invalidated");
        }
        extra["authentication.kubernetes.io/pod-name"] = json!([name]);
        extra["authentication.kubernetes.io/pod-uid"] = json!([uid]);
    }
    let groups = json!(["system:serviceaccounts", "system:authenticated"]);
    let user = json!({
        "username": claims["sub"], "uid": tokens::ACCOUNT_UID, "groups": groups, "extra": extra,
    });
    let mut status = json!({ "authenticated": true, "user": user });
    if !world.ignores_audiences {
        status["audiences"] = json!(shared);
    }
    Ok(status)
}

/// `GET /api/v1/pods`, a list or a watch.
pub(super) async fn pods(
    State(site): State<Arc<Site>>,
    Query(parameters): Parameters,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let asked = uri.to_string();
    if let Some(refusal) = refusal(&site, "GET", &asked, &headers) {
        return refusal;
    }
    list_or_watch(&site, None, &parameters)
}

/// `GET /api/v1/namespaces/{namespace}/pods`.
pub(super) async fn pods_of(
    State(site): State<Arc<Site>>,
    Path(namespace): Path<String>,
    Query(parameters): Parameters,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let asked = uri.to_string();
    if let Some(refusal) = refusal(&site, "GET", &asked, &headers) {
        return refusal;
    }
    list_or_watch(&site, Some(namespace), &parameters)
}

/// `GET /api/v1/namespaces/{namespace}/pods/{name}`.
pub(super) async fn pod(
    State(site): State<Arc<Site>>,
    Path((namespace, name)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let asked = uri.to_string();
    if let Some(refusal) = refusal(&site, "GET", &asked, &headers) {
        return refusal;
    }
    let found = site.world().pods.get(&(namespace, name.clone())).cloned();
    found.map_or_else(
        || {
            let details = json!({ "name": name, "kind": "pods" });
            let message = format!("pods \"{name}\" not found");
            failure(StatusCode::NOT_FOUND, "NotFound", &message, &details)
        },
        |pod| Json(pod).into_response(),
    )
}

pub(super) async fn nothing() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

/// What is answered instead, if anything is; writes down what was asked.
fn refusal(site: &Site, method: &str, path: &str, headers: &HeaderMap) -> Option<Response> {
    let mut world = site.world();
    world.asked.push(format!("{method} {path}"));
    if world.is_down {
        let page = Html("<h1>502 Bad Gateway</h1>");
        return Some((StatusCode::BAD_GATEWAY, page).into_response());
    }
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let ours = format!("Bearer {}", world.ours);
    (given != Some(ours.as_str()))
        .then(|| failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized", &json!({})))
}

fn failure(code: StatusCode, reason: &str, message: &str, details: &Value) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "details": details, "code": code.as_u16(),
    });
    (code, Json(status)).into_response()
}

fn list_or_watch(
    site: &Arc<Site>,
    namespace: Option<String>,
    parameters: &HashMap<String, String>,
) -> Response {
    let after = parameters.get("resourceVersion").and_then(|version| version.parse().ok());
    match (parameters.get("watch").map(String::as_str), after) {
        (Some("1"), Some(after)) => watching(site, namespace, after),
        _ => list(&site.world(), namespace.as_deref(), parameters),
    }
}

/// Two pods a page at most, whatever is asked for, so that lists have pages.
fn list(world: &World, namespace: Option<&str>, parameters: &HashMap<String, String>) -> Response {
    const PAGE: usize = 2;
    let from: usize = parameters.get("continue").map_or(0, |from| from.parse().unwrap());
    let is_in = |pod: &&Value| namespace.is_none_or(|own| pod["metadata"]["namespace"] == own);
    let all: Vec<&Value> = world.pods.values().filter(is_in).collect();
    let items: Vec<&Value> = all.iter().copied().skip(from).take(PAGE).collect();
    let mut metadata = json!({ "resourceVersion": world.version.to_string() });
    if from + items.len() < all.len() {
        metadata["continue"] = json!((from + items.len()).to_string());
    }
    let list = json!({
        "kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items,
    });
    Json(list).into_response()
}

/// One who watches.
struct Watcher {
    site: Arc<Site>,
    namespace: Option<String>,
    /// The last version that was sent.
    after: u64,
    cuts: u64,
    /// Whether half of a line was sent, after which the connection breaks.
    is_torn: bool,
    /// Whether an error was sent, after which the answer ends.
    is_over: bool,
    changed: watch::Receiver<()>,
}

/// What comes next for one who watches.
enum Next {
    Cut,
    End,
    Line(Value),
    Nothing,
}

fn watching(site: &Arc<Site>, namespace: Option<String>, after: u64) -> Response {
    let cuts = site.world().cuts;
    let changed = site.changed.subscribe();
    let site = Arc::clone(site);
    let watcher = Watcher { site, namespace, after, cuts, is_torn: false, is_over: false, changed };
    let lines = stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.chunk().await?;
        Some((chunk, watcher))
    });
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, Body::from_stream(lines)).into_response()
}

impl Watcher {
    /// None at the end.
    async fn chunk(&mut self) -> Option<io::Result<Bytes>> {
        let mut is_time = false;
        loop {
            match self.look(is_time) {
                Next::Cut if self.is_torn => return Some(Err(io::Error::other("cut"))),
                Next::Cut => {
                    self.is_torn = true;
                    let torn = b"{\"type\":\"DELETED\",\"object\":{";
                    return Some(Ok(Bytes::from_static(torn)));
                }
                Next::End => return None,
                Next::Line(event) => return Some(Ok(Bytes::from(format!("{event}\n")))),
                Next::Nothing => {}
            }
            tokio::select! {
                _ = self.changed.changed() => {}
                () = tokio::time::sleep(BOOKMARK_EVERY) => is_time = true,
            }
        }
    }

    /// What comes next: a bookmark too, if nothing else does and it is time for one.
    fn look(&mut self, is_time: bool) -> Next {
        let world = self.site.world();
        if self.is_over {
            return Next::End;
        }
        if world.cuts != self.cuts {
            return Next::Cut;
        }
        if self.after < world.oldest {
            let message = format!("too old resource version: {} ({})", self.after, world.oldest);
            self.is_over = true;
            return Next::Line(json!({ "type": "ERROR", "object": {
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": message, "reason": "Expired", "code": 410,
            } }));
        }
        let (after, namespace) = (self.after, self.namespace.as_deref());
        let is_in = |event: &Value| {
            namespace.is_none_or(|own| event["object"]["metadata"]["namespace"] == own)
        };
        let mut news = world.events.iter().filter(|(version, _)| *version > after);
        if let Some((version, event)) = news.find(|(_, event)| is_in(event)) {
            self.after = *version;
            return Next::Line(event.clone());
        }
        if !is_time {
            return Next::Nothing;
        }
        // Everything up to now was sent.
        self.after = world.version;
        Next::Line(json!({ "type": "BOOKMARK", "object": {
            "kind": "Pod", "apiVersion": "v1",
            "metadata": { "resourceVersion": self.after.to_string(), "creationTimestamp": null },
            "spec": { "containers": null }, "status": {},
        } }))
    }
}
