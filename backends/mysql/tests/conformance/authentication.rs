//! What the server is told of a password, at servers where that is not the usual: MariaDB with
//! `ed25519`, and MySQL that enforces a newer form of its hash.

use std::{process::Stdio, sync::Arc, time::Duration};

use async_trait::async_trait;
use dayfly_backend_mysql::{MysqlBackend, MysqlConfig, Server as Kind};
use dayfly_backend_sdk::{
    Backend, Credential, Doomed, Liveness, Secret, Timestamp,
    testkit::{self, Login, Session, Subject},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, MySqlConnection, Row};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};
use uuid::Uuid;

use crate::{Service, chain, mint, now, run, server::Server, set_up, usual};

/// How long the client may take to answer one statement.
const PATIENCE: Duration = Duration::from_secs(10);

fn by_ed25519() -> Value {
    json!({ "grants": [{ "privileges": ["SELECT"], "database": "app" }],
        "authentication": "ed25519" })
}

/// A MariaDB with the plugin, of its own: where there are accounts with it, the server asks for
/// their proof also in the name of accounts that are not there, and the driver of the other
/// tests does not speak it.
async fn with_plugin() -> Service {
    let server = Server::start(Kind::Mariadb);
    set_up(&server).await;
    let mut admin = server.admin().await;
    assert_eq!(run(&mut admin, "INSTALL SONAME 'auth_ed25519'").await, Ok(()));
    Service::at(Arc::new(server), "dayfly")
}

/// MariaDB's own client, which speaks what the driver does not.
struct Client(Arc<Server>);

impl Client {
    fn command(&self, credential: &Credential) -> Command {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--skip-reconnect", "--batch", "--unbuffered"]);
        command.arg(format!("--socket={}", self.0.path("s").display()));
        command.arg(format!("--user={}", credential.field("username").unwrap()));
        command.env("MYSQL_PWD", credential.field("password").unwrap());
        command
    }
}

#[async_trait]
impl Login for Client {
    async fn now(&self) -> Timestamp {
        now()
    }

    async fn wait(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    async fn works(&self, credential: &Credential) -> bool {
        let mut command = self.command(credential);
        command.args(["--execute", "SELECT id FROM app.orders"]).stdin(Stdio::null());
        let output = command.output().await.unwrap();
        // Only "you may not" counts: access denied, account locked.
        let errors = String::from_utf8_lossy(&output.stderr);
        let refused = errors.contains("ERROR 1045") || errors.contains("ERROR 4151");
        assert!(output.status.success() || refused, "{errors}");
        output.status.success()
    }

    async fn open(&self, credential: &Credential) -> Option<Box<dyn Session>> {
        let mut command = self.command(credential);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut client = command.kill_on_drop(true).spawn().ok()?;
        let input = client.stdin.take()?;
        let output = BufReader::new(client.stdout.take()?).lines();
        Some(Box::new(Piped { _client: client, input, output }))
    }
}

/// A client that is told one statement after the other.
struct Piped {
    _client: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

#[async_trait]
impl Session for Piped {
    async fn alive(&mut self) -> bool {
        let asked = self.input.write_all(b"SELECT COUNT(*) AS n FROM app.orders;\n").await;
        if asked.is_err() {
            return false;
        }
        // The column's name and one row.
        for _ in 0..2 {
            let line = tokio::time::timeout(PATIENCE, self.output.next_line()).await;
            if !matches!(line, Ok(Ok(Some(_)))) {
                return false;
            }
        }
        true
    }
}

/// Which plugin an account has, and what the server keeps of its password.
async fn kept(admin: &mut MySqlConnection, user: &str) -> (String, String) {
    let sql = format!(
        "SELECT CONVERT(plugin USING utf8mb4), CONVERT(authentication_string USING utf8mb4) \
         FROM mysql.user WHERE User = '{user}'"
    );
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(admin).await.unwrap();
    (row.get_unchecked(0), row.get_unchecked(1))
}

#[tokio::test]
async fn mariadb_conforms_with_ed25519() {
    let service = with_plugin().await;
    let client = Client(Arc::clone(&service.server));
    let template = service.backend.template(&by_ed25519()).unwrap();
    let ran = testkit::run(&Subject::new(&service.backend, &template, &client)).await;
    let ran = ran.unwrap_or_else(|failure| panic!("{failure}"));
    let expected: Vec<_> =
        testkit::STEPS.into_iter().filter(|step| *step != "native_expiry").collect();
    assert_eq!(ran, expected);

    // The server was told a public key, and nothing else.
    let (doomed, credential) = service.minted(99, by_ed25519()).await;
    assert!(client.works(&credential).await);
    let mut admin = service.server.admin().await;
    let (plugin, key) = kept(&mut admin, doomed.handle.as_str()).await;
    assert_eq!((plugin.as_str(), key.len()), ("ed25519", 43));
    let logs = service.server.logs();
    assert!(logs.contains(&key), "the log has the statements");
    assert!(!logs.contains(credential.field("password").unwrap()));
    service.end(&doomed).await.unwrap();
    assert!(!client.works(&credential).await);
}

/// In the name of an account that is gone, the server asks for the proof of whichever account
/// it comes upon. No canary takes that for an answer.
#[tokio::test]
async fn a_canary_is_not_misled_by_the_proofs_of_strangers() {
    let service = with_plugin().await;
    let mut admin = service.server.admin().await;
    for number in 0..24 {
        let sql = format!("CREATE USER stranger{number}@'%' IDENTIFIED VIA ed25519 USING '{KEY}'");
        assert_eq!(run(&mut admin, &sql).await, Ok(()), "{sql}");
    }
    for raw in [usual(), by_ed25519()] {
        let template = service.backend.template(&raw).unwrap();
        for lease in 0..8 {
            let report = service.backend.canary(&service.handle(lease), &template).await;
            for step in &report.steps {
                let said = step.result.as_ref().map_err(|error| chain(error));
                assert_eq!(said, Ok(&()), "{}: {raw}", step.name);
            }
            assert!(report.passed(), "{raw}");
        }
    }
}

/// Of the password `secret`.
const KEY: &str = "ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY";

#[tokio::test]
async fn a_server_without_the_plugin_is_told_how_to_get_it() {
    let service = Service::start(Kind::Mariadb).await;
    let template = service.backend.template(&by_ed25519()).unwrap();
    let handle = service.handle(1);
    let error = service.mint(&handle, &template).await.unwrap_err();
    assert!(chain(&error).contains("INSTALL SONAME 'auth_ed25519'"), "{}", chain(&error));
    let doomed = Doomed::new(handle, template.plan().clone());
    assert_eq!(service.liveness(&doomed).await, Liveness::Gone);
}

/// A server that enforces a form lets in whoever has the other only to change his password.
#[tokio::test]
async fn a_hash_has_the_form_that_the_server_wants_now() {
    let server = Server::start(Kind::Mysql);
    set_up(&server).await;
    let mut admin = server.admin().await;
    for sql in [
        "SET GLOBAL caching_sha2_password_storage_format = 'PBKDF2_SHA512'",
        "ALTER USER dayfly@'%' IDENTIFIED BY 'correct horse'",
        "SET GLOBAL caching_sha2_password_enforce_storage_format = ON",
    ] {
        assert_eq!(run(&mut admin, sql).await, Ok(()), "{sql}");
    }
    let service = Service::at(Arc::new(server), "dayfly");
    let (doomed, credential) = service.minted(1, usual()).await;
    let (_, hash) = kept(&mut admin, doomed.handle.as_str()).await;
    assert!(hash.starts_with("$B$005$"), "{hash}");
    assert!(service.works(&credential).await);
    service.end(&doomed).await.unwrap();

    // Ours too: otherwise it would be locked out by its own change.
    let new = Secret::new("another horse");
    service.backend.rotate_root(&new).await.unwrap();
    let config = MysqlConfig { password: Some(new), ..service.config.clone() };
    let backend = MysqlBackend::new(&config).unwrap();
    let template = backend.template(&usual()).unwrap();
    let handle = backend.handle(Uuid::from_u128(2)).unwrap();
    mint(&backend, &handle, &template, Duration::from_secs(30)).await.unwrap();

    // And it is asked anew each time.
    for sql in [
        "SET GLOBAL caching_sha2_password_enforce_storage_format = OFF",
        "SET GLOBAL caching_sha2_password_storage_format = 'CRYPT5'",
    ] {
        assert_eq!(run(&mut admin, sql).await, Ok(()), "{sql}");
    }
    let handle = backend.handle(Uuid::from_u128(3)).unwrap();
    mint(&backend, &handle, &template, Duration::from_secs(30)).await.unwrap();
    let (_, hash) = kept(&mut admin, handle.as_str()).await;
    assert!(hash.starts_with("$A$005$"), "{hash}");
}
