//! A store that lost commits: minting pauses, `recover` shows what differs and mends it.

use std::{fmt::Write as _, time::Duration};

use dayfly_integration::{Answer, Broker, BrokerConfig, Client, Postgres, Store, eventually};
use serde_json::json;

/// Sweeps come often, so that the backend remembers how far the store had come.
fn config(store: Store, backend: &Postgres) -> BrokerConfig {
    let mut config = BrokerConfig::new(store, Some(backend));
    config.more.push_str("[engine]\nsweep_every = \"5s\"\n");
    config
}

/// Five leases around the moment that the store will go back to.
struct Scene {
    owner: Client,
    /// Minted before, and untouched since.
    kept: Answer,
    /// Minted before for a short life, and renewed since.
    renewed: Answer,
    /// Minted before, dead since.
    ended: Answer,
    /// The task of the one that is dead.
    ended_task: String,
    ended_owner: Client,
    /// Minted since.
    fresh: Option<Answer>,
}

const SHORT: u64 = 25;

impl Scene {
    async fn before(broker: &Broker) -> Self {
        let open =
            async |subject| broker.client().with(&broker.issuer.token(subject)).open_task().await;
        let (_, owner) = open("job").await;
        let (ended_task, ended_owner) = open("brief").await;
        let mint = async |owner: &Client, ttl: u64| {
            let body = json!({ "role": "reader", "ttl_seconds": ttl });
            owner.post("/api/v1/leases", body).await.expect(201)
        };
        let kept = mint(&owner, 300).await;
        let renewed = mint(&owner, SHORT).await;
        let ended = mint(&ended_owner, 300).await;
        Self { owner, kept, renewed, ended, ended_task, ended_owner, fresh: None }
    }

    async fn since(&mut self) {
        let path = format!("/api/v1/leases/{}/renew", self.renewed.text("/id"));
        self.owner.post(&path, json!({ "ttl_seconds": 600 })).await.expect(200);
        self.ended_owner.complete(&self.ended_task, "20s").await.expect(200);
        self.fresh = Some(self.owner.mint("reader").await.expect(201));
    }

    fn fresh(&self) -> String {
        url(self.fresh.as_ref().unwrap())
    }

    /// While it is suspended nothing is minted, and time alone ends nothing: the renewed
    /// credential outlives the expiry that its old row has.
    async fn paused(&self, backend: &Postgres) {
        let refused = eventually("minting pauses", Duration::from_secs(20), async || {
            let answer = self.owner.mint("reader").await;
            (answer.status == 503 && answer.text("/code") == "minting_suspended").then_some(answer)
        })
        .await;
        assert!(refused.retry_after.is_some(), "{}", refused.text);
        tokio::time::sleep(Duration::from_secs(SHORT)).await;
        for (lease, what) in [(url(&self.renewed), "renewed"), (self.fresh(), "fresh")] {
            assert!(backend.lets_in(&lease), "{what}: ended before anybody has looked");
        }
    }

    /// After the recovery: what nobody can account for is dead, what was renewed lives.
    async fn mended(&self, backend: &Postgres) {
        assert!(!backend.lets_in(&self.fresh()), "an orphan outlived the recovery");
        assert!(!backend.lets_in(&url(&self.ended)));
        for lease in [&self.kept, &self.renewed] {
            assert!(backend.lets_in(&url(lease)), "what lives was killed");
        }
        let row = self.owner.lease(&self.renewed.text("/id")).await.expect(200);
        assert!(row.text("/expires_at") > self.renewed.text("/expires_at"), "{}", row.text);
        let id = self.ended.text("/id");
        eventually("the row of the dead one is closed", Duration::from_secs(20), async || {
            let lease = self.ended_owner.lease(&id).await;
            (lease.body["state"] == "revoked").then_some(())
        })
        .await;
        let again = self.owner.mint("reader").await.expect(201);
        assert!(backend.lets_in(&url(&again)));
    }
}

fn url(lease: &Answer) -> String {
    lease.text("/credential/url")
}

fn server(broker: &Broker, arguments: &[&str]) -> (bool, String) {
    let output = broker.command(arguments);
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    write!(text, "{}", String::from_utf8_lossy(&output.stderr)).unwrap();
    (output.status.success(), text)
}

fn recover(broker: &Broker) -> String {
    let (refused, text) = server(broker, &["recover"]);
    assert!(!refused, "without a terminal and --yes nothing is done: {text}");
    let (recovered, text) = server(broker, &["recover", "--yes"]);
    assert!(recovered, "{text}");
    text
}

fn whole(broker: &Broker) {
    let (clean, text) = server(broker, &["fsck"]);
    assert!(clean, "{text}");
    let (holds, text) = server(broker, &["audit", "verify"]);
    assert!(holds, "{text}");
}

/// An asynchronous standby that lacks the last commits takes over.
#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_without_the_last_commits_is_recovered() {
    let (primary, backend) = (Postgres::start(), Postgres::start());
    let mut standby = primary.standby();
    let broker = Broker::start(config(tcp_store(&primary), &backend)).await;
    let mut scene = Scene::before(&broker).await;
    primary.replicated_to(&standby);
    standby.crash();
    scene.since().await;
    primary.crash();
    standby.take_over(&primary);
    eventually("the other server is noticed", Duration::from_secs(20), async || {
        broker.log().contains("store.suspended").then_some(())
    })
    .await;
    scene.paused(&backend).await;
    let said = recover(&broker);
    assert!(said.contains("promoted or restored"), "{said}");
    scene.mended(&backend).await;
    whole(&broker);
}

/// By TCP, so that whoever has the port has the store.
fn tcp_store(server: &Postgres) -> Store {
    server.sql(
        "postgres",
        "CREATE ROLE store LOGIN PASSWORD 'store'; ALTER DATABASE dayfly OWNER TO store",
    );
    Store::Postgres(format!("postgres://store:store@127.0.0.1:{}/dayfly", server.port))
}

/// A dump from before is loaded in the place of the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_dump_is_recovered() {
    let (primary, backend) = (Postgres::start(), Postgres::start());
    let mut broker = Broker::start(config(tcp_store(&primary), &backend)).await;
    let mut scene = Scene::before(&broker).await;
    let marker = backend.marker("df_");
    let dump = primary.dump("dayfly");
    scene.since().await;
    swept_since(&backend, &marker).await;
    broker.kill();
    primary.sql("postgres", "DROP DATABASE dayfly; CREATE DATABASE dayfly OWNER store");
    primary.load("dayfly", &dump);
    // Its first sweep may find out before anybody sees it ready.
    broker.resume_unready().await;
    scene.paused(&backend).await;
    let said = recover(&broker);
    assert!(said.contains("the backend remembers sweep"), "{said}");
    scene.mended(&backend).await;
    whole(&broker);
}

/// The embedded store's file is replaced by an old copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_file_is_recovered() {
    let backend = Postgres::start();
    let mut broker = Broker::start(config(Store::Sqlite, &backend)).await;
    let mut scene = Scene::before(&broker).await;
    let marker = backend.marker("df_");
    broker.kill();
    let file = broker.path().join("dayfly.db");
    let aside = broker.path().join("copy");
    let files = |from: &std::path::Path, to: &std::path::Path| {
        for end in ["", "-wal"] {
            let of = |path: &std::path::Path| format!("{}{end}", path.display());
            drop(std::fs::remove_file(of(to)));
            if std::path::Path::new(&of(from)).exists() {
                std::fs::copy(of(from), of(to)).unwrap();
            }
        }
    };
    files(&file, &aside);
    broker.resume().await;
    scene.since().await;
    swept_since(&backend, &marker).await;
    broker.kill();
    files(&aside, &file);
    drop(std::fs::remove_file(broker.path().join("dayfly.db-shm")));
    broker.resume_unready().await;
    scene.paused(&backend).await;
    // The embedded store belongs to one process.
    let (shared, text) = server(&broker, &["recover", "--yes"]);
    assert!(!shared && text.contains("in use"), "{text}");
    broker.kill();
    recover(&broker);
    broker.resume().await;
    scene.mended(&backend).await;
    whole(&broker);
}

/// The backend's marker has moved on: an old copy of the store will be known for one. Twice,
/// since a sweep may have begun before the copy was made.
async fn swept_since(backend: &Postgres, marker: &str) {
    let turn = |marker: &str| marker.rsplit('=').next().unwrap().parse::<u64>().unwrap();
    eventually("two more sweeps", Duration::from_mins(1), async || {
        (turn(&backend.marker("df_")) >= turn(marker) + 2).then_some(())
    })
    .await;
}
