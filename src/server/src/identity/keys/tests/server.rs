//! An issuer's web site on this machine, with or without TLS.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use axum_server::tls_rustls::RustlsConfig;
use data_encoding::BASE64;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use crate::identity::tests::kit::der;

type Answer = Box<dyn Fn() -> Response + Send>;

/// What the site does, changed while it runs.
pub(crate) struct Site {
    pub(crate) url: String,
    pub(crate) status: AtomicU16,
    pub(crate) delay_millis: AtomicU64,
    document: Mutex<String>,
    answer: Mutex<Answer>,
    requests: AtomicU64,
    jwks_requests: AtomicU64,
}

/// Shared with the server; dereferences to the site.
pub(crate) struct Handle(Arc<Site>);

impl std::ops::Deref for Handle {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.0
    }
}

impl Site {
    pub(crate) async fn open() -> Handle {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let site = Self::new(url);
        let router = router(&site);
        drop(dayfly_lease::spawn(async move { axum::serve(listener, router).await }));
        Handle(site)
    }

    pub(crate) fn open_tls(config: rustls::ServerConfig) -> Handle {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let at: SocketAddr = listener.local_addr().unwrap();
        let site = Self::new(format!("https://localhost:{}", at.port()));
        let router = router(&site);
        let tls = RustlsConfig::from_config(Arc::new(config));
        let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
        drop(dayfly_lease::spawn(server.serve(router.into_make_service())));
        Handle(site)
    }

    fn new(url: String) -> Arc<Self> {
        let document = json!({"issuer": url, "jwks_uri": format!("{url}/jwks")}).to_string();
        Arc::new(Self {
            url,
            status: AtomicU16::new(200),
            delay_millis: AtomicU64::new(0),
            document: Mutex::new(document),
            answer: Mutex::new(Box::new(|| StatusCode::NOT_FOUND.into_response())),
            requests: AtomicU64::new(0),
            jwks_requests: AtomicU64::new(0),
        })
    }

    /// What the discovery answers.
    pub(crate) fn describe(&self, document: String) {
        *self.document.lock().unwrap() = document;
    }

    /// What the key set's URL answers.
    pub(crate) fn answer(&self, answer: impl Fn() -> Response + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    pub(crate) fn publish(&self, keys: &[Value]) {
        let jwks = json!({ "keys": keys }).to_string();
        self.answer(move || jwks.clone().into_response());
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn jwks_requests(&self) -> u64 {
        self.jwks_requests.load(Ordering::Relaxed)
    }

    async fn request(&self) -> Option<Response> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let delay = self.delay_millis.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let status = self.status.load(Ordering::Relaxed);
        (status != 200).then(|| StatusCode::from_u16(status).unwrap().into_response())
    }
}

fn router(site: &Arc<Site>) -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/jwks", get(jwks))
        .with_state(Arc::clone(site))
}

async fn discovery(State(site): State<Arc<Site>>) -> Response {
    if let Some(outage) = site.request().await {
        return outage;
    }
    site.document.lock().unwrap().clone().into_response()
}

async fn jwks(State(site): State<Arc<Site>>) -> Response {
    site.jwks_requests.fetch_add(1, Ordering::Relaxed);
    if let Some(outage) = site.request().await {
        return outage;
    }
    let answer = site.answer.lock().unwrap();
    answer()
}

/// A body of spaces without an end.
pub(crate) fn never_ending(pause: Duration, chunk_len: usize) -> Body {
    Body::from_stream(futures_util::stream::unfold((), move |()| async move {
        tokio::time::sleep(pause).await;
        let chunk = Bytes::from(vec![b' '; chunk_len]);
        Some((Ok::<_, std::io::Error>(chunk), ()))
    }))
}

/// A certificate authority that exists for one test.
pub(crate) struct Tls {
    pair: EcdsaKeyPair,
    certificate: Vec<u8>,
}

const ECDSA_WITH_SHA256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const EC_PUBLIC_KEY_P256: [u8; 19] = [
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1,
    7,
];

impl Tls {
    pub(crate) fn authority() -> Self {
        let (_, pair) = key_pair();
        // basicConstraints, critical: cA.
        let extension = extension(&[0x55, 0x1d, 0x13], true, &der(0x30, &der(0x01, &[0xff])));
        let certificate = certificate(&pair, &pair, "Test authority", &extension);
        Self { pair, certificate }
    }

    pub(crate) fn pem(&self) -> String {
        let base64 = BASE64.encode(&self.certificate);
        format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
    }

    /// What a server for `name` runs with.
    pub(crate) fn server(&self, name: &str) -> rustls::ServerConfig {
        let (pkcs8, pair) = key_pair();
        // subjectAltName: one dNSName.
        let names = der(0x30, &der(0x82, name.as_bytes()));
        let extension = extension(&[0x55, 0x1d, 0x11], false, &names);
        let certificate = certificate(&self.pair, &pair, "Test server", &extension);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate)],
                PrivatePkcs8KeyDer::from(pkcs8).into(),
            )
            .unwrap()
    }
}

fn key_pair() -> (Vec<u8>, EcdsaKeyPair) {
    let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_ASN1_SIGNING);
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap().as_ref().to_vec();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8, &random).unwrap();
    (pkcs8, pair)
}

fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { der(0x01, &[0xff]) } else { vec![] };
    der(0x30, &[der(0x06, id), critical, der(0x04, value)].concat())
}

/// An X.509 certificate, valid from 2020 to 2099.
fn certificate(
    issuer: &EcdsaKeyPair,
    subject: &EcdsaKeyPair,
    cn: &str,
    extension: &[u8],
) -> Vec<u8> {
    let name = |cn: &str| {
        let attribute = [der(0x06, &[0x55, 4, 3]), der(0x0c, cn.as_bytes())].concat();
        der(0x30, &der(0x31, &der(0x30, &attribute)))
    };
    let time = |text: &str| der(0x18, text.as_bytes());
    let bits = |bytes: &[u8]| der(0x03, &[&[0], bytes].concat());
    let signed_with = der(0x30, &ECDSA_WITH_SHA256);
    let body = der(
        0x30,
        &[
            der(0xa0, &der(0x02, &[2])),
            der(0x02, &[1]),
            signed_with.clone(),
            name("Test authority"),
            der(0x30, &[time("20200101000000Z"), time("20991231235959Z")].concat()),
            name(cn),
            der(
                0x30,
                &[der(0x30, &EC_PUBLIC_KEY_P256), bits(subject.public_key().as_ref())].concat(),
            ),
            der(0xa3, &der(0x30, extension)),
        ]
        .concat(),
    );
    let signature = issuer.sign(&SystemRandom::new(), &body).unwrap();
    der(0x30, &[body, signed_with, bits(signature.as_ref())].concat())
}
