//! What the backends have, against the rows.
//!
//! Invariant: a backend is listed first and the rows are read after, so that nothing that a
//! row covers is called uncovered.

use std::{collections::BTreeMap, io::Write as Output};

use dayfly_backend_sdk::{Backend, Doomed, Handle, Listed, Liveness, Timestamp};
use dayfly_lease::{Lease, LeaseId, State};
use dayfly_store::{Inspected, Look};

use super::{
    Check, LOOK_AGAIN, PAGE, bounded,
    report::{Finding, Report},
    seen_twice,
};

/// A lease that ends so soon may be gone before its row says so.
const ENDING: std::time::Duration = std::time::Duration::from_secs(5);

/// Leases of one page that are in somebody's hands by their rows and not there.
pub(super) async fn absent(
    name: &str,
    backend: &dyn Backend,
    page: &[Inspected],
    now: Timestamp,
) -> Vec<Finding> {
    let in_hand = |lease: &&Lease| {
        let delivered = matches!(lease.state, State::Active { delivered_at: Some(_), .. });
        lease.backend == name && delivered && lease.expires_at > now.plus(ENDING)
    };
    let leases: Vec<&Lease> =
        page.iter().filter_map(|row| row.lease.as_ref().ok()).filter(in_hand).collect();
    if leases.is_empty() || !backend.capabilities().verify {
        return Vec::new();
    }
    let doomed: Vec<Doomed> = leases.iter().map(|lease| lease.doomed()).collect();
    // A backend that stops answering is noticed when it is listed.
    let Ok(found) = bounded(backend.verify(&doomed)).await else { return Vec::new() };
    let gone = leases.iter().zip(found).filter(|(_, state)| *state == Liveness::Gone);
    gone.map(|(lease, _)| {
        let what = format!("it is active and `{}` is not at its backend", lease.handle);
        let todo = "whoever has it cannot use it: revoke the lease and mint anew";
        Finding::of("I1", "absent", what, todo).lease(lease.id).backend(name)
    })
    .collect()
}

impl Check {
    /// Whose prefix the backend says it is, and how far the sweeps had come. The marker is
    /// read first: the store is never behind it.
    pub(super) async fn marker(
        &self,
        name: &str,
        backend: &dyn Backend,
    ) -> anyhow::Result<Result<Vec<Finding>, String>> {
        let marker = match bounded(backend.marker()).await {
            Ok(marker) => marker,
            Err(error) => return Ok(Err(error)),
        };
        let Some(marker) = marker else { return Ok(Ok(Vec::new())) };
        let installation = self.engine_store.installation().await?;
        let turn = self.engine_store.turn(name).await?;
        let finding = if marker.installation != installation {
            let what = format!("its prefix belongs to installation {}", marker.installation);
            let todo = "give one of the two another prefix, or this store is not the right one";
            Some(Finding::of("I1", "marker", what, todo))
        } else if marker.turn > turn {
            let what = format!(
                "it remembers sweep {} and the store is at {turn}: the store has lost commits",
                marker.turn
            );
            Some(Finding::of("I1", "behind", what, "run dayfly-server recover"))
        } else {
            None
        };
        Ok(Ok(finding.map(|finding| finding.backend(name)).into_iter().collect()))
    }

    /// Everything under our prefix, a page at a time.
    pub(super) async fn listed(
        &self,
        name: &str,
        backend: &dyn Backend,
        report: &mut Report,
        out: &mut dyn Output,
    ) -> anyhow::Result<Result<(), String>> {
        if !backend.capabilities().list {
            return Ok(Ok(()));
        }
        let mut after: Option<Handle> = None;
        loop {
            let page = match bounded(backend.list(after.as_ref(), PAGE)).await {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            let first = self.uncovered(name, backend, &page.credentials).await?;
            report.given_up(first.given_up);
            if !first.findings.is_empty() {
                self.clock.sleep(LOOK_AGAIN).await;
                let again = match bounded(backend.list(after.as_ref(), PAGE)).await {
                    Ok(again) => again,
                    Err(error) => return Ok(Err(error)),
                };
                let second = self.uncovered(name, backend, &again.credentials).await?;
                report.violations(seen_twice(&first.findings, second.findings), out)?;
            }
            after = page.credentials.into_iter().next_back().map(|listed| listed.handle);
            if !page.more || after.is_none() {
                return Ok(Ok(()));
            }
        }
    }

    /// What is wrong with these names. What is no handle of ours is not ours to judge.
    async fn uncovered(
        &self,
        name: &str,
        backend: &dyn Backend,
        listed: &[Listed],
    ) -> anyhow::Result<Uncovered> {
        let id = |listed: &Listed| {
            backend.prefix().lease_of(listed.handle.as_str()).map(LeaseId::from_uuid)
        };
        let ids: Vec<LeaseId> = listed.iter().filter_map(id).collect();
        let rows = self.store.inspect(Look::These(ids)).await?;
        let rows: BTreeMap<LeaseId, &Inspected> = rows.iter().map(|row| (row.id, row)).collect();
        let mut uncovered = Uncovered::default();
        for one in listed {
            let Some(id) = id(one) else { continue };
            let finding = match rows.get(&id).map(|row| &row.lease) {
                None => Some(no_row(one)),
                // Said when the rows were looked at.
                Some(Err(_)) => None,
                Some(Ok(lease)) if matches!(lease.state, State::Abandoned { .. }) => {
                    uncovered.given_up.push(id);
                    None
                }
                Some(Ok(lease)) => wrong_with(name, one, lease),
            };
            uncovered.findings.extend(finding.map(|finding| finding.lease(id).backend(name)));
        }
        Ok(uncovered)
    }
}

#[derive(Default)]
struct Uncovered {
    findings: Vec<Finding>,
    given_up: Vec<LeaseId>,
}

fn no_row(listed: &Listed) -> Finding {
    let what = format!("`{}` is at its backend and no row covers it", listed.handle);
    let todo = "the sweep ends it; if there are many, this is not the right store: run recover";
    Finding::of("I1", "orphan", what, todo)
}

fn wrong_with(name: &str, listed: &Listed, lease: &Lease) -> Option<Finding> {
    let handle = &listed.handle;
    if lease.backend != name {
        let what = format!("`{handle}` is here and its row is of backend `{}`", lease.backend);
        return Some(Finding::of("I1", "elsewhere", what, "the sweep ends it"));
    }
    if !lease.may_live() {
        let what = format!("`{handle}` is at its backend and its row says that it is dead");
        let todo = "the sweep ends it; was the backend restored from a backup?";
        return Some(Finding::of("I2", "resurrected", what, todo));
    }
    let (until, native) = (listed.expires_at?, lease.native_expires_at?);
    // The backend's own expiry is what it was minted or renewed for and a slack that the row
    // has as well.
    if until <= lease.expires_at || !lease.renewable {
        // What cannot be renewed has lost no renewal: its backend gives no life as short.
        return None;
    }
    let what =
        format!("`{handle}` lives until {until} and a while at its backend; by its row {native}");
    let todo = "the store has lost a renewal: run recover";
    Some(Finding::of("I2", "longer", what, todo))
}
