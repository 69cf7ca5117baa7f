//! `[store]`: where leases, tasks and the audit log are kept.
//!
//! Invariant: exactly one store, and its password only by reference.

use std::{path::PathBuf, time::Duration};

use dayfly_backend_sdk::Secret;

use super::section::{Section, duration, integer, one_of};

/// `[store]`.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// `kind = "postgres"`: any number of replicas.
    Postgres {
        /// How to reach it, with the password.
        url: Secret,
        /// Connections of this replica at most.
        connections_max: u32,
    },
    /// `kind = "sqlite"`: one process, one file.
    Sqlite {
        /// The database file; made if it is not there.
        path: PathBuf,
    },
}

#[derive(Clone, Copy)]
enum Kind {
    Postgres,
    Sqlite,
}

/// As long as the backends' own backups are usually kept. A backend that is restored from one
/// brings credentials back that were ended since; the sweep ends them again with what their
/// rows know, so the rows must still be there.
const KEEP_ENDED: Duration = Duration::from_hours(35 * 24);
const KEEP_ENDED_MIN: Duration = Duration::from_hours(24);
const KEEP_ENDED_MAX: Duration = Duration::from_hours(3_650 * 24);

/// The store, and how long it keeps what has ended.
pub(super) fn read(section: &Section<'_>) -> Option<(StoreConfig, Duration)> {
    let range = duration(KEEP_ENDED_MIN..=KEEP_ENDED_MAX);
    let keep_ended = section.optional("keep_ended", range).unwrap_or(KEEP_ENDED);
    Some((read_store(section)?, keep_ended))
}

fn read_store(section: &Section<'_>) -> Option<StoreConfig> {
    let kinds = [("postgres", Kind::Postgres), ("sqlite", Kind::Sqlite)];
    let kind = section.required("kind", one_of(&kinds));
    let path = section.path("path");
    let url = section.secret("url");
    let connections_max = section.optional("connections_max", integer(2..=500));
    let (needed, foreign): (_, &[_]) = match kind? {
        Kind::Postgres => ("url", &["path"]),
        Kind::Sqlite => ("path", &["url", "connections_max"]),
    };
    for key in foreign.iter().filter(|key| section.table.item(key).is_some()) {
        section.fault(key, "this kind of store has no such key");
    }
    if section.table.item(needed).is_none() {
        section.missing(needed);
    }
    match kind? {
        Kind::Postgres => {
            let url = url?;
            if !url.expose().starts_with("postgres://")
                && !url.expose().starts_with("postgresql://")
            {
                section.fault("url", "the secret is not a postgres:// URL");
            }
            Some(StoreConfig::Postgres { url, connections_max: connections_max.unwrap_or(16) })
        }
        Kind::Sqlite => Some(StoreConfig::Sqlite { path: path? }),
    }
}
