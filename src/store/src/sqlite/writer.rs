//! The writer thread: groups changes, commits them, answers.
//!
//! Invariant: the chain in memory is the chain in the file; it moves on only after a commit,
//! and is read back after one that failed.

use std::sync::Arc;

use dayfly_lease::{
    StoreError, Write, Written,
    audit::{Chain, Entry, Head},
    failpoint,
    transact::apply,
};
use futures_util::FutureExt;
use rusqlite::{Connection, params};
use tokio::sync::mpsc;

use super::{
    Command, Run, Time,
    ballast::{Ballast, is_full},
    read,
    tx::SqliteTx,
};
use crate::{
    Incarnation, anchor,
    group::{GROUP_MAX, Job, fail_all, is_a_wish},
    row,
};

pub(super) struct Writer {
    connection: Connection,
    chain: Chain,
    incarnation: Incarnation,
    time: Arc<Time>,
    ballast: Ballast,
}

pub(super) type Answers = Vec<Result<Written, StoreError>>;

#[derive(Debug, thiserror::Error)]
#[error("the disk is full: nothing new is recorded")]
struct NoRoom;

/// Denials and administrators' reads: refused while the disk is full, and what they are about
/// with them.
fn is_only_a_note(write: &Write) -> bool {
    matches!(write, Write::Note(_) | Write::Renew { .. })
}

/// The chains that a new one anchors: those that were opened last.
const ANCHORS_MAX: i64 = 64;

/// Opens this incarnation's chain: its first record anchors the heads of the others.
pub(super) fn open_chain(
    connection: &mut Connection,
    incarnation: &Incarnation,
    time: &Time,
) -> Result<Chain, StoreError> {
    let heads = read::heads(
        connection,
        "SELECT chain, seq, hash FROM audit_chains WHERE seq > 0 ORDER BY opened_at DESC LIMIT ?1",
        ANCHORS_MAX,
    )?;
    connection
        .execute(
            "INSERT INTO audit_chains (chain, seq, hash, opened_at) VALUES (?1, 0, ?2, ?3)",
            params![incarnation.replica.uuid().as_bytes(), [0_u8; 32], time.now().micros()],
        )
        .map_err(StoreError::unavailable)?;
    let entry = Entry::new("audit.opened", "engine")
        .with("heads", anchor::heads_detail(&heads))
        .with("version", env!("CARGO_PKG_VERSION"));
    let mut chain = Chain::empty(incarnation.replica, incarnation.signer.clone());
    transact(connection, &mut chain, time, &[&Write::Note(entry)])?;
    Ok(chain)
}

/// Makes `writes` in one transaction. `chain` moves on only if it commits.
pub(super) fn transact(
    connection: &mut Connection,
    chain: &mut Chain,
    time: &Time,
    writes: &[&Write],
) -> Result<Answers, StoreError> {
    connection.execute_batch("BEGIN IMMEDIATE").map_err(StoreError::unavailable)?;
    let result = within(connection, chain, time, writes).and_then(|done| {
        let failed = |_| StoreError::unavailable("failpoint");
        failpoint::reached_blocking("commit.before").map_err(failed).map(|()| done)
    });
    match result {
        Ok((answers, moved)) => match connection.execute_batch("COMMIT") {
            Ok(()) => {
                *chain = moved;
                Ok(answers)
            }
            Err(error) => Err(roll_back(connection, StoreError::unavailable(error))),
        },
        Err(error) => Err(roll_back(connection, error)),
    }
}

fn within(
    connection: &mut Connection,
    chain: &Chain,
    time: &Time,
    writes: &[&Write],
) -> Result<(Answers, Chain), StoreError> {
    let before = chain.head();
    let mut tx = SqliteTx::new(connection, time.now(), chain.clone());
    let mut answers = Vec::with_capacity(writes.len());
    for write in writes {
        // Every step of this transaction is ready at once, so one poll is the whole of it.
        let polled = apply(&mut tx, write).now_or_never();
        match polled.unwrap_or_else(|| Err(StoreError::unavailable("transaction waited"))) {
            Err(error @ (StoreError::Unavailable(_) | StoreError::Unknown(_))) => {
                return Err(error);
            }
            answer => answers.push(answer),
        }
    }
    tx.flush(before)?;
    Ok((answers, tx.into_chain()))
}

fn roll_back(connection: &Connection, error: StoreError) -> StoreError {
    // SQLite may have rolled back by itself (a full disk); then this says so, and that is all.
    if !connection.is_autocommit()
        && let Err(failed) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(error = %failed, "store.rollback.failed");
    }
    error
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        chain: Chain,
        incarnation: Incarnation,
        time: Arc<Time>,
        ballast: Ballast,
    ) -> Self {
        Self { connection, chain, incarnation, time, ballast }
    }

    /// Works until every sender of `commands` is gone.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(first) = commands.blocking_recv() {
            let mut group = Vec::new();
            let mut next = Some(first);
            let mut other: Option<Run> = None;
            while let Some(command) = next.take() {
                match command {
                    Command::Change(job) => group.push(*job),
                    Command::Run(run) => {
                        other = Some(run);
                        break;
                    }
                }
                if group.len() < GROUP_MAX {
                    next = commands.try_recv().ok();
                }
            }
            let group = self.refuse_without_room(group);
            self.commit(group);
            if let Some(run) = other {
                run(&mut self.connection);
            }
        }
    }

    /// While the disk is full only what must die is recorded.
    fn refuse_without_room(&mut self, mut group: Vec<Job>) -> Vec<Job> {
        if self.ballast.is_held(self.time.running()) {
            return group;
        }
        let takes_room = |job: &mut Job| is_a_wish(&job.write) || is_only_a_note(&job.write);
        fail_all(group.extract_if(.., takes_room).collect(), || StoreError::unavailable(NoRoom));
        group
    }

    /// Commits a group; if it fails as a whole, each change by itself.
    fn commit(&mut self, group: Vec<Job>) {
        if group.is_empty() {
            return;
        }
        let writes: Vec<&Write> = group.iter().map(|job| &job.write).collect();
        match transact(&mut self.connection, &mut self.chain, &self.time, &writes) {
            Ok(_) if failpoint::reached_blocking("commit.after").is_err() => {
                fail_all(group, || StoreError::Unknown("failpoint".into()));
            }
            Ok(answers) => {
                for (job, result) in group.into_iter().zip(answers) {
                    // Whoever waited may be gone; what was written stands all the same.
                    drop(job.answer.send(result));
                }
            }
            Err(error) => {
                tracing::warn!(%error, changes = group.len(), "store.group.failed");
                self.read_back();
                let freed = is_full(&error) && self.ballast.drop_it(self.time.running());
                let group = if freed { self.refuse_without_room(group) } else { group };
                for job in group {
                    let result = self.commit_alone(&job.write);
                    drop(job.answer.send(result));
                }
            }
        }
    }

    fn commit_alone(&mut self, write: &Write) -> Result<Written, StoreError> {
        match transact(&mut self.connection, &mut self.chain, &self.time, &[write]) {
            Ok(answers) => answers
                .into_iter()
                .next()
                .unwrap_or_else(|| Err(StoreError::unavailable("no answer"))),
            Err(error) => {
                self.read_back();
                Err(error)
            }
        }
    }

    /// After a failed commit the file is asked where the chain ends.
    fn read_back(&mut self) {
        read_back(&self.connection, &mut self.chain, &self.incarnation);
    }
}

/// Sets `chain` to where the file says that it ends.
pub(super) fn read_back(connection: &Connection, chain: &mut Chain, incarnation: &Incarnation) {
    let id = chain.head().chain;
    let head = connection.query_row(
        "SELECT seq, hash FROM audit_chains WHERE chain = ?1",
        params![id.uuid().as_bytes()],
        |found| Ok((found.get::<_, i64>(0)?, found.get::<_, Vec<u8>>(1)?)),
    );
    let head = head.ok().and_then(|(seq, hash)| {
        Some(Head { chain: id, seq: u64::try_from(seq).ok()?, hash: row::hash(&hash)? })
    });
    if let Some(head) = head {
        *chain = Chain::at(head, incarnation.signer.clone());
    } else {
        tracing::error!(chain = %id, "store.chain.unreadable");
    }
}
