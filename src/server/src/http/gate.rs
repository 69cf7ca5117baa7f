//! Bodies on their way, and the places that requests work in.
//!
//! Invariant: whoever waits for the rest of a body has no place meanwhile, so that bodies that do
//! not come keep nobody else out. Strangers, of whom nothing is known but by their bodies, have a
//! few seconds and a gate for each route; callers have a token, which is little to have where
//! anybody may have one of a large platform.

mod readers;

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Extension,
    body::Bytes,
    extract::{FromRequest, Request},
};
use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::readers::Readers;
use super::{json::Raw, problem::Fault};
use crate::broker::Broker;

/// Bodies of strangers that one route reads at a time.
const STRANGERS_MAX: usize = 64;
/// Whoever has something to say sends it in one go.
const READ_WITHIN: Duration = Duration::from_secs(3);

/// What bodies pass on their way.
pub(super) struct Gate {
    readers: Readers,
    places: Arc<Semaphore>,
}

impl Gate {
    /// For up to `most` bodies at a time, of requests that work in `places`.
    pub(super) fn new(most: usize, places: &Arc<Semaphore>) -> Arc<Self> {
        Arc::new(Self { readers: Readers::new(most), places: Arc::clone(places) })
    }

    /// A layer for one route of strangers, whose handler takes a [`Heard`].
    pub(super) fn of_strangers(places: &Arc<Semaphore>) -> Extension<Arc<Self>> {
        Extension(Self::new(STRANGERS_MAX, places))
    }

    /// A place for one request, if there is any.
    pub(super) fn place(self: &Arc<Self>) -> Option<Place> {
        let taken = Arc::new(Mutex::new(Some(self.take().ok()?)));
        Some(Place { gate: Arc::clone(self), taken })
    }

    fn take(&self) -> Result<OwnedSemaphorePermit, Fault> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| Fault::busy())
    }

    /// Waits for a body, unless it must make room for another one.
    async fn pass<T>(&self, body: impl Future<Output = T>) -> Result<T, Fault> {
        let mut reader = self.readers.enter();
        tokio::select! {
            body = body => Ok(body),
            () = reader.turned_away() => Err(Fault::busy()),
        }
    }
}

/// The place that a caller's request works in, which it has but for while its body comes.
#[derive(Clone)]
pub(super) struct Place {
    gate: Arc<Gate>,
    taken: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Place {
    /// Waits for a body. Only one that is there already keeps the place.
    pub(super) async fn pass<T>(&self, body: impl Future<Output = T>) -> Result<T, Fault> {
        let mut body = pin!(body);
        if let Some(body) = body.as_mut().now_or_never() {
            return Ok(body);
        }
        self.leave();
        let body = self.gate.pass(body).await?;
        *self.taken() = Some(self.gate.take()?);
        Ok(body)
    }

    /// Gives the place to others.
    pub(super) fn leave(&self) {
        drop(self.taken().take());
    }

    fn taken(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of somebody who may be anybody, and the place to work in that its request took when
/// the body was there. It does not wait for one, so that no more bodies are in memory than are
/// read or worked on.
pub(crate) struct Heard {
    pub(super) body: Bytes,
    /// To be kept until the answer is made.
    pub(super) place: OwnedSemaphorePermit,
}

impl FromRequest<Arc<Broker>> for Heard {
    type Rejection = Fault;

    async fn from_request(request: Request, broker: &Arc<Broker>) -> Result<Self, Fault> {
        let Some(gate) = request.extensions().get::<Arc<Gate>>().cloned() else {
            tracing::error!("http.gate.missing");
            return Err(Fault::internal());
        };
        let Raw(body) = tokio::select! {
            body = gate.pass(Raw::from_request(request, broker)) => body??,
            () = broker.clock.sleep(READ_WITHIN) => return Err(Fault::too_slow()),
        };
        Ok(Self { body, place: gate.take()? })
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn others_have_the_place_while_a_body_comes() {
        let gate = Gate::new(1, &Arc::new(Semaphore::new(1)));
        let place = gate.place().unwrap();
        assert!(place.pass(async {}).await.is_ok());
        assert!(gate.place().is_none(), "a body that is there keeps the place");
        let (sender, body) = oneshot::channel::<()>();
        let mut passing = pin!(place.pass(body));
        assert!(passing.as_mut().now_or_never().is_none());
        gate.place().expect("nobody works in it").leave();
        sender.send(()).unwrap();
        assert!(passing.await.is_ok());
        assert!(gate.place().is_none(), "it is taken again");
        place.leave();
        assert!(gate.place().is_some());
    }

    #[tokio::test]
    async fn who_comes_back_to_a_full_house_is_told_so() {
        let gate = Gate::new(1, &Arc::new(Semaphore::new(1)));
        let place = gate.place().unwrap();
        let (sender, body) = oneshot::channel::<()>();
        let mut passing = pin!(place.pass(body));
        assert!(passing.as_mut().now_or_never().is_none());
        let _other = gate.place().unwrap();
        sender.send(()).unwrap();
        assert!(passing.await.is_err());
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_makes_room_for_the_next() {
        let gate = Gate::new(1, &Arc::new(Semaphore::new(2)));
        let (first, second) = (gate.place().unwrap(), gate.place().unwrap());
        let mut waiting = pin!(first.pass(std::future::pending::<()>()));
        assert!(waiting.as_mut().now_or_never().is_none());
        let mut next = pin!(second.pass(std::future::pending::<()>()));
        assert!(next.as_mut().now_or_never().is_none());
        assert!(waiting.await.is_err());
        assert!(next.as_mut().now_or_never().is_none());
    }
}
