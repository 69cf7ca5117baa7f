//! What quotas count.
//!
//! Invariant: each of these reads along one index and stops at its limit, however many leases
//! there are.

use dayfly_lease::quota::{Counted, Measure};
use sqlx::{PgConnection, types::time::OffsetDateTime};

type Found = (i64, Option<OffsetDateTime>);

/// One kind of count.
macro_rules! found {
    ($connection:ident, $which:literal $(, $argument:expr)*) => {
        sqlx::query!(
            r#"SELECT count(*) AS "count!", min(issued_at) AS oldest
             FROM (SELECT issued_at FROM leases WHERE "# + $which + ") AS counted"
            $(, $argument)*
        )
        .fetch_one($connection)
        .await
        .map(|row| (row.count, row.oldest))
    };
}

pub(super) async fn count(
    connection: &mut PgConnection,
    counted: &Counted<'_>,
    most: i64,
) -> Result<Found, sqlx::Error> {
    let Counted { measure, backend, role, principal, since } = *counted;
    let since = since.offset();
    match measure {
        Measure::BackendLiving => found!(
            connection,
            "backend = $1 AND state IN ('pending', 'active', 'revoking') LIMIT $2",
            backend,
            most
        ),
        Measure::PrincipalLiving => found!(
            connection,
            "principal = $1 AND state IN ('pending', 'active', 'revoking') LIMIT $2",
            principal,
            most
        ),
        Measure::RoleLiving => found!(
            connection,
            "role = $1 AND state IN ('pending', 'active', 'revoking') LIMIT $2",
            role,
            most
        ),
        Measure::ShareLiving => found!(
            connection,
            "role = $1 AND principal = $2 AND state IN ('pending', 'active', 'revoking') LIMIT $3",
            role,
            principal,
            most
        ),
        Measure::BackendMinted => found!(
            connection,
            "backend = $1 AND issued_at > $2 ORDER BY issued_at DESC LIMIT $3",
            backend,
            since,
            most
        ),
        Measure::RoleMinted => found!(
            connection,
            "backend = $1 AND issued_at > $2 AND role = $3 ORDER BY issued_at DESC LIMIT $4",
            backend,
            since,
            role,
            most
        ),
        Measure::ShareMinted => found!(
            connection,
            "backend = $1 AND issued_at > $2 AND role = $3 AND principal = $4
             ORDER BY issued_at DESC LIMIT $5",
            backend,
            since,
            role,
            principal,
            most
        ),
    }
}
