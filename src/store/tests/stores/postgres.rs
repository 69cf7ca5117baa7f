//! PostgreSQL, a throwaway server of its own.

use std::{path::PathBuf, process::Command, sync::Arc, time::Duration};

use dayfly_backend_sdk::Secret;
use dayfly_lease::{
    Refusal, ReplicaId, Store, StoreError, TaskId, Write, Written,
    audit::Entry,
    quota::{Measure, Quota},
    spawn,
};
use dayfly_store::{AnyStore, PostgresOptions, PostgresStore, verify};
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::{clock, conforms, incarnation};

/// A server that ends with the test.
struct Server {
    directory: TempDir,
    bin: PathBuf,
}

impl Server {
    fn start() -> Self {
        let bin = newest().expect("PostgreSQL is installed (Debian: postgresql)");
        let directory = tempfile::Builder::new().prefix("dfs").tempdir_in("/tmp").unwrap();
        let server = Self { directory, bin };
        let path = server.directory.path();
        if is_root() {
            let chown = Command::new("chown").arg("postgres:postgres").arg(path).status().unwrap();
            assert!(chown.success());
        }
        let data = path.join("data");
        let data = data.to_str().unwrap();
        let initdb = ["-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"];
        server.run("initdb", &[&initdb[..], &["--locale=C.UTF-8", "--no-instructions"]].concat());
        let options = format!("-c listen_addresses= -k {} -c fsync=off", path.display());
        let log = format!("{data}/log");
        server.run("pg_ctl", &["-D", data, "-w", "-s", "-l", &log, "-o", &options, "start"]);
        server
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.bin.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        let status = command
            .args(arguments)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{arguments:?}");
    }

    fn options(&self) -> PostgresOptions {
        let host = self.directory.path().display();
        let url = Secret::new(format!("postgres://postgres@localhost/postgres?host={host}"));
        PostgresOptions { url, connections_max: 8 }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.directory.path().join("data");
        self.run("pg_ctl", &["-D", data.to_str().unwrap(), "-m", "immediate", "-s", "stop"]);
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt;
        own.uid() == 0
    })
}

fn newest() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut versions: Vec<u32> =
        versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable();
    Some(PathBuf::from(format!("/usr/lib/postgresql/{}/bin", versions.last()?)))
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_conforms() {
    let server = Server::start();
    let store = PostgresStore::open(&server.options(), incarnation(), clock()).await.unwrap();
    conforms(AnyStore::Postgres(store)).await;
}

/// Two replicas on one database: the suite runs on both at once, each with its own chain.
#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_conform_side_by_side() {
    let server = Server::start();
    let one = PostgresStore::open(&server.options(), incarnation(), clock()).await.unwrap();
    let two = PostgresStore::open(&server.options(), incarnation(), clock()).await.unwrap();
    let run = dayfly_lease::conformance::run_beside_others;
    tokio::join!(run(one.clone()), run(two));
    let signer = incarnation().signer;
    let store = AnyStore::Postgres(one);
    let report = verify(&store, signer.public_key(), &[]).await.unwrap();
    assert!(report.holds(), "{:?}", report.faults);
    assert_eq!(report.chains, 2);
}

/// The connection dies under the writer; what comes after is written by a new one, and the
/// chain has neither a gap nor a fork.
#[tokio::test(flavor = "multi_thread")]
async fn the_writer_outlives_its_connection() {
    let server = Server::start();
    let incarnation = incarnation();
    let signer = incarnation.signer.clone();
    let store = PostgresStore::open(&server.options(), incarnation, clock()).await.unwrap();
    let admin = PgPool::connect(server.options().url.expose()).await.unwrap();
    let mut written = 0;
    for round in 0..20 {
        if round % 4 == 3 {
            sqlx::query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = 'dayfly'",
            )
            .execute(&admin)
            .await
            .unwrap();
        }
        let note = Write::Note(Entry::new("test.note", "alice"));
        written += u32::from(store.write(note).await.is_ok());
    }
    assert!(written >= 15, "{written} of 20 notes were written");
    let store = AnyStore::Postgres(Arc::clone(&store));
    let report = verify(&store, signer.public_key(), &[]).await.unwrap();
    assert!(report.holds(), "{:?}", report.faults);
    assert!(report.records > u64::from(written), "every acknowledged note is in the log");
}

/// Two replicas get the same idempotency key at the same time: one mints, the other is told
/// that the first is in progress (at most one live credential per key).
#[tokio::test(flavor = "multi_thread")]
async fn one_key_at_two_replicas_is_one_mint() {
    let server = Server::start();
    let one = PostgresStore::open(&server.options(), incarnation(), clock()).await.unwrap();
    let two = PostgresStore::open(&server.options(), incarnation(), clock()).await.unwrap();
    let task = super::task(one.as_ref(), 9).await;
    for round in 0..25 {
        let key = || {
            let key = format!("key-{round}");
            Some(dayfly_lease::IdempotencyKey { key, request: [1; 32] })
        };
        let intents = [
            super::intent(one.as_ref(), task, "b", key()).await,
            super::intent(two.as_ref(), task, "b", key()).await,
        ];
        let [first, second] = intents.map(|intent| Write::Intend(Box::new(intent)));
        let (first, second) = tokio::join!(one.write(first), two.write(second));
        let refused = [first, second].into_iter().filter_map(Result::err);
        let refused: Vec<_> = refused.map(|error| error.refusal()).collect();
        assert_eq!(refused, [Some(Refusal::InProgress)], "round {round}");
    }
}

/// Two replicas at their quota's edge: together they mint as many as it says. What they ask for
/// names two quotas in either order, so that locks of their own would wait in a circle.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_their_quotas() {
    let server = Server::start();
    let one = PostgresStore::open(&server.options(), incarnation(), clock()).await.unwrap();
    let two = PostgresStore::open(&server.options(), incarnation(), clock()).await.unwrap();
    let task = super::task(one.as_ref(), 9).await;
    for (round, most) in [1, 7, 20].into_iter().enumerate() {
        let mut asked = Vec::new();
        for number in 0..60 {
            let store = if number % 2 == 0 { &one } else { &two };
            let backend = format!("b{round}{}", number % 3);
            let mut intent = super::intent(store.as_ref(), task, &backend, None).await;
            intent.role = format!("r{round}");
            intent.quotas = vec![
                Quota { measure: Measure::RoleLiving, most },
                Quota { measure: Measure::BackendLiving, most: 5 },
            ];
            if number % 4 < 2 {
                intent.quotas.reverse();
            }
            let store = Arc::clone(store);
            let write = Write::Intend(Box::new(intent));
            asked.push(spawn(async move { store.write(write).await }));
        }
        let mut minted = 0;
        for one in asked {
            match one.await.unwrap() {
                Ok(_) => minted += 1,
                Err(error) => {
                    let refusal = error.refusal();
                    assert!(matches!(refusal, Some(Refusal::Quota(_))), "{error:?}");
                }
            }
        }
        // Three backends, and five at each.
        assert_eq!(minted, most.min(15), "round {round}");
    }
}

/// The server forgets a commit that it had called durable: the chain in memory is ahead of the
/// one in the database. The writer reads it back and goes on there, but minting is suspended:
/// what else was lost, nobody here knows.
#[tokio::test(flavor = "multi_thread")]
async fn the_writer_goes_on_where_the_database_really_is() {
    let server = Server::start();
    let incarnation = incarnation();
    let signer = incarnation.signer.clone();
    let store = PostgresStore::open(&server.options(), incarnation, clock()).await.unwrap();
    let note = || store.write(Write::Note(Entry::new("test.note", "alice")));
    note().await.unwrap();
    let admin = PgPool::connect(server.options().url.expose()).await.unwrap();
    let head: (i64, Vec<u8>) =
        sqlx::query_as("SELECT seq, hash FROM audit_chains").fetch_one(&admin).await.unwrap();
    note().await.unwrap();
    // As if the second note had been lost with the server.
    sqlx::query("DELETE FROM audit_records WHERE seq > $1")
        .bind(head.0)
        .execute(&admin)
        .await
        .unwrap();
    sqlx::query("UPDATE audit_chains SET seq = $1, hash = $2")
        .bind(head.0)
        .bind(&head.1)
        .execute(&admin)
        .await
        .unwrap();
    note().await.unwrap();
    note().await.unwrap();
    let suspended = store.standing().await.unwrap().suspended.unwrap();
    assert!(suspended.reason.contains("lost commits"), "{}", suspended.reason);
    let any = AnyStore::Postgres(Arc::clone(&store));
    let report = verify(&any, signer.public_key(), &[]).await.unwrap();
    assert!(report.holds(), "{:?}", report.faults);
    assert_eq!(report.records, 5, "opened, three notes, and that it was suspended");
    // Said once, and not again when somebody has looked.
    let resume = Write::Resume { actor: "alice".into(), turns: Vec::new() };
    store.write(resume).await.unwrap();
    note().await.unwrap();
    assert_eq!(store.standing().await.unwrap().suspended, None);
}

/// A row that cannot be read is put aside; the others are still claimed (I12).
#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_stops_nobody() {
    let server = Server::start();
    let store = PostgresStore::open(&server.options(), incarnation(), clock()).await.unwrap();
    let (bad, good) = super::two_condemned(store.as_ref(), "one").await;
    let admin = PgPool::connect(server.options().url.expose()).await.unwrap();
    sqlx::query("UPDATE leases SET belts = '{no_such_belt}' WHERE id = $1")
        .bind(bad.uuid())
        .execute(&admin)
        .await
        .unwrap();
    assert_eq!(super::claimed(store.as_ref(), "one").await, [good]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_task_leaves_no_other_of_its_job_open() {
    let server = Server::start();
    let store = PostgresStore::open(&server.options(), incarnation(), clock()).await.unwrap();
    let admin = PgPool::connect(server.options().url.expose()).await.unwrap();
    let damage = async |task: TaskId| {
        let sql = "UPDATE tasks SET run = 'not a key' WHERE id = $1";
        sqlx::query(sql).bind(task.uuid()).execute(&admin).await.unwrap();
    };
    super::a_job_ends_beside_a_bad_row(store, damage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tasks_leave_no_other_of_their_identity_open() {
    let server = Server::start();
    let store = PostgresStore::open(&server.options(), incarnation(), clock()).await.unwrap();
    let admin = PgPool::connect(server.options().url.expose()).await.unwrap();
    let damage = async |task: TaskId| {
        let sql = "UPDATE tasks SET run = 'not a key' WHERE id = $1";
        sqlx::query(sql).bind(task.uuid()).execute(&admin).await.unwrap();
    };
    super::an_identity_ends_beside_bad_rows(store, damage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_and_the_end_of_its_job_do_not_miss_each_other() {
    let server = Server::start();
    let two = Two::open(&server).await;
    two.the_end_waits_for_an_opening().await;
    two.an_opening_waits_for_the_end().await;
}

/// Whoever runs the database may have given it another default, under which what a transaction
/// reads behind a lock is older than the lock.
#[tokio::test(flavor = "multi_thread")]
async fn nor_do_they_where_the_database_isolates_more() {
    let server = Server::start();
    let admin = PgPool::connect(server.options().url.expose()).await.unwrap();
    let sql = "ALTER DATABASE postgres SET default_transaction_isolation = 'repeatable read'";
    sqlx::query(sql).execute(&admin).await.unwrap();
    let two = Two::open(&server).await;
    two.the_end_waits_for_an_opening().await;
    two.an_opening_waits_for_the_end().await;
}

/// Two replicas, the first of which can be held just before it commits.
struct Two {
    first: Arc<PostgresStore>,
    chain: ReplicaId,
    second: Arc<PostgresStore>,
    admin: PgPool,
}

type Writing = JoinHandle<Result<Written, StoreError>>;

impl Two {
    async fn open(server: &Server) -> Self {
        let incarnations = (incarnation(), incarnation());
        let chain = incarnations.0.replica;
        let first = PostgresStore::open(&server.options(), incarnations.0, clock()).await.unwrap();
        let second = PostgresStore::open(&server.options(), incarnations.1, clock()).await.unwrap();
        let admin = PgPool::connect(server.options().url.expose()).await.unwrap();
        Self { first, chain, second, admin }
    }

    async fn the_end_waits_for_an_opening(&self) {
        let opening = super::opening(self.first.as_ref(), 1, super::job()).await;
        let end = Write::CloseJob { ended: Box::new(super::job_end(10)), after: None };
        let (opened, closed) = self.one_before_the_other(opening, end).await;
        let task = super::opened(opened);
        let Written::JobClosed { closed, .. } = closed.unwrap() else { panic!("not a job's end") };
        let closed: Vec<TaskId> = closed.into_iter().map(|one| one.task.id).collect();
        assert_eq!(closed, [task], "the end has missed the task");
        self.forget().await;
    }

    async fn an_opening_waits_for_the_end(&self) {
        // It has something to say, so that it has its turn at the audit chain.
        let before = super::opening(self.first.as_ref(), 2, super::job()).await;
        super::opened(self.first.write(before).await);
        let end = Write::CloseJob { ended: Box::new(super::job_end(10)), after: None };
        let opening = super::opening(self.first.as_ref(), 3, super::job()).await;
        let (closed, opened) = self.one_before_the_other(end, opening).await;
        closed.unwrap();
        let refusal = opened.unwrap_err().refusal();
        assert_eq!(refusal, Some(Refusal::JobEnded), "the task has missed the end");
        self.forget().await;
    }

    /// Holds the one before it commits, until the other waits for it.
    async fn one_before_the_other(
        &self,
        one: Write,
        other: Write,
    ) -> (Result<Written, StoreError>, Result<Written, StoreError>) {
        // Whoever writes an audit record moves its replica's head on, last of all.
        let mut holding = self.admin.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM audit_chains WHERE chain = $1 FOR UPDATE")
            .bind(self.chain.uuid())
            .execute(&mut *holding)
            .await
            .unwrap();
        let one = write(&self.first, one);
        self.waiting("transactionid").await;
        let other = write(&self.second, other);
        self.waiting("advisory").await;
        holding.rollback().await.unwrap();
        (one.await.unwrap(), other.await.unwrap())
    }

    /// Waits until one of the replicas waits for such a lock, for less than it would wait itself.
    async fn waiting(&self, lock: &str) {
        let sql = "SELECT count(*) FROM pg_stat_activity
            WHERE application_name = 'dayfly' AND wait_event_type = 'Lock' AND wait_event = $1";
        for _ in 0..100 {
            let found: i64 =
                sqlx::query_scalar(sql).bind(lock).fetch_one(&self.admin).await.unwrap();
            if found > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody waits for a lock of the kind {lock}");
    }

    /// The job has not ended.
    async fn forget(&self) {
        sqlx::query("DELETE FROM ended_jobs").execute(&self.admin).await.unwrap();
    }
}

fn write(store: &Arc<PostgresStore>, write: Write) -> Writing {
    let store = Arc::clone(store);
    spawn(async move { store.write(write).await })
}
