//! The listener, with or without TLS, and how it ends.
//!
//! Invariant: told to stop, it takes no new connection, lets requests finish within a bound,
//! and only then returns.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use axum_server::{Handle, accept::NoDelayAcceptor, tls_rustls::RustlsConfig};
use dayfly_lease::spawn;
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

use super::{
    ServeError,
    tls::{Acceptor, Tls},
};
use crate::{broker::Broker, config::TlsConfig, http, identity};

/// The longest that requests may take to finish after we were told to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// A listener at work.
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    handle: Handle<SocketAddr>,
    server: JoinHandle<std::io::Result<()>>,
    tls: Option<(RustlsConfig, Tls)>,
}

/// Listens on `address`; port 0 takes a free one.
pub async fn listen(
    broker: &Arc<Broker>,
    address: SocketAddr,
    tls: Option<&TlsConfig>,
) -> Result<Listening, ServeError> {
    identity::install_crypto();
    let failed = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    let service =
        http::router(Arc::clone(broker)).into_make_service_with_connect_info::<SocketAddr>();
    let handle = Handle::new();
    // Answers with a secret go out in two writes (http/handover.rs); Nagle's algorithm would
    // hold the second back until the first is acknowledged. The same holds in tls.rs.
    let (server, tls) = match tls {
        None => {
            let mut server = axum_server::from_tcp(listener)
                .map_err(failed)?
                .acceptor(NoDelayAcceptor::new())
                .handle(handle.clone());
            bound(server.http_builder());
            (spawn(server.serve(service)), None)
        }
        Some(files) => {
            let tls = Tls::new(files, broker).await;
            let config = RustlsConfig::from_config(tls.config().await.map_err(ServeError::Tls)?);
            let mut server = axum_server::from_tcp(listener)
                .map_err(failed)?
                .acceptor(Acceptor::new(config.clone(), Arc::clone(broker)))
                .handle(handle.clone());
            bound(server.http_builder());
            (spawn(server.serve(service)), Some((config, tls)))
        }
    };
    Ok(Listening { address: local, handle, server, tls })
}

/// A client that dawdles over its headers, or opens streams without end, is let go.
fn bound(builder: &mut Builder<TokioExecutor>) {
    const HEADERS_WITHIN: Duration = Duration::from_secs(10);
    const HEADERS_BYTES_MAX: usize = 64 * 1024;
    const STREAMS_MAX: u32 = 128;
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(HEADERS_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(64 * 1024)
        .keep_alive_interval(HEADERS_WITHIN);
}

impl Listening {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for SIGTERM or SIGINT, calls `stopping`, then drains. SIGHUP calls `reload` and
    /// reads the certificate again.
    pub async fn until_told_to_stop(self, reload: impl Fn(), stopping: impl FnOnce()) {
        let streams = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
            signal(SignalKind::hangup()),
        );
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = streams else {
            tracing::error!("server.signals.unavailable");
            stopping();
            return self.stop().await;
        };
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {
                    reload();
                    self.reload_certificate().await;
                }
            }
        }
        tracing::info!("server.stopping");
        stopping();
        self.stop().await;
    }

    async fn reload_certificate(&self) {
        let Some((config, tls)) = &self.tls else { return };
        match tls.config().await {
            Ok(read) => {
                config.reload_from_config(read);
                tracing::info!("tls.reloaded");
            }
            Err(error) => tracing::error!(%error, "tls.reload.refused"),
        }
    }

    /// Takes no more connections and lets requests finish.
    pub async fn stop(self) {
        self.handle.graceful_shutdown(Some(DRAIN));
        match self.server.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "server.failed"),
            Err(error) => tracing::error!(%error, "server.died"),
        }
    }
}
