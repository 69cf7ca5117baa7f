//! Where the agent listens.
//!
//! Invariant: a socket is in a directory that this user alone can enter, so that nobody else reaches
//! it however short the moment before its own mode is set.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::{
        fs::{
            DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
            PermissionsExt as _,
        },
        net::UnixStream as Probe,
    },
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::net::UnixListener;

use crate::ambient::Ambient;

/// Where temporary files are when nothing says it.
const TEMPORARY: &str = "/tmp";

/// Where the agent is when nobody says it; none without a directory for it.
pub(super) fn usual(ambient: &Ambient) -> Option<PathBuf> {
    let directory = ambient.value("XDG_RUNTIME_DIR").map(Path::new)?;
    Some(directory.join("dayfly/agent.sock"))
}

/// A place in a directory that this program made, for one command.
pub(super) fn private(ambient: &Ambient) -> Result<(PathBuf, Directory), Error> {
    let mut random = [0; 8];
    SystemRandom::new().fill(&mut random).map_err(|_| Error::NoRandom)?;
    let parent = ambient.value("TMPDIR").map_or(Path::new(TEMPORARY), Path::new);
    let path = parent.join(format!("dayfly-{}", HEXLOWER.encode(&random)));
    let made = DirBuilder::new().mode(0o700).create(&path);
    made.map_err(|source| fault(&path, source))?;
    Ok((path.join("agent.sock"), Directory(path)))
}

/// A directory that goes with the agent.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // What can't be removed is an empty directory of this user's alone.
        let _ = fs::remove_dir(&self.0);
    }
}

/// A socket that is listened on, and goes with the agent.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    _file: Owned,
}

impl Socket {
    /// Listens at `path`. The directory is made if it is not there; what an agent left that was
    /// killed is taken over.
    pub(super) fn listen(path: &Path) -> Result<Self, Error> {
        let failed = |source| fault(path, source);
        check_directory(path)?;
        clear(path)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        let file = Owned(path.to_owned());
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, _file: file })
    }
}

/// Leaves `text` beside the socket, for this user alone, as long as the agent runs.
pub(super) fn leave(path: &Path, text: &str) -> Result<Owned, Error> {
    let failed = |source| fault(path, source);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(failed)?;
    let owned = Owned(path.to_owned());
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(owned)
}

/// A file that goes with the agent.
#[derive(Debug)]
pub(super) struct Owned(PathBuf);

impl Drop for Owned {
    fn drop(&mut self) {
        // The next agent takes over what is left.
        let _ = fs::remove_file(&self.0);
    }
}

fn check_directory(path: &Path) -> Result<(), Error> {
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(fault(path, io::ErrorKind::InvalidInput.into())),
    };
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(fault(directory, error));
        }
        _ => {}
    }
    // Not through a link, which somebody else may have laid.
    let metadata = fs::symlink_metadata(directory).map_err(|source| fault(directory, source))?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || !ours || metadata.mode() & 0o077 != 0 {
        return Err(Error::Shared { path: directory.display().to_string() });
    }
    Ok(())
}

/// Removes the socket of an agent that is no more; anything else stays.
fn clear(path: &Path) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(fault(path, source)),
    };
    if !metadata.file_type().is_socket() {
        return Err(fault(path, io::ErrorKind::AlreadyExists.into()));
    }
    match Probe::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| fault(path, source))
        }
        _ => Err(Error::Taken { path: path.display().to_string() }),
    }
}

fn fault(path: &Path, source: io::Error) -> Error {
    Error::File { path: path.display().to_string(), source }
}

/// Why the agent can't listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the agent cannot use `{path}`; name another socket by --listen or --systemd")]
    File {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("the agent cannot listen on a loopback port")]
    Loopback(#[source] io::Error),
    #[error("the system gives no random numbers")]
    NoRandom,
    #[error("the agent has no place for its socket: name one by --listen, or set XDG_RUNTIME_DIR")]
    Nowhere,
    #[error(
        "the agent's directory `{path}` must be a directory of this user's alone (mode 0700); name \
         another by --listen"
    )]
    Shared { path: String },
    #[error(
        "an agent listens on `{path}` already; use that one, or name another socket by --listen"
    )]
    Taken { path: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_this_users_alone_and_goes_with_the_agent() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("dayfly/agent.sock");
        let socket = Socket::listen(&path).unwrap();
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        assert!(matches!(Socket::listen(&path), Err(Error::Taken { .. })));
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_killed_agent_left_is_taken_over_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), Permissions::from_mode(0o700)).unwrap();
        let path = place.path().join("agent.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Socket::listen(&path).unwrap());
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::listen(&path), Err(Error::File { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_directory_that_others_can_enter_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        for mode in [0o755, 0o770, 0o701] {
            fs::set_permissions(place.path(), Permissions::from_mode(mode)).unwrap();
            let fault = Socket::listen(&place.path().join("agent.sock")).unwrap_err();
            assert!(matches!(fault, Error::Shared { .. }), "{mode:o}: {fault}");
        }
        let own = place.path().join("own");
        DirBuilder::new().mode(0o700).create(&own).unwrap();
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert!(matches!(Socket::listen(&link.join("agent.sock")), Err(Error::Shared { .. })));
    }

    #[test]
    fn what_is_left_beside_it_is_this_users_alone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("aws.env");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let left = leave(&path, "new").unwrap();
        assert_eq!((mode(&path), fs::read_to_string(&path).unwrap()), (0o600, "new".to_owned()));
        drop(left);
        assert!(!path.exists());
    }

    #[test]
    fn a_command_has_a_place_of_its_own() {
        let place = tempfile::tempdir().unwrap();
        let ambient = Ambient::from([("TMPDIR", place.path().to_str().unwrap())]);
        let (path, directory) = private(&ambient).unwrap();
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        drop(directory);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        assert_eq!(usual(&Ambient::default()), None);
    }
}
