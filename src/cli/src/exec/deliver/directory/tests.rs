use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

use super::*;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

fn names(path: &Path) -> Vec<OsString> {
    let mut names = entries(path).unwrap();
    names.sort_unstable();
    names
}

/// A directory in `base` as a run makes it that has been killed since.
fn left(base: &Path) -> PathBuf {
    let path = base.join(format!("{PREFIX}00ff"));
    DirBuilder::new().mode(0o700).create(&path).unwrap();
    fs::write(path.join("pgpass"), "secret").unwrap();
    path
}

#[test]
fn a_file_is_this_users_alone_and_replaced_at_one_stroke() {
    let base = tempfile::tempdir().unwrap();
    let mut directory = Directory::make_in(base.path(), false).unwrap();
    assert_eq!(mode(directory.path()), 0o700);
    directory.write("pgpass", "one").unwrap();
    let path = directory.path().join("pgpass");
    let first = fs::metadata(&path).unwrap().ino();
    let open = File::open(&path).unwrap();
    directory.write("pgpass", "two").unwrap();
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("two", 0o600));
    assert_ne!(fs::metadata(&path).unwrap().ino(), first, "a reader keeps what it has opened");
    assert_eq!(io::read_to_string(open).unwrap(), "one");
    assert_eq!(names(directory.path()), ["pgpass"]);
    directory.remove().unwrap();
    assert!(names(base.path()).is_empty());
    directory.remove().unwrap();
}

#[test]
fn it_goes_with_its_run() {
    let base = tempfile::tempdir().unwrap();
    let directory = Directory::make_in(base.path(), false).unwrap();
    let path = directory.path().join("key");
    fifo(&path).unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
    assert_eq!(mode(&path), 0o600);
    fifo(&path).unwrap();
    unlink(&path).unwrap();
    unlink(&path).unwrap();
    fs::create_dir_all(directory.path().join("of/the/command")).unwrap();
    drop(directory);
    assert!(names(base.path()).is_empty());
}

#[test]
fn what_a_killed_run_left_is_swept_and_nothing_else() {
    let base = tempfile::tempdir().unwrap();
    let dead = left(base.path());
    let alive = Directory::make_in(base.path(), false).unwrap();
    fs::create_dir(base.path().join("dayfly-notes")).unwrap();
    fs::write(base.path().join("dayfly-run-file"), "a file").unwrap();
    sweep(base.path());
    assert!(!dead.exists() && alive.path().exists());
    assert_eq!(names(base.path()).len(), 3);

    let shared = left(base.path());
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    sweep(base.path());
    assert!(shared.exists(), "no run of ours has made that");
}

#[test]
fn a_named_directory_is_made_or_was_empty_and_private() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("files");
    let directory = Directory::named(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
    assert!(matches!(Directory::named(&path), Err(Error::InUse { .. })));
    drop(directory);
    assert!(!path.exists());

    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(Directory::named(&path), Err(Error::Shared { .. })));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(path.join("pgpass"), "mine").unwrap();
    assert!(matches!(Directory::named(&path), Err(Error::Used { .. })));
    assert_eq!(fs::read_to_string(path.join("pgpass")).unwrap(), "mine");

    fs::remove_file(path.join("pgpass")).unwrap();
    // A volume of a container's, say, which can't be removed.
    drop(Directory::named(&path).unwrap());
    assert!(names(&path).is_empty(), "what was there before stays");
    fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink(base.path(), &path).unwrap();
    assert!(matches!(Directory::named(&path), Err(Error::Shared { .. })), "a link");
}

/// As when a container starts again with the same volume: nobody in it can know the process that
/// was there before.
#[test]
fn what_a_killed_run_left_in_a_named_directory_makes_room_for_the_next() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("files");
    DirBuilder::new().mode(0o700).create(&path).unwrap();
    fs::create_dir(path.join("of-the-command")).unwrap();
    fs::write(path.join("pgpass"), "secret").unwrap();
    assert!(matches!(Directory::named(&path), Err(Error::Used { .. })), "it is nobody's");
    fs::write(path.join(MARK), "").unwrap();
    let held = File::open(&path).unwrap();
    held.lock().unwrap();
    assert!(matches!(Directory::named(&path), Err(Error::InUse { .. })));
    assert!(path.join("pgpass").exists());
    drop(held);
    let directory = Directory::named(&path).unwrap();
    assert_eq!(names(&path), [MARK]);
    drop(directory);
    assert!(names(&path).is_empty());
}

#[test]
fn memory_comes_first_and_what_is_not_there_is_passed_over() {
    let disk = tempfile::tempdir().unwrap();
    let disk = disk.path().to_str().unwrap();
    let ambient = Ambient::from([("XDG_RUNTIME_DIR", "/nowhere"), ("TMPDIR", disk)]);
    let expected = ["/dev/shm", disk].map(PathBuf::from);
    assert_eq!(bases(&ambient), expected);
    assert!(is_memory(Path::new("/dev/shm")) && !is_memory(Path::new("/proc")));
    let directory = Directory::make(&ambient).unwrap();
    assert!(directory.in_memory && directory.path().starts_with("/dev/shm"), "{directory:?}");
}
