//! The private directory in which files and FIFOs are put.
//!
//! Invariant: it is this user's alone from its first moment, a file in it is whole or not there,
//! and it goes when its run goes: what a killed run leaves, the next one removes.

mod owner;

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::{ambient::Ambient, exec::deliver::directory::owner::Owner};

/// What names of directories begin with.
const PREFIX: &str = "dayfly-";
/// Where temporary files are when nothing says it.
const TEMPORARY: &str = "/tmp";
/// What says whose a directory is that the user has named.
const MARK: &str = ".dayfly-";
/// A file's name while it is written; no file of the user's begins with a dot.
const DRAFT: &str = ".draft";
/// What is left is bounded by this; it is not worth a long look.
const SWEPT_MAX: usize = 1000;

/// A directory that this run has made.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Whether it is in memory and nowhere else.
    pub(super) in_memory: bool,
    removed: bool,
}

impl Directory {
    /// Makes one where secrets are kept in memory, or else where temporary files are.
    pub(super) fn make(ambient: &Ambient) -> Result<Self, Error> {
        let owner = Owner::ourselves();
        let mut fallback = None;
        for base in bases(ambient) {
            sweep(&base, owner.as_ref());
            if !is_memory(&base) {
                fallback = fallback.or(Some(base));
                continue;
            }
            if let Ok(directory) = Self::make_in(&base, owner.as_ref(), true) {
                return Ok(directory);
            }
        }
        let base = fallback.unwrap_or_else(|| TEMPORARY.into());
        Self::make_in(&base, owner.as_ref(), false).map_err(|source| Error::make(&base, source))
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

    fn make_in(base: &Path, owner: Option<&Owner>, in_memory: bool) -> io::Result<Self> {
        let mut random = [0; 8];
        let unlucky = |_| io::Error::other("the system gives no random numbers");
        SystemRandom::new().fill(&mut random).map_err(unlucky)?;
        let owner = owner.map(|owner| format!("{owner}-")).unwrap_or_default();
        let path = base.join(format!("{PREFIX}{owner}{}", HEXLOWER.encode(&random)));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path, in_memory, removed: false })
    }

    /// Takes the directory that the user has named: it is made, or it must be ours and empty, but
    /// for what a run left that was killed.
    pub(super) fn named(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::make(path, source);
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(failed)?,
        }
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        let shown = || path.display().to_string();
        if !metadata.is_dir() || !is_private(&metadata) {
            return Err(Error::Shared { path: shown() });
        }
        let names: Vec<_> = entries(path).map_err(failed)?;
        let marks = names.iter().filter_map(|name| name.to_str()?.strip_prefix(MARK));
        let owners: Vec<Owner> = marks.filter_map(|mark| mark.parse().ok()).collect();
        let is_left = !owners.is_empty() && owners.iter().all(Owner::is_dead);
        if !names.is_empty() && !is_left {
            return Err(Error::Used { path: shown() });
        }
        for name in names {
            fs::remove_file(path.join(name)).map_err(failed)?;
        }
        let path = path.canonicalize().map_err(failed)?;
        let directory = Self { in_memory: is_memory(&path), path, removed: false };
        if let Some(owner) = Owner::ourselves() {
            let mark = directory.path.join(format!("{MARK}{owner}"));
            create(&mark).map_err(|source| Error::make(&directory.path, source))?;
        }
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file, or replaces it at one stroke.
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let draft = self.path.join(DRAFT);
        remove_if_there(&draft)?;
        let mut file = create(&draft)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let renamed = written.and_then(|()| fs::rename(&draft, self.path.join(name)));
        if renamed.is_err() {
            let _ = fs::remove_file(&draft);
        }
        renamed
    }

    /// Makes a FIFO, or puts a new one in the place of the last: who has that open keeps it.
    pub(super) fn fifo(&self, name: &str) -> io::Result<()> {
        let draft = self.path.join(DRAFT);
        remove_if_there(&draft)?;
        make_fifo(&draft)?;
        fs::rename(&draft, self.path.join(name))
    }

    pub(super) fn unlink(&self, name: &str) -> io::Result<()> {
        remove_if_there(&self.path.join(name))
    }

    /// Removes it with all that is in it, also what the command has put there.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.removed = true;
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
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
fn sweep(base: &Path, ourselves: Option<&Owner>) {
    // Without a process table nobody can be known to be dead.
    if ourselves.is_none() {
        return;
    }
    let Ok(names) = entries(base) else { return };
    for name in names {
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|name| {
            let (owner, _) = name.rsplit_once('-')?;
            owner.parse::<Owner>().ok()
        });
        let path = base.join(&name);
        let is_ours = || fs::symlink_metadata(&path).is_ok_and(|it| it.is_dir() && is_private(&it));
        if owner.is_some_and(|owner| owner.is_dead()) && is_ours() {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn entries(path: &Path) -> io::Result<Vec<OsString>> {
    let entries = fs::read_dir(path)?.take(SWEPT_MAX);
    entries.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

fn is_private(metadata: &fs::Metadata) -> bool {
    let of_others = metadata.mode() & 0o077;
    metadata.uid() == rustix::process::geteuid().as_raw() && of_others == 0
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
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
