//! What `dayfly exec` leaves for real programs: files, variables, and another credential when one
//! comes to its end.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use dayfly_integration::{Broker, BrokerConfig, Postgres, Store, program};
use serde_json::Value;

use crate::{mysql::Mariadb, redis::Redis};

/// A role whose leases end soon, whatever is asked for.
const BRIEF: &str = "[[role]]\nname = \"brief\"\nbackend = \"pg\"\nowner = \"test\"\nttl = \"6s\"\n\
                     ttl_max = \"8s\"\ntemplate = { member_of = [\"readers\"] }\n";

/// What a program left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// `dayfly exec` with `options` for a command that finds the programs in `bin`.
pub(crate) fn prepared(broker: &Broker, bin: &Path, options: &[&str], command: &[&str]) -> Command {
    let mut dayfly = Command::new(program("dayfly"));
    dayfly.arg("exec").args(options).arg("--").args(command).env_clear();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin", bin.display());
    dayfly.env("PATH", path).env("DAYFLY_ID_TOKEN", broker.issuer.token("injector"));
    dayfly.env("DAYFLY_URL", broker.client().url()).stdin(Stdio::null());
    dayfly
}

/// Runs `command` to its end.
pub(crate) fn finished(mut command: Command) -> Finished {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Finished { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn exec(broker: &Broker, bin: &Path, options: &[&str], command: &[&str]) -> Finished {
    finished(prepared(broker, bin, options, command))
}

pub(crate) async fn leases(broker: &Broker) -> Vec<Value> {
    let admin = broker.client().with(&broker.admin());
    let leases = admin.get("/api/v1/leases").await.unwrap().expect(200);
    leases.body["data"].as_array().unwrap().clone()
}

/// A broker for a backend whose password stands in `file`.
async fn broker_with(backend: &str, file: &str) -> Broker {
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    config.more.push_str(backend);
    let mut broker = Broker::configure(config);
    let secret = broker.config_file().with_file_name(file);
    fs::write(&secret, "broker-password").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    broker.resume().await;
    broker
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_and_pg_dump_sign_in_by_the_files_of_libpq() {
    let postgres = Postgres::start();
    let broker = Broker::start(BrokerConfig::new(Store::Sqlite, Some(&postgres))).await;
    let script = "test -z \"$PGPASSWORD$DATABASE_URL\" || exit 90
        psql -w -X -tAc 'select text from app.notes' || exit 91
        pg_dump -w -a -t app.notes | grep -x hello || exit 92
        echo \"$DAYFLY_FILE_PGPASS$PGSERVICEFILE\"";
    for file in ["pgpass=reader", "pg_service.conf=reader"] {
        let read = exec(&broker, postgres.bin(), &["--file", file], &["sh", "-c", script]);
        assert_eq!(read.code, Some(0), "{file}: {read:?}");
        let path = read.out.strip_prefix("hello\nhello\n").unwrap().trim();
        assert!(!Path::new(path).exists() && path.starts_with('/'), "{path}");
        assert!(read.err.contains("completed: 1 credential verified dead"), "{}", read.err);
        assert_eq!(postgres.roles("df_"), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadbs_client_signs_in_by_an_option_file() {
    let server = Mariadb::start().await;
    let broker = broker_with(&server.backend(), "mysql-password").await;
    let script = "test -z \"$MYSQL_PWD$DATABASE_URL\" || exit 90
        mariadb -BNe 'SELECT id FROM t' || exit 91
        mariadb --defaults-extra-file=\"$DAYFLY_FILE_MY_CNF\" -BNe 'SELECT id + 1 FROM t'";
    let options = ["--file", "my.cnf=shopper"];
    let read = exec(&broker, Path::new("/usr/bin"), &options, &["sh", "-c", script]);
    assert_eq!((read.code, read.out.as_str()), (Some(0), "7\n8\n"), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_cli_signs_in_by_variables_that_name_fields() {
    let server = Redis::start().await;
    let broker = broker_with(&server.backend(), "redis-password").await;
    let script = "redis-cli --no-auth-warning -p $R_PORT --user $R_USER SET app:x 1
        redis-cli --no-auth-warning -u \"$R_URL\" GET app:x";
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("env");
    let line = "R_URL=redis://dayfly://cacher/username:dayfly://cacher/password@127.0.0.1:\
                dayfly://cacher/port\n";
    fs::write(&file, line).unwrap();
    let options = [
        ["--role", "cacher"],
        ["--env", "R_USER=cacher/username"],
        ["--env", "R_PORT=cacher/port"],
        ["--env-file", file.to_str().unwrap()],
    ];
    let words = options.concat();
    let said = exec(&broker, Path::new("/usr/bin"), &words, &["sh", "-c", script]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "OK\n1\n"), "{said:?}");
}

/// A service that opens a connection for each piece of work, as many do.
const SERVICE: &str = r#"
import subprocess, sys, time
users, until = [], time.monotonic() + 18
while time.monotonic() < until:
    work = ["psql", "-w", "-X", "-tAc", "select current_user from app.notes"]
    done = subprocess.run(work, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    users.append(done.stdout.strip())
    time.sleep(0.1)
print("\n".join(users))
"#;

/// It works on through the ends of its credentials and never notices one.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_outlives_its_credentials() {
    let postgres = Postgres::start();
    let mut config = BrokerConfig::new(Store::Sqlite, Some(&postgres));
    config.more.push_str(BRIEF);
    let broker = Broker::start(config).await;
    let options = ["--file", "pg_service.conf=brief", "--overlap", "1s"];
    let ran = exec(&broker, postgres.bin(), &options, &["python3", "-c", SERVICE]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let users: BTreeSet<&str> = ran.out.lines().collect();
    assert!(users.len() >= 3, "{users:?}");
    assert!(!ran.err.contains("warning"), "{}", ran.err);
    assert_eq!(postgres.roles("df_"), Vec::<String>::new());
    let leases = leases(&broker).await;
    let causes: Vec<_> = leases.iter().map(|lease| lease["cause"].as_str().unwrap()).collect();
    assert_eq!(causes.first(), Some(&"task_completed"), "{causes:?}");
    assert!(causes.iter().filter(|cause| **cause == "requested").count() >= 2, "{causes:?}");
    assert!(leases.iter().all(|lease| lease["state"] == "revoked"), "{leases:?}");
}

/// The environment of a running program can't change, so it is started again.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_gives_a_program_its_next_credential() {
    let postgres = Postgres::start();
    let mut config = BrokerConfig::new(Store::Sqlite, Some(&postgres));
    config.more.push_str(BRIEF);
    let broker = Broker::start(config).await;
    let script = "echo $PGUSER; psql -w -X -tAc 'select current_user from app.notes' || exit 91
        test -e $MARK && exit 0
        touch $MARK; exec sleep 60";
    let home = tempfile::tempdir().unwrap();
    let mark = home.path().join("mark");
    let script = script.replace("$MARK", mark.to_str().unwrap());
    let options = ["--role", "brief", "--on-rotate", "restart"];
    let ran = exec(&broker, postgres.bin(), &options, &["sh", "-c", &script]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let users: Vec<&str> = ran.out.lines().collect();
    assert!(users.len() == 4 && users[0] == users[1] && users[2] == users[3], "{users:?}");
    assert_ne!(users[0], users[2]);
    assert_eq!(postgres.roles("df_"), Vec::<String>::new());
}
