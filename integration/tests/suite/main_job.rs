//! The main job: identity in, credential out, verified death, all of it real.

use std::{fmt::Write as _, time::Duration};

use dayfly_integration::{Broker, BrokerConfig, Client, Postgres, Provider, Store, eventually};
use serde_json::json;

/// A token of a certified provider opens a task; a PostgreSQL role is minted; `psql` reads
/// through it; an open session that did `SET ROLE` is ended by the completion.
#[tokio::test(flavor = "multi_thread")]
async fn from_a_certified_provider_to_a_verified_death() {
    let postgres = Postgres::start();
    let provider = Provider::start().await;
    let audience = "https://dayfly.example.test/real";
    let mut config = BrokerConfig::new(Store::Postgres(postgres.url("dayfly")), Some(&postgres));
    write!(
        config.more,
        "[[issuer]]\nname = \"provider\"\nissuer = \"{}\"\naudience = \"{audience}\"\n\
         ca_file = \"{}\"\ntypes = [\"at+jwt\"]\n",
        provider.issuer(),
        provider.ca_file().display()
    )
    .unwrap();
    let broker = Broker::start(config).await;
    let token = provider.token(audience).await;
    let (task, owner) = broker.client().with(&token).open_task().await;
    let lease = owner.mint("reader").await.expect(201);
    let url = lease.text("/credential/url");
    let read = postgres.psql(&url, "SELECT text FROM app.notes");
    assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), "hello", "{read:?}");

    let mut session = open_session(&postgres, &url, "SET ROLE readers;").await;
    let done = owner.complete(&task, "15s").await.expect(200);
    assert_eq!(done.text("/state"), "completed");
    assert_eq!(done.body["leases"]["revoked"], 1);
    assert!(!postgres.lets_in(&url), "a login after completion");
    assert_eq!(postgres.roles("df_"), Vec::<String>::new());
    let ended = tokio::time::timeout(Duration::from_secs(5), session.wait()).await;
    assert!(!ended.expect("the session ends").unwrap().success());

    let lease = owner.lease(&lease.text("/id")).await;
    assert_eq!(
        (lease.text("/state"), lease.text("/cause")),
        ("revoked".into(), "task_completed".into())
    );
    let admin = broker.client().with(&broker.admin());
    let receipts = format!("/api/v1/audit?event=lease.revoked&lease={}", lease.text("/id"));
    let receipts = admin.get(&receipts).await.unwrap().expect(200);
    assert!(receipts.body["data"][0]["signature"].is_string(), "{}", receipts.text);

    // The same token again: it has opened its task.
    let again = broker.client().with(&token);
    let again = again.post("/api/v1/tasks", json!({ "purpose": "again", "ttl_seconds": 60 })).await;
    assert_eq!((again.status, again.text("/code")), (401, "unauthenticated".into()));
}

/// A `psql` that stays open after it ran `first`.
async fn open_session(postgres: &Postgres, url: &str, first: &str) -> tokio::process::Child {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

    let mut command = tokio::process::Command::from(postgres.client(url));
    command.args(["-v", "ON_ERROR_STOP=1"]).kill_on_drop(true);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::null());
    let mut session = command.spawn().unwrap();
    let input = session.stdin.as_mut().unwrap();
    let sql = format!("{first}\nSELECT text FROM app.notes;\n");
    input.write_all(sql.as_bytes()).await.unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(session.stdout.take().unwrap());
    output.read_line(&mut line).await.unwrap();
    assert_eq!(line.trim(), "hello", "the session reads");
    // It now waits in a statement, as a workload's pool would sit on its connection.
    input.write_all(b"SELECT pg_sleep(60);\n").await.unwrap();
    session
}

/// By time: a lease of two seconds is dead soon after, on both stores.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_dies_when_its_time_is_up() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let broker = Broker::start(BrokerConfig::new(store, Some(&postgres))).await;
        let (_, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
        let body = json!({ "role": "reader", "ttl_seconds": 2 });
        let lease = owner.post("/api/v1/leases", body).await.expect(201);
        let url = lease.text("/credential/url");
        assert!(postgres.lets_in(&url));
        let id = lease.text("/id");
        let dead = dead(&owner, &id, Duration::from_secs(8)).await;
        assert_eq!(dead, "expired");
        assert!(!postgres.lets_in(&url));
        assert_eq!(postgres.roles("df_"), Vec::<String>::new());
    }
}

/// The cause of a lease's death, once it is verified.
async fn dead(owner: &Client, id: &str, within: Duration) -> String {
    eventually("the lease is verified dead", within, async || {
        let lease = owner.lease(id).await.expect(200);
        (lease.text("/state") == "revoked").then(|| lease.text("/cause"))
    })
    .await
}

/// By request, the owner's and an administrator's.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_dies_by_request() {
    let postgres = Postgres::start();
    let broker = Broker::start(BrokerConfig::new(Store::Sqlite, Some(&postgres))).await;
    let (_, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let admin = broker.client().with(&broker.admin());
    for who in [&owner, &admin] {
        let lease = owner.mint("reader").await.expect(201);
        let url = lease.text("/credential/url");
        assert!(postgres.lets_in(&url));
        let path = format!("/api/v1/leases/{}/revoke?wait=10s", lease.text("/id"));
        let revoked = who.post(&path, json!({ "reason": "drill" })).await.expect(200);
        assert_eq!(revoked.text("/cause"), "requested");
        assert!(!postgres.lets_in(&url));
        who.post(&path, json!({ "reason": "again" })).await.expect(200);
    }
    let (_, stranger) = broker.client().with(&broker.issuer.token("other")).open_task().await;
    let lease = owner.mint("reader").await.expect(201);
    let path = format!("/api/v1/leases/{}/revoke", lease.text("/id"));
    let hidden = stranger.post(&path, json!({ "reason": "mine" })).await;
    let none = stranger.post("/api/v1/leases/lse_none/revoke", json!({ "reason": "mine" })).await;
    assert_eq!((hidden.status, none.status), (404, 404));
    assert_eq!(hidden.text("/detail"), none.text("/detail"), "another's lease looks like none");
    assert!(postgres.lets_in(&lease.text("/credential/url")));
}
