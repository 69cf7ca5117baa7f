//! The project's file: which one it is, and whether we may read it.
//!
//! Invariant: a file that another user could have put in our way is not read unless its name was
//! given; the search never leaves the repository, the file system or the home directory.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

use super::{Error, Here};

/// What it is called.
pub(crate) const NAME: &str = ".dayfly.toml";
/// How a user says that there is none.
const NONE: &str = "/dev/null";
/// No configuration is as long as this.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// What the search found.
#[derive(Debug)]
pub(super) enum Found {
    File {
        path: PathBuf,
        text: String,
    },
    /// It, or the directory that it is in, is neither ours nor root's.
    Foreign {
        path: PathBuf,
    },
    Nothing,
}

/// Looks in the working directory and upward: to the repository's root, or where there is none to
/// the home directory or the file system's end.
pub(super) fn find(here: &Here, home: Option<&Path>) -> Result<Found, Error> {
    let Some(directory) = &here.directory else { return Ok(Found::Nothing) };
    let home = home.and_then(|home| fs::metadata(home).ok()).map(|home| place(&home));
    let mut device = None;
    for directory in directory.ancestors() {
        // Where we can't look, nothing of ours is.
        let Ok(metadata) = fs::metadata(directory) else { break };
        if *device.get_or_insert(metadata.dev()) != metadata.dev() {
            break;
        }
        let path = directory.join(NAME);
        if fs::symlink_metadata(&path).is_ok() {
            return open(path, metadata.uid(), here);
        }
        let is_repository = fs::symlink_metadata(directory.join(".git")).is_ok();
        if is_repository || home == Some(place(&metadata)) {
            break;
        }
    }
    Ok(Found::Nothing)
}

/// What tells one directory from all others, whatever it is called.
fn place(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn open(path: PathBuf, owner_of_directory: u32, here: &Here) -> Result<Found, Error> {
    // A link would have us read, and repeat in messages, what the checkout's author can't read.
    // A pipe would have us wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path.as_path(), flags, Mode::empty()) {
        Ok(file) => fs::File::from(file),
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::MLINK) => {
            return Err(Error::unfit(
                &path,
                "it is a symbolic link; name the file itself by DAYFLY_PROJECT_FILE",
            ));
        }
        Err(error) => return Err(Error::unreadable(&path)(error.into())),
    };
    let metadata = file.metadata().map_err(Error::unreadable(&path))?;
    if !here.trusts(owner_of_directory) || !here.trusts(metadata.uid()) {
        return Ok(Found::Foreign { path });
    }
    if !metadata.is_file() {
        return Err(Error::unfit(&path, "it is not a regular file"));
    }
    let text = read(file, &path)?;
    Ok(Found::File { path, text })
}

/// The file that `DAYFLY_PROJECT_FILE` names, whoever owns it.
pub(super) fn named(path: &Path) -> Result<Found, Error> {
    if path == Path::new(NONE) {
        return Ok(Found::Nothing);
    }
    let is_file = fs::metadata(path).map_err(Error::unreadable(path))?.is_file();
    if !is_file {
        return Err(Error::unfit(path, "it is not a regular file"));
    }
    let file = fs::File::open(path).map_err(Error::unreadable(path))?;
    Ok(Found::File { path: path.to_owned(), text: read(file, path)? })
}

/// The text of the user's or the system's own file, if it is there. One that somebody else wrote
/// could allow any broker.
pub(super) fn own(path: &Path, here: &Here) -> Result<Option<String>, Error> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if is_absence(&error) => return Ok(None),
        Err(error) => return Err(Error::unreadable(path)(error)),
    };
    // By its name first: to open a pipe waits for its other end.
    if !metadata.is_file() {
        return Err(Error::unfit(path, "it is not a regular file"));
    }
    let file = fs::File::open(path).map_err(Error::unreadable(path))?;
    let metadata = file.metadata().map_err(Error::unreadable(path))?;
    if !here.trusts(metadata.uid()) {
        return Err(Error::unfit(path, "it belongs to another user"));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(Error::unfit(path, "everybody can write it"));
    }
    read(file, path).map(Some)
}

/// A home that is another user's, as in some containers, is as good as none.
fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotADirectory | io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
    )
}

fn read(file: fs::File, path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(Error::unreadable(path))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::unfit(path, "it is too long for a configuration"));
    }
    Ok(text)
}
