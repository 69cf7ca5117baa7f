//! The way to the server: one message, its answers.
//!
//! Invariant: a connection goes back to the pool only after all answers of its message were
//! read, and none was an error: what is left of a message that failed (a lock, a variable)
//! belongs to nobody else.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, MySql, MySqlConnection, MySqlPool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlRow, MySqlSslMode},
    pool::PoolConnection,
};

use crate::{
    config::{MysqlConfig, Server, Tls},
    error::Failure,
    quote::Sql,
    revoke::text,
};

/// Connections for what must die, besides those that the configuration gives.
const DEATH_CONNECTIONS: u32 = 4;
/// How long at least a revocation waits for its connection; well below the time that the
/// engine gives it.
const DEATH_PATIENCE: Duration = Duration::from_secs(8);
/// How long an unused connection is kept.
const IDLE_MAX: Duration = Duration::from_mins(5);
/// A connection is replaced after this, so that a changed address or balance is noticed.
const LIFETIME_MAX: Duration = Duration::from_mins(30);
/// How long the goodbye of a connection may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// A server, our account at it and the connections to it.
pub(crate) struct Link {
    pool: MySqlPool,
    options: MySqlConnectOptions,
    server: Server,
    connect_timeout: Duration,
    answer_timeout: Duration,
    lock_wait_timeout_s: u64,
    /// Whether the server has said that it is what the configuration says.
    known: AtomicBool,
    /// How many connections were opened.
    opened: Arc<AtomicU64>,
}

impl Link {
    /// Connects at the first message, not now.
    pub(crate) fn new(config: &MysqlConfig) -> Self {
        Self::with(config, config.connections_max, patience(config))
    }

    /// The same with connections of its own for what must die, so that it never waits behind
    /// what is minted (I10).
    pub(crate) fn for_deaths(config: &MysqlConfig) -> Self {
        Self::with(config, DEATH_CONNECTIONS, patience(config).max(DEATH_PATIENCE))
    }

    fn with(config: &MysqlConfig, connections: u32, connect_timeout: Duration) -> Self {
        let options = options(config);
        let opened = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&opened);
        let pool = MySqlPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(connect_timeout)
            .idle_timeout(IDLE_MAX)
            .max_lifetime(LIFETIME_MAX)
            .after_connect(move |_, _| {
                counter.fetch_add(1, Ordering::Relaxed);
                Box::pin(std::future::ready(Ok::<(), sqlx::Error>(())))
            })
            .connect_lazy_with(options.clone());
        Self {
            pool,
            options,
            server: config.server,
            connect_timeout,
            answer_timeout: Duration::from_millis(u64::from(config.answer_timeout_ms)),
            lock_wait_timeout_s: u64::from(config.lock_wait_timeout_s),
            known: AtomicBool::new(false),
            opened,
        }
    }

    /// How many connections were opened: what the server said before the last of them another
    /// server may have said, or the same one in another version.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Sends `sql` as one message and gives all rows of all its statements.
    pub(crate) async fn run(&self, sql: &Sql) -> Result<Vec<MySqlRow>, Failure> {
        self.open().await?.run(sql).await
    }

    /// One connection for several messages. The numbers of connections are one server's, and
    /// behind a balancer another connection could be another server's.
    pub(crate) async fn open(&self) -> Result<Open<'_>, Failure> {
        let connection = self.pool.acquire().await.map_err(|error| {
            if wants_ed25519(&error) {
                let account = "the server asks our account for `client_ed25519`, which the \
                               driver does not speak: give it `mysql_native_password`";
                return Failure::Ours(account.to_owned());
            }
            Failure::connect(&error)
        })?;
        let mut lent = Lent { connection, answered: false };
        if !self.known.load(Ordering::Relaxed) {
            self.know(&mut lent.connection).await?;
        }
        lent.answered = true;
        Ok(Open { link: self, lent })
    }

    /// The two take each other's statements for errors in their syntax, or worse.
    async fn know(&self, connection: &mut MySqlConnection) -> Result<(), Failure> {
        let rows = self.exchange(connection, Sql::new().text("SELECT VERSION()")).await?;
        let version = rows.first().map(|row| text(row, 0)).transpose()?.unwrap_or_default();
        let is = if version.contains("MariaDB") { Server::Mariadb } else { Server::Mysql };
        if is != self.server {
            return Err(Failure::Ours(format!("the server is {version}: set `server = \"{is}\"`")));
        }
        self.known.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Logs in as someone else over the way that we go ourselves, and asks for one row.
    pub(crate) async fn try_login(&self, username: &str, password: &str) -> Result<Login, Failure> {
        let options = self.options.clone().username(username).password(password);
        let connecting = tokio::time::timeout(self.connect_timeout, options.connect());
        let mut connection = match connecting.await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) if wants_ed25519(&error) => return Ok(Login::Unspoken),
            Ok(Err(error)) => return Err(Failure::connect(&error)),
            Err(_) => return Err(Failure::no_connection_in_time()),
        };
        let answer = self.exchange(&mut connection, Sql::new().text("SELECT 1")).await;
        let _ = tokio::time::timeout(GOODBYE, connection.close()).await;
        answer.map(|_| Login::Done)
    }

    async fn exchange(
        &self,
        connection: &mut MySqlConnection,
        message: Sql,
    ) -> Result<Vec<MySqlRow>, Failure> {
        let answer = sqlx::raw_sql(AssertSqlSafe(message.into_text())).fetch_all(connection);
        match tokio::time::timeout(self.answer_timeout, answer).await {
            Ok(answer) => answer.map_err(|error| Failure::sent(&error)),
            Err(_) => Err(Failure::silent()),
        }
    }

    /// What holds for the statements of each message, whoever had the session before: a pooler
    /// between us and the server may share it. Quoting depends on the SQL mode, and without
    /// `NO_AUTO_CREATE_USER` a `GRANT` on MariaDB makes an account without a password.
    fn opening(&self) -> Sql {
        let mode = match self.server {
            Server::Mysql => "SET SESSION sql_mode = 'STRICT_ALL_TABLES'",
            Server::Mariadb => "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_CREATE_USER'",
        };
        let sql = Sql::new().text(mode).text(", SESSION lock_wait_timeout = ");
        sql.number(self.lock_wait_timeout_s).text(";\n")
    }
}

/// What became of a login that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// It was let in, and asked.
    Done,
    /// The server wants a proof by `client_ed25519`, which the driver does not speak.
    Unspoken,
}

fn wants_ed25519(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Protocol(said) if said.contains("client_ed25519"))
}

fn patience(config: &MysqlConfig) -> Duration {
    Duration::from_millis(u64::from(config.acquire_timeout_ms))
}

/// A connection, as long as its messages are answered.
pub(crate) struct Open<'a> {
    link: &'a Link,
    lent: Lent,
}

impl Open<'_> {
    /// Sends `sql` as one message and gives all rows of all its statements. After a failure the
    /// connection is not used again.
    pub(crate) async fn run(&mut self, sql: &Sql) -> Result<Vec<MySqlRow>, Failure> {
        self.lent.answered = false;
        let message = self.link.opening().then(sql);
        let answer = self.link.exchange(&mut self.lent.connection, message).await;
        self.lent.answered = answer.is_ok();
        answer
    }
}

/// A connection on loan from the pool.
struct Lent {
    connection: PoolConnection<MySql>,
    answered: bool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.close_on_drop();
        }
    }
}

/// None of the driver's own settings: each message brings what it needs.
fn options(config: &MysqlConfig) -> MySqlConnectOptions {
    let mode = match config.tls() {
        Tls::Disable => MySqlSslMode::Disabled,
        Tls::Require => MySqlSslMode::Required,
        Tls::VerifyFull => MySqlSslMode::VerifyIdentity,
    };
    let password = config.password.as_ref().map_or("", |password| password.expose());
    let mut options = MySqlConnectOptions::new()
        .host(&config.host)
        .port(config.port)
        .username(&config.username)
        .password(password)
        .ssl_mode(mode)
        .charset("utf8mb4")
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .statement_cache_capacity(0)
        .disable_statement_logging();
    if config.is_socket() {
        options = options.socket(Path::new(&config.host));
    }
    if let Some(file) = &config.ca_file {
        options = options.ssl_ca(file);
    }
    options
}
