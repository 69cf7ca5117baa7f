//! Passwords and their verifiers, made ahead.
//!
//! Invariant: each is given once, and is no role's before that. It hides a part of a mint's
//! arithmetic from who waits for it; under load, when nothing is ahead, everybody makes their own.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dayfly_backend_sdk::{Error, ErrorKind, Secret};
use ring::{error::Unspecified, rand::SystemRandom};

use crate::{
    credential::{no_random_numbers, random_password},
    scram,
};

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

type Shelves = Mutex<BTreeMap<NonZeroU32, Shelf>>;

/// What is ahead, by the iterations of its verifiers: as many kinds as templates have.
#[derive(Default)]
pub(crate) struct Stock(Arc<Shelves>);

impl Stock {
    /// A password that nobody has, and its verifier.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the operating system has no random numbers, or the
    /// arithmetic was not done.
    pub(crate) async fn take(&self, iterations: NonZeroU32) -> Result<Made, Error> {
        if iterations.get() < ITERATIONS_MIN {
            return make(iterations).map_err(no_random_numbers);
        }
        let (made, fills) = {
            let mut shelves = lock(&self.0);
            let shelf = shelves.entry(iterations).or_default();
            let fills = !std::mem::replace(&mut shelf.filling, true);
            (shelf.made.pop(), fills)
        };
        if fills {
            // Before anything is waited for: whoever takes may be gone by then.
            let filling = Filling { shelves: Arc::clone(&self.0), iterations, done: false };
            tokio::task::spawn_blocking(move || filling.run());
        }
        if let Some(made) = made {
            return Ok(made);
        }
        let made = tokio::task::spawn_blocking(move || make(iterations)).await;
        let undone = |_| Error::new(ErrorKind::Unavailable, "the verifier was not computed");
        made.map_err(undone)?.map_err(no_random_numbers)
    }
}

/// Fills one shelf. However it ends, the next one who takes has it filled again.
struct Filling {
    shelves: Arc<Shelves>,
    iterations: NonZeroU32,
    /// It has said so itself, while it held the lock.
    done: bool,
}

impl Filling {
    fn run(mut self) {
        loop {
            let made = make(self.iterations);
            let mut shelves = lock(&self.shelves);
            let shelf = shelves.entry(self.iterations).or_default();
            shelf.made.extend(made.clone());
            if made.is_err() || shelf.made.len() >= AHEAD {
                shelf.filling = false;
                self.done = true;
                return;
            }
        }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if !self.done {
            lock(&self.shelves).entry(self.iterations).or_default().filling = false;
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
    use std::{collections::BTreeSet, future::poll_fn, pin::pin, task::Poll, time::Duration};

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
        becomes_full(&stock, iterations).await;
    }

    async fn becomes_full(stock: &Stock, iterations: NonZeroU32) {
        for _ in 0..1_000 {
            if lock(&stock.0).get(&iterations).is_some_and(|shelf| shelf.made.len() == AHEAD) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing was made ahead");
    }

    #[tokio::test]
    async fn who_gives_up_at_once_leaves_a_shelf_that_fills() {
        let (stock, iterations) = (Stock::default(), NonZeroU32::new(4_096).unwrap());
        {
            let mut take = pin!(stock.take(iterations));
            poll_fn(|context| {
                assert!(take.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        becomes_full(&stock, iterations).await;
    }

    #[tokio::test]
    async fn a_filling_that_breaks_down_is_begun_again() {
        let (stock, iterations) = (Stock::default(), NonZeroU32::new(64).unwrap());
        lock(&stock.0).entry(iterations).or_default().filling = true;
        drop(Filling { shelves: Arc::clone(&stock.0), iterations, done: false });
        stock.take(iterations).await.unwrap();
        becomes_full(&stock, iterations).await;
    }
}
