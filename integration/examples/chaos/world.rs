//! All that runs: brokers, the servers behind them, and the wires between.
//!
//! Invariant: brokers go before what they stand on, and whatever becomes of the run nothing of
//! it goes on.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::ExitStatus,
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dayfly_integration::{Broker, BrokerConfig, Client, Issuer, Postgres, Store, Wire};
use tokio::sync::{Mutex, MutexGuard};

use dayfly_backend_sdk::testkit::Disk;

use crate::health::Health;

/// One broker process and its ways.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    broker: Mutex<Broker>,
    pub(crate) client: Client,
    pub(crate) to_backend: Wire,
    pub(crate) to_store: Option<Wire>,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) disk: Option<Disk>,
    pub(crate) backend: Postgres,
    pub(crate) store: Option<Postgres>,
    pub(crate) health: Arc<Health>,
    kills: AtomicU64,
    faults: StdMutex<BTreeMap<String, u64>>,
}

impl World {
    /// Starts it all; the issuer signs the clients' tokens.
    pub(crate) async fn start(embedded: bool) -> (Self, Issuer) {
        let backend = Postgres::start();
        // What it was told, but not twice.
        backend.sql(
            "postgres",
            "ALTER SYSTEM SET log_min_duration_statement = -1; SELECT pg_reload_conf()",
        );
        let (brokers, disk, store) =
            if embedded { embedded_store(&backend).await } else { shared_store(&backend).await };
        let issuer = Issuer::new(&brokers[0].0.path().join("ci.json"));
        for (broker, _, _) in &brokers[1..] {
            fs::copy(brokers[0].0.path().join("ci.json"), broker.path().join("ci.json")).unwrap();
        }
        let replicas =
            brokers.into_iter().enumerate().map(|(number, (broker, to_backend, to_store))| {
                let client = broker.client();
                let name = format!("replica {}", number + 1);
                let directory = broker.path().to_path_buf();
                Replica {
                    name,
                    directory,
                    broker: Mutex::new(broker),
                    client,
                    to_backend,
                    to_store,
                }
            });
        let world = Self {
            replicas: replicas.collect(),
            disk,
            backend,
            store,
            health: Arc::new(Health::new()),
            kills: AtomicU64::new(0),
            faults: StdMutex::default(),
        };
        for replica in &world.replicas {
            let mut broker = replica.lock().await;
            assert!(
                up(&mut broker, Duration::from_mins(1)).await,
                "{} does not start:\n{}",
                replica.name,
                broker.log()
            );
        }
        (world, issuer)
    }

    pub(crate) fn killed(&self) {
        self.kills.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn kills(&self) -> u64 {
        self.kills.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, fault: &str) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        *faults.entry(fault.to_owned()).or_default() += 1;
    }

    pub(crate) fn faults(&self) -> BTreeMap<String, u64> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Replica {
    pub(crate) async fn lock(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().await
    }
}

type Parts = (Vec<(Broker, Wire, Option<Wire>)>, Option<Disk>, Option<Postgres>);

async fn embedded_store(backend: &Postgres) -> Parts {
    let disk = Disk::new(512);
    if !disk.is_small() {
        println!("not run: a full disk (a tmpfs can only be mounted by root)");
    }
    let wire = Wire::to(backend.port).await;
    let broker =
        Broker::configure(by_wire(BrokerConfig::new(Store::Sqlite, Some(backend)), backend, &wire));
    let path = disk.path().join("dayfly.db");
    edit(&broker, "path = \"dayfly.db\"", &format!("path = \"{}\"", path.display()));
    (vec![(quiet(broker), wire, None)], Some(disk), None)
}

async fn shared_store(backend: &Postgres) -> Parts {
    let store = Postgres::start();
    store.sql(
        "postgres",
        "ALTER SYSTEM SET log_min_duration_statement = -1; ALTER SYSTEM SET log_statement = 'none';
         SELECT pg_reload_conf();
         CREATE ROLE dayfly_store LOGIN PASSWORD 'store-password';
         ALTER DATABASE dayfly OWNER TO dayfly_store",
    );
    let url = |port| format!("postgres://dayfly_store:store-password@127.0.0.1:{port}/dayfly");
    let (wire, to_store) = (Wire::to(backend.port).await, Wire::to(store.port).await);
    let config = BrokerConfig::new(Store::Postgres(url(to_store.port)), Some(backend));
    let one = quiet(Broker::configure(by_wire(config, backend, &wire)));
    let (other_wire, other_to_store) = (Wire::to(backend.port).await, Wire::to(store.port).await);
    let other = one.configure_replica();
    edit(&other, &format!("port = {}\n", wire.port), &format!("port = {}\n", other_wire.port));
    fs::write(other.path().join("store-url"), url(other_to_store.port)).unwrap();
    let brokers = vec![(one, wire, Some(to_store)), (other, other_wire, Some(other_to_store))];
    (brokers, None, Some(store))
}

/// The broker goes by the wire, its clients do not; and most of the work is not to be the
/// server's hashing.
fn by_wire(mut config: BrokerConfig, backend: &Postgres, wire: &Wire) -> BrokerConfig {
    let direct = format!("port = {}\n", backend.port);
    let ways = format!("port = {}\npublic_port = {}\n", wire.port, backend.port);
    let template = "member_of = [\"readers\"]";
    assert!(config.more.contains(&direct) && config.more.contains(template), "{}", config.more);
    config.more = config.more.replace(&direct, &ways);
    config.more = config.more.replace(template, &format!("{template}, scram_iterations = 1"));
    config
}

/// The suites' brokers log everything; this much would be too much here.
fn quiet(broker: Broker) -> Broker {
    edit(&broker, "log_filter = \"trace\"", "log_filter = \"info\"");
    broker
}

fn edit(broker: &Broker, from: &str, to: &str) {
    let text = fs::read_to_string(broker.config_file()).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(broker.config_file(), text.replacen(from, to, 1)).unwrap();
}

/// Brings a broker up as a service manager would: again when it ends, until it is ready.
#[expect(clippy::disallowed_methods, reason = "a run's own patience, not the broker's time")]
pub(crate) async fn up(broker: &mut Broker, within: Duration) -> bool {
    let until = std::time::Instant::now() + within;
    let client = broker.client();
    while std::time::Instant::now() < until {
        if !broker.is_running() {
            broker.spawn();
        }
        let ready = client.request(reqwest::Method::GET, "/readyz").timeout(Duration::from_secs(2));
        if Client::send(ready).await.is_some_and(|answer| answer.status == 200) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

/// How it ended, if it does within that time.
#[expect(clippy::disallowed_methods, reason = "a run's own patience, not the broker's time")]
pub(crate) async fn ended(broker: &mut Broker, within: Duration) -> Option<ExitStatus> {
    let until = std::time::Instant::now() + within;
    while std::time::Instant::now() < until {
        if let Some(status) = broker.exited() {
            return Some(status);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}
