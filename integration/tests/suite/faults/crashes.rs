//! `kill -9` of the broker between any two steps: what it leaves is paid off when it is back.

use std::{os::unix::process::ExitStatusExt, thread, time::Duration};

use dayfly_integration::{Broker, BrokerConfig, Client, Postgres, Store};
use dayfly_lease::failpoint::POINTS;
use serde_json::json;
use tokio::runtime::Builder;

use super::{all_dead, audit_holds, both_stores, ended, open_task, prefixed};

/// What the client asks for when the broker dies.
#[derive(Clone, Copy, PartialEq)]
enum Asked {
    Complete,
    Mint,
    Renew,
    Revoke,
}

/// A crash, and what must be true of it.
#[derive(Clone, Copy)]
struct Crash {
    point: &'static str,
    asked: Asked,
    /// Roles that it leaves at the backend: the proof that it happened where it is said to.
    roles_left: usize,
    /// How the lease ends; no lease is there if nothing was durable.
    cause: Option<&'static str>,
}

const CRASHES: [Crash; 10] = [
    Crash { point: "mint.before_intent", asked: Asked::Mint, roles_left: 0, cause: None },
    Crash {
        point: "mint.after_intent",
        asked: Asked::Mint,
        roles_left: 0,
        cause: Some("mint_failed"),
    },
    Crash {
        point: "mint.after_backend",
        asked: Asked::Mint,
        roles_left: 1,
        cause: Some("mint_failed"),
    },
    Crash {
        point: "mint.after_activate",
        asked: Asked::Mint,
        roles_left: 1,
        cause: Some("undelivered"),
    },
    Crash {
        point: "deliver.before_mark",
        asked: Asked::Mint,
        roles_left: 1,
        cause: Some("undelivered"),
    },
    Crash { point: "renew.after_row", asked: Asked::Renew, roles_left: 1, cause: Some("expired") },
    Crash {
        point: "complete.after_close",
        asked: Asked::Complete,
        roles_left: 1,
        cause: Some("task_completed"),
    },
    Crash {
        point: "revoke.after_claim",
        asked: Asked::Revoke,
        roles_left: 1,
        cause: Some("requested"),
    },
    Crash {
        point: "revoke.after_backend",
        asked: Asked::Revoke,
        roles_left: 0,
        cause: Some("requested"),
    },
    Crash {
        point: "revoke.before_bury",
        asked: Asked::Revoke,
        roles_left: 0,
        cause: Some("requested"),
    },
];

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
    let stores = |number| both_stores(&postgres, &format!("crash_{number}"));
    let stores: Vec<[Store; 2]> = (0..CRASHES.len()).map(stores).collect();
    let go = |store, prefix: String, crash| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(crash_and_come_back(&postgres, store, &prefix, crash));
    };
    // A scope waits for all its threads, and fails if one of them did.
    thread::scope(|scope| {
        for (number, ([sqlite, in_postgres], crash)) in stores.into_iter().zip(CRASHES).enumerate()
        {
            scope.spawn(move || go(sqlite, format!("s{number}_"), crash));
            scope.spawn(move || go(in_postgres, format!("p{number}_"), crash));
        }
    });
}

async fn crash_and_come_back(postgres: &Postgres, store: Store, prefix: &str, crash: Crash) {
    let what = format!("{} on {}", crash.point, name(&store));
    let config = prefixed(BrokerConfig::new(store, Some(postgres)), prefix);
    let config = config.failpoints(&format!("{}=abort", crash.point));
    let mut broker = Broker::start(config).await;
    let (task, owner) = open_task(&broker).await;
    let known = ask(postgres, &owner, &task, crash).await;
    let status = ended(&mut broker, &what, Duration::from_secs(20)).await;
    assert_eq!(status.signal(), Some(6), "{what}: it aborted");
    assert_eq!(postgres.roles(prefix).len(), crash.roles_left, "{what}: roles after the crash");

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
async fn ask(postgres: &Postgres, owner: &Client, task: &str, crash: Crash) -> Option<String> {
    // Only the renewed one dies by time.
    let ttl = if crash.asked == Asked::Renew { 20 } else { 300 };
    let body = json!({ "role": "reader", "ttl_seconds": ttl });
    let minted = owner.try_post("/api/v1/leases", body).await;
    if crash.asked == Asked::Mint {
        // The answer may have left just before the process died, but at one point only.
        let may_have_left = crash.point == "deliver.before_mark";
        assert!(minted.is_none() || may_have_left, "{}: {minted:?}", crash.point);
        return minted.map(|minted| minted.text("/credential/url"));
    }
    let minted = minted.unwrap_or_else(|| panic!("{}: no answer to the mint", crash.point));
    let lease = minted.expect(201);
    let url = lease.text("/credential/url");
    assert!(postgres.lets_in(&url), "{}: a login before the crash", crash.point);
    let id = lease.text("/id");
    let (path, body) = match crash.asked {
        Asked::Complete => {
            (format!("/api/v1/tasks/{task}/complete?wait=10s"), json!({ "outcome": "completed" }))
        }
        Asked::Renew => (format!("/api/v1/leases/{id}/renew"), json!({ "ttl_seconds": 30 })),
        Asked::Revoke | Asked::Mint => {
            (format!("/api/v1/leases/{id}/revoke?wait=10s"), json!({ "reason": "crash drill" }))
        }
    };
    let answer = owner.try_post(&path, body).await;
    assert!(answer.is_none(), "{}: {answer:?}", crash.point);
    Some(url)
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
