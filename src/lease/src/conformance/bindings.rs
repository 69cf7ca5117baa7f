//! The cases of possession: what a task is bound to stays with it, a token that is bound to a key
//! opens tasks with that one alone, and a proof is accepted once.

use std::sync::Arc;

use super::{Suite, TTL, refused};
use crate::{
    Binding, FirstKey, NewTask, Refusal, Replay, StoreError, Task, TokenUse, Write, spawn,
};

pub(super) async fn run(suite: &Suite) {
    a_binding_stays_with_its_task(suite).await;
    a_token_is_bound_to_the_first_key_that_is_proven(suite).await;
    a_token_that_nobody_bound_opens_what_it_likes(suite).await;
    of_two_keys_at_once_one_is_the_first(suite).await;
    a_proof_is_accepted_once(suite).await;
}

const KEY: [u8; 32] = [1; 32];
const OTHER: [u8; 32] = [2; 32];

/// A token that no other case knows.
fn token(suite: &Suite) -> String {
    format!("first-key:ci|{:?}", suite.random())
}

async fn open(suite: &Suite, token: &str, key: Option<[u8; 32]>) -> Result<Task, StoreError> {
    let task = suite.new_task("ci|repo", TTL).await;
    let expires_at = suite.now().await.plus(TTL);
    let first = FirstKey { token: token.to_owned(), key, expires_at };
    suite.try_open_by(task, vec![TokenUse::ByFirstKey(first)]).await
}

async fn a_binding_stays_with_its_task(suite: &Suite) {
    for binding in [None, Some(Binding::Key(KEY)), Some(Binding::Certificate(OTHER))] {
        let task = NewTask { binding, ..suite.new_task("ci|repo", TTL).await };
        let task = suite.try_open_new(task, None).await.unwrap();
        assert_eq!(task.binding, binding);
        let by_token = suite.store.task_by_token(task.token_hash).await.unwrap();
        assert_eq!(by_token, Some(task.clone()));
        let close =
            Write::CloseTask { task: task.id, end: crate::TaskEnd::Completed, actor: "x".into() };
        suite.store.write(close).await.unwrap();
        let closed = suite.store.task(task.id).await.unwrap().unwrap();
        assert_eq!(closed.binding, binding, "its end changes nothing of it");
    }
}

async fn a_token_is_bound_to_the_first_key_that_is_proven(suite: &Suite) {
    let (mine, another) = (token(suite), token(suite));
    open(suite, &mine, Some(KEY)).await.unwrap();
    open(suite, &mine, Some(KEY)).await.expect("the same key may again");
    for key in [Some(OTHER), None] {
        assert_eq!(refused(open(suite, &mine, key).await), Refusal::AnotherKey { nth: 0 });
    }
    open(suite, &mine, Some(KEY)).await.expect("what was refused changed nothing");
    open(suite, &another, Some(OTHER)).await.expect("another token has a key of its own");
}

async fn a_token_that_nobody_bound_opens_what_it_likes(suite: &Suite) {
    let mine = token(suite);
    open(suite, &mine, None).await.unwrap();
    open(suite, &mine, None).await.unwrap();
    open(suite, &mine, Some(KEY)).await.expect("the first key that is proven");
    assert_eq!(refused(open(suite, &mine, None).await), Refusal::AnotherKey { nth: 0 });
}

async fn of_two_keys_at_once_one_is_the_first(suite: &Suite) {
    for _ in 0..8 {
        let mine = token(suite);
        let opening = [KEY, OTHER].map(|key| {
            let (store, entropy) = (Arc::clone(&suite.store), Arc::clone(&suite.entropy));
            let mine = mine.clone();
            spawn(async move { open(&Suite { store, entropy }, &mine, Some(key)).await })
        });
        let mut opened = 0;
        for task in opening {
            match task.await.unwrap() {
                Ok(_) => opened += 1,
                refusal => assert_eq!(refused(refusal), Refusal::AnotherKey { nth: 0 }),
            }
        }
        assert_eq!(opened, 1);
    }
}

async fn a_proof_is_accepted_once(suite: &Suite) {
    let expires_at = suite.now().await.plus(TTL);
    let proof = Replay { key: format!("dpop:{:?}", suite.random()), expires_at };
    let other = Replay { key: format!("dpop:{:?}", suite.random()), expires_at };
    suite.store.write(Write::Remember(proof.clone())).await.unwrap();
    assert_eq!(
        refused(suite.store.write(Write::Remember(proof)).await),
        Refusal::Replayed { nth: 0 }
    );
    suite.store.write(Write::Remember(other)).await.unwrap();
}
