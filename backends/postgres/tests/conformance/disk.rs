//! A full disk. The one with the tables: a statement fails and is rolled back, and the server goes
//! on. The one with the log: the server breaks down, and comes back when there is room.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use dayfly_backend_postgres::PostgresBackend;
use dayfly_backend_sdk::{
    Backend, Credential, Doomed, Error, ErrorKind, Handle, Liveness, MintRequest, Retry, Template,
    Timestamp,
    testkit::{Disk, eventually},
};
use serde_json::json;

use crate::{
    ACCOUNT, Service, login, login_works,
    server::{Server, Small},
    set_up, try_run,
};

/// Longer than anything waits here: for a connection, and for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Far more than there is room for in what the files of the tables, or of the log, have already.
const MINTS_MAX: u128 = 1_000;
/// The first lease of those that are minted on a full disk.
const FIRST: u128 = 100;

struct Full {
    service: Service,
    template: Template,
}

impl Full {
    async fn start(small: Small) -> Self {
        let server = Arc::new(Server::on_small_disk(small));
        set_up(&server).await;
        let mut service = Service::at(server, ACCOUNT);
        service.config.acquire_timeout_ms = 1_000;
        service.backend = PostgresBackend::new(&service.config).unwrap();
        let template =
            service.template(json!({ "member_of": ["readers"], "scram_iterations": 64 }));
        Self { service, template }
    }

    fn disk(&self) -> &Disk {
        self.service.server.disk()
    }

    fn doomed(&self, lease: u128) -> Doomed {
        Doomed::new(self.service.handle(lease), self.template.plan().clone())
    }

    async fn mint(&self, handle: &Handle) -> Result<Credential, Error> {
        let now = now();
        let request = MintRequest {
            handle,
            template: &self.template,
            expires_at: now.plus(Duration::from_mins(10)),
            mint_deadline: now.plus(Duration::from_secs(30)),
            principal: "ci",
            lease: "lse_1",
        };
        in_time(self.service.backend.mint(&request)).await
    }

    async fn minted(&self, lease: u128) -> (Doomed, Credential) {
        let doomed = self.doomed(lease);
        let credential = self.mint(&doomed.handle).await;
        let credential = credential.unwrap_or_else(|error| panic!("{}", chain(&error)));
        (doomed, credential)
    }

    /// Those that there was still room for in some file, the one that there was not, and why.
    async fn mint_until_full(
        &self,
        after_each: impl AsyncFn(),
    ) -> (Vec<(Doomed, Credential)>, Doomed, Error) {
        let mut minted = Vec::new();
        for lease in FIRST..FIRST + MINTS_MAX {
            let doomed = self.doomed(lease);
            match self.mint(&doomed.handle).await {
                Ok(credential) => minted.push((doomed, credential)),
                Err(error) => return (minted, doomed, error),
            }
            after_each().await;
        }
        panic!("{MINTS_MAX} mints, and the disk is full");
    }

    /// To the next file of the server's log, so that those that it has are soon used up.
    async fn switch_log(&self) {
        // It may be down by now, as the next mint will say.
        if let Ok(mut admin) = self.service.server.reach("postgres").await {
            drop(try_run(&mut admin, "SELECT pg_switch_wal()").await);
        }
    }

    /// Whether it was revoked; what a revocation says of it must be so.
    async fn end(&self, doomed: &Doomed, credential: &Credential) -> bool {
        let ended = in_time(self.service.end(doomed)).await;
        let seen = self.service.liveness(doomed).await;
        match &ended {
            Ok(()) => {
                assert_eq!(seen, Liveness::Gone);
                assert!(!login_works(credential).await);
            }
            Err(error) => {
                assert_eq!(error.retry(), Retry::Temporary, "{}", chain(error));
                assert_eq!(seen, Liveness::Live, "{}", chain(error));
            }
        }
        ended.is_ok()
    }

    /// There is room again: what is owed is paid, and a mint works.
    async fn goes_on(&self, owed: &[&Doomed]) {
        for doomed in owed {
            eventually("what is owed is paid", async || self.service.end(doomed).await.ok()).await;
            assert_eq!(self.service.liveness(doomed).await, Liveness::Gone);
        }
        let (doomed, credential) = self.minted(FIRST + MINTS_MAX).await;
        assert!(login_works(&credential).await);
        assert!(self.end(&doomed, &credential).await);
    }
}

async fn in_time<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(ANSWER_MAX, answer).await.expect("an answer in time")
}

/// The server runs on this machine, and may be down.
fn now() -> Timestamp {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap())
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[tokio::test]
async fn a_table_that_cannot_grow_refuses_a_mint_and_nothing_is_lost() {
    let full = Full::start(Small::Tables).await;
    let (idle, idle_credential) = full.minted(1).await;
    let (used, used_credential) = full.minted(2).await;
    let (kept, kept_credential) = full.minted(3).await;
    let mut session = login(&used_credential).await.unwrap();
    full.disk().fill();
    let (minted, failed, error) = full.mint_until_full(async || ()).await;
    // The server is there and has rolled it back, which is certain.
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error));
    assert_eq!(error.retry(), Retry::Temporary, "{}", chain(&error));
    assert!(chain(&error).contains("53100"), "{}", chain(&error));
    assert_eq!(full.service.liveness(&failed).await, Liveness::Gone);
    // Whether a death needs room is the server's affair: the second time nobody is logged in, and
    // there is less to write.
    full.end(&idle, &idle_credential).await;
    for _ in 0..2 {
        full.end(&used, &used_credential).await;
    }
    full.disk().free();
    assert!(login_works(&kept_credential).await);
    for (doomed, credential) in &minted {
        assert!(login_works(credential).await, "{}", doomed.handle);
    }
    full.goes_on(&[&idle, &used, &failed]).await;
    assert!(try_run(&mut session, "SELECT count(*) FROM app.orders").await.is_err());
    assert!(!login_works(&idle_credential).await && !login_works(&used_credential).await);
    assert!(login_works(&kept_credential).await, "{}", kept.handle);
}

/// The server can commit nothing, breaks down over it, and cannot start either until there is
/// room. Which of its processes notices first decides what the mint is told.
#[tokio::test]
async fn a_log_without_room_breaks_the_server_and_nothing_is_lost() {
    let full = Full::start(Small::Log).await;
    let (due, due_credential) = full.minted(1).await;
    let (kept, kept_credential) = full.minted(2).await;
    full.disk().fill();
    let (minted, failed, error) = full.mint_until_full(async || full.switch_log().await).await;
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::UnknownOutcome),
        "{}",
        chain(&error)
    );
    assert_eq!(error.retry(), Retry::Temporary, "{}", chain(&error));
    for doomed in [&due, &failed] {
        let error = in_time(full.service.end(doomed)).await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::UnknownOutcome),
            "{}",
            chain(&error)
        );
        assert_eq!(error.retry(), Retry::Temporary, "{}", chain(&error));
        let seen = in_time(full.service.backend.verify(std::slice::from_ref(doomed))).await;
        assert!(seen.is_err(), "nobody can say so: {seen:?}");
    }
    full.disk().free();
    full.service.server.come_back().await;
    // What was answered is there, the one that should have died too; its death was not claimed.
    assert!(login_works(&due_credential).await);
    assert!(login_works(&kept_credential).await, "{}", kept.handle);
    for (doomed, credential) in &minted {
        assert!(login_works(credential).await, "{}", doomed.handle);
    }
    full.goes_on(&[&due, &failed]).await;
    assert!(!login_works(&due_credential).await);
    assert!(login_works(&kept_credential).await);
}
