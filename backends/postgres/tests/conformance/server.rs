//! A throwaway PostgreSQL: a socket, and TLS on loopback; passwords for everyone but `postgres`;
//! gone on drop. And a PgBouncer in front of it.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    sync::{Arc, Weak},
    time::Duration,
};

use dayfly_backend_sdk::testkit::{self, Disk, eventually, free_port};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;
use tokio::sync::Mutex;

const HBA: &str = "local all postgres trust\nlocal all all scram-sha-256\n\
    hostssl all all 127.0.0.1/8 scram-sha-256\n";
const SETTINGS: &str = "listen_addresses = '127.0.0.1,127.0.0.2'\nssl = on\nfsync = off\nsynchronous_commit = off\n\
    full_page_writes = off\nshared_buffers = 16MB\nmax_connections = 200\nlog_statement = all\n";

/// A server that breaks down must not lose what it answered, and must not make room by itself: a
/// checkpoint would free files of its log.
const DURABLE: &str = "synchronous_commit = on\nautovacuum = off\ncheckpoint_timeout = 1h\n\
    max_wal_size = 1GB\nmin_wal_size = 2MB\n";
/// Room for what `initdb` makes, and to spare.
const DISK_MEBIBYTES: u32 = 128;

/// What lies on a small disk of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Small {
    Tables,
    Log,
}

pub(crate) struct Server {
    pub(crate) port: u16,
    directory: TempDir,
    data: PathBuf,
    programs: PathBuf,
    disk: Option<Disk>,
}

/// Alive as long as a test uses it, so that the last one stops it.
static SHARED: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());

impl Server {
    /// The server that is running, or a new one after `setup`.
    pub(crate) async fn shared(setup: impl AsyncFnOnce(&Self)) -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start(None));
        setup(&server).await;
        *shared = Arc::downgrade(&server);
        server
    }

    /// One of its own, for what would be in the way of others.
    pub(crate) fn of_its_own() -> Self {
        Self::start(None)
    }

    /// One of its own, with a disk that can be filled.
    pub(crate) fn on_small_disk(small: Small) -> Self {
        Self::start(Some(small))
    }

    pub(crate) fn disk(&self) -> &Disk {
        self.disk.as_ref().unwrap()
    }

    fn start(small: Option<Small>) -> Self {
        let programs = programs();
        // Short, since the path of a socket holds 107 bytes.
        let directory = tempfile::Builder::new().prefix("dfpg").tempdir_in("/tmp").unwrap();
        testkit::certify(directory.path());
        if is_root() {
            // PostgreSQL refuses to run as root, and to read a key that is another's.
            for name in ["", "server.key", "server.pem"] {
                give_away(&directory.path().join(name));
            }
        }
        let disk = small.map(|_| small_disk());
        let on_disk = |what: Small, name: &str| match &disk {
            Some(disk) if small == Some(what) => disk.path().join(name),
            Some(_) | None => directory.path().join(name),
        };
        let (data, wal) = (on_disk(Small::Tables, "data"), on_disk(Small::Log, "wal"));
        let server = Self { port: free_port(), directory, data, programs, disk };
        let init = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"];
        let mut command = server.command("initdb");
        command.args(init).args(["--no-sync", "-D"]).arg(&server.data);
        if small.is_some() {
            // The smallest files that its log can have, so that it soon needs a new one.
            command.arg("--wal-segsize=1").arg("--waldir").arg(wal);
        }
        output(&mut command);
        fs::write(server.data.join("pg_hba.conf"), HBA).unwrap();
        let place = server.directory();
        let durable = if small.is_some() { DURABLE } else { "" };
        let settings = format!(
            "{SETTINGS}{durable}port = {}\nunix_socket_directories = '{place}'\n\
             ssl_cert_file = '{place}/server.pem'\nssl_key_file = '{place}/server.key'\n",
            server.port
        );
        fs::write(server.data.join("postgresql.auto.conf"), settings).unwrap();
        output(&mut server.starting());
        server
    }

    fn starting(&self) -> Command {
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(&self.data).arg("-l").arg(self.path("log")).args(["-ws", "start"]);
        command
    }

    /// Waits until it lets somebody in, and starts it where it has ended by itself, as a service
    /// manager does.
    pub(crate) async fn come_back(&self) {
        eventually("the server is back", async || {
            if self.reach("postgres").await.is_ok() {
                return Some(());
            }
            // Where the old one is still there, this one gives up.
            drop(self.starting().output());
            None
        })
        .await;
    }

    pub(crate) fn directory(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    pub(crate) async fn admin(&self, database: &str) -> PgConnection {
        self.reach(database).await.unwrap()
    }

    /// The same, where it may be down.
    pub(crate) async fn reach(&self, database: &str) -> sqlx::Result<PgConnection> {
        let options = PgConnectOptions::new_without_pgpass().socket(self.directory.path());
        let options = options.port(self.port).username("postgres").password("");
        PgConnection::connect_with(&options.database(database)).await
    }

    pub(crate) fn psql(&self, url: &str, sql: &str) -> String {
        // Not every set of programs has the client.
        let own = self.programs.join("psql");
        let client = if own.exists() { own } else { PathBuf::from("psql") };
        let output = output(Command::new(client).args(["-XAtc", sql, url]));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir("/");
        command
    }
}

/// One that the server's user may write on.
fn small_disk() -> Disk {
    let disk = Disk::new(DISK_MEBIBYTES);
    assert!(disk.is_small(), "this test needs root, to mount a small disk");
    give_away(disk.path());
    disk
}

/// To the user that the server runs as.
fn give_away(path: &Path) {
    let id = |flag| {
        let output = output(Command::new("id").args([flag, "postgres"]));
        String::from_utf8(output.stdout).unwrap().trim().parse().ok()
    };
    std::os::unix::fs::chown(path, id("-u"), id("-g")).unwrap();
}

/// A transaction pooler between us and the server, with the settings of the README.
pub(crate) struct Bouncer {
    pub(crate) port: u16,
    child: Child,
}

impl Bouncer {
    pub(crate) fn before(server: &Server, account: &str, password: &str) -> Self {
        let (port, place) = (free_port(), server.directory());
        let settings = format!(
            "[databases]\n* = host={place} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\npool_mode = transaction\n\
             default_pool_size = 2\nauth_type = scram-sha-256\nauth_file = {place}/users\n\
             auth_user = postgres\nignore_startup_parameters = extra_float_digits\n",
            server.port
        );
        let file = server.path("pgbouncer.ini");
        fs::write(&file, settings).unwrap();
        let users = format!("\"{account}\" \"{password}\"\n\"postgres\" \"\"\n");
        fs::write(server.path("users"), users).unwrap();
        let mut command = Command::new("setpriv");
        if is_root() {
            give_away(&server.path("users"));
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        command.args(["pgbouncer", "-q"]).arg(file);
        let bouncer = Self { port, child: command.spawn().unwrap() };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return bouncer;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("PgBouncer does not listen");
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stop = ["-m", "immediate", "-s", "stop"];
        let stopped = self.command("pg_ctl").arg("-D").arg(&self.data).args(stop).status();
        if !std::thread::panicking() {
            assert!(stopped.unwrap().success());
        }
    }
}

/// Where `initdb` is: what `DAYFLY_TEST_POSTGRES` says, or the newest that is installed.
#[expect(clippy::disallowed_methods, reason = "the suite can be pointed at another version")]
fn programs() -> PathBuf {
    if let Some(programs) = std::env::var_os("DAYFLY_TEST_POSTGRES") {
        return programs.into();
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let installed = versions.map(|entry| entry.path());
    let newest =
        installed.filter(|path| path.join("bin/initdb").exists()).max_by_key(|path| number(path));
    newest
        .expect("this test needs a PostgreSQL server: install the Debian package `postgresql`")
        .join("bin")
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn output(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    output
}
