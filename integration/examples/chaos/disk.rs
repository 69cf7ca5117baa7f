//! A small disk for the embedded store, which can be filled.
//!
//! Invariant: it is unmounted when it is dropped, also while it is full.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// A tmpfs, where we may mount one.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: TempDir,
    mounted: bool,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("dfd").tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=512m,mode=700", "tmpfs"]).arg(directory.path());
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !mounted {
            println!("not run: a full disk (a tmpfs can only be mounted by root)");
        }
        Self { directory, mounted }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Whether it can be filled without filling anything else.
    pub(crate) fn is_small(&self) -> bool {
        self.mounted
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Leaves no byte free.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.ballast()).unwrap();
        for size in [1 << 20, 4_096, 1] {
            let zeros = vec![0_u8; size];
            while file.write_all(&zeros).is_ok() {}
        }
    }

    pub(crate) fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let unmount = Command::new("umount").arg("-l").arg(self.path()).status();
            drop(unmount);
        }
    }
}
