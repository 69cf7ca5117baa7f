//! The cases of jobs: their end is the end of their tasks, also of those that come too late.
//!
//! One of them has the store forget what others would still need, so they run alone.

use std::time::Duration;

use super::{Suite, TTL, refused};
use crate::{
    Cause, Closed, JobEnd, JobKey, JobKeys, NewTask, Refusal, StoreError, Task, TaskEnd, TaskId,
    TaskState, Write, Written,
};

pub(super) async fn run(suite: &Suite) {
    a_job_ends_its_tasks_with_their_leases(suite).await;
    a_run_ends_the_tasks_of_all_its_jobs(suite).await;
    no_task_is_opened_in_a_job_that_ended(suite).await;
    an_end_that_is_told_again_changes_nothing(suite).await;
    many_tasks_end_in_portions(suite).await;
    what_is_remembered_has_bounds(suite).await;
    nobody_has_anothers_ends_forgotten(suite).await;
    an_end_that_is_told_anew_is_the_youngest(suite).await;
}

fn key(suite: &Suite) -> JobKey {
    JobKey::parse(format!("ci|{}", suite.backend())).expect("a key")
}

fn job(key: &JobKey) -> JobKeys {
    JobKeys { run: None, job: Some(key.clone()) }
}

async fn try_open(suite: &Suite, keys: JobKeys) -> Result<Task, StoreError> {
    let task = NewTask { keys, ..suite.new_task("ci|repo", TTL).await };
    suite.try_open_new(task, None).await
}

async fn open(suite: &Suite, keys: JobKeys) -> Task {
    try_open(suite, keys).await.expect("a task opens")
}

fn ended(key: &JobKey) -> JobEnd {
    JobEnd {
        key: key.clone(),
        end: TaskEnd::Failed,
        // Nobody else's, so that what a case forgets is its own.
        actor: format!("webhook|{}", key.as_str()),
        keep: TTL,
        remembered_max: 1_000,
        limit: 10,
    }
}

/// What came of one portion.
struct Portion {
    closed: Vec<Closed>,
    after: Option<TaskId>,
    known: bool,
    forgotten: u64,
}

async fn close_after(suite: &Suite, ended: JobEnd, after: Option<TaskId>) -> Portion {
    let write = Write::CloseJob { ended: Box::new(ended), after };
    match suite.store.write(write).await.expect("a job ends") {
        Written::JobClosed { closed, after, known, forgotten } => {
            Portion { closed, after, known, forgotten }
        }
        other => panic!("answered {other:?}"),
    }
}

async fn close(suite: &Suite, ended: JobEnd) -> Portion {
    close_after(suite, ended, None).await
}

async fn is_open(suite: &Suite, task: &Task) -> bool {
    suite.store.task(task.id).await.unwrap().unwrap().state == TaskState::Open
}

async fn a_job_ends_its_tasks_with_their_leases(suite: &Suite) {
    let (mine, other) = (key(suite), key(suite));
    let backend = suite.backend();
    let task = open(suite, job(&mine)).await;
    assert_eq!(suite.store.task(task.id).await.unwrap().as_ref(), Some(&task));
    assert_eq!(task.keys, job(&mine));
    let lease = suite.active(task.id, &backend).await;
    let neighbour = open(suite, job(&other)).await;
    let without = suite.open(TTL).await;
    let Portion { closed, after, known, .. } = close(suite, ended(&mine)).await;
    assert_eq!((after, known), (None, false));
    let [one] = closed.as_slice() else { panic!("not one task: {closed:?}") };
    assert_eq!((one.task.id, one.backends.as_slice()), (task.id, [backend].as_slice()));
    assert!(matches!(one.task.state, TaskState::Closed { end: TaskEnd::Failed, .. }));
    assert_eq!(suite.store.task(task.id).await.unwrap().as_ref(), Some(&one.task));
    let lease = suite.store.lease(lease.id).await.unwrap().unwrap();
    assert_eq!(lease.state.cause(), Some(Cause::TaskFailed));
    let intent = suite.intent(task.id, &suite.backend()).await;
    assert_eq!(refused(suite.intend(intent).await), Refusal::TaskClosed);
    assert!(is_open(suite, &neighbour).await && is_open(suite, &without).await);
    let again = close(suite, ended(&mine)).await.closed;
    assert!(again.is_empty(), "it ends once: {again:?}");
}

async fn a_run_ends_the_tasks_of_all_its_jobs(suite: &Suite) {
    let (run, first, second) = (key(suite), key(suite), key(suite));
    let of = |job: Option<&JobKey>| JobKeys { run: Some(run.clone()), job: job.cloned() };
    let tasks = [
        open(suite, of(Some(&first))).await,
        open(suite, of(Some(&second))).await,
        open(suite, of(None)).await,
    ];
    let closed = close(suite, ended(&first)).await.closed;
    assert_eq!(closed.len(), 1, "the other jobs of the run go on: {closed:?}");
    let closed = close(suite, ended(&run)).await.closed;
    assert_eq!(closed.len(), 2, "{closed:?}");
    for task in &tasks {
        assert!(!is_open(suite, task).await);
    }
    let late = of(Some(&key(suite)));
    assert_eq!(refused(try_open(suite, late).await), Refusal::JobEnded);
}

async fn no_task_is_opened_in_a_job_that_ended(suite: &Suite) {
    let (early, again) = (key(suite), key(suite));
    let closed = close(suite, ended(&early)).await.closed;
    assert!(closed.is_empty(), "nobody knows it yet: {closed:?}");
    assert_eq!(refused(try_open(suite, job(&early)).await), Refusal::JobEnded);
    open(suite, job(&again)).await;
    let short = Duration::from_millis(40);
    close(suite, JobEnd { keep: short, ..ended(&again) }).await;
    tokio::time::sleep(short * 2).await;
    open(suite, job(&again)).await;
}

async fn an_end_that_is_told_again_changes_nothing(suite: &Suite) {
    let mine = key(suite);
    open(suite, job(&mine)).await;
    let first = close(suite, ended(&mine)).await;
    assert_eq!((first.closed.len(), first.known), (1, false));
    let again = close(suite, JobEnd { end: TaskEnd::Completed, ..ended(&mine) }).await;
    assert_eq!((again.closed.len(), again.known), (0, true));
}

async fn many_tasks_end_in_portions(suite: &Suite) {
    let mine = key(suite);
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.push(open(suite, job(&mine)).await.id);
    }
    tasks.sort();
    let told = JobEnd { limit: 2, ..ended(&mine) };
    let first = close(suite, told.clone()).await;
    let ids = |portion: &Portion| -> Vec<TaskId> {
        portion.closed.iter().map(|one| one.task.id).collect()
    };
    assert_eq!((ids(&first).as_slice(), first.after), (&tasks[..2], Some(tasks[1])));
    let rest = close_after(suite, told.clone(), first.after).await;
    assert_eq!((ids(&rest).as_slice(), rest.after), (&tasks[2..], None));
    let none = close(suite, told).await;
    assert_eq!((none.closed.len(), none.after), (0, None));
}

async fn what_is_remembered_has_bounds(suite: &Suite) {
    let keys = [key(suite), key(suite), key(suite)];
    let actor = ended(&keys[0]).actor;
    let mut forgotten = Vec::new();
    for key in &keys {
        let told = JobEnd { remembered_max: 2, actor: actor.clone(), ..ended(key) };
        forgotten.push(close(suite, told).await.forgotten);
    }
    assert_eq!(forgotten, [0, 0, 1]);
    let [oldest, middle, newest] = &keys;
    open(suite, job(oldest)).await;
    for key in [middle, newest] {
        assert_eq!(refused(try_open(suite, job(key)).await), Refusal::JobEnded);
    }
}

async fn nobody_has_anothers_ends_forgotten(suite: &Suite) {
    let (mine, theirs) = (key(suite), [key(suite), key(suite)]);
    close(suite, JobEnd { remembered_max: 1, ..ended(&mine) }).await;
    let actor = ended(&theirs[0]).actor;
    for key in &theirs {
        let told = JobEnd { remembered_max: 1, actor: actor.clone(), ..ended(key) };
        close(suite, told).await;
    }
    assert_eq!(refused(try_open(suite, job(&mine)).await), Refusal::JobEnded);
    open(suite, job(&theirs[0])).await;
}

/// An end that was too old to count is told anew: then the others of its teller are older.
async fn an_end_that_is_told_anew_is_the_youngest(suite: &Suite) {
    let [mine, second, third] = [key(suite), key(suite), key(suite)];
    let actor = ended(&mine).actor;
    let told = |key: &JobKey| JobEnd { remembered_max: 2, actor: actor.clone(), ..ended(key) };
    let short = Duration::from_millis(40);
    close(suite, JobEnd { keep: short, ..told(&mine) }).await;
    close(suite, told(&second)).await;
    tokio::time::sleep(short * 2).await;
    assert!(!close(suite, told(&mine)).await.known, "it is too old");
    close(suite, told(&third)).await;
    for key in [&mine, &third] {
        assert_eq!(refused(try_open(suite, job(key)).await), Refusal::JobEnded);
    }
    open(suite, job(&second)).await;
}
