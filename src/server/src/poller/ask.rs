//! One question to a platform's API.
//!
//! Invariant: only the configured address is asked, over verified TLS, without a proxy or a
//! redirect, within one bound of time and one of size, and the token is shown to nobody else. What
//! is not a plain 200 says nothing about a job: 404 is what a token without rights is told.

use std::{error::Error, time::Duration};

use axum::http::{
    HeaderValue, StatusCode,
    header::{ACCEPT, CONTENT_ENCODING},
};
use dayfly_backend_sdk::{Secret, Timestamp};
use reqwest::{Client, RequestBuilder, Response};
use url::Url;

use super::{pace, place::Place};
use crate::{
    config::{HookKind, PollerConfig},
    identity::{SetupError, client, is_loopback},
};

const TIMEOUT: Duration = Duration::from_secs(10);
/// A build of Buildkite has all of its jobs in it.
const ANSWER_LEN_MAX: usize = 4 * 1024 * 1024;

/// Why a question said nothing of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// The API wants to be asked less.
    Limited,
    /// The answer is about another job.
    Mismatched,
    /// The API knows no such job, or not for this token.
    NotFound,
    /// The token may not ask this.
    Refused,
    /// The token is not one, or not any more.
    TokenRefused,
    /// The token cannot be read.
    TokenUnreadable,
    /// No answer, or that there is none now.
    Unavailable,
    /// An answer that is not what the platform documents.
    Unreadable,
}

impl Trouble {
    /// Its name in the log and in the metrics.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Limited => "limited",
            Self::Mismatched => "mismatched",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::TokenRefused => "token_refused",
            Self::TokenUnreadable => "token_unreadable",
            Self::Unavailable => "unavailable",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    /// How long nobody of the poller shall ask, if the API says so.
    pub(super) wait: Option<Duration>,
    /// What it says, or why it says nothing.
    pub(super) body: Result<Vec<u8>, Trouble>,
}

/// A platform's API.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    url: Url,
    kind: HookKind,
}

impl Api {
    /// Prepares a client; connects to nothing.
    pub(super) fn new(config: &PollerConfig) -> Result<Self, SetupError> {
        let (url, loopback) = (config.api_url.clone(), is_loopback(&config.api_url));
        let https_only = url.scheme() == "https";
        let client = client(&config.issuer, config.ca_file.as_deref(), https_only, loopback)?;
        Ok(Self { client, url, kind: config.kind })
    }

    /// Asks for `place`. `now` is the wall clock.
    pub(super) async fn ask(&self, place: &Place, token: &Secret, now: Timestamp) -> Answer {
        let exchange = tokio::time::timeout(TIMEOUT, self.exchange(place, token, now));
        exchange.await.unwrap_or(Answer { wait: None, body: Err(Trouble::Unavailable) })
    }

    async fn exchange(&self, place: &Place, token: &Secret, now: Timestamp) -> Answer {
        let Some(request) = self.request(place, token) else {
            return Answer { wait: None, body: Err(Trouble::TokenUnreadable) };
        };
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Answer { wait: None, body: Err(unreached(&error)) },
        };
        let (status, wait) = (answer.status(), pace::wait(answer.status(), answer.headers(), now));
        let body = match status {
            StatusCode::OK => read(answer).await,
            StatusCode::FORBIDDEN if wait.is_none() => Err(Trouble::Refused),
            StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => Err(Trouble::Limited),
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(Trouble::NotFound),
            StatusCode::UNAUTHORIZED => Err(Trouble::TokenRefused),
            _ if status.is_server_error() => Err(Trouble::Unavailable),
            _ => Err(Trouble::Unreadable),
        };
        Answer { wait, body }
    }

    /// Nothing where the token cannot stand in a header.
    fn request(&self, place: &Place, token: &Secret) -> Option<RequestBuilder> {
        let request = self.client.get(place.url(&self.url)?);
        let bearer = |request: RequestBuilder| request.bearer_auth(token.expose());
        Some(match self.kind {
            HookKind::Buildkite => bearer(request).header(ACCEPT, "application/json"),
            HookKind::Github => bearer(request)
                .header(ACCEPT, "application/vnd.github+json")
                .header("x-github-api-version", "2022-11-28"),
            HookKind::Gitlab => {
                let mut value = HeaderValue::from_str(token.expose()).ok()?;
                value.set_sensitive(true);
                request.header(ACCEPT, "application/json").header("private-token", value)
            }
        })
    }
}

/// The cause is for the log alone.
fn unreached(error: &reqwest::Error) -> Trouble {
    tracing::debug!(error = error as &dyn Error, "poller.unreached");
    Trouble::Unavailable
}

async fn read(mut answer: Response) -> Result<Vec<u8>, Trouble> {
    let identity = HeaderValue::from_static("identity");
    if answer.headers().get(CONTENT_ENCODING).is_some_and(|coding| *coding != identity) {
        return Err(Trouble::Unreadable);
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| unreached(&error))? {
        if body.len() + chunk.len() > ANSWER_LEN_MAX {
            return Err(Trouble::Unreadable);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
