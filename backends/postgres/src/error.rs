//! What PostgreSQL and the way to it answer, in the engine's words.
//!
//! Invariant: no text of a statement gets into an error. The server's own message is kept
//! only for codes whose messages name objects and never quote the statement.

use dayfly_backend_sdk::{Error, ErrorKind, Retry};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::{config::ConfigError, quote::QuoteError};

/// Our own code, raised by the guard when the mint deadline has passed.
pub(crate) const DEADLINE_PASSED: &str = "DF001";
/// `dependent_objects_still_exist`.
const DEPENDENT: &str = "2BP01";
/// Our own code, raised when a role that is to be dropped has a session.
pub(crate) const SESSION_OPEN: &str = "DF002";

/// Why a message to the server failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nothing was sent.
    #[error("no connection")]
    Connect {
        refused: bool,
        #[source]
        cause: Cause,
    },
    /// We could not even write the message.
    #[error("{0}")]
    Ours(String),
    /// The server answered with an error, and the transaction is rolled back.
    #[error("the server refused")]
    Server {
        code: String,
        #[source]
        cause: Cause,
    },
    /// It cannot be dropped for what it owns or has rights to.
    #[error("{0}")]
    Owns(String),
    /// In another database than the one that we usually are in.
    #[error("in the database `{database}`")]
    Within {
        database: String,
        #[source]
        cause: Box<Self>,
    },
    /// It was done, and what should be gone is still there.
    #[error("{0}")]
    Survived(&'static str),
    /// Sent, and nobody knows what became of it.
    #[error("no answer")]
    Unknown {
        #[source]
        cause: Cause,
    },
}

/// What lies behind, in words that may be logged.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Cause(String);

impl Failure {
    /// A failure before anything was sent.
    pub(crate) fn connect(error: &sqlx::Error) -> Self {
        let refused =
            code_of(error).is_some_and(|code| code.starts_with("28")) || pooler_refuses(error);
        Self::Connect { refused, cause: cause_of(error) }
    }

    /// A failure after the message was sent.
    pub(crate) fn sent(error: &sqlx::Error) -> Self {
        let cause = cause_of(error);
        match code_of(error) {
            Some(code) if is_unknown(&code) => Self::Unknown { cause },
            Some(code) if !ends_session(error) => Self::Server { code, cause },
            Some(_) | None => Self::Unknown { cause },
        }
    }

    /// No answer within the time that we wait.
    pub(crate) fn silent() -> Self {
        Self::Unknown { cause: Cause("the answer did not come in time".to_owned()) }
    }

    /// Sent, and what came back does not say what became of it.
    pub(crate) fn unknown(said: &str) -> Self {
        Self::Unknown { cause: Cause(said.to_owned()) }
    }

    /// Nothing was sent, since too many wait already.
    pub(crate) fn crowded() -> Self {
        Self::Connect { refused: false, cause: Cause("too many mints wait".to_owned()) }
    }

    /// No connection within the time that we wait.
    pub(crate) fn no_connection_in_time() -> Self {
        let cause = Cause("the connection was not there in time".to_owned());
        Self::Connect { refused: false, cause }
    }

    /// Whether the server refused the message and nothing of it happened, so that it may be
    /// sent again in parts.
    pub(crate) fn is_rolled_back(&self) -> bool {
        matches!(self, Self::Server { .. })
    }

    /// Whether the server refused it for one of those that were in it, so that the others may
    /// succeed without it. A lock that was not free in time, or too little time, is no one's
    /// fault: the halves would wait for it again.
    pub(crate) fn is_divisible(&self) -> bool {
        let overdue = |code: &str| matches!(code, "55P03" | "57014");
        matches!(self, Self::Server { code, .. } if !overdue(code))
    }

    /// Whether the earliest mint deadline in the message has passed.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self, Self::Server { code, .. } if code == DEADLINE_PASSED)
    }

    /// The same, with the name of the database where it happened, if it is another than ours.
    pub(crate) fn within(self, database: Option<&str>) -> Self {
        match database {
            Some(database) => Self::Within { database: database.to_owned(), cause: Box::new(self) },
            None => self,
        }
    }

    /// Whether a role was not dropped since something depends on it.
    pub(crate) fn is_dependent(&self) -> bool {
        matches!(self, Self::Server { code, .. } if code == DEPENDENT)
    }

    /// Whether a role that was to be dropped has a session.
    pub(crate) fn is_session_open(&self) -> bool {
        matches!(self, Self::Server { code, .. } if code == SESSION_OPEN)
    }

    /// Whether the login itself was refused.
    pub(crate) fn is_login_refused(&self) -> bool {
        matches!(self, Self::Connect { refused: true, .. })
    }

    /// Whether the same message may succeed at once, since another's lock was in the way.
    pub(crate) fn is_contention(&self) -> bool {
        // XX000 is "tuple concurrently updated"; 40… are serialization failure and deadlock.
        matches!(self, Self::Server { code, .. } if code == "XX000" || code.starts_with("40"))
    }

    /// In the engine's words; `doing` says what failed.
    pub(crate) fn into_error(self, doing: &'static str) -> Error {
        let (kind, retry) = self.class();
        Error::new(kind, doing).with_retry(retry).with_source(self)
    }

    fn class(&self) -> (ErrorKind, Retry) {
        use ErrorKind::{Conflict, Denied, Dependent, Invalid, NotFound, Unavailable};
        let code = match self {
            Self::Connect { refused: true, .. } => return (Denied, Retry::Permanent),
            Self::Connect { .. } => return (Unavailable, Retry::Temporary),
            Self::Ours(_) => return (Invalid, Retry::Permanent),
            Self::Server { code, .. } => code.as_str(),
            Self::Owns(_) => return (Dependent, Retry::Permanent),
            // That one database is closed or silent says nothing of the server or our password.
            Self::Within { cause, .. } => return (Dependent, cause.class().1),
            Self::Survived(_) => return (Dependent, Retry::Temporary),
            Self::Unknown { .. } => return (ErrorKind::UnknownOutcome, Retry::Temporary),
        };
        match code {
            "42710" => (Conflict, Retry::Permanent),
            "42501" | "28000" | "28P01" => (Denied, Retry::Permanent),
            DEPENDENT => (Dependent, Retry::Permanent),
            // lock_not_available: the server is well, and somebody is at what the role depends on.
            SESSION_OPEN | "55P03" => (Dependent, Retry::Temporary),
            // undefined_object: a role that is not there.
            "42704" => (NotFound, Retry::Permanent),
            // read_only_sql_transaction (a standby), query_canceled, system_error and io_error.
            DEADLINE_PASSED | "25006" | "57014" | "58000" | "58030" => {
                (Unavailable, Retry::Temporary)
            }
            "XX000" => (Invalid, Retry::Temporary),
            // 53… has the full disk.
            _ if code.starts_with("40") || code.starts_with("53") => {
                (Unavailable, Retry::Temporary)
            }
            _ => (Invalid, Retry::Permanent),
        }
    }
}

impl From<QuoteError> for Failure {
    fn from(error: QuoteError) -> Self {
        Self::Ours(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Ours(error.to_string())
    }
}

fn code_of(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    if error.constraint() == Some("pg_authid_rolname_index") {
        // Two at once: the second is told of the index and not of the role.
        return Some("42710".to_owned());
    }
    error.code().map(std::borrow::Cow::into_owned)
}

/// Codes after which it may have been committed: the server ended the session (57P01 to 57P03,
/// 08…), or somebody says outright that the statement's completion is unknown (40003).
fn is_unknown(code: &str) -> bool {
    code.starts_with("57P") || code.starts_with("08") || code == "40003"
}

/// Whether the server did more than roll back: it gave up the session, or broke down. It breaks
/// down where its log has no room (53100 as PANIC), and the commit that it was at may be in what
/// it had written already: then its recovery makes the role.
fn ends_session(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    let error = error.and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error.is_some_and(|error| is_end(error.severity()))
}

fn is_end(severity: PgSeverity) -> bool {
    matches!(severity, PgSeverity::Fatal | PgSeverity::Panic)
}

/// PgBouncer has one code for all that it refuses; its words tell a login from a full pool.
fn pooler_refuses(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    let words = ["authentication failed", "no such user"];
    error.code().as_deref() == Some("08P01")
        && words.iter().any(|words| error.message().contains(words))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the driver may add variants at any time")]
fn cause_of(error: &sqlx::Error) -> Cause {
    Cause(match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            if speaks_of_objects(&code) {
                format!("SQLSTATE {code}: {}", database.message())
            } else {
                format!("SQLSTATE {code}")
            }
        }
        sqlx::Error::Io(error) => format!("input/output: {error}"),
        sqlx::Error::Tls(source) => format!("TLS: {source}"),
        sqlx::Error::PoolTimedOut => "no connection in time".to_owned(),
        sqlx::Error::PoolClosed => "the pool is closed".to_owned(),
        _ => "the driver failed".to_owned(),
    })
}

/// Codes whose primary message names roles and objects and quotes nothing of the statement,
/// as a syntax error (42601) or a bad value (22…) does.
fn speaks_of_objects(code: &str) -> bool {
    matches!(code, "2BP01" | "42501" | "42704" | "42710" | "42P01" | "42883" | "3D000" | "3F000")
        || code.starts_with("28")
        || code.starts_with("53")
        || code.starts_with("57")
        || code.starts_with("58")
        || code.starts_with("DF")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn class(code: &str) -> (ErrorKind, Retry) {
        Failure::Server { code: code.to_owned(), cause: Cause(String::new()) }.class()
    }

    #[test]
    fn codes_have_their_kinds() {
        assert_eq!(class("42710"), (ErrorKind::Conflict, Retry::Permanent));
        assert_eq!(class("42501"), (ErrorKind::Denied, Retry::Permanent));
        assert_eq!(class("2BP01"), (ErrorKind::Dependent, Retry::Permanent));
        assert_eq!(class("55P03"), (ErrorKind::Dependent, Retry::Temporary));
        assert_eq!(class("42704"), (ErrorKind::NotFound, Retry::Permanent));
        assert_eq!(class("57014"), (ErrorKind::Unavailable, Retry::Temporary));
        assert_eq!(class("53100"), (ErrorKind::Unavailable, Retry::Temporary));
        assert_eq!(class("53300"), (ErrorKind::Unavailable, Retry::Temporary));
        assert_eq!(class("58030"), (ErrorKind::Unavailable, Retry::Temporary));
        assert_eq!(class("40P01"), (ErrorKind::Unavailable, Retry::Temporary));
        assert_eq!(class("42601"), (ErrorKind::Invalid, Retry::Permanent));
        assert_eq!(class("54000"), (ErrorKind::Invalid, Retry::Permanent));
    }

    /// What a full disk says depends on which disk: a table that cannot grow is an error of one
    /// statement, a log that cannot is the end of the server.
    #[test]
    fn a_server_that_breaks_down_has_rolled_nothing_back() {
        assert!(is_end(PgSeverity::Panic) && is_end(PgSeverity::Fatal));
        assert!(!is_end(PgSeverity::Error));
        assert!(speaks_of_objects("53100") && speaks_of_objects("58030"));
    }

    #[test]
    fn what_may_be_committed_is_not_taken_for_rolled_back() {
        for code in ["57P01", "08006", "40003"] {
            assert!(is_unknown(code), "{code}");
        }
        for code in ["40001", "40P01", "57014", "42710", "DF001"] {
            assert!(!is_unknown(code), "{code}");
        }
    }

    #[test]
    fn a_lock_in_the_way_of_all_is_nobodys_fault() {
        let failure =
            |code: &str| Failure::Server { code: code.to_owned(), cause: Cause(String::new()) };
        for code in ["55P03", "57014"] {
            assert!(!failure(code).is_divisible() && failure(code).is_rolled_back(), "{code}");
        }
        assert!(failure("42704").is_divisible() && failure("42710").is_divisible());
        assert!(failure("DF001").is_late() && !failure("57014").is_late());
        assert!(!Failure::silent().is_divisible());
    }

    #[test]
    fn after_the_send_only_the_servers_word_is_a_known_outcome() {
        let lost = Failure::sent(&sqlx::Error::Io(io::ErrorKind::ConnectionReset.into()));
        assert_eq!(lost.into_error("x").kind(), ErrorKind::UnknownOutcome);
        assert_eq!(Failure::silent().into_error("x").kind(), ErrorKind::UnknownOutcome);
        let before = Failure::connect(&sqlx::Error::Io(io::ErrorKind::ConnectionRefused.into()));
        assert_eq!(before.into_error("x").kind(), ErrorKind::Unavailable);
        let full = Failure::connect(&sqlx::Error::PoolTimedOut);
        assert_eq!(full.into_error("x").kind(), ErrorKind::Unavailable);
        assert_eq!(Failure::unknown("x").into_error("x").kind(), ErrorKind::UnknownOutcome);
        assert_eq!(Failure::crowded().into_error("x").kind(), ErrorKind::Unavailable);
    }
}
