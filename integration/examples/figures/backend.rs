//! The PostgreSQL backend by itself, without store and HTTP, against the bare statements on the
//! same server.
//!
//! Invariant: both sides take turns, with as many connections, on a server that really writes to
//! its disk; what the bare side needs besides the server's work is made before it is timed, and
//! what ours needs is part of the time.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use dayfly_backend_postgres::{PostgresBackend, PostgresConfig};
use dayfly_backend_sdk::{
    Backend, Doomed, Handle, Liveness, MintRequest, Revocation, Secret, Template, Timestamp,
};
use dayfly_integration::Postgres;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::{sync::Semaphore, task::JoinSet};
use uuid::Uuid;

use crate::{
    measure::{median, ms, watch},
    mint::{Bare, VARIANTS, verifier},
    report::Report,
    served::quiet,
};

const CONNECTIONS: u32 = 8;
const CLIENTS: usize = 64;
const SINGLE: usize = 100;
const ROUNDS: usize = 5;
/// Mints of one round of many clients.
const MANY: usize = 256;
/// Roles of one revocation.
const BATCH: usize = 100;

struct Side {
    backend: Arc<PostgresBackend>,
    next: u128,
}

impl Side {
    fn new(postgres: &Postgres) -> anyhow::Result<Self> {
        let config = PostgresConfig {
            host: "127.0.0.1".to_owned(),
            port: postgres.port,
            database: "app".to_owned(),
            username: "dayfly_admin".to_owned(),
            password: Some(Secret::new("admin-password")),
            prefix: "fig_".to_owned(),
            connections_max: CONNECTIONS,
            tls: Some(dayfly_backend_postgres::Tls::Disable),
            ..PostgresConfig::default()
        };
        Ok(Self { backend: Arc::new(PostgresBackend::new(&config)?), next: 1 })
    }

    fn handle(&mut self) -> anyhow::Result<Handle> {
        self.next += 1;
        Ok(self.backend.handle(Uuid::from_u128(self.next))?)
    }
}

async fn mint(
    backend: &PostgresBackend,
    handle: &Handle,
    template: &Template,
) -> anyhow::Result<()> {
    let now = Timestamp::from_micros(i64::try_from(
        std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_micros(),
    )?);
    let request = MintRequest {
        handle,
        template,
        expires_at: now.plus(Duration::from_hours(1)),
        mint_deadline: now.plus(Duration::from_mins(1)),
        principal: "figures",
        lease: "figures",
    };
    backend.mint(&request).await.map(drop).context("a mint failed")
}

/// All of `handles`, by so many clients.
async fn mint_many(
    backend: &Arc<PostgresBackend>,
    handles: Vec<Handle>,
    template: &Template,
) -> anyhow::Result<()> {
    let (turns, mut mints) = (Arc::new(Semaphore::new(CLIENTS)), JoinSet::new());
    for handle in handles {
        let (backend, template, turns) =
            (Arc::clone(backend), template.clone(), Arc::clone(&turns));
        mints.spawn(async move {
            let _turn = turns.acquire_owned().await?;
            mint(&backend, &handle, &template).await
        });
    }
    while let Some(minted) = mints.join_next().await {
        minted??;
    }
    Ok(())
}

/// As many bare roles over as many connections.
async fn create_many(bare: Vec<Bare>, verifier: &str, each: usize) -> anyhow::Result<Vec<Bare>> {
    let mut makers = JoinSet::new();
    for mut one in bare {
        let verifier = verifier.to_owned();
        makers.spawn(async move {
            for _ in 0..each {
                one.create_role(&verifier).await?;
            }
            anyhow::Ok(one)
        });
    }
    let mut bare = Vec::new();
    while let Some(one) = makers.join_next().await {
        bare.push(one??);
    }
    Ok(bare)
}

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let postgres = Postgres::start();
    quiet(&postgres);
    for (iterations, _) in VARIANTS {
        let mut side = Side::new(&postgres)?;
        side.next = u128::from(iterations) << 64;
        let raw = json!({ "member_of": ["readers"], "scram_iterations": iterations,
            "database": "app" });
        let template = side.backend.template(&raw)?;
        single(report, &postgres, (&mut side, &template), iterations).await?;
        many(report, &postgres, (&mut side, &template), iterations).await?;
        if iterations == 1 {
            revoked(report, &postgres, &mut side, &template).await?;
        }
    }
    Ok(())
}

async fn single(
    report: &mut Report,
    postgres: &Postgres,
    (side, template): (&mut Side, &Template),
    iterations: u32,
) -> anyhow::Result<()> {
    let mut bare = Bare::connect(postgres, format!("one_{iterations}_")).await?;
    let verifier = verifier(iterations);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 0..SINGLE {
        let handle = side.handle()?;
        let started = watch();
        mint(&side.backend, &handle, template).await?;
        let took = ms(started.elapsed());
        let started = watch();
        bare.create_role(&verifier).await?;
        if number >= 10 {
            ours.push(took);
            theirs.push(ms(started.elapsed()));
        }
    }
    let what =
        format!("one mint of the backend to the bare CREATE ROLE, {iterations} iteration(s)");
    let ratio = median(&ours) / median(&theirs);
    report.note(
        &format!("backend.scram_{iterations}.mint_ms"),
        "one mint of the backend",
        median(&ours),
        "ms",
    );
    report.aim(&format!("backend.scram_{iterations}.mint_ratio"), &what, (ratio, "×"), 1.3);
    Ok(())
}

async fn many(
    report: &mut Report,
    postgres: &Postgres,
    (side, template): (&mut Side, &Template),
    iterations: u32,
) -> anyhow::Result<()> {
    let verifier = verifier(iterations);
    let mut bare = Vec::new();
    for number in 0..CONNECTIONS {
        bare.push(Bare::connect(postgres, format!("many_{iterations}_{number}_")).await?);
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let handles = (0..MANY).map(|_| side.handle()).collect::<anyhow::Result<Vec<_>>>()?;
        let started = watch();
        mint_many(&side.backend, handles, template).await?;
        let took = started.elapsed().as_secs_f64();
        let started = watch();
        bare = create_many(bare, &verifier, MANY / CONNECTIONS as usize).await?;
        if round > 0 {
            ours.push(MANY as f64 / took);
            theirs.push(MANY as f64 / started.elapsed().as_secs_f64());
        }
    }
    let key = |what: &str| format!("backend.scram_{iterations}.{what}");
    let (ours, theirs) = (median(&ours), median(&theirs));
    let clients = format!("{CLIENTS} clients, {iterations} iteration(s)");
    report.note(&key("rate"), &format!("mints of the backend, {clients}"), ours, "/s");
    report.note(&key("bare_rate"), &format!("bare CREATE ROLE, {clients}"), theirs, "/s");
    // At 4096 the server's own hashing is the limit; at 1, minting in groups was to win.
    let most = if iterations == 1 { 1.0 / 1.5 } else { 1.0 / 0.9 };
    let what = format!("the bare rate to the backend's, {clients}");
    report.aim(&key("rate_ratio"), &what, (theirs / ours, "×"), most);
    Ok(())
}

async fn revoked(
    report: &mut Report,
    postgres: &Postgres,
    side: &mut Side,
    template: &Template,
) -> anyhow::Result<()> {
    let url = format!("postgres://dayfly_admin:admin-password@127.0.0.1:{}/app", postgres.port);
    let mut connection = PgConnection::connect(&url).await?;
    let (mut drops, mut ends, mut proofs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut doomed = Vec::new();
        for _ in 0..BATCH {
            doomed.push(Doomed::new(side.handle()?, template.plan().clone()));
        }
        let handles = doomed.iter().map(|one| one.handle.clone()).collect();
        mint_many(&side.backend, handles, template).await?;
        let mut bare = Bare::connect(postgres, format!("drop_{round}_")).await?;
        for _ in 0..BATCH {
            bare.create_role(&verifier(1)).await?;
        }
        let names: Vec<String> =
            (1..=BATCH).map(|number| format!("\"drop_{round}_{number}\"")).collect();
        let started = watch();
        let sql = format!("DROP ROLE {}", names.join(", "));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        drops.push(ms(started.elapsed()));
        let started = watch();
        let ended = side.backend.revoke(&doomed).await;
        ends.push(ms(started.elapsed()));
        ensure!(ended.iter().all(|one| matches!(one, Revocation::Gone)), "{ended:?}");
        let alive = side.backend.verify(&doomed).await?;
        proofs.push(ms(started.elapsed()));
        ensure!(alive.iter().all(|one| *one == Liveness::Gone), "{alive:?}");
    }
    let (drops, ends, proofs) = (median(&drops), median(&ends), median(&proofs));
    report.note("backend.drop_ms", "the bare DROP ROLE of 100 in one statement", drops, "ms");
    let what = "revoking 100 roles without sessions to it";
    report.aim("backend.revoke_ratio", what, (ends / drops, "×"), 1.0 / 0.6);
    let what = "revoking and verifying them to it";
    report.aim("backend.verified_ratio", what, (proofs / drops, "×"), 1.0 / 0.2);
    Ok(())
}
