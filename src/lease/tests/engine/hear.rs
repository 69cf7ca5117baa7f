//! Silence: what the loop makes of it, and what it does not.

use std::time::Duration;

use dayfly_lease::{Cause, Store, TaskEnd, TaskId, TaskState};

use super::{MINUTE, fake::Rig};

async fn state(rig: &Rig, task: TaskId) -> TaskState {
    rig.store.task(task).await.unwrap().unwrap().state
}

/// Waits until the loop has ended `task`.
async fn end(rig: &Rig, task: TaskId) -> TaskEnd {
    for _ in 0..2_000 {
        if let TaskState::Closed { end, .. } = state(rig, task).await {
            return end;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still open");
}

#[tokio::test]
async fn a_silent_task_is_lost_and_its_credential_dies() {
    let rig = Rig::new(Duration::ZERO);
    let task = rig.task_heard_every(Duration::from_millis(300)).await;
    let minted = rig.engine.mint(rig.order(task, MINUTE)).await.unwrap();
    minted.delivery.handed_over();
    assert_eq!(rig.buried().await.1, Cause::TaskLost);
    assert_eq!((end(&rig, task).await, rig.backend.live()), (TaskEnd::Lost, 0));
}

#[tokio::test]
async fn who_was_away_waits_for_a_whole_interval() {
    let rig = Rig::idle(Duration::ZERO);
    let every = Duration::from_secs(2);
    let task = rig.task_heard_every(every).await;
    tokio::time::sleep(every * 2).await;
    rig.start();
    tokio::time::sleep(every / 2).await;
    assert_eq!(state(&rig, task).await, TaskState::Open, "nobody could have heard it");
    assert_eq!(end(&rig, task).await, TaskEnd::Lost);
}

/// Two replicas over one store: what one of them turns away, the other cannot hear.
#[tokio::test]
async fn what_one_replica_turned_away_is_no_silence_to_another() {
    let rig = Rig::new(Duration::ZERO);
    let every = Duration::from_secs(2);
    let task = rig.task_heard_every(every).await;
    tokio::time::sleep(every).await;
    rig.restarted().engine.missed_a_beat();
    tokio::time::sleep(every * 3 / 4).await;
    assert_eq!(state(&rig, task).await, TaskState::Open, "its beat may have been turned away");
    assert_eq!(end(&rig, task).await, TaskEnd::Lost);
}

#[tokio::test]
async fn who_stops_listening_ends_nobody() {
    let rig = Rig::new(Duration::ZERO);
    let every = Duration::from_millis(300);
    tokio::time::sleep(every).await;
    rig.engine.listen_no_more();
    let task = rig.task_heard_every(every).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(state(&rig, task).await, TaskState::Open);
    let next = rig.restarted();
    next.start();
    assert_eq!(end(&next, task).await, TaskEnd::Lost, "another replica does");
}
