//! A server that is killed while it starts, while it brings an archive up to date and while it stops, and what
//! each signal does: whatever happened, it can be started again.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tests::process::Process;
use tests::server::{Server, command};

use crate::client::{Client, until};

const DURABLE: [&str; 2] = ["--set", "namespaces.public.durable=true"];
/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(30);

fn serve(data: &Path) -> Process {
    let mut serve = Command::new(command().get_program());
    serve.args(["serve", "--profile", "testing", "--listen", "127.0.0.1:0", "--data-dir"]);
    serve.arg(data).args(DURABLE).arg("--set").arg("log.filter=debug");
    Process::start(serve)
}

/// Waits without a pause, since what it waits for may be there for microseconds only.
fn until_seen(process: &mut Process, is_there: impl Fn(&Process) -> bool) {
    let begun = Instant::now();
    while !is_there(&*process) {
        assert!(process.is_running(), "{}", process.report());
        assert!(begun.elapsed() < DEADLINE, "{}", process.report());
    }
}

/// N06: at what can be seen from outside of a start: each file that it makes, each line that it says; the first
/// start makes the archive, which is its migration, too.
#[test]
fn killed_at_any_step_of_its_start_it_starts_again_and_has_lost_nothing() {
    let data = tempfile::tempdir().unwrap();
    let has = |file: &'static str| {
        let path = data.path().join(file);
        move |_: &Process| path.exists()
    };
    type Step<'s> = (&'s str, Box<dyn Fn(&Process) -> bool>);
    let mut steps: Vec<Step<'_>> = vec![
        ("before anything", Box::new(|_| true)),
        ("the lock", Box::new(has("roomkeeper.lock"))),
        ("the archive", Box::new(has("roomkeeper.db"))),
        ("its log", Box::new(has("roomkeeper.db-wal"))),
        ("the ticket secret", Box::new(has("ticket-secret"))),
    ];
    for lines in 1..=4 {
        steps.push(("a line", Box::new(move |p: &Process| p.stderr().lines().count() >= lines)));
    }
    steps.push(("it listens", Box::new(|p| p.stderr().contains("127.0.0.1:"))));
    let (mut epoch, mut said) = (None, 0_u64);
    // Twice: an archive that is new, and one that has something in it.
    for _ in 0..2 {
        for (what, is_there) in &steps {
            let mut process = serve(data.path());
            until_seen(&mut process, is_there);
            process.kill();
            drop(process);
            let path = data.path().to_str().unwrap();
            let server = Server::start(&[&["--data-dir", path][..], &DURABLE].concat());
            let mut ann = Client::open(&server);
            let log = ann.log("public:a", 1_000);
            assert_eq!(log.len() as u64, said, "killed at {what}");
            let ack = ann.publish("public:a", said);
            said += 1;
            assert_eq!(ack["offset"], said);
            assert_eq!(epoch.get_or_insert_with(|| ack["epoch"].clone()), &ack["epoch"], "{what}");
        }
    }
}

/// N06: while it lets its clients go, in both ways, and while it waits for those that do not go.
#[test]
fn killed_while_it_drains_it_starts_again_and_has_lost_nothing() {
    for mode in ["early", "paced"] {
        let mode = format!("server.drain_mode={mode}");
        let window = "server.drain_window_ms=60000";
        let mut server =
            Server::start_durable(&[&DURABLE[..], &["--set", &mode, "--set", window]].concat());
        let mut said = 0_u64;
        for n_gone in 0..3 {
            let mut clients: Vec<_> = (0..20).map(|_| Client::open(&server)).collect();
            for client in &mut clients {
                client.publish("public:a", said);
                said += 1;
            }
            server.terminate();
            until("it says that it stops", || server.log().contains("stopping").then_some(()));
            // The first of a paced drain goes at once, the next within seconds.
            for client in clients.iter_mut().take(n_gone) {
                client.socket.read_close_code();
            }
            server.kill();
            server.restart();
            let log = Client::open(&server).log("public:a", 1_000);
            assert_eq!(log.len() as u64, said, "{mode}");
        }
    }
}

fn signal(server: &Server, signal: Signal) {
    kill_process(Pid::from_raw(server.id().cast_signed()).unwrap(), signal).unwrap();
}

/// N03: SIGTERM and SIGINT stop in order, SIGHUP reloads, SIGPIPE, SIGUSR1 and SIGUSR2 do nothing, SIGQUIT ends at
/// once. The second SIGTERM stands with the drain.
#[test]
fn each_signal_does_what_the_documentation_says() {
    for ending in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&["--set", "server.drain_window_ms=1000"]);
        let mut ann = Client::open(&server);
        signal(&server, ending);
        assert_eq!(ann.until_closed().1, 1012);
        assert_eq!(server.wait().code, Some(0));
    }
    let mut server = Server::start(&[]);
    let mut ann = Client::open(&server);
    for nothing in [Signal::PIPE, Signal::USR1, Signal::USR2] {
        signal(&server, nothing);
        ann.publish("public:a", 1);
    }
    signal(&server, Signal::HUP);
    until("it has reloaded", || server.log().contains("the settings were reloaded").then_some(()));
    ann.publish("public:a", 2);
    signal(&server, Signal::QUIT);
    assert_eq!(server.wait().code, None, "by the signal itself");
}
