//! `dayfly credential` and `dayfly agent` with the programs that they are made for: AWS's SDK for
//! Python, git, psql, and a client that connects as systemd does.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions, Permissions},
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use dayfly_integration::{
    Account, Broker, BrokerConfig, Client, Postgres, Store, eventually, program, python,
};
use tempfile::TempDir;

/// A broker, and a directory for what its users keep.
pub(crate) struct Desk {
    pub(crate) broker: Broker,
    place: TempDir,
}

impl Desk {
    pub(crate) fn of(broker: Broker) -> Self {
        let mode = Permissions::from_mode(0o700);
        let place = tempfile::Builder::new().permissions(mode).tempdir().unwrap();
        Self { broker, place }
    }

    /// With the API keys that every broker of a test has.
    async fn keys() -> Self {
        Self::of(Broker::start(BrokerConfig::new(Store::Sqlite, None)).await)
    }

    /// With users of `account`: of the role `deploy` for long, of `quick` for seconds.
    pub(crate) async fn aws(account: &Account) -> Self {
        let (id, secret) = account.root_key();
        let mut config = BrokerConfig::new(Store::Sqlite, None);
        write!(
            config.more,
            "[[backend]]\nname = \"cloud\"\nkind = \"aws\"\nmode = \"user\"\nprefix = \"da_\"\n\
             region = \"eu-central-1\"\naccess_key_id = \"{id}\"\n\
             password = {{ file = \"aws-secret\" }}\n\
             endpoint_url = \"http://127.0.0.1:{}\"\npropagation_ms = 0\n",
            account.port
        )
        .unwrap();
        for (role, ttl, ttl_max) in [("deploy", "40m", "1h"), ("quick", "8s", "8s")] {
            write!(
                config.more,
                "[[role]]\nname = \"{role}\"\nbackend = \"cloud\"\nowner = \"test\"\n\
                 ttl = \"{ttl}\"\nttl_max = \"{ttl_max}\"\n\
                 template = {{ type = \"iam_user\", policy = '{LISTING}' }}\n"
            )
            .unwrap();
        }
        let mut broker = Broker::configure(config);
        secret_file(&broker.config_file().with_file_name("aws-secret"), &secret);
        broker.resume().await;
        Self::of(broker)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A file with a fresh identity, as platforms leave it.
    pub(crate) fn identity(&self) -> String {
        let path = self.path("identity-token");
        fs::write(&path, self.broker.issuer.token("helper-job")).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// What runs beside this broker, with nothing else in its environment.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.env("HOME", self.place.path()).env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("DAYFLY_URL", self.broker.client().url()).stdin(Stdio::null());
        command
    }

    pub(crate) fn dayfly(&self, words: &[&str]) -> Command {
        let mut command = self.command(program("dayfly"));
        command.args(words);
        command
    }

    /// An agent that listens.
    pub(crate) async fn agent(&self, options: &[&str]) -> Agent {
        let (path, identity) = (self.path("agent.sock"), self.identity());
        let words = ["agent", "--token-file", &identity, "--listen", path.to_str().unwrap()];
        let mut command = self.dayfly(&[&words, options].concat());
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let agent = Agent { child: Some(child), path };
        eventually("the agent listens", Duration::from_secs(20), async || {
            std::os::unix::net::UnixStream::connect(&agent.path).ok()
        })
        .await;
        agent
    }

    fn admin(&self) -> Client {
        self.broker.client().with(&self.broker.admin())
    }

    /// The states of all leases of `role`, newest first.
    pub(crate) async fn states(&self, role: &str) -> Vec<String> {
        let path = format!("/api/v1/leases?role={role}");
        let leases = self.admin().get(&path).await.unwrap().expect(200);
        let states = leases.body["data"].as_array().unwrap().iter();
        states.map(|lease| lease["state"].as_str().unwrap().to_owned()).collect()
    }
}

/// What a user of a test may do.
const LISTING: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:ListUsers","Resource":"*"}]}"#;

pub(crate) struct Agent {
    child: Option<Child>,
    pub(crate) path: PathBuf,
}

impl Agent {
    /// Tells it to stop; gives what it said.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        let child = self.child.take().unwrap();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    /// `kill -9`: dropping it does no more.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

pub(crate) fn secret_file(path: &Path, text: &str) {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

pub(crate) fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs `command` with `request` on stdin.
fn told(mut command: Command, request: &str) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // Whoever has seen enough in the command line reads nothing.
    let _ = child.stdin.take().unwrap().write_all(request.as_bytes());
    child.wait_with_output().unwrap()
}

/// Says who it is at AWS.
const WHO: &str = "
import boto3, sys
sts = boto3.client('sts', endpoint_url=sys.argv[1], region_name='eu-central-1')
print(sts.get_caller_identity()['Arn'])
";

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_of_aws_runs_the_credential_process() {
    let account = Account::start().await;
    let desk = Desk::aws(&account).await;
    let config = desk.path("aws-config");
    let process = format!(
        "[default]\ncredential_process = {} credential aws --role deploy --token-file {}\n",
        program("dayfly").display(),
        desk.identity()
    );
    fs::write(&config, process).unwrap();
    let mut command = desk.command(python());
    command.args(["-c", WHO, &format!("http://127.0.0.1:{}", account.port)]);
    command.env("AWS_CONFIG_FILE", &config);
    let arn = text(&command.output().unwrap());
    assert!(arn.contains(":user/dayfly/da/da_"), "{arn}\n{}", account.log());
    assert_eq!(desk.states("deploy").await, ["active"], "it lives on after the process");
}

/// Asks for a credential until it is another one, and uses both.
const UNTIL_ANOTHER: &str = "
import boto3, sys, time
session = boto3.Session(region_name='eu-central-1')
credentials = session.get_credentials()
assert credentials.method == 'container-role', credentials.method
first = credentials.get_frozen_credentials().access_key
for _ in range(200):
    sts = session.client('sts', endpoint_url=sys.argv[1])
    print(sts.get_caller_identity()['Arn'])
    if credentials.get_frozen_credentials().access_key != first:
        print('another')
        break
    time.sleep(0.1)
";

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_of_aws_gets_another_credential_before_the_first_has_ended() {
    let account = Account::start().await;
    let desk = Desk::aws(&account).await;
    let url = format!("http://127.0.0.1:{}", account.port);
    let identity = desk.identity();
    let words = ["exec", "--token-file", &identity, "--aws-endpoint", "quick", "--ttl", "5m", "--"];
    let python = python();
    let run = [python.to_str().unwrap(), "-c", UNTIL_ANOTHER, &url];
    let output = desk.dayfly(&[&words[..], &run].concat()).output().unwrap();
    let said = text(&output);
    assert!(said.ends_with("another\n"), "{said}");
    let mut users: Vec<&str> = said.lines().filter(|line| line.starts_with("arn:")).collect();
    users.dedup();
    assert!(!users.is_empty() && users.iter().all(|arn| arn.contains("/da_")), "{said}");
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("verified dead"), "{err}");
    let states = desk.states("quick").await;
    assert!(states.len() >= 2 && states.iter().all(|state| state == "revoked"), "{states:?}");
}

/// git, which knows no other helper and asks nobody.
fn git(desk: &Desk, helper: &str, words: &[&str]) -> Command {
    let mut command = desk.command("/usr/bin/git");
    command.args(["-c", "credential.helper=", "-c"]).arg(format!("credential.helper={helper}"));
    command.args(words).env("GIT_TERMINAL_PROMPT", "0").env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn git_gets_a_token_and_another_when_that_was_rejected() {
    let desk = Desk::keys().await;
    let agent = desk.agent(&["--role", "greeter"]).await;
    let dayfly = program("dayfly");
    let helper =
        format!("!'{}' credential git --role greeter --host git.example.test", dayfly.display());
    let ask = |words: &[&str], request: &str| {
        let mut command = git(&desk, &helper, words);
        command.env("DAYFLY_AGENT_SOCKET", &agent.path);
        told(command, request)
    };
    let https = "protocol=https\nhost=git.example.test\n";
    let password = |output: &Output| {
        let filled = text(output);
        assert!(filled.contains("username=x-access-token\n"), "{filled}");
        let line = filled.lines().find_map(|line| line.strip_prefix("password="));
        line.unwrap().to_owned()
    };
    let first = password(&ask(&["credential", "fill"], &format!("{https}\n")));
    assert!(first.starts_with("dfk_"), "{first}");
    assert_eq!(password(&ask(&["credential", "fill"], &format!("{https}\n"))), first);
    let rejected = format!("{https}username=x-access-token\npassword={first}\n\n");
    assert!(ask(&["credential", "reject"], &rejected).status.success());
    let second = password(&ask(&["credential", "fill"], &format!("{https}\n")));
    assert_ne!(second, first);
    let states = desk.states("greeter").await;
    assert_eq!(states.first().map(String::as_str), Some("active"), "{states:?}");
    // Another host has no helper that answers, and git may not ask anybody.
    let other = ask(&["credential", "fill"], "protocol=https\nhost=evil.example.test\n\n");
    assert!(!other.status.success(), "{other:?}");

    let (code, err) = agent.stop();
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("verified dead") && !err.contains("dfk_"), "{err}");
    assert!(desk.states("greeter").await.iter().all(|state| state == "revoked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_logs_in_with_a_password_file() {
    let postgres = Postgres::start();
    let config = BrokerConfig::new(Store::Sqlite, Some(&postgres));
    let desk = Desk::of(Broker::start(config).await);
    let identity = desk.identity();
    let words = ["credential", "pgpass", "--role", "reader", "--token-file", &identity];
    let line = text(&desk.dayfly(&words).output().unwrap());
    let user = line.split(':').nth(3).unwrap();
    let path = desk.path("pgpass");
    secret_file(&path, &line);
    let mut command = desk.command(postgres.bin().join("psql"));
    command.args(["-X", "-w", "-tAc", "select text from app.notes", "-h", "127.0.0.1"]);
    command.args(["-p", &postgres.port.to_string(), "-U", user, "app"]).env("PGPASSFILE", &path);
    assert_eq!(text(&command.output().unwrap()), "hello\n");
}

/// Connects from the address that systemd connects from, and reads to the end.
const SYSTEMD: &str = "
import socket, sys
path, unit, name = sys.argv[1:]
peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
if unit:
    peer.bind('\\0adf9d86b6eda275e/unit/' + unit + '/' + name)
peer.connect(path)
data = b''
while chunk := peer.recv(4096):
    data += chunk
sys.stdout.buffer.write(data)
";

#[tokio::test(flavor = "multi_thread")]
async fn systemd_gets_what_was_mapped_and_nothing_else() {
    let desk = Desk::keys().await;
    let socket = desk.path("systemd.sock");
    let socket = socket.to_str().unwrap();
    let agent = desk.agent(&["--systemd", socket, "--credential", "api-key=greeter/key"]).await;
    let load = |unit: &str, name: &str| {
        let mut command = desk.command(python());
        command.args(["-c", SYSTEMD, socket, unit, name]);
        text(&command.output().unwrap())
    };
    let key = load("shop.service", "api-key");
    assert!(key.starts_with("dfk_") && !key.contains(char::is_whitespace), "{key}");
    assert_eq!(load("other@1.service", "api-key"), key, "one credential for all who ask");
    assert_eq!(load("shop.service", "password"), "");
    assert_eq!(load("", ""), "", "who has no address is not systemd");
    assert_eq!(desk.states("greeter").await, ["active"]);

    let (code, err) = agent.stop();
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("unit `shop.service` wants `password`"), "{err}");
    assert!(err.contains("was not systemd") && !err.contains(&key), "{err}");
    assert_eq!(desk.states("greeter").await, ["revoked"]);
}
