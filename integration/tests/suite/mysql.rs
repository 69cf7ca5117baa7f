//! A MariaDB account for one task, used by MariaDB's own client.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use dayfly_integration::{Broker, BrokerConfig, Store, eventually, free_port, program};
use tempfile::TempDir;

const SETUP: &str =
    "CREATE DATABASE app; CREATE TABLE app.t (id INT); INSERT INTO app.t VALUES (7);
    CREATE USER dayfly@'%' IDENTIFIED BY 'broker-password';
    GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO dayfly@'%';
    GRANT SELECT ON mysql.user TO dayfly@'%';
    GRANT SELECT ON app.* TO dayfly@'%' WITH GRANT OPTION;";

pub(crate) struct Mariadb {
    directory: TempDir,
    port: u16,
    child: Child,
}

impl Mariadb {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("dfm").tempdir_in("/tmp").unwrap();
        let data = format!("--datadir={}", directory.path().join("data").display());
        let mut command = Command::new("mariadb-install-db");
        command.args(["--no-defaults", "--skip-test-db", "--user=root", &data]);
        command.arg("--auth-root-authentication-method=normal").env("TMPDIR", directory.path());
        assert!(command.stdout(Stdio::null()).status().unwrap().success());
        let port = free_port();
        let mut command = Command::new("mariadbd");
        command.args(["--no-defaults", "--bind-address=127.0.0.1", "--user=root", &data]);
        command.arg(format!("--socket={}", directory.path().join("s").display()));
        command.arg(format!("--pid-file={}", directory.path().join("pid").display()));
        command.env("TMPDIR", directory.path());
        let child = command.arg(format!("--port={port}")).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { directory, port, child };
        eventually("it listens", Duration::from_mins(1), async || {
            TcpStream::connect(("127.0.0.1", server.port)).ok()
        })
        .await;
        let socket = server.directory.path().join("s");
        let mut command = Command::new("mariadb");
        command.arg(format!("--socket={}", socket.display())).args(["-uroot", "-e", SETUP]);
        assert!(command.status().unwrap().success());
        server
    }

    pub(crate) fn backend(&self) -> String {
        format!(
            "[[backend]]\nname = \"shop\"\nkind = \"mysql\"\nserver = \"mariadb\"\n\
             prefix = \"dm_\"\nhost = \"127.0.0.1\"\nport = {}\nusername = \"dayfly\"\n\
             password = {{ file = \"mysql-password\" }}\ntls = \"disable\"\n\
             [[role]]\nname = \"shopper\"\nbackend = \"shop\"\nowner = \"test\"\nttl = \"5m\"\n\
             ttl_max = \"1h\"\n\
             template = {{ grants = [{{ privileges = [\"SELECT\"], database = \"app\" }}], \
             database = \"app\" }}\n",
            self.port
        )
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What the client says with nothing but the option file that `dayfly credential mysql` writes.
fn by_option_file(broker: &Broker) -> String {
    let beside = |name: &str| broker.config_file().with_file_name(name);
    let (identity, options) = (beside("identity-token"), beside("options.cnf"));
    fs::write(&identity, broker.issuer.token("helper-job")).unwrap();
    let mut command = Command::new(program("dayfly"));
    command.args(["credential", "mysql", "--role", "shopper", "--token-file"]).arg(&identity);
    command.env_clear().env("DAYFLY_URL", broker.client().url());
    let given = command.output().unwrap();
    assert!(given.status.success() && given.stderr.is_empty(), "{given:?}");
    fs::write(&options, given.stdout).unwrap();
    let mut command = Command::new("mariadb");
    command.arg(format!("--defaults-extra-file={}", options.display()));
    let output = command.args(["-BNe", "SELECT id FROM t"]).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap().trim().to_owned()
}

/// `dayfly exec` gives the client its environment; the client needs nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_mariadb_account_lives_as_long_as_its_task() {
    let server = Mariadb::start().await;
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    config.more.push_str(&server.backend());
    let mut broker = Broker::configure(config);
    let secrets: PathBuf = broker.config_file().with_file_name("mysql-password");
    fs::write(&secrets, "broker-password").unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    let canary = broker.command(&["check", "--canary"]);
    let text = String::from_utf8_lossy(&canary.stdout).into_owned();
    assert!(canary.status.success() && text.contains("shopper: verify ok"), "{canary:?}");
    let table = String::from_utf8(broker.command(&["backends"]).stdout).unwrap();
    assert!(table.contains("| shop | mysql | no | yes |"), "{table}");
    broker.resume().await;
    assert_eq!(by_option_file(&broker), "7");
    let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let lease = owner.mint("shopper").await.expect(201);
    let ask = |sql: &str| {
        let mut command = Command::new("mariadb");
        let field = |name: &str| lease.text(&format!("/credential/{name}"));
        command.args(["-h", "127.0.0.1", "-P", &field("port"), "-u", &field("username")]);
        command.args(["-BNe", sql, &field("database")]).env("MYSQL_PWD", field("password"));
        command
    };
    let said = |mut command: Command| {
        let output = command.output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap().trim().to_owned()
    };
    assert_eq!(said(ask("SELECT id FROM t")), "7");
    assert!(said(ask("DELETE FROM t")).contains("denied"));

    // A session that is open when the task ends.
    let mut session =
        ask("SELECT SLEEP(120)").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the session is open", Duration::from_secs(20), async || {
        said(ask("SHOW PROCESSLIST")).contains("SLEEP(120)").then_some(())
    })
    .await;
    let completed = owner.complete(&task, "10s").await.expect(200);
    assert_eq!(completed.text("/state"), "completed");
    assert!(!session.wait().unwrap().success(), "the open session went on");
    assert!(said(ask("SELECT id FROM t")).contains("Access denied"));
    let shown = owner.lease(&lease.text("/id")).await.expect(200);
    assert_eq!(shown.text("/state"), "revoked");
}
