//! Services in Java, Python and JavaScript, each with the driver that most of them use, through the
//! ends of their credentials.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use dayfly_integration::{Broker, BrokerConfig, Postgres, Store, node24, python, root};
use tempfile::TempDir;

use crate::injector::{self, Finished, finished, prepared};

/// A role whose leases end soon, but not while somebody is slow to connect.
const SHORT: &str = "[[role]]\nname = \"short\"\nbackend = \"pg\"\nowner = \"test\"\nttl = \"8s\"\n\
                     ttl_max = \"12s\"\ntemplate = { member_of = [\"readers\"] }\n";
const OVERLAP: [&str; 2] = ["--overlap", "3s"];

/// A service of libpq's that leaves the password to the password file.
const WITHOUT_PASSWORD: &str = "[app]\nhost={{ short.host }}\nport={{ short.port }}\n\
                                dbname={{ short.database }}\nuser={{ short.username }}\n";

/// How many users a service has been when it ends: the first one was dead by then.
const USERS: &str = "3";
/// What precedes a service's own count of the connections that were ended under it.
const ENDED: &str = "connections that were ended: ";

/// Keeps the first and the last of what a service was given in the file that KEPT names.
const KEEPING: &str = "test -z \"$PGPASSWORD$PGUSER$DATABASE_URL\" || exit 90
    cp \"$KEPT\" \"$HOME/first\" && \"$@\" && cp \"$KEPT\" \"$HOME/last\"";

struct Scene {
    postgres: Postgres,
    broker: Broker,
    home: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let postgres = Postgres::start();
        let mut config = BrokerConfig::new(Store::Sqlite, Some(&postgres));
        config.more.push_str(SHORT);
        let broker = Broker::start(config).await;
        Self { postgres, broker, home: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs `service` to its end and keeps the file that the variable `kept` names.
    fn run(&self, options: &[&str], kept: &str, service: &[&str]) -> Finished {
        let script = KEEPING.replace("KEPT", kept);
        let words = [&["sh", "-c", &script, "sh"], service].concat();
        let options = [options, &OVERLAP].concat();
        let mut command = prepared(&self.broker, Path::new("/usr/bin"), &options, &words);
        command.env("HOME", self.home.path()).env("PEERS", root().join("integration/.peers"));
        finished(command)
    }

    /// That the server knows this credential no more.
    fn refuses(&self, user: &str, password: &str) {
        let url = format!("postgres://{user}@127.0.0.1:{}/app", self.postgres.port);
        let mut command = self.postgres.client(&url);
        command.args(["-w", "-c", "SELECT 1"]).env("PGPASSWORD", password);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("password authentication failed"), "{user}: {output:?}");
    }

    /// What must be true of every service that has ended; gives the users that it was.
    async fn is_over(&self, ran: &Finished) -> Vec<String> {
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(!ran.err.contains("dayfly: warning"), "{}", ran.err);
        let users: Vec<String> =
            ran.out.lines().filter(|line| line.starts_with("df_")).map(str::to_owned).collect();
        assert_eq!(users.iter().collect::<BTreeSet<_>>().len().to_string(), USERS, "{ran:?}");
        assert_eq!(self.postgres.roles("df_"), Vec::<String>::new());
        let leases = injector::leases(&self.broker).await;
        assert!(leases.len() >= users.len(), "{leases:?}");
        assert!(leases.iter().all(|lease| lease["state"] == "revoked"), "{leases:?}");
        users
    }

    /// The users and passwords of the password files that were kept.
    fn password_files(&self) -> [(String, String); 2] {
        ["first", "last"].map(|name| {
            let line = fs::read_to_string(self.path(name)).unwrap();
            let fields: Vec<&str> = line.trim_end().split(':').collect();
            let [_, _, _, user, password] = fields[..] else { panic!("{} fields", fields.len()) };
            (user.to_owned(), password.to_owned())
        })
    }

    /// The same of files of services.
    fn service_files(&self) -> [(String, String); 2] {
        ["first", "last"].map(|name| {
            let text = fs::read_to_string(self.path(name)).unwrap();
            let value = |keyword: &str| {
                let value = text.lines().find_map(|line| line.strip_prefix(keyword));
                value.unwrap().to_owned()
            };
            (value("user="), value("password="))
        })
    }

    /// That what was kept is of the first and of the last of `users`, and that nobody is let in
    /// with it.
    fn both_are_dead(&self, kept: &[(String, String); 2], users: &[String]) {
        let kept_users = kept.iter().map(|(user, _)| user);
        assert_eq!(kept_users.collect::<Vec<_>>(), [users.first().unwrap(), users.last().unwrap()]);
        for (user, password) in kept {
            self.refuses(user, password);
        }
    }
}

/// That a service had to connect again as often as it became another user.
fn reconnected(ran: &Finished) {
    let count = ran.out.lines().find_map(|line| line.strip_prefix(ENDED)).unwrap();
    assert!(count.parse::<u32>().unwrap() >= 2, "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_java_program_signs_in_by_a_service_as_one_user_after_the_other() {
    let scene = Scene::new().await;
    let driver = root().join("integration/.peers/jdbc/postgresql.jar");
    assert!(driver.exists(), "the JDBC driver is not there; run integration/test once");
    let source = root().join("integration/peers/PgService.java");
    let [driver, source] = [&driver, &source].map(|path| path.to_str().unwrap());
    let service = ["java", "-cp", driver, source, USERS];
    let ran = scene.run(&["--file", "pg_service.conf=short"], "PGSERVICEFILE", &service);
    let users = scene.is_over(&ran).await;
    scene.both_are_dead(&scene.service_files(), &users);
}

/// The password file alone would not do: it is asked for the password of a user whom the service
/// knows already. Beside a file that has the user's name, both are replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_python_service_reconnects_by_a_password_file() {
    let scene = Scene::new().await;
    let template = scene.path("services.in");
    fs::write(&template, WITHOUT_PASSWORD).unwrap();
    let services = format!("services@PGSERVICEFILE=@{}", template.display());
    let (python, program) = (python(), root().join("integration/peers/pg-service.py"));
    let [python, program] = [&python, &program].map(|path| path.to_str().unwrap());
    let options = ["--file", &services, "--file", "pgpass=short"];
    let ran = scene.run(&options, "PGPASSFILE", &[python, program, "app", USERS]);
    let users = scene.is_over(&ran).await;
    reconnected(&ran);
    scene.both_are_dead(&scene.password_files(), &users);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_service_reconnects_by_a_password_file() {
    let scene = Scene::new().await;
    let (node, program) = (node24(), root().join("integration/peers/pg-service.mjs"));
    let [node, program] = [&node, &program].map(|path| path.to_str().unwrap());
    let options = ["--file", "user@PG_USER_FILE=short/username", "--file", "pgpass=short"];
    let ran = scene.run(&options, "PGPASSFILE", &[node, program, USERS]);
    let users = scene.is_over(&ran).await;
    reconnected(&ran);
    scene.both_are_dead(&scene.password_files(), &users);
}
