//! `dayfly-server fsck`: a system that works has no fault, and each kind of damage is named.

use std::collections::BTreeSet;

use dayfly_integration::{Answer, Broker, BrokerConfig, Client, Postgres, Store};
use serde_json::Value;

/// What `fsck --json` says, and whether it is content.
fn fsck(broker: &Broker, more: &[&str]) -> (bool, Value) {
    let output = broker.command(&[&["fsck", "--json"], more].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let said = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{:?}", output.stderr));
    (output.status.success(), said)
}

/// `KIND LEASE` of each violation.
fn violations(said: &Value) -> BTreeSet<String> {
    let found = said["violations"]["first"].as_array().unwrap();
    assert_eq!(said["violations"]["count"], found.len(), "{said}");
    let named = |one: &Value| {
        let (kind, lease) = (one["kind"].as_str().unwrap(), one["lease"].as_str());
        format!("{kind} {}", lease.unwrap_or("-"))
    };
    found.iter().map(named).collect()
}

/// Its id as the tables have it.
fn uuid(id: &str) -> String {
    let id: dayfly_lease::LeaseId = id.parse().unwrap();
    id.uuid().to_string()
}

async fn open(broker: &Broker, subject: &str) -> (String, Client) {
    broker.client().with(&broker.issuer.token(subject)).open_task().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_works_has_no_fault() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let broker = Broker::start(BrokerConfig::new(store, Some(&postgres))).await;
        let (task, owner) = open(&broker, "job").await;
        let (kept_task, other) = open(&broker, "other").await;
        for role in ["reader", "greeter"] {
            owner.mint(role).await.expect(201);
            let kept = other.mint(role).await.expect(201).text("/id");
            let renew = format!("/api/v1/leases/{kept}/renew");
            other.post(&renew, serde_json::json!({ "ttl_seconds": 900 })).await.expect(200);
        }
        owner.complete(&task, "10s").await.expect(200);
        // Beside the broker that works, while it works.
        let tokens: Vec<String> = (0..40).map(|_| broker.issuer.token("busy")).collect();
        let client = broker.client();
        let minting = dayfly_lease::spawn(async move {
            for token in tokens {
                let (task, busy) = client.with(&token).open_task().await;
                busy.mint("reader").await.expect(201);
                busy.complete(&task, "10s").await.expect(200);
            }
        });
        let mut checks = 0;
        while !minting.is_finished() || checks < 3 {
            let (clean, said) = tokio::task::block_in_place(|| fsck(&broker, &[]));
            assert!(clean, "{said}");
            assert!(said["leases"].as_u64().unwrap() >= 4, "{said}");
            checks += 1;
        }
        minting.await.unwrap();
        let text = broker.command(&["fsck", "--no-backends"]);
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.ends_with(" leases, 0 violations, 0 owed, 0 quarantined\n"), "{text}");
        // The next one has the same prefix at the same server.
        other.complete(&kept_task, "10s").await.expect(200);
    }
}

/// A damage: what is done, with `$id` and `$handle` of a lease of its own, and what is said.
struct Damage {
    /// In the store, or at the backend.
    backend: bool,
    sql: &'static str,
    kinds: &'static [&'static str],
}

const fn row(sql: &'static str, kinds: &'static [&'static str]) -> Damage {
    Damage { backend: false, sql, kinds }
}

const fn role(sql: &'static str, kinds: &'static [&'static str]) -> Damage {
    Damage { backend: true, sql, kinds }
}

const LIVING: &[Damage] = &[
    row("UPDATE leases SET handle = 'df_' || md5('x') WHERE id = '$id'", &["handle", "absent"]),
    row("UPDATE leases SET due_at = due_at + interval '1 hour' WHERE id = '$id'", &["due_at"]),
    row(
        "UPDATE leases SET state = 'revoking', cause = 'requested',
            revoking_at = now() - interval '10 min', due_at = now() - interval '10 min',
            next_attempt_at = now() - interval '10 min' WHERE id = '$id'",
        &["overdue"],
    ),
    row("UPDATE leases SET decision_seq = decision_seq + 1000 WHERE id = '$id'", &["decision"]),
    row("UPDATE leases SET decision_seq = decision_seq + 1 WHERE id = '$id'", &["decision"]),
    row("UPDATE leases SET issued_at = issued_at - interval '1 s' WHERE id = '$id'", &["decision"]),
    row("UPDATE leases SET belts = '{rope}' WHERE id = '$id'", &["unreadable"]),
    row(
        "UPDATE tasks SET ended = 'completed', closed_at = now()
         WHERE id = (SELECT task FROM leases WHERE id = '$id')",
        &["task_closed"],
    ),
    row("DELETE FROM leases WHERE id = '$id'", &["orphan"]),
    row("UPDATE leases SET backend = 'keys' WHERE id = '$id'", &["handle", "absent", "elsewhere"]),
    role("ALTER ROLE $handle VALID UNTIL '2100-01-01'", &["longer"]),
    role("DROP ROLE $handle", &["absent"]),
];

const DEAD: &[Damage] = &[
    row(
        "UPDATE audit_records SET detail = replace(detail, '$handle', 'df_other')
         WHERE lease = '$id' AND event = 'lease.revoked'",
        &["receipt"],
    ),
    role("CREATE ROLE $handle LOGIN", &["resurrected"]),
];

async fn dead(broker: &Broker) -> Answer {
    let (task, owner) = open(broker, "dead").await;
    let lease = owner.mint("reader").await.expect(201);
    owner.complete(&task, "10s").await.expect(200);
    lease
}

/// Each on a lease of its own, all at once: each is named, at its lease, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_damage_is_named() {
    let postgres = Postgres::start();
    let store = Store::Postgres(postgres.url("dayfly"));
    let mut broker = Broker::start(BrokerConfig::new(store, Some(&postgres))).await;
    let mut scene = Vec::new();
    for damage in LIVING {
        let (_, owner) = open(&broker, "job").await;
        scene.push((damage, owner.mint("reader").await.expect(201)));
    }
    for damage in DEAD {
        scene.push((damage, dead(&broker).await));
    }
    let (_, owner) = open(&broker, "job").await;
    let aside = owner.mint("greeter").await.expect(201).text("/id");
    let stranded = owner.mint("greeter").await.expect(201).text("/id");
    // Nobody mends it meanwhile.
    broker.kill();
    let (clean, said) = fsck(&broker, &[]);
    assert!(clean, "{said}");

    let mut expected = BTreeSet::new();
    for (damage, lease) in &scene {
        let (id, handle) = (lease.text("/id"), lease.text("/handle"));
        let sql = damage.sql.replace("$id", &uuid(&id)).replace("$handle", &handle);
        postgres.sql(if damage.backend { "postgres" } else { "dayfly" }, &sql);
        expected.extend(damage.kinds.iter().map(|kind| format!("{kind} {id}")));
        let changed = damage.kinds.contains(&"receipt");
        expected.extend(changed.then(|| "chain -".to_owned()));
    }
    let put_aside = format!("UPDATE leases SET quarantined = 'x' WHERE id = '{}'", uuid(&aside));
    postgres.sql("dayfly", &put_aside);
    let stray = format!("df_{}", "a".repeat(26));
    postgres.sql("postgres", &format!("CREATE ROLE {stray}"));
    let stray = dayfly_lease::LeaseId::from_uuid(uuid::Uuid::nil()).to_string();
    expected.insert(format!("orphan {stray}"));
    let gone = format!("UPDATE leases SET backend = 'gone' WHERE id = '{}'", uuid(&stranded));
    postgres.sql("dayfly", &gone);

    let (clean, said) = fsck(&broker, &[]);
    assert!(!clean);
    expected.insert(format!("elsewhere {stranded}"));
    assert_eq!(violations(&said), expected, "{said:#}");
    assert_eq!((&said["owed"]["count"], &said["quarantined"]["count"]), (&1.into(), &1.into()));
    assert_eq!(said["quarantined"]["first"][0]["lease"], aside.as_str());
    assert_eq!(said["not_configured"], serde_json::json!(["gone: 1 lease(s) that are active"]));

    // Without the backends, what only they can tell is not told.
    let (clean, said) = fsck(&broker, &["--no-backends"]);
    let at_backends = ["absent", "orphan", "elsewhere", "longer", "resurrected", "overdue"];
    expected.retain(|one| !at_backends.contains(&one.split(' ').next().unwrap()));
    assert!(!clean);
    assert_eq!(violations(&said), expected, "{said:#}");
}

/// The backend's own word about whose its prefix is, and a backend that does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn the_marker_and_silence_are_named() {
    let postgres = Postgres::start();
    let mut broker = Broker::start(BrokerConfig::new(Store::Sqlite, Some(&postgres))).await;
    let (_, owner) = open(&broker, "job").await;
    owner.mint("reader").await.expect(201);
    broker.kill();
    let marker = postgres.marker("df_");
    let (installation, _) = marker.rsplit_once(" turn=").unwrap();
    let other = format!("dayfly installation={} turn=1", uuid::Uuid::max());
    for (text, kind) in [(format!("{installation} turn=99999"), "behind -"), (other, "marker -")] {
        postgres.sql("postgres", &format!("COMMENT ON ROLE df_marker IS '{text}'"));
        let (clean, said) = fsck(&broker, &[]);
        assert!(!clean);
        assert_eq!(violations(&said), BTreeSet::from([kind.to_owned()]), "{said}");
    }
    postgres.crash();
    let (clean, said) = fsck(&broker, &[]);
    assert!(!clean, "what could not be looked at is no success: {said}");
    assert_eq!(said["violations"]["count"], 0, "{said}");
    assert_eq!(said["not_asked"][0]["backend"], "pg", "{said}");
}

/// Where SQLite's own checks were switched off: an expiry past its maximum, a word that means
/// nothing, a task that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_schema_would_not_let_happen_is_named() {
    let mut broker = Broker::start(BrokerConfig::new(Store::Sqlite, None)).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let (_, owner) = open(&broker, "job").await;
        ids.push(owner.mint("greeter").await.expect(201).text("/id"));
    }
    broker.kill();
    let database = rusqlite::Connection::open(broker.path().join("dayfly.db")).unwrap();
    let script = "PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF;";
    database.execute_batch(script).unwrap();
    let damages = [
        "UPDATE leases SET expires_at = max_expires_at + 1, due_at = max_expires_at + 1",
        "UPDATE leases SET cause = 'rust'",
        "UPDATE leases SET task = randomblob(16)",
    ];
    for (id, sql) in ids.iter().zip(damages) {
        let id: dayfly_lease::LeaseId = id.parse().unwrap();
        let sql = format!("{sql} WHERE id = ?1");
        assert_eq!(database.execute(&sql, [id.uuid().as_bytes()]).unwrap(), 1);
    }
    drop(database);
    let (clean, said) = fsck(&broker, &[]);
    assert!(!clean);
    let kinds = ["expires_at", "unreadable", "task_missing"];
    let expected = kinds.iter().zip(&ids).map(|(kind, id)| format!("{kind} {id}"));
    assert_eq!(violations(&said), expected.collect(), "{said:#}");
}
