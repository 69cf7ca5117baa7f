//! The circuit breaker: a backend that is down costs nobody's patience and no lease's
//! attempts.

use std::time::Duration;

use dayfly_lease::{MintError, State, TaskEnd};

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
