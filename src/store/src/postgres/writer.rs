//! The replica's one writer: groups changes, commits them, answers.
//!
//! Invariant: the chain in memory is the chain in the database. It moves on only after a
//! commit, and is read back when a commit's answer was lost.

use std::{sync::Arc, time::Duration};

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{
    Clock, StoreError, Written,
    audit::{Chain, Entry, Head},
    failpoint,
    transact::{Tx, apply, suspended_by},
};
use sqlx::{Connection, PgPool, pool::PoolConnection};
use tokio::sync::mpsc;

use super::{job, server::Recognised, tx::PostgresTx, unavailable};
use crate::{
    Incarnation, anchor,
    group::{GROUP_MAX, Job, fail_all, is_a_wish, rank},
    row,
};

/// The longest that a group may take; after that its outcome is not known.
const GROUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Names the advisory lock of whoever counts for a quota: `quota` in ASCII.
const QUOTAS: i64 = 0x71_756f_7461;
/// How often a change is tried again that lost against another replica's.
const CONFLICT_RETRIES: u32 = 5;
/// The chains that a new one anchors: those that were opened last.
const ANCHORS_MAX: i64 = 64;

pub(super) struct Writer {
    pool: PgPool,
    chain: Chain,
    /// A commit's answer was lost, so the chain must be read back.
    lost: bool,
    /// How far the chain had come at the last commit that the server said was durable. A
    /// database whose chain is shorter has lost commits.
    durable: u64,
    server: Recognised,
    incarnation: Incarnation,
    clock: Arc<dyn Clock>,
}

/// Why a group has no answers.
enum Attempt {
    /// The database could not be reached, so no change of the group can be made now.
    Unreachable(StoreError),
    /// The chain in the database is not where memory has it: a commit was lost on its way or
    /// by the database. Nothing was written.
    Moved,
    /// Nothing was written.
    RolledBack(StoreError),
    /// It may have been written.
    Unknown(StoreError),
}

impl From<sqlx::Error> for Attempt {
    fn from(error: sqlx::Error) -> Self {
        Self::RolledBack(unavailable(error))
    }
}

type Answers = Vec<Result<Written, StoreError>>;

impl Writer {
    /// Opens this incarnation's chain: its first record anchors the heads of the others.
    pub(super) async fn open(
        pool: PgPool,
        server: Recognised,
        incarnation: Incarnation,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let chain = Chain::empty(incarnation.replica, incarnation.signer.clone());
        let mut writer = Self { pool, chain, lost: false, durable: 0, server, incarnation, clock };
        let heads = writer.heads_of_others().await.map_err(unavailable)?;
        let entry = Entry::new("audit.opened", "engine")
            .with("heads", anchor::heads_detail(&heads))
            .with("version", env!("CARGO_PKG_VERSION"));
        let mut connection = writer.pool.acquire().await.map_err(unavailable)?;
        sqlx::query!(
            "INSERT INTO audit_chains (chain, seq, hash, opened_at)
             VALUES ($1, 0, $2, clock_timestamp())",
            writer.chain.head().chain.uuid(),
            [0_u8; 32].as_slice(),
        )
        .execute(&mut *connection)
        .await
        .map_err(unavailable)?;
        match writer.transact(&mut connection, &[dayfly_lease::Write::Note(entry)]).await {
            Ok(_) => Ok(writer),
            Err(Attempt::Moved) => Err(moved(writer.chain.head().chain)),
            Err(
                Attempt::RolledBack(error) | Attempt::Unknown(error) | Attempt::Unreachable(error),
            ) => Err(error),
        }
    }

    async fn heads_of_others(&self) -> Result<Vec<Head>, sqlx::Error> {
        let rows = sqlx::query!(
            "SELECT chain, seq, hash FROM audit_chains WHERE seq > 0
             ORDER BY opened_at DESC LIMIT $1",
            ANCHORS_MAX,
        )
        .fetch_all(&self.pool)
        .await?;
        let head = |chain, seq: i64, hash: &[u8]| {
            let chain = dayfly_lease::ReplicaId::from_uuid(chain);
            Some(Head { chain, seq: u64::try_from(seq).ok()?, hash: row::hash(hash)? })
        };
        Ok(rows.into_iter().filter_map(|r| head(r.chain, r.seq, &r.hash)).collect())
    }

    /// Works until every sender of `jobs` is gone.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.recv().await {
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(job) = jobs.try_recv()
            {
                group.push(job);
            }
            // Those that count for a quota wait for others who count; the rest does not.
            let (counting, mut others): (Vec<Job>, Vec<Job>) =
                group.into_iter().partition(|job| job.write.counts());
            others.sort_by_key(|job| rank(&job.write));
            for group in [others, counting] {
                self.commit(group).await;
            }
        }
        self.pool.close().await;
    }

    /// Commits a group; if it fails as a whole, each change by itself, so that one that
    /// cannot be written holds up no other.
    async fn commit(&mut self, mut group: Vec<Job>) {
        // Whoever asked for a mint and is gone gets none: after an outage these would be a herd.
        group.retain(|job| !(job.answer.is_closed() && is_a_wish(&job.write)));
        if group.is_empty() {
            return;
        }
        match self.attempt_again_if_moved(&group).await {
            Ok(answers) => answer(group, answers),
            Err(Attempt::Unknown(error)) => {
                tracing::error!(error = %chain_of(&error), "store.commit.unknown");
                let text = error.to_string();
                fail_all(group, || StoreError::Unknown(text.clone().into()));
            }
            Err(Attempt::Unreachable(error)) => {
                tracing::warn!(error = %chain_of(&error), changes = group.len(), "store.unreachable");
                let text = chain_of(&error);
                fail_all(group, || StoreError::unavailable(text.clone()));
            }
            Err(Attempt::Moved) => {
                let chain = self.chain.head().chain;
                fail_all(group, || moved(chain));
            }
            Err(Attempt::RolledBack(error)) => {
                tracing::warn!(error = %chain_of(&error), changes = group.len(), "store.group.failed");
                for job in group {
                    self.commit_alone(job).await;
                }
            }
        }
    }

    async fn commit_alone(&mut self, job: Job) {
        let group = [job];
        let mut tries = 0;
        let result = loop {
            match self.attempt_again_if_moved(&group).await {
                Err(Attempt::RolledBack(error))
                    if is_conflict(&error) && tries < CONFLICT_RETRIES =>
                {
                    tries += 1;
                    self.clock.sleep(Duration::from_millis(5 * u64::from(tries))).await;
                }
                other => break other,
            }
        };
        let result = match result {
            Ok(answers) => return answer(group.into(), answers),
            Err(Attempt::RolledBack(error) | Attempt::Unreachable(error)) => error,
            Err(Attempt::Unknown(error)) => StoreError::Unknown(Box::new(error)),
            Err(Attempt::Moved) => moved(self.chain.head().chain),
        };
        let [job] = group;
        drop(job.answer.send(Err(result)));
    }

    /// A chain that is not where memory has it is read back, once; then the group is made on
    /// top of what is really there.
    async fn attempt_again_if_moved(&mut self, group: &[Job]) -> Result<Answers, Attempt> {
        match self.attempt(group).await {
            Err(Attempt::Moved) => {
                tracing::error!(chain = %self.chain.head().chain, "audit.chain.moved");
                self.lost = true;
                self.attempt(group).await
            }
            other => other,
        }
    }

    async fn attempt(&mut self, group: &[Job]) -> Result<Answers, Attempt> {
        let acquired = self.pool.acquire().await.map_err(unavailable);
        let mut connection = acquired.map_err(Attempt::Unreachable)?;
        let writes: Vec<_> = group.iter().map(|job| job.write.clone()).collect();
        let clock = Arc::clone(&self.clock);
        let result = tokio::select! {
            biased;
            result = self.transact(&mut connection, &writes) => result,
            () = clock.sleep(GROUP_TIMEOUT) => {
                Err(Attempt::Unknown(StoreError::unavailable("the store took too long")))
            }
        };
        if result.is_err() {
            // Whatever state the connection is in, nobody else gets it.
            drop(connection.detach());
        }
        // Only a commit that was acknowledged proves that memory and database agree.
        self.lost = match &result {
            Ok(_) => false,
            Err(Attempt::Unknown(_)) => true,
            Err(Attempt::Moved | Attempt::RolledBack(_) | Attempt::Unreachable(_)) => self.lost,
        };
        result
    }

    async fn transact(
        &mut self,
        connection: &mut PoolConnection<sqlx::Postgres>,
        writes: &[dayfly_lease::Write],
    ) -> Result<Answers, Attempt> {
        let unreachable = |error| Attempt::Unreachable(unavailable(error));
        let mut transaction = connection.begin().await.map_err(unreachable)?;
        if writes.iter().any(dayfly_lease::Write::counts) {
            count_alone(&mut transaction).await.map_err(unreachable)?;
        }
        let begun = sqlx::query!(
            r#"SELECT clock_timestamp() AS "now!", suspended_at, suspended_reason, hold_from,
                hold_to, hold_until, server FROM installation"#
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(unreachable)?;
        job::lock_all(&mut transaction, writes).await?;
        if self.lost {
            self.chain = self.read_back(&mut transaction).await?;
        }
        let before = self.chain.head();
        let hold = [begun.hold_from.into(), begun.hold_to.into(), begun.hold_until.into()];
        let mut tx = PostgresTx {
            connection: &mut transaction,
            now: Timestamp::from(begun.now),
            chain: self.chain.clone(),
            records: Vec::new(),
            standing: row::standing(begun.suspended_at.into(), begun.suspended_reason, hold),
            server: self.server.get(),
        };
        recognise(&mut tx, begun.server).await.map_err(Attempt::RolledBack)?;
        if before.seq < self.durable {
            fallen_behind(&mut tx, before.seq, self.durable).await.map_err(Attempt::RolledBack)?;
        }
        let mut answers = Vec::with_capacity(writes.len());
        for write in writes {
            match apply(&mut tx, write).await {
                Err(error @ (StoreError::Unavailable(_) | StoreError::Unknown(_))) => {
                    return Err(Attempt::RolledBack(error));
                }
                answer => answers.push(answer),
            }
        }
        if !tx.flush(before).await? {
            return Err(Attempt::Moved);
        }
        let chain = tx.chain;
        let durable = writes.iter().any(dayfly_lease::Write::must_be_durable);
        if !durable {
            sqlx::query!("SET LOCAL synchronous_commit = off").execute(&mut *transaction).await?;
        }
        failpoint::reached("commit.before").await.map_err(|_| Attempt::RolledBack(injected()))?;
        match transaction.commit().await {
            Ok(()) => {
                failpoint::reached("commit.after")
                    .await
                    .map_err(|_| Attempt::Unknown(injected()))?;
                // A durable commit makes everything before it durable, if it wrote anything: one
                // that only looked (a probe, a claim of nothing) flushes nothing, and what was
                // committed asynchronously before it can still be lost.
                let wrote = chain.head().seq > before.seq;
                if (durable && wrote) || chain.head().seq < self.durable {
                    self.durable = chain.head().seq;
                }
                self.chain = chain;
                Ok(answers)
            }
            Err(error) if is_certain(&error) => Err(Attempt::RolledBack(unavailable(error))),
            Err(error) => Err(Attempt::Unknown(unavailable(error))),
        }
    }

    async fn read_back(&self, transaction: &mut sqlx::PgConnection) -> Result<Chain, Attempt> {
        let chain = self.chain.head().chain;
        let found =
            sqlx::query!("SELECT seq, hash FROM audit_chains WHERE chain = $1", chain.uuid())
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(found) = found else {
            // The whole chain is lost: the database is from before this replica started.
            sqlx::query!(
                "INSERT INTO audit_chains (chain, seq, hash, opened_at)
                 VALUES ($1, 0, $2, clock_timestamp())",
                chain.uuid(),
                [0_u8; 32].as_slice(),
            )
            .execute(transaction)
            .await?;
            let signer = self.incarnation.signer.clone();
            return Ok(Chain::empty(self.incarnation.replica, signer));
        };
        let head = u64::try_from(found.seq).ok().zip(row::hash(&found.hash));
        let (seq, hash) = head.ok_or_else(|| {
            Attempt::RolledBack(StoreError::Corrupt { what: format!("audit chain {chain}") })
        })?;
        Ok(Chain::at(Head { chain, seq, hash }, self.incarnation.signer.clone()))
    }
}

/// Before anything is read: what the others have added is counted, and while this one counts
/// nobody adds. One lock for all quotas, so that none waits in a circle.
async fn count_alone(connection: &mut sqlx::PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SET LOCAL lock_timeout = '1s'").execute(&mut *connection).await?;
    sqlx::query!("SELECT pg_advisory_xact_lock($1) IS NULL AS held", QUOTAS)
        .fetch_one(connection)
        .await
        .map(drop)
}

/// Suspends the installation when the server is not the one that was accepted: a standby was
/// promoted, or a backup restored. A server that does not tell is taken as it is.
async fn recognise(tx: &mut PostgresTx<'_>, accepted: Option<String>) -> Result<(), StoreError> {
    let Some(found) = tx.server.clone() else { return Ok(()) };
    match accepted {
        Some(accepted) if accepted == found => Ok(()),
        Some(accepted) => {
            let entry = Entry::new("store.suspended", "engine");
            tracing::error!(server = found, accepted, "store.suspended");
            let entry = entry.with("server", found).with("accepted", accepted);
            suspended_by(tx, entry, "the store's server was promoted or restored").await
        }
        None => {
            let standing = tx.standing.clone();
            tx.set_standing(&standing).await
        }
    }
}

async fn fallen_behind(
    tx: &mut PostgresTx<'_>,
    found: u64,
    durable: u64,
) -> Result<(), StoreError> {
    let entry = Entry::new("store.suspended", "engine");
    tracing::error!(audit_found = found, audit_committed = durable, "store.suspended");
    let entry = entry.with("audit_found", found).with("audit_committed", durable);
    suspended_by(tx, entry, "the store has lost commits that it had called durable").await
}

fn injected() -> StoreError {
    StoreError::unavailable("failpoint")
}

fn answer(group: Vec<Job>, answers: Answers) {
    for (job, result) in group.into_iter().zip(answers) {
        // Whoever waited may be gone; what was written stands all the same.
        drop(job.answer.send(result));
    }
}

fn moved(chain: dayfly_lease::ReplicaId) -> StoreError {
    StoreError::unavailable(format!("the audit chain {chain} is not where it was"))
}

/// Whether a failed COMMIT certainly committed nothing. A server that is shutting down (class
/// 57) or a pooler that lost its server (class 08) cannot tell.
fn is_certain(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else { return false };
    database.code().is_some_and(|code| !code.starts_with("08") && !code.starts_with("57"))
}

/// Another replica's transaction was in the way: serialization failure or deadlock (SQLSTATE
/// class 40), or a lock that took too long (55P03).
fn is_conflict(error: &StoreError) -> bool {
    let StoreError::Unavailable(source) = error else { return false };
    let Some(sqlx::Error::Database(database)) = source.downcast_ref::<sqlx::Error>() else {
        return false;
    };
    database.code().is_some_and(|code| code.starts_with("40") || code == "55P03")
}

fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
