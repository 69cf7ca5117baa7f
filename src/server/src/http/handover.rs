//! The moment a secret leaves: an answer that knows whether it was taken.
//!
//! Invariant: a lease counts as delivered only when the connection asked for the last byte of
//! the body. A body that is dropped before that drops its deliveries, and each of them revokes
//! its lease.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use dayfly_lease::{Delivery, Engine, TaskEnd, TaskId};
use http_body::{Frame, SizeHint};
use serde::Serialize;

use super::problem::Fault;

/// Ends its task unless the answer that names it was taken: nobody else knows its token.
#[derive(Debug)]
pub(super) struct TaskGuard {
    engine: Arc<Engine>,
    task: Option<TaskId>,
}

impl TaskGuard {
    pub(super) fn new(engine: &Arc<Engine>, task: TaskId) -> Self {
        Self { engine: Arc::clone(engine), task: Some(task) }
    }

    fn handed_over(mut self) {
        self.task = None;
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let Some(task) = self.task.take() else { return };
        let engine = Arc::clone(&self.engine);
        self.engine.detach(async move {
            let end = engine.complete(task, TaskEnd::Cancelled, "engine", Duration::ZERO).await;
            if let Err(error) = end {
                tracing::warn!(task.id = %task, %error, "task.undelivered.open");
            }
        });
    }
}

/// What the answer hands over.
#[derive(Debug, Default)]
pub(super) struct Handover {
    pub(super) deliveries: Vec<Delivery>,
    pub(super) task: Option<TaskGuard>,
}

impl Handover {
    fn done(self) {
        for delivery in self.deliveries {
            delivery.handed_over();
        }
        if let Some(task) = self.task {
            task.handed_over();
        }
    }
}

/// The body in two parts. The last byte is given only after the connection has had the chance
/// to send the rest: a client that is gone by then makes hyper drop the body, and with it what
/// was to be handed over. What the operating system has taken and the client never read is
/// beyond this; the task's end covers it.
struct HandedBody {
    bytes: Bytes,
    waited: bool,
    handover: Option<Handover>,
}

impl http_body::Body for HandedBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.bytes.len() {
            0 => return Poll::Ready(None),
            1 => {}
            length => {
                let most = self.bytes.split_to(length - 1);
                return Poll::Ready(Some(Ok(Frame::data(most))));
            }
        }
        if !self.waited {
            self.waited = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(handover) = self.handover.take() {
            handover.done();
        }
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

/// A JSON answer with secrets in it.
pub(super) fn respond(
    status: StatusCode,
    body: &impl Serialize,
    handover: Handover,
) -> Result<Response, Fault> {
    let bytes = serde_json::to_vec(body).map_err(|error| {
        tracing::error!(%error, "response.unwritable");
        Fault::internal()
    })?;
    let body = HandedBody { bytes: bytes.into(), waited: false, handover: Some(handover) };
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
