//! A full disk. Nearly full, the broker blocks whoever publishes, and goes on with everything else.
//! Really full, a node that cannot write a change down stops.

use std::time::Duration;

use dayfly_backend_rabbitmq::{RabbitmqBackend, RabbitmqConfig};
use dayfly_backend_sdk::{
    Backend, Credential, Doomed, Error, ErrorKind, Liveness, Plan, Retry, Revocation,
    testkit::{Session, eventually},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{Consumer, amqp, chain, config, mint, server::Server, usual};

/// Longer than anything waits here: for the answers of a mint or a revocation.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How soon a session that was closed is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Far more users than there is room for in the blocks that the database has.
const MINTS_MAX: u128 = 300;
/// The first lease of those that are minted on a full disk.
const FIRST: u128 = 100;

fn connect(server: &Server) -> RabbitmqBackend {
    RabbitmqBackend::new(&RabbitmqConfig { timeout_ms: 3_000, ..config(server) }).unwrap()
}

async fn in_time<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(ANSWER_MAX, answer).await.unwrap()
}

/// Those that there was still room for, the one that there was not, and why.
async fn mint_until_full(backend: &RabbitmqBackend) -> (Vec<(Doomed, Credential)>, Doomed, Error) {
    let mut minted = Vec::new();
    for lease in FIRST..FIRST + MINTS_MAX {
        match in_time(mint(backend, lease, &usual())).await {
            Ok(one) => minted.push(one),
            Err(error) => {
                let handle = backend.handle(Uuid::from_u128(lease)).unwrap();
                return (minted, Doomed::new(handle, Plan::default()), error);
            }
        }
    }
    panic!("{MINTS_MAX} mints, and the disk is full");
}

async fn end(backend: &RabbitmqBackend, doomed: &Doomed) -> Result<(), Error> {
    match in_time(backend.revoke(std::slice::from_ref(doomed))).await.pop().unwrap() {
        Revocation::Gone => Ok(()),
        Revocation::Lingers => panic!("it lingers"),
        Revocation::Failed(error) => Err(error),
    }
}

async fn liveness(backend: &RabbitmqBackend, doomed: &Doomed) -> Liveness {
    backend.verify(std::slice::from_ref(doomed)).await.unwrap()[0]
}

/// A fresh login; only "you may not" counts as refused.
fn works(credential: &Credential) -> bool {
    let said = amqp(credential, "declare-queue", &["-q", "app.works"]);
    assert!(said.is_empty() || said.contains("ACCESS_REFUSED"), "{said}");
    said.is_empty()
}

#[tokio::test]
async fn a_node_that_cannot_write_undoes_no_death_that_was_claimed() {
    let mut server = Server::on_small_disk();
    let backend = connect(&server);
    let (due, due_credential) = mint(&backend, 1, &usual()).await.unwrap();
    let (kept, kept_credential) = mint(&backend, 2, &usual()).await.unwrap();
    server.disk().fill();
    let (minted, failed, error) = mint_until_full(&backend).await;
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::UnknownOutcome),
        "{}",
        chain(&error)
    );
    assert_eq!(error.retry(), Retry::Temporary, "{}", chain(&error));
    let claimed = match end(&backend, &due).await {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.retry(), Retry::Temporary, "{}", chain(&error));
            false
        }
    };
    // It has stopped by itself, or is stopped here: what counts is what it has on its disk.
    server.kill();
    server.disk().free();
    server.resume();
    if claimed {
        assert_eq!(liveness(&backend, &due).await, Liveness::Gone, "its death was claimed");
        assert!(!works(&due_credential));
    }
    assert!(works(&kept_credential), "{}", kept.handle);
    for (doomed, credential) in &minted {
        assert!(works(credential), "{}", doomed.handle);
    }
    for doomed in [&due, &failed] {
        // The connections that the kill has broken are found out one by one.
        eventually("its end", async || match end(&backend, doomed).await {
            Ok(()) => Some(()),
            Err(error) => {
                assert_eq!(error.retry(), Retry::Temporary, "{}", chain(&error));
                None
            }
        })
        .await;
        assert_eq!(liveness(&backend, doomed).await, Liveness::Gone);
    }
    assert!(!works(&due_credential));
    let (again, credential) = mint(&backend, FIRST + MINTS_MAX, &usual()).await.unwrap();
    assert!(works(&credential));
    end(&backend, &again).await.unwrap();
    assert!(!works(&credential));
}

/// Its own alarm, long before the disk is full, blocks those who publish and nobody else.
#[tokio::test]
async fn a_broker_in_alarm_still_mints_and_ends() {
    let server = Server::in_alarm();
    eventually("the alarm", async || {
        let (status, body) = server.ask("GET", "nodes", "");
        let nodes: Value = serde_json::from_str(&body).unwrap_or_default();
        let alarm = nodes[0]["disk_free_alarm"].as_bool().unwrap_or_default();
        (status == "200" && alarm).then_some(())
    })
    .await;
    let backend = connect(&server);
    let (doomed, credential) = mint(&backend, 1, &usual()).await.unwrap();
    let mut session = Consumer::open(&credential).await;
    assert!(session.alive().await);
    end(&backend, &doomed).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(liveness(&backend, &doomed).await, Liveness::Gone);
    assert!(!works(&credential));
    in_time(async {
        while session.alive().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
}
