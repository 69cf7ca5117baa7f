//! `[server]`: where Dayfly listens, and what it takes at most.
//!
//! Invariant: outside loopback there is TLS, our own or a proxy's in front that the
//! configuration vouches for.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use url::Url;

use super::{
    fault::Wrong,
    secret,
    section::{Reading, Section, address, duration, flag, integer, one_of, text},
    tree::Item,
};
use crate::identity::OwnAddress;

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8420);

/// `[server]`.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The certificate to show; without it, plain HTTP.
    pub tls: Option<TlsConfig>,
    /// A proxy in front ends TLS, so that plain HTTP outside loopback is meant.
    pub behind_tls_proxy: bool,
    /// How clients reach us, when that differs from `listen`.
    pub public_url: Option<Url>,
    /// What one request and all of them may take.
    pub limits: LimitsConfig,
}

/// Which certificates clients may show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None is asked for.
    #[default]
    None,
    /// X.509-SVIDs of the configured trust domains. Who shows none has a bearer.
    Spiffe,
}

/// `[server.tls]`. Both files are read again when they change.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// The certificate chain, PEM, ours first.
    pub cert_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
    /// Whether clients are asked for a certificate.
    pub client_certificates: ClientCertificates,
}

/// `[server.limits]`.
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// The largest request body.
    pub body_bytes_max: u32,
    /// After this long a request is answered 503, wherever it stands.
    pub request_timeout: Duration,
    /// Requests in work at once; one more is answered 503.
    pub concurrency: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: 65_536,
            request_timeout: Duration::from_secs(30),
            concurrency: 1_024,
        }
    }
}

impl ServerConfig {
    /// What proofs of possession must be for.
    pub fn own_address(&self) -> OwnAddress {
        OwnAddress::new(self.public_url.as_ref(), self.listen, self.behind_tls_proxy)
    }

    /// What we call ourselves, without the slash at the end that a URL without a path has.
    pub fn own_url(&self) -> Option<String> {
        self.public_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned())
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: LISTEN,
            tls: None,
            behind_tls_proxy: false,
            public_url: None,
            limits: LimitsConfig::default(),
        }
    }
}

pub(super) fn read(section: &Section<'_>) -> ServerConfig {
    let config = ServerConfig {
        listen: section.optional("listen", address).unwrap_or(LISTEN),
        tls: section.table("tls", tls).flatten(),
        behind_tls_proxy: section.optional("behind_tls_proxy", flag).unwrap_or(false),
        public_url: section.optional("public_url", public_url),
        limits: section.table("limits", limits).unwrap_or_default(),
    };
    let tls = section.table.item("tls").is_some();
    if !config.listen.ip().is_loopback() && !tls && !config.behind_tls_proxy {
        section.fault(
            "listen",
            "outside loopback TLS is needed: set `tls`, or `behind_tls_proxy = true` if a \
             proxy in front ends it",
        );
    }
    if tls && config.behind_tls_proxy {
        section.fault("behind_tls_proxy", "`tls` is set, so Dayfly ends TLS itself");
    }
    config
}

fn tls(section: &Section<'_>) -> Option<TlsConfig> {
    for key in ["cert_file", "key_file"] {
        if section.item(key).is_none() {
            section.missing(key);
        }
    }
    let (cert_file, key_file) = (section.path("cert_file"), section.path("key_file"));
    if let Some(Err(wrong)) = cert_file.as_deref().map(secret::check_readable) {
        section.fault("cert_file", wrong);
    }
    if let Some(Err(wrong)) = key_file.as_deref().map(secret::open_private) {
        section.fault("key_file", wrong);
    }
    let known = [("none", ClientCertificates::None), ("spiffe", ClientCertificates::Spiffe)];
    let client_certificates =
        section.optional("client_certificates", one_of(&known)).unwrap_or_default();
    Some(TlsConfig { cert_file: cert_file?, key_file: key_file?, client_certificates })
}

fn limits(section: &Section<'_>) -> LimitsConfig {
    let default = LimitsConfig::default();
    let timeout = duration(Duration::from_secs(1)..=Duration::from_mins(5));
    LimitsConfig {
        body_bytes_max: section
            .optional("body_bytes_max", integer(1_024..=1_048_576))
            .unwrap_or(default.body_bytes_max),
        request_timeout: section
            .optional("request_timeout", timeout)
            .unwrap_or(default.request_timeout),
        concurrency: section
            .optional("concurrency", integer(1..=100_000))
            .unwrap_or(default.concurrency),
    }
}

fn public_url(item: &Item) -> Reading<Url> {
    let url =
        Url::parse(&text(item)?).map_err(|error| Wrong::from(format!("not a URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("expected an https URL".into());
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err("a public URL has no user, query or fragment".into());
    }
    let loopback = match url.host() {
        Some(url::Host::Domain(domain)) => domain == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    if url.scheme() == "http" && !loopback {
        return Err("clients outside loopback need https".into());
    }
    Ok(url)
}
