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
    let name = Owner::ourselves().unwrap().to_string();
    let mut parts = name.split('-');
    let (pid, started, namespace) =
        (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let started: u64 = started.parse::<u64>().unwrap() - 1;
    let path = base.join(format!("{PREFIX}{pid}-{started}-{namespace}-00ff"));
    DirBuilder::new().mode(0o700).create(&path).unwrap();
    fs::write(path.join("pgpass"), "secret").unwrap();
    path
}

#[test]
fn a_file_is_this_users_alone_and_replaced_at_one_stroke() {
    let base = tempfile::tempdir().unwrap();
    let mut directory = Directory::make_in(base.path(), None, false).unwrap();
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
    let directory = Directory::make_in(base.path(), None, false).unwrap();
    directory.fifo("key").unwrap();
    let path = directory.path().join("key");
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
    assert_eq!(mode(&path), 0o600);
    directory.fifo("key").unwrap();
    directory.unlink("key").unwrap();
    directory.unlink("key").unwrap();
    fs::create_dir_all(directory.path().join("of/the/command")).unwrap();
    drop(directory);
    assert!(names(base.path()).is_empty());
}

#[test]
fn what_a_killed_run_left_is_swept_and_nothing_else() {
    let base = tempfile::tempdir().unwrap();
    let dead = left(base.path());
    let owner = Owner::ourselves();
    let alive = Directory::make_in(base.path(), owner.as_ref(), false).unwrap();
    fs::create_dir(base.path().join("dayfly-notes")).unwrap();
    fs::write(base.path().join("dayfly-1-1-1-00ff"), "a file").unwrap();
    sweep(base.path(), owner.as_ref());
    assert!(!dead.exists() && alive.path().exists());
    assert_eq!(names(base.path()).len(), 3);

    let shared = left(base.path());
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    sweep(base.path(), owner.as_ref());
    assert!(shared.exists(), "no run of ours has made that");
}

#[test]
fn a_named_directory_is_made_or_was_empty_and_private() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("files");
    let directory = Directory::named(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
    assert!(matches!(Directory::named(&path), Err(Error::Used { .. })), "its run is alive");
    drop(directory);
    assert!(!path.exists());

    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(Directory::named(&path), Err(Error::Shared { .. })));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(path.join("pgpass"), "mine").unwrap();
    assert!(matches!(Directory::named(&path), Err(Error::Used { .. })));
    assert_eq!(fs::read_to_string(path.join("pgpass")).unwrap(), "mine");

    let dead = left(base.path());
    let mark = dead.file_name().unwrap().to_str().unwrap();
    let mark = mark.strip_prefix(PREFIX).unwrap().strip_suffix("-00ff").unwrap();
    fs::write(path.join(format!("{MARK}{mark}")), "").unwrap();
    let directory = Directory::named(&path).unwrap();
    assert_eq!(names(&path).len(), 1, "its own mark");
    drop(directory);
    std::os::unix::fs::symlink(base.path(), &path).unwrap();
    assert!(matches!(Directory::named(&path), Err(Error::Shared { .. })), "a link");
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
