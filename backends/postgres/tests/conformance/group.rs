//! Mints that go to the server together, and what is in the way of some of them.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use dayfly_backend_postgres::{PostgresBackend, PostgresConfig};
use dayfly_backend_sdk::{
    Backend, Credential, Error, ErrorKind, Handle, MintRequest, Retry, Timestamp, testkit::Login,
};
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{ACCOUNT, Service, login_works, run, server::Server, set_up};

/// Less than any of the time limits here.
const SOON: Duration = Duration::from_secs(2);

type Minted = (u128, Handle, Result<Credential, Error>);

/// Mints that go on beside each other, at a backend with so many connections.
struct Mints {
    service: Service,
    backend: Arc<PostgresBackend>,
    /// The server's time when it began.
    now: Timestamp,
    running: JoinSet<Minted>,
}

impl Mints {
    async fn of(service: Service, connections_max: u32) -> Self {
        let config = PostgresConfig { connections_max, ..service.config.clone() };
        let backend = Arc::new(PostgresBackend::new(&config).unwrap());
        let now = service.now().await;
        Self { service, backend, now, running: JoinSet::new() }
    }

    fn begin(&mut self, lease: u128, handle: Handle, raw: Value, mint_deadline: Timestamp) {
        let (backend, now) = (Arc::clone(&self.backend), self.now);
        self.running.spawn(async move {
            let template = backend.template(&raw).unwrap();
            let request = MintRequest {
                handle: &handle,
                template: &template,
                expires_at: now.plus(Duration::from_mins(1)),
                mint_deadline,
                principal: "ci",
                lease: "lse_1",
            };
            let minted = backend.mint(&request).await;
            (lease, handle, minted)
        });
    }

    fn begin_all(&mut self, leases: RangeInclusive<u128>, raw: &Value) {
        for lease in leases {
            let deadline = self.now.plus(Duration::from_secs(30));
            self.begin(lease, self.service.handle(lease), raw.clone(), deadline);
        }
    }

    async fn next(&mut self) -> Minted {
        self.running.join_next().await.unwrap().unwrap()
    }

    /// Waits until this is so of a session of ours.
    async fn until(&self, what: &str) {
        let sql =
            format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{ACCOUNT}' AND {what}");
        while self.service.count(&sql).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A lock that mints of `readers` need until it is released, and what the others are made of. An
/// older server locks no role for a grant: there it is the table of all grants.
async fn hold(service: &Service) -> (PgConnection, Value) {
    let mut admin = service.server.admin("postgres").await;
    let version = "SELECT current_setting('server_version_num')::int8";
    let (sql, others) = if service.count(version).await < 160_000 {
        ("BEGIN; LOCK TABLE pg_catalog.pg_auth_members IN EXCLUSIVE MODE", json!([]))
    } else {
        ("BEGIN; GRANT readers TO heir", json!(["writers"]))
    };
    run(&mut admin, sql).await;
    (admin, others)
}

async fn alone() -> Service {
    let server = Arc::new(Server::of_its_own());
    set_up(&server).await;
    Service::at(server, ACCOUNT)
}

/// Many at once go together, and each has its own answer: the poisoned ones an error each, the
/// others a role that works, and nobody who gave up has one.
#[tokio::test]
async fn a_group_answers_each_of_its_mints() {
    let mut mints = Mints::of(Service::start(ACCOUNT).await, 2).await;
    let good = json!({ "member_of": ["readers"], "scram_iterations": 1 });
    let plain = json!({ "scram_iterations": 4_096, "set": { "statement_timeout": "3s" } });
    let missing = json!({ "member_of": ["nobody_has_made_it"], "scram_iterations": 1 });
    for lease in 1..=60_u128 {
        let raw = match lease % 10 {
            3 => missing.clone(),
            6 => plain.clone(),
            _ => good.clone(),
        };
        // Twenty comes too late, and thirty's name is taken by thirty-one.
        let within = if lease == 20 { Duration::ZERO } else { Duration::from_secs(30) };
        let handle = mints.service.handle(if lease == 30 { 31 } else { lease });
        mints.begin(lease, handle, raw, mints.now.plus(within));
    }
    let mut taken = Vec::new();
    let Mints { service, running, .. } = mints;
    for (lease, handle, minted) in running.join_all().await {
        match (lease, minted) {
            (30 | 31, minted) => taken.push(minted.map_err(|error| error.kind())),
            (20, minted) => assert_eq!(minted.unwrap_err().kind(), ErrorKind::Unavailable),
            (lease, Err(error)) => {
                assert_eq!((lease % 10, error.kind()), (3, ErrorKind::Invalid), "{error:?}");
            }
            (_, Ok(credential)) => {
                assert_ne!(lease % 10, 3, "{handle}");
                assert!(login_works(&credential).await, "{handle}");
            }
        }
    }
    assert_eq!(taken.iter().filter(|minted| minted.is_ok()).count(), 1);
    assert!(taken.iter().any(|minted| matches!(minted, Err(ErrorKind::Conflict))), "{taken:?}");
    // 60, without the six that name what is not there, the late one and one of the two.
    let prefix = &service.config.prefix;
    let roles = format!("SELECT count(*) FROM pg_roles WHERE starts_with(rolname, '{prefix}')");
    let members = format!("{roles} AND pg_has_role(rolname, 'readers', 'member')");
    assert_eq!(service.count(&roles).await, 52);
    assert_eq!(service.count(&members).await, 46, "six have no group");
}

/// A lock on what one role needs: its mints are told so, and the mints of others, that came later,
/// never wait for it.
#[tokio::test]
async fn a_lock_on_one_role_delays_no_other() {
    let mut mints = Mints::of(alone().await, 4).await;
    let (mut admin, others) = hold(&mints.service).await;
    // Costly enough that no message takes all of them.
    let stuck = json!({ "member_of": ["readers"], "scram_iterations": 4_096 });
    let free = json!({ "member_of": others, "scram_iterations": 1 });
    mints.begin_all(1..=8, &stuck);
    mints.until("wait_event_type = 'Lock'").await;
    let began = Instant::now();
    mints.begin_all(9..=15, &free);
    mints.begin_all(16..=16, &stuck);
    let mut answers: Vec<Minted> = Vec::new();
    while answers.iter().filter(|(lease, ..)| (9..=15).contains(lease)).count() < 7 {
        answers.push(timeout(SOON, mints.next()).await.expect("an answer in time"));
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    while answers.len() < 16 {
        // Each waits for the lock once, and no more than two messages after another.
        answers.push(timeout(SOON * 2, mints.next()).await.expect("an answer in time"));
    }
    for (lease, _, minted) in answers {
        match minted {
            Ok(credential) => {
                assert!((9..=15).contains(&lease), "{lease}");
                assert!(login_works(&credential).await, "{lease}");
            }
            Err(error) => {
                assert!(!(9..=15).contains(&lease), "{lease}: {error:?}");
                // The server is there: nothing that would make us leave it alone.
                assert_eq!(error.kind(), ErrorKind::Dependent, "{error:?}");
                assert_eq!(error.retry(), Retry::Temporary);
            }
        }
    }
    run(&mut admin, "ROLLBACK").await;
    mints.begin_all(17..=17, &stuck);
    assert!(mints.next().await.2.is_ok());
}

/// Statements of their own run one mint after the other; what has none goes past them.
#[tokio::test]
async fn mints_with_statements_leave_the_lines_to_the_others() {
    let mut mints = Mints::of(alone().await, 4).await;
    let slow = json!({ "scram_iterations": 1, "statements": ["SELECT pg_sleep(0.2)"] });
    mints.begin_all(1..=16, &slow);
    mints.until("wait_event = 'PgSleep'").await;
    let began = Instant::now();
    mints.begin_all(17..=24, &json!({ "member_of": ["readers"] }));
    let mut fast = 0;
    while fast < 8 {
        let (lease, _, minted) = timeout(SOON, mints.next()).await.expect("an answer in time");
        assert!(minted.is_ok(), "{lease}: {minted:?}");
        fast += u32::from(lease > 16);
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    // Sixteen of them take more than three seconds.
    assert!(mints.running.len() > 4, "{} are left", mints.running.len());
    while !mints.running.is_empty() {
        let (lease, _, minted) = mints.next().await;
        assert!(minted.is_ok(), "{lease}: {minted:?}");
    }
}

/// Its time was up before its message was there: nobody else's role is made again and again until
/// it is found.
#[tokio::test]
async fn a_mint_that_is_too_late_is_cut_off_at_once() {
    let mut mints = Mints::of(Service::start(ACCOUNT).await, 1).await;
    let slow = json!({ "scram_iterations": 1, "statements": ["SELECT pg_sleep(0.8)"] });
    mints.begin_all(1..=1, &slow);
    let first = mints.service.handle(1);
    mints.until(&format!("state = 'active' AND query LIKE '%{first}%'")).await;
    let plain = json!({ "member_of": ["readers"], "scram_iterations": 1 });
    mints.begin_all(2..=4, &plain);
    // The clocks' difference is a part of it.
    let deadline = mints.service.now().await.plus(Duration::from_millis(500));
    mints.begin(5, mints.service.handle(5), plain.clone(), deadline);
    mints.begin_all(6..=9, &plain);
    for _ in 1..=9 {
        let (lease, _, minted) = mints.next().await;
        match minted {
            Ok(_) => assert_ne!(lease, 5),
            Err(error) => assert_eq!((lease, error.kind()), (5, ErrorKind::Unavailable)),
        }
    }
    let log = mints.service.server.log();
    for lease in [2, 3, 4, 6, 7, 8, 9] {
        let created = format!("CREATE ROLE \"{}\"", mints.service.handle(lease));
        let times = log.matches(&created).count();
        assert!(times <= 3, "{lease} was sent {times} times");
    }
}

/// Whatever a statement answers is not taken for the names of roles.
#[tokio::test]
async fn a_statement_may_answer_rows_of_any_shape() {
    let service = Service::start(ACCOUNT).await;
    for (lease, statement) in [
        (1, "SELECT 1, 2"),
        (2, "SELECT 'a', 7::int8"),
        (3, "SELECT"),
        (4, "SELECT {{name_literal}}, 1::int8"),
    ] {
        let (doomed, credential) =
            service.minted(lease, json!({ "statements": [statement] })).await;
        assert!(login_works(&credential).await, "{statement}");
        service.end(&doomed).await.unwrap();
    }
}
