//! The cases of heartbeats: what is heard goes on, what is silent is lost, and no silence is
//! believed that nobody was there to hear.
//!
//! Others on the same store would end these tasks between two steps, so they run alone.

use std::time::Duration;

use dayfly_backend_sdk::Timestamp;

use super::{Suite, TTL, refused};
use crate::{
    Cause, Closed, Heard, Refusal, State, StoreError, Task, TaskEnd, TaskId, TaskState, Write,
    Written,
};

pub(super) async fn run(suite: &Suite) {
    a_silent_task_is_lost_with_its_leases(suite).await;
    no_silence_is_believed_that_nobody_heard(suite).await;
    what_a_replica_turned_away_is_no_silence_to_any(suite).await;
    what_is_heard_goes_on(suite).await;
    a_late_beat_is_as_good_as_one_in_time(suite).await;
    the_deadline_stays(suite).await;
    only_a_task_with_a_heartbeat_is_heard(suite).await;
}

/// So short an interval is over when the next step begins.
const SHORT: Duration = Duration::from_millis(40);

async fn let_it_fall_silent() {
    tokio::time::sleep(SHORT * 2).await;
}

async fn beat(suite: &Suite, task: TaskId) -> Result<Task, StoreError> {
    match suite.store.write(Write::Beat { task }).await? {
        Written::Task(task) => Ok(*task),
        other => panic!("answered {other:?}"),
    }
}

async fn expire(suite: &Suite, heard: Option<Heard>) -> Vec<Closed> {
    let write = Write::ExpireTasks { limit: 100, believed: None, heard };
    match suite.store.write(write).await.unwrap() {
        Written::Ended { closed, now } => {
            assert!(now <= suite.now().await, "the clock of the change");
            closed
        }
        other => panic!("answered {other:?}"),
    }
}

/// Somebody has been listening for `length`, and the clock has not jumped since.
async fn listening(suite: &Suite, length: Duration) -> Option<Heard> {
    Some(Heard { length, until: suite.now().await.plus(TTL) })
}

async fn state(suite: &Suite, task: TaskId) -> TaskState {
    suite.store.task(task).await.unwrap().unwrap().state
}

fn lost_at(task: &Task) -> Timestamp {
    task.heartbeat.expect("it was opened with a heartbeat").lost_at
}

async fn a_silent_task_is_lost_with_its_leases(suite: &Suite) {
    let backend = suite.backend();
    let task = suite.open_with_heartbeat(TTL, SHORT).await;
    assert_eq!(suite.store.task(task.id).await.unwrap().as_ref(), Some(&task));
    assert_eq!(lost_at(&task), task.opened_at.plus(SHORT + SHORT / 4));
    assert!(suite.store.next_task_due().await.unwrap().unwrap() <= SHORT * 2);
    let lease = suite.active(task.id, &backend).await;
    let quiet = suite.open_with_heartbeat(TTL, TTL).await;
    let unwatched = suite.open(TTL).await;
    let_it_fall_silent().await;
    assert_eq!(suite.store.next_task_due().await.unwrap(), Some(Duration::ZERO));
    let closed = expire(suite, listening(suite, TTL * 9).await).await;
    let found = closed.iter().find(|one| one.task.id == task.id).expect("it is lost");
    assert_eq!(found.backends, [backend]);
    assert!(matches!(found.task.state, TaskState::Closed { end: TaskEnd::Lost, .. }));
    assert_eq!(suite.store.task(task.id).await.unwrap().as_ref(), Some(&found.task));
    let lease = suite.store.lease(lease.id).await.unwrap().unwrap();
    assert_eq!(lease.state.cause(), Some(Cause::TaskLost));
    assert!(matches!(lease.state, State::Revoking { .. }), "{:?}", lease.state);
    for goes_on in [quiet, unwatched] {
        assert_eq!(state(suite, goes_on.id).await, TaskState::Open);
    }
    assert_eq!(refused(beat(suite, task.id).await), Refusal::TaskClosed);
    let again = expire(suite, listening(suite, TTL * 9).await).await;
    assert!(again.iter().all(|one| one.task.id != task.id), "it ends once");
}

async fn no_silence_is_believed_that_nobody_heard(suite: &Suite) {
    let task = suite.open_with_heartbeat(TTL, SHORT).await;
    let_it_fall_silent().await;
    let just_less = SHORT.saturating_sub(Duration::from_micros(1));
    let jumped = Heard { length: TTL, until: suite.now().await.minus(Duration::from_secs(1)) };
    for heard in [None, listening(suite, just_less).await, Some(jumped)] {
        expire(suite, heard).await;
        assert_eq!(state(suite, task.id).await, TaskState::Open, "{heard:?}");
    }
    suite.store.write(Write::Suspend { reason: "restored".into() }).await.unwrap();
    expire(suite, listening(suite, TTL).await).await;
    assert_eq!(state(suite, task.id).await, TaskState::Open, "its beats may have been lost");
    beat(suite, task.id).await.expect("a suspended store hears");
    let resume = Write::Resume { actor: "x".into(), turns: Vec::new() };
    suite.store.write(resume).await.unwrap();
    let_it_fall_silent().await;
    expire(suite, listening(suite, SHORT).await).await;
    let ended = state(suite, task.id).await;
    assert!(matches!(ended, TaskState::Closed { end: TaskEnd::Lost, .. }), "{ended:?}");
}

async fn what_a_replica_turned_away_is_no_silence_to_any(suite: &Suite) {
    let every = Duration::from_secs(1);
    let task = suite.open_with_heartbeat(TTL, every).await;
    tokio::time::sleep(every * 3 / 2).await;
    suite.store.write(Write::TurnedAway).await.expect("whoever turned it away tells");
    expire(suite, listening(suite, TTL).await).await;
    assert_eq!(state(suite, task.id).await, TaskState::Open, "it may have been its beat");
    tokio::time::sleep(every * 11 / 10).await;
    expire(suite, listening(suite, TTL).await).await;
    let ended = state(suite, task.id).await;
    assert!(matches!(ended, TaskState::Closed { end: TaskEnd::Lost, .. }), "{ended:?}");
}

async fn what_is_heard_goes_on(suite: &Suite) {
    let every = Duration::from_secs(2);
    let opened = suite.open_with_heartbeat(TTL, every).await;
    let soon = beat(suite, opened.id).await.unwrap();
    if soon != opened {
        let late = suite.now().await.since(opened.opened_at);
        assert!(late >= every / 4, "after {late:?} it need not be written");
    }
    tokio::time::sleep(every * 4 / 5).await;
    let heard = beat(suite, opened.id).await.unwrap();
    assert!(lost_at(&heard) >= lost_at(&opened).plus(every / 2));
    assert_eq!(Task { heartbeat: opened.heartbeat, ..heard.clone() }, opened, "nothing else");
    assert_eq!(suite.store.task(opened.id).await.unwrap(), Some(heard));
    tokio::time::sleep(every * 3 / 5).await;
    expire(suite, listening(suite, TTL).await).await;
    assert_eq!(state(suite, opened.id).await, TaskState::Open, "without the beat it were lost");
}

async fn a_late_beat_is_as_good_as_one_in_time(suite: &Suite) {
    let task = suite.open_with_heartbeat(TTL, SHORT).await;
    let intent = suite.intent(task.id, &suite.backend()).await;
    let_it_fall_silent().await;
    suite.intend(intent).await.expect("whoever asks is there");
    let heard = beat(suite, task.id).await.unwrap();
    assert!(lost_at(&heard) > lost_at(&task));
}

async fn the_deadline_stays(suite: &Suite) {
    let task = suite.open_with_heartbeat(SHORT, TTL).await;
    let_it_fall_silent().await;
    assert_eq!(refused(beat(suite, task.id).await), Refusal::TaskClosed);
    expire(suite, None).await;
    let ended = state(suite, task.id).await;
    assert!(matches!(ended, TaskState::Closed { end: TaskEnd::Expired, .. }), "{ended:?}");
}

async fn only_a_task_with_a_heartbeat_is_heard(suite: &Suite) {
    let task = suite.open(TTL).await;
    assert_eq!(refused(beat(suite, task.id).await), Refusal::NoHeartbeat);
    let unknown = TaskId::new(suite.now().await, suite.entropy.as_ref());
    assert_eq!(refused(beat(suite, unknown).await), Refusal::TaskUnknown);
}
