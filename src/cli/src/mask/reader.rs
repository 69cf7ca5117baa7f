//! Who reads what we write to a stream.
//!
//! Invariant: what cannot be seen is nobody: a secret is told only to a program that is known to
//! read it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::{
        fd::BorrowedFd,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
};

/// More processes above us than any job has.
const ANCESTORS_MAX: usize = 64;
/// What `flags` in `/proc/PID/fdinfo` has for a descriptor that is only written to (`O_WRONLY`).
const WRITE_ONLY: u32 = 1;
/// The part of them that says so (`O_ACCMODE`).
const ACCESS_MODE: u32 = 3;

/// Whether one of the processes above us that is called `name` holds the reading end of `stream`.
///
/// A step of GitHub's writes to pipes that its runner reads. One of a pipeline in the step, or of
/// a program that keeps the output of what it starts, does not: whoever reads there is no runner.
/// Where there is no `/proc`, or the runner is outside of our container, nobody is found.
pub(super) fn is(name: &str, stream: BorrowedFd<'_>) -> bool {
    let Some(ours) = pipe(stream) else { return false };
    ancestors().any(|process| {
        fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|comm| comm.trim() == name)
            && reads(process, ours)
    })
}

/// Which pipe it is, if it is one.
fn pipe(stream: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let found = File::from(stream.try_clone_to_owned().ok()?).metadata().ok()?;
    found.file_type().is_fifo().then(|| (found.dev(), found.ino()))
}

/// The processes above us, the nearest first.
fn ancestors() -> impl Iterator<Item = i32> {
    let first = parent_of("self");
    std::iter::successors(first, |process| parent_of(&process.to_string())).take(ANCESTORS_MAX)
}

fn parent_of(process: &str) -> Option<i32> {
    parent_in(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// The fourth value. The second is the program's name in parentheses, which may hold any of them.
fn parent_in(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok().filter(|parent| *parent > 0)
}

/// Whether `process` has the file open, and not for writing alone.
fn reads(process: i32, file: (u64, u64)) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    open.filter_map(Result::ok).any(|entry| {
        let is_it = fs::metadata(entry.path()).is_ok_and(|it| (it.dev(), it.ino()) == file);
        is_it && is_read(&Path::new("/proc").join(process.to_string()), &entry.file_name())
    })
}

fn is_read(process: &Path, number: &OsStr) -> bool {
    let info = fs::read_to_string(process.join("fdinfo").join(number)).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & ACCESS_MODE != WRITE_ONLY)
}

#[cfg(test)]
mod tests {
    use std::{io, os::fd::AsFd as _};

    use super::*;

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent_in("17 (a) b (c) S 4 17 17 0"), Some(4));
        assert_eq!(parent_in("1 (init) S 0 1 1 0"), None);
        assert_eq!(parent_in("17 (a"), None);
    }

    #[test]
    fn the_end_that_is_written_to_reads_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        let file = pipe(writer.as_fd()).unwrap();
        let ourselves = rustix::process::getpid().as_raw_nonzero().get();
        assert!(reads(ourselves, file));
        drop(reader);
        assert!(!reads(ourselves, file));
        assert!(!is("Runner.Worker", writer.as_fd()));
        assert_eq!(pipe(File::open("/dev/null").unwrap().as_fd()), None);
    }
}
