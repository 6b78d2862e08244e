//! A private Postgres server, on a free port of loopback, with a folder of its own.
//!
//! It is Debian's, never a mock, and keeps what it commits (`fsync` is on). It ends with its value. Postgres
//! does not run as root: there it runs as the user that its package made.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::false_system::FalseSystem;
use crate::process::Process;
use crate::redis::free_port;
use crate::skips::for_want_of_a_tool;

/// How long a start may take, with the recovery after a crash.
const STARTED: Duration = Duration::from_secs(60);

/// Where Debian keeps the programs, one folder for each version.
const PROGRAMS: &str = "/usr/lib/postgresql";

/// The user that its package makes.
const USER: &str = "postgres";

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    port: u16,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
    folder: tempfile::TempDir,
    suspended: Vec<Pid>,
}

impl Postgres {
    /// Whether there is one to be started; under `ROOMKEEPER_TESTS=full` there must be.
    #[must_use]
    pub fn is_here() -> bool {
        let is_here = program("initdb").is_some();
        if !is_here {
            for_want_of_a_tool("postgresql is not installed");
        }
        is_here
    }

    /// A server as it is installed.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with these settings, each `name=value`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Self {
        Self::make(settings, Vec::new())
    }

    /// A server to which the system lies. The value must outlive it.
    #[must_use]
    pub fn start_under(system: &FalseSystem) -> Self {
        system.paths().iter().for_each(|path| own(path));
        let environment = system.environment().into_iter();
        Self::make(&[], environment.map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn make(settings: &[&str], environment: Vec<(String, String)>) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        own(folder.path());
        let mut make = as_user("initdb");
        make.args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]);
        make.args(["--username", USER, "--no-instructions", "--pgdata"]);
        let made = make.arg(folder.path().join("data")).stdin(Stdio::null()).output();
        let made = made.expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let settings: Vec<_> = settings.iter().map(ToString::to_string).collect();
        Self::run(settings, environment, folder)
    }

    fn run(
        settings: Vec<String>,
        environment: Vec<(String, String)>,
        folder: tempfile::TempDir,
    ) -> Self {
        let port = free_port();
        let process = launch(port, &settings, &environment, folder.path());
        Self { process, port, settings, environment, folder, suspended: Vec::new() }
    }

    /// A copy of this one, which follows it and takes no writes.
    ///
    /// # Panics
    /// When it can't be made, or does not start.
    #[must_use]
    pub fn start_replica(&self) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        own(folder.path());
        let mut copy = as_user("pg_basebackup");
        copy.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER, "--no-sync"]);
        copy.args(["--checkpoint=fast", "--write-recovery-conf", "-D"]);
        let made = copy.arg(folder.path().join("data")).stdin(Stdio::null()).output();
        let made = made.expect("pg_basebackup runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self::run(Vec::new(), Vec::new(), folder)
    }

    /// Has a replica follow nobody any more: what is committed from here on it does not get.
    pub fn stop_following(&self) {
        self.tell("ALTER SYSTEM SET primary_conninfo = ''");
        self.tell("SELECT pg_reload_conf()");
        self.until("SELECT count(*) FROM pg_stat_wal_receiver", "0");
    }

    /// Makes a replica the primary.
    pub fn promote(&self) {
        self.tell("SELECT pg_promote(true, 60)");
        self.until("SELECT pg_is_in_recovery()", "f");
    }

    /// Asks until this is the answer.
    ///
    /// # Panics
    /// When it does not come within a minute.
    pub fn until(&self, statement: &str, wanted: &str) {
        let begin = Instant::now();
        loop {
            let answer = self.ask(statement);
            if answer == wanted {
                return;
            }
            assert!(begin.elapsed() < STARTED, "{statement}: {answer} and not {wanted}");
        }
    }

    /// Where it is, as clients are told.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same by way of another port, where something stands between.
    #[must_use]
    pub fn url_at(&self, port: u16) -> String {
        format!("postgres://{USER}@127.0.0.1:{port}/postgres?sslmode=disable")
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

    /// Ends it at once, with all that is under way, as `pg_ctl stop -m immediate` does, and waits until
    /// it is gone.
    pub fn crash(&mut self) {
        tell(self.id(), Signal::QUIT);
        self.process.wait(STARTED);
    }

    /// Stops it in order, without waiting for those who are connected, as `pg_ctl stop` does, and waits until it is
    /// gone.
    pub fn stop(&mut self) {
        tell(self.id(), Signal::INT);
        self.process.wait(STARTED);
    }

    /// Starts it again, on the same port, with what it has on disk.
    pub fn start_again(&mut self) {
        self.process.kill();
        self.process = launch(self.port, &self.settings, &self.environment, self.folder.path());
    }

    /// The same, with other settings.
    pub fn start_again_with(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(ToString::to_string).collect();
        self.start_again();
    }

    /// Stops it and everything that it has begun where they are (SIGSTOP).
    ///
    /// # Panics
    /// When its processes can't be listed.
    pub fn suspend(&mut self) {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children.expect("the kernel lists children");
        // The first one first: it begins no other then.
        let ids = std::iter::once(self.id());
        let ids =
            ids.chain(children.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)));
        self.suspended = ids.collect();
        self.suspended.iter().for_each(|id| tell(*id, Signal::STOP));
    }

    /// Lets it go on (SIGCONT).
    pub fn go_on(&mut self) {
        self.suspended.drain(..).for_each(|id| tell(id, Signal::CONT));
    }

    fn id(&self) -> Pid {
        i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a process id")
    }

    /// What it answers to a statement, as `psql` prints it: a line for each row.
    ///
    /// # Panics
    /// When it does not answer, or with an error.
    #[must_use]
    pub fn ask(&self, statement: &str) -> String {
        let output = self.psql(&["-c", statement]).output().expect("psql runs");
        let (said, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{statement}: {said}{errors}");
        said.trim_end().to_owned()
    }

    /// The same, where nothing of the answer is of interest.
    pub fn tell(&self, statement: &str) {
        let _answer = self.ask(statement);
    }

    /// A session of its own, which lives as long as its value: what it locks stays locked until then.
    #[must_use]
    pub fn session(&self, statement: &str) -> Process {
        let mut process = Process::start(self.psql(&[
            "-c",
            // Its end is noticed while it sleeps.
            "SET client_connection_check_interval = 50",
            "-c",
            statement,
            "-c",
            "SELECT 'done'",
            "-c",
            "SELECT pg_sleep(600)",
        ]));
        while process.next_line(STARTED).expect("it did what it was told") != "done" {}
        process
    }

    fn psql(&self, arguments: &[&str]) -> Command {
        let mut psql = Command::new("psql");
        psql.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER, "-d", "postgres"]);
        psql.args(["--no-psqlrc", "-tA", "-q", "-v", "ON_ERROR_STOP=1"]).args(arguments);
        psql.stdin(Stdio::null());
        psql
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.go_on();
        // Its children end with it, and tidily.
        tell(self.id(), Signal::QUIT);
        self.process.wait(STARTED);
    }
}

/// A signal to a process; one that has ended meanwhile needs none.
fn tell(id: Pid, signal: Signal) {
    let _ = kill_process(id, signal);
}

/// Where a program is: on the path, or the newest of Debian's.
fn program(name: &str) -> Option<PathBuf> {
    let mut versions: Vec<_> = fs::read_dir(PROGRAMS).ok()?.filter_map(Result::ok).collect();
    versions.sort_by_key(|folder| folder.file_name().to_str().and_then(|n| n.parse::<u32>().ok()));
    let paths = versions.iter().rev().map(|folder| folder.path().join("bin").join(name));
    paths.into_iter().find(|path| path.exists())
}

/// A program of the server, to be run as a user that it takes.
fn as_user(name: &str) -> Command {
    let path = program(name).expect("it is installed");
    if !rustix::process::geteuid().is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"]).arg(path);
    command
}

/// Gives a folder to that user.
///
/// # Panics
/// When it can't be given.
pub fn own(folder: &Path) {
    if rustix::process::geteuid().is_root() {
        let id = Command::new("id").args(["-u", USER]).output().expect("id runs").stdout;
        let id = String::from_utf8_lossy(&id).trim().parse().expect("a number");
        chown(folder, Some(id), None).expect("root may give it");
    }
}

fn launch(
    port: u16,
    settings: &[String],
    environment: &[(String, String)],
    folder: &Path,
) -> Process {
    let begin = Instant::now();
    loop {
        let mut server = as_user("postgres");
        server.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "shared_buffers=32MB",
            "max_connections=100",
            "log_statement=none",
        ] {
            server.args(["-c", setting]);
        }
        for setting in settings {
            server.args(["-c", setting]);
        }
        // What it says of itself goes to standard error, and is waited for at standard output.
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "exec \"$@\" 2>&1", "sh"])
            .arg(server.get_program())
            .args(server.get_args())
            .envs(environment.iter().map(|(name, value)| (name, value)));
        let mut process = Process::start(shell);
        loop {
            match process.next_line(STARTED) {
                Some(line) if line.contains("ready to accept") => return process,
                Some(_) => {}
                // Children of one that was killed hold its memory for a moment.
                None => break,
            }
        }
        assert!(begin.elapsed() < STARTED, "it ended: {}", process.report());
    }
}
