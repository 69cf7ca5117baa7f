//! A throwaway node: TCP on loopback, users in an ACL file, gone on drop.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use dayfly_backend_sdk::testkit::{self, Disk, free_port};
use tempfile::TempDir;

pub(crate) const ADMIN_PASSWORD: &str = "correct horse";

/// Dayfly's user as the README asks for it, the tests' own, and one that lacks a right.
const USERS: &str = "user default off\n\
    user root on >root ~* &* +@all\n\
    user dayfly on >DAYFLY ~df_* resetchannels -@all +acl|setuser +acl|deluser +acl|getuser \
    +acl|users +acl|save +client|list +set +exists +watch +multi +exec +del +time \
    +select +ping\n\
    user bare on >DAYFLY ~df_* resetchannels -@all +acl|getuser +set +exists +watch +multi +exec\n";

pub(crate) struct Node {
    directory: TempDir,
    pub(crate) port: u16,
    more: Vec<String>,
    /// Unmounted after the directory on it is gone.
    disk: Option<Disk>,
    child: Option<Child>,
}

impl Node {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// A node with more of a configuration.
    pub(crate) fn with(more: &[&str]) -> Self {
        Self::over(None, more)
    }

    /// A node with a disk of its own, which can be filled.
    pub(crate) fn on_small_disk() -> Self {
        let disk = Disk::new(8);
        assert!(disk.is_small(), "this test needs root, to mount a small disk");
        Self::over(Some(disk), &[])
    }

    pub(crate) fn disk(&self) -> &Disk {
        self.disk.as_ref().unwrap()
    }

    fn over(disk: Option<Disk>, more: &[&str]) -> Self {
        let place = disk.as_ref().map_or(Path::new("/tmp"), Disk::path);
        let directory = tempfile::Builder::new().prefix("dfrd").tempdir_in(place).unwrap();
        let users = USERS.replace("DAYFLY", &ADMIN_PASSWORD.replace(' ', "-"));
        fs::write(directory.path().join("users.acl"), users).unwrap();
        let more = more.iter().map(|&word| word.to_owned()).collect();
        let mut node = Self { directory, port: free_port(), more, disk, child: None };
        node.resume();
        node
    }

    /// A node that is spoken to over TLS only.
    pub(crate) fn over_tls() -> Self {
        let mut node = Self::start();
        node.kill();
        testkit::certify(node.directory.path());
        node.resume();
        node
    }

    /// Starts it on what it has on its disk.
    pub(crate) fn resume(&mut self) {
        let mut command = Command::new(program());
        let port = self.port.to_string();
        command.args([
            "--bind",
            "127.0.0.1",
            "127.0.0.2",
            "--port",
            &port,
            "--save",
            "",
            "--loglevel",
            "debug",
        ]);
        command.arg("--dir").arg(self.directory.path()).args(["--logfile", "log"]);
        if !self.more.iter().any(|word| word == "no-aclfile") {
            command.arg("--aclfile").arg(self.path("users.acl"));
        }
        if self.path("server.key").exists() {
            command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]);
            let files = [("cert", "server.pem"), ("key", "server.key"), ("ca-cert", "ca.pem")];
            for (what, name) in files {
                command.arg(format!("--tls-{what}-file")).arg(self.path(name));
            }
        }
        command.args(self.more.iter().filter(|word| *word != "no-aclfile"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("redis-server is installed"));
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the node does not listen: {}", self.log());
    }

    /// Kills it on the spot.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// `host:port`.
    pub(crate) fn place(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Asks as the tests' own user, which may everything.
    pub(crate) async fn root<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let url = format!("redis://root:root@{}/", self.place());
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let (first, rest) = words.split_first().unwrap();
        redis::cmd(first).arg(rest).query_async(&mut connection).await.unwrap()
    }
}

/// What `DAYFLY_TEST_REDIS` says, or the machine's own.
#[expect(clippy::disallowed_methods, reason = "the suite can be pointed at another server")]
fn program() -> PathBuf {
    std::env::var_os("DAYFLY_TEST_REDIS").map_or_else(|| "redis-server".into(), PathBuf::from)
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
