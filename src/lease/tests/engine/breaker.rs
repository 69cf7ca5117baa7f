//! The circuit breaker: a backend that is down costs nobody's patience and no lease's
//! attempts.

use std::time::Duration;

use dayfly_lease::{Cause, MintError, State, Store, TaskEnd};

use super::fake::{Mood, Rig};

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_backend_that_does_not_answer_is_asked_no_more_until_it_is_back() {
    let rig = Rig::new(Duration::ZERO);
    let task = rig.task().await;
    let minted = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap();
    minted.delivery.handed_over();
    rig.backend.set(Mood::Down);
    // The reapers' failures count as well, so that it may take fewer than three.
    for _ in 0..3 {
        let failed = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap_err();
        assert!(matches!(failed, MintError::Backend(_) | MintError::Down { .. }), "{failed}");
    }
    let rows = rig.store.leases().await.len();
    let refused = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap_err();
    assert!(matches!(refused, MintError::Down { .. }), "{refused}");
    assert_eq!(rig.store.leases().await.len(), rows, "refused before any intent");
    // What must die meanwhile waits, and no attempt is counted against it.
    let done = rig.engine.complete(task, TaskEnd::Completed, "x", Duration::ZERO).await.unwrap();
    assert!(done.counts.owed() > 0);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let attempts =
        |leases: &[dayfly_lease::Lease]| -> u32 { leases.iter().map(|lease| lease.attempts).sum() };
    let counted = attempts(&rig.store.leases().await);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(attempts(&rig.store.leases().await), counted);
    assert!(rig.engine.line("fake").unwrap().is_down());
    rig.backend.set(Mood::Works);
    for _ in 0..1_000 {
        let leases = rig.store.leases().await;
        if leases.iter().all(|lease| matches!(lease.state, State::Revoked { .. })) {
            assert_eq!(rig.backend.live(), 0);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still owed: {:?}", rig.store.leases().await);
}

/// A provider that takes its time to believe a revocation answers all the same: others mint
/// and renew there meanwhile.
#[tokio::test]
async fn a_backend_that_is_slow_to_believe_is_not_down() {
    let rig = Rig::new(Duration::ZERO);
    let task = rig.task().await;
    let minted = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap();
    let lease = minted.lease.id;
    minted.delivery.handed_over();
    rig.backend.set(Mood::Slow);
    let wait = Duration::from_millis(500);
    rig.engine.revoke(lease, Cause::Requested, "x", None, wait).await.unwrap();
    let row = rig.store.lease(lease).await.unwrap().unwrap();
    assert!(row.attempts > 3, "it was tried again and again: {row:?}");
    assert_eq!(row.error_class.as_deref(), Some("still_there"));
    assert!(!rig.engine.line("fake").unwrap().is_down());
    rig.backend.set(Mood::Works);
    assert_eq!(rig.buried().await.1, Cause::Requested);
}

/// Nobody mints there and nothing is due: the sweep finds that it is back.
#[tokio::test]
async fn a_sweep_finds_that_a_backend_is_back() {
    let rig = Rig::idle(Duration::ZERO);
    let task = rig.task().await;
    rig.engine.mint(rig.order(task, MINUTE)).await.unwrap().delivery.handed_over();
    rig.backend.set(Mood::Down);
    for _ in 0..4 {
        rig.engine.mint(rig.order(task, MINUTE)).await.unwrap_err();
    }
    assert!(rig.engine.line("fake").unwrap().is_down());
    rig.backend.set(Mood::Works);
    for _ in 0..300 {
        rig.engine.sweep("fake").await.unwrap();
        if !rig.engine.line("fake").unwrap().is_down() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it is back, and nobody has noticed");
}
