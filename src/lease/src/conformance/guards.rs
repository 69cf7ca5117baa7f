//! The cases of what pauses and resumes: claims handed back, turns, suspension, the brake,
//! abandonment, retention.

use std::time::Duration;

use super::{Suite, TTL, refused};
use crate::{
    Cause, HOLD_LEASES_MIN, Lease, LeaseId, Refusal, ReplicaId, Sealed, State, TaskEnd, TaskId,
    Write, Written,
};

pub(super) async fn run(suite: &Suite) {
    claims_are_handed_back(suite).await;
    a_turn_is_taken_by_one(suite).await;
    rows_are_found_from_names(suite).await;
    a_suspended_store_mints_nothing_and_ends_only_what_was_told(suite).await;
    a_longer_life_is_adopted(suite).await;
    a_jump_of_the_clock_is_held(suite).await;
    it_takes_two_to_abandon(suite).await;
    only_what_ended_is_pruned(suite).await;
    a_password_is_staged_before_it_is_taken(suite).await;
}

const HOLD: Duration = Duration::from_secs(30);

async fn condemn(suite: &Suite, lease: LeaseId) -> Lease {
    let (cause, actor) = (Cause::Requested, "x".to_owned());
    suite.lease(Write::Condemn { lease, cause, actor, reason: None }).await.unwrap()
}

async fn claims_are_handed_back(suite: &Suite) {
    let task = suite.open(TTL).await;
    let backend = suite.backend();
    let lease = suite.active(task.id, &backend).await;
    condemn(suite, lease.id).await;
    let claimed = suite.claim(&backend, 9, HOLD).await;
    assert!(suite.claim(&backend, 9, HOLD).await.is_empty());
    let owner = claimed[0].claim.unwrap().owner;
    let stranger = ReplicaId::new(suite.now().await, suite.entropy.as_ref());
    assert!(suite.leases(Write::HandBack { owner: stranger }).await.is_empty());
    let free = suite.leases(Write::HandBack { owner }).await;
    assert_eq!((free[0].id, free[0].claim), (lease.id, None));
    assert_eq!(suite.claim(&backend, 9, HOLD).await[0].id, lease.id);
    // Whoever had it before does no harm.
    let late = suite
        .leases(Write::Bury { leases: vec![(lease.id, claimed[0].epoch)], expired: Vec::new() })
        .await;
    assert!(late.is_empty());
}

async fn a_turn_is_taken_by_one(suite: &Suite) {
    let backend = suite.backend();
    let take = async |every| {
        let write = Write::TakeTurn { backend: backend.clone(), every };
        match suite.store.write(write).await.unwrap() {
            Written::Turn(turn) => turn,
            other => panic!("answered {other:?}"),
        }
    };
    assert_eq!(suite.store.turn(&backend).await.unwrap(), 0);
    assert_eq!(take(TTL).await, Some(1));
    assert_eq!(take(TTL).await, None);
    assert_eq!(take(Duration::ZERO).await, Some(2));
    assert_eq!(suite.store.turn(&backend).await.unwrap(), 2);
    let turns = vec![(backend.clone(), 40)];
    suite.store.write(Write::Resume { actor: "x".into(), turns }).await.unwrap();
    assert_eq!(take(Duration::ZERO).await, Some(41));
    let turns = vec![(backend.clone(), 3)];
    suite.store.write(Write::Resume { actor: "x".into(), turns }).await.unwrap();
    assert_eq!(take(Duration::ZERO).await, Some(42), "turns never go back");
}

async fn rows_are_found_from_names(suite: &Suite) {
    let task = suite.open(TTL).await;
    let backend = suite.backend();
    let alive = suite.active(task.id, &backend).await;
    let dead = suite.active(task.id, &backend).await;
    condemn(suite, dead.id).await;
    let claimed = suite.claim(&backend, 9, HOLD).await;
    suite
        .leases(Write::Bury { leases: vec![(dead.id, claimed[0].epoch)], expired: Vec::new() })
        .await;
    let stranger = LeaseId::new(suite.now().await, suite.entropy.as_ref());
    let mut seen = suite.store.sightings(&[alive.id, dead.id, stranger]).await.unwrap();
    seen.sort_by_key(|seen| seen.lease != alive.id);
    let found: Vec<_> = seen.iter().map(|seen| (seen.lease, seen.may_live)).collect();
    assert_eq!(found, [(alive.id, true), (dead.id, false)]);
    assert!(seen.iter().all(|seen| seen.backend == backend));
    let living = suite.store.living_of(&backend, None, 9).await.unwrap();
    assert_eq!(living, std::slice::from_ref(&alive));
    assert!(suite.store.living_of(&backend, Some(alive.id), 9).await.unwrap().is_empty());
}

async fn a_suspended_store_mints_nothing_and_ends_only_what_was_told(suite: &Suite) {
    let task = suite.open(TTL).await;
    let backend = suite.backend();
    let told = suite.active(task.id, &backend).await;
    let due = brief(suite, task.id, &backend, Duration::from_millis(600)).await;
    let renewable = suite.active(task.id, &suite.backend()).await;
    suite.store.write(Write::Suspend { reason: "restored".into() }).await.unwrap();
    let suspended = suite.store.standing().await.unwrap().suspended.unwrap();
    assert_eq!(suspended.reason, "restored");
    let again = Write::Suspend { reason: "another".into() };
    suite.store.write(again).await.unwrap();
    assert_eq!(suite.store.standing().await.unwrap().suspended, Some(suspended));
    let intent = suite.intent(task.id, &backend).await;
    assert_eq!(refused(suite.intend(intent.clone()).await), Refusal::Suspended);
    let renew = Write::Renew { lease: renewable.id, ttl: TTL, actor: "x".into() };
    assert_eq!(refused(suite.store.write(renew).await), Refusal::Suspended);
    tokio::time::sleep(Duration::from_millis(700)).await;
    condemn(suite, told.id).await;
    let claimed = suite.claim(&backend, 9, HOLD).await;
    assert_eq!(claimed.iter().map(|lease| lease.id).collect::<Vec<_>>(), [told.id]);
    let resume = Write::Resume { actor: "x".into(), turns: Vec::new() };
    suite.store.write(resume).await.unwrap();
    assert_eq!(suite.store.standing().await.unwrap().suspended, None);
    suite.intend(intent).await.unwrap();
    assert_eq!(suite.claim(&backend, 9, HOLD).await[0].id, due.id);
}

/// A lease that lives for `ttl`, minted and delivered.
async fn brief(suite: &Suite, task: TaskId, backend: &str, ttl: Duration) -> Lease {
    let intent = crate::Intent { ttl, ..suite.intent(task, backend).await };
    let lease = suite.intend(intent).await.unwrap();
    suite.lease(Write::Activate { lease: lease.id, epoch: lease.epoch, kept: None }).await.unwrap();
    suite.lease(Write::Deliver { lease: lease.id }).await.unwrap()
}

async fn a_longer_life_is_adopted(suite: &Suite) {
    let task = suite.open(TTL * 3).await;
    let backend = suite.backend();
    let lease = suite.active(task.id, &backend).await;
    let adopt = |lease, expires_at| Write::Adopt { lease, expires_at, actor: "x".into() };
    let longer = lease.expires_at.plus(Duration::from_secs(20));
    let adopted = suite.lease(adopt(lease.id, longer)).await.unwrap();
    assert_eq!((adopted.expires_at, adopted.epoch), (longer, lease.epoch + 1));
    assert_eq!(adopted.native_expires_at, Some(longer.plus(Duration::from_secs(2))));
    let shorter = suite.lease(adopt(lease.id, lease.issued_at)).await.unwrap();
    assert_eq!(shorter.expires_at, longer, "never shorter");
    let beyond = suite.lease(adopt(lease.id, longer.plus(TTL * 9))).await.unwrap();
    assert_eq!(beyond.expires_at, lease.max_expires_at, "never beyond its maximum");
    // A pending lease whose credential is there was activated by what was lost.
    let pending = suite.intend(suite.intent(task.id, &backend).await).await.unwrap();
    let adopted = suite.lease(adopt(pending.id, pending.expires_at)).await.unwrap();
    assert!(matches!(adopted.state, State::Active { delivered_at: Some(_), .. }));
    condemn(suite, lease.id).await;
    assert_eq!(refused(suite.lease(adopt(lease.id, longer)).await), Refusal::LeaseChanged);
}

async fn a_jump_of_the_clock_is_held(suite: &Suite) {
    let task = suite.open(TTL * 3).await;
    let backend = suite.backend();
    let ttl = Duration::from_secs(2);
    let mut leases = Vec::new();
    for _ in 0..HOLD_LEASES_MIN * 4 {
        leases.push(brief(suite, task.id, &backend, ttl).await);
    }
    let told = suite.active(task.id, &backend).await;
    condemn(suite, told.id).await;
    tokio::time::sleep(ttl).await;
    let believed = Some(suite.now().await.minus(Duration::from_mins(5)));
    let claim = async |believed| {
        let owner = ReplicaId::new(suite.now().await, suite.entropy.as_ref());
        let (backend, hold) = (backend.clone(), HOLD);
        match suite.store.write(Write::Claim { backend, owner, limit: 99, hold, believed }).await {
            Ok(Written::Claimed { leases, .. }) => leases,
            other => panic!("answered {other:?}"),
        }
    };
    let claimed = claim(believed).await;
    let ids: Vec<LeaseId> = claimed.iter().map(|lease| lease.id).collect();
    assert_eq!(ids, [told.id], "what was told to die is never held");
    let hold = suite.store.standing().await.unwrap().hold.unwrap();
    assert!(hold.is_on(suite.now().await));
    assert!(claim(None).await.is_empty(), "other replicas hold it too");
    let expire = Write::ExpireTasks { limit: 100, believed: None, heard: None };
    suite.store.write(expire).await.unwrap();
    suite.store.write(Write::ReleaseHold { actor: "x".into() }).await.unwrap();
    assert_eq!(suite.store.standing().await.unwrap().hold, None);
    let claimed = claim(None).await;
    assert_eq!(claimed.len(), leases.len(), "released, all of them die");
}

async fn it_takes_two_to_abandon(suite: &Suite) {
    let task = suite.open(TTL).await;
    let backend = suite.backend();
    let lease = suite.active(task.id, &backend).await;
    let abandon = async |actor: &str| {
        let (actor, reason) = (actor.to_owned(), "the host is gone".to_owned());
        suite.lease(Write::Abandon { lease: lease.id, actor, reason }).await
    };
    assert_eq!(refused(abandon("ann").await), Refusal::NotOwed);
    condemn(suite, lease.id).await;
    let proposed = abandon("ann").await.unwrap();
    assert_eq!(proposed.state.as_str(), "revoking");
    assert_eq!(proposed.abandonment.as_ref().unwrap().by, "ann");
    assert_eq!(suite.store.lease(lease.id).await.unwrap(), Some(proposed));
    assert_eq!(refused(abandon("ann").await), Refusal::SamePerson);
    // Owed until the second one agrees.
    assert_eq!(suite.claim(&backend, 9, Duration::ZERO).await.len(), 1);
    let abandoned = abandon("bob").await.unwrap();
    assert_eq!(abandoned.state.as_str(), "abandoned");
    assert_eq!(abandoned.state.cause(), Some(Cause::Requested));
    assert_eq!(suite.store.lease(lease.id).await.unwrap(), Some(abandoned));
    assert!(suite.claim(&backend, 9, HOLD).await.is_empty());
    let counts = suite.counts(task.id).await;
    assert_eq!((counts.owed(), counts.abandoned), (0, 1));
    assert_eq!(refused(abandon("eve").await), Refusal::NotOwed);
    let close = Write::CloseTask { task: task.id, end: TaskEnd::Failed, actor: "x".into() };
    suite.store.write(close).await.unwrap();
}

async fn only_what_ended_is_pruned(suite: &Suite) {
    let task = suite.open(TTL).await;
    let other = suite.open(TTL).await;
    let backend = suite.backend();
    let alive = suite.active(other.id, &backend).await;
    let dead = suite.active(task.id, &backend).await;
    let close = Write::CloseTask { task: task.id, end: TaskEnd::Failed, actor: "x".into() };
    suite.store.write(close).await.unwrap();
    let prune = async |keep| {
        suite.store.write(Write::Prune { keep, limit: 1_000 }).await.unwrap();
    };
    prune(Duration::ZERO).await;
    assert!(suite.store.lease(dead.id).await.unwrap().is_some(), "owed, however old");
    let claimed = suite.claim(&backend, 9, HOLD).await;
    suite
        .leases(Write::Bury { leases: vec![(dead.id, claimed[0].epoch)], expired: Vec::new() })
        .await;
    prune(TTL).await;
    assert!(suite.store.lease(dead.id).await.unwrap().is_some(), "not old enough");
    tokio::time::sleep(Duration::from_millis(5)).await;
    prune(Duration::ZERO).await;
    assert_eq!(suite.store.lease(dead.id).await.unwrap(), None);
    assert_eq!(suite.store.task(task.id).await.unwrap(), None);
    assert!(suite.store.lease(alive.id).await.unwrap().is_some());
    assert!(suite.store.task(other.id).await.unwrap().is_some());
}

/// Whoever stages sees nobody else's; whoever settles has seen what was staged; and what was in
/// use is there until then.
async fn a_password_is_staged_before_it_is_taken(suite: &Suite) {
    let backend = suite.backend();
    let sealed = |byte| Sealed::from_bytes(vec![byte; 40]);
    let stage = |epoch, byte| Write::StageRoot {
        backend: backend.clone(),
        epoch,
        next: sealed(byte),
        actor: "people|ada".into(),
    };
    let settle = |epoch, taken| Write::SettleRoot {
        backend: backend.clone(),
        epoch,
        taken,
        actor: "engine".into(),
    };
    let write = async |write| match suite.store.write(write).await {
        Ok(Written::Root(root)) => Ok(*root),
        Ok(other) => panic!("answered {other:?}"),
        Err(error) => Err(error),
    };
    assert_eq!(suite.store.root(&backend).await.unwrap(), None);
    assert_eq!(refused(write(settle(0, true)).await), Refusal::RootChanged);
    let first = write(stage(0, 1)).await.unwrap();
    assert_eq!((first.epoch, &first.current), (1, &None));
    assert_eq!(suite.store.root(&backend).await.unwrap(), Some(first.clone()));
    assert_eq!(refused(write(stage(1, 2)).await), Refusal::RootStaged);
    assert_eq!(refused(write(stage(0, 2)).await), Refusal::RootChanged);
    assert_eq!(refused(write(settle(0, true)).await), Refusal::RootChanged);
    let taken = write(settle(1, true)).await.unwrap();
    assert_eq!((taken.current, taken.staged, taken.epoch), (Some(sealed(1)), None, 2));
    assert!(taken.rotated_at.is_some());
    write(stage(2, 3)).await.unwrap();
    let kept = write(settle(3, false)).await.unwrap();
    assert_eq!((&kept.current, &kept.staged), (&Some(sealed(1)), &None));
    assert_eq!(kept.rotated_at, taken.rotated_at);
    assert_eq!(suite.store.root(&backend).await.unwrap(), Some(kept));
}
