//! What the server and the way to it answer, in the engine's words.
//!
//! Invariant: no text of a statement gets into an error. The server's own message is kept only
//! for numbers whose messages name accounts and objects and never quote the statement.

use dayfly_backend_sdk::{Error, ErrorKind, Retry};
use sqlx::mysql::MySqlDatabaseError;

use crate::quote::QuoteError;

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
    /// The mint's deadline has passed at the server.
    #[error("the mint's deadline has passed at the server")]
    Late,
    /// Another mint of the same name is under way.
    #[error("another mint of this name is under way")]
    Minting,
    /// We could not even write the message.
    #[error("{0}")]
    Ours(String),
    /// The server answered with an error. What stood before it in the message has happened.
    #[error("the server refused")]
    Server {
        number: u16,
        #[source]
        cause: Cause,
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
        // Access denied; the account is locked (MySQL, MariaDB); no such database for it.
        let refused = number_of(error)
            .is_some_and(|number| matches!(number, 1044 | 1045 | 1698 | 3118 | 4151));
        Self::Connect { refused, cause: cause_of(error) }
    }

    /// A failure after the message was sent.
    pub(crate) fn sent(error: &sqlx::Error) -> Self {
        let cause = cause_of(error);
        match number_of(error) {
            // Shutdown, connection killed (two of MariaDB's), query interrupted: it may have
            // been done.
            // An idle connection that MySQL has ended (4031) was told nothing.
            Some(1053 | 1079 | 1317 | 1927 | 4031) | None => Self::Unknown { cause },
            Some(number) => Self::Server { number, cause },
        }
    }

    /// No answer within the time that we wait.
    pub(crate) fn silent() -> Self {
        Self::Unknown { cause: Cause("the answer did not come in time".to_owned()) }
    }

    /// No connection within the time that we wait.
    pub(crate) fn no_connection_in_time() -> Self {
        let cause = Cause("the connection was not there in time".to_owned());
        Self::Connect { refused: false, cause }
    }

    /// Whether the server refused one of the statements, so that the others may be tried in
    /// parts.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Server { .. })
    }

    /// Whether there was no such connection to kill.
    pub(crate) fn is_no_such_thread(&self) -> bool {
        matches!(self, Self::Server { number: 1094, .. })
    }

    /// Whether the login itself was refused.
    pub(crate) fn is_login_refused(&self) -> bool {
        matches!(self, Self::Connect { refused: true, .. })
    }

    /// In the engine's words; `doing` says what failed.
    pub(crate) fn into_error(self, doing: &'static str) -> Error {
        let (kind, retry) = self.class();
        Error::new(kind, doing).with_retry(retry).with_source(self)
    }

    fn class(&self) -> (ErrorKind, Retry) {
        use ErrorKind::{Conflict, Denied, Dependent, Invalid, Unavailable};
        let number = match self {
            Self::Connect { refused: true, .. } => return (Denied, Retry::Permanent),
            Self::Connect { .. } => return (Unavailable, Retry::Temporary),
            // It has answered: no sign that it is down.
            Self::Late => return (Invalid, Retry::Temporary),
            Self::Minting => return (Conflict, Retry::Permanent),
            Self::Ours(_) => return (Invalid, Retry::Permanent),
            // Also what a plugin that validates passwords says of a hash.
            Self::Server { number: 1290, cause } if !cause.0.contains("read") => {
                return (Denied, Retry::Permanent);
            }
            Self::Server { number, .. } => *number,
            Self::Survived(_) => return (Dependent, Retry::Temporary),
            Self::Unknown { .. } => return (ErrorKind::UnknownOutcome, Retry::Temporary),
        };
        match number {
            // CREATE USER of a name that is there.
            1396 => (Conflict, Retry::Permanent),
            // Access denied, in its several forms; not allowed to create users with GRANT; a
            // role that we may not hand on.
            1044 | 1045 | 1095 | 1142 | 1143 | 1227 | 1370 | 1410 | 3530 => {
                (Denied, Retry::Permanent)
            }
            // The account is the definer of objects (MySQL 8.0.22 and later).
            4006 => (Dependent, Retry::Permanent),
            // Too many connections, lock wait, deadlock, read only, out of memory, statement time.
            1020 | 1037 | 1038 | 1040 | 1041 | 1205 | 1213 | 1290 | 1836 | 1969 | 3024 => {
                (Unavailable, Retry::Temporary)
            }
            _ if is_unwritten(number) => (Unavailable, Retry::Temporary),
            _ => (Invalid, Retry::Permanent),
        }
    }
}

impl From<QuoteError> for Failure {
    fn from(error: QuoteError) -> Self {
        Self::Ours(error.to_string())
    }
}

/// What a full or broken disk is called, by whoever met it first: the file layer (3, 20, 1026),
/// the storage engine (1030, 1114), or MySQL's own account tables (3501).
fn is_unwritten(number: u16) -> bool {
    matches!(number, 3 | 20 | 1021 | 1026 | 1030 | 1114 | 3501)
}

fn number_of(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?;
    error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the driver may add variants at any time")]
fn cause_of(error: &sqlx::Error) -> Cause {
    Cause(match error {
        sqlx::Error::Database(database) => {
            let number = number_of(error).unwrap_or_default();
            if speaks_of_objects(number) {
                format!("error {number}: {}", database.message())
            } else {
                format!("error {number}")
            }
        }
        sqlx::Error::Io(error) => format!("input/output: {error}"),
        sqlx::Error::Tls(source) => format!("TLS: {source}"),
        sqlx::Error::PoolTimedOut => "no connection in time".to_owned(),
        sqlx::Error::PoolClosed => "the pool is closed".to_owned(),
        _ => "the driver failed".to_owned(),
    })
}

/// Numbers whose message names accounts and objects and quotes nothing of the statement, as a
/// syntax error (1064) or a bad value does.
fn speaks_of_objects(number: u16) -> bool {
    is_unwritten(number)
        || matches!(
            number,
            1040 | 1044
                | 1045
                | 1049
                | 1095
                | 1142
                | 1146
                | 1205
                | 1213
                | 1227
                | 1290
                | 1370
                | 1396
                | 1410
                | 1698
                | 1836
                | 1959
                | 3118
                | 3523
                | 3530
                | 4006
                | 4151
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(number: u16) -> (ErrorKind, Retry) {
        Failure::Server { number, cause: Cause(String::new()) }.class()
    }

    #[test]
    fn numbers_have_their_kinds() {
        assert_eq!(class(1396), (ErrorKind::Conflict, Retry::Permanent));
        assert_eq!(class(1227), (ErrorKind::Denied, Retry::Permanent));
        assert_eq!(class(4006), (ErrorKind::Dependent, Retry::Permanent));
        assert_eq!(class(1205), (ErrorKind::Unavailable, Retry::Temporary));
        for full in [3, 20, 1021, 1026, 1030, 1114, 3501] {
            assert_eq!(class(full), (ErrorKind::Unavailable, Retry::Temporary), "{full}");
            assert!(speaks_of_objects(full), "{full}: whoever mends it is told what is full");
        }
        assert_eq!(class(1064), (ErrorKind::Invalid, Retry::Permanent));
        assert_eq!(class(1959), (ErrorKind::Invalid, Retry::Permanent));
    }

    #[test]
    fn a_message_that_may_quote_is_not_kept() {
        assert!(!speaks_of_objects(1064) && !speaks_of_objects(1644) && !speaks_of_objects(1372));
    }
}
