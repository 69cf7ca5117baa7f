//! What roles leave behind in several databases of one server.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use dayfly_backend_sdk::{
    Backend, Doomed, ErrorKind, Liveness, Retry, Revocation, testkit::eventually,
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Row};
use tokio::time::Instant;

use crate::{ACCOUNT, Service, disk::chain, login_to, run};

static DATABASES: AtomicU32 = AtomicU32::new(1);

/// A database of the test's own, where our roles may make tables.
async fn database(service: &Service) -> String {
    let name = format!("other{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    run(&mut service.server.admin("postgres").await, &format!("CREATE DATABASE {name}")).await;
    let grant = "GRANT CREATE ON SCHEMA public TO writers, heir; CREATE TABLE given (id int)";
    run(&mut service.server.admin(&name).await, grant).await;
    name
}

/// Whose table `name` is in a database; none where it is not any more.
async fn owner(service: &Service, database: &str, name: &str) -> Option<String> {
    let sql = format!("SELECT tableowner::text FROM pg_tables WHERE tablename = '{name}'");
    let mut admin = service.server.admin(database).await;
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(&mut admin).await.unwrap();
    row.map(|row| row.get(0))
}

async fn outcome(service: &Service, batch: &[Doomed]) -> Vec<Result<(), (ErrorKind, String)>> {
    let outcome = service.backend.revoke(batch).await.into_iter();
    let outcome = outcome.map(|one| match one {
        Revocation::Gone => Ok(()),
        Revocation::Lingers => panic!("it lingers"),
        Revocation::Failed(error) => Err((error.kind(), chain(&error))),
    });
    outcome.collect()
}

#[tokio::test]
async fn what_a_role_owns_anywhere_goes_where_its_plan_says() {
    let service = Service::start(ACCOUNT).await;
    let (one, two) = (database(&service).await, database(&service).await);
    for (lease, owned, heir) in
        [(1, "drop", None), (2, "reassign:heir", Some("heir")), (3, "group", Some("writers"))]
    {
        let raw = json!({ "member_of": ["writers"], "owned": owned });
        let (doomed, credential) = service.minted(lease, raw).await;
        let table = format!("left{lease}");
        for (database, schema) in [("shop", "app"), (&one, "public"), (&two, "public")] {
            let mut session = login_to(&credential, database).await.unwrap();
            run(&mut session, &format!("CREATE TABLE {schema}.{table} (id int)")).await;
            run(&mut session, "SELECT lo_create(0); CREATE TEMP TABLE mine (id int)").await;
        }
        service.end(&doomed).await.unwrap_or_else(|error| panic!("{owned}: {}", chain(&error)));
        assert_eq!(service.liveness(&doomed).await, Liveness::Gone, "{owned}");
        for database in ["shop", &one, &two] {
            let now = owner(&service, database, &table).await;
            assert_eq!(now.as_deref(), heir, "{owned} in {database}");
        }
    }
}

/// It is fenced all the same, and whoever reads the error knows where to look.
#[tokio::test]
async fn what_nobody_has_decided_about_is_counted_by_database() {
    let service = Service::start(ACCOUNT).await;
    let (one, two) = (database(&service).await, database(&service).await);
    let (doomed, credential) = service.minted(1, json!({ "member_of": ["writers"] })).await;
    let mut session = login_to(&credential, &one).await.unwrap();
    run(&mut session, "CREATE TABLE a (id int); CREATE TABLE b (id int)").await;
    let grant = format!("GRANT SELECT ON given TO \"{}\"", doomed.handle);
    run(&mut service.server.admin(&two).await, &grant).await;
    let error = service.end(&doomed).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Dependent, Retry::Permanent));
    let said = chain(&error);
    assert!(said.contains(&format!("2 in `{one}`")), "{said}");
    assert!(said.contains(&format!("1 in `{two}`")), "{said}");
    assert!(!crate::login_works(&credential).await);
    run(&mut service.server.admin(&one).await, "DROP TABLE a, b").await;
    let revoke = format!("REVOKE SELECT ON given FROM \"{}\"", doomed.handle);
    run(&mut service.server.admin(&two).await, &revoke).await;
    service.end(&doomed).await.unwrap();
    assert_eq!(service.liveness(&doomed).await, Liveness::Gone);
}

/// A database that lets nobody in keeps those who own something in it, and nobody else.
#[tokio::test]
async fn a_closed_database_delays_nobody_who_has_nothing_there() {
    let service = Service::start(ACCOUNT).await;
    let (open, closed) = (database(&service).await, database(&service).await);
    let mut batch = Vec::new();
    for (lease, place) in [(1, &closed), (2, &open), (3, &open)] {
        let raw = json!({ "member_of": ["writers"], "owned": "drop" });
        let (doomed, credential) = service.minted(lease, raw).await;
        let mut session = login_to(&credential, place).await.unwrap();
        run(&mut session, &format!("CREATE TABLE of{lease} (id int)")).await;
        batch.push(doomed);
    }
    let allow = async |allowed: bool| {
        let sql = format!("ALTER DATABASE {closed} ALLOW_CONNECTIONS {allowed}");
        run(&mut service.server.admin("postgres").await, &sql).await;
    };
    allow(false).await;
    let outcomes = outcome(&service, &batch).await;
    let (_, said) = outcomes[0].as_ref().unwrap_err();
    assert!(said.contains(&format!("in the database `{closed}`")), "{said}");
    assert_eq!(outcomes[1..], [Ok(()), Ok(())]);
    assert_eq!(service.liveness(&batch[0]).await, Liveness::Live);
    allow(true).await;
    service.end(&batch[0]).await.unwrap();
    assert_eq!(owner(&service, &closed, "of1").await, None);
}

/// A lock in one database is waited for after those are gone who have nothing in any, and not for
/// so long that nothing is left of the time for those who have something in another.
#[tokio::test]
async fn a_silent_database_delays_nobody_who_has_nothing_there() {
    let service = Service::start(ACCOUNT).await;
    let (held, open) = (database(&service).await, database(&service).await);
    let mut batch = Vec::new();
    for (lease, place) in [(1, Some(&held)), (2, Some(&open)), (3, None)] {
        let raw = json!({ "member_of": ["writers"], "owned": "drop" });
        let (doomed, credential) = service.minted(lease, raw).await;
        if let Some(place) = place {
            let mut session = login_to(&credential, place).await.unwrap();
            run(&mut session, &format!("CREATE TABLE of{lease} (id int)")).await;
        }
        batch.push(doomed);
    }
    let mut admin = service.server.admin(&held).await;
    run(&mut admin, "BEGIN; LOCK TABLE of1").await;
    let began = Instant::now();
    let left = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{}'", batch[2].handle);
    let free = async {
        while service.count(&left).await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        began.elapsed()
    };
    let (outcomes, free) = tokio::join!(outcome(&service, &batch), free);
    // Its statement timeout is five seconds.
    assert!(free < Duration::from_secs(3), "{free:?}");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    let (kind, said) = outcomes[0].as_ref().unwrap_err();
    assert_eq!(*kind, ErrorKind::Dependent, "{said}");
    assert!(said.contains(&format!("in the database `{held}`")), "{said}");
    assert_eq!(outcomes[1..], [Ok(()), Ok(())]);
    run(&mut admin, "ROLLBACK").await;
    eventually("the last is gone", async || service.end(&batch[0]).await.ok()).await;
    assert_eq!(service.liveness(&batch[0]).await, Liveness::Gone);
}
