//! A full disk: durable rooms say when to come back, everything else goes on, and with space
//! they work again by themselves.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;
use tests::hosts::{Part, has};
use tests::server::Server;

use crate::client::{Client, data_of, offsets_of, until};

/// A file system of a few megabytes, for as long as the value lives.
struct TinyDisk {
    folder: TempDir,
}

impl TinyDisk {
    /// None where this user may not mount anything.
    #[allow(clippy::print_stderr, reason = "the word that says why a test did nothing")]
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(folder.path());
        if command.output().is_ok_and(|output| output.status.success()) {
            return Some(Self { folder });
        }
        let full = std::env::var_os("ROOMKEEPER_TESTS").is_some_and(|value| value == "full");
        assert!(
            !full,
            "a small file system can't be mounted (run as root), and full skips nothing"
        );
        eprintln!("skipped: only who may mount a file system can fill one up");
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
    let Some(disk) = TinyDisk::mount() else { return };
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
    let Some(disk) = TinyDisk::mount() else { return };
    disk.fill();
    let data = disk.path().join("data");
    let data = data.to_str().unwrap();
    let arguments =
        ["serve", "--profile", "testing", "--listen", "127.0.0.1:0", "--data-dir", data];
    let (code, stdout, stderr) = tests::server::exit_of(&arguments);
    assert_eq!((code, stdout.as_str()), (Some(74), ""), "{stderr}");
    assert!(stderr.contains(data) && stderr.contains("full"), "{stderr}");
}
