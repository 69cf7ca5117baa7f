//! Requests to a cluster's API server.
//!
//! Invariant: only the configured server is asked, over verified TLS or on this machine, without
//! a proxy or a redirect. What proves who we are is read anew for each request, since the tokens
//! of pods are replaced all the time, and is in no error and in no log.

use std::{path::PathBuf, time::Duration};

use reqwest::{
    Client, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue},
};
use tokio::io::AsyncReadExt;
use url::Url;
use zeroize::Zeroizing;

use super::{
    super::{SetupError, config::is_loopback, keys::builder},
    config::ClusterConfig,
};

/// Until an answer begins.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const TOKEN_LEN_MAX: u64 = 64 * 1_024;

/// Why the API server gave no answer that can be used. Never holds what it answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The answer is not JSON, or is compressed.
    #[error("the answer is not JSON")]
    NotJson,
    /// The answer redirects elsewhere.
    #[error("the answer is a redirect")]
    Redirect,
    /// The answer has a status that is not one of success.
    #[error("the answer has status {0}")]
    Status(u16),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// Our own token cannot be read.
    #[error("the token file cannot be read")]
    TokenFile(#[source] std::io::Error),
    /// Our own token is none.
    #[error("the token file holds no token")]
    TokenForm,
    /// The answer is too large.
    #[error("the answer is too large")]
    TooLarge,
    /// No connection, or it broke.
    #[error("the request failed")]
    Transport(#[source] reqwest::Error),
}

/// A client of one cluster's API server.
#[derive(Debug)]
pub(crate) struct ClusterApi {
    client: Client,
    /// Without the slash at the end.
    base: String,
    token_file: PathBuf,
}

impl ClusterApi {
    /// Prepares a client: reads the CA file, connects to nothing.
    ///
    /// # Errors
    /// The CA file or the URL cannot be used.
    pub(crate) fn new(config: &ClusterConfig) -> Result<Self, SetupError> {
        let bad = |source| SetupError::Url { name: config.name.clone(), source };
        let url = Url::parse(&config.api_url).map_err(bad)?;
        let https_only = url.scheme() == "https";
        let ca_file = config.ca_file.as_deref();
        let client = builder(&config.name, ca_file, https_only, is_loopback(&url))?
            // With HTTP/2 a connection that died silently would take every further request
            // with it; here each stream has one of its own.
            .http1_only()
            .build()
            .map_err(|source| SetupError::Client { name: config.name.clone(), source })?;
        let base = config.api_url.trim_end_matches('/').to_owned();
        Ok(Self { client, base, token_file: config.token_file.clone() })
    }

    /// GET of a path with its query.
    ///
    /// # Errors
    /// There is no answer, or none in JSON. Its status is for the caller to look at.
    pub(crate) async fn get(&self, path: &str) -> Result<Response, ApiError> {
        self.send(self.client.get(format!("{}{path}", self.base))).await
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// As [`ClusterApi::get`].
    pub(super) async fn post(&self, path: &str, body: String) -> Result<Response, ApiError> {
        let request = self.client.post(format!("{}{path}", self.base));
        self.send(request.header(CONTENT_TYPE, "application/json").body(body)).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ApiError> {
        let authorization = self.authorization().await?;
        let request = request.header(AUTHORIZATION, authorization);
        let answer = request.header(ACCEPT, "application/json").send();
        let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await;
        let answer = answer.map_err(|_| ApiError::Timeout)?.map_err(ApiError::Transport)?;
        let status = answer.status();
        if status.is_redirection() {
            return Err(ApiError::Redirect);
        }
        // What stands in for a server that is down answers with pages of its own.
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(ApiError::Status(status.as_u16()));
        }
        if !is_json(&answer) {
            return Err(ApiError::NotJson);
        }
        Ok(answer)
    }

    async fn authorization(&self) -> Result<HeaderValue, ApiError> {
        let file = tokio::fs::File::open(&self.token_file).await.map_err(ApiError::TokenFile)?;
        let mut text = Zeroizing::new(String::from("Bearer "));
        let scheme_len = text.len();
        file.take(TOKEN_LEN_MAX).read_to_string(&mut text).await.map_err(ApiError::TokenFile)?;
        let line = text.trim_end();
        let token = line.get(scheme_len..).unwrap_or_default();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ApiError::TokenForm);
        }
        let mut value = HeaderValue::from_str(line).map_err(|_| ApiError::TokenForm)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// The body of a successful answer, up to `len_max` bytes. How long it takes is for the caller to
/// bound.
///
/// # Errors
/// The status is another, the connection broke, or there is more.
pub(crate) async fn read(answer: Response, len_max: usize) -> Result<Vec<u8>, ApiError> {
    if !answer.status().is_success() {
        return Err(ApiError::Status(answer.status().as_u16()));
    }
    read_any(answer, len_max).await
}

/// The same whatever the status.
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_any(mut answer: Response, len_max: usize) -> Result<Vec<u8>, ApiError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(ApiError::Transport)? {
        if body.len() + chunk.len() > len_max {
            return Err(ApiError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// `application/json`, with or without parameters, and not compressed.
fn is_json(answer: &Response) -> bool {
    let headers = answer.headers();
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let identity = HeaderValue::from_static("identity");
    kind.eq_ignore_ascii_case("application/json")
        && headers.get(CONTENT_ENCODING).is_none_or(|coding| *coding == identity)
}
