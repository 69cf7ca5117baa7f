//! Passwords and their verifiers, made ahead.
//!
//! Invariant: each is given once, and is no role's before that. It hides a part of a mint's
//! arithmetic from who waits for it; under load, when nothing is ahead, everybody makes their own.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dayfly_backend_sdk::Secret;
use ring::{error::Unspecified, rand::SystemRandom};

use crate::{credential::random_password, scram};

/// How many are kept of each kind.
const AHEAD: usize = 32;
/// From so many iterations on it pays to go to another thread: some 20 µs.
const ITERATIONS_MIN: u32 = 64;

type Made = (Secret, String);

#[derive(Default)]
struct Shelf {
    made: Vec<Made>,
    filling: bool,
}

/// What is ahead, by the iterations of its verifiers: as many kinds as templates have.
#[derive(Default)]
pub(crate) struct Stock(Arc<Mutex<BTreeMap<NonZeroU32, Shelf>>>);

impl Stock {
    /// A password that nobody has, and its verifier.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
    pub(crate) async fn take(&self, iterations: NonZeroU32) -> Result<Made, Unspecified> {
        if iterations.get() < ITERATIONS_MIN {
            return make(iterations);
        }
        let (made, fills) = {
            let mut shelves = lock(&self.0);
            let shelf = shelves.entry(iterations).or_default();
            let fills = !std::mem::replace(&mut shelf.filling, true);
            (shelf.made.pop(), fills)
        };
        let made = match made {
            Some(made) => Ok(made),
            None => tokio::task::spawn_blocking(move || make(iterations))
                .await
                .map_err(|_| Unspecified)?,
        };
        if fills {
            let shelves = Arc::clone(&self.0);
            tokio::task::spawn_blocking(move || fill(&shelves, iterations));
        }
        made
    }
}

fn fill(shelves: &Mutex<BTreeMap<NonZeroU32, Shelf>>, iterations: NonZeroU32) {
    loop {
        let made = make(iterations);
        let mut shelves = lock(shelves);
        let shelf = shelves.entry(iterations).or_default();
        shelf.made.extend(made.clone());
        if made.is_err() || shelf.made.len() >= AHEAD {
            shelf.filling = false;
            return;
        }
    }
}

fn make(iterations: NonZeroU32) -> Result<Made, Unspecified> {
    let random = SystemRandom::new();
    let (password, salt) = random_password(&random)?;
    let verifier = scram::verifier(password.expose(), &salt, iterations);
    Ok((password, verifier))
}

fn lock<T>(shelves: &Mutex<T>) -> MutexGuard<'_, T> {
    shelves.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;

    #[tokio::test]
    async fn each_is_given_once_and_more_are_made_ahead() {
        let (stock, iterations) = (Stock::default(), NonZeroU32::new(64).unwrap());
        let mut seen = BTreeSet::new();
        for _ in 0..3 * AHEAD {
            let (password, verifier) = stock.take(iterations).await.unwrap();
            assert!(verifier.starts_with("SCRAM-SHA-256$64:"));
            assert!(seen.insert(password.expose().to_owned()) && seen.insert(verifier));
        }
        for _ in 0..1_000 {
            if lock(&stock.0).get(&iterations).is_some_and(|shelf| shelf.made.len() == AHEAD) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing was made ahead");
    }
}
