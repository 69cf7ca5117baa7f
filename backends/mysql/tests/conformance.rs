//! The conformance suite on a real MySQL and a real MariaDB, and what is particular to them.
//!
//! The tests share a throwaway server of each kind, each test with a prefix of its own. Our
//! account has what the README asks for and no more.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says by panicking what does not hold"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use dayfly_backend_mysql::{MysqlBackend, MysqlConfig, Server as Kind, Tls};
use dayfly_backend_sdk::{
    Backend, Credential, Doomed, Error, ErrorKind, Handle, Liveness, MintRequest, Retry,
    Revocation, Secret, Template, Timestamp,
    testkit::{self, Hop, Login, Session, Subject, eventually},
};
use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, Connection, MySqlConnection, Row,
    mysql::{MySqlConnectOptions, MySqlSslMode},
};
use uuid::Uuid;

use crate::server::{Server, plain};

#[path = "conformance/authentication.rs"]
mod authentication;
#[path = "conformance/disk.rs"]
mod disk;
#[path = "conformance/server.rs"]
mod server;
#[path = "conformance/stalled.rs"]
mod stalled;

const ACCOUNT_PASSWORD: &str = "correct horse";
const KINDS: [Kind; 2] = [Kind::Mysql, Kind::Mariadb];

const SETUP: &str = "
    CREATE DATABASE app;
    CREATE TABLE app.orders (id INT);
    INSERT INTO app.orders VALUES (1), (2);
    CREATE DATABASE `a_b`;
    CREATE TABLE `a_b`.t (id INT);
    CREATE DATABASE `axb`;
    CREATE TABLE `axb`.t (id INT);
    CREATE ROLE readers;
    GRANT SELECT ON app.* TO readers;
    CREATE ROLE makers;
    GRANT CREATE VIEW, SELECT, CREATE, DROP ON app.* TO makers;
    CREATE USER dayfly@'%' IDENTIFIED BY 'correct horse';
    CREATE USER bare@'%' IDENTIFIED BY 'correct horse';
    GRANT CREATE USER, PROCESS ON *.* TO dayfly@'%';
    GRANT SELECT ON mysql.user TO dayfly@'%', bare@'%';
    GRANT SELECT, INSERT, UPDATE, DELETE, CREATE TEMPORARY TABLES ON app.* TO dayfly@'%'
        WITH GRANT OPTION;
    GRANT SELECT ON `a\\_b`.* TO dayfly@'%' WITH GRANT OPTION;
    GRANT readers TO dayfly@'%' WITH ADMIN OPTION;
    GRANT makers TO dayfly@'%' WITH ADMIN OPTION";

const MYSQL_SETUP: &str = "GRANT CONNECTION_ADMIN ON *.* TO dayfly@'%'";
const MARIADB_SETUP: &str = "GRANT CONNECTION ADMIN ON *.* TO dayfly@'%';
    GRANT UPDATE ON mysql.* TO dayfly@'%'";

static PREFIXES: AtomicU32 = AtomicU32::new(1);

async fn run(connection: &mut MySqlConnection, sql: &str) -> Result<(), u16> {
    let answer = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(connection).await;
    answer.map(drop).map_err(|error| {
        let error = error.into_database_error().expect("an error of the server");
        error.downcast::<sqlx::mysql::MySqlDatabaseError>().number()
    })
}

async fn set_up(server: &Server) {
    let mut admin = server.admin().await;
    let more = if server.kind == Kind::Mysql { MYSQL_SETUP } else { MARIADB_SETUP };
    for statement in SETUP.split(';').chain(more.split(';')) {
        assert_eq!(run(&mut admin, statement).await, Ok(()), "{statement}");
    }
}

struct Service {
    server: Arc<Server>,
    config: MysqlConfig,
    backend: MysqlBackend,
}

fn config(server: &Server, account: &str) -> MysqlConfig {
    MysqlConfig {
        server: server.kind,
        host: "127.0.0.1".to_owned(),
        port: server.port,
        username: account.to_owned(),
        password: Some(Secret::new(ACCOUNT_PASSWORD)),
        ca_file: Some(server.path("ca.pem")),
        prefix: format!("d{}_", PREFIXES.fetch_add(1, Ordering::Relaxed)),
        connections_max: 4,
        session_end_timeout_ms: 2_000,
        clock_skew_ms_max: 250,
        lock_wait_timeout_s: 1,
        ..MysqlConfig::default()
    }
}

impl Service {
    async fn start(kind: Kind) -> Self {
        let server = Server::shared(kind, async |server| set_up(server).await).await;
        Self::at(server, "dayfly")
    }

    fn at(server: Arc<Server>, account: &str) -> Self {
        let config = config(&server, account);
        let backend = MysqlBackend::new(&config).unwrap();
        Self { server, config, backend }
    }

    /// The same backend over a hop, in the clear, so that the hop can read it.
    fn by_way_of(&self, hop: &Hop) -> MysqlBackend {
        let port = hop.port();
        let config = MysqlConfig { port, tls: Some(Tls::Disable), ..self.config.clone() };
        MysqlBackend::new(&config).unwrap()
    }

    fn handle(&self, lease: u128) -> Handle {
        self.backend.handle(Uuid::from_u128(lease)).unwrap()
    }

    async fn mint(&self, handle: &Handle, template: &Template) -> Result<Credential, Error> {
        mint(&self.backend, handle, template, Duration::from_secs(30)).await
    }

    async fn minted(&self, lease: u128, raw: Value) -> (Doomed, Credential) {
        let template = self.backend.template(&raw).unwrap();
        let handle = self.handle(lease);
        let credential = self.mint(&handle, &template).await;
        let credential = credential.unwrap_or_else(|error| panic!("{}", chain(&error)));
        (Doomed::new(handle, template.plan().clone()), credential)
    }

    async fn end(&self, doomed: &Doomed) -> Result<(), Error> {
        match self.backend.revoke(std::slice::from_ref(doomed)).await.pop().unwrap() {
            Revocation::Gone => Ok(()),
            Revocation::Lingers => panic!("it lingers"),
            Revocation::Failed(error) => Err(error),
        }
    }

    async fn liveness(&self, doomed: &Doomed) -> Liveness {
        self.backend.verify(std::slice::from_ref(doomed)).await.unwrap()[0]
    }

    fn options(&self, credential: &Credential) -> MySqlConnectOptions {
        plain()
            .host("127.0.0.1")
            .port(self.server.port)
            .username(credential.field("username").unwrap())
            .password(credential.field("password").unwrap())
            .ssl_mode(MySqlSslMode::VerifyIdentity)
            .ssl_ca(self.server.path("ca.pem"))
    }

    async fn login(&self, credential: &Credential) -> sqlx::Result<MySqlConnection> {
        MySqlConnection::connect_with(&self.options(credential)).await
    }
}

async fn mint(
    backend: &MysqlBackend,
    handle: &Handle,
    template: &Template,
    within: Duration,
) -> Result<Credential, Error> {
    let now = now();
    let request = MintRequest {
        handle,
        template,
        expires_at: now.plus(Duration::from_mins(10)),
        mint_deadline: now.plus(within),
        principal: "https://ci.example:repo'; DROP USER root; --\\",
        lease: "lse_1",
    };
    backend.mint(&request).await
}

/// The servers run on this machine.
fn now() -> Timestamp {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap())
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// What both servers can: rights by grants of the account's own.
fn usual() -> Value {
    json!({ "grants": [{ "privileges": ["SELECT", "INSERT"], "database": "app" }],
        "database": "app" })
}

fn by_role() -> Value {
    json!({ "roles": ["readers"], "connection_limit": 2 })
}

#[async_trait]
impl Login for Service {
    async fn now(&self) -> Timestamp {
        now()
    }

    async fn wait(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    async fn works(&self, credential: &Credential) -> bool {
        match self.login(credential).await {
            Ok(mut session) => run(&mut session, "SELECT id FROM app.orders").await.is_ok(),
            Err(error) => {
                // Only "you may not" counts; a dead server would prove nothing.
                let refused = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
                assert!(matches!(refused.as_deref(), Some("28000" | "HY000")), "{error}");
                false
            }
        }
    }

    async fn open(&self, credential: &Credential) -> Option<Box<dyn Session>> {
        Some(Box::new(Open(self.login(credential).await.ok()?)))
    }
}

struct Open(MySqlConnection);

#[async_trait]
impl Session for Open {
    async fn alive(&mut self) -> bool {
        sqlx::raw_sql("SELECT id FROM app.orders").fetch_all(&mut self.0).await.is_ok()
    }
}

async fn conforms(kind: Kind, raw: Value) {
    let service = Service::start(kind).await;
    // Names that a prefix alone would take for ours.
    let prefix = &service.config.prefix;
    let strangers = [format!("{prefix}{}", "A".repeat(26)), format!("{prefix}x")];
    let mut admin = service.server.admin().await;
    for name in &strangers {
        run(&mut admin, &format!("CREATE USER '{name}'@'%' ACCOUNT LOCK")).await.unwrap();
    }
    let template = service.backend.template(&raw).unwrap();
    let ran = testkit::run(&Subject::new(&service.backend, &template, &service)).await;
    let ran = ran.unwrap_or_else(|failure| panic!("{kind}: {failure}"));
    let expected: Vec<_> =
        testkit::STEPS.into_iter().filter(|step| *step != "native_expiry").collect();
    assert_eq!(ran, expected);
    for name in &strangers {
        run(&mut admin, &format!("DROP USER '{name}'@'%'")).await.unwrap();
    }
}

#[tokio::test]
async fn mysql_conforms() {
    conforms(Kind::Mysql, usual()).await;
    conforms(Kind::Mysql, by_role()).await;
}

#[tokio::test]
async fn mariadb_conforms() {
    conforms(Kind::Mariadb, usual()).await;
    conforms(Kind::Mariadb, by_role()).await;
}

#[tokio::test]
async fn an_account_has_its_templates_rights_and_no_others() {
    for kind in KINDS {
        let service = Service::start(kind).await;
        let raw = json!({ "grants": [
            { "privileges": ["SELECT"], "database": "app", "table": "orders" },
            { "privileges": ["SELECT"], "database": "a_b" },
        ], "connection_limit": 1 });
        let (doomed, credential) = service.minted(1, raw).await;
        let mut session = service.login(&credential).await.unwrap();
        for allowed in ["SELECT * FROM app.orders", "SELECT * FROM `a_b`.t", "SELECT 1"] {
            assert_eq!(run(&mut session, allowed).await, Ok(()), "{kind}: {allowed}");
        }
        // The underscore of a database's name is no wildcard: `axb` is not `a_b`.
        for refused in [
            "SELECT * FROM `axb`.t",
            "INSERT INTO app.orders VALUES (3)",
            "CREATE TABLE app.mine (id INT)",
            "SELECT * FROM mysql.user",
        ] {
            let answer = run(&mut session, refused).await;
            assert!(matches!(answer, Err(1044 | 1142)), "{kind}: {refused}: {answer:?}");
        }
        assert!(service.login(&credential).await.is_err(), "{kind}: one session at a time");
        service.end(&doomed).await.unwrap();
    }
}

/// A role's right is there from the login on, without a word of the client.
#[tokio::test]
async fn a_role_is_in_force_at_the_login() {
    for kind in KINDS {
        let service = Service::start(kind).await;
        let (doomed, credential) = service.minted(1, by_role()).await;
        let mut session = service.login(&credential).await.unwrap();
        assert_eq!(run(&mut session, "SELECT id FROM app.orders").await, Ok(()), "{kind}");
        service.end(&doomed).await.unwrap();
    }
}

#[tokio::test]
async fn an_account_has_its_templates_limits() {
    for kind in KINDS {
        let service = Service::start(kind).await;
        let raw = json!({
            "grants": [{ "privileges": ["SELECT", "UPDATE"], "database": "app" }],
            "connections_per_hour": 1, "queries_per_hour": 100, "updates_per_hour": 1,
        });
        let (doomed, credential) = service.minted(1, raw).await;
        let mut session = service.login(&credential).await.unwrap();
        let update = "UPDATE app.orders SET id = id";
        assert_eq!(run(&mut session, update).await, Ok(()), "{kind}");
        assert_eq!(run(&mut session, update).await, Err(1226), "{kind}: one update an hour");
        let error = service.login(&credential).await.unwrap_err();
        let error = error.into_database_error().expect("an error of the server");
        let error = error.downcast::<sqlx::mysql::MySqlDatabaseError>();
        assert_eq!(error.number(), 1226, "{kind}: one login an hour");
        service.end(&doomed).await.unwrap();
    }
}

/// Whoever may everything that a template can give still makes no account and gets at no file.
#[tokio::test]
async fn nobody_lifts_himself_up() {
    for kind in KINDS {
        let service = Service::start(kind).await;
        let raw = json!({ "grants": [{ "privileges": ["SELECT", "INSERT", "UPDATE", "DELETE",
            "CREATE TEMPORARY TABLES"], "database": "app" }] });
        let (doomed, credential) = service.minted(1, raw).await;
        let mut session = service.login(&credential).await.unwrap();
        let me = format!("'{}'@'%'", doomed.handle);
        let attempts = [
            "CREATE USER friend@'%'".to_owned(),
            "CREATE ROLE friends".to_owned(),
            format!("GRANT ALL ON *.* TO {me}"),
            format!("GRANT SELECT ON app.* TO {me} WITH GRANT OPTION"),
            format!("GRANT readers TO {me}"),
            format!("RENAME USER {me} TO friend@'%'"),
            "ALTER USER root@localhost IDENTIFIED BY 'x'".to_owned(),
            format!("ALTER USER {me} WITH MAX_USER_CONNECTIONS 99"),
            "SET PASSWORD FOR root@localhost = 'x'".to_owned(),
            "DROP USER dayfly@'%'".to_owned(),
            "SET GLOBAL general_log = OFF".to_owned(),
            "SET GLOBAL event_scheduler = ON".to_owned(),
            "SELECT LOAD_FILE('/etc/passwd') INTO OUTFILE '/tmp/dayfly-escape'".to_owned(),
            "LOAD DATA INFILE '/etc/passwd' INTO TABLE app.orders".to_owned(),
            "CREATE FUNCTION f RETURNS INTEGER SONAME 'x.so'".to_owned(),
            "INSTALL PLUGIN x SONAME 'x.so'".to_owned(),
            "CREATE TRIGGER app.t BEFORE INSERT ON app.orders FOR EACH ROW SET @a = 1".to_owned(),
            "CREATE EVENT app.e ON SCHEDULE EVERY 1 DAY DO SELECT 1".to_owned(),
            "CREATE VIEW app.v AS SELECT 1".to_owned(),
            "CREATE PROCEDURE app.p() SELECT 1".to_owned(),
            "CREATE DATABASE other".to_owned(),
            "DROP TABLE app.orders".to_owned(),
            "INSERT INTO mysql.user (User) VALUES ('friend')".to_owned(),
            "UPDATE mysql.db SET Drop_priv = 'Y'".to_owned(),
            "FLUSH PRIVILEGES".to_owned(),
            "SHUTDOWN".to_owned(),
            "KILL 1".to_owned(),
            "SET ROLE readers".to_owned(),
        ];
        for attempt in attempts {
            assert!(run(&mut session, &attempt).await.is_err(), "{kind}: {attempt}");
        }
        let mut admin = service.server.admin().await;
        let sql = "SELECT COUNT(*) FROM mysql.user WHERE User = 'friend'";
        let row = sqlx::raw_sql(sql).fetch_one(&mut admin).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), 0);
        drop(session);
        service.end(&doomed).await.unwrap();
    }
}

/// Names that break quoting are names.
#[tokio::test]
async fn whatever_a_database_is_called_it_is_only_a_name() {
    let corpus = [
        "a`b",
        "a'b",
        "a\"b",
        "a\\b",
        "a\\'b",
        "-- x",
        ";--",
        "/*!99999 x",
        "émoji",
        "\u{202e}abc",
        "%",
        "a%b_c",
        "{{name}}",
        "x`; DROP USER root@localhost; --",
        "a b",
    ];
    for kind in KINDS {
        let service = Service::start(kind).await;
        let mut admin = service.server.admin().await;
        for (number, name) in corpus.iter().enumerate() {
            let quoted = format!("`{}`", name.replace('`', "``"));
            let escaped = name.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%");
            let escaped = format!("`{}`", escaped.replace('`', "``"));
            for sql in [
                format!("CREATE DATABASE IF NOT EXISTS {quoted}"),
                format!("CREATE TABLE IF NOT EXISTS {quoted}.{quoted} (id INT)"),
                format!("GRANT SELECT ON {escaped}.* TO dayfly@'%' WITH GRANT OPTION"),
            ] {
                assert_eq!(run(&mut admin, &sql).await, Ok(()), "{kind}: {sql}");
            }
            for table in [None, Some(*name)] {
                let raw = json!({ "grants": [{ "privileges": ["SELECT"], "database": name,
                    "table": table }], "database": name });
                let lease = u128::try_from(number * 2).unwrap() + u128::from(table.is_some());
                let (doomed, credential) = service.minted(lease, raw).await;
                let mut session = service.login(&credential).await.unwrap();
                let sql = format!("SELECT * FROM {quoted}.{quoted}");
                assert_eq!(run(&mut session, &sql).await, Ok(()), "{kind}: {sql}");
                drop(session);
                service.end(&doomed).await.unwrap();
            }
        }
    }
}

/// The message that makes the account is held on its way until the deadline has passed.
#[tokio::test]
async fn a_create_that_comes_late_creates_nothing() {
    let service = Service::start(Kind::Mariadb).await;
    let place = format!("127.0.0.1:{}", service.server.port);
    let hop = Hop::before(&place, b"CREATE USER", Duration::from_millis(2_500));
    let backend = service.by_way_of(&hop);
    let template = backend.template(&usual()).unwrap();
    let handle = service.handle(1);
    let error = mint(&backend, &handle, &template, Duration::from_secs(3)).await.unwrap_err();
    assert!(chain(&error).contains("deadline has passed"), "{}", chain(&error));
    assert!(hop.met(), "else this proves nothing");
    let doomed = Doomed::new(handle, template.plan().clone());
    assert_eq!(service.liveness(&doomed).await, Liveness::Gone);
}

/// The account is made, and nobody is told: that is not known, and what revokes it finds it.
#[tokio::test]
async fn an_answer_that_is_lost_means_nothing() {
    let service = Service::start(Kind::Mariadb).await;
    let place = format!("127.0.0.1:{}", service.server.port);
    let hop = Hop::losing_the_answer(&place, b"CREATE USER");
    let backend = service.by_way_of(&hop);
    let template = backend.template(&usual()).unwrap();
    let handle = service.handle(1);
    let error = mint(&backend, &handle, &template, Duration::from_secs(30)).await.unwrap_err();
    assert!(hop.met(), "else this proves nothing");
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{}", chain(&error));
    let doomed = Doomed::new(handle, template.plan().clone());
    eventually("it was made", async || {
        (service.liveness(&doomed).await == Liveness::Live).then_some(())
    })
    .await;
    service.end(&doomed).await.unwrap();
}

/// A login reads its account when it begins. One that stands still there is let in after the
/// account was locked and dropped (MySQL); it may do nothing, and the sweep finds it.
#[tokio::test]
async fn a_login_that_had_begun_before_the_end_has_no_rights_and_is_found() {
    for kind in KINDS {
        let service = Service::start(kind).await;
        let (doomed, credential) = service.minted(1, usual()).await;
        let socket = service.server.path("s");
        let field = |name| credential.field(name).unwrap().to_owned();
        let stalled = stalled::Stalled::begin(&socket, &field("username"), &field("password"));
        let ended = service.end(&doomed).await;
        match stalled.finish() {
            // MariaDB knows whose login it is, and ends it with the others.
            None => assert_eq!(kind, Kind::Mariadb),
            Some(mut session) => {
                ended.unwrap();
                assert!(session.query("SELECT 1").is_ok());
                let refused = session.query("SELECT id FROM app.orders").unwrap_err();
                assert!(refused.contains("denied"), "{refused}");
                assert_eq!(service.liveness(&doomed).await, Liveness::Live);
                let listed = service.backend.list(None, 10).await.unwrap().credentials;
                assert_eq!(
                    listed.into_iter().map(|one| one.handle).collect::<Vec<_>>(),
                    std::slice::from_ref(&doomed.handle)
                );
                service.end(&doomed).await.unwrap();
                assert!(session.query("SELECT 1").is_err(), "{kind}: the session is ended");
            }
        }
        assert_eq!(service.liveness(&doomed).await, Liveness::Gone, "{kind}");
    }
}

/// One that cannot be dropped delays none of those that were to die with it, and can no longer
/// log in. MySQL keeps an account that objects act as; MariaDB drops it.
#[tokio::test]
async fn one_that_cannot_be_dropped_delays_no_other() {
    for kind in KINDS {
        let service = Service::start(kind).await;
        let raw = json!({ "roles": ["makers"] });
        let (maker, credential) = service.minted(1, raw).await;
        let (other, another) = service.minted(2, usual()).await;
        let mut session = service.login(&credential).await.unwrap();
        let view = format!("app.{}", maker.handle);
        run(&mut session, &format!("CREATE VIEW {view} AS SELECT 1")).await.unwrap();
        let ended = service.backend.revoke(&[maker.clone(), other.clone()]).await;
        assert!(matches!(ended[1], Revocation::Gone), "{kind}: {ended:?}");
        assert!(!service.works(&another).await);
        assert!(!service.works(&credential).await, "{kind}: it is fenced");
        assert!(run_lost(&mut session).await, "{kind}: its session is ended");
        let mut admin = service.server.admin().await;
        if kind == Kind::Mysql {
            let Revocation::Failed(error) = &ended[0] else { panic!("{ended:?}") };
            assert_eq!(error.kind(), ErrorKind::Dependent, "{}", chain(error));
            assert_eq!(service.liveness(&maker).await, Liveness::Live);
        }
        run(&mut admin, &format!("DROP VIEW {view}")).await.unwrap();
        service.end(&maker).await.unwrap();
    }
}

async fn run_lost(session: &mut MySqlConnection) -> bool {
    sqlx::raw_sql("SELECT 1").fetch_all(session).await.is_err()
}

/// Somebody's account under our name with another host is ours to end as well.
#[tokio::test]
async fn no_host_is_left_out() {
    for kind in KINDS {
        let service = Service::start(kind).await;
        let (doomed, _) = service.minted(1, usual()).await;
        let mut admin = service.server.admin().await;
        let name = &doomed.handle;
        run(&mut admin, &format!("CREATE USER '{name}'@'localhost'")).await.unwrap();
        service.end(&doomed).await.unwrap();
        let sql = format!("SELECT COUNT(*) FROM mysql.user WHERE User = '{name}'");
        let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut admin).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), 0, "{kind}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_way_is_said() {
    for kind in KINDS {
        let service = Service::start(kind).await;
        let failure = async |config: MysqlConfig| {
            let backend = MysqlBackend::new(&config).unwrap();
            let template = backend.template(&usual()).unwrap();
            let handle = backend.handle(Uuid::from_u128(1)).unwrap();
            let error = mint(&backend, &handle, &template, Duration::from_secs(30)).await;
            let error = error.map(drop).unwrap_err();
            (error.kind(), chain(&error))
        };
        let with = |change: fn(&mut MysqlConfig)| {
            let mut config = MysqlConfig { acquire_timeout_ms: 500, ..service.config.clone() };
            change(&mut config);
            config
        };
        let (what, text) =
            failure(with(|config| config.password = Some(Secret::new("wrong")))).await;
        assert_eq!(what, ErrorKind::Denied, "{text}");
        assert!(text.contains("Access denied for user 'dayfly'"), "{text}");
        let (what, text) = failure(with(|config| config.username = "bare".to_owned())).await;
        assert_eq!(what, ErrorKind::Denied, "{text}");
        assert!(text.contains("CREATE USER"), "{text}");
        let (what, text) = failure(with(|config| config.port = testkit::free_port())).await;
        assert_eq!(what, ErrorKind::Unavailable, "{text}");
        let (_, text) = failure(with(|config| config.ca_file = None)).await;
        assert!(text.contains("UnknownIssuer"), "{text}");
        let (_, text) = failure(with(|config| {
            config.server = match config.server {
                Kind::Mysql => Kind::Mariadb,
                Kind::Mariadb => Kind::Mysql,
            };
        }))
        .await;
        assert!(text.contains(&format!("set `server = \"{kind}\"`")), "{text}");
    }
}

/// The anonymous account of old installations, and an account that may too much.
#[tokio::test]
async fn what_should_be_changed_is_said() {
    for kind in KINDS {
        let service = Service::start(kind).await;
        assert_eq!(service.backend.advice().await.unwrap(), Vec::<String>::new(), "{kind}");
        let server = Server::start(kind);
        set_up(&server).await;
        let mut admin = server.admin().await;
        run(&mut admin, "CREATE USER ''@'db.example'").await.unwrap();
        run(&mut admin, "GRANT ALL PRIVILEGES ON *.* TO dayfly@'%'").await.unwrap();
        let backend = MysqlBackend::new(&config(&server, "dayfly")).unwrap();
        let advice = backend.advice().await.unwrap();
        assert!(advice.iter().any(|text| text.contains("''@'db.example'")), "{kind}: {advice:?}");
        let many = |text: &String| text.contains("ALL PRIVILEGES") || text.contains("SUPER");
        assert!(advice.iter().any(many), "{kind}: {advice:?}");
    }
}

/// The server takes the more exact host before the name: `''@'localhost'` before `df_…@'%'`.
#[tokio::test]
async fn an_anonymous_account_stands_before_ours_and_is_told_of() {
    for kind in KINDS {
        let server = Server::start(kind);
        set_up(&server).await;
        let mut admin = server.admin().await;
        // One connection, open before the trap is set: it would catch our own account as well.
        let config = MysqlConfig { connections_max: 1, ..config(&server, "dayfly") };
        let backend = MysqlBackend::new(&config).unwrap();
        let service = Service { server: Arc::new(server), config, backend };
        let (_, credential) = service.minted(1, usual()).await;
        assert!(service.works(&credential).await, "{kind}");

        let trap = "CREATE USER ''@'localhost' IDENTIFIED BY 'of nobody'";
        assert_eq!(run(&mut admin, trap).await, Ok(()), "{kind}");
        assert!(!service.works(&credential).await, "{kind}: it is taken for nobody");
        let advice = service.backend.advice().await.unwrap();
        let told = "''@'localhost' is taken before any of ours";
        assert!(advice.iter().any(|text| text.contains(told)), "{kind}: {advice:?}");

        assert_eq!(run(&mut admin, "DROP USER ''@'localhost'").await, Ok(()), "{kind}");
        assert!(service.works(&credential).await, "{kind}");
        // At the same host the name decides.
        let other = "CREATE USER ''@'%' IDENTIFIED BY 'of nobody'";
        assert_eq!(run(&mut admin, other).await, Ok(()), "{kind}");
        assert!(service.works(&credential).await, "{kind}");
        let advice = service.backend.advice().await.unwrap();
        let told = "''@'%' answers for every account that is not there";
        assert!(advice.iter().any(|text| text.contains(told)), "{kind}: {advice:?}");
    }
}

/// Without PROCESS our account sees no session but its own; what it cannot see is not gone.
#[tokio::test]
async fn who_cannot_see_sessions_says_of_none_that_it_is_gone() {
    for kind in KINDS {
        let server = Server::start(kind);
        set_up(&server).await;
        let backend = MysqlBackend::new(&config(&server, "dayfly")).unwrap();
        let template = backend.template(&usual()).unwrap();
        let handle = backend.handle(Uuid::from_u128(1)).unwrap();
        mint(&backend, &handle, &template, Duration::from_secs(30)).await.unwrap();
        let mut admin = server.admin().await;
        run(&mut admin, "REVOKE PROCESS ON *.* FROM dayfly@'%'").await.unwrap();
        let blind = MysqlBackend::new(&config(&server, "dayfly")).unwrap();
        let doomed = [Doomed::new(handle, template.plan().clone())];
        let ended = blind.revoke(&doomed).await;
        let Revocation::Failed(error) = &ended[0] else { panic!("{kind}: {ended:?}") };
        assert_eq!(error.kind(), ErrorKind::Denied, "{kind}: {}", chain(error));
        assert!(chain(error).contains("PROCESS"), "{kind}: {}", chain(error));
        assert!(blind.verify(&doomed).await.is_err(), "{kind}");
        run(&mut admin, "GRANT PROCESS ON *.* TO dayfly@'%'").await.unwrap();
        let ended = backend.revoke(&doomed).await;
        assert!(matches!(ended[..], [Revocation::Gone]), "{kind}: {ended:?}");
    }
}

/// A mint that has begun and waits in the server, longer than anyone waits for it, is ended by
/// what ends its account; it makes nothing afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_hangs_in_the_server_is_ended_with_its_account() {
    for kind in KINDS {
        let server = Server::start(kind);
        set_up(&server).await;
        let mut admin = server.admin().await;
        let backend = MysqlBackend::new(&config(&server, "dayfly")).unwrap();
        let handle = backend.handle(Uuid::from_u128(1)).unwrap();
        let template = backend.template(&usual()).unwrap();
        let doomed = [Doomed::new(handle.clone(), template.plan().clone())];
        // One of ours that holds the mint's lock and makes the account in a while.
        let options = plain().host("127.0.0.1").port(server.port).username("dayfly");
        let options = options.password(ACCOUNT_PASSWORD).ssl_mode(MySqlSslMode::VerifyIdentity);
        let options = options.ssl_ca(server.path("ca.pem"));
        let mut slow = MySqlConnection::connect_with(&options).await.unwrap();
        let message = format!(
            "SELECT GET_LOCK('dayfly:{handle}', 0); SELECT SLEEP(3); CREATE USER '{handle}'@'%'"
        );
        let ending = async {
            eventually("it hangs", async || {
                let sql = format!("SELECT CAST(IS_USED_LOCK('dayfly:{handle}') AS SIGNED)");
                let mut admin = server.admin().await;
                let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut admin).await.unwrap();
                row.get::<Option<i64>, _>(0)
            })
            .await;
            let seen = backend.verify(&doomed).await.unwrap();
            assert_eq!(seen, [Liveness::Live], "{kind}: it is being made");
            backend.revoke(&doomed).await
        };
        let (made, ended) = tokio::join!(run_lossy(&mut slow, &message), ending);
        assert!(matches!(ended[..], [Revocation::Gone]), "{kind}: {ended:?}");
        assert!(!made, "{kind}: the mint was ended");
        tokio::time::sleep(Duration::from_secs(4)).await;
        let sql = format!("SELECT COUNT(*) FROM mysql.user WHERE User = '{handle}'");
        let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut admin).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), 0, "{kind}");
    }
}

/// Whether all of it was run.
async fn run_lossy(connection: &mut MySqlConnection, sql: &str) -> bool {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(connection).await.is_ok()
}

/// The server is told a hash, and says nothing else.
#[tokio::test]
async fn the_secret_is_in_no_log_of_the_server() {
    for kind in KINDS {
        let service = Service::start(kind).await;
        let (doomed, credential) = service.minted(1, usual()).await;
        // A mint that fails is the one whose statement a server would log.
        let template = service.backend.template(&usual()).unwrap();
        let taken = service.mint(&doomed.handle, &template).await.unwrap_err();
        let secret = credential.field("password").unwrap();
        assert!(!chain(&taken).contains("IDENTIFIED"), "{}", chain(&taken));
        assert!(service.works(&credential).await);
        service.end(&doomed).await.unwrap();
        let logs = service.server.logs();
        assert!(logs.contains(doomed.handle.as_str()), "{kind}: the log has the statements");
        assert!(!logs.contains(secret), "{kind}");
    }
}

/// The server is killed under a mint, comes back, and holds what it had; nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_loses_nothing_that_was_answered() {
    let mut server = Server::start(Kind::Mariadb);
    set_up(&server).await;
    let config = MysqlConfig { answer_timeout_ms: 2_000, ..config(&server, "dayfly") };
    let backend = MysqlBackend::new(&config).unwrap();
    let template = backend.template(&usual()).unwrap();
    let handle = |number| backend.handle(Uuid::from_u128(number)).unwrap();
    let doomed = |handle: Handle| Doomed::new(handle, template.plan().clone());
    let patience = Duration::from_secs(30);
    mint(&backend, &handle(1), &template, patience).await.unwrap();

    // It stands still, and nobody knows what becomes of what is sent.
    server.signal("STOP");
    let error = mint(&backend, &handle(2), &template, patience).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Temporary, "{}", chain(&error));
    server.signal("CONT");
    // Whether or not it was done, the revocation that the engine orders finds it.
    let ended = backend.revoke(&[doomed(handle(2))]).await;
    assert!(matches!(ended[..], [Revocation::Gone]), "{ended:?}");

    server.kill();
    let error = mint(&backend, &handle(3), &template, patience).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::UnknownOutcome));
    let ended = backend.revoke(&[doomed(handle(1))]).await;
    assert!(matches!(ended[..], [Revocation::Failed(_)]), "{ended:?}");
    server.resume();
    let listed = backend.list(None, 10).await.unwrap().credentials;
    assert_eq!(listed.into_iter().map(|one| one.handle).collect::<Vec<_>>(), [handle(1)]);
    let ended = backend.revoke(&[doomed(handle(1)), doomed(handle(3))]).await;
    assert!(matches!(ended[..], [Revocation::Gone, Revocation::Gone]), "{ended:?}");
}

/// Our own password is changed by us, and no log has the new one.
#[tokio::test]
async fn our_own_password_changes() {
    for kind in KINDS {
        let service = Service::start(kind).await;
        let mut admin = service.server.admin().await;
        for sql in [
            "CREATE USER turning@'%' IDENTIFIED BY 'correct horse'",
            "GRANT CREATE USER, PROCESS ON *.* TO turning@'%'",
            "GRANT SELECT ON mysql.user TO turning@'%'",
        ] {
            assert_eq!(run(&mut admin, sql).await, Ok(()), "{sql}");
        }
        let make = |password: &Secret| -> Box<dyn Backend> {
            let (username, password) = ("turning".to_owned(), Some(password.clone()));
            let config = MysqlConfig { username, password, ..service.config.clone() };
            Box::new(MysqlBackend::new(&config).unwrap())
        };
        let rotated = testkit::rotation(&make, &Secret::new(ACCOUNT_PASSWORD)).await;
        rotated.unwrap_or_else(|failure| panic!("{kind}: {failure}"));
        assert!(!service.server.logs().contains("ROTATED"), "{kind}");
    }
}
