//! A full disk: durable rooms say when to come back, everything else goes on, and with space
//! they work again by themselves.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::hosts::{Part, has};
use tests::raw::RawSocket;
use tests::server::Server;
use tests::skips::for_this_machine;
use tests::{leaks, token};

use crate::client::{Client, PATH, data_of, offsets_of, secret, until};
use crate::http::get;

/// A file system of a few megabytes, for as long as the value lives.
struct TinyDisk {
    folder: TempDir,
}

impl TinyDisk {
    /// None where this user may not mount anything.
    #[track_caller]
    fn mount(mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("mount");
        let size = format!("size={mebibytes}m");
        command.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path());
        if command.output().is_ok_and(|output| output.status.success()) {
            return Some(Self { folder });
        }
        for_this_machine("only who may mount a file system can fill one up");
        None
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves no byte free.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = File::create(&path).unwrap();
        for size in [65_536, 4_096, 1] {
            while file.write(&vec![0; size]).is_ok_and(|written| written > 0) {}
        }
        path
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        // A server that still runs would keep it busy: it goes lazily then.
        drop(Command::new("umount").arg("-l").arg(self.path()).output());
    }
}

#[test]
fn on_a_full_disk_durable_rooms_wait_and_all_else_goes_on() {
    let Some(disk) = TinyDisk::mount(3) else { return };
    let data = disk.path().join("data");
    let server = Server::start(&[
        "--data-dir",
        data.to_str().unwrap(),
        "--set",
        "namespaces.public.durable=true",
        "--set",
        "rooms.\"public:memory\".durable=false",
    ]);
    let (mut ann, mut bob) = (Client::open(&server), Client::open(&server));
    let epoch = bob.subscribe("public:kept")["epoch"].clone();
    bob.subscribe("public:memory");
    ann.publish("public:kept", "before");
    let ballast = disk.fill();

    // What SQLite has already claimed is used up first.
    let large = "x".repeat(8_000);
    let mut taken = 1;
    let refused = until("the disk is full", || {
        let command = json!({"type": "publish", "room": "public:kept", "data": large});
        let answer = ann.call(command);
        taken += u64::from(answer["type"] == "ack");
        (answer["type"] == "error").then_some(answer)
    });
    assert_eq!((&refused["code"], &refused["error"]), (&json!(114), &json!("unavailable")));
    assert!(refused["retry_after_ms"].as_u64().unwrap() > 0, "{refused}");

    // Members stay, memory goes on, and what is there can still be read by who comes now.
    let received = bob.messages(usize::try_from(taken).unwrap());
    assert_eq!(offsets_of(&received), (1..=taken).collect::<Vec<_>>());
    ann.publish("public:memory", "still here");
    assert_eq!(bob.next()["data"], "still here");
    let mut late = Client::open(&server);
    let subscribed = late.subscribe_since("public:kept", &epoch, taken - 1);
    assert_eq!(subscribed["recovered"], true);
    assert_eq!(offsets_of(subscribed["messages"].as_array().unwrap()), [taken]);

    fs::remove_file(ballast).unwrap();
    let command = json!({"type": "publish", "room": "public:kept", "data": "after"});
    let ack = until("durable rooms work again", || {
        let answer = ann.call(command.clone());
        (answer["type"] == "ack").then_some(answer)
    });
    // Nothing that was refused has left a hole or come after all.
    assert_eq!((&ack["offset"], &ack["epoch"]), (&json!(taken + 1), &epoch));
    for member in [&mut bob, &mut late] {
        let message = member.next();
        assert_eq!((&message["data"], &message["offset"]), (&json!("after"), &json!(taken + 1)));
    }
    let log = late.log("public:kept", 1_000);
    assert_eq!(offsets_of(&log), (1..=taken + 1).collect::<Vec<_>>());
    assert_eq!(data_of(&log).last(), Some(&json!("after")));
}

#[test]
fn a_start_on_a_full_disk_says_so() {
    if !has(Part::ExitCodes) {
        return;
    }
    let Some(disk) = TinyDisk::mount(3) else { return };
    disk.fill();
    let data = disk.path().join("data");
    let data = data.to_str().unwrap();
    let arguments =
        ["serve", "--profile", "testing", "--listen", "127.0.0.1:0", "--data-dir", data];
    let (code, stdout, stderr) = tests::server::exit_of(&arguments);
    assert_eq!((code, stdout.as_str()), (Some(74), ""), "{stderr}");
    assert!(stderr.contains(data) && stderr.contains("full"), "{stderr}");
}

/// One that is refused for its token: a line of the security log, and one of the other log.
fn be_refused(server: &Server) {
    let claims = token::claims("eve", "chat:*");
    let forged = token::hs256("another-secret-that-is-long-enough-for-hs256", &claims);
    let mut socket = RawSocket::open(server.addr(), &format!("{PATH}?token={forged}"));
    assert_eq!(socket.read_close_code(), 3500);
}

/// How many lines were lost.
fn lines_lost(server: &Server) -> u64 {
    let shown = get(server.addr(), "/metrics").body;
    let lost = shown.lines().find_map(|line| line.strip_prefix("roomkeeper_log_lines_lost_total "));
    lost.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{shown}"))
}

/// R14: both logs lie on one disk of 1 MiB.
#[test]
fn a_log_on_a_full_disk_costs_lines_that_are_counted_and_nothing_else() {
    if !has(Part::ServerApi) {
        return;
    }
    let Some(disk) = TinyDisk::mount(1) else { return };
    let [log, security] = ["server.log", "security.log"].map(|name| disk.path().join(name));
    let script = "exec \"$@\" 2> \"$0\"";
    let words = ["sh", "-c", script, log.to_str().unwrap()].map(str::to_owned);
    let security_file = format!("log.security_file={}", security.display());
    let filter = "log.filter=debug";
    let settings = ["--set", &security_file, "--set", &secret(), "--set", filter];
    let mut server = Server::start_under(&words, &settings);
    let (mut ann, mut bob) = (Client::open(&server), Client::open(&server));
    bob.subscribe("public:on");
    be_refused(&server);
    until("a line of the security log", || {
        fs::read_to_string(&security)
            .is_ok_and(|text| text.contains("authentication_failed"))
            .then_some(())
    });
    assert_eq!(lines_lost(&server), 0);

    let ballast = disk.fill();
    until("lines are lost", || {
        be_refused(&server);
        (lines_lost(&server) > 2).then_some(())
    });
    ann.publish("public:on", "still here");
    assert_eq!(bob.next()["data"], "still here");
    drop(Client::open(&server));

    fs::remove_file(ballast).unwrap();
    let before = fs::metadata(&security).unwrap().len();
    until("lines are written again", || {
        be_refused(&server);
        (fs::metadata(&security).unwrap().len() > before + 200).then_some(())
    });
    server.terminate();
    assert_eq!(server.wait().code, Some(0));
    let (log, security) = (fs::read_to_string(log).unwrap(), fs::read_to_string(security).unwrap());
    assert!(log.contains("stopped"), "{log}");
    assert_eq!((leaks::find(&log), leaks::find(&security)), (None, None));
    // What the full disk cut is the rest of one line, and no other is hurt by it.
    let torn = security.lines().filter(|line| serde_json::from_str::<Value>(line).is_err());
    assert!(torn.count() <= 1, "{security}");
}
