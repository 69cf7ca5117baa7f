//! The private directory in which files and FIFOs are put.
//!
//! Invariant: it is this user's alone from its first moment, a file in it is whole or not there,
//! and it goes when its run goes: what a killed run leaves, the next one removes. A run holds a lock
//! on its directory, which the system takes away with the process, in whatever container it was.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::ambient::Ambient;

/// What names of directories begin with.
const PREFIX: &str = "dayfly-run-";
/// Where temporary files are when nothing says it.
const TEMPORARY: &str = "/tmp";
/// What says that all in a directory is ours that the user has named.
const MARK: &str = ".dayfly";
/// Somebody may put a file there while it is removed.
const REMOVE_MAX: usize = 3;
/// Somebody else may find a new directory before it is locked.
const MAKE_MAX: usize = 8;
/// A file's name while it is written; no file of the user's begins with a dot.
const DRAFT: &str = ".draft";
/// What is left is bounded by this; it is not worth a long look.
const SWEPT_MAX: usize = 1000;

/// A directory that is this run's.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Whether it goes, and not only what is in it.
    is_made: bool,
    _lock: Option<File>,
    /// Whether it is in memory and nowhere else.
    pub(super) in_memory: bool,
    removed: bool,
}

impl Directory {
    /// Makes one where secrets are kept in memory, or else where temporary files are.
    pub(super) fn make(ambient: &Ambient) -> Result<Self, Error> {
        let mut fallback = None;
        for base in bases(ambient) {
            sweep(&base);
            if !is_memory(&base) {
                fallback = fallback.or(Some(base));
                continue;
            }
            if let Ok(directory) = Self::make_in(&base, true) {
                return Ok(directory);
            }
        }
        let base = fallback.unwrap_or_else(|| TEMPORARY.into());
        Self::make_in(&base, false).map_err(|source| Error::make(&base, source))
    }

    /// Where [`Self::make`] would make one, and whether that is in memory alone. Nothing is made.
    pub(super) fn foreseen(ambient: &Ambient) -> (PathBuf, bool) {
        let bases = bases(ambient);
        if let Some(base) = bases.iter().find(|base| is_memory(base) && is_writable(base)) {
            return (base.clone(), true);
        }
        let other = bases.into_iter().find(|base| !is_memory(base));
        (other.unwrap_or_else(|| TEMPORARY.into()), false)
    }

    fn make_in(base: &Path, in_memory: bool) -> io::Result<Self> {
        for _ in 0..MAKE_MAX {
            let mut random = [0; 8];
            let unlucky = |_| io::Error::other("the system gives no random numbers");
            SystemRandom::new().fill(&mut random).map_err(unlucky)?;
            let path = base.join(format!("{PREFIX}{}", HEXLOWER.encode(&random)));
            DirBuilder::new().mode(0o700).create(&path)?;
            match lock(&path).inspect_err(|_| drop(fs::remove_dir(&path)))? {
                Locked::Ours(lock) => {
                    return Ok(Self {
                        path,
                        is_made: true,
                        _lock: lock,
                        in_memory,
                        removed: false,
                    });
                }
                // Who looks for what is left has found it, and removes it.
                Locked::Taken | Locked::Gone => {}
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Takes the directory that the user has named: it is made, or it must be ours and empty, but
    /// for what a run left that was killed.
    pub(super) fn named(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::make(path, source);
        let is_made = match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            made => made.map(|()| true).map_err(failed)?,
        };
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        let shown = || path.display().to_string();
        if !metadata.is_dir() || !is_private(&metadata) {
            return Err(Error::Shared { path: shown() });
        }
        let path = path.canonicalize().map_err(failed)?;
        let lock = match lock(&path).map_err(failed)? {
            Locked::Ours(lock) => lock,
            Locked::Taken => return Err(Error::InUse { path: shown() }),
            Locked::Gone => return Err(failed(io::ErrorKind::NotFound.into())),
        };
        let names: Vec<_> = entries(&path).map_err(failed)?;
        let is_left = lock.is_some() && names.iter().any(|name| name == MARK);
        if !names.is_empty() && !is_left {
            return Err(Error::Used { path: shown() });
        }
        empty(&path).map_err(failed)?;
        create(&path.join(MARK)).map_err(failed)?;
        let in_memory = is_memory(&path);
        Ok(Self { path, is_made, _lock: lock, in_memory, removed: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file, or replaces it at one stroke.
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let draft = self.path.join(DRAFT);
        unlink(&draft)?;
        let mut file = create(&draft)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let renamed = written.and_then(|()| fs::rename(&draft, self.path.join(name)));
        if renamed.is_err() {
            let _ = fs::remove_file(&draft);
        }
        renamed
    }

    /// Removes it with all that is in it, also what the command has put there.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.removed = true;
        let mut attempts = 1..REMOVE_MAX;
        loop {
            let removed = empty(&self.path)
                .and_then(|()| if self.is_made { fs::remove_dir(&self.path) } else { Ok(()) });
            match removed {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error)
                    if error.kind() == io::ErrorKind::DirectoryNotEmpty
                        && attempts.next().is_some() => {}
                removed => return removed,
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.removed {
            // Whoever ended the run early has a worse failure to tell.
            let _ = self.remove();
        }
    }
}

/// Where to look for memory, in this order. What is not absolute or not there is none.
fn bases(ambient: &Ambient) -> Vec<PathBuf> {
    let named = |name| ambient.value(name).map(PathBuf::from);
    let bases = [
        named("XDG_RUNTIME_DIR"),
        Some(PathBuf::from("/dev/shm")),
        named("RUNNER_TEMP"),
        named("TMPDIR").or_else(|| Some(TEMPORARY.into())),
    ];
    bases.into_iter().flatten().filter(|base| base.is_absolute() && base.is_dir()).collect()
}

fn is_writable(base: &Path) -> bool {
    rustix::fs::access(base, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

/// Removes what runs of this user have left here that are no more. What can't be removed is not
/// worth stopping for.
fn sweep(base: &Path) {
    let Ok(names) = entries(base) else { return };
    for name in names.iter().filter(|name| name.as_bytes().starts_with(PREFIX.as_bytes())) {
        let path = base.join(name);
        let is_ours = fs::symlink_metadata(&path).is_ok_and(|it| it.is_dir() && is_private(&it));
        if is_ours && let Ok(Locked::Ours(Some(_lock))) = lock(&path) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Whose a directory is.
enum Locked {
    /// No other run's; nothing holds it where the file system has no locks.
    Ours(Option<File>),
    Taken,
    /// Nobody's any more: it was removed.
    Gone,
}

/// Locks the directory `path` for as long as we live.
fn lock(path: &Path) -> io::Result<Locked> {
    let directory = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Locked::Gone),
        opened => opened?,
    };
    match directory.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Locked::Taken),
        Err(TryLockError::Error(_)) => return Ok(Locked::Ours(None)),
    }
    // Who had it locked before us may have removed it.
    let is_there = fs::symlink_metadata(path).is_ok_and(|found| {
        directory
            .metadata()
            .is_ok_and(|ours| (ours.dev(), ours.ino()) == (found.dev(), found.ino()))
    });
    Ok(if is_there { Locked::Ours(Some(directory)) } else { Locked::Gone })
}

/// Removes all in a directory; the mark last, so that what is left of it stays ours.
fn empty(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let at = entry.path();
        if entry.file_name() == MARK {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(at)?;
        } else {
            unlink(&at)?;
        }
    }
    unlink(&path.join(MARK))
}

fn entries(path: &Path) -> io::Result<Vec<OsString>> {
    let entries = fs::read_dir(path)?.take(SWEPT_MAX);
    entries.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

fn is_private(metadata: &fs::Metadata) -> bool {
    let of_others = metadata.mode() & 0o077;
    metadata.uid() == rustix::process::geteuid().as_raw() && of_others == 0
}

/// Makes a FIFO, or puts a new one in the place of the last: who has that open keeps it.
pub(super) fn fifo(path: &Path) -> io::Result<()> {
    // Each is made by a thread of its own.
    let mut draft = OsString::from(DRAFT);
    draft.extend([OsStr::new("-"), path.file_name().unwrap_or_default()]);
    let draft = path.with_file_name(draft);
    unlink(&draft)?;
    make_fifo(&draft)?;
    fs::rename(&draft, path)
}

/// Removes a file, if it is there.
pub(super) fn unlink(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(not(target_vendor = "apple"))]
fn make_fifo(path: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, Mode, mkfifoat};
    Ok(mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR)?)
}

#[cfg(target_vendor = "apple")]
fn make_fifo(path: &Path) -> io::Result<()> {
    let made =
        std::process::Command::new("/usr/bin/mkfifo").args(["-m", "600"]).arg(path).status()?;
    if made.success() { Ok(()) } else { Err(io::Error::other("mkfifo failed")) }
}

/// Whether what is written at `path` never reaches a disk, but for swap.
#[cfg(target_os = "linux")]
fn is_memory(path: &Path) -> bool {
    // TMPFS_MAGIC; RAMFS_MAGIC, compared by its lower half, since its type has a sign.
    rustix::fs::statfs(path)
        .is_ok_and(|found| found.f_type == 0x0102_1994 || found.f_type & 0xffff == 0x58f6)
}

#[cfg(not(target_os = "linux"))]
fn is_memory(_: &Path) -> bool {
    false
}

/// Why there is no directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot make a directory for files at `{path}`; name another place by --file-dir")]
    Make {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("the directory `{path}` is another run's; name one of its own by --file-dir")]
    InUse { path: String },
    #[error("the directory `{path}` is not this user's alone (0700); name another by --file-dir")]
    Shared { path: String },
    #[error("the directory `{path}` is not empty; name one that is, or one that is not there yet")]
    Used { path: String },
}

impl Error {
    fn make(path: &Path, source: io::Error) -> Self {
        Self::Make { path: path.display().to_string(), source }
    }
}

#[cfg(test)]
mod tests;
