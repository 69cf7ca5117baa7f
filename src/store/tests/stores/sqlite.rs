//! Embedded SQLite.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{Cause, State, Store, TaskEnd, TaskId, Write, audit::Entry};
use dayfly_store::{AnyStore, SqliteOptions, SqliteStore, verify};

use super::{SetClock, clock, conforms, incarnation};

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions { path: directory.path().join("dayfly.db") };
    let store = SqliteStore::open(&options, incarnation(), clock()).await.unwrap();
    conforms(AnyStore::Sqlite(store)).await;
}

#[tokio::test]
async fn time_never_runs_backwards_even_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions { path: directory.path().join("dayfly.db") };
    let set = Arc::new(SetClock { wall: 2_000_000_000_000_000.into(), running: 0.into() });
    let store = SqliteStore::open(&options, incarnation(), set.clone()).await.unwrap();
    store.write(Write::Note(Entry::new("test.note", "test"))).await.unwrap();
    set.wall.store(1_000_000_000_000_000, Ordering::SeqCst);
    let seen = Timestamp::from_micros(2_000_000_000_000_000);
    assert_eq!(store.now().await.unwrap(), seen);
    // A clock that was set back does not stop time either.
    set.running.store(60, Ordering::SeqCst);
    assert_eq!(store.now().await.unwrap(), seen.plus(Duration::from_mins(1)));
    AnyStore::Sqlite(store).close().await;
    let again = SqliteStore::open(&options, incarnation(), set).await.unwrap();
    assert!(again.now().await.unwrap() >= seen);
}

#[tokio::test]
async fn a_second_process_on_the_same_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions { path: directory.path().join("dayfly.db") };
    let _store = SqliteStore::open(&options, incarnation(), clock()).await.unwrap();
    let error = SqliteStore::open(&options, incarnation(), clock()).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("in use by another process"), "{source}");
}

/// The one process of an embedded store died with revocations in hand: the next one does not
/// wait until their claims run out.
#[tokio::test]
async fn a_restart_takes_up_what_was_claimed() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions { path: directory.path().join("dayfly.db") };
    let store = SqliteStore::open(&options, incarnation(), clock()).await.unwrap();
    let (one, other) = super::two_condemned(store.as_ref(), "one").await;
    assert_eq!(super::claimed(store.as_ref(), "one").await, [one, other]);
    assert_eq!(super::claimed(store.as_ref(), "one").await, []);
    AnyStore::Sqlite(store).close().await;
    let again = SqliteStore::open(&options, incarnation(), clock()).await.unwrap();
    assert_eq!(super::claimed(again.as_ref(), "one").await, [one, other]);
}

#[tokio::test]
async fn an_edited_audit_row_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions { path: directory.path().join("dayfly.db") };
    let incarnation = incarnation();
    let signer = incarnation.signer.clone();
    let store = SqliteStore::open(&options, incarnation, clock()).await.unwrap();
    for _ in 0..3 {
        store.write(Write::Note(Entry::new("test.note", "alice"))).await.unwrap();
    }
    let any = AnyStore::Sqlite(Arc::clone(&store));
    assert!(verify(&any, signer.public_key(), &[]).await.unwrap().holds());
    let raw = rusqlite::Connection::open(&options.path).unwrap();
    raw.execute("UPDATE audit_records SET actor = 'mallory' WHERE seq = 3", []).unwrap();
    let report = verify(&any, signer.public_key(), &[]).await.unwrap();
    assert!(report.faults[0].to_string().ends_with("/3 was changed"), "{:?}", report.faults);
    raw.execute("DELETE FROM audit_records WHERE seq >= 3", []).unwrap();
    let report = verify(&any, signer.public_key(), &[]).await.unwrap();
    assert!(report.faults[0].to_string().contains("ends at record 2"), "{:?}", report.faults);
}

/// A row that cannot be read is put aside; the others are still claimed (I12). The damage may
/// be in what a column means, in its length, in its range or in its encoding.
#[tokio::test]
async fn one_bad_row_stops_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions { path: directory.path().join("dayfly.db") };
    let store = SqliteStore::open(&options, incarnation(), clock()).await.unwrap();
    let raw = rusqlite::Connection::open(&options.path).unwrap();
    let damages = [
        "belts = 'no_such_belt'",
        "decision_chain = x'010203'",
        "attempts = 5000000000",
        "role = CAST(x'c328' AS TEXT)",
    ];
    for (place, damage) in damages.into_iter().enumerate() {
        let backend = "one".repeat(place + 1);
        let (bad, good) = super::two_condemned(store.as_ref(), &backend).await;
        let sql = format!("UPDATE leases SET {damage} WHERE id = ?1");
        raw.execute(&sql, [bad.uuid().as_bytes()]).unwrap();
        assert_eq!(super::claimed(store.as_ref(), &backend).await, [good], "{damage}");
        let sql = "SELECT quarantined FROM leases WHERE id = ?1";
        let put_aside: Option<String> =
            raw.query_row(sql, [bad.uuid().as_bytes()], |row| row.get(0)).unwrap();
        assert!(put_aside.is_some(), "{damage}");
    }
}

/// What could not be read when its task was closed is told to die when the task is closed
/// again, and does not live on until its own end (I5).
#[tokio::test]
async fn a_mended_row_of_a_closed_task_dies_when_that_is_closed_again() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions { path: directory.path().join("dayfly.db") };
    let store = SqliteStore::open(&options, incarnation(), clock()).await.unwrap();
    let task = super::task(store.as_ref(), 9).await;
    let intent = super::intent(store.as_ref(), task, "one", None).await;
    let id = intent.id;
    store.write(Write::Intend(Box::new(intent))).await.unwrap();
    let raw = rusqlite::Connection::open(&options.path).unwrap();
    let set = |belts: &str| {
        let sql = "UPDATE leases SET belts = ?2, quarantined = NULL WHERE id = ?1";
        raw.execute(sql, rusqlite::params![id.uuid().as_bytes(), belts]).unwrap();
    };
    let close = |end| Write::CloseTask { task, end, actor: "x".into() };
    set("no_such_belt");
    store.write(close(TaskEnd::Completed)).await.unwrap();
    set("");
    assert_eq!(store.lease(id).await.unwrap().unwrap().state, State::Pending);
    store.write(close(TaskEnd::Failed)).await.unwrap();
    let lease = store.lease(id).await.unwrap().unwrap();
    assert_eq!(lease.state.cause(), Some(Cause::TaskCompleted), "the first end stands");
}

/// The damage is to the task's row, not to the place where its job stands.
#[tokio::test]
async fn one_bad_task_leaves_no_other_of_its_job_open() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions { path: directory.path().join("dayfly.db") };
    let store = SqliteStore::open(&options, incarnation(), clock()).await.unwrap();
    let raw = rusqlite::Connection::open(&options.path).unwrap();
    let damage = async |task: TaskId| {
        let sql = "UPDATE tasks SET run = 'not a key' WHERE id = ?1";
        raw.execute(sql, [task.uuid().as_bytes()]).unwrap();
    };
    super::a_job_ends_beside_a_bad_row(store, damage).await;
}

#[tokio::test]
async fn bad_tasks_leave_no_other_of_their_identity_open() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions { path: directory.path().join("dayfly.db") };
    let store = SqliteStore::open(&options, incarnation(), clock()).await.unwrap();
    let raw = rusqlite::Connection::open(&options.path).unwrap();
    let damage = async |task: TaskId| {
        let sql = "UPDATE tasks SET run = 'not a key' WHERE id = ?1";
        raw.execute(sql, [task.uuid().as_bytes()]).unwrap();
    };
    super::an_identity_ends_beside_bad_rows(store, damage).await;
}
