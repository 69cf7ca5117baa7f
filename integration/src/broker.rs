//! A broker process: the real program with a real configuration.
//!
//! Invariant: its log is written at TRACE to a file, so that any test can look for what must
//! not be in it.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use dayfly_lease::SystemClock;
use dayfly_store::{AnyStore, SqliteOptions, SqliteStore};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Client, Issuer, Postgres, eventually, free_port, program};

/// Where a broker keeps its leases.
#[derive(Clone, Debug)]
pub enum Store {
    /// In a file of its own.
    Sqlite,
    /// In a database, by its URL.
    Postgres(String),
}

/// What a broker is configured with.
#[derive(Debug)]
pub struct BrokerConfig {
    /// Where it keeps its leases.
    pub store: Store,
    /// More TOML: backends, roles, issuers.
    pub more: String,
    /// Cedar.
    pub policies: String,
    /// Its environment on top of ours.
    pub environment: Vec<(String, String)>,
}

impl BrokerConfig {
    /// With an API-key backend `keys` (role `greeter`), and a PostgreSQL backend `pg` (role
    /// `reader`) if there is a server, and rules that let every workload mint both.
    /// It takes the prefix `df_` at that server over from any earlier test.
    pub fn new(store: Store, postgres: Option<&Postgres>) -> Self {
        if let Some(postgres) = postgres {
            postgres.disown("df_");
        }
        Self::beside(store, postgres)
    }

    /// The same, leaving the prefix to whom it belongs.
    pub fn beside(store: Store, postgres: Option<&Postgres>) -> Self {
        let mut more = String::from(
            "[[backend]]\nname = \"keys\"\nkind = \"api-key\"\nprefix = \"k_\"\n\
             [[role]]\nname = \"greeter\"\nbackend = \"keys\"\nowner = \"test\"\nttl = \"5m\"\n\
             ttl_max = \"1h\"\ntemplate = { scopes = [\"greet\"] }\n\
             [[role]]\nname = \"forbidden\"\nbackend = \"keys\"\nowner = \"test\"\nttl = \"5m\"\n\
             ttl_max = \"1h\"\nlabels = { environment = \"production\" }\ntemplate = { scopes = [] }\n",
        );
        if let Some(postgres) = postgres {
            write!(
                more,
                "[[backend]]\nname = \"pg\"\nkind = \"postgres\"\nprefix = \"df_\"\n\
                 host = \"127.0.0.1\"\nport = {}\ndatabase = \"app\"\nusername = \"dayfly_admin\"\n\
                 password = {{ file = \"pg-password\" }}\ntls = \"disable\"\n\
                 [[role]]\nname = \"reader\"\nbackend = \"pg\"\nowner = \"test\"\nttl = \"5m\"\n\
                 ttl_max = \"1h\"\ntemplate = {{ member_of = [\"readers\"] }}\n",
                postgres.port
            )
            .unwrap();
        }
        Self { store, more, policies: POLICIES.to_owned(), environment: Vec::new() }
    }

    /// Arms failpoints, for example `mint.after_backend=abort`.
    #[must_use]
    pub fn failpoints(mut self, points: &str) -> Self {
        self.environment.push((FAILPOINTS.to_owned(), points.to_owned()));
        self
    }
}

/// Where a program that has failpoints looks for those that are armed.
const FAILPOINTS: &str = "DAYFLY_FAILPOINTS";

/// Every workload of the test's issuers may mint everything but what is labelled production;
/// people of the issuer `people` are administrators.
const POLICIES: &str = r#"
@id("test/open")
@reason("test workloads may open tasks")
permit (principal is Dayfly::Workload, action == Dayfly::Action::"open_task", resource);

@id("test/mint")
@reason("test workloads may mint")
permit (principal is Dayfly::Workload, action == Dayfly::Action::"mint", resource);

@id("test/no-production")
@reason("tests get no production credential")
forbid (principal, action == Dayfly::Action::"mint", resource)
when { resource has environment && resource.environment == "production" };

@id("test/admin")
@reason("the test's administrator")
permit (
    principal is Dayfly::Human in Dayfly::Issuer::"people",
    action in [Dayfly::Action::"list_leases", Dayfly::Action::"read_lease",
        Dayfly::Action::"revoke_lease", Dayfly::Action::"list_tasks",
        Dayfly::Action::"read_task", Dayfly::Action::"list_roles", Dayfly::Action::"read_audit",
        Dayfly::Action::"read_standing", Dayfly::Action::"release_hold", Dayfly::Action::"rotate_root",
        Dayfly::Action::"abandon_lease", Dayfly::Action::"disable_identity",
        Dayfly::Action::"enable_identity", Dayfly::Action::"list_disabled"],
    resource
);
"#;

/// A broker process.
#[derive(Debug)]
pub struct Broker {
    directory: TempDir,
    child: Option<Child>,
    environment: Vec<(String, String)>,
    /// Signs tokens that it accepts: workloads of the issuer `ci`.
    pub issuer: Issuer,
    /// Signs tokens of its administrators: the issuer `people`.
    pub people: Issuer,
    /// Its TCP port on 127.0.0.1.
    pub port: u16,
}

impl Broker {
    /// Starts one and waits until it is ready.
    pub async fn start(config: BrokerConfig) -> Self {
        let mut broker = Self::configure(config);
        broker.resume().await;
        broker
    }

    /// Writes the configuration without starting anything.
    pub fn configure(config: BrokerConfig) -> Self {
        let directory = tempfile::Builder::new().prefix("dfb").tempdir().unwrap();
        let path = directory.path();
        let issuer = Issuer::new(&path.join("ci.json"));
        let people = Issuer::new(&path.join("people.json"));
        fs::create_dir(path.join("policies")).unwrap();
        fs::write(path.join("policies/test.cedar"), &config.policies).unwrap();
        secret(&path.join("pg-password"), "admin-password");
        secret(&path.join("audit-key"), &"5a".repeat(32));
        let port = free_port();
        let store = match &config.store {
            Store::Sqlite => "kind = \"sqlite\"\npath = \"dayfly.db\"".to_owned(),
            Store::Postgres(url) => {
                secret(&path.join("store-url"), url);
                "kind = \"postgres\"\nurl = { file = \"store-url\" }".to_owned()
            }
        };
        let (url, audience) = (Issuer::URL, Issuer::AUDIENCE);
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\n[store]\n{store}\n\
             [audit]\nsigning_key = {{ file = \"audit-key\" }}\n[policies]\ndir = \"policies\"\n\
             [telemetry]\nlog_filter = \"trace\"\n\
             [[issuer]]\nname = \"ci\"\nissuer = \"{url}\"\naudience = \"{audience}\"\n\
             jwks_file = \"ci.json\"\n\
             [[issuer]]\nname = \"people\"\nissuer = \"{url}/people\"\naudience = \"{audience}\"\n\
             jwks_file = \"people.json\"\nkind = \"human\"\nsingle_use = false\n{}",
            config.more
        );
        fs::write(path.join("dayfly.toml"), text).unwrap();
        Self { directory, child: None, environment: config.environment, issuer, people, port }
    }

    /// Has it call itself by the URL that it is reached by, from the next start on.
    pub fn know_own_url(&self) {
        let text = fs::read_to_string(self.config_file()).unwrap();
        let own = format!("[server]\npublic_url = \"{}\"\n", self.client().url());
        fs::write(self.config_file(), text.replacen("[server]\n", &own, 1)).unwrap();
    }

    /// Another replica of `self`: the same configuration on another port.
    pub async fn replica(&self) -> Self {
        let mut broker = self.configure_replica();
        broker.resume().await;
        broker
    }

    /// The same without starting it.
    #[must_use]
    pub fn configure_replica(&self) -> Self {
        let directory = tempfile::Builder::new().prefix("dfb").tempdir().unwrap();
        let port = free_port();
        crate::run(Command::new("cp").arg("-a").arg(self.path().join(".")).arg(directory.path()));
        let path = directory.path().join("dayfly.toml");
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace(&format!("127.0.0.1:{}", self.port), &format!("127.0.0.1:{port}"));
        fs::write(&path, text).unwrap();
        // The second one signs with keys of its own, which nobody accepts: use the first's.
        let scratch = tempfile::tempdir().unwrap();
        let issuer = Issuer::new(&scratch.path().join("unused.json"));
        let people = Issuer::new(&scratch.path().join("unused.json"));
        let environment = self.environment.clone();
        Self { directory, child: None, environment, issuer, people, port }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Its configuration.
    pub fn config_file(&self) -> PathBuf {
        self.path().join("dayfly.toml")
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("broker.log")).unwrap_or_default()
    }

    /// How much it has logged, in bytes.
    pub fn log_length(&self) -> u64 {
        fs::metadata(self.path().join("broker.log")).map_or(0, |log| log.len())
    }

    /// What it has logged after so many bytes.
    pub fn log_after(&self, length: u64) -> String {
        use std::io::{Read, Seek, SeekFrom};
        let mut text = Vec::new();
        if let Ok(mut log) = File::open(self.path().join("broker.log")) {
            log.seek(SeekFrom::Start(length)).unwrap();
            log.read_to_end(&mut text).unwrap();
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// A client without a token.
    pub fn client(&self) -> Client {
        Client::new(&format!("http://127.0.0.1:{}", self.port))
    }

    /// A token of its administrator.
    pub fn admin(&self) -> String {
        let iss = format!("{}/people", Issuer::URL);
        self.people.token_with("root@example.test", serde_json::json!({ "iss": iss }))
    }

    /// Every audit record, oldest first, but those of reading, since this adds to them, and
    /// the checkpoints, which come by the calendar.
    pub async fn audit(&self) -> Vec<Value> {
        let admin = self.client().with(&self.admin());
        let mut records = Vec::new();
        let mut path = "/api/v1/audit?limit=500".to_owned();
        loop {
            let page = admin.get(&path).await.unwrap().expect(200);
            let data = page.body.get("data").and_then(Value::as_array).unwrap();
            records.extend(data.iter().filter(|record| !by_itself(record)).cloned());
            let cursor = page.body.get("next_cursor").and_then(Value::as_str);
            let Some(cursor) = cursor else { return records };
            path = format!("/api/v1/audit?limit=500&cursor={cursor}");
        }
    }

    /// The handles of the API keys that its embedded store holds.
    pub async fn api_keys(&self) -> Vec<String> {
        let options = SqliteOptions { path: self.path().join("dayfly.db") };
        let store = SqliteStore::open_for_reading(&options, Arc::new(SystemClock)).unwrap();
        let store = AnyStore::Sqlite(store);
        let keys = store.list_api_keys("k_".to_owned(), String::new(), 1_000).await.unwrap();
        keys.into_iter().map(|(handle, _)| handle).collect()
    }

    /// Starts the process, after a crash again, and waits until it is ready.
    pub async fn resume(&mut self) {
        self.spawn();
        self.answers("/readyz").await;
    }

    /// Starts the process, and waits until it answers. It may not be ready, and may never be.
    pub async fn resume_unready(&mut self) {
        self.spawn();
        self.answers("/healthz").await;
    }

    async fn answers(&mut self, path: &str) {
        let client = self.client();
        eventually("the broker answers", Duration::from_secs(20), async || {
            if let Some(status) = self.exited() {
                panic!("the broker ended with {status}:\n{}", self.log());
            }
            client.get(path).await.filter(|answer| answer.status == 200)
        })
        .await;
    }

    /// Starts the process without waiting.
    pub fn spawn(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(self.path().join("broker.log"));
        let mut command = Command::new(program("dayfly-server"));
        command.args(["serve", "--config"]).arg(self.config_file());
        command.envs(self.environment.clone()).stdin(Stdio::null()).stdout(Stdio::null());
        self.child = Some(command.stderr(log.unwrap()).spawn().unwrap());
    }

    /// Arms failpoints from the next start on.
    pub fn arm(&mut self, points: &str) {
        self.environment = vec![(FAILPOINTS.to_owned(), points.to_owned())];
    }

    /// All of its environment from the next start on.
    pub fn set_environment(&mut self, environment: Vec<(String, String)>) {
        self.environment = environment;
    }

    /// Without what was armed, from the next start on.
    pub fn disarm(&mut self) {
        self.environment.clear();
    }

    /// How it ended, if it did.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().unwrap()
    }

    /// Whether its process is there.
    pub fn is_running(&mut self) -> bool {
        self.child.is_some() && self.exited().is_none()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends it a signal, for example `TERM`.
    pub fn signal(&self, name: &str) {
        crate::run(Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be dead already.
            drop(child.kill());
            child.wait().unwrap();
        }
    }

    /// Every byte that it has written: its database with all that belongs to it, and its log.
    pub fn everything_written(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        let files = entries.filter(|path| path.is_file());
        files.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
    }

    /// Runs `dayfly-server` with these arguments and this configuration.
    pub fn command(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(program("dayfly-server"));
        command.args(arguments).arg("--config").arg(self.config_file());
        command.output().unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            // What it said before the test failed.
            let log = self.log();
            let tail: Vec<&str> =
                log.lines().rev().filter(|l| !l.contains("TRACE")).take(60).collect();
            for line in tail.iter().rev() {
                eprintln_line(line);
            }
        }
    }
}

/// Whether a record may appear between any two things that a test does.
fn by_itself(record: &Value) -> bool {
    matches!(record["event"].as_str(), Some("admin.read" | "audit.checkpoint"))
}

#[expect(clippy::print_stderr, reason = "shown by the test runner when a test fails")]
fn eprintln_line(line: &str) {
    eprintln!("broker: {line}");
}

fn secret(path: &Path, text: &str) {
    use std::io::Write;
    let mut file: File =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
