//! Throwaway servers: MariaDB from the machine, MySQL as `integration/unpack` laid it out; TCP
//! with TLS on loopback, gone on drop.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Weak},
    time::Duration,
};

use dayfly_backend_mysql::Server as Kind;
use dayfly_backend_sdk::testkit::{self, Disk, free_port};
use sqlx::{
    Connection, MySqlConnection,
    mysql::{MySqlConnectOptions, MySqlSslMode},
};
use tempfile::TempDir;
use tokio::sync::Mutex;

/// Room for the logs that both set aside, the tables and some more.
const DISK_MEBIBYTES: u32 = 512;

pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    directory: TempDir,
    /// What its tables lie on, where that is another than the machine's.
    disk: Option<Disk>,
    child: Option<Child>,
}

/// Alive as long as a test uses it, so that the last one stops it.
static MYSQL: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());
static MARIADB: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());

impl Server {
    /// The server that is running, or a new one after `setup`.
    pub(crate) async fn shared(kind: Kind, setup: impl AsyncFnOnce(&Self)) -> Arc<Self> {
        let shared = if kind == Kind::Mysql { &MYSQL } else { &MARIADB };
        let mut shared = shared.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start(kind));
        setup(&server).await;
        *shared = Arc::downgrade(&server);
        server
    }

    /// A new one of its own.
    pub(crate) fn start(kind: Kind) -> Self {
        Self::over(None, kind)
    }

    /// One with a disk of its own, which can be filled.
    pub(crate) fn on_small_disk(kind: Kind) -> Self {
        let disk = Disk::new(DISK_MEBIBYTES);
        assert!(disk.is_small(), "this test needs root, to mount a small disk");
        Self::over(Some(disk), kind)
    }

    pub(crate) fn disk(&self) -> &Disk {
        self.disk.as_ref().unwrap()
    }

    fn over(disk: Option<Disk>, kind: Kind) -> Self {
        // Short, since the path of a socket holds 107 bytes.
        let directory = tempfile::Builder::new().prefix("dfmy").tempdir_in("/tmp").unwrap();
        let mut server = Self { kind, port: free_port(), directory, disk, child: None };
        fs::create_dir(server.path("empty")).unwrap();
        testkit::certify(server.directory.path());
        server.initialize();
        server.resume();
        server
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn data(&self) -> PathBuf {
        let place = self.disk.as_ref().map_or(self.directory.path(), Disk::path);
        place.join("data")
    }

    /// What it logs, every statement that it was told included.
    pub(crate) fn logs(&self) -> String {
        let read = |name| fs::read(self.path(name)).unwrap_or_default();
        String::from_utf8_lossy(&[read("general.log"), read("error.log")].concat()).into_owned()
    }

    /// As the tests' own account, which may everything.
    pub(crate) async fn admin(&self) -> MySqlConnection {
        let options = plain().host("127.0.0.1").port(self.port).username("root");
        let options = options.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca(self.path("ca.pem"));
        MySqlConnection::connect_with(&options).await.unwrap()
    }

    /// Starts it on what it has on its disk.
    pub(crate) fn resume(&mut self) {
        let log = fs::File::create(self.path("out")).unwrap();
        let mut command = self.program();
        let set = |name: &str, value: &Path| format!("--{name}={}", value.display());
        command.args([
            set("socket", &self.path("s")),
            set("pid-file", &self.path("pid")),
            set("log-error", &self.path("error.log")),
            set("general-log-file", &self.path("general.log")),
            set("ssl-ca", &self.path("ca.pem")),
            set("ssl-cert", &self.path("server.pem")),
            set("ssl-key", &self.path("server.key")),
            format!("--port={}", self.port),
        ]);
        command.args(["--bind-address=127.0.0.1", "--general-log=ON"]);
        command.args(["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M"]);
        if self.kind == Kind::Mysql {
            command.args(["--mysqlx=OFF", "--skip-log-bin"]);
        }
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        for _ in 0..3_000 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server does not listen: {}", self.logs());
    }

    /// Kills it on the spot.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Has it stand still, so that it answers nothing, and go on.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        run(Command::new("kill").args([&format!("-{name}"), &id]));
    }

    fn program(&self) -> Command {
        let mut command = match self.kind {
            Kind::Mariadb => Command::new("mariadbd"),
            Kind::Mysql => {
                let place =
                    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integration/.peers/mysql");
                let root = place.join("root");
                assert!(
                    place.join("done").exists(),
                    "run `integration/unpack mysql sid mysql-server-core`"
                );
                let mut command = Command::new(root.join("usr/sbin/mysqld"));
                let share = root.join("usr/share/mysql");
                command.args([
                    "--no-defaults".to_owned(),
                    format!("--lc-messages-dir={}", share.display()),
                ]);
                command.arg(format!("--character-sets-dir={}", share.join("charsets").display()));
                command
                    .arg(format!("--plugin-dir={}", root.join("usr/lib/mysql/plugin").display()));
                command.arg("--secure-file-priv=");
                command
            }
        };
        if self.kind == Kind::Mariadb {
            command.arg("--no-defaults");
        }
        if is_root() {
            command.arg("--user=root");
        }
        command.arg(format!("--datadir={}", self.data().display()));
        // A server that starts clears this of temporary tables, others' too.
        command.env("TMPDIR", self.directory.path());
        command
    }

    fn initialize(&self) {
        match self.kind {
            Kind::Mysql => run(self.program().args(["--initialize-insecure", "--skip-log-bin"])),
            Kind::Mariadb => {
                let mut command = Command::new("mariadb-install-db");
                command.args([
                    "--no-defaults",
                    "--skip-test-db",
                    "--auth-root-authentication-method=normal",
                ]);
                if is_root() {
                    command.arg("--user=root");
                }
                command.env("TMPDIR", self.directory.path());
                run(command.arg(format!("--datadir={}", self.data().display())));
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Options without the driver's own statements.
pub(crate) fn plain() -> MySqlConnectOptions {
    MySqlConnectOptions::new()
        .ssl_mode(MySqlSslMode::Disabled)
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .statement_cache_capacity(0)
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}
