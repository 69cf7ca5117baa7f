//! Mints that wait for a connection go to the server together.
//!
//! Invariant: each mint's answer is its own. A message that the server refuses was rolled back
//! whole, and is sent again in halves, down to the mints that it was refused for. A message whose
//! answer is lost is lost for all that were in it, and nothing of it is sent again.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::{Mutex, mpsc, oneshot};

use crate::{
    connection::Server,
    error::Failure,
    mint::{self, Part},
    revoke::column,
};

/// How often a mint is tried while other transactions are in its way.
const CONTENTION_TRIES: u32 = 5;
/// The most roles of one message: at 4,096 iterations the server is busy for some 150 ms with
/// these, and all of them wait for the last.
const GROUP_MAX: usize = 32;

/// Iterations that the server hashes in some 300 µs, as long as a commit takes.
const CHEAP: u32 = 256;

struct Waiting {
    part: Part,
    answer: oneshot::Sender<Result<i64, Failure>>,
}

/// As many lines to the server as it may have connections; each takes its share of what waits.
pub(crate) struct Groups {
    queue: mpsc::UnboundedSender<Waiting>,
}

impl Groups {
    /// The lines end when this is dropped.
    pub(crate) fn new(server: &Arc<Server>, lines: u32) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..lines {
            #[expect(
                clippy::disallowed_methods,
                reason = "a shutdown waits for mints, and each of them waits for its line; one that \
                          went on for one of them alone would take the others' answers with it"
            )]
            tokio::spawn(work(Arc::clone(server), Arc::clone(&waiting), lines));
        }
        Self { queue }
    }

    /// Creates the role of `part` and gives its oid.
    pub(crate) async fn create(&self, part: Part) -> Result<i64, Failure> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Waiting { part, answer }).map_err(|_| Failure::silent())?;
        answered.await.map_err(|_| Failure::silent())?
    }
}

async fn work(
    server: Arc<Server>,
    queue: Arc<Mutex<mpsc::UnboundedReceiver<Waiting>>>,
    lines: u32,
) {
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    loop {
        let group = {
            let mut queue = queue.lock().await;
            let Some(first) = queue.recv().await else { return };
            let share = (queue.len() + 1).div_ceil(lines);
            let mut hashing = first.part.iterations();
            let mut group = vec![first];
            // Its share, and what costs the server hardly more than the commit that it saves.
            while group.len() < GROUP_MAX
                && (group.len() < share || hashing < CHEAP)
                && let Ok(next) = queue.try_recv()
            {
                hashing = hashing.saturating_add(next.part.iterations());
                group.push(next);
            }
            group
        };
        // Whoever does not wait any more has its lease ended: what was not sent never is.
        let (unusual, usual): (Vec<_>, Vec<_>) = group
            .into_iter()
            .filter(|one| !one.answer.is_closed())
            .partition(|one| one.part.is_unusual());
        together(&server, usual).await;
        for one in unusual {
            together(&server, vec![one]).await;
        }
    }
}

/// All of `group` in one message, in halves if that is refused.
async fn together(server: &Server, group: Vec<Waiting>) {
    let (mut work, mut tries) = (vec![group], 1);
    while let Some(mut group) = work.pop() {
        if group.is_empty() {
            continue;
        }
        match send(server, &group).await {
            Ok(mut oids) => {
                for one in group {
                    let oid = oids.remove(one.part.handle().as_str());
                    let oid = oid.ok_or(Failure::Survived("the new role has no id"));
                    // Whoever does not wait any more has its lease ended.
                    let _ = one.answer.send(oid);
                }
            }
            Err(failure) if failure.is_rolled_back() && group.len() > 1 => {
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
                    let _ = one.answer.send(Err(failure.clone()));
                }
            }
        }
        tries = 1;
    }
}

/// The new roles' oids by their names.
async fn send(server: &Server, group: &[Waiting]) -> Result<HashMap<String, i64>, Failure> {
    let parts: Vec<&Part> = group.iter().map(|one| &one.part).collect();
    let rows = server.run(&mint::message(&parts)?).await?;
    // The advisory lock has a row as well, of one empty column.
    let named = rows.iter().filter(|row| sqlx::Row::len(*row) == 2);
    named.map(|row| Ok((column(row, 0)?, column(row, 1)?))).collect()
}
