//! One mint at PostgreSQL with an idle broker, over HTTP, against the bare `CREATE ROLE` over
//! a connection that is kept and one durable commit of the store.
//!
//! Invariant: both sides use the same server, which really writes to the disk, and take
//! turns; neither is measured while the other's work goes on.

use std::{num::NonZeroU32, time::Duration};

use anyhow::ensure;
use data_encoding::BASE64;
use dayfly_integration::{Broker, BrokerConfig, Client, Postgres, Store};
use ring::{digest, hmac, pbkdf2};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{
    measure::{median, ms, watch},
    report::Report,
    served::{configured, open_task, quiet},
};

/// The iterations of the password's verifier, and the role of ours that has them.
pub(crate) const VARIANTS: [(u32, &str); 2] = [(4_096, "reader"), (1, "reader-quick")];

const ROUNDS: usize = 120;
const WARM_UP: usize = 10;
/// After each answer, until what follows it (the mark of delivery) is surely written.
const CALM: Duration = Duration::from_millis(10);

/// A broker whose store and backend are `postgres`.
pub(crate) async fn broker(postgres: &Postgres) -> Broker {
    quiet(postgres);
    postgres.sql("dayfly", "CREATE TABLE figures (id bigserial PRIMARY KEY, text text NOT NULL)");
    let mut config = BrokerConfig::new(Store::Postgres(postgres.url("dayfly")), Some(postgres));
    let tls = "tls = \"disable\"\n";
    assert!(config.more.contains(tls), "the backend is not where it is expected");
    // As many connections as the bare side has.
    config.more = config.more.replace(tls, &format!("{tls}connections_max = 32\n"));
    config.more.push_str(
        "[[role]]\nname = \"reader-quick\"\nbackend = \"pg\"\nowner = \"test\"\nttl = \"1h\"\n\
         ttl_max = \"1h\"\ntemplate = { member_of = [\"readers\"], scram_iterations = 1 }\n",
    );
    let mut broker = configured(config);
    broker.resume().await;
    broker
}

/// Mints once; an hour is longer than any measurement.
pub(crate) async fn mint(task: &Client, role: &str) -> u16 {
    let body = json!({ "role": role, "ttl_seconds": 3_600 });
    task.post("/api/v1/leases", body).await.status
}

/// One kept connection as the broker's backend has it.
pub(crate) struct Bare {
    backend: PgConnection,
    prefix: String,
    made: u32,
}

impl Bare {
    pub(crate) async fn connect(postgres: &Postgres, prefix: String) -> anyhow::Result<Self> {
        let url = format!("postgres://dayfly_admin:admin-password@127.0.0.1:{}/app", postgres.port);
        Ok(Self { backend: PgConnection::connect(&url).await?, prefix, made: 0 })
    }

    pub(crate) async fn create_role(&mut self, verifier: &str) -> anyhow::Result<()> {
        self.made += 1;
        let sql = format!(
            "CREATE ROLE \"{}{}\" LOGIN PASSWORD '{verifier}' \
             VALID UNTIL '2100-01-01T00:00:00Z' IN ROLE \"readers\"",
            self.prefix, self.made
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.backend).await?;
        Ok(())
    }
}

/// What the server keeps of a password, made outside of what is timed.
pub(crate) fn verifier(iterations: u32) -> String {
    let salt = [7; 16];
    let mut salted = [0; 32];
    let rounds = NonZeroU32::new(iterations).unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, b"figures", &mut salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let stored = digest::digest(&digest::SHA256, hmac::sign(&key, b"Client Key").as_ref());
    let server = hmac::sign(&key, b"Server Key");
    format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        BASE64.encode(&salt),
        BASE64.encode(stored.as_ref()),
        BASE64.encode(server.as_ref())
    )
}

/// What one round measured, in milliseconds.
struct Round {
    mint: f64,
    role: f64,
    commit: f64,
}

pub(crate) async fn measure(
    report: &mut Report,
    postgres: &Postgres,
    broker: &Broker,
) -> anyhow::Result<()> {
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        ensure!(postgres.sql("dayfly", &format!("SHOW {setting}")) == "on", "{setting} is off");
    }
    let (_, task) = open_task(broker).await;
    let mut bare = Bare::connect(postgres, "bare_".to_owned()).await?;
    let mut store = PgConnection::connect(&postgres.url("dayfly")).await?;
    let mut rounds: [Vec<Round>; 2] = Default::default();
    for number in 0..WARM_UP + ROUNDS {
        for ((iterations, role), rounds) in VARIANTS.into_iter().zip(&mut rounds) {
            let verifier = verifier(iterations);
            tokio::time::sleep(CALM).await;
            let started = watch();
            let status = mint(&task, role).await;
            let mint = ms(started.elapsed());
            ensure!(status == 201, "a mint of `{role}` was answered with {status}");
            tokio::time::sleep(CALM).await;
            let started = watch();
            bare.create_role(&verifier).await?;
            let created = ms(started.elapsed());
            sqlx::query("INSERT INTO figures (text) VALUES ($1)")
                .bind(&bare.prefix)
                .execute(&mut store)
                .await?;
            let commit = ms(started.elapsed()) - created;
            if number >= WARM_UP {
                rounds.push(Round { mint, role: created, commit });
            }
        }
    }
    for ((iterations, _), rounds) in VARIANTS.into_iter().zip(&rounds) {
        tell(report, iterations, rounds);
    }
    Ok(())
}

fn tell(report: &mut Report, iterations: u32, rounds: &[Round]) {
    let middle = |of: fn(&Round) -> f64| median(&rounds.iter().map(of).collect::<Vec<_>>());
    let mint = middle(|round| round.mint);
    let bare = middle(|round| round.role + round.commit);
    let key = |what: &str| format!("mint.scram_{iterations}.{what}");
    let text = |what: &str| format!("{what}, {iterations} SCRAM iteration(s)");
    report.note(&key("mint_ms"), &text("one mint at PostgreSQL over HTTP"), mint, "ms");
    let what = text("the bare CREATE ROLE");
    report.note(&key("create_role_ms"), &what, middle(|round| round.role), "ms");
    let what = text("one durable commit of the store");
    report.note(&key("commit_ms"), &what, middle(|round| round.commit), "ms");
    let what = text("the mint to both of them");
    report.aim(&key("ratio"), &what, (mint / bare, "×"), 2.0);
}
