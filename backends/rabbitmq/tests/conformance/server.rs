//! A throwaway RabbitMQ: loopback only, gone on drop.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Weak},
    time::Duration,
};

use dayfly_backend_sdk::testkit::{self, Disk, free_port};
use tempfile::TempDir;
use tokio::sync::Mutex;

pub(crate) const ADMIN: &str = "root:root";

/// With less than this left it blocks whoever publishes.
const FREE_MIN: u64 = 1_000_000;
/// More than any disk has.
const FREE_NEVER: u64 = 1_000_000_000_000_000;
/// Room for its database, a hundred times.
const DISK_MEBIBYTES: u32 = 64;

pub(crate) struct Server {
    directory: TempDir,
    pub(crate) amqp: u16,
    pub(crate) management: u16,
    pub(crate) management_tls: u16,
    distribution: u16,
    epmd: u16,
    /// What its database lies on, where that is another than the machine's.
    disk: Option<Disk>,
    children: Vec<Child>,
}

/// Alive as long as a test uses it, so that the last one stops it.
static SHARED: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());

impl Server {
    /// The server that is running, or a new one.
    pub(crate) async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *shared = Arc::downgrade(&server);
        server
    }

    pub(crate) fn start() -> Self {
        Self::over(None, FREE_MIN)
    }

    /// One that thinks that its disk is nearly full.
    pub(crate) fn in_alarm() -> Self {
        Self::over(None, FREE_NEVER)
    }

    /// One with a disk of its own, which can be filled.
    pub(crate) fn on_small_disk() -> Self {
        let disk = Disk::new(DISK_MEBIBYTES);
        assert!(disk.is_small(), "this test needs root, to mount a small disk");
        Self::over(Some(disk), FREE_MIN)
    }

    pub(crate) fn disk(&self) -> &Disk {
        self.disk.as_ref().unwrap()
    }

    fn over(disk: Option<Disk>, free_min: u64) -> Self {
        let directory = tempfile::Builder::new().prefix("dfmq").tempdir_in("/tmp").unwrap();
        let mut server = Self {
            directory,
            amqp: free_port(),
            management: free_port(),
            management_tls: free_port(),
            distribution: free_port(),
            epmd: free_port(),
            disk,
            children: Vec::new(),
        };
        testkit::certify(server.directory.path());
        fs::write(server.path("plugins"), "[rabbitmq_management].").unwrap();
        let place = server.directory.path().display().to_string();
        let settings = format!(
            "loopback_users = none\ndefault_user = root\ndefault_pass = root\n\
             disk_free_limit.absolute = {free_min}\nlog.file.level = debug\n\
             management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n\
             management.ssl.ip = 127.0.0.1\nmanagement.ssl.port = {}\n\
             management.ssl.cacertfile = {place}/ca.pem\n\
             management.ssl.certfile = {place}/server.pem\n\
             management.ssl.keyfile = {place}/server.key\n",
            server.management, server.management_tls
        );
        fs::write(server.path("rabbitmq.conf"), settings).unwrap();
        server.resume();
        server
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where its database is.
    fn database(&self) -> PathBuf {
        self.disk.as_ref().map_or(self.directory.path(), Disk::path).join("mnesia")
    }

    /// Everything that it has written: logs, and the database of its users.
    pub(crate) fn written(&self) -> String {
        let mut text = String::new();
        let mut rest = vec![self.path("log"), self.database()];
        while let Some(path) = rest.pop() {
            if path.is_dir() {
                rest.extend(fs::read_dir(path).unwrap().flatten().map(|entry| entry.path()));
            } else if let Ok(bytes) = fs::read(path) {
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        text
    }

    /// What the management API answers to the tests' own user.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> (String, String) {
        let url = format!("http://127.0.0.1:{}/api/{path}", self.management);
        let mut command = Command::new("curl");
        command.args(["-s", "-u", ADMIN, "-X", method, "-w", "\n%{http_code}", &url]);
        command.args(["-H", "content-type: application/json", "-d", body]);
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let (body, status) = output.rsplit_once('\n').unwrap();
        (status.to_owned(), body.to_owned())
    }

    /// Starts it on what it has on its disk.
    pub(crate) fn resume(&mut self) {
        // Ours, so that it does not stay behind as a daemon of the machine.
        let epmd = epmd();
        let mut command = Command::new(epmd);
        command.args(["-port", &self.epmd.to_string(), "-address", "127.0.0.1"]);
        self.children.push(command.stderr(Stdio::null()).spawn().unwrap());
        let log = fs::File::create(self.path("out")).unwrap();
        let mut command = Command::new(program());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.directory.path());
        command.env("RABBITMQ_NODENAME", format!("dayfly{}@localhost", self.amqp));
        command.env("RABBITMQ_NODE_PORT", self.amqp.to_string());
        command.env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1");
        command.env("RABBITMQ_DIST_PORT", self.distribution.to_string());
        command.env("ERL_EPMD_PORT", self.epmd.to_string());
        command.env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
        command.env("RABBITMQ_MNESIA_BASE", self.database());
        // What it leaves behind when it breaks down.
        command.current_dir(self.directory.path()).env("ERL_CRASH_DUMP_SECONDS", "0");
        for (variable, name) in [
            ("LOG_BASE", "log"),
            ("ENABLED_PLUGINS_FILE", "plugins"),
            ("CONFIG_FILE", "rabbitmq.conf"),
        ] {
            command.env(format!("RABBITMQ_{variable}"), self.path(name));
        }
        command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        self.children.push(command.spawn().unwrap());
        for _ in 0..600 {
            if self.ask("GET", "overview", "").0 == "200" {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{}", fs::read_to_string(self.path("out")).unwrap());
    }

    /// Kills it on the spot.
    pub(crate) fn kill(&mut self) {
        for mut child in self.children.drain(..).rev() {
            // The server's shell has the emulator for a child.
            let id = child.id().to_string();
            Command::new("pkill").args(["-KILL", "-P", &id]).status().ok();
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/rabbitmq/lib").into_iter().flatten().flatten();
    let found = versions.map(|entry| entry.path().join("sbin/rabbitmq-server"));
    found
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("install the Debian package `rabbitmq-server`"))
}

fn epmd() -> PathBuf {
    Path::new("/usr/bin/epmd").to_owned()
}
