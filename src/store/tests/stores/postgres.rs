//! PostgreSQL, a throwaway server of its own.

use std::{path::PathBuf, process::Command, sync::Arc};

use dayfly_backend_sdk::Secret;
use dayfly_lease::{Store, Write, audit::Entry};
use dayfly_store::{AnyStore, PostgresOptions, PostgresStore, verify};
use tempfile::TempDir;

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
    let run = dayfly_lease::conformance::run;
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
    let admin = sqlx::PgPool::connect(server.options().url.expose()).await.unwrap();
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

/// A row that cannot be read is put aside; the others are still claimed (I12).
#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_stops_nobody() {
    let server = Server::start();
    let store = PostgresStore::open(&server.options(), incarnation(), clock()).await.unwrap();
    let (bad, good) = super::two_condemned(store.as_ref(), "one").await;
    let admin = sqlx::PgPool::connect(server.options().url.expose()).await.unwrap();
    sqlx::query("UPDATE leases SET belts = '{no_such_belt}' WHERE id = $1")
        .bind(bad.uuid())
        .execute(&admin)
        .await
        .unwrap();
    assert_eq!(super::claimed(store.as_ref(), "one").await, [good]);
}
