//! nginx, which reads its configuration when it is told to: a key in it is replaced under load.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use dayfly_integration::{Answer, Broker, BrokerConfig, Client, Store, eventually, free_port};
use tempfile::TempDir;

use crate::injector::{self, prepared};

/// Keys that end soon.
const SHORT: &str = "[[role]]\nname = \"short\"\nbackend = \"keys\"\nowner = \"test\"\nttl = \"8s\"\n\
                     ttl_max = \"12s\"\ntemplate = { scopes = [\"greet\"] }\n";

/// What of the configuration has the key.
const TEMPLATE: &str = "proxy_set_header Authorization \"Bearer {{ short.key }}\";\n";

/// Everything that nginx writes is in its prefix. A connection serves one request, so that none is
/// closed under a client when a worker is replaced.
const CONFIGURATION: &str = "daemon off;
worker_processes 2;
pid nginx.pid;
error_log stderr;
events { worker_connections 64; }
http {
    access_log off;
    keepalive_timeout 0;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen 127.0.0.1:PORT;
        location / {
            proxy_pass UPSTREAM/verify;
            include secrets/key.conf;
        }
    }
}
";

/// nginx in front of what the broker says about a key, with the files that it needs.
struct Proxy {
    broker: Broker,
    home: TempDir,
    port: u16,
    client: Client,
}

/// The injector, which takes nginx with it when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            tell("TERM", &self.0);
            drop(self.0.wait());
        }
    }
}

fn tell(signal: &str, child: &Child) {
    let mut kill = Command::new("kill");
    assert!(kill.args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
}

impl Proxy {
    async fn new() -> Self {
        let mut config = BrokerConfig::new(Store::Sqlite, None);
        config.more.push_str(SHORT);
        let broker = Broker::start(config).await;
        let home = tempfile::Builder::new().prefix("dfn").tempdir().unwrap();
        let port = free_port();
        let text = CONFIGURATION.replace("PORT", &port.to_string());
        let text = text.replace("UPSTREAM", broker.client().url());
        fs::write(home.path().join("nginx.conf"), text).unwrap();
        fs::write(home.path().join("key.conf.in"), TEMPLATE).unwrap();
        let client = Client::new(&format!("http://127.0.0.1:{port}"));
        Self { broker, home, port, client }
    }

    /// nginx, told by HUP of each new key.
    async fn start(&self) -> Running {
        let home = format!("{}/", self.home.path().display());
        let (secrets, source) = (format!("{home}secrets"), format!("key.conf=@{home}key.conf.in"));
        let options = ["--file-dir", &secrets, "--file", &source, "--on-rotate", "signal:HUP"];
        let options = [&options[..], &["--overlap", "3s"]].concat();
        let nginx = ["nginx", "-p", &home, "-c", "nginx.conf", "-e", "stderr"];
        let mut command = prepared(&self.broker, Path::new("/usr/sbin"), &options, &nginx);
        let log = fs::File::create(self.home.path().join("log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let running = Running(child);
        eventually("nginx listens", Duration::from_secs(30), async || {
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        })
        .await;
        running
    }

    /// What a request through nginx is answered.
    async fn ask(&self) -> Answer {
        let answer = self.client.get("/").await;
        answer.unwrap_or_else(|| panic!("no answer:\n{}", self.log()))
    }

    /// What the broker says about the key in the file, asked directly.
    async fn verify(&self, key: &str) -> u16 {
        self.broker.client().with(key).get("/verify").await.unwrap().status
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap()
    }

    /// The master, and who works for it.
    fn processes(&self) -> Vec<String> {
        let master = fs::read_to_string(self.home.path().join("nginx.pid")).unwrap();
        let mut ps = Command::new("ps");
        let output = ps.args(["-o", "pid=", "--ppid", master.trim()]).output().unwrap();
        let workers = String::from_utf8(output.stdout).unwrap();
        let workers = workers.lines().map(|line| line.trim().to_owned());
        workers.chain([master.trim().to_owned()]).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_takes_a_new_key_by_a_signal_and_no_request_has_a_dead_one() {
    let proxy = Proxy::new().await;
    let mut running = proxy.start().await;
    // By the lease of each request's key. The first one is dead when the third has come.
    let mut leases = BTreeSet::new();
    eventually("nginx has had three keys", Duration::from_mins(2), async || {
        let answer = proxy.ask().await;
        assert_eq!(answer.status, 200, "{}\n{}", answer.text, proxy.log());
        leases.insert(answer.header("x-dayfly-lease").to_owned());
        (leases.len() == 3).then_some(())
    })
    .await;

    let text = fs::read_to_string(proxy.home.path().join("secrets/key.conf")).unwrap();
    let key = text.split(['"', ' ']).find(|word| word.starts_with("dfk_")).unwrap();
    assert_eq!(proxy.verify(key).await, 200);
    let processes = proxy.processes();
    assert!(processes.len() >= 3, "a master and two workers: {processes:?}");
    tell("TERM", &running.0);
    let status = eventually("the injector ends", Duration::from_mins(1), async || {
        running.0.try_wait().unwrap()
    })
    .await;
    assert_eq!(status.code(), Some(0), "nginx's own answer to TERM\n{}", proxy.log());
    assert_eq!(proxy.verify(key).await, 401);
    let ended = injector::leases(&proxy.broker).await;
    assert!(ended.iter().all(|lease| lease["state"] == "revoked"), "{ended:?}");
    assert!(ended.len() >= leases.len(), "{ended:?}");
    for process in processes {
        assert!(!Path::new("/proc").join(&process).exists(), "{process} is left");
    }
    assert!(TcpStream::connect(("127.0.0.1", proxy.port)).is_err());
    assert!(!proxy.home.path().join("secrets").exists());
}
