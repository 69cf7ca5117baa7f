//! Keys from the issuer itself: its discovery document, then its JWK set.
//!
//! Invariant: only the configured issuer is asked, over verified TLS, without a proxy or a
//! redirect, within one bound of time and of size for all of it. The document must be for
//! the configured issuer and point at the issuer's own origin.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use reqwest::{
    Certificate, Client, ClientBuilder, StatusCode,
    header::{ACCEPT, CONTENT_ENCODING, HeaderValue},
    redirect,
};
use url::Url;

use super::{
    super::{
        IssuerConfig, SetupError,
        address::Resolver,
        config::is_loopback,
        json::{self, Json, Limits},
        jwks::{JWKS_LEN_MAX, KeySet},
        provider,
    },
    KeySource, KeysError,
};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
const DISCOVERY_LEN_MAX: usize = 64 * 1024;
const DISCOVERY_LIMITS: Limits =
    Limits { depth: 16, members: 500, elements: 2_000, text_len: 4_096 };

/// Why a discovery document is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryFault {
    /// It is for another issuer.
    #[error("its `issuer` is not the configured one")]
    Issuer,
    /// `jwks_uri` is missing, not a URL, or on another origin.
    #[error("its `jwks_uri` is not a URL of the issuer's own origin (`jwks_url` may name another)")]
    JwksUri,
    /// Not a JSON object.
    #[error("it is not a JSON object, or exceeds its bounds")]
    Malformed,
}

/// An issuer's keys over HTTP.
#[derive(Debug)]
pub struct HttpKeys {
    client: Client,
    /// `iss`, byte for byte.
    issuer: String,
    discovery: Url,
    /// Asked instead of the discovery, if configured.
    jwks: Option<Url>,
    pub(super) timeout: Duration,
}

impl HttpKeys {
    /// Prepares a client for one issuer: reads the CA file, connects to nothing.
    pub fn new(config: &IssuerConfig) -> Result<Self, SetupError> {
        let url_error = |source| SetupError::Url { name: config.name.clone(), source };
        let base = config.issuer.trim_end_matches('/');
        let discovery = Url::parse(&format!("{base}/.well-known/openid-configuration"));
        let discovery = discovery.map_err(url_error)?;
        let jwks = config.jwks_url.as_deref().map(Url::parse).transpose().map_err(url_error)?;
        let asked = jwks.as_ref().unwrap_or(&discovery);
        let ca_file = config.ca_file.as_deref();
        let client = client(&config.name, ca_file, !config.insecure_http, is_loopback(asked))?;
        Ok(Self { client, issuer: config.issuer.clone(), discovery, jwks, timeout: TIMEOUT })
    }

    async fn set(&self) -> Result<KeySet, KeysError> {
        let jwks = match &self.jwks {
            Some(configured) => configured.clone(),
            None => self.discovered().await?,
        };
        let bytes = get(&self.client, jwks, JWKS_LEN_MAX).await?;
        KeySet::parse(&bytes).map_err(KeysError::Jwks)
    }

    async fn discovered(&self) -> Result<Url, KeysError> {
        let bytes = get(&self.client, self.discovery.clone(), DISCOVERY_LEN_MAX).await?;
        let document = json::object(&bytes, DISCOVERY_LIMITS)
            .map_err(|_| KeysError::Discovery(DiscoveryFault::Malformed))?;
        if document.get("issuer").and_then(Json::text) != Some(self.issuer.as_str()) {
            return Err(KeysError::Discovery(DiscoveryFault::Issuer));
        }
        let uri = document.get("jwks_uri").and_then(Json::text).and_then(|u| Url::parse(u).ok());
        uri.filter(|uri| uri.origin() == self.discovery.origin() && uri.username().is_empty())
            .ok_or(KeysError::Discovery(DiscoveryFault::JwksUri))
    }
}

#[async_trait]
impl KeySource for HttpKeys {
    async fn fetch(&self) -> Result<KeySet, KeysError> {
        // One bound for name, connection, discovery and keys together.
        tokio::time::timeout(self.timeout, self.set()).await.unwrap_or(Err(KeysError::Timeout))
    }
}

/// What `url` answers, up to `len_max` bytes. How long it takes is for the caller to bound.
pub(crate) async fn get(client: &Client, url: Url, len_max: usize) -> Result<Vec<u8>, KeysError> {
    let request = client.get(url).header(ACCEPT, "application/json");
    let mut answer = request.send().await.map_err(transport)?;
    if answer.status().is_redirection() {
        return Err(KeysError::Redirect);
    }
    if answer.status() != StatusCode::OK {
        return Err(KeysError::Status(answer.status().as_u16()));
    }
    let identity = HeaderValue::from_static("identity");
    if answer.headers().get(CONTENT_ENCODING).is_some_and(|coding| *coding != identity) {
        return Err(KeysError::Compressed);
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > len_max {
            return Err(KeysError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn transport(error: reqwest::Error) -> KeysError {
    KeysError::Transport(error)
}

/// A client for one issuer's keys: verified TLS, no proxy, no redirect, and no address that
/// nothing of an issuer has.
pub(crate) fn client(
    issuer: &str,
    ca_file: Option<&Path>,
    https_only: bool,
    loopback_allowed: bool,
) -> Result<Client, SetupError> {
    builder(issuer, ca_file, https_only, loopback_allowed)?
        .pool_max_idle_per_host(1)
        .build()
        .map_err(|source| SetupError::Client { name: issuer.to_owned(), source })
}

/// What such a client is made of, for whoever asks an issuer for something else.
pub(crate) fn builder(
    issuer: &str,
    ca_file: Option<&Path>,
    https_only: bool,
    loopback_allowed: bool,
) -> Result<ClientBuilder, SetupError> {
    provider::install();
    let builder = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .referer(false)
        .https_only(https_only)
        .dns_resolver(Resolver { loopback_allowed })
        .connect_timeout(TIMEOUT)
        .user_agent("dayfly-server");
    let Some(path) = ca_file else { return Ok(builder) };
    let unreadable = |source| SetupError::CaFile { path: path.to_owned(), source };
    let pem = std::fs::read(path).map_err(unreadable)?;
    let bad = |source| SetupError::Client { name: issuer.to_owned(), source };
    let roots = Certificate::from_pem_bundle(&pem).map_err(bad)?;
    if roots.is_empty() {
        return Err(SetupError::NoCertificate { path: path.to_owned() });
    }
    Ok(builder.tls_certs_merge(roots))
}
