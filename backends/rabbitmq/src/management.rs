//! The management API: one request, one answer.

use std::time::Duration;

use dayfly_backend_sdk::{Secret, percent_encode};
use reqwest::{Certificate, Client, Method, StatusCode, redirect::Policy};
use serde_json::Value;
use url::Url;

use crate::{
    config::{ConfigError, RabbitmqConfig},
    error::Failure,
};

const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
const REASON_MAX: usize = 200;

/// The API, and our user at it.
pub(crate) struct Management {
    client: Client,
    url: Url,
    username: String,
    password: Secret,
}

/// A status and a body.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Management {
    pub(crate) fn new(config: &RabbitmqConfig, url: &Url) -> Result<Self, ConfigError> {
        // The one provider that the whole program has; an error says that it is there already.
        rustls::crypto::ring::default_provider().install_default().ok();
        let timeout = Duration::from_millis(u64::from(config.timeout_ms));
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .https_only(url.scheme() == "https")
            .timeout(timeout)
            .connect_timeout(timeout)
            .user_agent("dayfly-server");
        if let Some(path) = &config.ca_file {
            let unread = |cause: Box<dyn std::error::Error + Send + Sync>| ConfigError::CaFile {
                path: path.clone(),
                cause,
            };
            let pem = std::fs::read(path).map_err(|error| unread(error.into()))?;
            let roots = Certificate::from_pem_bundle(&pem).map_err(|error| unread(error.into()))?;
            if roots.is_empty() {
                return Err(unread("there is no certificate in it".into()));
            }
            builder = builder.tls_certs_only(roots);
        }
        let client = builder.build().map_err(ConfigError::Client)?;
        let password = config.password.clone().unwrap_or_else(|| Secret::new(""));
        Ok(Self { client, url: url.clone(), username: config.username.clone(), password })
    }

    /// Who we are.
    pub(crate) fn username(&self) -> &str {
        &self.username
    }

    /// A path of names; each is one segment whatever is in it.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let login = (self.username.as_str(), self.password.expose());
        self.ask_as(login, method, path, body).await
    }

    /// The same as somebody else.
    pub(crate) async fn ask_as(
        &self,
        (username, password): (&str, &str),
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let segments: Vec<_> = path.iter().map(|segment| percent_encode(segment)).collect();
        // The address was checked, and the segments have no character that could change it.
        let url = format!("{}api/{}", self.url, segments.join("/"));
        let mut request = self.client.request(method, url).basic_auth(username, Some(password));
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(|error| Failure::of(&error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| Failure::of(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(Failure::Strange);
            }
        }
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            // What is no JSON is an error page of something in between.
            serde_json::from_slice(&bytes).unwrap_or_default()
        };
        Ok(Answer { status, body })
    }
}

impl Answer {
    /// An answer of success, or the error.
    pub(crate) fn good(self) -> Result<Value, Failure> {
        if self.status.is_success() { Ok(self.body) } else { Err(self.bad()) }
    }

    /// The same, where "not found" is an answer.
    pub(crate) fn found(self) -> Result<Option<Value>, Failure> {
        if self.status == StatusCode::NOT_FOUND { Ok(None) } else { self.good().map(Some) }
    }

    /// The error, with what the API says of it.
    pub(crate) fn bad(self) -> Failure {
        let tidy = |text: &str| text.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect();
        let reason: Option<String> = self.body.get("reason").and_then(Value::as_str).map(tidy);
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        Failure::Answered { status: self.status, reason }
    }

    /// The error, without a word of the API: what was sent must not be quoted.
    pub(crate) fn bad_unquoted(self) -> Failure {
        Failure::Answered { status: self.status, reason: String::new() }
    }
}
