//! The numeric ids of the roles that we have seen. A session of a role that is gone can be found
//! by the id alone.
//!
//! Invariant: bounded, the oldest forgotten first. An id outlives its role here, since a login that
//! was past its checks may be seen only after the role is.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dayfly_backend_sdk::Handle;
use tokio::time::Instant;

/// How many are remembered.
const OIDS_MAX: usize = 16_384;
/// How long one is remembered after its role. The server gives a login a minute
/// (`authentication_timeout`), and an id is given again only after some billions of others.
const GONE_KEPT: Duration = Duration::from_mins(10);

#[derive(Debug, Default)]
pub(crate) struct Oids(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    by_handle: HashMap<Handle, Known>,
    order: VecDeque<Handle>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    oid: i64,
    /// When we dropped it, or saw that it was gone.
    gone_at: Option<Instant>,
}

impl Known {
    fn is_stale(&self, now: Instant) -> bool {
        self.gone_at.is_some_and(|at| now.saturating_duration_since(at) >= GONE_KEPT)
    }
}

impl Oids {
    pub(crate) fn remember(&self, handle: &Handle, oid: i64) {
        self.insert(handle, Known { oid, gone_at: None });
    }

    /// Remembers that it was dropped just now.
    pub(crate) fn dropped(&self, handle: &Handle, oid: i64) {
        self.insert(handle, Known { oid, gone_at: Some(Instant::now()) });
    }

    /// Neither the role nor a session of it was there.
    pub(crate) fn gone(&self, handle: &Handle) {
        if let Some(known) = self.lock().by_handle.get_mut(handle) {
            known.gone_at.get_or_insert_with(Instant::now);
        }
    }

    fn insert(&self, handle: &Handle, known: Known) {
        let mut remembered = self.lock();
        if remembered.by_handle.insert(handle.clone(), known).is_none() {
            remembered.order.push_back(handle.clone());
        }
        while remembered.order.len() > OIDS_MAX {
            if let Some(oldest) = remembered.order.pop_front() {
                remembered.by_handle.remove(&oldest);
            }
        }
    }

    pub(crate) fn known(&self, handle: &Handle) -> Option<i64> {
        let known = self.lock().by_handle.get(handle).copied();
        known.filter(|known| !known.is_stale(Instant::now())).map(|known| known.oid)
    }

    pub(crate) fn gone_at(&self, handle: &Handle) -> Option<Instant> {
        self.lock().by_handle.get(handle).and_then(|known| known.gone_at)
    }

    /// Those of `oids` that are ids of roles of ours.
    pub(crate) fn ours(&self, oids: &[i64]) -> Vec<i64> {
        if oids.is_empty() {
            return Vec::new();
        }
        let (remembered, now) = (self.lock(), Instant::now());
        let fresh = remembered.by_handle.values().filter(|known| !known.is_stale(now));
        fresh.map(|known| known.oid).filter(|oid| oids.contains(oid)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(number: usize) -> Handle {
        Handle::parse(format!("a{number}")).unwrap()
    }

    #[test]
    fn remembered_ids_are_bounded_and_the_oldest_go_first() {
        let oids = Oids::default();
        for number in 0..OIDS_MAX + 10 {
            oids.remember(&handle(number), 1);
        }
        assert_eq!(oids.known(&handle(0)), None);
        assert_eq!(oids.known(&handle(OIDS_MAX)), Some(1));
        assert_eq!(oids.lock().order.len(), OIDS_MAX);
        assert_eq!(oids.lock().by_handle.len(), OIDS_MAX);
    }

    #[test]
    fn the_id_of_a_role_that_is_gone_is_kept_for_minutes() {
        let oids = Oids::default();
        oids.dropped(&handle(1), 7);
        oids.remember(&handle(2), 8);
        oids.gone(&handle(1));
        oids.gone(&handle(2));
        oids.gone(&handle(3));
        assert_eq!((oids.known(&handle(1)), oids.known(&handle(2))), (Some(7), Some(8)));
        assert_eq!(oids.known(&handle(3)), None);
        assert_eq!(oids.ours(&[8, 9]), [8]);
        let now = Instant::now();
        let known = Known { oid: 7, gone_at: Some(now) };
        assert!(!known.is_stale(now + GONE_KEPT / 2) && known.is_stale(now + GONE_KEPT));
        assert!(!Known { oid: 7, gone_at: None }.is_stale(now + GONE_KEPT));
    }
}
