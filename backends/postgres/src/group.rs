//! Mints that wait for a connection go to the server together.
//!
//! Invariant: each mint's answer is its own. A message that the server refuses was rolled back
//! whole, and is sent again in halves, down to the mints that it was refused for. A message whose
//! answer is lost is lost for all that were in it, and nothing of it is sent again.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{Notify, oneshot},
    task::JoinHandle,
};

use crate::{
    connection::Server,
    error::Failure,
    mint::{self, Part},
    queue::{Key, Queue},
    revoke::column,
};

/// How often a mint is tried while other transactions are in its way.
const CONTENTION_TRIES: u32 = 5;

struct Waiting {
    part: Part,
    answer: oneshot::Sender<Result<i64, Failure>>,
}

/// As many lines to the server as it may have connections; each takes its share of what waits.
pub(crate) struct Groups(Arc<Lines>);

struct Lines {
    server: Arc<Server>,
    state: Mutex<State>,
    /// Told of what a line may be free for. A line that takes something wakes the next one where
    /// there is more.
    wake: Notify,
}

struct State {
    queue: Queue<Waiting>,
    closed: bool,
}

impl Groups {
    /// The lines end when this is dropped.
    pub(crate) fn new(server: &Arc<Server>, lines: u32) -> Self {
        let state = Mutex::new(State { queue: Queue::new(lines), closed: false });
        let shared = Arc::new(Lines { server: Arc::clone(server), state, wake: Notify::new() });
        for _ in 0..lines {
            let shared = Arc::clone(&shared);
            detach(keep(move || work(Arc::clone(&shared))));
        }
        Self(shared)
    }

    /// Creates the role of `part` and gives its oid.
    pub(crate) async fn create(&self, part: Part) -> Result<i64, Failure> {
        let (answer, answered) = oneshot::channel();
        if !self.0.push(Waiting { part, answer }) {
            return Err(Failure::crowded());
        }
        // A line that breaks down may have sent it.
        answered.await.map_err(|_| Failure::unknown("its line to the server broke down"))?
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.wake.notify_waiters();
    }
}

impl Lines {
    fn push(&self, waiting: Waiting) -> bool {
        let (key, iterations) = (waiting.part.key(), waiting.part.iterations());
        let pushed = self.lock().queue.push(key, iterations, waiting);
        self.wake.notify_one();
        pushed
    }

    fn take(&self) -> Option<Turn<'_>> {
        let mut state = self.lock();
        let (key, group) = state.queue.take()?;
        if state.queue.has_more() {
            self.wake.notify_one();
        }
        Some(Turn { lines: self, key, group })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one line sends. The line is free again when this is dropped, a panic being no exception.
struct Turn<'a> {
    lines: &'a Lines,
    key: Key,
    group: Vec<Waiting>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.lines.lock().queue.done(&self.key);
        self.lines.wake.notify_one();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a shutdown waits for mints, and each of them waits for its line; one that went on for \
              one of them alone would take the others' answers with it"
)]
fn detach(line: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(line)
}

/// One line for ever: where one breaks down over a mint, there is another for the next.
async fn keep<F: Future<Output = ()> + Send + 'static>(line: impl Fn() -> F) {
    while detach(line()).await.is_err_and(|error| error.is_panic()) {}
}

async fn work(lines: Arc<Lines>) {
    loop {
        // Before the look, so that what comes after it is heard.
        let woken = lines.wake.notified();
        if let Some(mut turn) = lines.take() {
            together(&lines.server, std::mem::take(&mut turn.group)).await;
        } else if lines.lock().closed {
            return;
        } else {
            woken.await;
        }
    }
}

/// All of `group` in one message, in halves if that is refused.
async fn together(server: &Server, group: Vec<Waiting>) {
    let (mut work, mut tries) = (vec![group], 1);
    while let Some(group) = work.pop() {
        let mut group = ready(group);
        if group.is_empty() {
            tries = 1;
            continue;
        }
        match send(server, &group).await {
            Ok(mut oids) => {
                for one in group {
                    let oid = oids.remove(one.part.handle().as_str());
                    answer(one, oid.ok_or_else(|| Failure::unknown("the new role has no id")));
                }
            }
            // The guard looks at the earliest deadline: the others may still be in time.
            Err(failure) if failure.is_late() => {
                if let Some(earliest) = group.pop() {
                    answer(earliest, Err(failure));
                }
                work.push(group);
            }
            Err(failure) if failure.is_divisible() && group.len() > 1 => {
                let rest = group.split_off(group.len() / 2);
                work.push(rest);
                work.push(group);
            }
            // All of it was rolled back, so that trying again is no reuse of the name.
            Err(failure) if failure.is_contention() && tries < CONTENTION_TRIES => {
                tries += 1;
                work.push(group);
                continue;
            }
            Err(failure) => {
                for one in group {
                    answer(one, Err(failure.clone()));
                }
            }
        }
        tries = 1;
    }
}

/// Those that somebody still waits for, the earliest deadline last. Whoever does not wait any
/// more has its lease ended: what was not sent never is.
fn ready(mut group: Vec<Waiting>) -> Vec<Waiting> {
    group.retain(|one| !one.answer.is_closed());
    group.sort_by_key(|one| Reverse(one.part.deadline()));
    group
}

/// Whoever does not wait any more has its lease ended.
fn answer(one: Waiting, with: Result<i64, Failure>) {
    let _ = one.answer.send(with);
}

/// The new roles' oids by their names.
async fn send(server: &Server, group: &[Waiting]) -> Result<HashMap<String, i64>, Failure> {
    let parts: Vec<&Part> = group.iter().map(|one| &one.part).collect();
    let rows = server.run(&mint::message(&parts, server.lock_timeout())?).await?;
    // Statements have rows as well, of any shape. Ours is the last question, and has one for each.
    let before = rows.len().saturating_sub(parts.len());
    rows.iter().skip(before).map(|row| Ok((column(row, 0)?, column(row, 1)?))).collect()
}

#[cfg(test)]
mod tests;
