//! HTTP/1.1 as the agent and the endpoint serve it.
//!
//! Invariant: a request is a small head and no more; whoever is slow or sends more is let go.

use std::{convert::Infallible, io, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};

/// Connections that are served at once; others wait.
const CONNECTIONS_MAX: usize = 32;
/// What a request may have before its end.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that an answer may take: the broker is asked for it.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(2);
/// When there are no file descriptors left, say.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) type Answer = Response<Full<Bytes>>;

/// Takes connections for ever and serves several at once.
pub(crate) async fn accept_all<T, A, S>(
    accept: impl Fn() -> A,
    serve: impl Fn(T) -> S,
) -> Infallible
where
    A: Future<Output = io::Result<T>>,
    S: Future<Output = ()>,
{
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = accept(), if open.len() < CONNECTIONS_MAX => match accepted {
                Ok(stream) => open.push(serve(stream)),
                Err(_) => sleep(PAUSE).await,
            },
            Some(()) = open.next(), if !open.is_empty() => {}
        }
    }
}

/// Serves one request.
pub(crate) async fn serve<I, F>(stream: I, answer: impl Fn(Request<Incoming>) -> F)
where
    I: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Answer>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // Who speaks no HTTP, or is gone, has no answer to read.
    let _ = timeout(CONNECTION_TIMEOUT, connection).await;
}

/// An answer that nobody in between may keep.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
