//! The program: what was pinned is what runs.
//!
//! Invariant: what is started is a sealed copy of the bytes whose digest was compared, not
//! whatever stands at the path a moment later.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::error::Failure;

/// The largest program.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A program in memory that nobody can change any more.
#[derive(Debug)]
pub(crate) struct Pinned {
    file: File,
}

impl Pinned {
    /// Reads the program at `path` and compares it with its digest. Blocking.
    pub(crate) fn read(path: &Path, sha256: &str) -> Result<Self, Failure> {
        let mut bytes = Vec::new();
        let file = open(path).map_err(Failure::NotStarted)?;
        file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(Failure::NotStarted)?;
        let found = HEXLOWER.encode(digest(&SHA256, &bytes).as_ref());
        if found != sha256 {
            return Err(Failure::Changed { path: path.to_owned(), found });
        }
        sealed(&bytes).map(|file| Self { file }).map_err(Failure::NotStarted)
    }

    /// Where a new process finds it. A script's interpreter opens it once more, so that it is
    /// not closed when the process begins.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

/// A file and nothing else: a pipe would have us wait.
fn open(path: &Path) -> std::io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    File::open(path)
}

fn sealed(bytes: &[u8]) -> std::io::Result<File> {
    let create = |flags| rustix::fs::memfd_create("dayfly-plugin", flags);
    let flags = MemfdFlags::ALLOW_SEALING;
    // Linux before 6.3 does not know EXEC; after it, `vm.memfd_noexec` may ask for it.
    let descriptor = create(flags | MemfdFlags::EXEC).or_else(|_| create(flags))?;
    let mut file = File::from(descriptor);
    file.write_all(bytes)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}
