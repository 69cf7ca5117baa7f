//! A signed `GetCallerIdentity` request, as a caller brings it.
//!
//! It travels as a bearer, `aws.` and base64url of `{"url", "method", "headers", "body"}`.
//!
//! Invariant: what passes is the one request that we would send anyway; only the signature and
//! what it covers are the caller's. Every header is one that we know, appears once, has one
//! reading, and is signed.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use dayfly_backend_sdk::Timestamp;

use super::{
    super::{
        Rejection,
        json::{self, Json, Limits},
        preparse,
    },
    AGE_MAX, LEEWAY,
};

/// The longest bearer that holds a request, in bytes. Session tokens are what is long in it.
pub const AWS_REQUEST_LEN_MAX: usize = 8 * 1024;

/// What a bearer begins with that is one. No JWT does: its header would not be JSON.
pub(crate) const PREFIX: &str = "aws.";

/// What is asked, to the letter.
pub(super) const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";

const LIMITS: Limits = Limits { depth: 2, members: 16, elements: 0, text_len: 6 * 1024 };

const AUTHORIZATION: &str = "authorization";
const CONTENT_TYPE: &str = "content-type";
const DATE: &str = "x-amz-date";
const SERVER_ID: &str = "x-dayfly-server-id";

/// The headers that are passed on. `x-dayfly-nonce` makes two requests of one second two: they
/// would have the same signature, and the second would be taken for a replay.
const HEADERS: [&str; 6] =
    [AUTHORIZATION, CONTENT_TYPE, DATE, "x-amz-security-token", "x-dayfly-nonce", SERVER_ID];

const FORMS: [&str; 2] =
    ["application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=utf-8"];

const SIGNATURE_LEN: usize = 64;

/// A request that is well-formed. Whether its signature holds, STS alone can say.
#[derive(PartialEq, Eq)]
pub struct AwsRequest {
    url: String,
    headers: BTreeMap<&'static str, String>,
    server_id: String,
    signed_at: Timestamp,
    region: String,
    signature: String,
}

impl AwsRequest {
    /// Reads a bearer. It is `Rejection::TooLarge` or `Rejection::Malformed` otherwise.
    pub fn parse(bearer: &str) -> Result<Self, Rejection> {
        if bearer.len() > AWS_REQUEST_LEN_MAX {
            return Err(Rejection::TooLarge);
        }
        let refuse = |why| Err(Rejection::malformed(why));
        let encoded = bearer.strip_prefix(PREFIX).unwrap_or_default();
        let bytes = BASE64URL_NOPAD
            .decode(encoded.as_bytes())
            .map_err(|_| Rejection::malformed("a part is not canonical base64url"))?;
        let mut members = json::object(&bytes, LIMITS).map_err(preparse::why)?;
        let url = text(members.remove("url")).ok_or(Rejection::malformed("`url` is not a text"))?;
        if text(members.remove("method")).as_deref() != Some("POST") {
            return refuse("the method is not POST");
        }
        if text(members.remove("body")).as_deref() != Some(BODY) {
            return refuse("the body does not ask for the caller's identity");
        }
        let headers = headers(members.remove("headers"))?;
        if !members.is_empty() {
            return refuse("the request has an unknown member");
        }
        Self::of(url, headers)
    }

    fn of(url: String, headers: BTreeMap<&'static str, String>) -> Result<Self, Rejection> {
        let refuse = |why| Err(Rejection::malformed(why));
        let header = |name: &str| headers.get(name).map(String::as_str);
        if !header(CONTENT_TYPE).is_some_and(|form| FORMS.contains(&form)) {
            return refuse("`content-type` is missing or not a form's");
        }
        let Some(server_id) = header(SERVER_ID) else {
            return refuse("`x-dayfly-server-id` is missing");
        };
        let date = header(DATE).unwrap_or_default();
        let signed_at = instant(date).ok_or(Rejection::malformed("`x-amz-date` is not a time"))?;
        let authorization = header(AUTHORIZATION).and_then(Authorization::parse);
        let Some(authorization) = authorization else {
            return refuse("`authorization` is missing or not of Signature Version 4");
        };
        if !date.starts_with(authorization.day) {
            return refuse("the signature is of another day");
        }
        // All of them and no others, so that nothing is passed on that the caller did not sign;
        // `host`, which we set, is the one of the URL.
        let others = headers.keys().copied().filter(|name| *name != AUTHORIZATION);
        let mut names: Vec<&str> = others.chain(["host"]).collect();
        names.sort_unstable();
        if !authorization.signed_headers.split(';').eq(names) {
            return refuse("the signature does not cover exactly the headers");
        }
        Ok(Self {
            server_id: server_id.to_owned(),
            signed_at,
            region: authorization.region.to_owned(),
            signature: authorization.signature.to_owned(),
            url,
            headers,
        })
    }

    /// Where it says that it goes: nobody has looked at that yet.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// For which broker it was signed.
    pub(super) fn server_id(&self) -> &str {
        &self.server_id
    }

    /// For which region it was signed.
    pub(super) fn region(&self) -> &str {
        &self.region
    }

    /// The last moment at which it is accepted, but for the leeway.
    pub(super) fn expires_at(&self) -> Timestamp {
        self.signed_at.plus(AGE_MAX)
    }

    /// The same for every way of writing the request down, so this is what a replay is known by.
    pub(super) fn signature(&self) -> &str {
        &self.signature
    }

    /// What is passed on besides what we set ourselves.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, value.as_str()))
    }

    pub(super) fn check_time(&self, now: Timestamp) -> Result<(), Rejection> {
        if now >= self.expires_at() {
            return Err(Rejection::Expired);
        }
        if self.signed_at > now.plus(LEEWAY) {
            return Err(Rejection::IssuedInFuture);
        }
        Ok(())
    }
}

/// Without its headers: whoever has them can show them to the broker until they are too old.
impl std::fmt::Debug for AwsRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsRequest").field("signed_at", &self.signed_at).finish_non_exhaustive()
    }
}

fn text(value: Option<Json>) -> Option<String> {
    if let Some(Json::Text(text)) = value { Some(text) } else { None }
}

fn headers(value: Option<Json>) -> Result<BTreeMap<&'static str, String>, Rejection> {
    let Some(Json::Object(members)) = value else {
        return Err(Rejection::malformed("`headers` is not an object"));
    };
    let mut headers = BTreeMap::new();
    for (name, value) in members {
        let known = HEADERS.into_iter().find(|known| name.eq_ignore_ascii_case(known));
        let name = known.ok_or(Rejection::malformed("a header is not one that is passed on"))?;
        let value = text(Some(value)).filter(|value| is_plain(value));
        let value = value.ok_or(Rejection::malformed("a header's value has not one reading"))?;
        // `Host` and `host` are one header to whoever is next (CVE-2022-2385).
        if headers.insert(name, value).is_some() {
            return Err(Rejection::malformed("a header appears twice"));
        }
    }
    Ok(headers)
}

/// Printable ASCII that means the same trimmed and untrimmed, as signing trims it: no line
/// break begins another header, and no blank is lost.
pub(super) fn is_plain(value: &str) -> bool {
    !value.is_empty()
        && value.bytes().all(|c| matches!(c, b' '..=b'~'))
        && !value.starts_with(' ')
        && !value.ends_with(' ')
        && !value.contains("  ")
}

/// What the header of that name says.
struct Authorization<'h> {
    day: &'h str,
    region: &'h str,
    signed_headers: &'h str,
    signature: &'h str,
}

impl<'h> Authorization<'h> {
    /// In the one spelling that AWS documents.
    fn parse(value: &'h str) -> Option<Self> {
        let rest = value.strip_prefix("AWS4-HMAC-SHA256 Credential=")?;
        let (credential, rest) = rest.split_once(", SignedHeaders=")?;
        let (signed_headers, signature) = rest.split_once(", Signature=")?;
        let mut parts = credential.split('/');
        let (key_id, day, region) = (parts.next()?, parts.next()?, parts.next()?);
        let service = (parts.next()?, parts.next()?);
        let key = (16..=128).contains(&key_id.len());
        let key = key && key_id.bytes().all(|c| c.is_ascii_alphanumeric());
        let hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        let signed = signature.len() == SIGNATURE_LEN && signature.bytes().all(hex);
        let ours = service == ("sts", "aws4_request") && parts.next().is_none();
        (key && signed && ours && digits(day, 8)).then_some(Self {
            day,
            region,
            signed_headers,
            signature,
        })
    }
}

fn digits(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|c| c.is_ascii_digit())
}

/// `20260921T141320Z`.
fn instant(text: &str) -> Option<Timestamp> {
    let (day, time) = text.strip_suffix('Z')?.split_once('T')?;
    if !digits(day, 8) || !digits(time, 6) {
        return None;
    }
    let (year, day) = day.split_at_checked(4)?;
    let (month, day) = day.split_at_checked(2)?;
    let (hour, time) = time.split_at_checked(2)?;
    let (minute, second) = time.split_at_checked(2)?;
    Timestamp::parse_rfc3339(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z"))
}
