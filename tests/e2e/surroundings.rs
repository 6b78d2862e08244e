//! The system around the server: users without a name, disks that can't be written, few
//! descriptors, ports that are not to be had.
//!
//! Other users and mounts need root and the tools of util-linux.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::process::Process;
use tests::server::{START_DEADLINE, STOP_DEADLINE, command, exit_of};
use tests::skips::{for_this_machine, has_tool, is_root};

use crate::client::{Client, until};
use crate::http::get;

/// A user that no file knows.
const NOBODY_KNOWN: &str = "54321";

/// A folder that every user may enter, with the binary in it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let binary = folder.path().join("roomkeeper");
        fs::copy(command().get_program(), &binary).unwrap();
        fs::set_permissions(&binary, Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn binary(&self) -> PathBuf {
        self.path().join("roomkeeper")
    }
}

/// Whether this test may change users and mounts; if not, says so, and the test returns.
#[track_caller]
fn may_change_users() -> bool {
    let tools = ["setpriv", "unshare", "prlimit"];
    is_root() && tools.iter().all(|tool| has_tool(tool, "--version"))
}

/// The words before the binary that make its user one that nobody knows.
const AS_NOBODY: [&str; 4] =
    ["--reuid=54321", "--regid=54321", "--clear-groups", "--bounding-set=-all"];

/// C07.
#[test]
fn it_runs_without_home_locale_user_name_standard_input_and_writable_disk() {
    if !may_change_users() {
        return;
    }
    let place = Place::new();
    let script = "mount -o bind,ro \"$1\" \"$1\" && cd \"$1\" && touch x 2>/dev/null && exit 9; \
                  shift; exec setpriv \"$@\" <&-";
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--mount", "sh", "-c", script, "sh"]).arg(place.path()).args(AS_NOBODY);
    wrapped.arg(place.binary()).args(["serve", "--listen", "127.0.0.1:0", "--profile", "testing"]);
    wrapped.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    wrapped.env("LC_ALL", "xx_XX.NOWHERE").env("LANG", "\u{1f}").env("TZ", "Nowhere/Odd");
    let mut server = Process::start(wrapped);
    let line = server.next_line(START_DEADLINE).unwrap_or_else(|| panic!("{}", server.report()));
    let addr = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
    assert_eq!(get(addr, "/readyz").status, 200);
    Client::open_at(addr, crate::client::PATH).publish("public:a", 1);
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    assert!(status.contains(NOBODY_KNOWN), "{status}");
    server.terminate();
    assert_eq!(server.wait(STOP_DEADLINE).code, Some(0));
}

#[test]
fn a_data_directory_on_a_disk_that_cannot_be_written_is_named() {
    if !may_change_users() {
        return;
    }
    let place = Place::new();
    let mut wrapped = Command::new("setpriv");
    wrapped.args(AS_NOBODY).arg(place.binary());
    wrapped.args(["serve", "--listen", "127.0.0.1:0"]).current_dir(place.path());
    let exit = Process::start(wrapped).wait(STOP_DEADLINE);
    assert!(matches!(exit.code, Some(74 | 77)), "{exit:?}");
    assert!(exit.stderr.contains("./data"), "{}", exit.stderr);
}

/// C04.
#[test]
fn a_port_that_the_user_may_not_have_ends_with_77() {
    let listen = ["serve", "--profile", "testing", "--listen", "127.0.0.1:81"];
    let exit = if rustix::process::geteuid().is_root() {
        if !may_change_users() {
            return;
        }
        let place = Place::new();
        let mut wrapped = Command::new("setpriv");
        wrapped.args(AS_NOBODY).arg(place.binary()).args(listen);
        Process::start(wrapped).wait(STOP_DEADLINE)
    } else {
        let mut plain = command();
        plain.args(listen);
        Process::start(plain).wait(STOP_DEADLINE)
    };
    assert_eq!((exit.code, exit.stdout.as_str()), (Some(77), ""), "{}", exit.stderr);
    assert!(exit.stderr.contains("127.0.0.1:81"), "{}", exit.stderr);
}

/// C04.
#[test]
fn a_host_that_has_no_address_ends_with_74_and_an_address_of_version_6_is_served() {
    let testing = ["serve", "--profile", "testing", "--listen"];
    let (code, stdout, stderr) = exit_of(&[&testing[..], &["nowhere.invalid:8000"]].concat());
    assert_eq!((code, stdout.as_str()), (Some(74), ""), "{stderr}");
    assert!(stderr.contains("server.listen = nowhere.invalid:8000"), "{stderr}");
    // An address that is not of this machine.
    let (code, _, stderr) = exit_of(&[&testing[..], &["192.0.2.1:8000"]].concat());
    assert_eq!(code, Some(74), "{stderr}");
    assert!(stderr.contains("192.0.2.1:8000"), "{stderr}");
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return for_this_machine("it has no address of version 6");
    }
    let server = tests::server::Server::start(&["--listen", "[::1]:0"]);
    assert_eq!(get(server.addr(), "/readyz").status, 200);
}

/// C08.
#[test]
fn fewer_descriptors_than_connections_lower_the_limit_with_a_warning() {
    let mut wrapped = Command::new("sh");
    wrapped.args(["-c", "ulimit -n 96; exec \"$@\"", "sh"]).arg(command().get_program());
    wrapped.args(["serve", "--listen", "127.0.0.1:0", "--profile", "testing"]);
    let mut server = Process::start(wrapped);
    let line = server.next_line(START_DEADLINE).unwrap_or_else(|| panic!("{}", server.report()));
    let addr = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
    let said = server.stderr();
    assert!(said.contains("the system allows 96 open files, so at most 32 connections"), "{said}");
    Client::open_at(addr, crate::client::PATH).publish("public:a", 1);
    server.terminate();
    assert_eq!(server.wait(STOP_DEADLINE).code, Some(0));
}

/// R13.
#[test]
fn where_no_further_thread_is_to_be_had_everything_goes_on() {
    if !may_change_users() {
        return;
    }
    let place = Place::new();
    let data = place.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, Permissions::from_mode(0o777)).unwrap();
    let mut wrapped = Command::new("setpriv");
    wrapped.args(AS_NOBODY).arg(place.binary()).args(["serve", "--listen", "127.0.0.1:0"]);
    wrapped.args(["--profile", "testing", "--set", "namespaces.public.durable=true"]);
    wrapped.arg("--data-dir").arg(&data).current_dir(place.path());
    let mut server = Process::start(wrapped);
    let line = server.next_line(START_DEADLINE).unwrap_or_else(|| panic!("{}", server.report()));
    let addr = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
    let open = || Client::open_at(addr, crate::client::PATH);
    let (mut ann, mut bob) = (open(), open());
    bob.subscribe("public:stored");

    // Nobody else has this user, so its limit is this process's; and only it may set it.
    let mut limit = Command::new("setpriv");
    limit.args(AS_NOBODY).args(["prlimit", "--nproc=1:1", "--pid", &server.id().to_string()]);
    let limited = Process::start(limit).wait(STOP_DEADLINE);
    assert_eq!(limited.code, Some(0), "{limited:?}");
    let crowd: Vec<_> = (0..20).map(|_| open()).collect();
    ann.publish("public:stored", "kept");
    assert_eq!(bob.next()["data"], "kept");
    for mut client in crowd {
        assert_eq!(client.log("public:stored", 10).len(), 1);
    }
    // Scrapes and reloads are done beside the rest.
    std::thread::scope(|scope| {
        let scrapes: Vec<_> = (0..8).map(|_| scope.spawn(|| get(addr, "/metrics"))).collect();
        for scrape in scrapes {
            assert_eq!(scrape.join().unwrap().status, 200);
        }
    });
    server.hang_up();
    until("it has read its settings again", || {
        server.stderr().contains("the settings were reloaded").then_some(())
    });
    assert_eq!(get(addr, "/readyz").status, 200);
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
    server.terminate();
    assert_eq!(server.wait(STOP_DEADLINE).code, Some(0));
}
