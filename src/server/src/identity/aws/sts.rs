//! The call of STS.
//!
//! Invariant: an identity comes only out of a plain 200 with JSON in the one shape that STS
//! answers in, over verified TLS, without a proxy or a redirect, within one bound of time and
//! of size. XML is never read: CVE-2020-16250 put a forged answer into one.

use std::{error::Error, time::Duration};

use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue},
    redirect,
};
use tokio::sync::Semaphore;

use super::{
    super::{
        Rejection, SetupError,
        address::Resolver,
        json::{self, Json, Limits},
        provider,
    },
    AwsIdentityConfig,
    endpoint::Endpoint,
    request::{AwsRequest, BODY},
};

const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_LEN_MAX: usize = 64 * 1024;
const LIMITS: Limits = Limits { depth: 8, members: 100, elements: 100, text_len: 4_096 };
/// Calls of one section at a time. The next one is refused and not queued: a slow STS must not
/// hold the places of callers that have nothing to do with AWS.
const CALLS_MAX: usize = 64;
/// AWS throttles with 400, and says so in the body alone.
const THROTTLED: [&str; 3] = ["RequestLimitExceeded", "Throttling", "ThrottlingException"];

/// What STS says of a caller: not yet looked at, but STS's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallerIdentity {
    pub(super) account: String,
    pub(super) arn: String,
    pub(super) user_id: String,
}

/// A client of STS.
#[derive(Debug)]
pub(super) struct Sts {
    client: Client,
    name: String,
    /// Asked instead, in tests.
    instead: Option<String>,
    calls: Semaphore,
    pub(super) timeout: Duration,
}

impl Sts {
    /// Prepares a client; connects to nothing.
    pub(super) fn new(config: &AwsIdentityConfig) -> Result<Self, SetupError> {
        provider::install();
        let for_tests = config.endpoint_url.is_some();
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .https_only(!for_tests)
            .http1_only()
            .dns_resolver(Resolver { loopback_allowed: for_tests })
            .connect_timeout(TIMEOUT)
            .user_agent("dayfly-server")
            .build()
            .map_err(|source| SetupError::Client { name: config.name.clone(), source })?;
        Ok(Self {
            client,
            name: config.name.clone(),
            instead: config.endpoint_url.clone(),
            calls: Semaphore::new(CALLS_MAX),
            timeout: TIMEOUT,
        })
    }

    /// Sends the request on, and gives what STS says of who signed it.
    pub(super) async fn ask(
        &self,
        endpoint: &Endpoint,
        request: &AwsRequest,
    ) -> Result<CallerIdentity, Rejection> {
        let Ok(_slot) = self.calls.try_acquire() else {
            tracing::warn!(issuer.name = %self.name, calls = CALLS_MAX, "identity.sts.busy");
            return Err(Rejection::StsUnavailable);
        };
        let exchange = tokio::time::timeout(self.timeout, self.exchange(endpoint, request));
        let answer = exchange.await.unwrap_or(Err(Rejection::StsUnavailable));
        if let Err(why @ (Rejection::StsUnavailable | Rejection::AnswerRefused { .. })) = answer {
            tracing::warn!(
                issuer.name = %self.name,
                host = endpoint.host,
                error = %why,
                "identity.sts.failed"
            );
        }
        answer
    }

    async fn exchange(
        &self,
        endpoint: &Endpoint,
        request: &AwsRequest,
    ) -> Result<CallerIdentity, Rejection> {
        let url = self.instead.clone().unwrap_or_else(|| endpoint.url());
        // The host that was signed, whatever the connection goes to.
        let mut post = self.client.post(url).header(HOST, endpoint.host.as_str());
        post = post.header(ACCEPT, "application/json").body(BODY);
        for (name, value) in request.headers() {
            let value = HeaderValue::from_str(value);
            let mut value = value.map_err(|_| Rejection::malformed("a header cannot be sent"))?;
            value.set_sensitive(true);
            post = post.header(name, value);
        }
        let answer = post.send().await.map_err(|error| unreached(&error))?;
        let status = answer.status();
        match status {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST => return Err(refusal(answer).await?),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(Rejection::BadSignature);
            }
            StatusCode::TOO_MANY_REQUESTS => return Err(Rejection::StsUnavailable),
            _ if status.is_server_error() => return Err(Rejection::StsUnavailable),
            _ if status.is_redirection() => return Err(refused("it is a redirect")),
            _ => return Err(refused("its status is not 200")),
        }
        if !is_json(&answer) {
            return Err(refused("it is not JSON"));
        }
        let bytes = read(answer).await?;
        parse(&bytes).ok_or(refused("it is not an identity"))
    }
}

/// The cause is for the log alone.
fn unreached(error: &reqwest::Error) -> Rejection {
    tracing::warn!(error = error as &dyn Error, "identity.sts.unreachable");
    Rejection::StsUnavailable
}

fn refused(why: &'static str) -> Rejection {
    Rejection::AnswerRefused { why }
}

/// What an answer with status 400 means.
async fn refusal(answer: Response) -> Result<Rejection, Rejection> {
    let bytes = read(answer).await?;
    let throttled = error_code(&bytes).is_some_and(|code| THROTTLED.contains(&code.as_str()));
    Ok(if throttled { Rejection::StsUnavailable } else { Rejection::BadSignature })
}

/// `application/json`, with or without parameters, and not compressed.
fn is_json(answer: &Response) -> bool {
    let headers = answer.headers();
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let kind = types.next().and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let identity = HeaderValue::from_static("identity");
    kind.eq_ignore_ascii_case("application/json")
        && types.next().is_none()
        && headers.get(CONTENT_ENCODING).is_none_or(|coding| *coding == identity)
}

async fn read(mut answer: Response) -> Result<Vec<u8>, Rejection> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| unreached(&error))? {
        if body.len() + chunk.len() > ANSWER_LEN_MAX {
            return Err(refused("it is too large"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// `{"GetCallerIdentityResponse": {"GetCallerIdentityResult": {…}, "ResponseMetadata": {…}}}`.
pub(super) fn parse(bytes: &[u8]) -> Option<CallerIdentity> {
    let mut outer = json::object(bytes, LIMITS).ok()?;
    let Some(Json::Object(mut response)) = outer.remove("GetCallerIdentityResponse") else {
        return None;
    };
    let Some(Json::Object(result)) = response.remove("GetCallerIdentityResult") else {
        return None;
    };
    let text = |name: &str| result.get(name).and_then(Json::text).map(str::to_owned);
    outer.is_empty().then_some(CallerIdentity {
        account: text("Account")?,
        arn: text("Arn")?,
        user_id: text("UserId")?,
    })
}

/// `{"Error": {"Code": …}, …}`.
fn error_code(bytes: &[u8]) -> Option<String> {
    let answer = json::object(bytes, LIMITS).ok()?;
    let Some(Json::Object(error)) = answer.get("Error") else { return None };
    error.get("Code").and_then(Json::text).map(str::to_owned)
}
