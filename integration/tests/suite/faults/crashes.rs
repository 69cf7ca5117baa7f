//! `kill -9` of the broker between any two steps: what it leaves is paid off when it is back.

use std::{
    collections::VecDeque,
    os::unix::process::ExitStatusExt,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use dayfly_integration::{Answer, Broker, BrokerConfig, Client, Postgres, Store};
use dayfly_lease::failpoint::POINTS;
use serde_json::json;
use tokio::runtime::Builder;

use super::{all_dead, audit_holds, both_stores, ended, open_task, prefixed};

/// What is asked for when the broker dies.
#[derive(Clone, Copy, PartialEq)]
enum Asked {
    Complete,
    /// An administrator looks, which is written down.
    Look,
    Mint,
    Open,
    Renew,
    Revoke,
    /// Nothing: its own loops get there.
    Start,
    /// That it stops in good order.
    Stop,
    /// Nothing, until the task's time is up.
    Wait,
}

/// A crash, and what must be true of it.
#[derive(Clone, Copy)]
struct Crash {
    point: &'static str,
    /// What has to fail for the point to be reached.
    after: Option<&'static str>,
    asked: Asked,
    /// Roles that it leaves at the backend: the proof that it happened where it is said to.
    roles_left: usize,
    /// How the lease ends; no lease is there if nothing was durable.
    cause: Option<&'static str>,
}

const fn crash(
    point: &'static str,
    asked: Asked,
    roles_left: usize,
    cause: Option<&'static str>,
) -> Crash {
    Crash { point, after: None, asked, roles_left, cause }
}

const fn crash_after(
    after: &'static str,
    point: &'static str,
    asked: Asked,
    roles_left: usize,
    cause: &'static str,
) -> Crash {
    Crash { point, after: Some(after), asked, roles_left, cause: Some(cause) }
}

use Asked::{Complete, Look, Mint, Open, Renew, Revoke, Start, Stop, Wait};

const CRASHES: [Crash; 56] = [
    crash("mint.before_intent", Mint, 0, None),
    crash("mint.after_intent", Mint, 0, Some("mint_failed")),
    crash("mint.after_backend", Mint, 1, Some("mint_failed")),
    crash("mint.after_activate", Mint, 1, Some("undelivered")),
    crash("deliver.before_mark", Mint, 1, Some("undelivered")),
    crash("renew.after_row", Renew, 1, Some("expired")),
    crash("complete.after_close", Complete, 1, Some("task_completed")),
    crash("revoke.after_claim", Revoke, 1, Some("requested")),
    crash("revoke.after_backend", Revoke, 0, Some("requested")),
    crash("revoke.before_bury", Revoke, 0, Some("requested")),
    crash("store.open_task.before", Open, 0, None),
    crash("store.open_task.after", Open, 0, None),
    crash("store.note.before", Look, 0, None),
    crash("store.note.after", Look, 0, None),
    crash("store.intend.before", Mint, 0, None),
    crash("store.intend.after", Mint, 0, Some("mint_failed")),
    crash("store.activate.before", Mint, 1, Some("mint_failed")),
    crash("store.activate.after", Mint, 1, Some("undelivered")),
    crash("store.deliver.before", Mint, 1, Some("undelivered")),
    crash("store.deliver.after", Mint, 1, Some("expired")),
    crash("store.condemn.before", Revoke, 1, Some("expired")),
    crash("store.condemn.after", Revoke, 1, Some("requested")),
    crash_after("backend.mint.before", "store.settle.before", Mint, 0, "mint_failed"),
    crash_after("backend.mint.before", "store.settle.after", Mint, 0, "mint_failed"),
    crash("store.renew.before", Renew, 1, Some("expired")),
    crash("store.renew.after", Renew, 1, Some("expired")),
    crash_after("backend.renew.before", "store.shorten.before", Renew, 1, "expired"),
    crash_after("backend.renew.before", "store.shorten.after", Renew, 1, "expired"),
    crash("store.close_task.before", Complete, 1, Some("expired")),
    crash("store.close_task.after", Complete, 1, Some("task_completed")),
    crash("store.expire_tasks.before", Start, 0, None),
    crash("store.expire_tasks.after", Wait, 1, Some("expired")),
    crash("store.claim.before", Start, 0, None),
    crash("store.claim.after", Revoke, 1, Some("requested")),
    crash("store.bury.before", Revoke, 0, Some("requested")),
    crash("store.bury.after", Revoke, 0, Some("requested")),
    crash_after("backend.revoke.before", "store.postpone.before", Revoke, 1, "requested"),
    crash_after("backend.revoke.before", "store.postpone.after", Revoke, 1, "requested"),
    crash("store.hand_back.before", Stop, 0, None),
    crash("store.hand_back.after", Stop, 0, None),
    crash("store.take_turn.before", Start, 0, None),
    crash("store.take_turn.after", Start, 0, None),
    crash("backend.mint.before", Mint, 0, Some("mint_failed")),
    crash("backend.mint.after", Mint, 1, Some("mint_failed")),
    crash("backend.renew.before", Renew, 1, Some("expired")),
    crash("backend.renew.after", Renew, 1, Some("expired")),
    crash("backend.revoke.before", Revoke, 1, Some("requested")),
    crash("backend.revoke.after", Revoke, 0, Some("requested")),
    crash("backend.verify.before", Revoke, 0, Some("requested")),
    crash("backend.verify.after", Revoke, 0, Some("requested")),
    crash("backend.list.before", Start, 0, None),
    crash("backend.list.after", Start, 0, None),
    crash("backend.mark.before", Start, 0, None),
    crash("backend.mark.after", Start, 0, None),
    crash("commit.before", Start, 0, None),
    crash("commit.after", Start, 0, None),
];

/// Most of the time is waiting, but each of them is a process.
const AT_ONCE: usize = 20;
/// The longest way to a verified death after a crash: a dead replica's claim runs out, with
/// twenty brokers at work on one machine.
const PAID_OFF_WITHIN: Duration = Duration::from_mins(1);

/// Every point on both stores, all of them at once: most of the time is waiting.
#[test]
fn after_a_crash_at_any_point_no_credential_works_that_should_not() {
    let mut covered = CRASHES.map(|crash| crash.point);
    let mut points = POINTS.to_vec();
    covered.sort_unstable();
    points.sort_unstable();
    assert_eq!(covered.as_slice(), points, "every failpoint has its crash");

    let postgres = Postgres::start();
    let mut queue = VecDeque::new();
    for (number, crash) in CRASHES.into_iter().enumerate() {
        let [sqlite, in_postgres] = both_stores(&postgres, &format!("crash_{number}"));
        queue.push_back((sqlite, format!("s{number}_"), crash));
        queue.push_back((in_postgres, format!("p{number}_"), crash));
    }
    let queue = Mutex::new(queue);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    // A scope waits for all its threads, and fails if one of them did.
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                while let Some((store, prefix, crash)) = next() {
                    runtime.block_on(crash_and_come_back(&postgres, store, &prefix, crash));
                }
            });
        }
    });
}

async fn crash_and_come_back(postgres: &Postgres, store: Store, prefix: &str, crash: Crash) {
    let what = format!("{} on {}", crash.point, name(&store));
    let config = prefixed(BrokerConfig::new(store, Some(postgres)), prefix);
    let mut points = format!("{}=abort", crash.point);
    if let Some(after) = crash.after {
        points = format!("{after}=error;{points}");
    }
    let mut broker = Broker::configure(config.failpoints(&points));
    let known = if crash.asked == Start {
        broker.spawn();
        None
    } else {
        broker.resume().await;
        ask(postgres, &broker, crash).await
    };
    let status = ended(&mut broker, &what, Duration::from_secs(20)).await;
    assert_eq!(status.signal(), Some(6), "{what}: it aborted");
    let left = postgres.roles(prefix).len();
    // At the task's end its lease's own time is up as well, and either may be seen first.
    assert!(left == crash.roles_left || crash.asked == Wait, "{what}: {left} after the crash");

    broker.disarm();
    broker.resume().await;
    let causes = all_dead(&broker, &what, PAID_OFF_WITHIN).await;
    assert_eq!(causes, Vec::from_iter(crash.cause), "{what}");
    assert_eq!(postgres.roles(prefix), Vec::<String>::new(), "{what}: roles in the end");
    if let Some(url) = known {
        assert!(!postgres.lets_in(&url), "{what}: a login after a verified death");
    }
    it_goes_on(postgres, &broker, prefix, &what).await;
    audit_holds(&broker, &what).await;
}

/// Asks for what the broker will die of; gives the credential that the client knows, if any.
async fn ask(postgres: &Postgres, broker: &Broker, crash: Crash) -> Option<String> {
    let dies_asking = |answer: Option<Answer>| {
        assert!(answer.is_none(), "{}: {answer:?}", crash.point);
    };
    if crash.asked == Stop {
        broker.signal("TERM");
        return None;
    }
    let workload = broker.client().with(&broker.issuer.token("job"));
    let body = |ttl| json!({ "purpose": "test", "ttl_seconds": ttl });
    let (task, owner) = match crash.asked {
        Look => {
            let admin = broker.client().with(&broker.admin());
            dies_asking(admin.get("/api/v1/audit").await);
            return None;
        }
        Open => {
            dies_asking(workload.try_post("/api/v1/tasks", body(600)).await);
            return None;
        }
        Wait => {
            let opened = workload.post("/api/v1/tasks", body(5)).await.expect(201);
            (opened.text("/id"), workload.with(&opened.text("/token")))
        }
        Complete | Mint | Renew | Revoke | Start | Stop => open_task(broker).await,
    };
    // Short where only time will end it.
    let ttl = if crash.cause == Some("expired") { 20 } else { 300 };
    let body = json!({ "role": "reader", "ttl_seconds": ttl });
    let minted = owner.try_post("/api/v1/leases", body).await;
    if crash.asked == Mint {
        // The answer may have left just before the process died, but around one step only.
        let may_have_left = crash.point.contains("deliver.");
        assert!(minted.is_none() || may_have_left, "{}: {minted:?}", crash.point);
        return minted.map(|minted| minted.text("/credential/url"));
    }
    let minted = minted.unwrap_or_else(|| panic!("{}: no answer to the mint", crash.point));
    let lease = minted.expect(201);
    let url = lease.text("/credential/url");
    if crash.asked == Wait {
        return Some(url);
    }
    assert!(postgres.lets_in(&url), "{}: a login before the crash", crash.point);
    let answer = change(&owner, &task, &lease.text("/id"), crash.asked).await;
    // There the death is in the store already, and who waits for it may have read it there.
    let seen =
        crash.point == "store.bury.after" && answer.as_ref().is_some_and(|a| a.status == 200);
    if !seen {
        dies_asking(answer);
    }
    Some(url)
}

async fn change(owner: &Client, task: &str, lease: &str, asked: Asked) -> Option<Answer> {
    let (path, body) = match asked {
        Complete => {
            (format!("/api/v1/tasks/{task}/complete?wait=10s"), json!({ "outcome": "completed" }))
        }
        Renew => (format!("/api/v1/leases/{lease}/renew"), json!({ "ttl_seconds": 30 })),
        Revoke | Look | Mint | Open | Start | Stop | Wait => {
            (format!("/api/v1/leases/{lease}/revoke?wait=10s"), json!({ "reason": "crash drill" }))
        }
    };
    owner.try_post(&path, body).await
}

/// A crash leaves a broker that works: mint, use, complete.
async fn it_goes_on(postgres: &Postgres, broker: &Broker, prefix: &str, what: &str) {
    let (task, owner) = open_task(broker).await;
    let url = owner.mint("reader").await.expect(201).text("/credential/url");
    assert!(postgres.lets_in(&url), "{what}: a login after the restart");
    owner.complete(&task, "15s").await.expect(200);
    assert!(!postgres.lets_in(&url), "{what}: a login after the completion");
    assert_eq!(postgres.roles(prefix), Vec::<String>::new(), "{what}");
}

fn name(store: &Store) -> &'static str {
    match store {
        Store::Sqlite => "SQLite",
        Store::Postgres(_) => "PostgreSQL",
    }
}
