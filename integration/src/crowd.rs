//! Many leases at once, by copies of one that somebody minted, with the roles behind them.
//!
//! Invariant: each row and each role is what a mint leaves behind, and each role can be
//! dropped by the account that the broker has. Only its password is nobody's, so that making
//! many does not take the time of hashing.

use std::{fmt::Write as _, time::Duration};

use dayfly_backend_sdk::{HandlePrefix, Timestamp};
use dayfly_lease::{Clock, LeaseId, SystemClock, SystemEntropy, TaskId};
use sqlx::{AssertSqlSafe, Connection, PgConnection, types::time::OffsetDateTime};
use uuid::Uuid;

use crate::Postgres;

/// Shaped like a verifier with one iteration, which the server takes as it is. No password
/// is known that it would be the verifier of.
const VERIFIER: &str = "SCRAM-SHA-256$1:BwcHBwcHBwcHBwcHBwcHBw==\
    $YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=:YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=";
/// Roles in one message, rows in one statement.
const CHUNK: usize = 1_000;
const LEASES_PER_TASK: usize = 10;
/// From a lease's issue to its end.
const TTL: Duration = Duration::from_mins(5);
/// What the backend adds to a lease's end for the clocks, by default.
const SKEW: Duration = Duration::from_secs(1);

/// Leases at one backend.
#[derive(Debug)]
pub struct Crowd {
    backend: String,
    leases: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    id: LeaseId,
    handle: String,
    due: Timestamp,
}

impl Crowd {
    /// The name that the leases' role has in their rows, by which they are told from others.
    pub const ROLE: &str = "crowd";

    /// One lease for each instant of `dues`, at which it ends. Nothing is written yet.
    pub fn new(backend: &str, prefix: &str, dues: impl IntoIterator<Item = Timestamp>) -> Self {
        let prefix = HandlePrefix::parse(prefix).unwrap();
        let entropy = SystemEntropy::new();
        let member = |due: Timestamp| {
            let id = LeaseId::new(due.minus(TTL), &entropy);
            let handle = prefix.handle(id.uuid(), 63).unwrap().to_string();
            Member { id, handle, due }
        };
        Self { backend: backend.to_owned(), leases: dues.into_iter().map(member).collect() }
    }

    /// The configuration of a PostgreSQL backend `name`, and of a role `name-reader` there.
    pub fn backend(name: &str, prefix: &str, port: u16) -> String {
        format!(
            "[[backend]]\nname = \"{name}\"\nkind = \"postgres\"\nprefix = \"{prefix}\"\n\
             host = \"127.0.0.1\"\nport = {port}\ndatabase = \"app\"\n\
             username = \"dayfly_admin\"\npassword = {{ file = \"pg-password\" }}\n\
             tls = \"disable\"\n\
             [[role]]\nname = \"{name}-reader\"\nbackend = \"{name}\"\nowner = \"test\"\n\
             ttl = \"5m\"\nttl_max = \"1h\"\ntemplate = {{ member_of = [\"readers\"] }}\n"
        )
    }

    /// The configuration `text` of a broker that leaves crowds alone: their role is in none, and
    /// what nobody may mint any more would end at its start.
    pub fn unjudged(text: &str) -> String {
        let unjudged = text.replace("[policies]\n", "[policies]\nrecheck = false\n");
        assert_ne!(unjudged, text);
        unjudged
    }

    /// Makes the roles, as the account that is to end them.
    pub async fn make_roles(&self, postgres: &Postgres) {
        let url = format!("postgres://dayfly_admin:admin-password@127.0.0.1:{}/app", postgres.port);
        let mut connection = PgConnection::connect(&url).await.unwrap();
        for members in self.leases.chunks(CHUNK) {
            // What is lost if the server dies is made again.
            let mut sql = String::from("SET LOCAL synchronous_commit = off;\n");
            for Member { id, handle, due } in members {
                writeln!(
                    sql,
                    "CREATE ROLE \"{handle}\" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE \
                     NOREPLICATION NOBYPASSRLS INHERIT CONNECTION LIMIT -1 VALID UNTIL '{}' \
                     PASSWORD '{VERIFIER}' IN ROLE \"readers\";\n\
                     COMMENT ON ROLE \"{handle}\" IS 'dayfly lease {id} for a crowd';",
                    due.plus(SKEW).rfc3339()
                )
                .unwrap();
            }
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        }
    }

    /// Makes the rows, while no broker runs. The store must hold one delivered lease at a
    /// PostgreSQL backend.
    pub async fn make_rows(&self, store: &Postgres) {
        let mut connection = PgConnection::connect(&store.url("dayfly")).await.unwrap();
        let off = sqlx::raw_sql("SET synchronous_commit = off");
        off.execute(&mut connection).await.unwrap();
        for members in self.leases.chunks(CHUNK) {
            let tasks = make_tasks(&mut connection, members.len().div_ceil(LEASES_PER_TASK)).await;
            let task = |at: usize| *tasks.get(at / LEASES_PER_TASK).unwrap();
            let tasks: Vec<Uuid> = (0..members.len()).map(task).collect();
            let ids: Vec<Uuid> = members.iter().map(|member| member.id.uuid()).collect();
            let handles: Vec<&str> = members.iter().map(|member| member.handle.as_str()).collect();
            let dues: Vec<OffsetDateTime> =
                members.iter().map(|member| member.due.offset()).collect();
            let made = sqlx::query(LEASES)
                .bind(ids)
                .bind(tasks)
                .bind(handles)
                .bind(dues)
                .bind(&self.backend)
                .bind(Self::ROLE)
                .execute(&mut connection);
            let made = made.await.unwrap().rows_affected();
            assert_eq!(made, members.len() as u64, "is there a lease to copy?");
        }
    }
}

/// Copies of a lease: id, task, handle and end are each one's own.
const LEASES: &str = "INSERT INTO leases (id, task, principal, issuer, role, backend, handle,
    decision_chain, decision_seq, epoch, state, issued_at, expires_at, max_expires_at,
    native_expires_at, mint_deadline, activated_at, delivered_at, due_at, attempts, renewable,
    belts, plan)
 SELECT n.id, n.task, t.principal, t.issuer, $6, $5, n.handle, t.decision_chain, t.decision_seq,
    t.epoch, 'active', n.due - interval '5 min', n.due, n.due, n.due + interval '2 s',
    n.due - interval '285 s', n.due - interval '299 s', n.due - interval '299 s', n.due, 0,
    t.renewable, t.belts, t.plan
 FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[]) AS n(id, task, handle, due),
    (SELECT * FROM leases WHERE plan ? 'owned' AND delivered_at IS NOT NULL LIMIT 1) AS t";

/// Open tasks like one that was opened; gives their ids.
async fn make_tasks(connection: &mut PgConnection, count: usize) -> Vec<Uuid> {
    let now = SystemClock.now();
    let entropy = SystemEntropy::new();
    let ids: Vec<Uuid> = (0..count).map(|_| TaskId::new(now, &entropy).uuid()).collect();
    let made = sqlx::query(
        "INSERT INTO tasks (id, principal, issuer, identity, purpose, token_hash, opened_at,
            expires_at)
         SELECT n.id, t.principal, t.issuer, t.identity, t.purpose,
            sha256(CAST(CAST(n.id AS text) AS bytea)), now() - interval '2 h', now() + interval '4 h'
         FROM UNNEST($1::uuid[]) AS n(id), (SELECT * FROM tasks LIMIT 1) AS t",
    );
    let made = made.bind(&ids).execute(connection).await.unwrap();
    assert_eq!(made.rows_affected(), count as u64, "is there a task to copy?");
    ids
}
