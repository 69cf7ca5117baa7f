//! The API: one request, one answer, and its clock.
//!
//! Invariant: nothing leads a request away from the configured address: no proxy, no redirect.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use dayfly_backend_sdk::{Secret, Timestamp};
use reqwest::{
    Certificate, Client, ClientBuilder, Method, RequestBuilder, StatusCode,
    header::{
        ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    },
    redirect::Policy,
};
use serde_json::Value;
use time::{PrimitiveDateTime, macros::format_description};
use tokio::time::Instant;
use url::Url;

use crate::{
    app::App,
    config::{ConfigError, HttpConfig},
    error::{Failure, tidy},
    link,
    request::{Ready, header_name, header_value},
    text::{Hole, Text, TextError},
    values::Values,
};

const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long what an answer said of the time is gone by.
const CLOCK_AGE_MAX: Duration = Duration::from_mins(1);
/// Where an API usually says what is wrong.
const REASONS: [&str; 4] = ["/message", "/error/message", "/error", "/error_description"];

/// The API, and what we sign in with.
pub(crate) struct Api {
    client: Client,
    base: Url,
    headers: HeaderMap,
    app: Option<App>,
    password: Option<Secret>,
    clock: Mutex<Option<(Timestamp, Instant)>>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// None where it is no JSON.
    pub(crate) json: Option<Value>,
    /// Where its next page is.
    pub(crate) next: Option<Url>,
    later: bool,
    reason: Option<String>,
}

impl Api {
    pub(crate) fn new(config: &HttpConfig, base: &Url) -> Result<Self, ConfigError> {
        let password = config.password.clone();
        let app = match &config.github_app {
            Some(app) => Some(App::new(app, password.as_ref())?),
            None => None,
        };
        let headers = headers(config)?;
        Ok(Self {
            client: client(config, base)?,
            base: base.clone(),
            headers,
            app,
            password,
            clock: Mutex::default(),
        })
    }

    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Whether our secrets may be sent there.
    pub(crate) fn is_home(&self, url: &Url) -> bool {
        let plain = url.username().is_empty() && url.password().is_none();
        plain && url.origin() == self.base.origin()
    }

    pub(crate) async fn ask(&self, ready: Ready) -> Result<Answer, Failure> {
        let mut headers = self.headers.clone();
        if let Some(app) = &self.app
            && !ready.headers.contains_key(AUTHORIZATION)
        {
            headers.insert(AUTHORIZATION, app.authorization(self.now().await?)?);
        }
        if ready.body.is_some() {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        }
        for (name, value) in &ready.headers {
            headers.insert(name.clone(), value.clone());
        }
        let mut request = self.client.request(ready.method, ready.url).headers(headers);
        if let Some(body) = ready.body {
            request = request.body(body);
        }
        self.send(request, ready.quotable).await
    }

    /// The time as the API has it: its own clock judges what it is told of expiries. To the
    /// second, and never ahead of it.
    pub(crate) async fn now(&self) -> Result<Timestamp, Failure> {
        let known = || *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known().filter(|(_, heard)| heard.elapsed() < CLOCK_AGE_MAX);
        if fresh.is_none() {
            // Signed in as nobody; whatever it answers has the time.
            self.send(self.client.request(Method::HEAD, self.base.clone()), false).await?;
        }
        let (at, heard) = known().ok_or(Failure::Strange("has no `Date`"))?;
        Ok(at.plus(heard.elapsed()))
    }

    async fn send(&self, request: RequestBuilder, quotable: bool) -> Result<Answer, Failure> {
        let mut response = request.send().await.map_err(|error| Failure::of(&error))?;
        if let Some(at) = response.headers().get(DATE).and_then(date) {
            let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
            *clock = Some((at, Instant::now()));
        }
        let status = response.status();
        let later = response.headers().contains_key(RETRY_AFTER);
        let next = link::next(response.headers(), response.url());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| Failure::of(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(Failure::Strange("is longer than 16 MiB"));
            }
        }
        let json: Option<Value> = serde_json::from_slice(&bytes).ok();
        let said = json.as_ref().filter(|_| quotable).and_then(|json| {
            REASONS.iter().find_map(|place| json.pointer(place).and_then(Value::as_str))
        });
        let reason = said.map(|said| tidy(said, self.password.as_ref()));
        Ok(Answer { status, json, next, later, reason })
    }
}

impl Answer {
    /// The error that it is.
    pub(crate) fn bad(&self) -> Failure {
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        Failure::Answered { status: self.status, reason, later: self.later }
    }

    /// What stands at a JSON Pointer; the whole where there is none.
    pub(crate) fn at(&self, place: Option<&str>) -> Option<&Value> {
        let found = self.json.as_ref()?.pointer(place.unwrap_or_default())?;
        (!found.is_null()).then_some(found)
    }
}

fn client(config: &HttpConfig, base: &Url) -> Result<Client, ConfigError> {
    // The one provider that the whole program has; an error says that it is there already.
    rustls::crypto::ring::default_provider().install_default().ok();
    let timeout = Duration::from_millis(u64::from(config.timeout_ms));
    let builder = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .https_only(base.scheme() == "https")
        .timeout(timeout)
        .connect_timeout(timeout)
        .user_agent("dayfly-server");
    trusting(config, builder)?.build().map_err(ConfigError::Client)
}

fn trusting(config: &HttpConfig, builder: ClientBuilder) -> Result<ClientBuilder, ConfigError> {
    let Some(path) = &config.ca_file else { return Ok(builder) };
    let unread = |cause: Box<dyn std::error::Error + Send + Sync>| ConfigError::CaFile {
        path: path.clone(),
        cause,
    };
    let pem = std::fs::read(path).map_err(|error| unread(error.into()))?;
    let roots = Certificate::from_pem_bundle(&pem).map_err(|error| unread(error.into()))?;
    if roots.is_empty() {
        return Err(unread("there is no certificate in it".into()));
    }
    Ok(builder.tls_certs_only(roots))
}

/// Those of every request, with our password in its place.
fn headers(config: &HttpConfig) -> Result<HeaderMap, ConfigError> {
    let wrong = |fault| ConfigError::Request { request: "headers", fault };
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let values = Values { password: config.password.as_ref(), ..Values::default() };
    for (name, text) in &config.headers {
        let text = Text::parse(text).map_err(wrong)?;
        if let Some(hole) = text.holes().find(|hole| **hole != Hole::Password) {
            let hole = hole.to_string();
            return Err(wrong(TextError::Misplaced { hole, place: "headers of every request" }));
        }
        let name: HeaderName = header_name(name).map_err(wrong)?;
        let value = text.fill(&values, str::to_owned).and_then(|text| header_value(&text));
        let unfit = ConfigError::Contradiction(
            "a header needs a `password`, and it must be printable ASCII on one line",
        );
        headers.insert(name, value.map_err(|_| unfit)?);
    }
    Ok(headers)
}

/// RFC 9110's `IMF-fixdate`, which is what servers write.
fn date(value: &HeaderValue) -> Option<Timestamp> {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let at = PrimitiveDateTime::parse(value.to_str().ok()?, &format).ok()?;
    Some(at.assume_utc().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_read_as_servers_write_it() {
        let read = |text| date(&HeaderValue::from_static(text)).map(Timestamp::seconds);
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(read("yesterday"), None);
    }
}
