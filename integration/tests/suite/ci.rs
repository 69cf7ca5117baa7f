//! What `config/ci` has for users of CI platforms, run as the platforms run it: their environment,
//! their files and their signals around the real broker and a real PostgreSQL.

mod examples;
mod github;
mod gitlab;
mod runner;

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use dayfly_integration::{
    Broker, BrokerConfig, Client, Issuer, Platform, Postgres, Store, eventually, program, python,
    root,
};
use serde_json::Value;
use tempfile::TempDir;

/// How long a death may take that nobody waits for.
const DEAD_WITHIN: Duration = Duration::from_secs(20);

/// A broker with PostgreSQL that trusts a GitHub and a GitLab.
struct Desk {
    postgres: Postgres,
    broker: Broker,
    admin: Client,
    platform: Arc<Platform>,
}

/// What a program left.
#[derive(Debug)]
struct Finished {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Desk {
    async fn new() -> Self {
        Self::with("").await
    }

    /// With more TOML.
    async fn with(more: &str) -> Self {
        let postgres = Postgres::start();
        let mut config = BrokerConfig::new(Store::Sqlite, Some(&postgres));
        for role in ["pg-migrate", "pg-report"] {
            write!(
                config.more,
                "[[role]]\nname = \"{role}\"\nbackend = \"pg\"\nowner = \"test\"\nttl = \"5m\"\n\
                 ttl_max = \"1h\"\ntemplate = {{ member_of = [\"readers\"] }}\n"
            )
            .unwrap();
        }
        write!(
            config.more,
            "[[issuer]]\nname = \"github\"\npreset = \"github\"\naudience = \"{audience}\"\n\
             jwks_file = \"platform.json\"\n\
             [[issuer]]\nname = \"gitlab\"\npreset = \"gitlab\"\nissuer = \"{gitlab}\"\n\
             audience = \"{audience}\"\njwks_file = \"platform.json\"\n{more}",
            audience = Issuer::AUDIENCE,
            gitlab = Platform::GITLAB,
        )
        .unwrap();
        let mut broker = Broker::configure(config);
        let platform = Arc::new(Platform::new(&broker.path().join("platform.json")));
        broker.resume().await;
        let admin = broker.client().with(&broker.admin());
        Self { postgres, broker, admin, platform }
    }

    fn url(&self) -> String {
        self.broker.client().url().to_owned()
    }

    /// Where programs are found: ours, `psql`, and what every machine has.
    fn path(&self) -> String {
        let own = program("dayfly").parent().unwrap().display().to_string();
        format!("{own}:{}:/usr/local/bin:/usr/bin:/bin", self.postgres.bin().display())
    }

    fn credentials(&self) -> Vec<String> {
        self.postgres.roles("df_")
    }

    async fn no_credentials(&self) {
        eventually("every credential is gone", DEAD_WITHIN, async || {
            self.credentials().is_empty().then_some(())
        })
        .await;
    }

    async fn one_credential(&self) {
        eventually("there is one credential", DEAD_WITHIN, async || {
            (self.credentials().len() == 1).then_some(())
        })
        .await;
    }

    /// The states of all tasks, newest first.
    async fn tasks(&self) -> Vec<String> {
        let tasks = self.admin.get("/api/v1/tasks").await.unwrap().expect(200);
        let tasks = tasks.body["data"].as_array().unwrap().iter();
        tasks.map(|task| task["state"].as_str().unwrap().to_owned()).collect()
    }

    async fn leases(&self) -> usize {
        let leases = self.admin.get("/api/v1/leases").await.unwrap().expect(200);
        leases.body["data"].as_array().unwrap().len()
    }
}

/// A process that ends with its test, and all of its group.
struct Running(Child);

impl Running {
    /// Starts `command` at the head of a group of its own.
    fn start(command: &mut Command) -> Self {
        use std::os::unix::process::CommandExt as _;
        Self(command.process_group(0).spawn().unwrap())
    }

    fn signal(&self, name: &str, whole_group: bool) {
        let sign = if whole_group { "-" } else { "" };
        let target = format!("{sign}{}", self.0.id());
        let kill = Command::new("kill").args(["-s", name, "--", &target]).status();
        assert!(kill.unwrap().success(), "kill -s {name} {target}");
    }

    async fn ended(&mut self) -> Option<i32> {
        eventually("it ends", Duration::from_secs(40), async || self.0.try_wait().unwrap())
            .await
            .code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        // It has usually ended long ago.
        drop(Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status());
        drop(self.0.wait());
    }
}

/// A file of `config/ci`.
fn ci(path: &str) -> PathBuf {
    let path = root().join("config/ci").join(path);
    assert!(path.exists(), "{}", path.display());
    path
}

/// The documents of a YAML file of `config/ci`.
fn documents(path: &str) -> Vec<Value> {
    read_yaml(path, None).expect("it is YAML")
}

/// The same of a GitLab component with these inputs, or why GitLab would refuse them.
fn read_yaml(path: &str, inputs: Option<&Value>) -> Result<Vec<Value>, String> {
    let mut command = Command::new(python());
    command.arg(root().join("integration/peers/ci-yaml.py")).arg(ci(path));
    let read: Finished = command.args(inputs.map(Value::to_string)).output().unwrap().into();
    if read.code == Some(0) { Ok(serde_json::from_str(&read.out).unwrap()) } else { Err(read.err) }
}

/// An executable script in `directory`.
fn place(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A directory that stands for the job's machine.
fn machine() -> TempDir {
    tempfile::Builder::new().prefix("dfj").tempdir().unwrap()
}

/// What stands between the first `://USER:` and `@` of a database's URL.
fn password(url: &str) -> &str {
    url.split([':', '@']).nth(2).unwrap()
}
