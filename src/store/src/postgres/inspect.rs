//! Rows of leases with their evidence, from PostgreSQL.
//!
//! Invariant: it only reads, but for putting rows back that were put aside.

use dayfly_lease::{LeaseId, StoreError};
use uuid::Uuid;

use super::{PostgresStore, query_leases, query_records, unavailable};
use crate::inspect::{Evidence, Inspected, Keys, Look, join};

impl PostgresStore {
    pub(crate) async fn inspect(&self, look: Look) -> Result<Vec<Inspected>, StoreError> {
        let rows = match look {
            Look::After(after, limit) => {
                let after = after.map_or(Uuid::nil(), LeaseId::uuid);
                query_leases!("WHERE id > $1 ORDER BY id LIMIT $2", after, i64::from(limit))
                    .fetch_all(&self.reads)
                    .await
            }
            Look::Living(task, after, limit) => {
                query_leases!(
                    "WHERE task = $1 AND id > $2 AND state IN ('pending', 'active', 'revoking')
                     ORDER BY id LIMIT $3",
                    task.uuid(),
                    after.map_or(Uuid::nil(), LeaseId::uuid),
                    i64::from(limit),
                )
                .fetch_all(&self.reads)
                .await
            }
            Look::These(ids) => {
                let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
                query_leases!("WHERE id = ANY($1) ORDER BY id", &ids).fetch_all(&self.reads).await
            }
        };
        let rows: Vec<Inspected> =
            rows.map_err(unavailable)?.into_iter().map(Inspected::of).collect();
        let evidence = self.evidence(&Keys::of(&rows)).await.map_err(unavailable)?;
        Ok(join(rows, evidence))
    }

    async fn evidence(&self, keys: &Keys) -> Result<Evidence, sqlx::Error> {
        let tasks = sqlx::query!("SELECT id, ended FROM tasks WHERE id = ANY($1)", &keys.tasks)
            .fetch_all(&self.reads)
            .await?;
        let decisions = query_records!(
            "WHERE (chain, seq) IN (SELECT * FROM UNNEST($1::uuid[], $2::bigint[]))",
            &keys.chains,
            &keys.seqs,
        )
        .fetch_all(&self.reads)
        .await?;
        let receipts =
            query_records!("WHERE lease = ANY($1) AND event = 'lease.revoked'", &keys.dead)
                .fetch_all(&self.reads)
                .await?;
        let tasks = tasks.into_iter().map(|task| (task.id, task.ended.is_some())).collect();
        Ok(Evidence { tasks, decisions, receipts })
    }

    pub(crate) async fn quarantined(&self) -> Result<u64, StoreError> {
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM leases WHERE quarantined IS NOT NULL"#
        )
        .fetch_one(&self.reads)
        .await
        .map_err(unavailable)?;
        Ok(count.cast_unsigned())
    }

    pub(crate) async fn look_again(&self) -> Result<u64, StoreError> {
        let back =
            sqlx::query!("UPDATE leases SET quarantined = NULL WHERE quarantined IS NOT NULL")
                .execute(&self.reads)
                .await
                .map_err(unavailable)?;
        Ok(back.rows_affected())
    }
}
