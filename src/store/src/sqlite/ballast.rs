//! Room that is kept for revocations when the disk is full.
//!
//! Invariant: while the disk is full nothing new is recorded, so that every byte that the
//! ballast gave back serves what must die. New leases are recorded again only when the ballast
//! is whole again.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use dayfly_lease::StoreError;

/// Some ten thousand deaths with their audit records.
const BYTES: usize = 16 * 1024 * 1024;
const CHUNK: usize = 64 * 1024;
/// How often it is tried whether there is room again.
const TRY_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Ballast {
    /// None for a database that is in memory.
    path: Option<PathBuf>,
    held: bool,
    tried_at: Option<Duration>,
}

impl Ballast {
    /// Beside the database at `database`. Without room for it the store opens all the same:
    /// there may be deaths to record.
    pub(super) fn beside(database: &Path) -> Self {
        let mut name = database.as_os_str().to_owned();
        name.push(".ballast");
        let mut ballast = Self { path: Some(name.into()), held: false, tried_at: None };
        ballast.held = ballast.load();
        ballast
    }

    /// Whether new things may be recorded; tries to become whole again where not.
    pub(super) fn is_held(&mut self, running: Duration) -> bool {
        let due = self.tried_at.is_none_or(|at| running.saturating_sub(at) >= TRY_EVERY);
        if !self.held && due {
            self.tried_at = Some(running);
            self.held = self.load();
            if self.held {
                tracing::warn!("store.disk.room_again");
            }
        }
        self.held
    }

    /// The disk is full: gives the room back. False if there was none to give.
    pub(super) fn drop_it(&mut self, running: Duration) -> bool {
        if !self.held {
            return false;
        }
        tracing::error!("store.disk.full");
        self.held = false;
        self.tried_at = Some(running);
        match self.path.as_ref().map(std::fs::remove_file) {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::error!(%error, "store.ballast.not_removed");
                false
            }
            None => false,
        }
    }

    /// Really written, since a file with a hole keeps no room.
    fn load(&self) -> bool {
        let Some(path) = &self.path else { return true };
        if std::fs::metadata(path).is_ok_and(|found| found.len() == BYTES as u64) {
            return true;
        }
        match fill(path) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "store.ballast.no_room");
                // What was written of it would be missing elsewhere.
                drop(std::fs::remove_file(path));
                false
            }
        }
    }
}

fn fill(path: &Path) -> std::io::Result<()> {
    let mut file: File =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // Not zeros: some file systems keep none of those.
    let chunk = vec![0xdf_u8; CHUNK];
    for _ in 0..BYTES / CHUNK {
        file.write_all(&chunk)?;
    }
    file.sync_all()
}

/// Whether `error` says that there is no room.
pub(super) fn is_full(error: &StoreError) -> bool {
    let StoreError::Unavailable(source) = error else { return false };
    let Some(error) = source.downcast_ref::<rusqlite::Error>() else { return false };
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_back_once_and_taken_again_when_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("dayfly.db");
        let file = directory.path().join("dayfly.db.ballast");
        let mut ballast = Ballast::beside(&database);
        assert!(ballast.is_held(Duration::ZERO));
        assert_eq!(file.metadata().unwrap().len(), BYTES as u64);
        assert!(ballast.drop_it(Duration::ZERO));
        assert!(!file.exists());
        assert!(!ballast.drop_it(Duration::ZERO), "there is no second one");
        assert!(!ballast.is_held(TRY_EVERY / 2));
        // Still no room: a directory stands where the file would.
        std::fs::create_dir(&file).unwrap();
        assert!(!ballast.is_held(TRY_EVERY));
        std::fs::remove_dir(&file).unwrap();
        assert!(!ballast.is_held(TRY_EVERY), "not tried again at once");
        assert!(ballast.is_held(TRY_EVERY * 2));
        assert_eq!(file.metadata().unwrap().len(), BYTES as u64);
    }
}
