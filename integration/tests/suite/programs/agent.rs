//! An agent that is killed.

use std::{path::Path, process::Command, time::Duration};

use dayfly_integration::{Broker, BrokerConfig, Postgres, Store, eventually, program};

use crate::helpers::{Desk, secret_file, text};

/// A login by a password file with one line.
fn login(desk: &Desk, postgres: &Postgres, line: &str) -> Command {
    let path = desk.path("pgpass");
    secret_file(&path, line);
    let mut command = desk.command(postgres.bin().join("psql"));
    command.args(["-X", "-w", "-tAc", "select text from app.notes", "-h", "127.0.0.1"]);
    let (port, user) = (postgres.port.to_string(), line.split(':').nth(3).unwrap());
    command.args(["-p", &port, "-U", user, "app"]).env("PGPASSFILE", &path);
    command
}

/// What it gave out ends when it was not heard for its heartbeat. Another takes its place at the
/// same socket, which the first one had no time to remove.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_leaves_nothing_that_works_beyond_its_heartbeat() {
    let postgres = Postgres::start();
    let config = BrokerConfig::new(Store::Sqlite, Some(&postgres));
    let desk = Desk::of(Broker::start(config).await);
    let options = ["--role", "reader", "--heartbeat", "10s", "--ttl", "1h"];
    let ask = |socket: &Path| {
        let mut command = desk.command(program("dayfly"));
        command.args(["credential", "pgpass", "--role", "reader"]);
        command.env("DAYFLY_AGENT_SOCKET", socket).output().unwrap()
    };

    let agent = desk.agent(&options).await;
    let socket = agent.path.clone();
    let line = text(&ask(&socket));
    assert_eq!(text(&login(&desk, &postgres, &line).output().unwrap()), "hello\n");
    // It is heard: an interval and more of life.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(text(&login(&desk, &postgres, &line).output().unwrap()), "hello\n");
    agent.kill();
    let refused = eventually("no login with its credential", Duration::from_mins(1), async || {
        let output = login(&desk, &postgres, &line).output().unwrap();
        (!output.status.success()).then(|| String::from_utf8(output.stderr).unwrap())
    })
    .await;
    // The second where the role went between the check of its password and the session.
    let gone = ["password authentication failed", "does not exist"];
    assert!(gone.iter().any(|text| refused.contains(text)), "{refused}");
    let admin = desk.broker.client().with(&desk.broker.admin());
    eventually("its death is verified", Duration::from_mins(1), async || {
        (desk.states("reader").await == ["revoked"]).then_some(())
    })
    .await;
    let leases = admin.get("/api/v1/leases?role=reader").await.unwrap().expect(200);
    assert_eq!(leases.text("/data/0/cause"), "task_lost");
    let tasks = admin.get("/api/v1/tasks").await.unwrap().expect(200);
    assert_eq!(tasks.text("/data/0/state"), "lost");
    assert_eq!(postgres.roles("df_"), Vec::<String>::new());

    let nobody = ask(&socket);
    assert_eq!(nobody.status.code(), Some(6), "{nobody:?}");
    let agent = desk.agent(&options).await;
    let next = text(&ask(&socket));
    assert_ne!(next, line);
    assert_eq!(text(&login(&desk, &postgres, &next).output().unwrap()), "hello\n");
    let (code, err) = agent.stop();
    assert_eq!(code, Some(0), "{err}");
    assert!(!login(&desk, &postgres, &next).output().unwrap().status.success());
}
