//! A full disk. MySQL refuses what needs room; MariaDB waits for it, and looks again once a minute.

use std::{sync::Arc, time::Duration};

use dayfly_backend_mysql::{MysqlBackend, MysqlConfig, Server as Kind};
use dayfly_backend_sdk::{
    Backend, Credential, Doomed, Error, ErrorKind, Liveness, Retry, Template, testkit::Login,
};

use crate::{Service, chain, config, run_lossy, server::Server, set_up, usual};

/// Longer than anything waits here: for a connection, and for the answers of a revocation.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long after there is room again a server may take to notice.
const BACK_MAX: Duration = Duration::from_secs(150);
/// How soon it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Far more accounts than there is room for in pages that are there.
const MINTS_MAX: u128 = 500;
/// The first lease of those that are minted on a full disk.
const FIRST: u128 = 100;
/// What takes the room within a file, the largest first.
const FILLER_BYTES: [usize; 4] = [262_144, 16_384, 2_048, 256];
const FILLERS_MAX: usize = 500;

async fn start(kind: Kind) -> Service {
    let server = Server::on_small_disk(kind);
    set_up(&server).await;
    let config = MysqlConfig {
        acquire_timeout_ms: 1_000,
        answer_timeout_ms: 2_000,
        ..config(&server, "dayfly")
    };
    let backend = MysqlBackend::new(&config).unwrap();
    Service { server: Arc::new(server), config, backend }
}

/// MySQL's own tables share a file that has room for thousands of accounts when it is new.
async fn use_up(server: &Server) {
    let mut admin = server.admin().await;
    for bytes in FILLER_BYTES {
        for number in 0..FILLERS_MAX {
            let text = "x".repeat(bytes);
            let sql = format!("CREATE PROCEDURE app.f{bytes}_{number}() SELECT '{text}'");
            if !in_time(run_lossy(&mut admin, &sql)).await {
                break;
            }
        }
    }
}

/// Those that there was still room for in some page, the one that there was not, and why.
async fn mint_until_full(
    service: &Service,
    template: &Template,
) -> (Vec<(Doomed, Credential)>, Doomed, Error) {
    let mut minted = Vec::new();
    for lease in FIRST..FIRST + MINTS_MAX {
        let handle = service.handle(lease);
        let answer = in_time(service.mint(&handle, template)).await;
        let doomed = Doomed::new(handle, template.plan().clone());
        match answer {
            Ok(credential) => minted.push((doomed, credential)),
            Err(error) => return (minted, doomed, error),
        }
    }
    panic!("{MINTS_MAX} mints, and the disk is full");
}

async fn in_time<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(ANSWER_MAX, answer).await.expect("an answer in time")
}

/// Asks until the server is as before. Whatever it says until then must be worth asking again.
async fn once_back<T>(what: &str, ask: impl AsyncFn() -> Result<T, Error>) -> T {
    let asking = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(error) => {
                    assert_eq!(error.retry(), Retry::Temporary, "{what}: {}", chain(&error));
                }
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    tokio::time::timeout(BACK_MAX, asking).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

async fn tells_the_truth(kind: Kind) {
    let service = start(kind).await;
    let template = service.backend.template(&usual()).unwrap();
    let (due, due_credential) = service.minted(1, usual()).await;
    let (kept, kept_credential) = service.minted(2, usual()).await;
    service.server.disk().fill();
    if kind == Kind::Mysql {
        use_up(&service.server).await;
    }
    let (minted, failed, error) = mint_until_full(&service, &template).await;
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::UnknownOutcome),
        "{kind}: {}",
        chain(&error)
    );
    assert_eq!(error.retry(), Retry::Temporary, "{kind}: {}", chain(&error));
    // What is said to be dead must never be seen alive again, whatever the server does later with
    // what it was told; what is not said to be dead is still owed.
    let (mut claimed, mut owed) = (Vec::new(), Vec::new());
    for doomed in [&failed, &due] {
        match in_time(service.end(doomed)).await {
            Ok(()) => claimed.push(doomed),
            Err(error) => {
                assert_eq!(error.retry(), Retry::Temporary, "{kind}: {}", chain(&error));
                owed.push(doomed);
            }
        }
    }

    service.server.disk().free();
    for doomed in owed {
        once_back("what is owed is paid", async || service.end(doomed).await).await;
        claimed.push(doomed);
    }
    let again = service.handle(FIRST + MINTS_MAX);
    let credential = service.mint(&again, &template).await;
    let credential = credential.unwrap_or_else(|error| panic!("{kind}: {}", chain(&error)));
    assert!(service.works(&credential).await, "{kind}");
    for doomed in claimed {
        assert_eq!(service.liveness(doomed).await, Liveness::Gone, "{kind}: {}", doomed.handle);
    }
    assert!(!service.works(&due_credential).await, "{kind}");
    assert!(service.works(&kept_credential).await, "{kind}: {}", kept.handle);
    for (doomed, credential) in &minted {
        assert!(service.works(credential).await, "{kind}: {}", doomed.handle);
    }
    let doomed = Doomed::new(again, template.plan().clone());
    service.end(&doomed).await.unwrap();
    assert!(!service.works(&credential).await, "{kind}");
}

#[tokio::test]
async fn mysql_on_a_full_disk_loses_nothing_and_claims_no_death() {
    tells_the_truth(Kind::Mysql).await;
}

/// Takes a minute: the mint waits in the server, and ends long after its deadline.
#[tokio::test]
async fn mariadb_on_a_full_disk_loses_nothing_and_claims_no_death() {
    tells_the_truth(Kind::Mariadb).await;
}
