//! What roles leave behind, and their drop.
//!
//! Invariant: who leaves nothing behind waits for no database; who does waits for those alone that
//! have something of his, and for no longer than a bound.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, timeout};

use super::{Batch, Target};
use crate::{
    config::Owned,
    error::Failure,
    owned::{self, Estates, Place},
    quote::{Ident, Sql},
};

/// How long all that a batch leaves behind may take; with the rest of a death still below the time
/// that the engine gives it.
const HAND_OVER_MAX: Duration = Duration::from_secs(8);

impl Batch<'_> {
    /// Drops those that leave nothing behind. What the others own goes where their plans say, in
    /// each database, and then they are dropped as well.
    pub(super) async fn leave(&mut self) {
        let chosen = self.those(Target::has_heir);
        let places: Vec<(Place, BTreeSet<i64>)> = match self.estates(&chosen).await {
            Ok(estates) => estates.places().collect(),
            Err(failure) => {
                self.note(&chosen, &failure);
                Vec::new()
            }
        };
        let owners: BTreeSet<i64> = places.iter().flat_map(|(_, oids)| oids).copied().collect();
        let is_owner = |target: &Target| target.oid.is_some_and(|oid| owners.contains(&oid));
        let free = self.those(|target| target.stands() && !is_owner(target));
        self.drop_roles(&free).await;
        self.hand_over(places).await;
        let rest = self.those(Target::stands);
        self.drop_roles(&rest).await;
    }

    async fn hand_over(&mut self, places: Vec<(Place, BTreeSet<i64>)>) {
        let until = Instant::now() + HAND_OVER_MAX;
        let mut others = places.len();
        for (place, oids) in places {
            others = others.saturating_sub(1);
            let chosen = self.those(|target| {
                target.has_heir() && target.oid.is_some_and(|oid| oids.contains(&oid))
            });
            let place = place.as_deref();
            let within = share(until.saturating_duration_since(Instant::now()), others);
            if within.is_zero() {
                let failure = Failure::no_connection_in_time();
                self.note(&chosen, &failure.within(place));
            } else if timeout(within, self.each(&chosen, place, handover)).await.is_err() {
                // Its connection is closed. What the server did or does of it needs not be done
                // the next time.
                self.note(&chosen, &Failure::silent().within(place));
            }
        }
    }

    /// Says of those that could not be dropped for what they own how much that is, and where.
    pub(super) async fn explain(&mut self) {
        let chosen =
            self.those(|target| target.failure.as_ref().is_some_and(Failure::is_dependent));
        if chosen.is_empty() {
            return;
        }
        // The server's own words, if ours cannot be had.
        let Ok(estates) = self.estates(&chosen).await else { return };
        for at in chosen {
            if let Some(target) = self.targets.get_mut(at)
                && let Some(said) = target.oid.and_then(|oid| estates.of(oid))
            {
                target.failure = Some(Failure::Owns(said));
            }
        }
    }

    async fn estates(&self, chosen: &[usize]) -> Result<Estates, Failure> {
        if chosen.is_empty() {
            return Ok(Estates::default());
        }
        let targets = chosen.iter().filter_map(|at| self.targets.get(*at));
        let question = owned::question(targets.filter_map(|target| target.oid));
        Estates::read(&self.server.run(&question).await?)
    }
}

impl Target {
    /// Whether what it owns has somewhere to go.
    fn has_heir(&self) -> bool {
        self.stands() && self.owned != Owned::Fail
    }
}

/// How much of the time that is left a database may take: one that does not answer leaves half of
/// it to the `others`.
fn share(left: Duration, others: usize) -> Duration {
    if others == 0 { left } else { left / 2 }
}

/// Gives away or drops what these own in the database that it is sent to.
fn handover(targets: &[&Target]) -> Result<Sql, Failure> {
    let mut sql = Sql::new();
    for target in targets {
        match &target.owned {
            Owned::Reassign(heir) => {
                sql = sql.text("REASSIGN OWNED BY ").ident(&target.name);
                sql = sql.text(" TO ").ident(&Ident::new(heir)?).text(";\n");
            }
            Owned::Drop => {}
            // No plan says this: a template's `group` has its name there.
            Owned::Fail | Owned::Group => {
                return Err(Failure::Ours("the plan does not say whose it becomes".to_owned()));
            }
        }
        // After a reassignment, what is left are rights that were granted to it.
        sql = sql.text("DROP OWNED BY ").ident(&target.name).text(";\n");
    }
    Ok(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_databases_leave_time_to_the_others() {
        let mut left = HAND_OVER_MAX;
        for others in (1..5).rev() {
            let taken = share(left, others);
            assert!(!taken.is_zero() && taken <= left / 2);
            left -= taken;
        }
        assert_eq!(share(left, 0), left);
        assert!(left >= Duration::from_millis(500));
    }
}
