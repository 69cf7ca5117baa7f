//! HTTP as the suites speak it.
//!
//! Invariant: an answer is looked at as it came, status and body, and never turned into an
//! error on the way.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};

/// A client of one broker.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body as JSON; null when it is none.
    pub body: Value,
    /// The body as it came.
    pub text: String,
    /// `Retry-After`.
    pub retry_after: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
}

/// What a problem may have besides what RFC 9457 names.
const PROBLEM_MEMBERS: [&str; 9] =
    ["type", "title", "status", "code", "detail", "request_id", "retryable", "denied_by", "errors"];

impl Answer {
    /// A member of the body as text.
    pub fn text(&self, pointer: &str) -> String {
        let value = self.body.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("no {pointer} in {}: {}", self.status, self.text)).to_owned()
    }

    /// A header's value; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts that it is a problem with this status and code, complete and without more
    /// than problems have.
    #[expect(clippy::return_self_not_must_use, reason = "the assertion is the use")]
    pub fn problem(self, status: u16, code: &str) -> Self {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!((self.status, self.text("/code").as_str()), (status, code), "{}", self.text);
        assert_eq!(self.body.get("status"), Some(&json!(status)), "{}", self.text);
        assert!(self.text("/type").ends_with(code), "{}", self.text);
        assert_eq!(self.text("/request_id"), self.header("x-request-id"), "{}", self.text);
        assert!(!self.text("/request_id").is_empty(), "{}", self.text);
        assert_eq!(self.header("cache-control"), "no-store", "{}", self.text);
        let members = self.body.as_object().unwrap();
        assert!(members.keys().all(|m| PROBLEM_MEMBERS.contains(&m.as_str())), "{}", self.text);
        self
    }

    /// A problem without what is another in each answer.
    pub fn without_request_id(&self) -> Value {
        let mut body = self.body.clone();
        body.as_object_mut().unwrap().remove("request_id");
        body
    }

    /// Asserts on the status.
    #[expect(clippy::return_self_not_must_use, reason = "the assertion is the use")]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }
}

impl Client {
    /// Of the broker at `url`.
    pub fn new(url: &str) -> Self {
        dayfly_server::identity::install_crypto();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(1));
        Self { http: http.build().unwrap(), url: url.to_owned(), token: None }
    }

    /// The same with a client of the test's own making.
    pub fn over(http: reqwest::Client, url: &str) -> Self {
        Self { http, url: url.to_owned(), token: None }
    }

    /// The same with a bearer.
    #[must_use]
    pub fn with(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same at another replica.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// The broker's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A request, to be sent as a test likes.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends; nothing when there was no answer.
    pub async fn send(request: RequestBuilder) -> Option<Answer> {
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.map(|value| value.to_str().unwrap().to_owned());
        let headers = response.headers().clone();
        let text = response.text().await.ok()?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        Some(Answer { status, body, text, retry_after, headers })
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Option<Answer> {
        Self::send(self.request(Method::GET, path)).await
    }

    /// POST; nothing when there was no answer.
    pub async fn try_post(&self, path: &str, body: Value) -> Option<Answer> {
        Self::send(self.request(Method::POST, path).json(&body)).await
    }

    /// POST.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.try_post(path, body).await.unwrap_or_else(|| panic!("no answer to POST {path}"))
    }

    /// Opens a task with the federated token that this client holds; gives its id and a
    /// client that holds its token.
    pub async fn open_task(&self) -> (String, Self) {
        let body = json!({ "purpose": "test", "ttl_seconds": 600 });
        let opened = self.post("/api/v1/tasks", body).await.expect(201);
        (opened.text("/id"), self.with(&opened.text("/token")))
    }

    /// Mints `role` with a task token.
    pub async fn mint(&self, role: &str) -> Answer {
        self.post("/api/v1/leases", json!({ "role": role })).await
    }

    /// Completes `task`, waiting up to `wait`.
    pub async fn complete(&self, task: &str, wait: &str) -> Answer {
        let path = format!("/api/v1/tasks/{task}/complete?wait={wait}");
        self.post(&path, json!({ "outcome": "completed" })).await
    }

    /// A lease as it is now.
    pub async fn lease(&self, id: &str) -> Answer {
        self.get(&format!("/api/v1/leases/{id}")).await.expect("an answer")
    }
}
