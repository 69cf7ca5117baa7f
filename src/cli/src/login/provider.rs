//! What an OpenID provider is asked.
//!
//! Invariant: it is asked at addresses that it names under its own name, over https or on loopback,
//! and follows us nowhere else; what it answers is bounded.

use std::fmt;

use dayfly_api::Login as Offer;
use reqwest::{StatusCode, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use url::{Url, form_urlencoded};
use zeroize::Zeroize as _;

use super::Error;
use crate::client::{Trust, check_secure, read_body};

/// Where a provider describes itself (OpenID Connect Discovery 1.0 §4).
const DISCOVERY: &str = "/.well-known/openid-configuration";
const FORM: &str = "application/x-www-form-urlencoded";
/// The longest that a provider's own words may be in a message of ours.
const WORDS_MAX: usize = 200;

/// A provider that has described itself.
pub(super) struct Provider {
    pub(super) offer: Offer,
    pub(super) endpoints: Endpoints,
    /// It puts its name into the browser's answer (RFC 9207).
    pub(super) names_itself: bool,
    trust: Trust,
}

/// Where it is asked for what.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Endpoints {
    #[serde(rename = "authorization_endpoint")]
    pub(super) authorization: Option<String>,
    #[serde(rename = "device_authorization_endpoint")]
    pub(super) device: Option<String>,
    #[serde(rename = "revocation_endpoint")]
    revocation: Option<String>,
    #[serde(rename = "token_endpoint")]
    token: String,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    #[serde(flatten)]
    endpoints: Endpoints,
}

/// What a token endpoint gives (RFC 6749 §5.1).
#[derive(Default, Deserialize)]
pub(super) struct Tokens {
    pub(super) access_token: Option<String>,
    pub(super) id_token: Option<String>,
    pub(super) refresh_token: Option<String>,
    pub(super) expires_in: Option<u64>,
}

/// An answer, or the provider's no (RFC 6749 §5.2).
pub(super) enum Reply<T> {
    Given(T),
    Refused {
        error: String,
        /// What it says of it, with what comes before that in a message.
        more: String,
    },
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
}

impl Provider {
    /// Asks the provider of `offer` to describe itself.
    pub(super) async fn discover(offer: Offer, trust: Trust) -> Result<Self, Error> {
        let issuer = offer.issuer.clone();
        let url = format!("{}{DISCOVERY}", issuer.strip_suffix('/').unwrap_or(&issuer));
        let asked = Asked::new(&issuer, &url, &trust)?;
        let response = asked.http.get(asked.url.clone()).send().await;
        let (status, body) = asked.read(response).await?;
        let metadata: Option<Metadata> = serde_json::from_slice(&body).ok();
        let metadata = metadata.filter(|_| status == StatusCode::OK);
        let metadata = metadata.ok_or_else(|| asked.wrong("does not describe itself"))?;
        // Or one provider could answer for another (RFC 8414 §3.3).
        if metadata.issuer != issuer {
            return Err(asked.wrong(&format!("calls itself `{}`", cut(&metadata.issuer))));
        }
        Ok(Self {
            offer,
            endpoints: metadata.endpoints,
            names_itself: metadata.authorization_response_iss_parameter_supported,
            trust,
        })
    }

    pub(super) async fn tokens(&self, form: &[(&str, &str)]) -> Result<Reply<Tokens>, Error> {
        self.endpoints.tokens(&self.offer.issuer, form, &self.trust).await
    }

    /// Sends `form` to `url`.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        url: &str,
        form: &[(&str, &str)],
    ) -> Result<Reply<T>, Error> {
        Asked::new(&self.offer.issuer, url, &self.trust)?.reply(form).await
    }

    pub(super) fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::Provider { issuer: self.offer.issuer.clone(), reason: reason.into() }
    }

    /// What is asked for, as OAuth writes it.
    pub(super) fn scope(&self) -> String {
        self.offer.scopes.join(" ")
    }
}

impl Endpoints {
    pub(super) async fn tokens(
        &self,
        issuer: &str,
        form: &[(&str, &str)],
        trust: &Trust,
    ) -> Result<Reply<Tokens>, Error> {
        Asked::new(issuer, &self.token, trust)?.reply(form).await
    }

    /// Takes `token` back, where the provider can.
    pub(super) async fn revoke(
        &self,
        offer: &Offer,
        (token, kind): (&str, &str),
        trust: &Trust,
    ) -> Result<(), Error> {
        let Some(url) = &self.revocation else { return Ok(()) };
        let form = [("token", token), ("token_type_hint", kind), ("client_id", &offer.client_id)];
        let asked = Asked::new(&offer.issuer, url, trust)?;
        let (status, _) = asked.post(&form).await?;
        if status.is_success() { Ok(()) } else { Err(asked.wrong(&format!("answered {status}"))) }
    }
}

/// The provider's own words, no longer than a reader wants them.
pub(super) fn cut(words: &str) -> String {
    words.chars().take(WORDS_MAX).collect()
}

/// One address of a provider.
struct Asked<'a> {
    http: reqwest::Client,
    issuer: &'a str,
    url: Url,
}

impl<'a> Asked<'a> {
    fn new(issuer: &'a str, url: &str, trust: &Trust) -> Result<Self, Error> {
        let wrong = || Error::Provider {
            issuer: issuer.to_owned(),
            reason: format!("names `{}`, which is neither https nor on this machine", cut(url)),
        };
        let url = Url::parse(url).map_err(|_| wrong())?;
        check_secure(&url).map_err(|()| wrong())?;
        let http = trust.http(url.scheme() == "http").map_err(Error::Setup)?;
        Ok(Self { http, issuer, url })
    }

    fn wrong(&self, reason: &str) -> Error {
        Error::Provider { issuer: self.issuer.to_owned(), reason: reason.to_owned() }
    }

    async fn post(&self, form: &[(&str, &str)]) -> Result<(StatusCode, Vec<u8>), Error> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.http.post(self.url.clone()).header(header::CONTENT_TYPE, FORM);
        let request = request.header(header::ACCEPT, "application/json").body(body);
        self.read(request.send().await).await
    }

    /// What it says to `form`.
    async fn reply<T: DeserializeOwned>(&self, form: &[(&str, &str)]) -> Result<Reply<T>, Error> {
        let (status, body) = self.post(form).await?;
        if status.is_success() {
            let given = serde_json::from_slice(&body).ok().map(Reply::Given);
            return given.ok_or_else(|| self.wrong("gave an answer that can't be read"));
        }
        let Ok(Refusal { error, error_description }) = serde_json::from_slice(&body) else {
            return Err(self.wrong(&format!("answered {status}")));
        };
        let more = error_description.map(|text| format!(" ({})", cut(&text))).unwrap_or_default();
        Ok(Reply::Refused { error: cut(&error), more })
    }

    async fn read(
        &self,
        response: Result<reqwest::Response, reqwest::Error>,
    ) -> Result<(StatusCode, Vec<u8>), Error> {
        let unreachable = |source: reqwest::Error| Error::Unreachable {
            url: self.issuer.to_owned(),
            source: source.without_url(),
        };
        let response = response.map_err(unreachable)?;
        let status = response.status();
        let body = read_body(response).await.map_err(unreachable)?;
        let body = body.ok_or_else(|| self.wrong("gave an answer that is too long"))?;
        Ok((status, body))
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.access_token.zeroize();
        self.id_token.zeroize();
        self.refresh_token.zeroize();
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(…)")
    }
}
