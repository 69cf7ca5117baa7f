//! The orphan sweep: it ends what no lease covers, and nothing that is not its own.

use std::time::Duration;

use dayfly_backend_sdk::{Backend, Handle, HandlePrefix, Marker};
use dayfly_lease::{
    Cause, MintError, Owner, Refusal, State, Store, SweepError, TaskEnd, Write, Written,
};
use uuid::Uuid;

use super::fake::Rig;

const MINUTE: Duration = Duration::from_mins(1);

/// A name under the prefix that no lease has ever had.
fn stray(number: u128) -> Handle {
    HandlePrefix::parse("f_").unwrap().handle(Uuid::from_u128(number), 63).unwrap()
}

impl Rig {
    fn plant(&self, handle: &Handle) {
        self.backend.live.lock().unwrap().insert(handle.clone());
    }

    fn has(&self, handle: &Handle) -> bool {
        self.backend.live.lock().unwrap().contains(handle)
    }

    async fn gone(&self, handle: &Handle) {
        for _ in 0..300 {
            if !self.has(handle) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{handle} is still there");
    }

    async fn events(&self, event: &str) -> usize {
        self.store.records().await.iter().filter(|record| record.event == event).count()
    }

    /// The next sweep's failure; the engine's own loop may take some of the turns.
    async fn sweep_fails(&self) -> SweepError {
        for _ in 0..300 {
            if let Err(error) = self.engine.sweep("fake").await {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no sweep failed");
    }
}

#[tokio::test]
async fn an_orphan_is_ended_and_what_a_lease_covers_is_not() {
    let rig = Rig::new(Duration::ZERO);
    let task = rig.task().await;
    let minted = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap();
    let covered = minted.lease.handle.clone();
    minted.delivery.handed_over();
    let foreign = Handle::parse("f_reporting").unwrap();
    rig.plant(&stray(1));
    rig.plant(&foreign);
    rig.gone(&stray(1)).await;
    for event in ["orphan.found", "orphan.revoked"] {
        // The last record is written after the deed.
        for _ in 0..100 {
            if rig.events(event).await == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(rig.events(event).await, 1, "{event}");
    }
    assert!(rig.has(&covered));
    assert!(rig.has(&foreign), "a name that is no handle is nobody's to end");
    let lease = rig.store.lease(minted.lease.id).await.unwrap().unwrap();
    assert!(matches!(lease.state, State::Active { .. }));
}

/// A backend that was restored from an old backup has credentials again that were verified
/// dead.
#[tokio::test]
async fn what_came_back_from_the_dead_is_ended_again() {
    let rig = Rig::new(Duration::ZERO);
    let task = rig.task().await;
    let minted = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap();
    let handle = minted.lease.handle.clone();
    minted.delivery.handed_over();
    rig.engine.complete(task, TaskEnd::Completed, "x", MINUTE).await.unwrap();
    let (_, cause) = rig.buried().await;
    assert_eq!(cause, Cause::TaskCompleted);
    rig.plant(&handle);
    rig.gone(&handle).await;
}

#[tokio::test]
async fn more_than_a_fifth_unknown_is_held() {
    let rig = Rig::new(Duration::ZERO);
    let strays: Vec<Handle> = (0..8).map(stray).collect();
    let task = rig.task().await;
    for _ in 0..8 {
        let minted = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap();
        minted.delivery.handed_over();
    }
    {
        // All at once, so that no sweep sees a few of them only.
        let mut live = rig.backend.live.lock().unwrap();
        live.extend(strays.iter().cloned());
    }
    let error = rig.sweep_fails().await;
    assert!(matches!(error, SweepError::Held { unknown: 8, listed: 16 }), "{error}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(strays.iter().all(|handle| rig.has(handle)), "nothing was ended");
    // Half of them gone by other hands, the rest is no large share any more.
    for handle in &strays[..4] {
        rig.backend.live.lock().unwrap().remove(handle);
    }
    for handle in &strays[4..] {
        rig.gone(handle).await;
    }
}

#[tokio::test]
async fn another_installations_prefix_is_left_alone_and_nothing_is_minted_there() {
    let rig = Rig::idle(Duration::ZERO);
    let theirs = Marker { installation: Uuid::from_u128(99), turn: 7 };
    *rig.backend.marker.lock().unwrap() = Some(theirs.clone());
    rig.plant(&stray(1));
    rig.start();
    let error = rig.sweep_fails().await;
    assert!(matches!(&error, SweepError::Another(marker) if *marker == theirs), "{error}");
    let task = rig.task().await;
    let refused = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap_err();
    assert!(matches!(refused, MintError::Owner(SweepError::Another(_))), "{refused}");
    assert!(rig.store.leases().await.is_empty());
    assert!(rig.has(&stray(1)));
    assert_eq!(rig.engine.line("fake").unwrap().owner(), Owner::Another(theirs.clone()));
    assert_eq!(*rig.backend.marker.lock().unwrap(), Some(theirs));
}

/// The backend remembers a sweep that the store does not: the store was restored.
#[tokio::test]
async fn a_store_that_is_behind_mints_nothing() {
    let rig = Rig::idle(Duration::ZERO);
    let installation = rig.store.installation().await.unwrap();
    let marker = Marker { installation, turn: 1_000_000 };
    *rig.backend.marker.lock().unwrap() = Some(marker);
    rig.plant(&stray(1));
    let task = rig.task().await;
    let refused = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::Suspended), "{refused}");
    assert!(rig.store.standing().await.unwrap().suspended.is_some());
    rig.start();
    let error = rig.sweep_fails().await;
    assert!(matches!(error, SweepError::Suspended), "{error}");
    assert!(rig.has(&stray(1)), "nothing is ended before somebody has looked");
    let survey = rig.engine.survey("fake").await.unwrap();
    assert_eq!((survey.turn, survey.unknown.as_slice()), (1_000_000, &[stray(1)][..]));
    rig.engine.reconcile("fake", &survey, "ann").await.unwrap();
    assert!(!rig.has(&stray(1)));
    assert!(rig.engine.survey("fake").await.unwrap().is_clean());
    rig.engine.resume("ann", vec![("fake".into(), survey.turn)]).await.unwrap();
    let minted = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap();
    minted.delivery.handed_over();
    assert!(rig.store.turn("fake").await.unwrap() >= 1_000_000);
    let capabilities = rig.backend.capabilities();
    assert!(capabilities.list, "else all of this proves nothing");
}

/// A replica that is slow reads a marker that others have moved on meanwhile. That is no loss.
#[tokio::test]
async fn a_marker_that_others_moved_on_suspends_nothing() {
    let rig = Rig::new(Duration::ZERO);
    *rig.backend.marker_takes.lock().unwrap() = Duration::from_millis(100);
    for _ in 0..30 {
        let turn = Write::TakeTurn { backend: "fake".into(), every: Duration::ZERO };
        let Written::Turn(Some(turn)) = rig.store.write(turn).await.unwrap() else {
            panic!("it is always time");
        };
        let installation = rig.store.installation().await.unwrap();
        *rig.backend.marker.lock().unwrap() = Some(Marker { installation, turn });
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(rig.store.standing().await.unwrap().suspended, None);
}

/// After a restart on an old copy of the store, what was renewed since looks due.
#[tokio::test]
async fn time_ends_nothing_before_the_marker_was_read() {
    nothing_ends_on_an_old_copy(1_000_000).await;
}

/// One sweep behind, which the new process's own turn would hide.
#[tokio::test]
async fn time_ends_nothing_on_a_copy_that_is_one_sweep_old() {
    nothing_ends_on_an_old_copy(1).await;
}

async fn nothing_ends_on_an_old_copy(behind: u64) {
    let rig = Rig::idle(Duration::ZERO);
    let task = rig.task().await;
    let ttl = Duration::from_millis(100);
    let minted = rig.engine.mint(rig.order(task, ttl)).await.unwrap();
    let lease = minted.lease.id;
    minted.delivery.handed_over();
    let installation = rig.store.installation().await.unwrap();
    let take = Write::TakeTurn { backend: "fake".into(), every: Duration::ZERO };
    let Written::Turn(Some(turn)) = rig.store.write(take).await.unwrap() else {
        panic!("it is always time");
    };
    *rig.backend.marker.lock().unwrap() = Some(Marker { installation, turn: turn + behind });
    *rig.backend.marker_takes.lock().unwrap() = Duration::from_millis(300);
    tokio::time::sleep(ttl * 2).await;
    let rig = rig.restarted();
    rig.start();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let row = rig.store.lease(lease).await.unwrap().unwrap();
        assert!(matches!(row.state, State::Active { .. }), "{row:?}");
        assert_eq!(rig.backend.live(), 1);
    }
    assert!(rig.store.standing().await.unwrap().suspended.is_some());
}

/// What two people gave up is known to be there: it is no difference that a recovery would
/// have to mend, and it stays the sweep's.
#[tokio::test]
async fn a_recovery_leaves_out_what_two_people_gave_up() {
    let rig = Rig::idle(Duration::ZERO);
    let task = rig.task().await;
    let minted = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap();
    let (lease, handle) = (minted.lease.id, minted.lease.handle.clone());
    rig.backend.poisoned.lock().unwrap().insert(handle.clone());
    minted.delivery.handed_over();
    rig.engine.complete(task, TaskEnd::Completed, "x", Duration::ZERO).await.unwrap();
    for person in ["people|ada", "people|bob"] {
        let (actor, reason) = (person.to_owned(), "it owns what nobody may drop".to_owned());
        rig.store.write(Write::Abandon { lease, actor, reason }).await.unwrap();
    }
    let survey = rig.engine.survey("fake").await.unwrap();
    assert_eq!(survey.abandoned, std::slice::from_ref(&handle));
    assert!(survey.is_clean() && survey.dead.is_empty(), "{survey:?}");
    rig.backend.poisoned.lock().unwrap().clear();
    rig.start();
    rig.gone(&handle).await;
}
