//! A small disk for a store or a server, which can be filled.
//!
//! Invariant: it is unmounted when it is dropped, also while it is full.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what it lacks")]

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// A tmpfs, where we may mount one.
#[derive(Debug)]
pub struct Disk {
    directory: TempDir,
    mounted: bool,
}

impl Disk {
    /// Of so many MiB.
    ///
    /// # Panics
    /// When there is no room for a directory.
    pub fn new(mebibytes: u32) -> Self {
        let directory = tempfile::Builder::new().prefix("dfd").tempdir().unwrap();
        let mut mount = Command::new("mount");
        let options = format!("size={mebibytes}m,mode=700");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path());
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        Self { directory, mounted }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Whether it can be filled without filling anything else: only root can mount one.
    pub fn is_small(&self) -> bool {
        self.mounted
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Leaves no byte free.
    ///
    /// # Panics
    /// When nothing can be written at all.
    pub fn fill(&self) {
        let mut file = File::create(self.ballast()).unwrap();
        for size in [1 << 20, 4_096, 1] {
            let zeros = vec![0_u8; size];
            while file.write_all(&zeros).is_ok() {}
        }
    }

    /// Gives back what [`Disk::fill`] took.
    ///
    /// # Panics
    /// When it was not filled.
    pub fn free(&self) {
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
