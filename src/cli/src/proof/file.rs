//! A key that several runs prove: one job, one identity token, one key.
//!
//! Invariant: whoever reads the file has the key, so one that others can read is not used. What is
//! there is never written over, and nobody sees half of it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use data_encoding::{BASE64, HEXLOWER};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use zeroize::Zeroizing;

use super::{Key, NoKey};
use crate::private;

/// Longer than any key that we make.
const FILE_BYTES_MAX: u64 = 4 * 1024;
/// Characters of a line of PEM (RFC 7468 §2).
const LINE_CHARS: usize = 64;

/// The key in the file at `path`. If there is none, a new key is left there first, for this user
/// alone.
pub(crate) fn keep(path: &Path) -> Result<Key, Error> {
    match read(path) {
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            make(path)?;
            read(path)
        }
        found => found,
    }
}

/// The key in the file at `path`.
pub(crate) fn read(path: &Path) -> Result<Key, Error> {
    let shown = || path.display().to_string();
    let pem = private::read(path, FILE_BYTES_MAX).map_err(|fault| match fault {
        private::Fault::File(source) => Error::File { path: shown(), source },
        private::Fault::Shared => Error::Shared { path: shown() },
    })?;
    let malformed = || Error::Malformed { path: shown() };
    let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| malformed())?;
    Key::read(pkcs8.secret_pkcs8_der()).map_err(|NoKey| malformed())
}

/// Leaves a new key at `path`, unless somebody else has just done so: then it is theirs that
/// counts.
fn make(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.display().to_string(), source };
    let draft = draft(path)?;
    let text = pem(Key::fresh()?.as_ref());
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        // Unlike a rename it replaces nothing.
        fs::hard_link(&draft, path)
    });
    // Where it cannot be removed, another file of this user's alone is left.
    let _ = fs::remove_file(&draft);
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        written => written.map_err(failed),
    }
}

/// Where the key is written before it gets its name: beside that, under a name that nobody has.
fn draft(path: &Path) -> Result<PathBuf, Error> {
    let mut random = [0; 8];
    SystemRandom::new().fill(&mut random).map_err(|_| NoKey)?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}", HEXLOWER.encode(&random)));
    Ok(path.with_file_name(name))
}

fn pem(pkcs8: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(BASE64.encode(pkcs8));
    let mut text = Zeroizing::new(String::with_capacity(body.len() * 2));
    text.push_str("-----BEGIN PRIVATE KEY-----\n");
    for line in body.as_bytes().chunks(LINE_CHARS) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    text
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot use the key file `{path}`")]
    File {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("the key file `{path}` holds no ECDSA key on P-256 (PKCS#8 in PEM); name another")]
    Malformed { path: String },
    #[error(transparent)]
    NoKey(#[from] NoKey),
    #[error("the key file `{path}` is not this user's alone; remove it, so that another is made")]
    Shared { path: String },
}

#[cfg(test)]
mod tests {
    use std::{
        fs::Permissions,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    };

    use super::*;

    #[test]
    fn a_key_that_is_kept_is_the_same_each_time_and_this_users_alone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key");
        assert!(matches!(read(&path), Err(Error::File { .. })), "reading makes none");
        let made = keep(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "no draft is left");
        let text = fs::read(&path).unwrap();
        assert_eq!(keep(&path).unwrap().jwk, made.jwk);
        assert_eq!(read(&path).unwrap().jwk, made.jwk);
        assert_eq!(fs::read(&path).unwrap(), text, "it is never written over");
        assert!(text.split(|byte| *byte == b'\n').all(|line| line.len() <= LINE_CHARS));
    }

    #[test]
    fn of_runs_that_begin_at_once_all_have_one_key() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key");
        let keys = std::thread::scope(|scope| {
            let runs = [(); 8].map(|()| scope.spawn(|| keep(&path).unwrap()));
            runs.map(|run| run.join().unwrap().jwk)
        });
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key");
        keep(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o666] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(keep(&path), Err(Error::Shared { .. })), "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        keep(&path).unwrap();
    }

    #[test]
    fn what_holds_no_key_is_refused_and_left_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key");
        for text in ["", "secret", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
        {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let error = keep(&path).unwrap_err();
            assert!(matches!(error, Error::Malformed { .. }), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert!(matches!(keep(place.path()), Err(Error::File { .. })), "a directory");
        assert!(matches!(keep(&path.join("x")), Err(Error::File { .. })), "below a file");
    }
}
