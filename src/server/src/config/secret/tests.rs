use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
};

use tempfile::TempDir;

use super::*;

struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

fn refusal(path: &Path) -> String {
    from_file(path).map(|_| "accepted").unwrap_err().message
}

#[test]
fn a_file_that_is_replaced_is_read_again() {
    let home = Home::new();
    let path = home.file("token", b"first\n", 0o600);
    let source = SecretSource::File(path.clone());
    assert_eq!(source.read().unwrap().expose(), "first");
    fs::rename(home.file("next", b"second\n", 0o600), &path).unwrap();
    assert_eq!(source.read().unwrap().expose(), "second");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = source.read().unwrap_err();
    assert!(error.ends_with("is open to other users; chmod it to 0600"), "{error}");
    let fixed = SecretSource::Environment(Secret::new("third"));
    assert_eq!(fixed.read().unwrap().expose(), "third");
    assert!(!format!("{source:?} {fixed:?}").contains("third"));
}

#[test]
fn a_file_is_exact_but_for_one_newline() {
    let home = Home::new();
    for (bytes, secret) in [
        ("hunter2", "hunter2"),
        ("hunter2\n", "hunter2"),
        ("hunter2\n\n", "hunter2\n"),
        ("hunter2\r\n", "hunter2\r"),
        (" hunter2 ", " hunter2 "),
        ("\u{feff}hunter2", "\u{feff}hunter2"),
    ] {
        let path = home.file("secret", bytes.as_bytes(), 0o600);
        assert_eq!(from_file(&path).unwrap().expose(), secret);
    }
}

#[test]
fn a_file_that_others_can_read_or_write_is_refused() {
    let home = Home::new();
    for mode in [0o604, 0o640, 0o644, 0o660, 0o602, 0o620, 0o601, 0o610, 0o666, 0o460, 0o444] {
        let path = home.file("secret", b"hunter2", mode);
        assert!(refusal(&path).contains("open to other users"), "{mode:o}");
        fs::remove_file(path).unwrap();
    }
    for mode in [0o600, 0o400, 0o700] {
        let path = home.file("secret", b"hunter2", mode);
        assert!(from_file(&path).is_ok(), "{mode:o}");
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_file_of_another_user_is_refused() {
    let home = Home::new();
    let metadata = home.file("secret", b"hunter2", 0o600).metadata().unwrap();
    let owner = metadata.uid();
    assert_eq!(own_user(), Some(owner));
    assert_eq!(private(&metadata, owner), Ok(()));
    // The same file, seen by another user: only root's is accepted.
    assert_eq!(private(&metadata, owner + 1).is_ok(), owner == 0);
    if owner == 0 {
        std::os::unix::fs::chown(home.path("secret"), Some(12_345), None).unwrap();
        assert!(refusal(&home.path("secret")).contains("belongs to another user"));
    }
}

#[test]
fn read_by_one_group_is_accepted_of_root_alone() {
    let home = Home::new();
    let path = home.file("secret", b"hunter2", 0o440);
    let root = path.metadata().unwrap().uid() == 0;
    assert_eq!(from_file(&path).is_ok(), root);
}

#[test]
fn a_link_stays_in_its_directory() {
    let home = Home::new();
    fs::create_dir(home.path("mount")).unwrap();
    fs::create_dir(home.path("mount/..2026")).unwrap();
    home.file("mount/..2026/secret", b"hunter2", 0o600);
    symlink("..2026", home.path("mount/..data")).unwrap();
    symlink("..data/secret", home.path("mount/secret")).unwrap();
    assert_eq!(from_file(&home.path("mount/secret")).unwrap().expose(), "hunter2");

    home.file("outside", b"hunter2", 0o600);
    symlink("../outside", home.path("mount/link")).unwrap();
    assert!(refusal(&home.path("mount/link")).contains("leads out"));
    symlink("nowhere", home.path("mount/broken")).unwrap();
    assert!(refusal(&home.path("mount/broken")).contains("is not there"));
}

#[test]
fn what_is_no_secret_file_is_refused() {
    let home = Home::new();
    assert!(refusal(&home.path("none")).contains("is not there"));
    assert!(refusal(&home.path("")).contains("not a regular file"));
    assert!(refusal(Path::new("/dev/zero")).contains("not a regular file"));
    for (bytes, why) in [
        (&b""[..], "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfe", "is not UTF-8"),
        (&vec![b'x'; 64 * 1024 + 1], "larger than 64 KiB"),
    ] {
        let path = home.file("secret", bytes, 0o600);
        assert!(refusal(&path).contains(why), "{why}");
    }
    let path = home.file("secret", &vec![b'x'; 64 * 1024], 0o600);
    assert!(from_file(&path).is_ok());
}
