//! A disk that is small enough to be filled.
//!
//! It is a file system in memory, which only root may mount; it is gone with its value.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use tests::postgres::{Postgres, own};
use tests::skips::for_this_machine;

/// A small file system that Postgres may write to.
pub(crate) struct TinyDisk(tempfile::TempDir);

impl TinyDisk {
    /// None where nobody may mount one.
    pub(crate) fn mount(mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path());
        if !mount.output().is_ok_and(|output| output.status.success()) {
            for_this_machine("only who may mount a file system can fill one up");
            return None;
        }
        own(folder.path());
        Some(Self(folder))
    }

    /// Has Postgres make its tables here, while its write-ahead log stays where it is. Answers the address for those
    /// whose tables they are.
    pub(crate) fn given_to(&self, postgres: &Postgres) -> String {
        let place = self.0.path().display();
        postgres.tell(&format!("CREATE TABLESPACE tiny LOCATION '{place}'"));
        format!("{}&options[default_tablespace]=tiny", postgres.url())
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.ballast()).unwrap();
        for size in [65_536, 4_096, 1] {
            while file.write(&vec![0; size]).is_ok_and(|written| written > 0) {}
        }
    }

    /// Takes away what it was filled with.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).output());
    }
}
