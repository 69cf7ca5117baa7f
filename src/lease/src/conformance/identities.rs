//! The cases of identities that were disabled, and of rights that policy took back.
//!
//! Some of them end whatever is left to be ended, so they run alone.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use dayfly_backend_sdk::Timestamp;

use super::{Suite, TTL, refused};
use crate::{
    Cause, Closed, Disabling, Intent, NewTask, Person, Refusal, StoreError, Task, TaskEnd,
    TaskState, Withdrawal, Write, Written, audit::Entry,
};

const SECOND: Duration = Duration::from_secs(1);

pub(super) async fn run(suite: &Suite) {
    a_disabled_identity_opens_nothing_and_its_tasks_end(suite).await;
    a_token_from_after_the_cut_off_opens_tasks(suite).await;
    what_was_disabled_for_good_stays_so_until_it_is_enabled(suite).await;
    a_cut_off_is_forgotten_in_the_end(suite).await;
    a_delivery_that_comes_again_disables_nothing(suite).await;
    many_tasks_end_in_portions_whoever_ends_them(suite).await;
    the_longest_identity_is_kept_and_disabled(suite).await;
    a_right_that_is_taken_back_ends_a_task_or_a_lease_once(suite).await;
}

fn principal(suite: &Suite) -> String {
    format!("ci|{}", suite.backend())
}

fn disabling(principal: &str, cut_off: Option<Timestamp>) -> Disabling {
    Disabling {
        principal: principal.to_owned(),
        cut_off,
        actor: "people|root".into(),
        reason: Some("it leaked".into()),
        keep: TTL,
        delivery: None,
    }
}

async fn disable(suite: &Suite, disabling: Disabling) -> u64 {
    match suite.store.write(Write::Disable(Box::new(disabling))).await.expect("it is disabled") {
        Written::Count(count) => count,
        other => panic!("answered {other:?}"),
    }
}

async fn enable(suite: &Suite, principal: &str) -> u64 {
    let (principal, actor) = (principal.to_owned(), "people|root".to_owned());
    let write = Write::Enable { principal, actor, reason: None };
    match suite.store.write(write).await.expect("it is enabled") {
        Written::Count(count) => count,
        other => panic!("answered {other:?}"),
    }
}

async fn end(suite: &Suite, principal: Option<&str>, limit: u32) -> Vec<Closed> {
    closed(suite, Write::EndDisabled { principal: principal.map(str::to_owned), limit }).await
}

async fn closed(suite: &Suite, write: Write) -> Vec<Closed> {
    match suite.store.write(write).await.expect("it is written") {
        Written::Closed(closed) => closed,
        other => panic!("answered {other:?}"),
    }
}

async fn try_open(
    suite: &Suite,
    principal: &str,
    issued_at: Option<Timestamp>,
) -> Result<Task, StoreError> {
    let task = NewTask { issued_at, ..suite.new_task(principal, TTL).await };
    suite.try_open_new(task, None).await
}

async fn is_open(suite: &Suite, task: &Task) -> bool {
    suite.store.task(task.id).await.unwrap().unwrap().state == TaskState::Open
}

async fn a_disabled_identity_opens_nothing_and_its_tasks_end(suite: &Suite) {
    let (mine, other, backend) = (principal(suite), principal(suite), suite.backend());
    let task = suite.open_as(&mine, TTL).await;
    let neighbour = suite.open_as(&other, TTL).await;
    let lease = suite.active(task.id, &backend).await;
    assert_eq!(disable(suite, disabling(&mine, None)).await, 1);
    let issued_at = Some(suite.now().await.plus(TTL));
    assert_eq!(refused(try_open(suite, &mine, issued_at).await), Refusal::IdentityDisabled);
    let ended = end(suite, Some(&mine), 10).await;
    let [one] = ended.as_slice() else { panic!("not one task: {ended:?}") };
    assert_eq!((one.task.id, one.backends.as_slice()), (task.id, [backend].as_slice()));
    assert!(matches!(one.task.state, TaskState::Closed { end: TaskEnd::Revoked, .. }));
    let lease = suite.store.lease(lease.id).await.unwrap().unwrap();
    assert_eq!(lease.state.cause(), Some(Cause::IdentityDisabled));
    let intent = suite.intent(task.id, &suite.backend()).await;
    assert_eq!(refused(suite.intend(intent).await), Refusal::TaskClosed);
    assert!(is_open(suite, &neighbour).await);
    try_open(suite, &other, issued_at).await.expect("the others go on");
    assert!(end(suite, Some(&mine), 10).await.is_empty(), "it ends once");
}

async fn a_token_from_after_the_cut_off_opens_tasks(suite: &Suite) {
    let (mine, now) = (principal(suite), suite.now().await);
    disable(suite, disabling(&mine, Some(now))).await;
    for issued_at in [None, Some(now.minus(SECOND)), Some(now)] {
        assert_eq!(refused(try_open(suite, &mine, issued_at).await), Refusal::IdentityDisabled);
    }
    end(suite, Some(&mine), 10).await;
    let task = try_open(suite, &mine, Some(now.plus(SECOND))).await.expect("it signed in anew");
    assert!(end(suite, Some(&mine), 10).await.is_empty());
    assert!(is_open(suite, &task).await, "whoever signed in since is left alone");
    disable(suite, disabling(&mine, Some(now.minus(TTL)))).await;
    let issued_at = Some(now.minus(SECOND));
    assert_eq!(refused(try_open(suite, &mine, issued_at).await), Refusal::IdentityDisabled);
    end(suite, Some(&mine), 10).await;
}

async fn what_was_disabled_for_good_stays_so_until_it_is_enabled(suite: &Suite) {
    let (mine, now) = (principal(suite), suite.now().await);
    let issued_at = Some(now.plus(SECOND));
    disable(suite, disabling(&mine, None)).await;
    disable(suite, disabling(&mine, Some(now))).await;
    assert_eq!(refused(try_open(suite, &mine, issued_at).await), Refusal::IdentityDisabled);
    assert_eq!((enable(suite, &mine).await, enable(suite, &mine).await), (1, 0));
    try_open(suite, &mine, issued_at).await.expect("it is enabled");
    try_open(suite, &mine, None).await.expect("also with what it had before");
}

async fn a_cut_off_is_forgotten_in_the_end(suite: &Suite) {
    let (mine, now) = (principal(suite), suite.now().await);
    let keep = Duration::from_millis(40);
    disable(suite, Disabling { keep, ..disabling(&mine, Some(now)) }).await;
    tokio::time::sleep(keep * 2).await;
    try_open(suite, &mine, Some(now)).await.expect("no token is as old any more");
}

async fn a_delivery_that_comes_again_disables_nothing(suite: &Suite) {
    let (mine, now) = (principal(suite), suite.now().await);
    let delivery = Some(format!("|ssf|{mine}"));
    let told = Disabling { delivery, ..disabling(&mine, Some(now)) };
    assert_eq!(disable(suite, told.clone()).await, 1);
    end(suite, Some(&mine), 10).await;
    enable(suite, &mine).await;
    assert_eq!(disable(suite, told).await, 0);
    try_open(suite, &mine, Some(now)).await.expect("it was told before, and is enabled since");
}

async fn many_tasks_end_in_portions_whoever_ends_them(suite: &Suite) {
    let mine = principal(suite);
    for _ in 0..3 {
        suite.open_as(&mine, TTL).await;
    }
    disable(suite, disabling(&mine, None)).await;
    assert_eq!(end(suite, Some(&mine), 2).await.len(), 2);
    // As after a crash: somebody else goes on, who knows no name.
    assert_eq!(end(suite, None, 2).await.len(), 1);
    assert!(end(suite, None, 2).await.is_empty());
    assert!(end(suite, Some(&mine), 2).await.is_empty());
}

/// A trust domain and a SPIFFE ID as long as they may be, of letters that no database compresses,
/// beside the longest names of a role and a backend: they fit into every index.
async fn the_longest_identity_is_kept_and_disabled(suite: &Suite) {
    let longest = || format!("{}|{}", letters(suite, 255), letters(suite, 2_048));
    let (mine, person) = (longest(), longest());
    let on_behalf_of = Some(Person { principal: person.clone(), name: None });
    let new = NewTask { on_behalf_of, ..suite.new_task(&mine, TTL).await };
    let task = suite.try_open_new(new, None).await.expect("a task opens");
    let intent = suite.intent(task.id, &letters(suite, 63)).await;
    let lease = suite.intend(Intent { role: letters(suite, 63), ..intent }).await.unwrap();
    assert_eq!((&task.principal, &lease.principal), (&mine, &mine));
    for identity in [&person, &mine] {
        assert_eq!(disable(suite, disabling(identity, None)).await, 1);
    }
    assert_eq!(refused(try_open(suite, &mine, None).await), Refusal::IdentityDisabled);
    let ended = end(suite, Some(&person), 10).await;
    let [one] = ended.as_slice() else { panic!("not one task: {ended:?}") };
    assert_eq!(one.task.id, task.id);
    assert!(end(suite, Some(&mine), 10).await.is_empty());
    assert_eq!((enable(suite, &mine).await, enable(suite, &person).await), (1, 1));
}

fn letters(suite: &Suite, count: usize) -> String {
    let mut text = String::new();
    while text.len() < count {
        text.push_str(&BASE64URL_NOPAD.encode(&suite.random()));
    }
    text.truncate(count);
    text
}

async fn a_right_that_is_taken_back_ends_a_task_or_a_lease_once(suite: &Suite) {
    let (task, backend) = (suite.open(TTL).await, suite.backend());
    let lease = suite.active(task.id, &backend).await;
    let sibling = suite.active(task.id, &backend).await;
    let denial = Entry::new("decision.denied", "ci|repo");
    let actor = String::from("policy");
    let withdrawal = Withdrawal { task: task.id, lease: Some(lease.id), actor, denial };
    let withdraw = |withdrawal: Withdrawal| Write::Withdraw(Box::new(withdrawal));
    let dying = suite.lease(withdraw(withdrawal.clone())).await.unwrap();
    assert_eq!(dying.state.cause(), Some(Cause::PolicyChanged));
    let again = suite.store.write(withdraw(withdrawal.clone())).await.unwrap();
    assert!(matches!(again, Written::Done), "{again:?}");
    assert!(is_open(suite, &task).await);
    let whole = Withdrawal { lease: None, ..withdrawal };
    let ended = closed(suite, withdraw(whole.clone())).await;
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert!(!is_open(suite, &task).await);
    let sibling = suite.store.lease(sibling.id).await.unwrap().unwrap();
    assert_eq!(sibling.state.cause(), Some(Cause::PolicyChanged));
    assert!(closed(suite, withdraw(whole)).await.is_empty());
}
