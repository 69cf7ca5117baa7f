//! HTTP to the broker.
//!
//! Invariant: a request that may have had an effect is sent again only if its effect is the
//! same twice; redirects are never followed, so a token reaches only the host it was meant for.

mod calls;
mod probe;
mod transport;
mod url;

use std::{fs, io, path::Path, time::Duration};

use ::url::Url;
use dayfly_api::Problem;
use reqwest::{Certificate, Method, Response, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

pub(crate) use crate::client::{
    calls::Filter,
    probe::Probe,
    transport::{agent_http, jittered, read_body, secure_http},
    url::{BrokerUrl, check_secure},
};
use crate::{
    client::transport::{can_repeat, other_http},
    identity::Token,
    proof::NoKey,
};

/// How long one attempt may take, besides what the broker was asked to wait.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a call is tried at most.
const ATTEMPTS_MAX: u32 = 3;
/// Under which name a request is the same one when it is sent again.
const ONCE_HEADER: &str = "idempotency-key";
/// Where a proof of possession stands, and what a broker says of one that it does not accept.
const PROOF_HEADER: &str = "dpop";
const INVALID_PROOF: &str = "invalid_dpop_proof";
/// The pause before the second attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(150);

/// A client of one broker.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: BrokerUrl,
    roots: Option<Vec<Certificate>>,
}

impl Client {
    /// Reads `ca_file` if there is one. Loopback http costs no certificate store.
    pub(crate) fn new(url: BrokerUrl, ca_file: Option<&Path>) -> Result<Self, Error> {
        let roots = ca_file.map(certificates).transpose()?;
        Self::over(url, roots)
    }

    /// The same broker over connections of its own: what hangs on ours, or the replica that they
    /// lead to, is not in its way.
    pub(crate) fn apart(&self) -> Result<Self, Error> {
        Self::over(self.url.clone(), self.roots.clone())
    }

    fn over(url: BrokerUrl, roots: Option<Vec<Certificate>>) -> Result<Self, Error> {
        let http = secure_http(url.is_plain(), roots.clone()).map_err(Error::Setup)?;
        Ok(Self { http, url, roots })
    }

    pub(crate) fn url(&self) -> &BrokerUrl {
        &self.url
    }

    /// Whom to trust at servers that the broker names.
    pub(crate) fn trust(&self) -> Trust {
        Trust(self.roots.clone())
    }

    /// Sends `call` and reads the answer, again where that is harmless.
    async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        call: Call<'_, B>,
        bearer: &Token,
    ) -> Result<T, Error> {
        self.send_once(call, bearer, None).await
    }

    /// The same with a key under which the broker does it once, however often it is sent.
    async fn send_once<B: Serialize, T: DeserializeOwned>(
        &self,
        call: Call<'_, B>,
        bearer: &Token,
        key: Option<&str>,
    ) -> Result<T, Error> {
        let answer = self.repeated(&call, bearer, key).await;
        if let Err(Error::Refused { problem, date: Some(date), .. }) = &answer
            && problem.code == INVALID_PROOF
            && bearer.key().is_some_and(|key| key.follow(*date))
        {
            // Nothing was done, and our clock is not the broker's: once more by that.
            return self.repeated(&call, bearer, key).await;
        }
        answer
    }

    async fn repeated<B: Serialize, T: DeserializeOwned>(
        &self,
        call: &Call<'_, B>,
        bearer: &Token,
        key: Option<&str>,
    ) -> Result<T, Error> {
        let mut pause = PAUSE;
        for _ in 1..call.attempts_max {
            match self.attempt(call, bearer, key).await {
                Err(error) if can_repeat(&error, call.repeat) => {}
                answer => return answer,
            }
            tokio::time::sleep(jittered(pause)).await;
            pause *= 2;
        }
        self.attempt(call, bearer, key).await
    }

    async fn attempt<B: Serialize, T: DeserializeOwned>(
        &self,
        call: &Call<'_, B>,
        bearer: &Token,
        once: Option<&str>,
    ) -> Result<T, Error> {
        let mut request = self
            .http
            .request(call.method.clone(), call.url.clone())
            .timeout(ATTEMPT_TIMEOUT.saturating_add(call.wait))
            .header(header::ACCEPT, "application/json, application/problem+json")
            .header(header::AUTHORIZATION, bearer.header());
        if let Some(key) = bearer.key() {
            let proof = key.proof(&call.method, &call.url, bearer.hash())?;
            request = request.header(PROOF_HEADER, proof);
        }
        if let Some(once) = once {
            request = request.header(ONCE_HEADER, once);
        }
        if let Some(body) = call.body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.transport(error))?;
        self.read(response).await
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, Error> {
        let status = response.status();
        let (retry_after, date) = (retry_after(&response), date(&response));
        if status.is_redirection() {
            let location = response.headers().get(header::LOCATION);
            let location = location.and_then(|value| value.to_str().ok()).unwrap_or("elsewhere");
            return Err(Error::Redirect { url: self.url.to_string(), location: location.into() });
        }
        let body = read_body(response).await.map_err(|error| self.transport(error))?;
        let body = body.ok_or_else(|| self.foreign(status))?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|source| Error::Body { url: self.url.to_string(), source });
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(Error::Refused { problem: Box::new(problem), retry_after, date }),
            Err(_) => Err(self.foreign(status)),
        }
    }

    fn foreign(&self, status: StatusCode) -> Error {
        Error::Foreign { url: self.url.to_string(), status: status.as_u16() }
    }

    fn transport(&self, error: reqwest::Error) -> Error {
        let url = self.url.to_string();
        let unsent = error.is_connect();
        if error.is_timeout() && !unsent {
            return Error::TimedOut { url };
        }
        // The address would stand twice in the message.
        Error::Unreachable { url, unsent, source: error.without_url() }
    }
}

/// The certificates that are trusted beside the machine's where the broker names another server,
/// such as the one that people sign in at. The broker's own is held against them alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust(Option<Vec<Certificate>>);

impl Trust {
    /// `plain` is for loopback.
    pub(crate) fn http(&self, plain: bool) -> Result<reqwest::Client, reqwest::Error> {
        other_http(plain, self.0.clone())
    }
}

/// One call of the API.
struct Call<'a, B> {
    method: Method,
    url: Url,
    body: Option<&'a B>,
    repeat: Repeat,
    attempts_max: u32,
    /// How long the broker was asked to wait before it answers.
    wait: Duration,
}

/// When a call may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// Twice is the same as once.
    Harmless,
    /// Only while nothing of it has left: a second one would mint twice, or would show a token
    /// that was used up by the first.
    Unsent,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "the broker at {url} gave an answer that this version can't read; compare the two by \
         `dayfly version --broker`"
    )]
    Body {
        url: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot use the CA file `{path}`, which must hold certificates in PEM")]
    CaFile {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{url} answered {status}, and not as a Dayfly broker does; check --url")]
    Foreign { url: String, status: u16 },
    #[error(transparent)]
    NoKey(#[from] NoKey),
    #[error("{url} redirects to `{location}`; give the broker's own address with --url")]
    Redirect { url: String, location: String },
    #[error("{}", describe(problem))]
    Refused {
        problem: Box<Problem>,
        retry_after: Option<Duration>,
        /// When the broker says that it answered.
        date: Option<OffsetDateTime>,
    },
    #[error("cannot set up TLS")]
    Setup(#[source] reqwest::Error),
    #[error("the broker at {url} did not answer in time; try again, and see whether it is well")]
    TimedOut { url: String },
    #[error("cannot reach the broker at {url} (--url or DAYFLY_URL says where it is)")]
    Unreachable {
        url: String,
        /// Nothing of the request had left.
        unsent: bool,
        #[source]
        source: reqwest::Error,
    },
    #[error("{reason}")]
    Url { reason: String },
}

impl Error {
    /// The broker's own no.
    #[cfg(test)]
    pub(crate) fn refused(problem: Problem) -> Self {
        Self::Refused { problem: Box::new(problem), retry_after: None, date: None }
    }

    /// Whether the same call may succeed later.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Refused { problem, .. } => {
                problem.retryable || problem.status == 429 || problem.status >= 500
            }
            Self::Foreign { status, .. } => *status >= 500,
            Self::TimedOut { .. } | Self::Unreachable { .. } => true,
            Self::Body { .. }
            | Self::CaFile { .. }
            | Self::NoKey(_)
            | Self::Redirect { .. }
            | Self::Setup(_)
            | Self::Url { .. } => false,
        }
    }
}

/// The problem as one sentence: what, by which rule, and how to find it in the broker's log.
fn describe(problem: &Problem) -> String {
    let mut text = problem.detail.trim_end_matches('.').to_owned();
    if let Some(rule) = &problem.denied_by
        && !text.contains(rule.as_str())
    {
        text = format!("{text} (rule `{rule}`)");
    }
    for fault in &problem.errors {
        text = format!("{text}; `{}`: {}", fault.pointer, fault.detail);
    }
    format!("{text} (request {})", problem.request_id)
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, Error> {
    let fault = |source| Error::CaFile { path: path.display().to_string(), source };
    let pem = fs::read(path).map_err(fault)?;
    let found = Certificate::from_pem_bundle(&pem)
        .map_err(|error| fault(io::Error::new(io::ErrorKind::InvalidData, error.without_url())))?;
    if found.is_empty() {
        return Err(fault(io::Error::new(io::ErrorKind::InvalidData, "it holds no certificate")));
    }
    Ok(found)
}

/// The header in its form of seconds. The form with a date would need to trust two clocks.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// When the answer was made.
fn date(response: &Response) -> Option<OffsetDateTime> {
    let value = response.headers().get(header::DATE)?.to_str().ok()?;
    OffsetDateTime::parse(value, &Rfc2822).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(detail: &str) -> Problem {
        Problem {
            kind: "about:blank".into(),
            title: "Forbidden".into(),
            status: 403,
            code: "role_denied".into(),
            detail: detail.into(),
            request_id: "req_1".into(),
            retryable: false,
            denied_by: Some("production-freeze".into()),
            errors: Vec::new(),
        }
    }

    #[test]
    fn a_problem_is_one_sentence() {
        assert_eq!(
            describe(&denied("no migrations on a Friday.")),
            "no migrations on a Friday (rule `production-freeze`) (request req_1)"
        );
    }

    #[test]
    fn a_rule_is_named_once() {
        assert_eq!(
            describe(&denied("denied by rule `production-freeze`")),
            "denied by rule `production-freeze` (request req_1)"
        );
    }
}
