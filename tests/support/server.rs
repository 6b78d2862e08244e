//! The built binary as a process: started on a free port, watched, killed, started again.
//!
//! ```no_run
//! use tests::server::Server;
//!
//! let mut server = Server::start(&["--set", "limits.rooms_per_connection=2"]);
//! let url = server.ws("/ws/v2/connect");
//! server.kill();
//! server.restart();
//! ```
//!
//! When a test panics, what the server wrote to standard error is printed with it. When it does
//! not, that is searched for what must not be logged, and so are its metrics; see [`crate::leaks`].

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use crate::hosts::Host;
use crate::leaks;
use crate::process::{Exit, Process};

/// How long a start may take, on a machine that is busy with other tests.
pub const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long an end may take.
pub const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// A running server.
#[derive(Debug)]
pub struct Server {
    process: Process,
    addr: SocketAddr,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// What comes before the command.
    words: Vec<String>,
    data: Option<TempDir>,
}

impl Server {
    /// Starts `roomkeeper serve --profile testing --listen 127.0.0.1:0` with further arguments;
    /// a `--profile` or `--listen` among them takes the place of the default.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// Like [`Server::start`], with environment variables.
    #[must_use]
    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        Self::launch(arguments, environment.iter().map(own).collect(), None)
    }

    /// Like [`Server::start`], with a folder for data that lives as long as this value, so that
    /// [`Server::restart`] finds what was written.
    #[must_use]
    pub fn start_durable(arguments: &[&str]) -> Self {
        let data = TempDir::with_prefix("roomkeeper-").expect("a temporary folder");
        let path = data.path().to_str().expect("a folder's name is UTF-8").to_owned();
        let mut all = vec!["--data-dir".to_owned(), path];
        all.extend(arguments.iter().map(|&word| word.to_owned()));
        Self::launch(all, Vec::new(), Some(data))
    }

    /// Like [`Server::start`], behind words that come before the command: what makes it run in a
    /// cgroup, as another user, or with its log elsewhere.
    #[must_use]
    pub fn start_under(words: &[String], arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|&word| word.to_owned()).collect();
        let (process, addr) = serve(words, &arguments, &[]);
        Self {
            process,
            addr,
            arguments,
            environment: Vec::new(),
            words: words.to_vec(),
            data: None,
        }
    }

    fn launch(
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
        data: Option<TempDir>,
    ) -> Self {
        let (process, addr) = serve(&[], &arguments, &environment);
        Self { process, addr, arguments, environment, words: Vec::new(), data }
    }

    /// Starts it again after its end, with the same arguments, data and port.
    pub fn restart(&mut self) {
        assert!(!self.process.is_running(), "kill it, or terminate and wait, before the restart");
        self.check_log();
        let mut arguments = self.arguments.clone();
        match arguments.iter().position(|word| word == "--listen") {
            Some(at) => arguments[at + 1] = self.addr.to_string(),
            None => arguments.extend(["--listen".to_owned(), self.addr.to_string()]),
        }
        (self.process, self.addr) = serve(&self.words, &arguments, &self.environment);
    }

    /// Searches all that it logged for what must not be there.
    fn check_log(&mut self) {
        if let Some(leak) = leaks::find(&self.process.whole_stderr()) {
            panic!("no token, key or payload may be logged: {leak}");
        }
    }

    /// Searches what it counts for what must not be there, if everybody may see that.
    fn check_metrics(&mut self) {
        if self.process.is_running()
            && let Some(leak) = scraped(self.addr).as_deref().and_then(leaks::find)
        {
            panic!("no token, key or payload may be in a metric: {leak}");
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://ADDR:PORT` and a path that begins with `/`.
    #[must_use]
    pub fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// `https://localhost:PORT` and a path, for a server with TLS: certificates of the tests are for
    /// that name.
    #[must_use]
    pub fn https(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.addr.port())
    }

    /// The same with `wss://`.
    #[must_use]
    pub fn wss(&self, path: &str) -> String {
        format!("wss://localhost:{}{path}", self.addr.port())
    }

    /// `ws://ADDR:PORT` and a path that begins with `/`.
    #[must_use]
    pub fn ws(&self, path: &str) -> String {
        format!("ws://{}{path}", self.addr)
    }

    /// The folder of [`Server::start_durable`].
    #[must_use]
    pub fn data(&self) -> Option<&Path> {
        self.data.as_ref().map(TempDir::path)
    }

    /// Ends it without a word (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it by this signal, as a fault of its own would (SIGABRT, SIGSEGV), and waits until it is gone.
    pub fn fault(&mut self, signal: rustix::process::Signal) {
        self.process.fault(signal);
    }

    /// Asks it to end (SIGTERM); [`Server::wait`] sees the end.
    pub fn terminate(&mut self) {
        self.check_metrics();
        self.process.terminate();
    }

    /// Asks it to read its settings again (SIGHUP); its log tells what came of it.
    pub fn hang_up(&mut self) {
        self.process.hang_up();
    }

    /// Stops it where it is (SIGSTOP), until [`Server::go_on`].
    pub fn suspend(&mut self) {
        self.process.suspend();
    }

    /// Lets one that was suspended go on (SIGCONT).
    pub fn go_on(&mut self) {
        self.process.go_on();
    }

    /// Waits for the end, 30 seconds at most.
    pub fn wait(&mut self) -> Exit {
        self.process.wait(STOP_DEADLINE)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Resident memory, in bytes. Linux only.
    #[must_use]
    pub fn rss_bytes(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let words = line.expect("a running process has memory");
        let kib = words.trim().trim_end_matches("kB").trim().parse::<u64>();
        kib.expect("VmRSS is a number") * 1024
    }

    /// Open descriptors. Linux only.
    #[must_use]
    pub fn open_fds(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.id());
        fs::read_dir(folder).expect("a running process has descriptors").count()
    }

    /// Processor time used so far, in user and kernel mode together. Linux only.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        // Fields 14 and 15 of proc_pid_stat(5), counted after the name in parentheses, in ticks of
        // which Linux shows user space 100 a second on every machine.
        let stat = self.proc("stat");
        let (_, after_name) = stat.rsplit_once(')').expect("stat has a name in parentheses");
        let fields = after_name.split_whitespace().skip(11).take(2);
        let ticks = fields.map(|field| field.parse::<u64>().expect("a number of ticks"));
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.id());
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }
}

impl Drop for Server {
    #[allow(clippy::print_stderr, reason = "shown by the test harness when the test fails")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check_metrics();
        }
        self.process.kill();
        if std::thread::panicking() {
            eprintln!("the server said: {}", self.process.report());
        } else {
            self.check_log();
        }
    }
}

/// The labels that `/metrics` shows, which is where a client's words could be; none where it needs a
/// key, is elsewhere, speaks TLS or takes nobody now.
fn scraped(addr: SocketAddr) -> Option<String> {
    const SOON: Duration = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&addr, SOON).ok()?;
    stream.set_read_timeout(Some(SOON)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let values = answer.lines().filter(|line| !line.starts_with('#'));
    let labels = values.filter_map(|line| line.split_once('{').map(|(_, labels)| labels));
    // Words of a-z are those of the code, and payloads of the tests are such words, too.
    let is_word = |text: &&str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let labels = labels.flat_map(|labels| labels.split('"')).filter(|text| !is_word(text));
    answer.starts_with("HTTP/1.1 200").then(|| labels.collect::<Vec<_>>().join("\n"))
}

/// Runs `roomkeeper` with these words until it ends by itself, 30 seconds at most.
#[must_use]
pub fn exit_of(arguments: &[&str]) -> (Option<i32>, String, String) {
    exit_of_with(arguments, &[])
}

/// Like [`exit_of`], with environment variables.
#[must_use]
pub fn exit_of_with(
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (Option<i32>, String, String) {
    let mut command = command();
    command.args(arguments).envs(environment.iter().copied());
    let exit = Process::start(command).wait(STOP_DEADLINE);
    (exit.code, exit.stdout, exit.stderr)
}

fn serve(
    words: &[String],
    arguments: &[String],
    environment: &[(String, String)],
) -> (Process, SocketAddr) {
    let mut command = match words {
        [] => deaf(host()),
        [program, rest @ ..] => {
            let mut command = deaf(Path::new(program));
            command.args(rest).arg(host());
            command
        }
    };
    command.arg("serve");
    for (name, default) in [("--profile", "testing"), ("--listen", "127.0.0.1:0")] {
        if !arguments.iter().any(|word| word == name) {
            command.args([name, default]);
        }
    }
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    let mut process = Process::start(command);
    let Some(line) = process.next_line(START_DEADLINE) else {
        let exit = process.wait(STOP_DEADLINE);
        panic!("it ended with {:?} instead of listening: {}", exit.code, process.report());
    };
    let addr = line.strip_prefix("listening on http").map(|rest| rest.trim_start_matches('s'));
    let addr = addr.and_then(|rest| rest.strip_prefix("://")).and_then(|addr| addr.parse().ok());
    let addr = addr.unwrap_or_else(|| panic!("not where it listens: {}", process.report()));
    (process, addr)
}

/// The binary, deaf to whatever configures a server outside of the tests.
#[must_use]
pub fn command() -> Command {
    deaf(binary())
}

fn deaf(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let documented = ["WS_", "WEBSOCKET_", "REDIS_", "DATABASE_URL", "NOTIFY_", "WATCHDOG_"];
        if name.starts_with("ROOMKEEPER_") || documented.iter().any(|d| name.starts_with(d)) {
            command.env_remove(&*name);
        }
    }
    command
}

/// What serves: cargo builds the other host along with the suites that are told of it.
fn host() -> &'static Path {
    static HOST: OnceLock<PathBuf> = OnceLock::new();
    HOST.get_or_init(|| match Host::under_test() {
        Host::Binary => binary().to_owned(),
        Host::BareTcp => {
            let test = std::env::current_exe().expect("a test knows its executable");
            let profile = test.parent().and_then(Path::parent).expect("it lies in target/*/deps");
            profile.join(format!("bare_tcp_host{}", std::env::consts::EXE_SUFFIX))
        }
    })
}

/// `ROOMKEEPER_BIN`, or the one beside the test's own executable, built if it isn't there.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("ROOMKEEPER_BIN") {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "ROOMKEEPER_BIN names {}, no file", path.display());
            return path;
        }
        // target/debug/deps/e2e-0123456789abcdef → target/debug/roomkeeper
        let test = std::env::current_exe().expect("a test knows its executable");
        let profile = test.parent().and_then(Path::parent).expect("it lies in target/*/deps");
        let path = profile.join(format!("roomkeeper{}", std::env::consts::EXE_SUFFIX));
        if !path.is_file() {
            build(profile);
        }
        assert!(path.is_file(), "cargo build -p bootstrap made no {}", path.display());
        path
    })
}

fn build(profile: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "-p", "bootstrap", "--target-dir"]);
    cargo.arg(profile.parent().expect("target/debug lies in target"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = cargo.output().expect("cargo runs");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo build -p bootstrap failed:\n{words}");
}
