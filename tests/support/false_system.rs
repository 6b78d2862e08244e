//! A system that lies to one server: a wall clock that is set, accepts that fail, no randomness.
//!
//! A library in C is put before those of the server; nothing of the machine is touched. It needs a C
//! compiler, and a server that is linked dynamically.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::skips;

const SOURCE: &str = include_str!("shim.c");
/// The places of the numbers in the file that both sides have, as the source names them.
const CLOCK_OFF_SECONDS: u64 = 0;
const ACCEPTS_THAT_FAIL: u64 = 1;
const ACCEPT_ERRNO: u64 = 2;
const NO_RANDOMNESS: u64 = 3;
const NUMBERS: usize = 8;

/// The lies, for as long as the value lives.
#[derive(Debug)]
pub struct FalseSystem {
    folder: TempDir,
    numbers: File,
}

impl FalseSystem {
    /// Compiles the library. It lies about nothing yet. None, with a word why, without a compiler.
    ///
    /// # Panics
    /// When the compiler refuses it.
    #[must_use]
    pub fn build() -> Option<Self> {
        let folder = TempDir::with_prefix("roomkeeper-shim-").expect("a temporary folder");
        let source = folder.path().join("shim.c");
        fs::write(&source, SOURCE).expect("a file in a new folder");
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O1", "-o"]);
        let Ok(output) = command.arg(folder.path().join("shim.so")).arg(&source).output() else {
            skips::for_want_of_a_tool("there is no C compiler");
            return None;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = folder.path().join("numbers");
        fs::write(&path, [0; NUMBERS * 8]).expect("a file in a new folder");
        let numbers = OpenOptions::new().write(true).open(&path).expect("a file of ours");
        Some(Self { folder, numbers })
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        path.to_str().expect("a folder's name is UTF-8").to_owned()
    }

    /// The variables that a server is to be started with.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [("LD_PRELOAD", self.path("shim.so")), ("FALSE_SYSTEM", self.path("numbers"))]
    }

    /// What a server under another user must be able to read and write.
    #[must_use]
    pub fn paths(&self) -> [PathBuf; 3] {
        let folder = self.folder.path();
        [folder.to_owned(), folder.join("shim.so"), folder.join("numbers")]
    }

    fn tell(&self, place: u64, number: i64) {
        let written = self.numbers.write_all_at(&number.to_ne_bytes(), place * 8);
        written.expect("a file of ours can be written");
    }

    /// Sets the wall clock off by so many seconds.
    pub fn set_clock_off(&self, seconds: i64) {
        self.tell(CLOCK_OFF_SECONDS, seconds);
    }

    /// Lets the next accepts fail.
    pub fn fail_accepts(&self, count: i64, errno: i32) {
        self.tell(ACCEPT_ERRNO, errno.into());
        self.tell(ACCEPTS_THAT_FAIL, count);
    }

    /// Takes the randomness away, or gives it back.
    pub fn set_randomness(&self, is_there: bool) {
        self.tell(NO_RANDOMNESS, i64::from(!is_there));
    }
}
