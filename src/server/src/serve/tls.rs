//! TLS at our own listener: the certificate that we show, and those that clients do.
//!
//! Invariant: what a client showed in the handshake reaches every request of its connection
//! and no other's. A handshake that failed over it is counted, and is in the audit log: for each
//! reason one record a minute at most.

use std::{io, sync::Arc};

use axum::{Extension, middleware::AddExtension};
use axum_server::{
    accept::{Accept, NoDelayAcceptor},
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use futures_util::future::BoxFuture;
use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::net::TcpStream;
use tower_layer::Layer;

use crate::{
    broker::Broker,
    config::{ClientCertificates, TlsConfig},
    http::{ShownCertificates, note_certificate_refused},
    identity,
    tally::Tally,
};

/// What a listener's TLS is made of, again at each reload.
#[derive(Debug)]
pub(super) struct Tls {
    files: TlsConfig,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Tls {
    /// Prepares to ask for client certificates, if they are asked for: a handshake cannot
    /// wait for a bundle, so those are read before anybody connects.
    pub(super) async fn new(files: &TlsConfig, broker: &Broker) -> Self {
        let verifier = match files.client_certificates {
            ClientCertificates::None => WebPkiClientVerifier::no_client_auth(),
            ClientCertificates::Spiffe => {
                broker.authenticator.refresh_bundles().await;
                broker.authenticator.certificate_verifier()
            }
        };
        Self { files: files.clone(), verifier }
    }

    /// Reads certificate and key.
    ///
    /// # Errors
    /// They cannot be read, or do not belong together.
    pub(super) async fn config(&self) -> io::Result<Arc<ServerConfig>> {
        let chain = tokio::fs::read(&self.files.cert_file).await?;
        let key = tokio::fs::read(&self.files.key_file).await?;
        let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(io::Error::other)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_client_cert_verifier(Arc::clone(&self.verifier))
            .with_single_cert(chain, key)
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Takes connections over TLS, and gives their requests what the client showed.
#[derive(Clone, Debug)]
pub(super) struct Acceptor {
    inner: RustlsAcceptor<NoDelayAcceptor>,
    broker: Arc<Broker>,
    /// Whoever reaches us can fail any number of handshakes, and no request's bounds hold there.
    refused: Arc<Tally>,
}

impl Acceptor {
    pub(super) fn new(config: RustlsConfig, broker: Arc<Broker>) -> Self {
        let inner = RustlsAcceptor::new(config).acceptor(NoDelayAcceptor::new());
        Self { inner, broker, refused: Arc::default() }
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for Acceptor {
    type Stream = <RustlsAcceptor<NoDelayAcceptor> as Accept<TcpStream, S>>::Stream;
    type Service = AddExtension<S, ShownCertificates>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let address = stream.peer_addr().ok();
        let handshake = self.inner.accept(stream, service);
        let (broker, refused) = (Arc::clone(&self.broker), Arc::clone(&self.refused));
        Box::pin(async move {
            match handshake.await {
                Ok((stream, service)) => {
                    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
                    let shown = ShownCertificates(Arc::from(shown));
                    Ok((stream, Extension(shown).layer(service)))
                }
                Err(error) => {
                    if let Some(rejection) = identity::certificate_refusal(&error) {
                        note_certificate_refused(&broker, &refused, rejection, address).await;
                    }
                    Err(error)
                }
            }
        })
    }
}
