//! What a mint keeps for its lease's end, and what nothing can end.

use std::{sync::Arc, time::Duration};

use dayfly_backend_sdk::Secret;
use dayfly_lease::{Cause, MintError, Seal, SealError, Sealed, State, Store, TaskEnd};

use crate::{
    MINUTE,
    fake::{Mood, Rig},
};

const WAIT: Duration = Duration::from_secs(3);

/// Not a cipher: turns the bytes round, and knows its purpose.
#[derive(Debug)]
struct Turned {
    opens: bool,
}

impl Seal for Turned {
    fn seal(&self, purpose: &str, secret: &Secret) -> Result<Sealed, SealError> {
        let text = format!("{purpose} {}", secret.expose());
        Ok(Sealed::from_bytes(text.bytes().rev().collect()))
    }

    fn open(&self, purpose: &str, sealed: &Sealed) -> Result<Secret, SealError> {
        let text: Vec<u8> = sealed.as_bytes().iter().rev().copied().collect();
        let text = String::from_utf8(text).map_err(|_| SealError::Unopened)?;
        let secret = text.strip_prefix(&format!("{purpose} ")).filter(|_| self.opens);
        secret.map(Secret::new).ok_or(SealError::Unopened)
    }
}

fn rig(opens: bool) -> Rig {
    let rig = Rig::keeping(Some(Arc::new(Turned { opens })));
    rig.start();
    rig
}

#[tokio::test]
async fn what_was_kept_is_there_for_the_end_and_erased_by_it() {
    let rig = rig(true);
    let task = rig.task().await;
    let minted = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap();
    let row = rig.store.lease(minted.lease.id).await.unwrap().unwrap();
    assert!(row.kept.is_some(), "it is in the row before the credential leaves");
    minted.delivery.handed_over();
    let done = rig.engine.complete(task, TaskEnd::Completed, "ci|repo", WAIT).await.unwrap();
    assert_eq!((done.counts.revoked, rig.backend.live()), (1, 0));
    let (lease, _) = rig.buried().await;
    assert_eq!(lease.kept, None);
    let receipt = rig.receipt().await;
    assert!(!receipt.contains("native_expiry"), "it was seen dead: {receipt}");
}

#[tokio::test]
async fn without_a_seal_nothing_is_handed_over_and_nothing_lives() {
    let rig = Rig::keeping(None);
    rig.start();
    let task = rig.task().await;
    let error = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap_err();
    assert!(matches!(error, MintError::Seal(SealError::NoKey)), "{error:?}");
    assert_eq!(rig.backend.live(), 0, "what was made was ended with what was still in memory");
}

/// The key is another one at the moment: that is tried again, and is no death of its own.
#[tokio::test]
async fn what_cannot_be_opened_is_tried_again() {
    let rig = rig(false);
    let task = rig.task().await;
    let minted = rig.engine.mint(rig.order(task, Duration::from_millis(100))).await.unwrap();
    minted.delivery.handed_over();
    let wait = Duration::from_millis(300);
    let done = rig.engine.complete(task, TaskEnd::Completed, "ci|repo", wait).await.unwrap();
    assert_eq!((done.counts.revoking, done.counts.lingering), (1, 0));
    let owed = rig.store.lease(minted.lease.id).await.unwrap().unwrap();
    assert!(owed.attempts > 0 && owed.error_class.as_deref() == Some("unopened"), "{owed:?}");
    let (lease, _) = rig.buried().await;
    let State::Revoked { at, .. } = lease.state else { panic!("alive") };
    assert!(Some(at) >= lease.native_expires_at, "it had an end of its own");
}

/// A backend that was never reached has made nothing: there is nothing to wait for.
#[tokio::test]
async fn what_was_certainly_not_made_does_not_linger() {
    let rig = rig(true);
    rig.backend.set(Mood::Refuses);
    let task = rig.task().await;
    rig.engine.mint(rig.order(task, MINUTE)).await.unwrap_err();
    rig.backend.set(Mood::Keeps);
    let began = tokio::time::Instant::now();
    let done = rig.engine.complete(task, TaskEnd::Completed, "ci|repo", WAIT).await.unwrap();
    assert_eq!((done.counts.revoked, done.counts.owed()), (1, 0));
    assert!(began.elapsed() < WAIT);
}

/// What would end it is gone (the mint's answer was lost). It ends by itself, later than its
/// lease, and everything says so.
#[tokio::test]
async fn what_nothing_ends_is_owed_until_its_own_expiry() {
    let rig = rig(true);
    rig.backend.set(Mood::Works);
    let task = rig.task().await;
    let order = rig.order(task, Duration::from_millis(100));
    let minted = rig.engine.mint(order).await.unwrap();
    rig.backend.set(Mood::Keeps);
    let native = minted.lease.native_expires_at.unwrap();
    assert!(native >= minted.lease.issued_at.plus(Duration::from_millis(700)), "its shortest life");
    minted.delivery.handed_over();
    let began = tokio::time::Instant::now();
    let done = rig.engine.complete(task, TaskEnd::Completed, "ci|repo", WAIT).await.unwrap();
    assert!(began.elapsed() < WAIT / 2, "nobody waits for what cannot come");
    assert_eq!((done.counts.revoking, done.counts.lingering), (1, 1));
    assert_eq!(done.counts.residual_until, Some(native));
    let owed = rig.store.lease(minted.lease.id).await.unwrap().unwrap();
    assert_eq!((owed.residual_until(), owed.attempts), (Some(native), 0));
    let (lease, cause) = rig.buried().await;
    let State::Revoked { at, .. } = lease.state else { panic!("alive") };
    assert_eq!(cause, Cause::TaskCompleted);
    assert!(at >= native, "buried at {at}, and it works until {native}");
    assert!(rig.receipt().await.contains("\"proof\":\"native_expiry\""));
}

#[tokio::test]
async fn a_lost_answer_of_a_backend_that_keeps_lingers_too() {
    let rig = rig(true);
    rig.backend.set(Mood::LosesTheReply);
    let task = rig.task().await;
    let order = rig.order(task, Duration::from_millis(100));
    rig.engine.mint(order).await.unwrap_err();
    rig.backend.set(Mood::Keeps);
    let (lease, cause) = rig.buried().await;
    let State::Revoked { at, .. } = lease.state else { panic!("alive") };
    assert_eq!(cause, Cause::MintFailed);
    assert!(Some(at) >= lease.native_expires_at);
}
