//! A Redis user for one task, used by `redis-cli`.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use dayfly_integration::{Broker, BrokerConfig, Store, eventually, free_port};
use tempfile::TempDir;

pub(crate) struct Redis {
    directory: TempDir,
    port: u16,
    child: Child,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("dfr").tempdir_in("/tmp").unwrap();
        let users = "user default off\nuser dayfly on >broker-password ~* &* +@all\n";
        fs::write(directory.path().join("users.acl"), users).unwrap();
        let port = free_port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--logfile", "log", "--port"]);
        command.arg(port.to_string()).arg("--dir").arg(directory.path());
        command.arg("--aclfile").arg(directory.path().join("users.acl"));
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let redis = Self { directory, port, child };
        eventually("it listens", Duration::from_secs(20), async || {
            TcpStream::connect(("127.0.0.1", redis.port)).ok()
        })
        .await;
        redis
    }

    pub(crate) fn backend(&self) -> String {
        format!(
            "[[backend]]\nname = \"cache\"\nkind = \"redis\"\nprefix = \"dc_\"\n\
             nodes = [\"127.0.0.1:{}\"]\nusername = \"dayfly\"\n\
             password = {{ file = \"redis-password\" }}\ntls = \"disable\"\n\
             [[role]]\nname = \"cacher\"\nbackend = \"cache\"\nowner = \"test\"\nttl = \"5m\"\n\
             ttl_max = \"1h\"\n\
             template = {{ commands = [\"+@read\", \"+@write\"], keys = [\"app:*\"] }}\n",
            self.port
        )
    }
}

/// What `redis-cli` says with a credential.
fn say(url: &str, words: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    let output = command.args(["-u", url, "--no-auth-warning"]).args(words).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap().trim().to_owned()
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_user_lives_as_long_as_its_task() {
    let redis = Redis::start().await;
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    config.more.push_str(&redis.backend());
    let mut broker = Broker::configure(config);
    let secrets = broker.config_file().with_file_name("redis-password");
    fs::write(&secrets, "broker-password").unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    broker.resume().await;
    let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let lease = owner.mint("cacher").await.expect(201);
    let (url, handle) = (lease.text("/credential/url"), lease.text("/handle"));
    assert_eq!(say(&url, &["SET", "app:x", "1"]), "OK");
    assert!(say(&url, &["GET", "other"]).contains("NOPERM"));

    // A session that is open when the task ends.
    let mut command = Command::new("redis-cli");
    command.args(["-u", &url, "--no-auth-warning"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut session = command.stderr(Stdio::null()).spawn().unwrap();
    let (mut says, mut hears) =
        (session.stdin.take().unwrap(), BufReader::new(session.stdout.take().unwrap()));
    says.write_all(b"GET app:x\n").unwrap();
    let mut line = String::new();
    hears.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "1");

    let completed = owner.complete(&task, "10s").await.expect(200);
    assert_eq!(completed.text("/state"), "completed");
    assert!(say(&url, &["GET", "app:x"]).contains("WRONGPASS"));
    says.write_all(b"GET app:x\n").unwrap();
    drop(says);
    let mut rest = String::new();
    hears.read_to_string(&mut rest).unwrap();
    session.wait().unwrap();
    assert!(!rest.lines().any(|line| line.trim() == "1"), "the open session went on: {rest}");
    let shown = owner.lease(&lease.text("/id")).await.expect(200);
    assert_eq!(shown.text("/state"), "revoked");
    let kept = fs::read_to_string(redis.directory.path().join("users.acl")).unwrap();
    assert!(!kept.contains(&handle) && kept.contains("dc_marker"), "{kept}");
}
