//! Files of this user's alone.
//!
//! Invariant: what others could have read or written is not taken, and nobody sees half of what is
//! left.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// Why a file is not taken.
#[derive(Debug)]
pub(crate) enum Fault {
    File(io::Error),
    /// It belongs to somebody else, or others may read or write it.
    Shared,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

/// What is in the file at `path`, up to `bytes_max`.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, Fault> {
    // By its name first: to open a pipe waits for its other end.
    if !fs::metadata(path)?.is_file() {
        return Err(Fault::File(io::ErrorKind::InvalidInput.into()));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us || metadata.mode() & 0o077 != 0 {
        return Err(Fault::Shared);
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Puts `bytes` into the place of what is at `path`, if anything is.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = draft(path)?;
    let written = write_new(&draft, bytes).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // It is ours, and the failure is what matters.
        let _ = fs::remove_file(&draft);
    }
    written
}

/// A file of this process's alone in the same directory.
pub(crate) fn draft(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut draft = OsString::from(".");
    draft.push(name);
    draft.push(format!(".{}", std::process::id()));
    Ok(path.with_file_name(draft))
}

/// Leaves a file that was not there, whole and on the disk.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
