//! The cases, each named after what must hold.

use std::{sync::Arc, time::Duration};

use super::{Suite, TTL, refused};
use crate::{
    Cause, IdempotencyKey, Intent, Lease, Owed, Refusal, Replay, Sealed, State, TaskEnd, TaskState,
    Write, Written,
    quota::{self, Measure, Quota},
    spawn,
};

pub(super) async fn run(suite: &Suite) {
    a_token_opens_one_task(suite).await;
    an_intent_is_durable_and_bounded(suite).await;
    an_ended_task_mints_nothing(suite).await;
    an_activation_is_fenced(suite).await;
    what_was_kept_stays_until_death(suite).await;
    a_quota_is_never_exceeded(suite).await;
    a_superseded_lease_makes_room(suite).await;
    renewal_is_capped_and_can_be_taken_back(suite).await;
    the_first_cause_stands(suite).await;
    only_due_leases_are_claimed_and_by_one(suite).await;
    a_stale_claim_buries_nothing(suite).await;
    what_could_still_land_is_not_buried(suite).await;
    a_failure_is_counted_and_scheduled(suite).await;
    a_key_has_one_live_credential(suite).await;
    completing_condemns_everything_once(suite).await;
    a_deadline_ends_a_task(suite).await;
    no_mint_slips_past_a_completion(suite).await;
}

async fn a_token_opens_one_task(suite: &Suite) {
    let key = format!("ci|{:?}", suite.random());
    let replay = || Some(Replay { key: key.clone(), expires_at: crate_max() });
    let task = suite.try_open(TTL, replay()).await.unwrap();
    assert_eq!(suite.store.task_by_token(task.token_hash).await.unwrap(), Some(task.clone()));
    assert_eq!(suite.store.task(task.id).await.unwrap(), Some(task));
    assert_eq!(refused(suite.try_open(TTL, replay()).await), Refusal::Replayed { nth: 0 });
}

fn crate_max() -> dayfly_backend_sdk::Timestamp {
    dayfly_backend_sdk::Timestamp::from_seconds(4_000_000_000)
}

async fn an_intent_is_durable_and_bounded(suite: &Suite) {
    let task = suite.open(Duration::from_secs(90)).await;
    let intent = suite.intent(task.id, &suite.backend()).await;
    let lease = suite.intend(intent.clone()).await.unwrap();
    assert_eq!(suite.store.lease(lease.id).await.unwrap(), Some(lease.clone()));
    assert_eq!(lease.state, State::Pending);
    assert_eq!(lease.expires_at, lease.issued_at.plus(TTL));
    assert_eq!(lease.max_expires_at, task.expires_at, "a lease ends with its task at the latest");
    assert_eq!(lease.native_expires_at, Some(lease.expires_at.plus(Duration::from_secs(2))));
    assert_eq!(lease.due_at(), Some(lease.mint_deadline));
    assert_eq!(lease.plan, intent.plan);
    assert_eq!(suite.counts(task.id).await.pending, 1);
}

async fn an_ended_task_mints_nothing(suite: &Suite) {
    let task = suite.open(TTL).await;
    let intent = suite.intent(task.id, "b").await;
    let close = Write::CloseTask { task: task.id, end: TaskEnd::Failed, actor: "x".into() };
    suite.store.write(close).await.unwrap();
    assert_eq!(refused(suite.intend(intent.clone()).await), Refusal::TaskClosed);
    let unknown = crate::TaskId::new(suite.now().await, suite.entropy.as_ref());
    let nobody = Intent { task: unknown, ..intent };
    assert_eq!(refused(suite.intend(nobody).await), Refusal::TaskUnknown);
    let short = suite.open(Duration::from_millis(500)).await;
    let ending = suite.intent(short.id, "b").await;
    assert_eq!(refused(suite.intend(ending).await), Refusal::TaskEnding);
}

async fn an_activation_is_fenced(suite: &Suite) {
    let task = suite.open(TTL).await;
    let lease = suite.intend(suite.intent(task.id, "b").await).await.unwrap();
    let activate = |epoch| Write::Activate { lease: lease.id, epoch, kept: None };
    assert_eq!(refused(suite.lease(activate(9)).await), Refusal::LeaseChanged);
    let active = suite.lease(activate(0)).await.unwrap();
    assert_eq!((active.epoch, active.settle_at), (1, None));
    assert_eq!(refused(suite.lease(activate(0)).await), Refusal::LeaseChanged);
    assert_eq!(suite.store.lease(lease.id).await.unwrap(), Some(active));
}

async fn what_was_kept_stays_until_death(suite: &Suite) {
    let (task, backend) = (suite.open(TTL).await, suite.backend());
    let lease = suite.intend(suite.intent(task.id, &backend).await).await.unwrap();
    let kept = Sealed::from_bytes(vec![0, 255, 7]);
    let activate = Write::Activate { lease: lease.id, epoch: 0, kept: Some(kept.clone()) };
    assert!(activate.must_be_durable(), "losing it would lose the way to revoke");
    suite.lease(activate).await.unwrap();
    suite.lease(Write::Deliver { lease: lease.id }).await.unwrap();
    let kept_of = async || suite.store.lease(lease.id).await.unwrap().unwrap().kept;
    assert_eq!(kept_of().await, Some(kept.clone()));
    let (cause, actor) = (Cause::Requested, "x".to_owned());
    suite.lease(Write::Condemn { lease: lease.id, cause, actor, reason: None }).await.unwrap();
    let claimed = suite.claim(&backend, 10, TTL).await;
    assert_eq!(claimed.iter().map(|lease| &lease.kept).collect::<Vec<_>>(), [&Some(kept)]);
    let failure = Some(Lease::LINGERS.to_owned());
    let [Lease { id, epoch, .. }] = claimed[..] else { panic!("{claimed:?}") };
    let owed = Owed { lease: id, epoch, after: Duration::ZERO, failure, counted: false };
    suite.leases(Write::Postpone { leases: vec![owed] }).await;
    let counts = suite.counts(task.id).await;
    assert_eq!((counts.revoking, counts.lingering), (1, 1));
    assert_eq!(counts.residual_until, lease.native_expires_at);
    let again = suite.claim(&backend, 10, TTL).await;
    let leases = again.iter().map(|lease| (lease.id, lease.epoch)).collect();
    suite.leases(Write::Bury { leases, expired: Vec::new() }).await;
    assert_eq!(kept_of().await, None);
    assert!(suite.counts(task.id).await.residual_until.is_none());
}

async fn a_quota_is_never_exceeded(suite: &Suite) {
    for (measure, most) in [
        (Measure::BackendLiving, 3),
        (Measure::BackendMinted, 3),
        (Measure::PrincipalLiving, 3),
        (Measure::RoleLiving, 3),
        (Measure::RoleMinted, 3),
        (Measure::ShareLiving, 3),
        (Measure::ShareMinted, 3),
    ] {
        let (backend, name) = (suite.backend(), suite.backend());
        let task = suite.open_as(&name, TTL).await;
        let mut asked = Vec::new();
        for _ in 0..8 {
            let intent = suite.intent(task.id, &backend).await;
            let quotas = vec![Quota { measure, most }];
            let intent = Intent { role: name.clone(), quotas, ..intent };
            let store = Arc::clone(&suite.store);
            asked.push(spawn(async move { store.write(Write::Intend(Box::new(intent))).await }));
        }
        let mut minted = Vec::new();
        for one in asked {
            match one.await.unwrap() {
                Ok(Written::Lease(lease)) => minted.push(lease),
                Ok(other) => panic!("answered {other:?}"),
                Err(error) => {
                    let Some(Refusal::Quota(exceeded)) = error.refusal() else { panic!("{error}") };
                    assert_eq!(exceeded.quota, Quota { measure, most });
                    assert_eq!(exceeded.after.is_some(), measure.is_rate(), "{exceeded}");
                    assert!(exceeded.after.is_none_or(|after| after <= quota::MINUTE));
                }
            }
        }
        assert_eq!(minted.len(), most as usize, "{measure:?}");
        // Others are not counted: another principal's, another role's, another backend's.
        let other = suite.open_as(&suite.backend(), TTL).await;
        let intent = suite.intent(other.id, &suite.backend()).await;
        let quotas = vec![Quota { measure, most: 1 }];
        suite.intend(Intent { role: suite.backend(), quotas, ..intent }).await.unwrap();
        // One that dies makes room, but not for what was minted.
        let again = Intent { role: name, ..suite.intent(task.id, &backend).await };
        let again = Intent { quotas: vec![Quota { measure, most }], ..again };
        suite.bury_one(&backend, &minted).await;
        match suite.intend(again).await {
            Ok(_) => assert!(!measure.is_rate(), "{measure:?}"),
            Err(error) => assert!(measure.is_rate(), "{measure:?}: {error}"),
        }
    }
}

/// A repeat under the same key ends the lease before it, so it takes no room.
async fn a_superseded_lease_makes_room(suite: &Suite) {
    let (task, backend) = (suite.open(TTL).await, suite.backend());
    let quotas = vec![Quota { measure: Measure::BackendLiving, most: 1 }];
    let key = Some(IdempotencyKey { key: "k".into(), request: [1; 32] });
    let keyed = Intent { quotas, key, ..suite.intent(task.id, &backend).await };
    let first = suite.intend(keyed.clone()).await.unwrap();
    suite.lease(Write::Activate { lease: first.id, epoch: 0, kept: None }).await.unwrap();
    let fresh = suite.intent(task.id, &backend).await;
    let unkeyed = Intent { quotas: keyed.quotas.clone(), ..fresh.clone() };
    assert!(matches!(refused(suite.intend(unkeyed).await), Refusal::Quota(_)));
    suite.intend(Intent { id: fresh.id, handle: fresh.handle, ..keyed }).await.unwrap();
}

async fn renewal_is_capped_and_can_be_taken_back(suite: &Suite) {
    let task = suite.open(TTL * 10).await;
    let lease = suite.active(task.id, "b").await;
    let renew = |ttl| Write::Renew { lease: lease.id, ttl, actor: "x".into() };
    let Written::Renewed { lease: renewed, before } =
        suite.store.write(renew(TTL * 9)).await.unwrap()
    else {
        panic!("not renewed")
    };
    assert_eq!(before, lease.expires_at);
    assert_eq!(renewed.expires_at, lease.max_expires_at);
    let back = |epoch| Write::Shorten { lease: lease.id, epoch, expires_at: lease.expires_at };
    assert_eq!(refused(suite.lease(back(renewed.epoch - 1)).await), Refusal::LeaseChanged);
    let shortened = suite.lease(back(renewed.epoch)).await.unwrap();
    assert_eq!(shortened.expires_at, lease.expires_at);
    assert_eq!(suite.store.lease(lease.id).await.unwrap(), Some(shortened));
}

async fn the_first_cause_stands(suite: &Suite) {
    let task = suite.open(TTL).await;
    let lease = suite.active(task.id, "b").await;
    let condemn = |cause| Write::Condemn {
        lease: lease.id,
        cause,
        actor: "admin|me".into(),
        reason: Some("drill".into()),
    };
    let first = suite.lease(condemn(Cause::Requested)).await.unwrap();
    let second = suite.lease(condemn(Cause::TaskLost)).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(second.state.cause(), Some(Cause::Requested));
    let renew = Write::Renew { lease: lease.id, ttl: TTL, actor: "x".into() };
    assert_eq!(refused(suite.lease(renew).await), Refusal::NotRenewable);
}

async fn only_due_leases_are_claimed_and_by_one(suite: &Suite) {
    let task = suite.open(TTL).await;
    let backend = suite.backend();
    let kept = suite.active(task.id, &backend).await;
    let mut doomed = Vec::new();
    for _ in 0..6 {
        let lease = suite.active(task.id, &backend).await;
        let cause = Cause::Requested;
        let condemn = Write::Condemn { lease: lease.id, cause, actor: "x".into(), reason: None };
        suite.store.write(condemn).await.unwrap();
        doomed.push(lease.id);
    }
    assert_eq!(suite.store.next_due(&backend).await.unwrap(), Some(Duration::ZERO));
    let hold = Duration::from_secs(30);
    let (one, two) = tokio::join!(suite.claim(&backend, 4, hold), suite.claim(&backend, 4, hold));
    let mut claimed: Vec<_> = one.iter().chain(&two).map(|lease| lease.id).collect();
    claimed.sort();
    doomed.sort();
    assert_eq!(claimed, doomed, "each due lease is claimed once, and no other");
    assert!(suite.claim(&backend, 9, hold).await.is_empty(), "a claim keeps others away");
    assert_eq!(suite.store.lease(kept.id).await.unwrap(), Some(kept));
}

async fn a_stale_claim_buries_nothing(suite: &Suite) {
    let task = suite.open(TTL).await;
    let backend = suite.backend();
    let lease = suite.active(task.id, &backend).await;
    let close = Write::CloseTask { task: task.id, end: TaskEnd::Completed, actor: "x".into() };
    suite.store.write(close).await.unwrap();
    let first = suite.claim(&backend, 9, Duration::ZERO).await;
    let second = suite.claim(&backend, 9, Duration::from_secs(30)).await;
    assert_eq!((first.len(), second.len()), (1, 1), "an ended claim is taken over");
    let bury = |epoch| Write::Bury { leases: vec![(lease.id, epoch)], expired: Vec::new() };
    assert!(suite.leases(bury(first[0].epoch)).await.is_empty());
    let buried = suite.leases(bury(second[0].epoch)).await;
    assert_eq!(buried[0].state.as_str(), "revoked");
    assert_eq!(buried[0].state.cause(), Some(Cause::TaskCompleted));
    assert_eq!(suite.store.lease(lease.id).await.unwrap().as_ref(), buried.first());
    assert_eq!(suite.store.next_due(&backend).await.unwrap(), None);
}

async fn what_could_still_land_is_not_buried(suite: &Suite) {
    let task = suite.open(TTL).await;
    let backend = suite.backend();
    let lease = suite.intend(suite.intent(task.id, &backend).await).await.unwrap();
    let cause = Cause::MintFailed;
    let condemn = Write::Condemn { lease: lease.id, cause, actor: "x".into(), reason: None };
    suite.store.write(condemn).await.unwrap();
    let claimed = suite.claim(&backend, 9, Duration::from_secs(30)).await;
    let kept = suite
        .leases(Write::Bury { leases: vec![(lease.id, claimed[0].epoch)], expired: Vec::new() })
        .await;
    assert_eq!(kept[0].state.as_str(), "revoking");
    assert_eq!(kept[0].due_at(), lease.settle_at, "it is revoked once more after that");
    let settled = suite.lease(Write::Settle { lease: lease.id, nothing: false }).await.unwrap();
    assert_eq!(settled.settle_at, None);
    let claimed = suite.claim(&backend, 9, Duration::from_secs(30)).await;
    let buried = suite
        .leases(Write::Bury { leases: vec![(lease.id, claimed[0].epoch)], expired: Vec::new() })
        .await;
    assert_eq!(buried[0].state.as_str(), "revoked");
}

async fn a_failure_is_counted_and_scheduled(suite: &Suite) {
    let task = suite.open(TTL).await;
    let backend = suite.backend();
    let lease = suite.active(task.id, &backend).await;
    let close = Write::CloseTask { task: task.id, end: TaskEnd::Cancelled, actor: "x".into() };
    suite.store.write(close).await.unwrap();
    let claimed = suite.claim(&backend, 9, Duration::from_secs(30)).await;
    let after = Duration::from_secs(7);
    let failure = Some("unavailable".to_owned());
    let owed = Owed { lease: lease.id, epoch: claimed[0].epoch, after, failure, counted: true };
    let owed = suite.leases(Write::Postpone { leases: vec![owed] }).await;
    assert_eq!((owed[0].attempts, owed[0].claim), (1, None));
    assert_eq!(owed[0].error_class.as_deref(), Some("unavailable"));
    let due = suite.store.next_due(&backend).await.unwrap().unwrap();
    assert!(due <= after && due > Duration::from_secs(4), "{due:?}");
    assert_eq!(suite.counts(task.id).await.revoking, 1);
}

async fn a_key_has_one_live_credential(suite: &Suite) {
    let task = suite.open(TTL).await;
    let request = suite.random();
    let with_key = |intent: Intent, request| Intent {
        key: Some(IdempotencyKey { key: "k1".into(), request }),
        ..intent
    };
    let first = with_key(suite.intent(task.id, "b").await, request);
    let first = suite.intend(first).await.unwrap();
    let again = with_key(suite.intent(task.id, "b").await, request);
    assert_eq!(refused(suite.intend(again.clone()).await), Refusal::InProgress);
    let other = with_key(suite.intent(task.id, "b").await, suite.random());
    assert_eq!(refused(suite.intend(other).await), Refusal::KeyReused);
    suite.lease(Write::Activate { lease: first.id, epoch: 0, kept: None }).await.unwrap();
    match suite.store.write(Write::Intend(Box::new(again))).await.unwrap() {
        Written::Superseding { lease, old } => {
            assert_eq!(old.id, first.id);
            assert_eq!(old.state.cause(), Some(Cause::Superseded));
            assert_eq!(lease.state, State::Pending);
            assert_eq!(suite.store.lease(old.id).await.unwrap(), Some(*old));
        }
        other => panic!("answered {other:?}"),
    }
}

async fn completing_condemns_everything_once(suite: &Suite) {
    let task = suite.open(TTL).await;
    let backend = suite.backend();
    let active = suite.active(task.id, &backend).await;
    let pending = suite.intend(suite.intent(task.id, &backend).await).await.unwrap();
    let close = |end| Write::CloseTask { task: task.id, end, actor: "x".into() };
    let Written::Closed(closed) = suite.store.write(close(TaskEnd::Completed)).await.unwrap()
    else {
        panic!("not closed")
    };
    assert_eq!(closed[0].backends, [backend]);
    for id in [active.id, pending.id] {
        let lease = suite.store.lease(id).await.unwrap().unwrap();
        assert_eq!(lease.state.cause(), Some(Cause::TaskCompleted));
    }
    let activate = Write::Activate { lease: pending.id, epoch: pending.epoch, kept: None };
    assert_eq!(refused(suite.lease(activate).await), Refusal::LeaseChanged);
    let Written::Closed(again) = suite.store.write(close(TaskEnd::Failed)).await.unwrap() else {
        panic!("not closed")
    };
    let TaskState::Closed { end, .. } = again[0].task.state else { panic!("open again") };
    assert_eq!(end, TaskEnd::Completed, "the first end stands");
}

async fn a_deadline_ends_a_task(suite: &Suite) {
    let task = suite.open(Duration::from_millis(5)).await;
    let later = suite.open(TTL).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    // Another replica may be about to end it; who finds it locked passes over it.
    let mut ended = TaskState::Open;
    for _ in 0..500 {
        suite
            .store
            .write(Write::ExpireTasks { limit: 100, believed: None, heard: None })
            .await
            .unwrap();
        ended = suite.store.task(task.id).await.unwrap().unwrap().state;
        if ended != TaskState::Open {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(matches!(ended, TaskState::Closed { end: TaskEnd::Expired, .. }), "{ended:?}");
    let later = suite.store.task(later.id).await.unwrap().unwrap();
    assert_eq!(later.state, TaskState::Open);
    assert!(suite.store.next_task_due().await.unwrap().is_some());
}

/// Many intents race one completion: whichever come first, none is left alive.
async fn no_mint_slips_past_a_completion(suite: &Suite) {
    for _ in 0..5 {
        let task = suite.open(TTL).await;
        let mut minting = Vec::new();
        for _ in 0..12 {
            let intent = suite.intent(task.id, "b").await;
            let store = Arc::clone(&suite.store);
            minting.push(spawn(async move {
                let id = intent.id;
                store.write(Write::Intend(Box::new(intent))).await?;
                store.write(Write::Activate { lease: id, epoch: 0, kept: None }).await
            }));
        }
        tokio::task::yield_now().await;
        let end = TaskEnd::Completed;
        let close = Write::CloseTask { task: task.id, end, actor: "x".into() };
        suite.store.write(close).await.unwrap();
        for mint in minting {
            let refusal = mint.await.unwrap().err().map(|error| error.refusal());
            assert!(refusal.is_none_or(|refusal| refusal.is_some()), "{refusal:?}");
        }
        let counts = suite.counts(task.id).await;
        assert_eq!((counts.pending, counts.active), (0, 0));
    }
}
