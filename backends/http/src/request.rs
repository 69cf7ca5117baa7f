//! A request: its template, and what it is when its placeholders are filled.
//!
//! Invariant: a value stays within the segment, the parameter, the header or the JSON text that
//! it was put in, and no secret is ever in a URL.

use dayfly_backend_sdk::percent_encode;
use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use url::Url;

use crate::{
    api::Answer,
    body::Body,
    config::RequestConfig,
    error::Failure,
    text::{Hole, Text, TextError},
    values::Values,
};

/// Headers that say where a request goes or ends: the client's own to write.
const OWN_HEADERS: [&str; 5] = ["host", "content-length", "transfer-encoding", "connection", "te"];

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Create,
    List,
    MarkerRead,
    MarkerWrite,
    Revoke,
    Use,
    Verify,
}

impl Purpose {
    /// Its key in the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::List => "list",
            Self::MarkerRead => "marker.read",
            Self::MarkerWrite => "marker.write",
            Self::Revoke => "revoke",
            Self::Use => "use",
            Self::Verify => "verify",
        }
    }

    fn method(self) -> Method {
        match self {
            Self::Create => Method::POST,
            Self::MarkerWrite => Method::PUT,
            Self::Revoke => Method::DELETE,
            Self::List | Self::MarkerRead | Self::Use | Self::Verify => Method::GET,
        }
    }

    /// Statuses that say that it is not there.
    fn gone(self) -> Option<&'static [u16]> {
        match self {
            Self::MarkerRead | Self::Revoke | Self::Verify => Some(&[404, 410]),
            Self::Use => Some(&[401]),
            Self::Create | Self::List | Self::MarkerWrite => None,
        }
    }

    fn fills(self, hole: &Hole) -> bool {
        let of_a_death = matches!(self, Self::Revoke | Self::Verify);
        match hole {
            Hole::Handle => of_a_death || self == Self::Create,
            Hole::Id | Hole::Secret => of_a_death || self == Self::Use,
            Hole::Role(_) => of_a_death || matches!(self, Self::Create | Self::List),
            Hole::Marker => self == Self::MarkerWrite,
            Hole::Password => false,
            Hole::ExpiresAt
            | Hole::ExpiresDate
            | Hole::ExpiresUnix
            | Hole::Lease
            | Hole::Principal
            | Hole::TtlSeconds => self == Self::Create,
        }
    }
}

/// A request's template.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    purpose: Purpose,
    method: Method,
    path: Text,
    query: Vec<(String, Text)>,
    headers: Vec<(HeaderName, Text)>,
    body: Option<Body>,
    ok: Vec<u16>,
    gone: Vec<u16>,
    gone_bodiless: bool,
    conflict: Vec<u16>,
}

/// A request that can be sent.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Vec<u8>>,
    /// Whether the API's words about it may be shown.
    pub(crate) quotable: bool,
}

impl Request {
    pub(crate) fn new(purpose: Purpose, config: &RequestConfig) -> Result<Self, TextError> {
        if config.conflict.is_some() && purpose != Purpose::Create {
            return Err(TextError::Key("conflict"));
        }
        if config.gone.is_some() && purpose.gone().is_none() {
            return Err(TextError::Key("gone"));
        }
        let method = match config.method.as_deref() {
            None => purpose.method(),
            Some(name @ ("GET" | "POST" | "PUT" | "PATCH" | "DELETE")) => {
                Method::from_bytes(name.as_bytes()).unwrap_or_default()
            }
            Some(other) => return Err(TextError::Method(other.to_owned())),
        };
        let mut query = Vec::new();
        for (name, text) in &config.query {
            query.push((percent_encode(name), Text::parse(text)?));
        }
        let mut headers = Vec::new();
        for (name, text) in &config.headers {
            headers.push((header_name(name)?, Text::parse(text)?));
        }
        let gone = config.gone.clone().unwrap_or_else(|| purpose.gone().unwrap_or(&[]).to_vec());
        let usual = if purpose == Purpose::Create { vec![409] } else { Vec::new() };
        let request = Self {
            purpose,
            method,
            path: path(&config.path)?,
            query,
            headers,
            body: config.body.as_ref().map(Body::new).transpose()?,
            ok: config.ok.clone(),
            gone,
            gone_bodiless: config.gone_bodiless,
            conflict: config.conflict.clone().unwrap_or(usual),
        };
        request.check()?;
        Ok(request)
    }

    fn check(&self) -> Result<(), TextError> {
        let url = self.path.holes().chain(self.query.iter().flat_map(|(_, text)| text.holes()));
        for hole in url {
            if *hole == Hole::Secret || !self.purpose.fills(hole) {
                return Err(TextError::Misplaced { hole: hole.to_string(), place: "URL" });
            }
        }
        if let Some(hole) = self.holes().find(|hole| !self.purpose.fills(hole)) {
            let place = "headers and body";
            return Err(TextError::Misplaced { hole: hole.to_string(), place });
        }
        let all = [&self.ok, &self.gone, &self.conflict].into_iter().flatten();
        for status in all.clone() {
            let twice = all.clone().filter(|other| *other == status).count() > 1;
            if twice || !(100..600).contains(status) {
                return Err(TextError::Status(*status));
            }
        }
        Ok(())
    }

    /// All its placeholders.
    pub(crate) fn holes(&self) -> impl Iterator<Item = &Hole> {
        let query = self.query.iter().flat_map(|(_, text)| text.holes());
        let headers = self.headers.iter().flat_map(|(_, text)| text.holes());
        let body = self.body.iter().flat_map(Body::holes);
        self.path.holes().chain(query).chain(headers).chain(body)
    }

    pub(crate) fn has(&self, hole: &Hole) -> bool {
        self.holes().any(|one| one == hole)
    }

    /// Filled.
    pub(crate) fn ready(&self, base: &Url, values: &Values<'_>) -> Result<Ready, Failure> {
        let mut headers = HeaderMap::new();
        for (name, text) in &self.headers {
            headers.insert(name.clone(), header_value(&text.fill(values, str::to_owned)?)?);
        }
        let body = match &self.body {
            None => None,
            // What came out of JSON can be written as JSON.
            Some(body) => Some(body.fill(values)?.to_string().into_bytes()),
        };
        let quotable =
            !matches!(self.purpose, Purpose::Create | Purpose::Use) && !self.has(&Hole::Secret);
        let url = self.url(base, values)?;
        Ok(Ready { method: self.method.clone(), url, headers, body, quotable })
    }

    fn url(&self, base: &Url, values: &Values<'_>) -> Result<Url, Failure> {
        let path = self.path.fill(values, percent_encode)?;
        let mut empty = false;
        for hole in self.path.holes() {
            empty |= values.of(hole)? == "";
        }
        // A path that loses or climbs a segment is another path.
        if empty || climbs(&path) {
            let what = "a value makes a segment of the path empty, `.` or `..`";
            return Err(Failure::Refused(what.to_owned()));
        }
        let path = format!("{}{path}", base.path().trim_end_matches('/'));
        let mut query = Vec::new();
        for (name, text) in &self.query {
            query.push(format!("{name}={}", text.fill(values, percent_encode)?));
        }
        let mut url = base.clone();
        url.set_path(&path);
        url.set_query((!query.is_empty()).then(|| query.join("&")).as_deref());
        if url.path() != path {
            return Err(Failure::Refused("its path cannot stand in a URL".to_owned()));
        }
        Ok(url)
    }

    pub(crate) fn is_ok(&self, answer: &Answer) -> bool {
        if self.ok.is_empty() { answer.status.is_success() } else { among(&self.ok, answer.status) }
    }

    /// Whether the API itself says that it is not there. A proxy before it that says so of an API
    /// that is down does not say it in JSON.
    pub(crate) fn is_gone(&self, answer: &Answer) -> bool {
        among(&self.gone, answer.status) && (self.gone_bodiless || answer.json.is_some())
    }

    pub(crate) fn is_conflict(&self, answer: &Answer) -> bool {
        among(&self.conflict, answer.status)
    }

    /// The answer, if it is one of success.
    pub(crate) fn good(&self, answer: Answer) -> Result<Answer, Failure> {
        if self.is_ok(&answer) { Ok(answer) } else { Err(answer.bad()) }
    }
}

fn among(statuses: &[u16], status: StatusCode) -> bool {
    statuses.contains(&status.as_u16())
}

fn path(path: &str) -> Result<Text, TextError> {
    let text = Text::parse(path)?;
    // RFC 3986's `pchar` and the slash; what a `%` begins stays as it is.
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@".contains(&c);
    if !path.starts_with('/') || climbs(path) || !text.plain().all(|plain| plain.bytes().all(legal))
    {
        return Err(TextError::Path);
    }
    Ok(text)
}

/// Whether a segment is `.` or `..`, however it is written.
fn climbs(path: &str) -> bool {
    let dots = |segment: &str| {
        matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
    };
    path.split('/').any(dots)
}

pub(crate) fn header_name(name: &str) -> Result<HeaderName, TextError> {
    let refused = || TextError::Header(name.to_owned());
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
    if OWN_HEADERS.contains(&header.as_str()) { Err(refused()) } else { Ok(header) }
}

/// A line break would begin another header: it is refused, as is all that is not ASCII.
pub(crate) fn header_value(text: &str) -> Result<HeaderValue, Failure> {
    let what = "a value cannot stand in a header: it is not printable ASCII";
    let refused = || Failure::Refused(what.to_owned());
    let plain = text.bytes().all(|c| c == b' ' || c.is_ascii_graphic());
    let value = HeaderValue::from_str(text).ok().filter(|_| plain);
    let mut value = value.ok_or_else(refused)?;
    value.set_sensitive(true);
    Ok(value)
}
