//! Rows as the API shows them.
//!
//! Invariant: a lease is shown without its credential, except by the one answer that mints.

use dayfly_api as api;
use dayfly_backend_sdk::{Credential, Timestamp};
use dayfly_lease::{Abandonment, Counts, Lease, Person, State, Task, TaskState};

pub(super) fn lease(lease: &Lease, credential: Option<&Credential>) -> api::Lease {
    let revoked_at = match lease.state {
        State::Revoked { at, .. } => Some(at.rfc3339()),
        State::Pending
        | State::Active { .. }
        | State::Revoking { .. }
        | State::Abandoned { .. } => None,
    };
    api::Lease {
        id: lease.id.to_string(),
        task: lease.task.to_string(),
        principal: lease.principal.clone(),
        on_behalf_of: lease.on_behalf_of.as_ref().map(person),
        role: lease.role.clone(),
        backend: lease.backend.clone(),
        handle: lease.handle.as_str().to_owned(),
        state: lease.state.as_str().to_owned(),
        cause: lease.state.cause().map(|cause| cause.as_str().to_owned()),
        credential: credential.map(show_credential),
        issued_at: lease.issued_at.rfc3339(),
        expires_at: lease.expires_at.rfc3339(),
        max_expires_at: lease.max_expires_at.rfc3339(),
        revoked_at,
        renewable: lease.renewable,
        belts: lease.belts.iter().map(|belt| belt.as_str().to_owned()).collect(),
        exposure_seconds: lease.exposure().map(|exposure| exposure.as_secs()),
        residual_until: lease.residual_until().map(Timestamp::rfc3339),
        attempts: lease.attempts,
        last_error: lease.error_class.clone(),
        abandonment: lease.abandonment.as_ref().map(|wish| abandonment(wish, &lease.state)),
    }
}

/// No issuer's name has a `|`, so the first one is the border.
pub(super) fn person(person: &Person) -> api::OnBehalfOf {
    let (issuer, subject) = person.principal.split_once('|').unwrap_or(("", &person.principal));
    api::OnBehalfOf {
        principal: person.principal.clone(),
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        name: person.name.clone(),
    }
}

fn abandonment(wish: &Abandonment, state: &State) -> api::Abandonment {
    let agreed_at = match state {
        State::Abandoned { at, .. } => Some(at.rfc3339()),
        State::Pending | State::Active { .. } | State::Revoking { .. } | State::Revoked { .. } => {
            None
        }
    };
    api::Abandonment {
        by: wish.by.clone(),
        reason: wish.reason.clone(),
        at: wish.at.rfc3339(),
        agreed_at,
    }
}

fn show_credential(credential: &Credential) -> api::Credential {
    let fields = credential
        .fields()
        .filter_map(|(name, _)| Some((name.to_owned(), credential.field(name)?.to_owned())));
    let environment =
        credential.environment().map(|(variable, field)| (variable.to_owned(), field.to_owned()));
    api::Credential { fields: fields.collect(), environment: environment.collect() }
}

pub(super) fn counts(counts: Counts) -> api::LeaseCounts {
    let Counts { pending, active, revoking, revoked, abandoned, lingering, .. } = counts;
    api::LeaseCounts { pending, active, revoking, revoked, abandoned, lingering }
}

pub(super) fn task(task: &Task, leases: Counts) -> api::Task {
    let (state, closed_at) = match task.state {
        TaskState::Open => ("open", None),
        TaskState::Closed { end, at } => (end.as_str(), Some(at)),
    };
    let open = task.heartbeat.filter(|_| closed_at.is_none());
    api::Task {
        id: task.id.to_string(),
        state: state.to_owned(),
        purpose: task.purpose.clone(),
        principal: task.principal.clone(),
        issuer: task.issuer.clone(),
        on_behalf_of: task.on_behalf_of.as_ref().map(person),
        opened_at: task.opened_at.rfc3339(),
        expires_at: task.expires_at.rfc3339(),
        heartbeat_seconds: task.heartbeat.map(|heartbeat| heartbeat.every.as_secs()),
        lost_at: open.map(|heartbeat| heartbeat.lost_at.rfc3339()),
        closed_at: closed_at.map(Timestamp::rfc3339),
        binding: task.binding.map(|binding| binding.as_str().to_owned()),
        leases: counts(leases),
    }
}
