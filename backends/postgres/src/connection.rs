//! The way to the server: one message, one answer.
//!
//! Invariant: a connection goes back to the pool only after its answer was read to the end.
//! One whose request was cancelled or timed out is closed, since what it would read next
//! belongs to another.

use std::{path::Path, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow, PgSslMode},
};

use crate::{
    config::{PostgresConfig, Tls},
    error::Failure,
    quote::Sql,
};

/// How much longer than its own statement timeout the server's answer may take.
const REPLY_GRACE: Duration = Duration::from_secs(5);
/// Which part of its statement timeout a mint waits for one lock.
const LOCK_SHARE: u32 = 4;
/// Connections for what must die, besides those that the configuration gives.
const DEATH_CONNECTIONS: u32 = 4;
/// How long at least a revocation waits for its connection; well below the time that the
/// engine gives it.
const DEATH_PATIENCE: Duration = Duration::from_secs(8);
/// How long an unused connection is kept.
const IDLE_MAX: Duration = Duration::from_mins(5);
/// A connection is replaced after this, so that a changed address or balance is noticed.
const LIFETIME_MAX: Duration = Duration::from_mins(30);

/// A server, our account at it and the connections to it.
pub(crate) struct Server {
    pool: PgPool,
    options: PgConnectOptions,
    connect_timeout: Duration,
    statement_timeout_ms: u32,
}

impl Server {
    /// Connects at the first message, not now.
    pub(crate) fn new(config: &PostgresConfig) -> Self {
        let wait = Duration::from_millis(u64::from(config.acquire_timeout_ms));
        Self::with(config, config.connections_max, wait)
    }

    /// The same with connections of its own for what must die, so that it never waits behind
    /// what is minted (I10), and with more patience: a server that is slow under its load is
    /// still one that can be asked.
    pub(crate) fn for_deaths(config: &PostgresConfig) -> Self {
        let wait = Duration::from_millis(u64::from(config.acquire_timeout_ms));
        Self::with(config, DEATH_CONNECTIONS, wait.max(DEATH_PATIENCE))
    }

    fn with(config: &PostgresConfig, connections: u32, connect_timeout: Duration) -> Self {
        let options = options(config);
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(connect_timeout)
            .idle_timeout(IDLE_MAX)
            .max_lifetime(LIFETIME_MAX)
            .connect_lazy_with(options.clone());
        Self { pool, options, connect_timeout, statement_timeout_ms: config.statement_timeout_ms }
    }

    /// The longest that a mint waits for one lock. A quarter of what a statement may take, so
    /// that the server says which of the two it was, and others have their turn soon.
    pub(crate) fn lock_timeout(&self) -> Duration {
        // None at all would be no bound.
        Duration::from_millis(u64::from(self.statement_timeout_ms / LOCK_SHARE).max(1))
    }

    /// Sends `sql` as one message, which the server runs as one transaction, and gives all
    /// rows of all its statements.
    pub(crate) async fn run(&self, sql: &Sql) -> Result<Vec<PgRow>, Failure> {
        let connection = self.pool.acquire().await.map_err(|error| Failure::connect(&error))?;
        let mut lent = Lent { connection, answered: false };
        let (answer, complete) = self.exchange(&mut lent.connection, sql).await;
        lent.answered = complete;
        answer
    }

    /// The same over a connection of its own to another database of the server.
    pub(crate) async fn run_in(&self, database: &str, sql: &Sql) -> Result<Vec<PgRow>, Failure> {
        if self.options.get_database() == Some(database) {
            return self.run(sql).await;
        }
        let mut connection = self.connect(self.options.clone().database(database)).await?;
        let (answer, complete) = self.exchange(&mut connection, sql).await;
        if complete {
            // The answer is known; how the goodbye goes does not matter.
            let _ = tokio::time::timeout(REPLY_GRACE, connection.close()).await;
        }
        answer
    }

    /// Logs in as someone else over the way that we go ourselves, and asks for one row.
    pub(crate) async fn try_login(
        &self,
        username: &str,
        password: &str,
        database: &str,
    ) -> Result<(), Failure> {
        let options = self.options.clone().username(username).password(password);
        let mut connection = self.connect(options.database(database)).await?;
        let (answer, _) = self.exchange(&mut connection, &Sql::new().text("SELECT 1")).await;
        let _ = tokio::time::timeout(REPLY_GRACE, connection.close()).await;
        answer.map(drop)
    }

    async fn connect(&self, options: PgConnectOptions) -> Result<PgConnection, Failure> {
        match tokio::time::timeout(self.connect_timeout, options.connect()).await {
            Ok(connected) => connected.map_err(|error| Failure::connect(&error)),
            Err(_) => Err(Failure::no_connection_in_time()),
        }
    }

    /// The answer, and whether it was read to its end.
    async fn exchange(
        &self,
        connection: &mut PgConnection,
        sql: &Sql,
    ) -> (Result<Vec<PgRow>, Failure>, bool) {
        let timeout = i64::from(self.statement_timeout_ms);
        // SET LOCAL reaches to the end of this message's transaction, so that nothing of it
        // stays with a connection that a pooler between us and the server shares.
        let message = Sql::new().text("SET LOCAL statement_timeout = ").number(timeout);
        let message = message.text(";\n").then(sql).into_text();
        let wait = Duration::from_millis(u64::from(self.statement_timeout_ms)) + REPLY_GRACE;
        let answer = sqlx::raw_sql(AssertSqlSafe(message)).fetch_all(connection);
        match tokio::time::timeout(wait, answer).await {
            Ok(Ok(rows)) => (Ok(rows), true),
            Ok(Err(error)) => {
                let failure = Failure::sent(&error);
                let complete = failure.is_rolled_back();
                (Err(failure), complete)
            }
            Err(_) => (Err(Failure::silent()), false),
        }
    }
}

/// A connection on loan from the pool.
struct Lent {
    connection: PoolConnection<Postgres>,
    answered: bool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.close_on_drop();
        }
    }
}

/// Every option is set, so that none comes from our environment.
fn options(config: &PostgresConfig) -> PgConnectOptions {
    let mode = match config.tls() {
        Tls::Disable => PgSslMode::Disable,
        Tls::Require => PgSslMode::Require,
        Tls::VerifyFull => PgSslMode::VerifyFull,
    };
    let password = config.password.as_ref().map_or("", |password| password.expose());
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&config.host)
        .port(config.port)
        .username(&config.username)
        .password(password)
        .database(&config.database)
        .ssl_mode(mode)
        .application_name("dayfly")
        .disable_statement_logging();
    if config.is_socket() {
        options = options.socket(Path::new(&config.host));
    }
    if let Some(file) = &config.ca_file {
        options = options.ssl_root_cert(file);
    }
    options
}
