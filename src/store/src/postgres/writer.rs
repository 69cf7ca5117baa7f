//! The replica's one writer: groups changes, commits them, answers.
//!
//! Invariant: the chain in memory is the chain in the database. It moves on only after a
//! commit, and is read back when a commit's answer was lost.

use std::{sync::Arc, time::Duration};

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{
    Clock, StoreError, Written,
    audit::{Chain, Entry, Head},
    transact::apply,
};
use sqlx::{Connection, PgPool, pool::PoolConnection};
use tokio::sync::mpsc;

use super::{tx::PostgresTx, unavailable};
use crate::{
    Incarnation, anchor,
    group::{GROUP_MAX, Job, fail_all},
    row,
};

/// The longest that a group may take; after that its outcome is not known.
const GROUP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a change is tried again that lost against another replica's.
const CONFLICT_RETRIES: u32 = 5;
/// The chains that a new one anchors: those that were opened last.
const ANCHORS_MAX: i64 = 64;

pub(super) struct Writer {
    pool: PgPool,
    chain: Chain,
    /// A commit's answer was lost, so the chain must be read back.
    lost: bool,
    incarnation: Incarnation,
    clock: Arc<dyn Clock>,
}

/// Why a group has no answers.
enum Attempt {
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
        incarnation: Incarnation,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let chain = Chain::empty(incarnation.replica, incarnation.signer.clone());
        let mut writer = Self { pool, chain, lost: false, incarnation, clock };
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
            Err(Attempt::RolledBack(error) | Attempt::Unknown(error)) => Err(error),
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
            self.commit(group).await;
        }
        self.pool.close().await;
    }

    /// Commits a group; if it fails as a whole, each change by itself, so that one that
    /// cannot be written holds up no other.
    async fn commit(&mut self, group: Vec<Job>) {
        match self.attempt(&group).await {
            Ok(answers) => answer(group, answers),
            Err(Attempt::Unknown(error)) => {
                tracing::error!(%error, "store.commit.unknown");
                let text = error.to_string();
                fail_all(group, || StoreError::Unknown(text.clone().into()));
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
            match self.attempt(&group).await {
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
            Err(Attempt::RolledBack(error)) => error,
            Err(Attempt::Unknown(error)) => StoreError::Unknown(Box::new(error)),
        };
        let [job] = group;
        drop(job.answer.send(Err(result)));
    }

    async fn attempt(&mut self, group: &[Job]) -> Result<Answers, Attempt> {
        let mut connection = self.pool.acquire().await?;
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
        self.lost = matches!(result, Err(Attempt::Unknown(_))) || (self.lost && result.is_err());
        result
    }

    async fn transact(
        &mut self,
        connection: &mut PoolConnection<sqlx::Postgres>,
        writes: &[dayfly_lease::Write],
    ) -> Result<Answers, Attempt> {
        let mut transaction = connection.begin().await?;
        let now = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#)
            .fetch_one(&mut *transaction)
            .await?;
        if self.lost {
            self.chain = self.read_back(&mut transaction).await?;
            self.lost = false;
        }
        let before = self.chain.head();
        let mut tx = PostgresTx {
            connection: &mut transaction,
            now: Timestamp::from(now),
            chain: self.chain.clone(),
            records: Vec::new(),
        };
        let mut answers = Vec::with_capacity(writes.len());
        for write in writes {
            match apply(&mut tx, write).await {
                Err(error @ (StoreError::Unavailable(_) | StoreError::Unknown(_))) => {
                    return Err(Attempt::RolledBack(error));
                }
                answer => answers.push(answer),
            }
        }
        tx.flush(before).await?;
        let chain = tx.chain;
        if !writes.iter().any(dayfly_lease::Write::must_be_durable) {
            sqlx::query!("SET LOCAL synchronous_commit = off").execute(&mut *transaction).await?;
        }
        match transaction.commit().await {
            Ok(()) => {
                self.chain = chain;
                Ok(answers)
            }
            Err(error @ sqlx::Error::Database(_)) => Err(Attempt::RolledBack(unavailable(error))),
            Err(error) => Err(Attempt::Unknown(unavailable(error))),
        }
    }

    async fn read_back(&self, transaction: &mut sqlx::PgConnection) -> Result<Chain, Attempt> {
        let chain = self.chain.head().chain;
        let found =
            sqlx::query!("SELECT seq, hash FROM audit_chains WHERE chain = $1", chain.uuid())
                .fetch_one(transaction)
                .await?;
        let head = u64::try_from(found.seq).ok().zip(row::hash(&found.hash));
        let (seq, hash) = head.ok_or_else(|| {
            Attempt::RolledBack(StoreError::Corrupt { what: format!("audit chain {chain}") })
        })?;
        Ok(Chain::at(Head { chain, seq, hash }, self.incarnation.signer.clone()))
    }
}

fn answer(group: Vec<Job>, answers: Answers) {
    for (job, result) in group.into_iter().zip(answers) {
        // Whoever waited may be gone; what was written stands all the same.
        drop(job.answer.send(result));
    }
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
