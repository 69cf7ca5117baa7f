//! The engine over the store in memory and a backend that fails on demand.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says by panicking what does not hold"
)]

mod breaker;
mod fake;
mod hear;
mod kept;
mod sweep;

use std::{sync::Arc, time::Duration};

use dayfly_lease::{Cause, MintError, State, Store, TaskEnd, Write};

use fake::{Mood, Rig};

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_caller_that_goes_away_gets_nothing_and_the_credential_dies() {
    let rig = Rig::new(Duration::from_millis(100));
    let task = rig.task().await;
    let minting = rig.engine.mint(rig.order(task, MINUTE));
    // The handler's future is dropped while the backend is at work.
    assert!(tokio::time::timeout(Duration::from_millis(30), minting).await.is_err());
    let (lease, cause) = rig.buried().await;
    assert_eq!((cause, rig.backend.live()), (Cause::Undelivered, 0));
    assert!(lease.activated_at.is_some(), "the mint ran to its end");
    assert_eq!(lease.delivered_at, None);
}

#[tokio::test]
async fn an_answer_that_is_never_handed_over_is_revoked_at_once() {
    let rig = Rig::new(Duration::ZERO);
    let task = rig.task().await;
    let minted = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap();
    assert_eq!(rig.backend.live(), 1);
    drop(minted);
    assert_eq!(rig.buried().await.1, Cause::Undelivered);
}

#[tokio::test]
async fn a_lost_reply_never_means_that_nothing_happened() {
    let rig = Rig::new(Duration::ZERO);
    rig.backend.set(Mood::LosesTheReply);
    let task = rig.task().await;
    let error = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap_err();
    assert!(matches!(error, MintError::Backend(_)));
    let (lease, cause) = rig.buried().await;
    assert_eq!((cause, rig.backend.live()), (Cause::MintFailed, 0));
    let State::Revoked { at, .. } = lease.state else { panic!("alive") };
    let settle = lease.mint_deadline.plus(Duration::from_millis(200));
    assert!(at >= settle, "buried at {at}, though a create could land until {settle}");
}

#[tokio::test]
async fn a_certain_refusal_is_buried_without_waiting() {
    let rig = Rig::new(Duration::ZERO);
    rig.backend.set(Mood::Refuses);
    let task = rig.task().await;
    rig.engine.mint(rig.order(task, MINUTE)).await.unwrap_err();
    let (lease, cause) = rig.buried().await;
    let State::Revoked { at, .. } = lease.state else { panic!("alive") };
    assert_eq!(cause, Cause::MintFailed);
    assert!(at < lease.mint_deadline);
}

#[tokio::test]
async fn a_backend_that_hangs_is_given_up_at_the_deadline() {
    let rig = Rig::new(Duration::ZERO);
    rig.backend.set(Mood::Hangs);
    let task = rig.task().await;
    let error = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap_err();
    assert!(matches!(error, MintError::Timeout));
    assert_eq!(rig.buried().await.1, Cause::MintFailed);
}

#[tokio::test]
async fn completion_during_a_mint_leaves_nothing_alive() {
    let rig = Rig::new(Duration::from_millis(150));
    let task = rig.task().await;
    let engine = Arc::clone(&rig.engine);
    let order = rig.order(task, MINUTE);
    let minting = dayfly_lease::spawn(async move { engine.mint(order).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let wait = Duration::from_secs(3);
    let done = rig.engine.complete(task, TaskEnd::Completed, "ci|repo", wait).await.unwrap();
    assert_eq!(done.counts.owed(), 0);
    assert_eq!(rig.backend.live(), 0, "success was answered while a credential lived");
    assert!(minting.await.unwrap().is_err(), "nothing is delivered after the completion");
}

#[tokio::test]
async fn completion_says_what_is_owed_while_a_credential_lives() {
    let rig = Rig::new(Duration::ZERO);
    let task = rig.task().await;
    let minted = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap();
    rig.backend.poisoned.lock().unwrap().insert(minted.lease.handle.clone());
    minted.delivery.handed_over();
    let wait = Duration::from_millis(200);
    let done = rig.engine.complete(task, TaskEnd::Completed, "ci|repo", wait).await.unwrap();
    assert_eq!(done.counts.revoking, 1);
    rig.backend.poisoned.lock().unwrap().clear();
    let (lease, cause) = rig.buried().await;
    assert_eq!(cause, Cause::TaskCompleted);
    assert!(lease.attempts > 0, "its failures were counted");
}

#[tokio::test]
async fn one_poisoned_lease_delays_no_other() {
    let rig = Rig::new(Duration::ZERO);
    let task = rig.task().await;
    let mut minted = Vec::new();
    for _ in 0..5 {
        minted.push(rig.engine.mint(rig.order(task, MINUTE)).await.unwrap());
    }
    rig.backend.poisoned.lock().unwrap().insert(minted[2].lease.handle.clone());
    let wait = Duration::from_millis(500);
    let done = rig.engine.complete(task, TaskEnd::Completed, "ci|repo", wait).await.unwrap();
    assert_eq!((done.counts.revoked, done.counts.revoking), (4, 1));
}

#[tokio::test]
async fn a_lease_dies_at_its_time_and_not_before() {
    let rig = Rig::new(Duration::ZERO);
    let task = rig.task().await;
    let ttl = Duration::from_millis(300);
    let minted = rig.engine.mint(rig.order(task, ttl)).await.unwrap();
    let expires_at = minted.lease.expires_at;
    minted.delivery.handed_over();
    let (lease, cause) = rig.buried().await;
    let State::Revoked { at, .. } = lease.state else { panic!("alive") };
    assert_eq!(cause, Cause::Expired);
    assert!(at >= expires_at, "revoked at {at}, {expires_at} was promised");
}

#[tokio::test]
async fn a_renewal_that_the_backend_refuses_changes_nothing() {
    let rig = Rig::new(Duration::ZERO);
    let task = rig.task().await;
    let minted = rig.engine.mint(rig.order(task, Duration::from_secs(20))).await.unwrap();
    let before = minted.lease.clone();
    minted.delivery.handed_over();
    rig.backend.set(Mood::Refuses);
    assert!(rig.engine.renew(before.id, MINUTE, "ci|repo").await.is_err());
    let after = rig.store.lease(before.id).await.unwrap().unwrap();
    assert_eq!(after.expires_at, before.expires_at);
    rig.backend.set(Mood::Works);
    let renewal = rig.engine.renew(before.id, Duration::from_secs(40), "ci|repo").await.unwrap();
    assert!(renewal.lease.expires_at > before.expires_at && !renewal.truncated);
    let renewal = rig.engine.renew(before.id, MINUTE * 9, "ci|repo").await.unwrap();
    assert!(renewal.truncated, "a task's deadline caps a renewal, and the answer says so");
}

/// A create comes back when its lease is given up already, and the backend hangs when it is
/// taken back at once. That may not keep the mint's place.
#[tokio::test]
async fn a_last_resort_that_hangs_keeps_no_place() {
    let rig = Rig::new(Duration::from_millis(200));
    let task = rig.task().await;
    let engine = Arc::clone(&rig.engine);
    let order = rig.order(task, MINUTE);
    let minting = dayfly_lease::spawn(async move { engine.mint(order).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    rig.backend.set(Mood::NeverRevokes);
    let [lease] = rig.store.leases().await.try_into().unwrap();
    let (cause, actor, reason) = (Cause::Requested, "people|ada".to_owned(), None);
    rig.store.write(Write::Condemn { lease: lease.id, cause, actor, reason }).await.unwrap();
    for person in ["people|ada", "people|bob"] {
        let (actor, reason) = (person.to_owned(), "given up".to_owned());
        rig.store.write(Write::Abandon { lease: lease.id, actor, reason }).await.unwrap();
    }
    let refused = tokio::time::timeout(Duration::from_secs(3), minting).await;
    assert!(refused.expect("the mint ended").unwrap().is_err());
}
