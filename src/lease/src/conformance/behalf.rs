//! The cases of tasks on somebody's behalf: the person stays with the task and with its leases,
//! both tokens are used up or neither, and who may not ask has nothing asked for them.
//!
//! Some of them end whatever is left to be ended, so they run alone.

use dayfly_backend_sdk::Timestamp;

use super::{Suite, TTL, refused};
use crate::{
    Cause, Disabling, FirstKey, NewTask, Person, Refusal, Replay, StoreError, Task, TaskEnd,
    TaskState, TokenUse, Write, Written,
};

pub(super) async fn run(suite: &Suite) {
    the_person_stays_with_the_task_and_its_leases(suite).await;
    of_two_tokens_both_are_used_up_or_neither(suite).await;
    one_token_is_not_two(suite).await;
    a_key_that_does_not_fit_uses_up_nothing(suite).await;
    a_token_that_was_used_binds_no_key(suite).await;
}

pub(super) async fn run_alone(suite: &Suite) {
    a_disabled_person_loses_what_was_asked_for_them(suite).await;
}

const KEY: [u8; 32] = [1; 32];
const OTHER: [u8; 32] = [2; 32];

fn person(suite: &Suite, name: Option<&str>) -> Person {
    let principal = format!("people|{}", suite.backend());
    Person { principal, name: name.map(str::to_owned) }
}

async fn new_task(suite: &Suite, on_behalf_of: Person) -> NewTask {
    NewTask { on_behalf_of: Some(on_behalf_of), ..suite.new_task("ci|repo", TTL).await }
}

/// A token that no other case knows, used once.
async fn once(suite: &Suite, issuer: &str) -> TokenUse {
    let key = format!("{issuer}|{:?}", suite.random());
    TokenUse::Once(Replay { key, expires_at: suite.now().await.plus(TTL) })
}

async fn bound(suite: &Suite, token: &str, key: Option<[u8; 32]>) -> TokenUse {
    let expires_at = suite.now().await.plus(TTL);
    TokenUse::ByFirstKey(FirstKey { token: token.to_owned(), key, expires_at })
}

async fn open(suite: &Suite, used: &[&TokenUse]) -> Result<Task, StoreError> {
    let task = new_task(suite, person(suite, None)).await;
    suite.try_open_by(task, used.iter().map(|used| (*used).clone()).collect()).await
}

async fn the_person_stays_with_the_task_and_its_leases(suite: &Suite) {
    for name in [None, Some("Ada Lovelace")] {
        let person = Some(person(suite, name));
        let task = NewTask { on_behalf_of: person.clone(), ..suite.new_task("ci|repo", TTL).await };
        let task = suite.try_open_new(task, None).await.unwrap();
        assert_eq!((&task.principal, &task.on_behalf_of), (&"ci|repo".to_owned(), &person));
        let by_token = suite.store.task_by_token(task.token_hash).await.unwrap();
        assert_eq!(by_token, Some(task.clone()));
        let lease = suite.active(task.id, &suite.backend()).await;
        let lease = suite.store.lease(lease.id).await.unwrap().unwrap();
        assert_eq!((&lease.principal, &lease.on_behalf_of), (&task.principal, &person));
        let close = Write::CloseTask { task: task.id, end: TaskEnd::Completed, actor: "x".into() };
        suite.store.write(close).await.unwrap();
        let closed = suite.store.task(task.id).await.unwrap().unwrap();
        assert_eq!(closed.on_behalf_of, person, "its end changes nothing of it");
        let lease = suite.store.lease(lease.id).await.unwrap().unwrap();
        assert_eq!(lease.on_behalf_of, person);
    }
    let task = suite.open(TTL).await;
    assert_eq!(task.on_behalf_of, None);
    assert_eq!(suite.active(task.id, &suite.backend()).await.on_behalf_of, None);
}

async fn of_two_tokens_both_are_used_up_or_neither(suite: &Suite) {
    let (job, ada) = (once(suite, "ci").await, once(suite, "people").await);
    open(suite, &[&job, &ada]).await.unwrap();
    let (next, bob) = (once(suite, "ci").await, once(suite, "people").await);
    let by_key = bound(suite, &format!("first-key:ci|{:?}", suite.random()), Some(KEY)).await;
    for (used, nth) in [
        (&[&job, &bob][..], 0),
        (&[&next, &ada][..], 1),
        (&[&job, &ada][..], 0),
        (&[&by_key, &ada][..], 1),
        (&[&next, &by_key, &ada][..], 2),
    ] {
        assert_eq!(refused(open(suite, used).await), Refusal::Replayed { nth });
    }
    open(suite, &[&next, &bob]).await.expect("what was refused used up nothing");
}

async fn one_token_is_not_two(suite: &Suite) {
    let token = once(suite, "ci").await;
    assert_eq!(refused(open(suite, &[&token, &token]).await), Refusal::Replayed { nth: 1 });
    open(suite, &[&token]).await.expect("what was refused used up nothing");
}

async fn a_key_that_does_not_fit_uses_up_nothing(suite: &Suite) {
    let name = format!("first-key:ci|{:?}", suite.random());
    let mine = bound(suite, &name, Some(KEY)).await;
    let stolen = bound(suite, &name, Some(OTHER)).await;
    open(suite, &[&mine]).await.unwrap();
    let ada = once(suite, "people").await;
    assert_eq!(refused(open(suite, &[&stolen, &ada]).await), Refusal::AnotherKey { nth: 0 });
    open(suite, &[&mine, &ada]).await.expect("the person's token was not used up");
    // Nor does what fits bind anything, if another one does not.
    let fresh = format!("first-key:people|{:?}", suite.random());
    let unbound = bound(suite, &fresh, Some(OTHER)).await;
    let refusal = refused(open(suite, &[&unbound, &stolen]).await);
    assert_eq!(refusal, Refusal::AnotherKey { nth: 1 });
    let first = bound(suite, &fresh, Some(KEY)).await;
    open(suite, &[&mine, &first]).await.expect("nobody has bound it");
}

async fn a_token_that_was_used_binds_no_key(suite: &Suite) {
    let name = format!("first-key:ci|{:?}", suite.random());
    let ada = once(suite, "people").await;
    open(suite, &[&ada]).await.unwrap();
    let stolen = bound(suite, &name, Some(OTHER)).await;
    assert_eq!(refused(open(suite, &[&stolen, &ada]).await), Refusal::Replayed { nth: 1 });
    open(suite, &[&bound(suite, &name, Some(KEY)).await]).await.expect("nobody has bound it");
}

async fn a_disabled_person_loses_what_was_asked_for_them(suite: &Suite) {
    let (ada, bob, backend) = (person(suite, None), person(suite, None), suite.backend());
    let asked = suite.try_open_new(new_task(suite, ada.clone()).await, None).await.unwrap();
    let lease = suite.active(asked.id, &backend).await;
    let own = suite.open_as(&ada.principal, TTL).await;
    let others = suite.try_open_new(new_task(suite, bob).await, None).await.unwrap();
    let now = suite.now().await;
    let disabling = Disabling {
        principal: ada.principal.clone(),
        cut_off: Some(now),
        actor: "people|root".into(),
        reason: None,
        keep: TTL,
        delivery: None,
    };
    suite.store.write(Write::Disable(Box::new(disabling))).await.unwrap();
    let write = Write::EndDisabled { principal: Some(ada.principal.clone()), limit: 10 };
    let Written::Closed(closed) = suite.store.write(write).await.unwrap() else {
        panic!("not closed");
    };
    let mut ended: Vec<_> = closed.iter().map(|one| one.task.id).collect();
    ended.sort();
    let mut expected = [asked.id, own.id];
    expected.sort();
    assert_eq!(ended, expected);
    let lease = suite.store.lease(lease.id).await.unwrap().unwrap();
    assert_eq!(lease.state.cause(), Some(Cause::IdentityDisabled));
    let others = suite.store.task(others.id).await.unwrap().unwrap();
    assert_eq!(others.state, TaskState::Open, "who asked for another is left alone");

    for issued_at in [None, Some(now)] {
        let opened = open_for(suite, &ada, issued_at).await;
        assert_eq!(refused(opened), Refusal::PersonDisabled, "{issued_at:?}");
    }
    let later = Some(now.plus(TTL));
    open_for(suite, &ada, later).await.expect("they have signed in anew");
}

async fn open_for(
    suite: &Suite,
    person: &Person,
    person_issued_at: Option<Timestamp>,
) -> Result<Task, StoreError> {
    let task = NewTask { person_issued_at, ..new_task(suite, person.clone()).await };
    suite.try_open_new(task, None).await
}
