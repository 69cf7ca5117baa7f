//! The state machine by itself.

use dayfly_backend_sdk::HandlePrefix;

use super::*;
use crate::SystemEntropy;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn pending() -> Lease {
    let id = LeaseId::new(at(100), &SystemEntropy::new());
    let entropy = SystemEntropy::new();
    Lease {
        id,
        task: TaskId::new(at(100), &entropy),
        principal: "github|repo".into(),
        issuer: "github".into(),
        on_behalf_of: None,
        role: "reader".into(),
        backend: "pg".into(),
        handle: HandlePrefix::parse("dayfly_").unwrap().handle(id.uuid(), 63).unwrap(),
        decision: Decision { chain: ReplicaId::new(at(1), &entropy), seq: 1 },
        epoch: 0,
        state: State::Pending,
        issued_at: at(100),
        expires_at: at(200),
        max_expires_at: at(300),
        native_expires_at: Some(at(202)),
        mint_deadline: at(115),
        settle_at: Some(at(120)),
        activated_at: None,
        delivered_at: None,
        renewable: true,
        belts: vec![Belt::Revoke],
        next_attempt_at: None,
        attempts: 0,
        error_class: None,
        claim: None,
        abandonment: None,
        plan: Plan::default(),
        kept: None,
    }
}

fn active() -> Lease {
    pending().activate(at(101), None).unwrap().deliver(at(102)).unwrap()
}

#[test]
fn every_transition_adds_one_to_the_epoch() {
    let active = active();
    assert_eq!(active.epoch, 2);
    let revoking = active.condemn(at(150), Cause::Requested).unwrap();
    assert_eq!(revoking.epoch, 3);
    assert_eq!(revoking.bury(at(151)).unwrap().epoch, 4);
}

#[test]
fn what_is_revoking_never_becomes_active_again() {
    let revoking = pending().condemn(at(101), Cause::TaskCompleted).unwrap();
    assert_eq!(revoking.activate(at(102), None), Err(Transition::State));
    assert_eq!(revoking.deliver(at(102)), Err(Transition::State));
    assert_eq!(revoking.renew(at(102), Duration::from_secs(9)), Err(Transition::State));
    assert_eq!(revoking.condemn(at(102), Cause::Expired), Err(Transition::State));
}

#[test]
fn a_pending_lease_is_not_verified_dead_before_a_late_create_is_impossible() {
    let revoking = pending().condemn(at(101), Cause::MintFailed).unwrap();
    let looked_at = |since| {
        let owner = ReplicaId::new(at(1), &SystemEntropy::new());
        let claim = Claim { owner, since: at(since), until: at(180) };
        revoking.claimed(at(since), claim).unwrap()
    };
    // Looked at before a create became impossible, and buried after it: the evidence is old.
    assert_eq!(looked_at(119).bury(at(130)), Err(Transition::Unsettled));
    assert!(looked_at(120).bury(at(121)).is_ok());
    assert!(revoking.settle(at(102), false).unwrap().bury(at(103)).is_ok());
}

#[test]
fn renewal_is_capped_and_the_native_expiry_follows() {
    let renewed = active().renew(at(150), Duration::from_secs(1_000)).unwrap();
    assert_eq!(renewed.expires_at, at(300));
    assert_eq!(renewed.native_expires_at, Some(at(302)));
    assert_eq!(renewed.shorten(at(200)).unwrap().native_expires_at, Some(at(202)));
}

/// The boundary at which a lease ends: one microsecond before, it may be renewed; at it, not.
#[test]
fn renewal_at_the_last_instant_is_refused() {
    let last = Timestamp::from_micros(at(200).micros() - 1);
    assert!(active().renew(last, Duration::from_secs(9)).is_ok());
    assert_eq!(active().renew(at(200), Duration::from_secs(9)), Err(Transition::Due));
}

#[test]
fn the_reaper_looks_when_something_is_owed_and_only_then() {
    assert_eq!(pending().due_at(), Some(at(115)));
    let undelivered = pending().activate(at(101), None).unwrap();
    assert_eq!(undelivered.due_at(), Some(at(120)));
    assert_eq!(undelivered.due_cause(at(120)), Some(Cause::Undelivered));
    assert_eq!(active().due_at(), Some(at(200)));
    assert_eq!(active().due_cause(at(199)), None);
    let revoking = active().condemn(at(150), Cause::Requested).unwrap();
    assert_eq!(revoking.due_at(), Some(at(150)));
    assert_eq!(revoking.bury(at(151)).unwrap().due_at(), None);
}

#[test]
fn a_claim_keeps_others_away_until_it_ends() {
    let entropy = SystemEntropy::new();
    let owner = ReplicaId::new(at(1), &entropy);
    let claim = Claim { owner, since: at(150), until: at(180) };
    let revoking = active().condemn(at(150), Cause::Requested).unwrap();
    let claimed = revoking.claimed(at(150), claim).unwrap();
    assert_eq!(claimed.due_at(), Some(at(180)));
    assert_eq!(claimed.claimed(at(179), claim), Err(Transition::State));
    assert!(claimed.claimed(at(180), claim).is_ok());
}

#[test]
fn a_failed_attempt_is_counted_and_a_wait_is_not() {
    let revoking = active().condemn(at(150), Cause::Requested).unwrap();
    let failed = revoking.postpone(at(160), Some("unavailable")).unwrap();
    assert_eq!((failed.attempts, failed.error_class.as_deref()), (1, Some("unavailable")));
    assert_eq!(failed.postpone(at(170), None).unwrap().attempts, 1);
    assert_eq!(failed.due_at(), Some(at(160)));
}
