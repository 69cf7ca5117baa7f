//! The conformance suite on a real PostgreSQL, and what is particular to it.
//!
//! The tests share a throwaway server, each with a prefix of its own. Our accounts at it are no
//! superusers, and whoever is not `postgres` must give a password.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use dayfly_backend_postgres::{PostgresBackend, PostgresConfig, Tls};
use dayfly_backend_sdk::{
    Backend, Credential, Doomed, Error, ErrorKind, Handle, Liveness, MintRequest, Plan, Revocation,
    Secret, Template, Timestamp,
    testkit::{self, Login, Session, Subject},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, postgres::PgConnectOptions};
use uuid::Uuid;

use crate::server::{Bouncer, Server};

#[path = "conformance/disk.rs"]
mod disk;
#[path = "conformance/group.rs"]
mod group;
#[path = "conformance/owned.rs"]
mod owned;
#[path = "conformance/server.rs"]
mod server;

/// Our accounts: one with what the README asks for, one without `pg_signal_backend`.
const ACCOUNT: &str = "dayfly";
const BARE_ACCOUNT: &str = "bare";
const ACCOUNT_PASSWORD: &str = "correct horse";

const SETUP: &str = "
    CREATE ROLE dayfly LOGIN CREATEROLE PASSWORD 'correct horse';
    GRANT pg_signal_backend TO dayfly;
    CREATE ROLE bare LOGIN CREATEROLE PASSWORD 'correct horse';
    CREATE ROLE readers;
    CREATE ROLE writers;
    CREATE ROLE heir;
    GRANT heir, readers, writers TO dayfly, bare WITH ADMIN OPTION;
    CREATE DATABASE shop";

const SHOP: &str = "
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    CREATE SCHEMA app;
    CREATE TABLE app.orders (id int);
    INSERT INTO app.orders VALUES (1), (2);
    GRANT USAGE ON SCHEMA app TO readers, writers;
    GRANT CREATE ON SCHEMA app TO writers, heir;
    GRANT SELECT ON app.orders TO readers";

static PREFIXES: AtomicU32 = AtomicU32::new(1);

async fn set_up(server: &Server) {
    for statement in SETUP.split(';') {
        run(&mut server.admin("postgres").await, statement).await;
    }
    run(&mut server.admin("shop").await, SHOP).await;
}

struct Service {
    server: Arc<Server>,
    config: PostgresConfig,
    backend: PostgresBackend,
}

impl Service {
    async fn start(account: &str) -> Self {
        let server = Server::shared(async |server| set_up(server).await).await;
        Self::at(server, account)
    }

    fn at(server: Arc<Server>, account: &str) -> Self {
        let config = PostgresConfig {
            host: server.directory().to_owned(),
            port: server.port,
            username: account.to_owned(),
            password: Some(Secret::new(ACCOUNT_PASSWORD)),
            prefix: format!("dayfly{}_", PREFIXES.fetch_add(1, Ordering::Relaxed)),
            connections_max: 4,
            session_end_timeout_ms: 2_000,
            clock_skew_ms_max: 250,
            ..PostgresConfig::default()
        };
        let backend = PostgresBackend::new(&config).unwrap();
        Self { server, config, backend }
    }

    fn template(&self, mut raw: Value) -> Template {
        raw["database"] = json!("shop");
        self.backend.template(&raw).unwrap()
    }

    fn handle(&self, lease: u128) -> Handle {
        self.backend.handle(Uuid::from_u128(lease)).unwrap()
    }

    async fn mint(&self, handle: &Handle, template: &Template) -> Result<Credential, Error> {
        let now = self.now().await;
        let request = MintRequest {
            handle,
            template,
            expires_at: now.plus(Duration::from_mins(10)),
            mint_deadline: now.plus(Duration::from_secs(30)),
            principal: "https://ci.example:repo'; DROP ROLE readers; --\\",
            lease: "lse_1",
        };
        self.backend.mint(&request).await
    }

    async fn minted(&self, lease: u128, raw: Value) -> (Doomed, Credential) {
        let template = self.template(raw);
        let handle = self.handle(lease);
        let credential = self.mint(&handle, &template).await.unwrap();
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

    async fn count(&self, sql: &str) -> i64 {
        let mut admin = self.server.admin("postgres").await;
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).fetch_one(&mut admin).await.unwrap().get(0)
    }
}

async fn run(connection: &mut PgConnection, sql: &str) {
    try_run(connection, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn try_run(connection: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.map(drop)
}

/// The SQLSTATE with which the server refuses; panics when it does not.
async fn refused(connection: &mut PgConnection, sql: &str) -> String {
    let error = try_run(connection, sql).await.err().unwrap_or_else(|| panic!("allowed: {sql}"));
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap().into_owned()
}

async fn login(credential: &Credential) -> Result<PgConnection, sqlx::Error> {
    login_to(credential, credential.field("database").unwrap()).await
}

async fn login_to(credential: &Credential, database: &str) -> Result<PgConnection, sqlx::Error> {
    let field = |name| credential.field(name).unwrap();
    let options = PgConnectOptions::new_without_pgpass()
        .host(field("host"))
        .port(field("port").parse().unwrap())
        .username(field("username"))
        .password(field("password"))
        .database(database);
    PgConnection::connect_with(&options).await
}

async fn login_works(credential: &Credential) -> bool {
    match login(credential).await {
        Ok(connection) => {
            connection.close().await.unwrap();
            true
        }
        Err(error) => {
            // Only "you may not" counts as refused; a dead server would prove nothing.
            let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
            assert!(code.is_some_and(|code| code.starts_with("28")), "{error}");
            false
        }
    }
}

#[async_trait]
impl Login for Service {
    async fn now(&self) -> Timestamp {
        let sql = "SELECT (extract(epoch from clock_timestamp()) * 1000000)::int8";
        Timestamp::from_micros(self.count(sql).await)
    }

    async fn wait(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    async fn works(&self, credential: &Credential) -> bool {
        login_works(credential).await
    }

    async fn open(&self, credential: &Credential) -> Option<Box<dyn Session>> {
        Some(Box::new(Open(login(credential).await.ok()?)))
    }
}

struct Open(PgConnection);

#[async_trait]
impl Session for Open {
    async fn alive(&mut self) -> bool {
        try_run(&mut self.0, "SELECT count(*) FROM app.orders").await.is_ok()
    }
}

async fn conforms_as(account: &str) {
    conforming(&Service::start(account).await).await;
}

async fn conforming(service: &Service) {
    // Names that a careless LIKE, or a prefix alone, would take for ours.
    let prefix = &service.config.prefix;
    let wild = prefix.replace('_', "x");
    let tail = "a".repeat(26);
    let strangers = [
        format!("{wild}{tail}"),
        format!("{prefix}group"),
        format!("{prefix}{}", tail.to_uppercase()),
        format!("{prefix}{tail}a"),
    ];
    let mut admin = service.server.admin("postgres").await;
    for name in &strangers {
        run(&mut admin, &format!("CREATE ROLE \"{name}\" LOGIN")).await;
    }
    let template = service.template(json!({ "member_of": ["readers"], "scram_iterations": 64 }));
    let subject = Subject::new(&service.backend, &template, service);
    let ran = testkit::run(&subject).await.unwrap();
    assert_eq!(ran, testkit::STEPS);
    for name in &strangers {
        run(&mut admin, &format!("DROP ROLE \"{name}\"")).await;
    }
}

#[tokio::test]
async fn conforms() {
    conforms_as(ACCOUNT).await;
}

/// Membership in the doomed role, taken for its end, is all that ending its sessions needs.
#[tokio::test]
async fn conforms_without_pg_signal_backend() {
    conforms_as(BARE_ACCOUNT).await;
}

/// A pooler that gives each transaction whatever connection is free.
#[tokio::test]
async fn conforms_behind_a_transaction_pooler() {
    let mut service = Service::start(ACCOUNT).await;
    let bouncer = Bouncer::before(&service.server, ACCOUNT, ACCOUNT_PASSWORD);
    let config = PostgresConfig {
        host: "127.0.0.1".to_owned(),
        port: bouncer.port,
        tls: Some(Tls::Disable),
        public_host: Some(service.config.host.clone()),
        public_port: Some(service.config.port),
        ..service.config.clone()
    };
    service.backend = PostgresBackend::new(&config).unwrap();
    conforming(&service).await;
}

/// Encrypted, to the host that the certificate names, by an authority that we know.
#[tokio::test]
async fn a_server_is_believed_by_its_certificate() {
    let service = Service::start(ACCOUNT).await;
    let config = |host: &str, authority: bool| PostgresConfig {
        host: host.to_owned(),
        ca_file: authority.then(|| service.server.path("ca.pem")),
        acquire_timeout_ms: 1_000,
        ..service.config.clone()
    };
    let refused = async |config: &PostgresConfig| {
        let error = PostgresBackend::new(config).unwrap().list(None, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    };
    let known = PostgresBackend::new(&config("127.0.0.1", true)).unwrap();
    let template = known.template(&json!({ "member_of": ["readers"], "database": "shop" }));
    let report = known.canary(&service.handle(1), &template.unwrap()).await;
    assert!(report.passed(), "{report:?}");
    let text = refused(&config("127.0.0.1", false)).await;
    assert!(text.contains("UnknownIssuer"), "{text}");
    let text = refused(&config("127.0.0.2", true)).await;
    assert!(text.contains("not valid for name \"127.0.0.2\""), "{text}");
}

/// The session that `DROP ROLE` alone would leave reading.
#[tokio::test]
async fn a_session_that_did_set_role_ends_with_its_role() {
    let service = Service::start(ACCOUNT).await;
    let (doomed, credential) = service.minted(1, json!({ "member_of": ["readers"] })).await;
    let mut session = login(&credential).await.unwrap();
    run(&mut session, "SET ROLE readers").await;
    run(&mut session, "SELECT count(*) FROM app.orders").await;
    service.end(&doomed).await.unwrap();
    assert!(try_run(&mut session, "SELECT count(*) FROM app.orders").await.is_err());
    assert!(!login_works(&credential).await);
    assert_eq!(service.liveness(&doomed).await, Liveness::Gone);
}

/// Somebody drops our role by hand while its session goes on under another role: the name is
/// gone, the danger is not.
#[tokio::test]
async fn a_session_outliving_its_role_is_found_by_id_and_ended() {
    let service = Service::start(ACCOUNT).await;
    let (doomed, credential) = service.minted(1, json!({ "member_of": ["readers"] })).await;
    let mut session = login(&credential).await.unwrap();
    run(&mut session, "SET ROLE readers").await;
    let mut admin = service.server.admin("postgres").await;
    run(&mut admin, &format!("DROP ROLE {}", doomed.handle)).await;
    run(&mut session, "SELECT count(*) FROM app.orders").await;
    assert_eq!(service.liveness(&doomed).await, Liveness::Live);
    service.end(&doomed).await.unwrap();
    assert!(try_run(&mut session, "SELECT count(*) FROM app.orders").await.is_err());
    assert_eq!(service.liveness(&doomed).await, Liveness::Gone);
}

/// Nobody asks for that role any more: its session ends with the next role of ours.
#[tokio::test]
async fn a_session_of_a_role_that_is_no_more_ends_with_the_next_one() {
    let service = Service::start(ACCOUNT).await;
    let (stray, credential) = service.minted(1, json!({ "member_of": ["readers"] })).await;
    let (next, _) = service.minted(2, json!({ "member_of": ["readers"] })).await;
    let mut session = login(&credential).await.unwrap();
    run(&mut session, "SET ROLE readers").await;
    let mut admin = service.server.admin("postgres").await;
    run(&mut admin, &format!("DROP ROLE {}", stray.handle)).await;
    run(&mut session, "SELECT count(*) FROM app.orders").await;
    service.end(&next).await.unwrap();
    // The server is told to end it, and is not waited for.
    for _ in 0..100 {
        if try_run(&mut session, "SELECT count(*) FROM app.orders").await.is_err() {
            assert_eq!(service.liveness(&stray).await, Liveness::Gone);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it goes on reading");
}

/// Nobody is logged in: the drop is all there is to do. Somebody is: the fence comes first.
#[tokio::test]
async fn only_a_role_in_use_is_fenced_before_it_is_dropped() {
    let service = Service::start(ACCOUNT).await;
    let (idle, _) = service.minted(1, json!({ "member_of": ["readers"] })).await;
    let (used, credential) = service.minted(2, json!({ "member_of": ["readers"] })).await;
    let mut session = login(&credential).await.unwrap();
    let outcome = service.backend.revoke(&[idle.clone(), used.clone()]).await;
    assert!(outcome.iter().all(|one| matches!(one, Revocation::Gone)), "{outcome:?}");
    assert!(try_run(&mut session, "SELECT 1").await.is_err());
    let log = service.server.log();
    let fenced = |one: &Doomed| log.contains(&format!("ALTER ROLE \"{}\" NOLOGIN", one.handle));
    assert_eq!((fenced(&idle), fenced(&used)), (false, true));
}

/// Logs in again and again until that is refused; gives the sessions that stayed.
async fn hammer(credential: Credential) -> Vec<PgConnection> {
    let mut sessions = Vec::new();
    while let Ok(mut session) = login(&credential).await {
        // Some stay, some are gone again at once.
        if sessions.len() < 3 && try_run(&mut session, "SET ROLE readers").await.is_ok() {
            sessions.push(session);
        }
    }
    sessions
}

/// Whoever tries to log in all the time while the role ends has no session afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_logins_leaves_no_session() {
    let service = Service::start(ACCOUNT).await;
    let mut inside = 0;
    for lease in 1..=10 {
        let raw = json!({ "member_of": ["readers"], "scram_iterations": 1 });
        let (doomed, credential) = service.minted(lease, raw).await;
        let mut storm = tokio::task::JoinSet::new();
        for _ in 0..4 {
            storm.spawn(hammer(credential.clone()));
        }
        tokio::time::sleep(Duration::from_millis(u64::try_from(lease).unwrap() * 3)).await;
        // What a login in between spoils is done by the next attempt, as the reaper's is.
        while service.end(&doomed).await.is_err() {}
        let sessions = storm.join_all().await.into_iter().flatten();
        for mut session in sessions {
            inside += 1;
            assert!(try_run(&mut session, "SELECT count(*) FROM app.orders").await.is_err());
        }
    }
    assert!(inside > 0, "nobody ever got in");
}

#[tokio::test]
async fn the_servers_log_has_no_password() {
    let service = Service::start(ACCOUNT).await;
    let (doomed, credential) = service.minted(1, json!({ "member_of": ["readers"] })).await;
    assert!(login_works(&credential).await);
    // A failing CREATE ROLE is logged with its text by default.
    let template = service.template(json!({}));
    assert!(service.mint(&doomed.handle, &template).await.is_err());
    service.end(&doomed).await.unwrap();
    let log = service.server.log();
    assert!(log.contains(&format!("CREATE ROLE \"{}\"", doomed.handle)), "the log is on");
    assert!(log.contains("SCRAM-SHA-256$4096:"));
    assert!(!log.contains(credential.field("password").unwrap()));
}

#[tokio::test]
async fn one_that_owns_something_fails_alone() {
    let service = Service::start(ACCOUNT).await;
    let mut batch = Vec::new();
    let mut credentials = Vec::new();
    for lease in 1..=9 {
        let (doomed, credential) = service.minted(lease, json!({ "member_of": ["writers"] })).await;
        batch.push(doomed);
        credentials.push(credential);
    }
    let mut owner = login(&credentials[4]).await.unwrap();
    run(&mut owner, "CREATE TABLE app.poison (id int)").await;
    for (at, outcome) in service.backend.revoke(&batch).await.into_iter().enumerate() {
        match outcome {
            Revocation::Gone => assert_ne!(at, 4),
            Revocation::Lingers => panic!("it lingers"),
            Revocation::Failed(error) => {
                assert_eq!((at, error.kind()), (4, ErrorKind::Dependent), "{error:?}");
            }
        }
    }
    // It cannot be dropped, but it cannot be used either.
    let fenced = format!(
        "SELECT count(*) FROM pg_authid WHERE rolname = '{}' AND NOT rolcanlogin \
         AND rolpassword IS NULL AND rolvaliduntil < now()",
        batch[4].handle
    );
    assert_eq!(service.count(&fenced).await, 1);
    for credential in &credentials {
        assert!(!login_works(credential).await);
    }
    assert!(try_run(&mut owner, "SELECT 1").await.is_err());
    assert_eq!(service.liveness(&batch[4]).await, Liveness::Live);
    run(&mut service.server.admin("shop").await, "DROP TABLE app.poison").await;
    service.end(&batch[4]).await.unwrap();
}

#[tokio::test]
async fn what_a_role_owns_goes_where_its_plan_says() {
    let service = Service::start(ACCOUNT).await;
    for (lease, owned, left) in [(1, "drop", 0), (2, "reassign:heir", 1)] {
        let raw = json!({ "member_of": ["writers"], "owned": owned });
        let (doomed, credential) = service.minted(lease, raw).await;
        let mut owner = login(&credential).await.unwrap();
        run(&mut owner, "CREATE TABLE app.mine (id int); SELECT lo_create(0)").await;
        service.end(&doomed).await.unwrap();
        let mut admin = service.server.admin("shop").await;
        let sql = "SELECT count(*) FROM pg_tables WHERE tablename = 'mine' AND tableowner = 'heir'";
        let count: i64 = sqlx::raw_sql(sql).fetch_one(&mut admin).await.unwrap().get(0);
        assert_eq!(count, left, "{owned}");
    }
}

/// The plan of a lease decides, though the role's template has changed or gone since.
#[tokio::test]
async fn a_plan_that_cannot_be_read_still_fences() {
    let service = Service::start(ACCOUNT).await;
    let (mut doomed, credential) = service.minted(1, json!({})).await;
    let good = std::mem::replace(&mut doomed.plan, Plan(json!({ "owner": "?" })));
    let (other, _) = service.minted(2, json!({})).await;
    let outcome = service.backend.revoke(&[doomed.clone(), other]).await;
    assert!(matches!(&outcome[0], Revocation::Failed(e) if e.kind() == ErrorKind::Invalid));
    assert!(matches!(outcome[1], Revocation::Gone));
    assert!(!login_works(&credential).await);
    doomed.plan = good;
    service.end(&doomed).await.unwrap();
}

#[tokio::test]
async fn a_template_is_minted_as_written() {
    let service = Service::start(ACCOUNT).await;
    let raw = json!({
        "member_of": ["readers"],
        "connection_limit": 1,
        "scram_iterations": 1,
        "set": {
            "statement_timeout": "30s",
            "search_path": ["app", "public"],
            "row_security": true,
            "application_name": "a 'b' \\ \"c\"",
        },
        "statements": [
            "GRANT writers TO {{name}} -- {{name}}",
            "COMMENT ON ROLE {{name}} IS {{expiration}}",
        ],
        "revoke_statements": ["REVOKE writers FROM {{name}}"],
    });
    let (doomed, credential) = service.minted(1, raw).await;
    let mut session = login(&credential).await.unwrap();
    for (setting, value) in [
        ("statement_timeout", "30s"),
        ("search_path", "app, public"),
        ("row_security", "on"),
        ("application_name", "a 'b' \\ \"c\""),
    ] {
        let sql = AssertSqlSafe(format!("SHOW {setting}"));
        let shown: String = sqlx::raw_sql(sql).fetch_one(&mut session).await.unwrap().get(0);
        assert_eq!(shown, value);
    }
    run(&mut session, "SELECT count(*) FROM orders; SET ROLE writers").await;
    let second = login(&credential).await.unwrap_err();
    assert_eq!(second.as_database_error().unwrap().code().unwrap(), "53300");
    service.end(&doomed).await.unwrap();
}

/// Nothing of a mint is left when a statement of it fails, and the error quotes nothing.
#[tokio::test]
async fn a_mint_is_all_or_nothing() {
    let service = Service::start(ACCOUNT).await;
    for (raw, kind) in [
        (json!({ "statements": ["SELECT sesame FROM {{name}} WHERE"] }), ErrorKind::Invalid),
        (json!({ "statements": ["SELECT 'sesame'::int"] }), ErrorKind::Invalid),
        (
            json!({ "statements": ["ALTER ROLE postgres SET application_name = 'sesame'"] }),
            ErrorKind::Denied,
        ),
        (json!({ "statements": ["SELECT 'sesame', pg_sleep(60)"] }), ErrorKind::Unavailable),
        (json!({ "member_of": ["nobody_here"] }), ErrorKind::Invalid),
        (json!({ "set": { "no_such_setting": "sesame" } }), ErrorKind::Invalid),
    ] {
        let mut config = service.config.clone();
        if raw.to_string().contains("pg_sleep") {
            config.statement_timeout_ms = 300;
        }
        let backend = PostgresBackend::new(&config).unwrap();
        let template = backend.template(&raw).unwrap();
        let handle = service.handle(1);
        let now = service.now().await;
        let request = MintRequest {
            handle: &handle,
            template: &template,
            expires_at: now.plus(Duration::from_mins(1)),
            mint_deadline: now.plus(Duration::from_secs(30)),
            principal: "ci",
            lease: "lse_1",
        };
        let error = backend.mint(&request).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{raw}: {error:?}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("sesame") && !shown.contains("SCRAM"), "{shown}");
        let doomed = Doomed::new(handle, template.plan().clone());
        assert_eq!(service.liveness(&doomed).await, Liveness::Gone, "{raw}");
    }
}

/// A create that waits at the server past its deadline is undone by the second look.
#[tokio::test]
async fn a_mint_that_waits_past_its_deadline_is_undone() {
    let service = Service::start(ACCOUNT).await;
    let template = service.template(json!({ "statements": ["SELECT pg_sleep(1)"] }));
    let handle = service.handle(1);
    let now = service.now().await;
    let request = MintRequest {
        handle: &handle,
        template: &template,
        expires_at: now.plus(Duration::from_mins(1)),
        mint_deadline: now.plus(Duration::from_millis(900)),
        principal: "ci",
        lease: "lse_1",
    };
    let error = service.backend.mint(&request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let doomed = Doomed::new(handle, template.plan().clone());
    assert_eq!(service.liveness(&doomed).await, Liveness::Gone);
}

/// Names and values of any kind are one value to the server, and nothing more.
#[tokio::test]
async fn whatever_is_in_a_name_or_value_stays_in_it() {
    let service = Service::start(ACCOUNT).await;
    let corpus = [
        "\"",
        "'",
        "`",
        "\\",
        "\\'",
        "\\\\",
        "$$",
        "$x$",
        ";--",
        "/*",
        "😀",
        "\u{202e}abc",
        "e\u{301}",
        "a\nb",
        "%s",
        "{{name}}",
        "x\"; DROP ROLE readers; --",
        "'; DROP ROLE readers; --",
        "$dayfly$; DROP ROLE readers; --",
        "public",
    ];
    let mut admin = service.server.admin("postgres").await;
    for (at, text) in corpus.iter().enumerate() {
        let group = format!("g{at}{text}");
        let quoted = format!("\"{}\"", group.replace('"', "\"\""));
        run(&mut admin, &format!("CREATE ROLE {quoted}")).await;
        run(&mut admin, &format!("GRANT {quoted} TO dayfly WITH ADMIN OPTION")).await;
        let raw = json!({ "member_of": [&group], "set": { "search_path": [text] } });
        let (doomed, credential) = service.minted(100 + at as u128, raw).await;
        let mut session = login(&credential).await.unwrap();
        let row = sqlx::query(
            "SELECT current_setting('search_path') = quote_ident($2), \
             (SELECT count(*) FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid \
              JOIN pg_roles u ON u.oid = m.member WHERE u.rolname = current_user \
              AND g.rolname::text = $1), \
             (SELECT shobj_description(oid, 'pg_authid') FROM pg_roles \
              WHERE rolname = current_user)",
        )
        .bind(&group)
        .bind(text)
        .fetch_one(&mut session)
        .await
        .unwrap();
        assert!(row.get::<bool, _>(0), "{text:?}");
        assert_eq!(row.get::<i64, _>(1), 1, "{group:?}");
        assert!(row.get::<String, _>(2).ends_with("DROP ROLE readers; --\\"));
        service.end(&doomed).await.unwrap();
    }
    assert_eq!(service.count("SELECT count(*) FROM pg_roles WHERE rolname = 'readers'").await, 1);
}

/// What a role may do is its template, and nothing that would make it more.
#[tokio::test]
async fn a_role_has_its_templates_rights_and_no_others() {
    let service = Service::start(ACCOUNT).await;
    let (doomed, credential) = service.minted(1, json!({ "member_of": ["readers"] })).await;
    let mut session = login(&credential).await.unwrap();
    run(&mut session, "SELECT count(*) FROM app.orders").await;
    let me = doomed.handle.as_str();
    let mut codes: Vec<(String, String)> = Vec::new();
    for sql in [
        "CREATE ROLE mallory",
        "CREATE DATABASE mallory",
        "DROP ROLE dayfly",
        &format!("ALTER ROLE {me} SUPERUSER"),
        &format!("ALTER ROLE {me} CREATEROLE"),
        &format!("ALTER ROLE {me} BYPASSRLS"),
        &format!("ALTER ROLE {me} VALID UNTIL 'infinity'"),
        &format!("ALTER ROLE {me} CONNECTION LIMIT -1"),
        "ALTER ROLE dayfly PASSWORD 'x'",
        &format!("GRANT writers TO {me}"),
        "GRANT readers TO heir",
        "SET ROLE writers",
        "SET ROLE dayfly",
        "SET SESSION AUTHORIZATION postgres",
        "COPY (SELECT 1) TO PROGRAM 'id'",
        "COPY (SELECT 1) TO '/tmp/mallory'",
        "CREATE TEMP TABLE t (x text); COPY t FROM '/etc/passwd'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_ls_dir('/')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_reload_conf()",
        "SELECT pg_switch_wal()",
        "SELECT pg_create_physical_replication_slot('x')",
        "ALTER SYSTEM SET work_mem = '1MB'",
        "CREATE SCHEMA mallory",
        "CREATE TABLE public.x (id int)",
        "CREATE TABLE app.x (id int)",
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE c AS 'x', 'y'",
        "CREATE PUBLICATION p FOR ALL TABLES",
        "CREATE EVENT TRIGGER t ON ddl_command_start EXECUTE FUNCTION pg_catalog.now()",
        "CREATE TABLESPACE t LOCATION '/tmp'",
        "INSERT INTO app.orders VALUES (3)",
        "UPDATE app.orders SET id = 0",
        "DELETE FROM app.orders",
        "TRUNCATE app.orders",
        "DROP TABLE app.orders",
        "CREATE TRIGGER t BEFORE INSERT ON app.orders EXECUTE FUNCTION f()",
    ] {
        codes.push((sql.to_owned(), refused(&mut session, sql).await));
    }
    codes.retain(|(_, code)| code != "42501");
    assert_eq!(codes, []);
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'dayfly'";
    assert_eq!(refused(&mut session, others).await, "42501");
}

/// PostgreSQL lets every role change its own password. That must not outlive the lease.
#[tokio::test]
async fn a_password_that_the_holder_set_dies_too() {
    let service = Service::start(ACCOUNT).await;
    let (doomed, credential) = service.minted(1, json!({ "owned": "fail" })).await;
    let mut session = login(&credential).await.unwrap();
    let own = format!("ALTER ROLE {} PASSWORD 'mine'; SELECT lo_create(0)", doomed.handle);
    run(&mut session, &own).await;
    let changed = credential.clone().secret("password", Secret::new("mine"));
    assert!(login_works(&changed).await);
    // The large object keeps the role from being dropped, so that the fence alone stands.
    assert_eq!(service.end(&doomed).await.unwrap_err().kind(), ErrorKind::Dependent);
    assert!(!login_works(&changed).await);
}

/// The URL is for clients that read nothing else.
#[tokio::test]
async fn psql_logs_in_by_the_url() {
    let service = Service::start(ACCOUNT).await;
    let (_, credential) = service.minted(1, json!({ "member_of": ["readers"] })).await;
    let url = credential.field("url").unwrap();
    assert_eq!(service.server.psql(url, "SELECT count(*) FROM app.orders"), "2");
}

/// Many at once, with statements that would trip over each other, and one batch to end them.
#[tokio::test]
async fn mints_at_once_do_not_trip_over_each_other() {
    let mut service = Service::start(ACCOUNT).await;
    let config = PostgresConfig { connections_max: 12, ..service.config.clone() };
    service.backend = PostgresBackend::new(&config).unwrap();
    let service = Arc::new(service);
    let table = "CREATE TABLE public.shared (id int); ALTER TABLE public.shared OWNER TO dayfly";
    run(&mut service.server.admin("postgres").await, table).await;
    // Without a queue these fail with "tuple concurrently updated", retries and all.
    let raw = json!({
        "scram_iterations": 1,
        "statements": [
            "GRANT SELECT ON public.shared TO {{name}}",
            "SELECT pg_sleep(0.02)",
        ],
        "revoke_statements": ["REVOKE SELECT ON public.shared FROM {{name}}"],
    });
    let mut tasks = tokio::task::JoinSet::new();
    for lease in 1..=24 {
        let (service, raw) = (service.clone(), raw.clone());
        tasks.spawn(async move { service.minted(lease, raw).await.0 });
    }
    let batch = tasks.join_all().await;
    let outcome = service.backend.revoke(&batch).await;
    assert!(outcome.iter().all(|one| matches!(one, Revocation::Gone)), "{outcome:?}");
}

/// A caller that gives up takes nobody's answer with it: the message goes on to its end, and the
/// next one has the connection after it, with its own rows.
#[tokio::test]
async fn who_gives_up_a_mint_spoils_no_other() {
    let service = Service::start(ACCOUNT).await;
    let config = PostgresConfig { connections_max: 1, ..service.config.clone() };
    let backend = PostgresBackend::new(&config).unwrap();
    let template = backend.template(&json!({ "statements": ["SELECT 1, pg_sleep(2)"] })).unwrap();
    let handle = service.handle(1);
    let now = service.now().await;
    let request = MintRequest {
        handle: &handle,
        template: &template,
        expires_at: now.plus(Duration::from_mins(1)),
        mint_deadline: now.plus(Duration::from_secs(30)),
        principal: "ci",
        lease: "lse_1",
    };
    let running = "SELECT coalesce(max(pid), 0)::int8 FROM pg_stat_activity \
                   WHERE usename = 'dayfly' AND query LIKE '%pg_sleep(2)%'";
    let seen = async {
        loop {
            match service.count(running).await {
                0 => tokio::time::sleep(Duration::from_millis(20)).await,
                pid => break pid,
            }
        }
    };
    let pid = tokio::select! {
        minted = backend.mint(&request) => panic!("nobody waited for it: {minted:?}"),
        pid = seen => pid,
    };
    let listed = backend.list(None, 10).await.unwrap();
    assert!(listed.credentials.iter().all(|one| one.handle == handle));
    let next = service.handle(2);
    let template = backend.template(&json!({ "member_of": ["readers"] })).unwrap();
    let minted = backend.mint(&MintRequest { handle: &next, template: &template, ..request }).await;
    let credential = minted.unwrap();
    assert!(login_works(&credential).await, "{next}");
    let open = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    assert_eq!(service.count(&open).await, 1, "the connection is still good");
    let doomed = [&handle, &next].map(|one| Doomed::new(one.clone(), template.plan().clone()));
    for one in &doomed {
        service.end(one).await.unwrap();
        assert_eq!(service.liveness(one).await, Liveness::Gone);
    }
}

#[tokio::test]
async fn what_should_be_changed_is_said() {
    let service = Service::start(ACCOUNT).await;
    let old = service.count("SELECT CASE WHEN current_setting('server_version_num')::int < 160000 THEN 1::int8 ELSE 0 END");
    let old = old.await == 1;
    let said = async |service: &Service, what: &str| {
        let advice = service.backend.advice().await.unwrap();
        advice.iter().any(|text| text.contains(what))
    };
    assert_eq!(said(&service, "CREATEROLE may change").await, old);
    assert!(!said(&service, "superuser: it needs").await);
    assert!(!said(&service, "pg_signal_backend").await);
    assert!(said(&Service::start(BARE_ACCOUNT).await, "not in pg_signal_backend").await);

    // An access list that fills up, in the database that we connect to.
    let mut admin = service.server.admin("postgres").await;
    run(&mut admin, "GRANT CREATE ON SCHEMA public TO PUBLIC").await;
    assert!(said(&service, "schema public of the database postgres").await);
    run(&mut admin, "REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    assert!(!said(&service, "schema public").await);
    run(&mut admin, "CREATE TABLE crowded ()").await;
    assert!(!said(&service, "crowded").await);
    run(
        &mut admin,
        "DO $$ BEGIN FOR i IN 1..1300 LOOP EXECUTE format('CREATE ROLE crowd_%s', i);
         EXECUTE format('GRANT SELECT ON crowded TO crowd_%s', i); END LOOP; END $$",
    )
    .await;
    assert!(said(&service, "half full: crowded").await);
    run(
        &mut admin,
        "DO $$ BEGIN FOR i IN 1..1300 LOOP EXECUTE format('DROP OWNED BY crowd_%s', i);
         EXECUTE format('DROP ROLE crowd_%s', i); END LOOP; END $$",
    )
    .await;
    let super_user = PostgresConfig { username: "postgres".to_owned(), ..service.config.clone() };
    let backend = PostgresBackend::new(&super_user).unwrap();
    let advice = backend.advice().await.unwrap();
    assert!(advice.iter().any(|text| text.contains("our account is a superuser")), "{advice:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let mut config = PostgresConfig { host: "/nowhere".into(), ..PostgresConfig::default() };
    config.acquire_timeout_ms = 300;
    let backend = PostgresBackend::new(&config).unwrap();
    assert_eq!(backend.list(None, 1).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let handle = backend.handle(Uuid::from_u128(1)).unwrap();
    let doomed = Doomed::new(handle, Plan::default());
    let outcome = backend.revoke(&[doomed]).await;
    assert!(matches!(&outcome[0], Revocation::Failed(e) if e.kind() == ErrorKind::Unavailable));
}

#[tokio::test]
async fn a_wrong_account_password_is_denied() {
    let service = Service::start(ACCOUNT).await;
    let mut config = service.config.clone();
    config.password = Some(Secret::new("wrong sesame"));
    let backend = PostgresBackend::new(&config).unwrap();
    let error = backend.list(None, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(!format!("{error:?} {backend:?}").contains("sesame"));
}

/// Our own password is changed by us, and no log has the new one.
#[tokio::test]
async fn our_own_password_changes() {
    let service = Service::start(ACCOUNT).await;
    let mut admin = service.server.admin("postgres").await;
    run(&mut admin, "CREATE ROLE turning LOGIN CREATEROLE PASSWORD 'correct horse'").await;
    let make = |password: &Secret| -> Box<dyn Backend> {
        let (username, password) = ("turning".to_owned(), Some(password.clone()));
        let config = PostgresConfig { username, password, ..service.config.clone() };
        Box::new(PostgresBackend::new(&config).unwrap())
    };
    let rotated = testkit::rotation(&make, &Secret::new(ACCOUNT_PASSWORD)).await;
    rotated.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(!service.server.log().contains("ROTATED"));
}
