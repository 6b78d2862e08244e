//! A private Redis server, on a free port of loopback, with a folder of its own.
//!
//! It is Debian's `redis-server`, or Valkey's; never a mock. It ends with its value.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::Process;
use crate::skips::has_tool;

/// How long a start may take.
const STARTED: Duration = Duration::from_secs(30);

/// A running server.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    scheme: &'static str,
    settings: Vec<String>,
    folder: tempfile::TempDir,
}

impl Redis {
    /// Whether there is one to be started; under `ROOMKEEPER_TESTS=full` there must be.
    #[must_use]
    pub fn is_here() -> bool {
        has_tool("redis-server", "--version")
    }

    /// A server that keeps nothing on disk.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"])
    }

    /// A server that has each write on disk before it answers.
    #[must_use]
    pub fn start_on_disk() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
    }

    /// A server with these settings.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let port = free_port();
        let settings: Vec<_> = settings.iter().map(ToString::to_string).collect();
        let process = launch(port, &settings, folder.path());
        Self { process, port, scheme: "redis", settings, folder }
    }

    /// Where it is, as clients are told.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// A server that speaks TLS and nothing else. What is asked of it here has no answer.
    #[must_use]
    pub fn start_tls(certificate: &Path, key: &Path) -> Self {
        let file = |path: &Path| path.display().to_string();
        let port = free_port();
        let (certificate, key, tls) = (file(certificate), file(key), port.to_string());
        let settings = [
            "--save",
            "",
            "--tls-port",
            &tls,
            "--port",
            "0",
            "--tls-auth-clients",
            "no",
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &certificate,
        ];
        let mut server = Self::start_with(&settings);
        (server.port, server.scheme) = (port, "rediss");
        server
    }

    /// A copy of this one, which follows it.
    #[must_use]
    pub fn start_replica(&self, more: &[&str]) -> Self {
        let master = format!("127.0.0.1 {}", self.port);
        let settings = [&["--save", "", "--replicaof", &master][..], more].concat();
        let replica = Self::start_with(&settings);
        replica.until(&["INFO", "replication"], "master_link_status:up");
        replica
    }

    /// Asks until the answer holds these words.
    ///
    /// # Panics
    /// When it does not within half a minute.
    pub fn until(&self, command: &[&str], words: &str) {
        let begin = std::time::Instant::now();
        loop {
            let answer = self.ask(command);
            if answer.contains(words) {
                return;
            }
            assert!(begin.elapsed() < STARTED, "no {words} comes of {command:?}: {answer}");
        }
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Ends it without a word (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, on the same port, with what it has on disk.
    pub fn start_again(&mut self) {
        self.process.kill();
        self.process = launch(self.port, &self.settings, self.folder.path());
    }

    /// Cuts so many bytes off the end of the log that one which was ended has on disk, as a machine may that lost
    /// its power.
    ///
    /// # Panics
    /// When it has no log, or a shorter one.
    pub fn cut_log(&self, bytes: u64) {
        let file = fs::File::options().write(true).open(self.log_file(".incr.aof"));
        let file = file.expect("it can be opened");
        let length = file.metadata().expect("it has a length").len();
        file.set_len(length.checked_sub(bytes).expect("it is longer")).expect("it can be cut");
    }

    /// Writes over a piece in the middle of that log, as a disk may that fails.
    ///
    /// # Panics
    /// When it has no log.
    pub fn damage_log(&self) {
        const PIECE: usize = 200;
        let path = self.log_file(".incr.aof");
        let mut log = fs::read(&path).expect("it can be read");
        let middle = log.len() / 2;
        // From where a command begins, so that it is no other command but none.
        let begins = log[middle..].windows(3).position(|three| three == b"\r\n*");
        let from = middle + 2 + begins.expect("one begins there");
        log[from..from + PIECE].fill(b'?');
        fs::write(path, log).expect("it can be written");
    }

    /// Has Redis's own tool cut off what can't be read of that log, and all behind it.
    ///
    /// # Panics
    /// When it does not.
    pub fn repair_log(&self) {
        let mut tool = Command::new("sh");
        tool.args(["-c", "yes | redis-check-aof --fix \"$0\""]).arg(self.log_file(".manifest"));
        let output = tool.stdin(Stdio::null()).output().expect("the tool runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The file of the log whose name ends so.
    fn log_file(&self, end: &str) -> PathBuf {
        let folder = self.folder.path().join("appendonlydir");
        let files = fs::read_dir(folder).expect("it has a log").filter_map(Result::ok);
        let ends = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(end))
        };
        files.map(|file| file.path()).find(ends).expect("it was written to")
    }

    /// Tries to start it again, in vain, and gives what it said.
    ///
    /// # Panics
    /// When it starts.
    pub fn fails_to_start(&mut self) -> String {
        self.process.kill();
        let mut process = Process::start(command(self.port, &self.settings, self.folder.path()));
        let mut said = String::new();
        while let Some(line) = process.next_line(STARTED) {
            assert!(!line.contains("Ready to accept connections"), "it starts");
            said.push_str(&line);
            said.push('\n');
        }
        said
    }

    /// Stops it where it is (SIGSTOP).
    pub fn suspend(&mut self) {
        self.process.suspend();
    }

    /// Lets it go on (SIGCONT).
    pub fn go_on(&mut self) {
        self.process.go_on();
    }

    /// What it answers to a command, as `redis-cli` prints it.
    ///
    /// # Panics
    /// When it does not answer, or with an error.
    #[must_use]
    pub fn ask(&self, command: &[&str]) -> String {
        self.try_ask(command).unwrap_or_else(|said| panic!("{command:?}: {said}"))
    }

    /// The same, where it may not know what to answer at the moment.
    ///
    /// # Errors
    /// What it said instead.
    pub fn try_ask(&self, command: &[&str]) -> Result<String, String> {
        let mut cli = Command::new("redis-cli");
        cli.args(["-p", &self.port.to_string(), "-e"]).args(command).stdin(Stdio::null());
        let output = cli.output().expect("redis-cli runs");
        let (said, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            return Ok(said.trim_end().to_owned());
        }
        Err(format!("{said}{errors}"))
    }

    /// The same, where nothing of the answer is of interest.
    pub fn tell(&self, command: &[&str]) {
        let _answer = self.ask(command);
    }
}

/// Given back at once; nobody else on this machine asks for this one meanwhile.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

fn command(port: u16, settings: &[String], folder: &Path) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"]);
    command.arg("--dir").arg(folder).args(settings);
    command
}

fn launch(port: u16, settings: &[String], folder: &Path) -> Process {
    let mut process = Process::start(command(port, settings, folder));
    loop {
        let line = process.next_line(STARTED);
        let line = line.unwrap_or_else(|| panic!("it ended: {}", process.report()));
        if line.contains("Ready to accept connections") {
            return process;
        }
    }
}
