//! Three APIs as their documentation has them, and what can go wrong with one.
//!
//! Invariant: its clock is in its answers and in nothing else, so that a test can let it run on.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Request, StatusCode},
    response::{IntoResponse, Response},
};
use dayfly_backend_sdk::{Secret, Timestamp, testkit::free_port};
use serde_json::{Value, json};
use time::macros::format_description;

mod github;
mod gitlab;
mod grafana;

pub(crate) use github::APP;

pub(crate) const ROOT: &str = "root-hunter2";
const PAGE: usize = 2;

/// A credential of one of the APIs.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) id: u64,
    pub(crate) api: &'static str,
    pub(crate) name: String,
    pub(crate) place: String,
    pub(crate) secret: String,
    pub(crate) expires: Timestamp,
    pub(crate) revoked: bool,
}

/// A request that came.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// Path and query, as they came.
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

/// What goes wrong with requests of one method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is done, and the answer is an error that repeats what was sent.
    DoneThen500,
    /// It is done, and the answer has no secret.
    DoneWithoutSecret,
    Forbidden,
    Huge,
    /// A proxy says 404 in HTML.
    Html404,
    Limited,
    NextElsewhere,
    NotJson,
    Redirect,
    Slow,
}

#[derive(Default)]
pub(crate) struct Stage {
    pub(crate) tokens: Vec<Token>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) fault: Option<(Method, Fault)>,
    pub(crate) marker: Option<String>,
    /// How far its clock is ahead of ours.
    pub(crate) ahead: Duration,
    /// How many days GitLab adds to what it is asked for.
    pub(crate) days_more: u64,
}

pub(crate) struct Server {
    pub(crate) port: u16,
    /// The App's private key.
    pub(crate) key: Secret,
    stage: Arc<Mutex<Stage>>,
}

impl Server {
    /// Runs until the tests end.
    pub(crate) fn start() -> Self {
        let port = free_port();
        let key = rsa_key();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stage: Arc<Mutex<Stage>> = Arc::default();
        let context = Context { stage: Arc::clone(&stage), public: github::public_key(&key) };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let router = Router::new().fallback(answer).with_state(context);
                axum::serve(listener, router).await.unwrap();
            });
        });
        Self { port, key, stage }
    }

    pub(crate) fn stage<T>(&self, act: impl FnOnce(&mut Stage) -> T) -> T {
        act(&mut self.stage.lock().unwrap())
    }

    pub(crate) fn fault(&self, method: Method, fault: Fault) {
        self.stage(|stage| stage.fault = Some((method, fault)));
    }

    pub(crate) fn well(&self) {
        self.stage(|stage| stage.fault = None);
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.stage(|stage| stage.now())
    }

    /// The requests of one method so far.
    pub(crate) fn seen(&self, method: &Method) -> Vec<Seen> {
        self.stage(|stage| stage.seen.iter().filter(|one| one.method == method).cloned().collect())
    }

    /// Credentials that are accepted now.
    pub(crate) fn live(&self) -> Vec<Token> {
        self.stage(|stage| {
            let now = stage.now();
            stage.tokens.iter().filter(|one| one.is_live(now)).cloned().collect()
        })
    }
}

impl Token {
    pub(crate) fn is_live(&self, now: Timestamp) -> bool {
        !self.revoked && now < self.expires
    }
}

impl Stage {
    pub(crate) fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap()).plus(self.ahead)
    }

    /// A new credential, and its id and secret.
    pub(crate) fn make(
        &mut self,
        api: &'static str,
        place: &str,
        name: &str,
        expires: Timestamp,
    ) -> (u64, String) {
        let id = u64::try_from(self.tokens.len()).unwrap() + 40;
        let secret = format!("{api}-secret-{id}");
        self.tokens.push(Token {
            id,
            api,
            name: name.to_owned(),
            place: place.to_owned(),
            secret: secret.clone(),
            expires,
            revoked: false,
        });
        (id, secret)
    }

    /// Whose secret this is, if it is accepted.
    fn bearer(&mut self, api: &str, secret: &str) -> Option<&mut Token> {
        let now = self.now();
        let is = |one: &&mut Token| one.api == api && one.secret == secret && one.is_live(now);
        self.tokens.iter_mut().find(is)
    }

    /// Ends the one with this id.
    fn end(&mut self, api: &str, place: &str, id: &str) -> bool {
        let is = |one: &&mut Token| {
            one.api == api && one.place == place && one.id.to_string() == id && !one.revoked
        };
        let found = self.tokens.iter_mut().find(is);
        found.map(|one| one.revoked = true).is_some()
    }
}

#[derive(Clone)]
struct Context {
    stage: Arc<Mutex<Stage>>,
    public: Vec<u8>,
}

/// What an API is asked: its path in segments as they came, and the rest of it.
struct Asked<'a> {
    method: &'a Method,
    segments: &'a [&'a str],
    query: &'a str,
    headers: &'a HeaderMap,
    body: &'a Value,
    public: &'a [u8],
    port: &'a str,
}

impl Asked<'_> {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn bearer(&self) -> &str {
        self.header("authorization").strip_prefix("Bearer ").unwrap_or_default()
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find_map(|(key, value)| (key == name).then_some(value))
    }
}

type Told = (StatusCode, HeaderMap, Value);

fn told(status: u16, body: Value) -> Told {
    (StatusCode::from_u16(status).unwrap(), HeaderMap::new(), body)
}

async fn answer(State(context): State<Context>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers: BTreeMap<_, _> =
        parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let target = parts.uri.path_and_query().unwrap().to_string();
    let fault = {
        let mut stage = context.stage.lock().unwrap();
        let seen = Seen { method: parts.method.clone(), target, headers, body: body.clone() };
        stage.seen.push(seen);
        let fault = stage.fault.as_ref().filter(|(method, _)| *method == parts.method);
        fault.map(|(_, fault)| *fault)
    };
    if fault == Some(Fault::Slow) {
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    if let Some(response) = fault.and_then(before) {
        return dated(&context, response);
    }
    let segments: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
    let (api, segments) = segments.split_first().unwrap();
    let host = parts.headers.get("host").unwrap().to_str().unwrap();
    let asked = Asked {
        method: &parts.method,
        segments,
        query: parts.uri.query().unwrap_or_default(),
        headers: &parts.headers,
        body: &body,
        public: &context.public,
        port: host.rsplit_once(':').unwrap().1,
    };
    let (status, headers, told) = {
        let mut stage = context.stage.lock().unwrap();
        match *api {
            "github" => github::answer(&mut stage, &asked),
            "gitlab" => gitlab::answer(&mut stage, &asked),
            "grafana" => grafana::answer(&mut stage, &asked),
            _ => told(404, json!({ "message": "no such API" })),
        }
    };
    let response = match fault {
        Some(Fault::DoneThen500) => {
            let what = json!({ "message": format!("failed at {told} {body}") });
            (StatusCode::INTERNAL_SERVER_ERROR, what.to_string()).into_response()
        }
        Some(Fault::DoneWithoutSecret) => {
            let mut told = told;
            for key in ["key", "token"] {
                told.as_object_mut().unwrap().remove(key);
            }
            (status, headers, told.to_string()).into_response()
        }
        _ if told.is_null() => (status, headers).into_response(),
        _ => (status, headers, told.to_string()).into_response(),
    };
    dated(&context, response)
}

/// What a fault answers before anything is done.
fn before(fault: Fault) -> Option<Response> {
    let html = "<html><h1>hunter2</h1></html>";
    Some(match fault {
        Fault::DoneThen500 | Fault::DoneWithoutSecret | Fault::Slow => return None,
        Fault::Forbidden => {
            let what = json!({ "message": format!("not with {ROOT}\u{1b}[31m") }).to_string();
            (StatusCode::FORBIDDEN, what).into_response()
        }
        Fault::Html404 => (StatusCode::NOT_FOUND, html).into_response(),
        Fault::Huge => Bytes::from(vec![b' '; 20 << 20]).into_response(),
        Fault::Limited => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "30")], "{}").into_response()
        }
        Fault::NextElsewhere => {
            let link = r#"<https://elsewhere.example/?page=2>; rel="next""#;
            ([("link", link)], "[]").into_response()
        }
        Fault::NotJson => html.into_response(),
        Fault::Redirect => {
            let to = "https://elsewhere.example/";
            (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response()
        }
    })
}

fn dated(context: &Context, mut response: Response) -> Response {
    let now = context.stage.lock().unwrap().now().offset();
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let date = now.format(&format).unwrap().parse().unwrap();
    response.headers_mut().insert("date", date);
    response
}

/// PKCS#1, as GitHub gives it.
fn rsa_key() -> Secret {
    let output = Command::new("openssl").args(["genrsa", "-traditional", "2048"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    Secret::new(String::from_utf8(output.stdout).unwrap())
}
