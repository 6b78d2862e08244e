//! A cgroup for one test, in either version, where this user may make one.
//!
//! It limits only what is started in it; the groups that are there already are left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::skips;

/// What a group limits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Controller {
    /// Memory.
    Memory,
    /// Processes and threads.
    Pids,
}

impl Controller {
    const fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    /// The file of its limit, in both versions.
    const fn limit_files(self) -> [&'static str; 2] {
        match self {
            Self::Memory => ["memory.max", "memory.limit_in_bytes"],
            Self::Pids => ["pids.max", "pids.max"],
        }
    }

    /// The file of what is used, in both versions.
    const fn usage_files(self) -> [&'static str; 2] {
        match self {
            Self::Memory => ["memory.current", "memory.usage_in_bytes"],
            Self::Pids => ["pids.current", "pids.current"],
        }
    }
}

/// A group, gone with its value. What runs in it must have ended by then.
#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
    controller: Controller,
}

impl Group {
    /// Makes one; none, with a word why, where that is not possible.
    #[must_use]
    #[track_caller]
    pub fn make(controller: Controller) -> Option<Self> {
        let name = format!("roomkeeper-test-{}-{}", std::process::id(), controller.word());
        let version_1 = Path::new("/sys/fs/cgroup").join(controller.word());
        for parent in [Path::new("/sys/fs/cgroup"), &version_1] {
            let group = Self { folder: parent.join(&name), controller };
            // Made on what is no cgroup file system, it has no file for its limit.
            if fs::create_dir(&group.folder).is_ok() && group.limit_file().is_some() {
                return Some(group);
            }
        }
        let word = controller.word();
        skips::for_this_machine(&format!("no cgroup with the controller {word} can be made"));
        None
    }

    fn file(&self, names: [&str; 2]) -> Option<PathBuf> {
        names.iter().map(|name| self.folder.join(name)).find(|path| path.is_file())
    }

    fn limit_file(&self) -> Option<PathBuf> {
        self.file(self.controller.limit_files())
    }

    /// Sets the limit.
    ///
    /// # Panics
    /// When the system refuses it.
    pub fn limit(&self, value: u64) {
        let path = self.limit_file().expect("a group has a limit");
        fs::write(&path, value.to_string()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// What is used now.
    ///
    /// # Panics
    /// When the system does not say.
    #[must_use]
    pub fn used(&self) -> u64 {
        let path = self.file(self.controller.usage_files()).expect("a group says what it uses");
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.trim().parse().expect("a number")
    }

    /// How many processes were killed in it for want of memory.
    #[must_use]
    pub fn killed(&self) -> u64 {
        let files = ["memory.events", "memory.oom_control"];
        let text = self.file(files).and_then(|path| fs::read_to_string(path).ok());
        let rows = text.unwrap_or_default();
        let row = rows.lines().find_map(|line| line.strip_prefix("oom_kill "));
        row.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    }

    /// Words before a command that make it run in the group.
    #[must_use]
    pub fn enter(&self) -> Vec<String> {
        let folder = self.folder.to_str().expect("a folder's name is UTF-8");
        let script = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        ["sh", "-c", script, folder].map(str::to_owned).to_vec()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that was just killed may still be leaving.
        let end = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.folder).is_err() && self.folder.is_dir() && Instant::now() < end
        {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}
