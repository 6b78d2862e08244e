//! Clients in other languages: runs the scripts of `tests/node` and `tests/python`.
//!
//! A machine without them skips such a test with a word; under `ROOMKEEPER_TESTS=full`, which is
//! how `tests/run` runs, what is missing is a failure. What the scripts send is noted by `sent.mjs` and
//! `sent.py`, whatever they send it with, and looked for in the server's log like everything else.
//!
//! ```no_run
//! use tests::foreign::{Tool, node, require};
//!
//! if require(Tool::Node) {
//!     let lines = node("echo.mjs", &["--url", "ws://127.0.0.1:8000/ws/v2/connect"]);
//!     assert!(lines.contains("hello"));
//! }
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::leaks;
use crate::process::Process;
use crate::skips;

/// How long a script may run, unless the test says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What a test may need that isn't Rust.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tool {
    /// Node with the packages of `tests/node`.
    Node,
    /// The same, with those that read the protocol's files.
    ProtocolReaders,
    /// Python with the packages of `tests/python`.
    Python,
    /// nginx.
    Nginx,
}

/// Whether the tool is there; if not, says so, and the test returns.
///
/// # Panics
///
/// Under `ROOMKEEPER_TESTS=full`, when the tool is missing.
#[must_use]
pub fn require(tool: Tool) -> bool {
    let Some(missing) = missing(tool) else { return true };
    skips::for_want_of_a_tool(&missing);
    false
}

fn missing(tool: Tool) -> Option<String> {
    let (name, program, packages) = match tool {
        Tool::Nginx => {
            let answers =
                Command::new("nginx").arg("-v").output().is_ok_and(|o| o.status.success());
            return (!answers).then(|| "nginx is not installed".to_owned());
        }
        Tool::Node => ("node", PathBuf::from("node"), folder("node").join("node_modules/ws")),
        Tool::ProtocolReaders => {
            ("node", PathBuf::from("node"), folder("node").join("node_modules/@asyncapi/parser"))
        }
        Tool::Python => ("python", python_program(), folder("python").join(".venv")),
    };
    if !packages.exists() {
        return Some(format!("the packages for {name} are not installed (tests/run clients)"));
    }
    let mut asked = Command::new(program);
    asked.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let answers = asked.status().is_ok_and(|status| status.success());
    (!answers).then(|| format!("{name} is not installed"))
}

/// Runs `tests/node/<script>` and gives its standard output; see [`DEADLINE`].
#[must_use]
pub fn node(script: &str, arguments: &[&str]) -> String {
    node_within(DEADLINE, script, arguments)
}

/// Like [`node`], with a deadline of its own.
#[must_use]
pub fn node_within(deadline: Duration, script: &str, arguments: &[&str]) -> String {
    run(deadline, Tool::Node, &folder("node").join(script), arguments)
}

/// Runs `tests/python/<script>` and gives its standard output; see [`DEADLINE`].
#[must_use]
pub fn python(script: &str, arguments: &[&str]) -> String {
    python_within(DEADLINE, script, arguments)
}

/// Like [`python`], with a deadline of its own.
#[must_use]
pub fn python_within(deadline: Duration, script: &str, arguments: &[&str]) -> String {
    run(deadline, Tool::Python, &folder("python").join(script), arguments)
}

/// The command that runs a script of this name, in the language of the tool.
///
/// # Panics
///
/// When the tool runs no scripts, or there is none of this name.
#[must_use]
pub fn script(tool: Tool, name: &str) -> Command {
    let mut command = interpreter(tool);
    let path = match tool {
        Tool::Python => folder("python").join(format!("{name}.py")),
        Tool::Node | Tool::ProtocolReaders | Tool::Nginx => {
            folder("node").join(format!("{name}.mjs"))
        }
    };
    assert!(path.is_file(), "there is no script {}", path.display());
    command.arg(path);
    command
}

/// The command that runs scripts of this tool and, as a [`Process`], remembers what they send.
///
/// # Panics
///
/// When the tool runs no scripts.
#[must_use]
pub fn interpreter(tool: Tool) -> Command {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut command = match tool {
        Tool::Node | Tool::ProtocolReaders => {
            let mut command = Command::new("node");
            command.arg("--import").arg(folder("node").join("sent.mjs"));
            command
        }
        Tool::Python => {
            let mut command = Command::new(python_program());
            command.arg(folder("python").join("sent.py"));
            command
        }
        Tool::Nginx => panic!("nginx runs no scripts"),
    };
    // Not made here: the script does that when it ends.
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("roomkeeper-sent-{}-{number}", std::process::id());
    command.env(leaks::RECORD, std::env::temp_dir().join(name));
    command
}

/// Where the packages of Node's scripts are.
#[must_use]
pub fn node_modules() -> PathBuf {
    folder("node").join("node_modules")
}

fn run(deadline: Duration, tool: Tool, script: &Path, arguments: &[&str]) -> String {
    assert!(script.is_file(), "there is no script {}", script.display());
    let mut command = interpreter(tool);
    command.arg(script).args(arguments);
    let mut process = Process::start(command);
    let exit = process.wait(deadline);
    assert!(exit.code == Some(0), "it ended with {:?}: {}", exit.code, process.report());
    exit.stdout
}

fn python_program() -> PathBuf {
    folder("python").join(".venv/bin/python")
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
