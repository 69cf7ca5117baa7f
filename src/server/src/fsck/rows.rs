//! What a lease's row must say, by itself and with its evidence.
//!
//! Invariant: pure; it judges what it is given and asks nobody.

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{Lease, State, audit::Record};
use dayfly_store::{Inspected, TaskSeen};

use super::{Known, OWED_AFTER, report::Finding};

pub(super) fn wrong_with(row: &Inspected, known: &Known<'_>) -> Vec<Finding> {
    let lease = match &row.lease {
        Ok(lease) => lease,
        Err(why) => {
            let todo = "mend the row by hand: until then nobody can end its credential";
            return vec![Finding::of("I12", "unreadable", why.clone(), todo).lease(row.id)];
        }
    };
    let findings = [
        handle(lease, known),
        due(row, lease),
        expiry(lease),
        task(row, lease),
        decision(row, lease),
        receipt(row, lease),
        overdue(row, lease, known),
    ];
    let of = |finding: Finding| finding.lease(lease.id).backend(&lease.backend);
    findings.into_iter().flatten().map(of).collect()
}

/// I1: the handle is a function of the lease's id. A dead lease's stands in its receipt, and
/// the prefix may have changed since.
fn handle(lease: &Lease, known: &Known<'_>) -> Option<Finding> {
    let backend = known.backends.get(&lease.backend)?;
    if !lease.may_live() || backend.handle(lease.id.uuid()).is_ok_and(|it| it == lease.handle) {
        return None;
    }
    let what = format!("the handle `{}` is not the one that follows from its id", lease.handle);
    let todo = "if the backend's prefix was changed, change it back until its leases have ended";
    Some(Finding::of("I1", "handle", what, todo))
}

/// I2: whatever may be alive has a scheduled death, and the column that drives it says when.
fn due(row: &Inspected, lease: &Lease) -> Option<Finding> {
    let must = lease.due_at();
    if row.due_at == must {
        return None;
    }
    let text = |at: Option<Timestamp>| at.map_or_else(|| "nothing".to_owned(), Timestamp::rfc3339);
    let what = format!("due_at is {} and must be {}", text(row.due_at), text(must));
    Some(Finding::of("I2", "due_at", what, "revoke the lease: that writes the column anew"))
}

fn expiry(lease: &Lease) -> Option<Finding> {
    if lease.issued_at < lease.expires_at && lease.expires_at <= lease.max_expires_at {
        return None;
    }
    let what = format!(
        "it was issued at {}, expires at {} and at the latest at {}",
        lease.issued_at, lease.expires_at, lease.max_expires_at
    );
    Some(Finding::of("I2", "expires_at", what, "somebody has changed the row: revoke the lease"))
}

/// I5: once a task has ended, none of its leases is anything but on its way out.
fn task(row: &Inspected, lease: &Lease) -> Option<Finding> {
    match (row.task, lease.state) {
        (TaskSeen::Closed, State::Pending | State::Active { .. }) => {
            let what =
                format!("its task {} has ended and it is {}", lease.task, lease.state.as_str());
            Some(Finding::of("I5", "task_closed", what, "revoke the lease"))
        }
        (TaskSeen::Missing, _) => {
            let what = format!("its task {} is not there", lease.task);
            let todo = "somebody has deleted rows: restore the store, then run recover";
            Some(Finding::of("I5", "task_missing", what, todo))
        }
        (TaskSeen::Closed | TaskSeen::Open, _) => None,
    }
}

/// I4: the decision that allowed it was recorded before it existed.
fn decision(row: &Inspected, lease: &Lease) -> Option<Finding> {
    let place = format!("{}/{}", lease.decision.chain, lease.decision.seq);
    let what = match &row.decision {
        None => format!("its decision {place} is not in the audit log"),
        Some(record) if record.lease != Some(lease.id) || record.event != "lease.allowed" => {
            format!("the record {place} is not its decision")
        }
        Some(record) if record.at > lease.issued_at => {
            format!("its decision {place} is from {}, after it was issued", record.at)
        }
        Some(_) => return None,
    };
    let todo = "nobody can say who allowed it: revoke the lease, and verify the audit log";
    Some(Finding::of("I4", "decision", what, todo))
}

/// A death without a signed receipt that names the credential is not proved.
fn receipt(row: &Inspected, lease: &Lease) -> Option<Finding> {
    let State::Revoked { .. } = lease.state else { return None };
    let names = |record: &Record| {
        let detail: serde_json::Value = serde_json::from_str(&record.detail).unwrap_or_default();
        detail.get("handle").and_then(|it| it.as_str()) == Some(lease.handle.as_str())
    };
    if row.receipts.iter().any(|record| record.signature.is_some() && names(record)) {
        return None;
    }
    let what = format!("it is revoked, and no signed receipt names `{}`", lease.handle);
    let todo = "look for the credential at its backend, and verify the audit log";
    Some(Finding::of("I2", "receipt", what, todo))
}

/// I2: a death that is due comes soon, where its backend answers and nothing pauses.
fn overdue(row: &Inspected, lease: &Lease, known: &Known<'_>) -> Option<Finding> {
    let due = row.due_at.filter(|due| due.plus(OWED_AFTER) < known.now)?;
    if known.paused || !known.answering.contains(&lease.backend.as_str()) {
        return None;
    }
    let what = format!("it is due since {due}, and its backend answers");
    Some(Finding::of("I2", "overdue", what, "see that a broker runs with this configuration"))
}
